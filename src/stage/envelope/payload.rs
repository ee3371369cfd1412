//! What a payload says once it is decompressed: bincode 2 of the messages, or of an outage.
//!
//! Messages: the payloads' lengths, the receive times (the first since the epoch, each other one since the one before; µs),
//! and all payloads back to back at the very end, so that the decompressed buffer becomes the batch's own.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};

use super::{EnvelopeError, Header, Kind, MAX_ASSEMBLED, MAX_PAYLOAD, MAX_STORED, Sealed};
use crate::record::{Batch, Timestamp};
use crate::stage::{Outage, OutageKind, Skip};

/// What bincode may claim to decode one record. A message takes 2 bytes of a payload at least, and 12 in memory.
const RECORD_CLAIM: usize = 8 * MAX_STORED;

/// What bincode may claim to decode one message that came in parts.
const ASSEMBLED_CLAIM: usize = MAX_ASSEMBLED + MAX_STORED;

/// The most bytes of an outage's cause that are kept.
const MAX_CAUSE: usize = 4096;

/// The most bytes of the key of a hole in the source's numbers that are kept.
const MAX_KEY: usize = 1024;

/// bincode's standard configuration, which is part of the format, and a limit, which is not.
fn config<const CLAIM: usize>() -> Configuration<LittleEndian, Varint, Limit<CLAIM>> {
    bincode::config::standard().with_limit::<CLAIM>()
}

/// Messages to be written.
#[derive(bincode::Encode)]
pub(super) struct MessagesOut<'a> {
    pub(super) lengths: &'a [u32],
    pub(super) received: &'a [i64],
    pub(super) bytes: &'a [u8],
}

/// The same messages, read.
#[derive(bincode::BorrowDecode)]
struct MessagesIn<'a> {
    lengths: Vec<u32>,
    received: Vec<i64>,
    bytes: &'a [u8],
}

/// An outage, apart from [`Outage`], so that a change there can't change the format.
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct OutageRecord<'a> {
    from: i64,
    to: i64,
    messages: u64,
    cause: &'a str,
}

/// What follows an [`OutageRecord`] in version 2. `key`, `first` and `last` are those of a hole in the source's numbers.
#[derive(Default, bincode::Encode, bincode::BorrowDecode)]
struct Details<'a> {
    kind: u8,
    key: Option<&'a str>,
    first: u64,
    last: u64,
}

impl<'a> Details<'a> {
    fn of(kind: &'a OutageKind) -> Self {
        match kind {
            OutageKind::Disconnected => Self::default(),
            OutageKind::DroppedNewest => Self {
                kind: 1,
                ..Self::default()
            },
            OutageKind::TooLarge => Self {
                kind: 2,
                ..Self::default()
            },
            OutageKind::Sequence(None) => Self {
                kind: 4,
                ..Self::default()
            },
            OutageKind::Sequence(Some(skip)) => Self {
                kind: 3,
                key: skip.key.as_deref().map(|key| cut(key, MAX_KEY)),
                first: skip.first,
                last: skip.last,
            },
        }
    }

    fn kind(self) -> Option<OutageKind> {
        Some(match self.kind {
            0 => OutageKind::Disconnected,
            1 => OutageKind::DroppedNewest,
            2 => OutageKind::TooLarge,
            3 => OutageKind::Sequence(Some(Skip {
                key: self.key.map(str::to_owned),
                first: self.first,
                last: self.last,
            })),
            4 => OutageKind::Sequence(None),
            _ => return None,
        })
    }
}

/// Whether an outage needs version 2.
pub(super) fn has_details(outage: &Outage) -> bool {
    outage.kind != OutageKind::Disconnected
}

/// The first `limit` bytes of a text, less the character that would be cut.
fn cut(text: &str, limit: usize) -> &str {
    let mut kept = text.len().min(limit);
    while !text.is_char_boundary(kept) {
        kept -= 1;
    }
    &text[..kept]
}

/// Bytes that bincode takes for an unsigned number.
pub(super) fn varint_len(number: u64) -> usize {
    match number {
        0..=250 => 1,
        251..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Bytes that bincode takes for a signed number.
pub(super) fn varint_signed_len(number: i64) -> usize {
    varint_len(((number << 1) ^ (number >> 63)).cast_unsigned())
}

/// Replaces what `out` holds by the payload of these messages.
pub(super) fn encode_messages(messages: &MessagesOut<'_>, out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
    out.clear();
    write(messages, out)
}

/// Replaces what `out` holds by the payload of this outage. A cause that is too long is cut.
pub(super) fn encode_outage(outage: &Outage, out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
    out.clear();
    let record = OutageRecord {
        from: outage.from.micros(),
        to: outage.to.micros(),
        messages: outage.messages,
        cause: cut(&outage.cause, MAX_CAUSE),
    };
    write(&record, out)?;
    if has_details(outage) {
        write(&Details::of(&outage.kind), out)?;
    }
    Ok(())
}

fn write(value: &impl bincode::Encode, out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
    bincode::encode_into_std_write(value, out, config::<ASSEMBLED_CLAIM>())
        .map(|_written| ())
        .map_err(|error| EnvelopeError::Encoding {
            reason: error.to_string(),
        })
}

/// The messages of a decompressed payload that came in as many parts as `header` says. The payloads stay where they are.
pub(super) fn decode_messages(buffer: Vec<u8>, header: &Header) -> Result<Batch, EnvelopeError> {
    let refuse = |reason: &str| EnvelopeError::Inconsistent {
        base: header.base,
        reason: reason.to_owned(),
    };
    let decoded = if header.parts == 1 {
        bincode::borrow_decode_from_slice::<MessagesIn<'_>, _>(&buffer, config::<RECORD_CLAIM>())
    } else {
        bincode::borrow_decode_from_slice::<MessagesIn<'_>, _>(&buffer, config::<ASSEMBLED_CLAIM>())
    };
    let (messages, used) = decoded.map_err(|error| refuse(&error.to_string()))?;
    if used != buffer.len() {
        return Err(refuse("bytes behind the messages"));
    }
    let start = buffer.len() - messages.bytes.len();
    let (mut ends, received) = (messages.lengths, messages.received);
    if ends.len() != header.count as usize {
        return Err(refuse("another number of messages than announced"));
    }
    // Both vectors are rewritten in place.
    let mut end = 0_u32;
    for length in &mut ends {
        end = end
            .checked_add(*length)
            .ok_or_else(|| refuse("lengths beyond all bounds"))?;
        *length = end;
    }
    let mut time = 0_i64;
    let received: Vec<_> = received
        .into_iter()
        .map(|since| {
            time = time.wrapping_add(since);
            Timestamp::from_micros(time)
        })
        .collect();
    if received.first() != Some(&header.received_first) || received.last() != Some(&header.received_last) {
        return Err(refuse("other receive times than announced"));
    }
    Batch::from_parts(buffer, start, ends, received).ok_or_else(|| refuse("lengths that don't fit the bytes"))
}

/// The outage that a record of kind gap holds.
///
/// # Errors
/// When the record is of another kind or its payload is inconsistent.
pub fn decode_outage(record: &Sealed<'_>) -> Result<Outage, EnvelopeError> {
    let header = &record.header;
    if header.kind != Kind::Gap {
        return Err(EnvelopeError::WrongKind { base: header.base });
    }
    let refuse = |reason: String| EnvelopeError::Inconsistent {
        base: header.base,
        reason,
    };
    let mut buffer = Vec::new();
    super::codec::Decompressor::default().decompress(
        header.codec,
        record.payload,
        (header.raw_len as usize).min(MAX_PAYLOAD),
        &mut buffer,
    )?;
    let (outage, mut used) =
        bincode::borrow_decode_from_slice::<OutageRecord<'_>, _>(&buffer, config::<RECORD_CLAIM>())
            .map_err(|error| refuse(error.to_string()))?;
    let mut kind = OutageKind::Disconnected;
    if header.has_details {
        let (details, more) =
            bincode::borrow_decode_from_slice::<Details<'_>, _>(&buffer[used..], config::<RECORD_CLAIM>())
                .map_err(|error| refuse(error.to_string()))?;
        used += more;
        kind = details
            .kind()
            .ok_or_else(|| refuse("an outage of an unknown kind".to_owned()))?;
    }
    if used != buffer.len() {
        return Err(refuse("bytes behind the outage".to_owned()));
    }
    let (from, to) = (
        Timestamp::from_micros(outage.from),
        Timestamp::from_micros(outage.to),
    );
    if (from, to) != (header.received_first, header.received_last) {
        return Err(refuse("other times than announced".to_owned()));
    }
    Ok(Outage {
        from,
        to,
        messages: outage.messages,
        cause: outage.cause.to_owned(),
        kind,
    })
}
