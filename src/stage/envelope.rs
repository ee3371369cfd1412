//! The envelope: how batches and outages stand in a stage's records.
//!
//! A record is a key and a value. The key is the offset of its first message (u64, big-endian) and a part number
//! (u32, big-endian), so that records sort by offset. The value is a [header](Header) of 64 bytes and a payload.
//! A batch becomes as many records as it needs: messages are packed greedily, so that a record's payload fits
//! [`MAX_STORED`] even before compression; a single message that is larger becomes several *parts*, slices of
//! its payload that are each compressed by themselves.
//!
//! Invariants:
//! * The format is frozen: golden bytes in the tests hold it. A newer version is refused, never guessed at.
//! * Magic, version and the place and reach of the checksum are the same in every version, so that damage can be
//!   told from news.
//! * What is read is hostile until proven: no panic, and no allocation that a named limit does not bound.
//!
//! What it leaves to others: where records are kept, when they are durable, whether `prev_end` continues
//! the record before, and what a gap between two records means.

mod assemble;
mod codec;
mod encode;
mod error;
mod header;
mod payload;
#[cfg(test)]
mod tests;

pub use assemble::Assembler;
pub use codec::Codec;
pub use encode::Encoder;
pub use error::EnvelopeError;
pub use header::{Header, Kind, Sealed, open};
pub use payload::decode_outage;

use std::fmt;

use crate::record::Offset;

/// The most bytes of a record's value, header included: 64 KiB. Larger values would leave sled's tree for files of
/// their own, which it never syncs.
pub const MAX_STORED: usize = 64 * 1024;

/// The most payload bytes of one record, before compression and after it.
const MAX_PAYLOAD: usize = MAX_STORED - header::LEN;

/// The most payload bytes that the parts of one message have together before compression, framing included. Far
/// above the default of `max_message_size` (16 MiB), far below what would endanger the process.
const MAX_ASSEMBLED: usize = 64 * 1024 * 1024;

/// Bytes that the framing of one message takes at most: three sequence lengths and one payload length of up to 5 bytes,
/// one time of up to 9, rounded up.
const MAX_FRAMING: usize = 32;

/// The largest message that fits an envelope: 64 MiB less its framing.
pub const MAX_MESSAGE: usize = MAX_ASSEMBLED - MAX_FRAMING;

/// The most parts of one message.
const MAX_PARTS: u32 = MAX_ASSEMBLED.div_ceil(MAX_PAYLOAD) as u32;

/// In a key's part: the record is of kind gap, and the other bits are its sequence number.
pub const GAP_PART: u32 = 0x8000_0000;

/// A record, ready to be inserted.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset of the first message, then the part, both big-endian; see [`key`].
    pub key: [u8; 12],
    /// Header and payload, at most [`MAX_STORED`] bytes.
    pub value: Vec<u8>,
}

/// Shows the key and sizes only: payloads don't belong in logs.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &parse_key(&self.key))
            .field("value_bytes", &self.value.len())
            .finish()
    }
}

/// The key of the record that begins at `base`.
#[must_use]
pub fn key(base: Offset, part: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&base.get().to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Offset and part of a key; `None` when it is not 12 bytes long.
#[must_use]
pub fn parse_key(key: &[u8]) -> Option<(Offset, u32)> {
    let (base, part) = key.split_first_chunk::<8>()?;
    let part = part.try_into().ok()?;
    Some((Offset::new(u64::from_be_bytes(*base)), u32::from_be_bytes(part)))
}
