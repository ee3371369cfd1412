//! From records back to batches.

use super::codec::Decompressor;
use super::payload::decode_messages;
use super::{EnvelopeError, Header, Kind, MAX_PAYLOAD, Sealed};
use crate::stage::StagedBatch;

/// Joins the parts of large messages and decodes: is fed opened records in order, and yields a batch whenever one is
/// complete. It holds at most one message.
#[derive(Default)]
pub struct Assembler {
    decompressor: Decompressor,
    pending: Option<Pending>,
}

/// A message of which some parts have come.
struct Pending {
    /// Header of the part that came last.
    last: Header,
    /// The parts, decompressed.
    bytes: Vec<u8>,
}

impl Assembler {
    /// An assembler that waits for a first part.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record of kind data; returns the batch that it completes, or `None` while parts are missing.
    ///
    /// # Errors
    /// When the record does not continue those before it, or does not decode. The assembler is empty afterwards. With
    /// [`EnvelopeError::PartsIncomplete`] it is the message before whose parts are missing: the record itself may be
    /// pushed again.
    pub fn push(&mut self, record: &Sealed<'_>) -> Result<Option<StagedBatch>, EnvelopeError> {
        let header = record.header;
        let mut bytes = match self.pending.take() {
            _ if header.kind != Kind::Data => return Err(EnvelopeError::WrongKind { base: header.base }),
            None if header.part == 0 => Vec::new(),
            None => {
                return Err(EnvelopeError::PartUnexpected {
                    base: header.base,
                    part: header.part,
                });
            }
            Some(pending) if header.base != pending.last.base => {
                return Err(EnvelopeError::PartsIncomplete {
                    base: pending.last.base,
                    have: pending.last.part + 1,
                    parts: pending.last.parts,
                });
            }
            Some(pending) if !continues(&pending.last, &header) => {
                return Err(EnvelopeError::PartUnexpected {
                    base: header.base,
                    part: header.part,
                });
            }
            Some(pending) => pending.bytes,
        };
        // `open` has checked the length; whoever made this record otherwise gains nothing by a larger one.
        let raw_len = (header.raw_len as usize).min(MAX_PAYLOAD);
        self.decompressor
            .decompress(header.codec, record.payload, raw_len, &mut bytes)?;
        if !header.is_last_part() {
            self.pending = Some(Pending { last: header, bytes });
            return Ok(None);
        }
        let batch = decode_messages(bytes, &header)?;
        Ok(Some(StagedBatch {
            first: header.base,
            batch,
        }))
    }

    /// Whether no message is incomplete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_none()
    }

    /// Forgets the parts of an incomplete message.
    pub fn clear(&mut self) {
        self.pending = None;
    }
}

/// Whether `next` is the part after `last` of the same message.
fn continues(last: &Header, next: &Header) -> bool {
    let expected = Header {
        part: last.part + 1,
        codec: next.codec,
        raw_len: next.raw_len,
        stored_len: next.stored_len,
        ..*last
    };
    *next == expected
}
