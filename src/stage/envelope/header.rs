//! The 64 bytes that every record's value begins with, and the checks that need no decompression.
//!
//! Little-endian, in this order: magic `SEL1`, version u8, codec u8, kind u8, flags u8 (0), base offset u64, part u32,
//! parts u32, prev_end u64, count u32, raw_len u32, stored_len u32, received_first i64, received_last i64, crc32c u32.
//! The checksum covers the stage's name, the key, the 60 bytes before it and everything behind it.
//!
//! Version 2 is version 1, but that the payload of a gap says more. It is written only where there is more to say, so that an
//! older program reads all of a stage that it can understand.

use std::fmt;

use super::{Codec, EnvelopeError, GAP_PART, MAX_PARTS, MAX_PAYLOAD, MAX_STORED, key, parse_key};
use crate::record::{Offset, Timestamp};
use crate::stage::Period;

/// Bytes of the header.
pub(super) const LEN: usize = 64;

/// Where the checksum stands: at the header's end.
const CHECKSUM_AT: usize = 60;

const MAGIC: [u8; 4] = *b"SEL1";

/// The version of nearly every record.
const VERSION: u8 = 1;

/// The version of outages that are more than a stretch without a connection.
const VERSION_OF_DETAILS: u8 = 2;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Messages.
    Data,
    /// A stretch without a connection: an [`Outage`](crate::stage::Outage). It takes no offset.
    Gap,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Gap => 1,
        }
    }

    fn from_code(code: u8) -> Result<Self, EnvelopeError> {
        match code {
            0 => Ok(Self::Data),
            1 => Ok(Self::Gap),
            found => Err(EnvelopeError::Unknown { what: "kind", found }),
        }
    }
}

/// What a record says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it holds.
    pub kind: Kind,
    /// Whether the payload of a gap says more than times, messages and cause (version 2). Never for messages.
    pub has_details: bool,
    /// How its payload is compressed.
    pub codec: Codec,
    /// Offset of its first message; of the head when it was written, for a gap.
    pub base: Offset,
    /// Number of this part of a message that needs several records, else 0; for a gap
    /// [`GAP_PART`] and its sequence number.
    pub part: u32,
    /// How many records the message needs; 1 for every other record.
    pub parts: u32,
    /// The offset after the batch before. Below `base` only where offsets were skipped.
    pub prev_end: Offset,
    /// Messages; 1 in every part of a message that needs several, 0 in a gap.
    pub count: u32,
    /// Bytes of the payload before compression.
    pub raw_len: u32,
    /// Bytes of the payload as they stand in the record.
    pub stored_len: u32,
    /// When the first message came; when the outage began, for a gap.
    pub received_first: Timestamp,
    /// When the last message came; when the outage ended, for a gap.
    pub received_last: Timestamp,
}

impl Header {
    /// The offset after the record's last message. For all parts of one message it is the same.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.base.advanced_by(self.count.into())
    }

    /// The time from the first message to the last, or that of the outage.
    #[must_use]
    pub fn period(&self) -> Period {
        Period {
            from: self.received_first,
            to: self.received_last,
        }
    }

    /// Whether a whole batch ends with this record: it is the only or the last part of a message.
    #[must_use]
    pub fn is_last_part(&self) -> bool {
        self.kind == Kind::Gap || self.part + 1 == self.parts
    }

    /// The key that the record stands under.
    #[must_use]
    pub fn key(&self) -> [u8; 12] {
        key(self.base, self.part)
    }

    fn version(&self) -> u8 {
        if self.has_details {
            VERSION_OF_DETAILS
        } else {
            VERSION
        }
    }

    /// The value of the record of `stage` with this header and payload.
    pub(super) fn seal(&self, stage: &str, payload: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(LEN + payload.len());
        value.extend_from_slice(&MAGIC);
        value.extend_from_slice(&[self.version(), self.codec.code(), self.kind.code(), 0]);
        value.extend_from_slice(&self.base.get().to_le_bytes());
        value.extend_from_slice(&self.part.to_le_bytes());
        value.extend_from_slice(&self.parts.to_le_bytes());
        value.extend_from_slice(&self.prev_end.get().to_le_bytes());
        value.extend_from_slice(&self.count.to_le_bytes());
        value.extend_from_slice(&self.raw_len.to_le_bytes());
        value.extend_from_slice(&self.stored_len.to_le_bytes());
        value.extend_from_slice(&self.received_first.micros().to_le_bytes());
        value.extend_from_slice(&self.received_last.micros().to_le_bytes());
        let checksum = checksum(stage, &self.key(), &value, payload);
        value.extend_from_slice(&checksum.to_le_bytes());
        value.extend_from_slice(payload);
        value
    }

    /// Reads the fields of a header of a version that is known.
    fn parse(mut bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let bytes = &mut bytes;
        let [_, _, _, _, version, codec, kind, flags] = take::<8>(bytes)?;
        if flags != 0 {
            return Err(EnvelopeError::Unknown {
                what: "flags",
                found: flags,
            });
        }
        Ok(Self {
            codec: Codec::from_code(codec)?,
            kind: Kind::from_code(kind)?,
            has_details: version == VERSION_OF_DETAILS,
            base: Offset::new(u64::from_le_bytes(take(bytes)?)),
            part: u32::from_le_bytes(take(bytes)?),
            parts: u32::from_le_bytes(take(bytes)?),
            prev_end: Offset::new(u64::from_le_bytes(take(bytes)?)),
            count: u32::from_le_bytes(take(bytes)?),
            raw_len: u32::from_le_bytes(take(bytes)?),
            stored_len: u32::from_le_bytes(take(bytes)?),
            received_first: Timestamp::from_micros(i64::from_le_bytes(take(bytes)?)),
            received_last: Timestamp::from_micros(i64::from_le_bytes(take(bytes)?)),
        })
    }

    /// Whether the fields can stand together. Used for what is written as well as for what is read, so that nothing
    /// is written that would be refused later.
    pub(super) fn check(&self) -> Result<(), EnvelopeError> {
        let within = |what, found: u32, limit: usize| {
            if found as usize <= limit {
                Ok(())
            } else {
                Err(EnvelopeError::Limit {
                    what,
                    found: found.into(),
                    limit: limit as u64,
                })
            }
        };
        within("the payload's raw length", self.raw_len, MAX_PAYLOAD)?;
        within("the payload's stored length", self.stored_len, MAX_PAYLOAD)?;
        let refuse = |reason: &str| {
            Err(EnvelopeError::Inconsistent {
                base: self.base,
                reason: reason.to_owned(),
            })
        };
        if self.base.get().checked_add(self.count.into()).is_none() {
            return refuse("its messages have offsets beyond the last one");
        }
        if self.prev_end > self.base {
            return refuse("the batch before ends after its beginning");
        }
        match self.kind {
            Kind::Gap if self.part & GAP_PART == 0 => refuse("a gap under a message's key"),
            Kind::Gap if self.parts != 1 || self.count != 0 => refuse("a gap with parts or messages"),
            Kind::Gap => Ok(()),
            Kind::Data if self.has_details => refuse("messages of a version that has none"),
            Kind::Data => {
                within("the number of parts", self.parts, MAX_PARTS as usize)?;
                if self.part >= self.parts {
                    refuse("a part beyond the last one")
                } else if self.count == 0 {
                    refuse("no message")
                } else if self.parts > 1 && self.count != 1 {
                    refuse("several messages in parts")
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// A record whose checksum, key and header are verified; its payload is still compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// What it says about itself.
    pub header: Header,
    /// The payload as it stands in the record.
    pub payload: &'a [u8],
}

/// Shows the header only: payloads don't belong in logs.
impl fmt::Debug for Sealed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// Verifies a record of `stage` as it was read from the store: length, magic, version, key and checksum, and that the
/// header's fields can stand together. Nothing is decompressed.
///
/// # Errors
/// [`EnvelopeError::Newer`] for a sound record of a newer version; any other variant means damage.
pub fn open<'a>(stage: &str, key: &[u8], value: &'a [u8]) -> Result<Sealed<'a>, EnvelopeError> {
    let (key_offset, key_part) = parse_key(key).ok_or(EnvelopeError::KeyLength { found: key.len() })?;
    let Some((head, payload)) = value.split_at_checked(LEN) else {
        return Err(EnvelopeError::Truncated {
            needed: LEN,
            found: value.len(),
        });
    };
    let (fields, mut stored) = head.split_at(CHECKSUM_AT);
    let [magic @ .., version] = take::<5>(&mut &*fields)?;
    if magic != MAGIC {
        return Err(EnvelopeError::Magic);
    }

    // The fields come before the checksum only to name the damage better; nothing is believed yet.
    let parsed = Header::parse(fields);
    if let (VERSION | VERSION_OF_DETAILS, Ok(header)) = (version, &parsed) {
        let needed = LEN + header.stored_len as usize;
        if value.len() < needed {
            return Err(EnvelopeError::Truncated {
                needed,
                found: value.len(),
            });
        }
        if (header.base, header.part) != (key_offset, key_part) {
            return Err(EnvelopeError::KeyMismatch {
                offset: header.base,
                part: header.part,
                key_offset,
                key_part,
            });
        }
    }
    let stored = u32::from_le_bytes(take(&mut stored)?);
    let computed = checksum(stage, key, fields, payload);
    if stored != computed {
        return Err(EnvelopeError::Checksum { stored, computed });
    }

    match version {
        VERSION | VERSION_OF_DETAILS => {}
        0 => {
            return Err(EnvelopeError::Unknown {
                what: "version",
                found: version,
            });
        }
        _ => return Err(EnvelopeError::Newer { version }),
    }
    if value.len() > MAX_STORED {
        return Err(EnvelopeError::Limit {
            what: "the record's length",
            found: value.len() as u64,
            limit: MAX_STORED as u64,
        });
    }
    let header = parsed?;
    header.check()?;
    if payload.len() != header.stored_len as usize {
        return Err(EnvelopeError::Inconsistent {
            base: header.base,
            reason: "bytes behind the payload".to_owned(),
        });
    }
    Ok(Sealed { header, payload })
}

/// crc32c of everything that makes a record what it is.
fn checksum(stage: &str, key: &[u8], fields: &[u8], payload: &[u8]) -> u32 {
    [key, fields, payload]
        .iter()
        .fold(crc32c::crc32c(stage.as_bytes()), |sum, bytes| {
            crc32c::crc32c_append(sum, bytes)
        })
}

/// The next `N` bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], EnvelopeError> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(EnvelopeError::Truncated {
        needed: N,
        found: bytes.len(),
    })?;
    *bytes = rest;
    Ok(*taken)
}
