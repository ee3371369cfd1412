//! What travels through the system: offsets, timestamps, and batches of messages.
//!
//! A [`Batch`] keeps its messages in one contiguous buffer, so that a message costs one copy and no
//! allocation of its own. Nothing in here knows about sources, stages or sinks.

use std::fmt;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// Number of a message in its stage: 0, 1, 2 …, never given twice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Offset(u64);

impl Offset {
    /// The offset of a stage's first message.
    pub const ZERO: Self = Self(0);

    /// The offset with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `count` messages further on. Saturates, which no stage reaches in practice: at a million
    /// messages a second 2^64 offsets last for 580,000 years.
    #[must_use]
    pub const fn advanced_by(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time with this number of microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The system clock's time.
    #[must_use]
    pub fn now() -> Self {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Self(micros)
    }
}

/// One message inside a batch: its payload, byte for byte as the source sent it, and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The payload of one WebSocket data message.
    pub payload: &'a [u8],
    /// When the consumer received it.
    pub received_at: Timestamp,
}

/// Messages of one consumer in order of arrival, appended to its stage together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Holds the payloads back to back from `start` on. What stands before `start` belongs to no message:
    /// a stage that decodes a record leaves its own framing there instead of moving the payloads.
    bytes: Vec<u8>,
    start: usize,
    /// Where each payload ends, counted from `start`.
    ends: Vec<u32>,
    received: Vec<Timestamp>,
}

impl Batch {
    /// The most payload bytes that one batch may hold: `u32::MAX`, the reach of the index of payload ends.
    pub const MAX_BYTES: usize = u32::MAX as usize;

    /// An empty batch with room for `messages` messages of `bytes` bytes altogether.
    #[must_use]
    pub fn with_capacity(messages: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            start: 0,
            ends: Vec::with_capacity(messages),
            received: Vec::with_capacity(messages),
        }
    }

    /// A batch over payloads that already lie back to back in `bytes` from `start` on. `None` when `ends`
    /// (counted from `start`) do not ascend, do not end where `bytes` ends, or are not as many as `received`.
    #[must_use]
    pub fn from_parts(
        bytes: Vec<u8>,
        start: usize,
        ends: Vec<u32>,
        received: Vec<Timestamp>,
    ) -> Option<Self> {
        let payload_len = bytes.len().checked_sub(start)?;
        let sound = ends.is_sorted()
            && ends.len() == received.len()
            && ends
                .last()
                .map_or(payload_len == 0, |&end| end as usize == payload_len);
        sound.then_some(Self {
            bytes,
            start,
            ends,
            received,
        })
    }

    /// Adds a message at the end. `false`, and nothing added, when the batch would exceed [`Self::MAX_BYTES`].
    #[must_use]
    pub fn push(&mut self, payload: &[u8], received_at: Timestamp) -> bool {
        let Ok(end) = u32::try_from(self.byte_len() + payload.len()) else {
            return false;
        };
        self.bytes.extend_from_slice(payload);
        self.ends.push(end);
        self.received.push(received_at);
        true
    }

    /// Adds the messages of another batch in `range` at the end, in one copy. `false`, and nothing added, when the batch would
    /// exceed [`Self::MAX_BYTES`].
    ///
    /// # Panics
    /// When the other batch has no such messages.
    #[must_use]
    pub fn extend_from(&mut self, other: &Self, range: Range<usize>) -> bool {
        let (begin, end) = (other.end_before(range.start), other.end_before(range.end));
        let before = self.byte_len();
        if before + (end - begin) > Self::MAX_BYTES {
            return false;
        }
        self.bytes.extend_from_slice(&other.payload_bytes()[begin..end]);
        let ends = other.ends[range.clone()].iter();
        self.ends
            .extend(ends.map(|&end| (before + (end as usize - begin)) as u32));
        self.received.extend_from_slice(&other.received[range]);
        true
    }

    /// How many of the messages from `first` on have no more than `bytes` bytes together; with those that have as many it ends.
    #[must_use]
    pub fn count_within(&self, first: usize, bytes: usize) -> usize {
        let most = self.end_before(first).saturating_add(bytes);
        let ends = &self.ends[first..];
        let below = ends.partition_point(|&end| (end as usize) < most);
        below + usize::from(ends.get(below).is_some_and(|&end| end as usize == most))
    }

    /// Where the message before `index` ends, counted from `start`.
    fn end_before(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        }
    }

    /// Takes all messages out, and keeps the room that they had.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.ends.clear();
        self.received.clear();
    }

    /// For how many bytes of payload there is room without asking for more.
    #[must_use]
    pub fn byte_capacity(&self) -> usize {
        self.bytes.capacity() - self.start
    }

    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all payloads.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The payloads back to back.
    #[must_use]
    pub fn payload_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The message at `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Message<'_>> {
        let end = *self.ends.get(index)? as usize;
        let begin = self.end_before(index);
        Some(Message {
            payload: &self.payload_bytes()[begin..end],
            received_at: self.received[index],
        })
    }

    /// The messages in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Message<'_>> + '_ {
        let payloads = self.payload_bytes();
        let mut begin = 0;
        self.ends
            .iter()
            .zip(&self.received)
            .map(move |(&end, &received_at)| {
                let payload = &payloads[begin..end as usize];
                begin = end as usize;
                Message { payload, received_at }
            })
    }

    /// When the first message came; `None` when empty.
    #[must_use]
    pub fn received_first(&self) -> Option<Timestamp> {
        self.received.first().copied()
    }

    /// When the last message came; `None` when empty.
    #[must_use]
    pub fn received_last(&self) -> Option<Timestamp> {
        self.received.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_what_was_pushed_empty_payloads_included() {
        let mut batch = Batch::with_capacity(3, 16);
        for (payload, micros) in [(&b"one"[..], 1), (b"", 2), (b"three", 3)] {
            assert!(batch.push(payload, Timestamp::from_micros(micros)));
        }
        let seen: Vec<_> = batch
            .iter()
            .map(|m| (m.payload.to_vec(), m.received_at.micros()))
            .collect();
        assert_eq!(
            seen,
            [(b"one".to_vec(), 1), (b"".to_vec(), 2), (b"three".to_vec(), 3)]
        );
        assert_eq!(batch.get(1).map(|m| m.payload.len()), Some(0));
        assert_eq!(batch.get(3), None);
        assert_eq!((batch.len(), batch.byte_len()), (3, 8));
        batch.clear();
        assert_eq!((batch.len(), batch.byte_len()), (0, 0));
        assert!(batch.byte_capacity() >= 16);
        assert!(batch.push(b"next", Timestamp::from_micros(4)));
        assert_eq!(batch.payload_bytes(), b"next");
    }

    #[test]
    fn messages_of_another_batch_are_added_as_if_they_were_pushed() {
        let mut other = Batch::from_parts(
            b"--onethree".to_vec(),
            2,
            vec![3, 3, 8],
            vec![at(1), at(2), at(3)],
        )
        .unwrap();
        assert!(other.push(b"four", at(4)));
        let mut batch = Batch::default();
        assert!(batch.push(b"zero", at(0)));
        let mut pushed = batch.clone();
        for range in [0..0, 1..3, 3..4, 0..4] {
            assert!(batch.extend_from(&other, range.clone()));
            for message in other.iter().skip(range.start).take(range.len()) {
                assert!(pushed.push(message.payload, message.received_at));
            }
            assert_eq!(batch, pushed);
        }
    }

    #[test]
    fn messages_are_counted_up_to_so_many_bytes_together() {
        let mut batch = Batch::default();
        for payload in [&b"12"[..], b"", b"345", b"6"] {
            assert!(batch.push(payload, at(0)));
        }
        let counted = [(0, 1), (0, 2), (0, 4), (0, 5), (1, 0), (2, 3), (2, 9), (4, 9)]
            .map(|(first, bytes)| batch.count_within(first, bytes));
        assert_eq!(counted, [0, 1, 2, 3, 1, 1, 2, 0]);
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn parts_that_do_not_describe_their_bytes_are_refused() {
        let at = Timestamp::from_micros(0);
        assert!(Batch::from_parts(vec![0; 5], 2, vec![1, 3], vec![at; 2]).is_some());
        assert!(
            Batch::from_parts(vec![0; 5], 2, vec![1, 4], vec![at; 2]).is_none(),
            "past the end"
        );
        assert!(
            Batch::from_parts(vec![0; 5], 2, vec![2, 1, 3], vec![at; 3]).is_none(),
            "descending"
        );
        assert!(
            Batch::from_parts(vec![0; 5], 2, vec![3], vec![]).is_none(),
            "times missing"
        );
        assert!(
            Batch::from_parts(vec![0; 5], 6, vec![], vec![]).is_none(),
            "start past the end"
        );
        assert!(
            Batch::from_parts(vec![0; 5], 2, vec![], vec![]).is_none(),
            "bytes of no message"
        );
    }
}
