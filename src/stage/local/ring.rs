//! Recently committed batches in memory, for producers that have caught up: they need not touch the disk.
//!
//! Invariants: bounded in bytes; batches are contiguous and in order, and all of them are durable.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::record::Offset;
use crate::stage::{Gap, ReadLimit, ReadOutcome, StagedBatch};

/// What a batch takes beside its payloads: for each message an end and a receive time, and its own fields.
const PER_MESSAGE: usize = 12;
const PER_BATCH: usize = 128;

/// The last batches of one stage.
#[derive(Debug, Default)]
pub(super) struct Ring {
    batches: VecDeque<Arc<StagedBatch>>,
    bytes: usize,
}

impl Ring {
    /// Adds the next batch and forgets the oldest ones beyond `limit` bytes.
    pub(super) fn push(&mut self, batch: Arc<StagedBatch>, limit: usize) {
        if self.batches.back().is_some_and(|last| last.end() != batch.first) {
            self.batches.clear();
            self.bytes = 0;
        }
        self.bytes += cost(&batch);
        self.batches.push_back(batch);
        while self.bytes > limit
            && let Some(oldest) = self.batches.pop_front()
        {
            self.bytes -= cost(&oldest);
        }
    }

    /// Forgets everything before `offset`.
    pub(super) fn forget_before(&mut self, offset: Offset) {
        while let Some(oldest) = self.batches.front()
            && oldest.end() <= offset
        {
            self.bytes -= cost(oldest);
            self.batches.pop_front();
        }
    }

    /// Reads from `from` up to `head`; `None` when the disk has to be asked.
    pub(super) fn read(&self, from: Offset, head: Offset, limit: ReadLimit) -> Option<ReadOutcome> {
        let oldest = self.batches.front()?;
        if from < oldest.first {
            return None;
        }
        let start = self.batches.partition_point(|batch| batch.end() <= from);
        let mut room = Room::new(limit);
        let mut batches = Vec::new();
        let mut next = from;
        for batch in self.batches.iter().skip(start) {
            if batch.end() > head || !room.takes(batch.batch.len(), batch.batch.byte_len()) {
                break;
            }
            next = batch.end();
            batches.push(Arc::clone(batch));
        }
        (!batches.is_empty()).then_some(ReadOutcome {
            batches,
            gaps: Vec::<Gap>::new(),
            next,
        })
    }
}

fn cost(batch: &StagedBatch) -> usize {
    batch.batch.byte_len() + batch.batch.len() * PER_MESSAGE + PER_BATCH
}

/// What is left of a [`ReadLimit`]. The first batch always fits.
pub(super) struct Room {
    left: ReadLimit,
    first: bool,
}

impl Room {
    /// All of `limit`.
    pub(super) fn new(limit: ReadLimit) -> Self {
        Self {
            left: limit,
            first: true,
        }
    }

    /// Whether a batch of this size still fits; takes its room if so.
    pub(super) fn takes(&mut self, messages: usize, bytes: usize) -> bool {
        let fits = self.first || (messages <= self.left.messages && bytes <= self.left.bytes);
        if fits {
            self.first = false;
            self.left.messages = self.left.messages.saturating_sub(messages);
            self.left.bytes = self.left.bytes.saturating_sub(bytes);
        }
        fits
    }

    /// Whether nothing fits any more.
    pub(super) fn is_used_up(&self) -> bool {
        !self.first && (self.left.messages == 0 || self.left.bytes == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Batch, Timestamp};

    fn batch(first: u64, messages: u64) -> Arc<StagedBatch> {
        let mut batch = Batch::default();
        for number in first..first + messages {
            assert!(batch.push(&number.to_be_bytes(), Timestamp::from_micros(1)));
        }
        Arc::new(StagedBatch {
            first: Offset::new(first),
            batch,
        })
    }

    const ALL: ReadLimit = ReadLimit {
        messages: 100,
        bytes: 1 << 20,
    };

    #[test]
    fn the_ring_forgets_the_oldest_batches_beyond_its_bytes_and_never_answers_for_them() {
        let mut ring = Ring::default();
        let size = cost(&batch(0, 10));
        for first in [0, 10, 20] {
            ring.push(batch(first, 10), 2 * size);
        }
        assert!(ring.read(Offset::new(5), Offset::new(30), ALL).is_none());
        let read = ring.read(Offset::new(15), Offset::new(30), ALL).unwrap();
        assert_eq!((read.batches[0].first.get(), read.next.get()), (10, 30));
    }

    #[test]
    fn the_ring_never_answers_past_the_head_nor_across_a_hole() {
        let mut ring = Ring::default();
        ring.push(batch(0, 10), 1 << 20);
        assert!(ring.read(Offset::ZERO, Offset::new(9), ALL).is_none());
        ring.push(batch(50, 10), 1 << 20);
        assert!(ring.read(Offset::ZERO, Offset::new(60), ALL).is_none());
        assert!(ring.read(Offset::new(50), Offset::new(60), ALL).is_some());
    }
}
