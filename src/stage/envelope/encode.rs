//! From batches and outages to records.

use super::codec::Compressor;
use super::payload::{self, MessagesOut, varint_len, varint_signed_len};
use super::{Codec, EnvelopeError, GAP_PART, Header, Kind, MAX_MESSAGE, MAX_PARTS, MAX_PAYLOAD, Record, key};
use crate::record::{Batch, Offset, Timestamp};
use crate::stage::Outage;

/// What the framing of a record takes beside the numbers of each message: three sequence lengths of up to 5 bytes each, and
/// what its first receive time, which stands alone, can take more than the difference that was counted.
const RECORD_FRAMING: usize = 3 * 5 + 9;

/// A record ends before it would have more payload than this, if it has a message already. It might have twice as much
/// ([`MAX_PAYLOAD`]); but of what stands in a leaf, up to 17 records, sled keeps several copies for a while.
const RECORD_PAYLOAD: usize = 32 << 10;

/// Turns batches into records. Its buffers are used again, so one encoder serves a stage path for good.
pub struct Encoder {
    compressor: Compressor,
    /// Of the record in the making: lengths of the payloads, and receive times.
    lengths: Vec<u32>,
    received: Vec<i64>,
    raw: Vec<u8>,
}

/// What the records of one batch have in common, and where the next one stands.
struct Place<'a> {
    stage: &'a str,
    base: Offset,
    prev_end: Offset,
}

impl Encoder {
    /// An encoder that compresses with `codec` what that shrinks.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self {
            compressor: Compressor::new(codec),
            lengths: Vec::new(),
            received: Vec::new(),
            raw: Vec::new(),
        }
    }

    /// Appends the records of `batch`, whose first message gets the offset `base`, to `out`, and returns the offset
    /// after its last message. `prev_end` is the end of the batch before; the batch's second and later records name
    /// the end of the one before them. An empty batch becomes no record.
    ///
    /// # Errors
    /// When a message is larger than [`MAX_MESSAGE`], the offsets contradict each other, or
    /// compression fails. Then nothing is appended.
    pub fn encode(
        &mut self,
        stage: &str,
        base: Offset,
        prev_end: Offset,
        batch: &Batch,
        out: &mut Vec<Record>,
    ) -> Result<Offset, EnvelopeError> {
        let before = out.len();
        let place = Place {
            stage,
            base,
            prev_end,
        };
        let outcome = self.encode_all(place, batch, out);
        if outcome.is_err() {
            out.truncate(before);
        }
        outcome
    }

    fn encode_all(
        &mut self,
        mut place: Place<'_>,
        batch: &Batch,
        out: &mut Vec<Record>,
    ) -> Result<Offset, EnvelopeError> {
        let payloads = batch.payload_bytes();
        // Of the record in the making: where its payloads begin and end, and its size, not compressed.
        let (mut begin, mut end) = (0, 0);
        let mut size = RECORD_FRAMING;
        self.lengths.clear();
        self.received.clear();
        let mut previous = 0_i64;
        for message in batch.iter() {
            let length = match u32::try_from(message.payload.len()) {
                Ok(length) if message.payload.len() <= MAX_MESSAGE => length,
                _ => return Err(too_large(message.payload.len())),
            };
            let micros = message.received_at.micros();
            let since = micros.wrapping_sub(previous);
            let added = message.payload.len() + varint_len(length.into()) + varint_signed_len(since);
            if size + added > RECORD_PAYLOAD && !self.lengths.is_empty() {
                self.finish(&mut place, &payloads[begin..end], out)?;
                begin = end;
                size = RECORD_FRAMING;
            }
            let first = self.lengths.is_empty();
            self.received.push(if first { micros } else { since });
            self.lengths.push(length);
            size += added;
            end += message.payload.len();
            previous = micros;
        }
        if !self.lengths.is_empty() {
            self.finish(&mut place, &payloads[begin..end], out)?;
        }
        Ok(place.base)
    }

    /// Appends the record in the making, or its parts when it is one message that is too large for a record, and begins
    /// the next one.
    fn finish(
        &mut self,
        place: &mut Place<'_>,
        bytes: &[u8],
        out: &mut Vec<Record>,
    ) -> Result<(), EnvelopeError> {
        payload::encode_messages(
            &MessagesOut {
                lengths: &self.lengths,
                received: &self.received,
                bytes,
            },
            &mut self.raw,
        )?;
        let parts = self.raw.len().div_ceil(MAX_PAYLOAD);
        let parts = match u32::try_from(parts) {
            Ok(parts) if parts <= MAX_PARTS => parts,
            _ => return Err(too_large(bytes.len())),
        };
        let received_first = self.received.first().copied().unwrap_or_default();
        let received_last = self
            .received
            .iter()
            .fold(0_i64, |sum, since| sum.wrapping_add(*since));
        for (part, slice) in (0..parts).zip(self.raw.chunks(MAX_PAYLOAD)) {
            let (codec, stored) = self.compressor.compress(slice)?;
            let header = Header {
                kind: Kind::Data,
                has_details: false,
                codec,
                base: place.base,
                part,
                parts,
                prev_end: place.prev_end,
                count: self.lengths.len() as u32,
                raw_len: slice.len() as u32,
                stored_len: stored.len() as u32,
                received_first: Timestamp::from_micros(received_first),
                received_last: Timestamp::from_micros(received_last),
            };
            header.check()?;
            out.push(Record {
                key: header.key(),
                value: header.seal(place.stage, stored),
            });
        }
        place.base = place.base.advanced_by(self.lengths.len() as u64);
        place.prev_end = place.base;
        self.lengths.clear();
        self.received.clear();
        Ok(())
    }

    /// The record of an outage that was noticed when the stage's head was `head`. `sequence`, below 2^31, tells apart the
    /// outages at one head. Only the first 4096 bytes of its cause are kept.
    ///
    /// # Errors
    /// When `sequence` is beyond its limit, or the offsets contradict each other.
    pub fn encode_outage(
        &mut self,
        stage: &str,
        head: Offset,
        prev_end: Offset,
        sequence: u32,
        outage: &Outage,
    ) -> Result<Record, EnvelopeError> {
        if sequence & GAP_PART != 0 {
            return Err(EnvelopeError::Limit {
                what: "the number of outages at one offset",
                found: sequence.into(),
                limit: (GAP_PART - 1).into(),
            });
        }
        payload::encode_outage(outage, &mut self.raw)?;
        let part = GAP_PART | sequence;
        let header = Header {
            kind: Kind::Gap,
            has_details: payload::has_details(outage),
            codec: Codec::None,
            base: head,
            part,
            parts: 1,
            prev_end,
            count: 0,
            raw_len: self.raw.len() as u32,
            stored_len: self.raw.len() as u32,
            received_first: outage.from,
            received_last: outage.to,
        };
        header.check()?;
        Ok(Record {
            key: key(head, part),
            value: header.seal(stage, &self.raw),
        })
    }
}

fn too_large(len: usize) -> EnvelopeError {
    EnvelopeError::Limit {
        what: "a message's length",
        found: len as u64,
        limit: MAX_MESSAGE as u64,
    }
}
