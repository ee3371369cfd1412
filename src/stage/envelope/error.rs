//! Why a record could not be written or read.

use super::Codec;
use crate::record::Offset;

/// Why a record could not be written or read. When it comes from reading, every variant means damage but
/// [`Newer`](Self::Newer), and [`PartsIncomplete`](Self::PartsIncomplete) where the writing may have been interrupted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Fewer bytes than the header needs or announces.
    #[error("the record is cut short: {found} bytes of {needed}")]
    Truncated {
        /// Bytes that there should be at least.
        needed: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// The value does not begin as a record does.
    #[error("not a record of a stage: it does not begin with SEL1")]
    Magic,
    /// Sound, but written by a newer program.
    #[error(
        "the record has format version {version}, written by a newer socket-el; use that version to read the stage"
    )]
    Newer {
        /// The record's version.
        version: u8,
    },
    /// The key is not 12 bytes long.
    #[error("the record's key has {found} bytes instead of 12")]
    KeyLength {
        /// Its length.
        found: usize,
    },
    /// The record stands under another key than its own.
    #[error(
        "the record of offset {offset} part {part} stands under the key of offset {key_offset} part {key_part}"
    )]
    KeyMismatch {
        /// Offset in the header.
        offset: Offset,
        /// Part in the header.
        part: u32,
        /// Offset in the key.
        key_offset: Offset,
        /// Part in the key.
        key_part: u32,
    },
    /// The bytes, the key or the stage's name are not those that were written.
    #[error(
        "checksum {computed:08x} instead of {stored:08x}: the record is damaged or belongs to another stage"
    )]
    Checksum {
        /// As written.
        stored: u32,
        /// Of what was read.
        computed: u32,
    },
    /// A number is beyond its limit.
    #[error("{what} is {found}, the limit is {limit}")]
    Limit {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The most that it may be.
        limit: u64,
    },
    /// A field has a value that this version of the format does not know.
    #[error("unknown {what} {found}")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u8,
    },
    /// Compression or decompression failed.
    #[error("{codec:?} failed: {reason}")]
    Codec {
        /// Which codec.
        codec: Codec,
        /// In its words.
        reason: String,
    },
    /// A payload could not be written.
    #[error("a payload could not be encoded: {reason}")]
    Encoding {
        /// bincode's words.
        reason: String,
    },
    /// Header and payload contradict each other or themselves.
    #[error("the record at offset {base} contradicts itself: {reason}")]
    Inconsistent {
        /// Offset of the record.
        base: Offset,
        /// What is wrong.
        reason: String,
    },
    /// A message's parts end before the last one.
    #[error("only {have} of the {parts} parts of the message at offset {base} are there")]
    PartsIncomplete {
        /// Offset of the message.
        base: Offset,
        /// Parts that were there.
        have: u32,
        /// Parts that it was written in.
        parts: u32,
    },
    /// A part that nothing before it led up to.
    #[error("part {part} of the message at offset {base} does not continue what stands before it")]
    PartUnexpected {
        /// Offset of the message.
        base: Offset,
        /// The part.
        part: u32,
    },
    /// A record of one kind where the other was asked for.
    #[error("the record at offset {base} is of another kind than was asked for")]
    WrongKind {
        /// Offset of the record.
        base: Offset,
    },
}
