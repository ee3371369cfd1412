//! How much one transaction holds (`batch`), and whether it is waited for more.
//!
//! A transaction begins at once when it is full, or when the one before it began at least `interval` ago: so the first message
//! after a pause is delivered without delay, and a trickle is gathered into one transaction per interval.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Section;
use crate::config::units::{ByteSize, Span};
use crate::record::Offset;
use crate::stage::ReadOutcome;

/// The most rows that `batch: rows` may allow: as many are encoded, and sent again when one of them is refused.
const MOST_ROWS: usize = 200_000;
/// The least and the most that `batch: bytes` may allow. Two transactions of a producer are in memory at a time, each as messages
/// and as rows.
const LEAST_BYTES: ByteSize = ByteSize(64 << 10);
const MOST_BYTES: ByteSize = ByteSize(256 << 20);
/// The longest `batch: interval`.
const LONGEST_INTERVAL: Span = Span(Duration::from_secs(60));

/// Limits of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// The most rows (a last message of several rows may pass it), and the most messages.
    pub rows: usize,
    /// The most bytes of messages, or of encoded rows (its last message may pass it).
    pub bytes: usize,
    /// How long a transaction that is not full waits, from the beginning of the one before.
    pub interval: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Batching {
    /// Without `batch` in the configuration.
    pub const DEFAULT: Self = Self {
        rows: 30_000,
        bytes: 8 << 20,
        interval: Duration::ZERO,
    };

    /// Reads `batch`. What is wrong is reported to the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let defaults = Self::default();
        let Some(mut batch) = section.section("batch") else {
            return defaults;
        };
        let rows = batch.or("rows", defaults.rows);
        if !(1..=MOST_ROWS).contains(&rows) {
            batch.problem("rows", &format!("must be from 1 to {MOST_ROWS}"));
        }
        let bytes = batch.or("bytes", ByteSize(defaults.bytes as u64));
        if !(LEAST_BYTES..=MOST_BYTES).contains(&bytes) {
            batch.problem("bytes", &format!("must be from {LEAST_BYTES} to {MOST_BYTES}"));
        }
        let interval = batch.or("interval", Span(defaults.interval));
        if interval > LONGEST_INTERVAL {
            batch.problem("interval", &format!("must be at most {LONGEST_INTERVAL}"));
        }
        Self {
            rows,
            bytes: usize::try_from(bytes.bytes()).unwrap_or(defaults.bytes),
            interval: interval.duration(),
        }
    }
}

/// Whether the next transaction of a lane is waited for.
#[derive(Debug)]
pub(super) struct Filling {
    pub(super) batching: Batching,
    /// When the last transaction began.
    began: Option<Instant>,
    waiting: Option<Waiting>,
}

/// A transaction that is waited for.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    until: Instant,
    /// Everything before is looked at already.
    seen: Offset,
}

impl Filling {
    pub(super) fn new(batching: Batching) -> Self {
        Self {
            batching,
            began: None,
            waiting: None,
        }
    }

    /// A transaction begins.
    pub(super) fn begins(&mut self) {
        self.began = Some(Instant::now());
    }

    /// The transaction that began last has come to nothing: the next attempt is not put off.
    pub(super) fn failed(&mut self) {
        self.began = None;
    }

    /// Whether what was read from `from` on is to be read again later, for then there may be more of it. `messages` is the most
    /// that the transaction takes.
    pub(super) fn waits_for_more(
        &mut self,
        read: &ReadOutcome,
        from: Offset,
        messages: usize,
        head: Offset,
    ) -> bool {
        self.waiting = None;
        let until = self.began.map(|began| began + self.batching.interval);
        let Some(until) = until.filter(|until| *until > Instant::now()) else {
            return false;
        };
        let count = |first: Offset, end: Offset| end.get().saturating_sub(first.max(from).get());
        let batches = read.batches.iter();
        let held: u64 = batches.map(|batch| count(batch.first, batch.end())).sum();
        let bytes: usize = read.batches.iter().map(|batch| batch.batch.byte_len()).sum();
        if read.next < head || held >= messages as u64 || bytes >= self.batching.bytes {
            return false;
        }
        let seen = read.next;
        self.waiting = Some(Waiting { until, seen });
        true
    }

    /// When a transaction that is waited for begins at the latest.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.waiting.map(|waiting| waiting.until)
    }

    /// What has to come before it is looked again whether the transaction is full.
    pub(super) fn seen(&self) -> Offset {
        self.waiting.map_or(Offset::ZERO, |waiting| waiting.seen)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Batch, Timestamp};
    use crate::stage::StagedBatch;

    fn read(first: u64, messages: u64) -> ReadOutcome {
        let mut batch = Batch::default();
        for _ in 0..messages {
            assert!(batch.push(b"12345678", Timestamp::default()));
        }
        let batch = StagedBatch {
            first: Offset::new(first),
            batch,
        };
        ReadOutcome {
            next: batch.end(),
            batches: vec![Arc::new(batch)],
            gaps: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_message_after_a_pause_goes_at_once_and_a_trickle_once_per_interval() {
        let interval = Duration::from_secs(1);
        let mut filling = Filling::new(Batching {
            rows: 100,
            bytes: 400,
            interval,
        });
        let waits = |filling: &mut Filling, messages: u64, head: u64| {
            filling.waits_for_more(&read(0, messages), Offset::ZERO, 100, Offset::new(head))
        };
        assert!(!waits(&mut filling, 1, 1), "nothing came before");
        filling.begins();
        let began = Instant::now();
        tokio::time::advance(interval / 2).await;
        assert!(waits(&mut filling, 10, 10));
        assert_eq!(filling.waits_until(), Some(began + interval));
        assert_eq!(filling.seen(), Offset::new(10));
        for (messages, head, what) in [
            (50, 50, "as many bytes as it takes"),
            (10, 11, "more than was read"),
        ] {
            assert!(!waits(&mut filling, messages, head), "{what}");
            assert_eq!(filling.waits_until(), None);
        }
        let few = filling.waits_for_more(&read(0, 10), Offset::new(8), 3, Offset::new(10));
        assert!(few, "two messages of three");
        assert!(!filling.waits_for_more(&read(0, 10), Offset::new(7), 3, Offset::new(10)));
        tokio::time::advance(interval / 2).await;
        assert!(!waits(&mut filling, 1, 1), "it has waited long enough");
    }
}
