//! The stage: the durable, ordered queue of one consumer, read by any number of producers.
//!
//! [`Stage`] is what consumers and producers see. The implementation that keeps stages in sled databases on
//! this machine's disk is in [`local`], the one that reads them through the engine that has them open in [`remote`]. Nothing
//! in here knows about sources or sinks.
//!
//! Invariants of every stage:
//! * an offset is never given twice;
//! * nobody reads past the durable head;
//! * offsets that will never hold a message (reserved before a crash, dropped, lost) are recorded as [`Gap`]s,
//!   never silently stepped over.

pub mod envelope;
mod gap;
pub mod local;
pub mod look;
pub mod path;
pub mod remote;
pub mod report;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use self::path::held_cursor;
use crate::exit::ExitReason;
use crate::record::{Batch, Offset, Timestamp};
use report::Report;

pub use gap::{Gap, GapCause, LastSeen, Outage, OutageKind, OutagePage, Period, Place, PlacedOutage, Skip};

/// A durable ordered queue of messages.
#[async_trait]
pub trait Stage: Send + Sync + 'static {
    /// The stage's name: its consumer's.
    fn name(&self) -> &str;

    /// The id of the stage path that it belongs to; given once when the path is made, and never again.
    fn path_id(&self) -> Uuid;

    /// Queues a batch to be appended; waits while the queue is full, or (`on_full: block`) the stage is.
    /// The batch is safe only when [`Accepted::durable`] has returned. Batches of one stage become durable in the
    /// order in which they were accepted.
    ///
    /// # Errors
    /// When the stage has failed or is closed; the batch is then lost to it.
    async fn append(&self, batch: Batch) -> Result<Accepted, StageError>;

    /// Queues the record of a stretch in which messages may have been missed, at this place in the order. It is safe only when
    /// [`Accepted::durable`] has returned.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    async fn append_outage(&self, outage: Outage) -> Result<Accepted, StageError>;

    /// Notes that the consumer stops in order, and heard its source until then. It is on disk once the stage is closed.
    fn note_stop(&self, at: Timestamp) {
        let _ = at;
    }

    /// When the source was heard last before this process opened the stage. `None` when it never was, or nobody knows.
    fn last_seen(&self) -> Option<LastSeen> {
        None
    }

    /// Reads batches in order from the message at `from`, up to the durable head. Returns at once: empty when
    /// there is nothing new. The first batch returned may begin before `from`; see [`StagedBatch::messages_from`].
    ///
    /// # Errors
    /// When the stage has failed or is closed, or what it holds is damaged.
    async fn read(&self, from: Offset, limit: ReadLimit) -> Result<ReadOutcome, StageError>;

    /// The outages from the place `from` on, those that stand before the message at `to` included, as many as one answer
    /// holds: [`OutagePage::next`] says how far it goes, which is `from` when nobody can tell just now.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    async fn outages(&self, from: Place, to: Offset) -> Result<OutagePage, StageError> {
        Ok(OutagePage {
            outages: Vec::new(),
            next: from.max(to.into()),
        })
    }

    /// The place behind the last outage that is durable, to wait on. Whoever is not before it need not ask for
    /// [`outages`](Self::outages). A stage that records none has a channel without a sender.
    fn watch_outages(&self) -> watch::Receiver<Place> {
        watch::Sender::default().subscribe()
    }

    /// Moves the stage's own copy of a producer's cursor: everything before `next` is delivered. To be called
    /// only after the sink has committed. The copy may lag after a crash: the sink's is the truth.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    async fn ack(&self, producer: &str, next: Offset) -> Result<(), StageError>;

    /// As [`ack`](Self::ack), but durable before it returns: what is not before `next` is kept from now on, whoever is killed.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    async fn pin(&self, cursor: &str, next: Offset) -> Result<(), StageError> {
        self.ack(cursor, next).await
    }

    /// The stage's own copy of a producer's cursor; `None` before its first ack.
    fn cursor(&self, producer: &str) -> Option<Offset>;

    /// Where the stage begins and ends now.
    fn bounds(&self) -> Bounds;

    /// Brings up to date what is answered without waiting: where another process has the stage open, it may be some milliseconds
    /// old, and older than a cursor that was read since.
    ///
    /// # Errors
    /// When the stage has failed, is closed or out of reach.
    async fn refresh(&self) -> Result<(), StageError> {
        Ok(())
    }

    /// The offset that a producer's cursor can't be beyond when its process starts and the cursor comes from this stage's past:
    /// the first one that was given since the stage was opened, or, once the producer has [begun](Self::begun), the head. Where a
    /// cursor from elsewhere was [held](Self::hold) it stays what it was then, over restarts too: what is staged meanwhile does not
    /// make that cursor one of this stage's.
    fn reach(&self, producer: &str) -> Offset {
        self.bounds().reach(false, self.cursor(&held_cursor(producer)))
    }

    /// Notes durably that a producer's cursor was found beyond its `reach`, so that it can't come from this stage's past. Until
    /// the producer has [begun](Self::begun), nothing from there on is removed.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    async fn hold(&self, producer: &str, reach: Offset) -> Result<(), StageError> {
        self.pin(&held_cursor(producer), reach).await
    }

    /// Notes that a producer has found its cursor to come from this stage's past, and delivers from now on. To be called before
    /// its first delivery: its process may be started again while the stage stays open, with a cursor that has passed
    /// `given_from`. Ends what [`hold`](Self::hold) has noted, durably.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    async fn begun(&self, producer: &str) -> Result<(), StageError> {
        let _ = producer;
        Ok(())
    }

    /// How many messages there are at offsets in `from..to`: differences of offsets are no counts, for gaps
    /// lie between them.
    fn count_between(&self, from: Offset, to: Offset) -> u64;

    /// How many messages were ever staged at offsets before this one, whatever has become of them since.
    fn given_before(&self, offset: Offset) -> Given;

    /// Takes note of how a producer's delivery stands, for those who look at the stage. `false` when it can't now: tell again.
    async fn report(&self, producer: &str, report: &Report) -> bool {
        let _ = (producer, report);
        true
    }

    /// The durable head, to wait on: it changes whenever there is something new to read. It does not tell when the stage
    /// fails or is closed: whoever runs the stages stops those who wait.
    fn watch_head(&self) -> watch::Receiver<Offset>;
}

/// A stage shared between its consumer and its producers.
pub type SharedStage = Arc<dyn Stage>;

/// A batch, or an outage, that the stage has taken in, but that is not durable yet.
#[derive(Debug)]
#[must_use = "it is safe only when `durable` has returned"]
pub struct Accepted {
    outcome: oneshot::Receiver<Result<Appended, StageError>>,
}

impl Accepted {
    /// For implementations of [`Stage`]: the sender says what became of the batch.
    pub fn new(outcome: oneshot::Receiver<Result<Appended, StageError>>) -> Self {
        Self { outcome }
    }

    /// Waits until it and everything before it is on disk.
    ///
    /// # Errors
    /// When the stage failed before that.
    pub async fn durable(self) -> Result<Appended, StageError> {
        match self.outcome.await {
            Ok(outcome) => outcome,
            Err(_) => Err(StageError::Closed),
        }
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable: its messages have the offsets `first..end`. An outage has none.
    Staged {
        /// Offset of its first message.
        first: Offset,
        /// The offset after its last message.
        end: Offset,
    },
    /// The stage is full and `on_full: drop_newest` is configured: its messages are dropped, counted and recorded.
    Dropped {
        /// How many messages.
        messages: u64,
    },
}

/// How much one read may return. At least one batch is returned whatever its size.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Messages.
    pub messages: usize,
    /// Bytes of payload.
    pub bytes: usize,
}

/// What a read found: the batches and gaps of the offsets `from..next`.
#[derive(Clone, Debug)]
pub struct ReadOutcome {
    /// In order of offset.
    pub batches: Vec<Arc<StagedBatch>>,
    /// Offsets between `from` and `next` that will never hold a message, in order.
    pub gaps: Vec<Gap>,
    /// Where to read on. Equal to `from` when there was nothing new.
    pub next: Offset,
}

impl ReadOutcome {
    /// What of it lies before `end`. A batch that reaches beyond stays whole.
    #[must_use]
    pub fn up_to(mut self, end: Offset) -> Self {
        if end < self.next {
            self.batches.retain(|batch| batch.first < end);
            self.gaps.retain(|gap| gap.from < end);
            for gap in self.gaps.iter_mut().filter(|gap| gap.to > end) {
                *gap = gap.part(gap.from, end);
            }
            self.next = end;
        }
        self
    }
}

/// A batch as it stands in the stage. Its messages have consecutive offsets.
#[derive(Debug)]
pub struct StagedBatch {
    /// Offset of the first message.
    pub first: Offset,
    /// The messages.
    pub batch: Batch,
}

impl StagedBatch {
    /// The offset after the last message.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.first.advanced_by(self.batch.len() as u64)
    }

    /// The messages at `from` and after it, with their offsets.
    pub fn messages_from(
        &self,
        from: Offset,
    ) -> impl Iterator<Item = (Offset, crate::record::Message<'_>)> + '_ {
        (self.first.get()..)
            .map(Offset::new)
            .zip(self.batch.iter())
            .skip_while(move |(offset, _)| *offset < from)
    }
}

/// Where a stage begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bounds {
    /// Offset of the oldest message that is still there; equal to `head` when there is none.
    pub oldest: Offset,
    /// The durable head: the offset after the last message that is safe on disk.
    pub head: Offset,
    /// The end of the durable reservation: no message of this stage can ever have had this offset or a higher one.
    pub reserved: Offset,
    /// The first offset that was, or is to be, given since the stage was opened. What stands beyond it at a start
    /// (a cursor in a sink, say) does not come from this stage's past but from that of a copy which went on by itself.
    pub given_from: Offset,
    /// Messages that were staged since the stage was made, up to `head`.
    pub staged: u64,
    /// Whether there were more, of which nobody can know how many: the end of a generation was lost, or the book of the path.
    pub is_uncounted: bool,
}

/// Messages that were staged before an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// How many are known of.
    pub messages: u64,
    /// Whether those are all: the offset is not before the oldest message and not beyond the head, and none is uncounted.
    pub is_exact: bool,
}

impl Bounds {
    /// Refuses the stretch `from..to` of a stage when it holds no offset, or none that the stage can hold now: it ends before the
    /// oldest message, or begins behind the head. At the head it may begin, for there the next message comes.
    ///
    /// # Errors
    /// In words.
    pub fn refuse_outside(self, stage: &str, from: Offset, to: Option<Offset>) -> Result<(), String> {
        let Self { oldest, head, .. } = self;
        match to {
            Some(to) if to <= from => Err(format!(
                "{from}..{to} holds no offset: the end, which is not part of it, must be larger"
            )),
            Some(to) if to <= oldest => Err(format!(
                "stage {stage} begins at offset {oldest}: what was before {to} is no longer held. `stage-inspect gaps {stage}` tells why"
            )),
            _ if from > head => Err(format!(
                "stage {stage} ends before offset {head}: nothing has come at {from} yet"
            )),
            _ => Ok(()),
        }
    }

    /// See [`Stage::reach`].
    fn reach(self, has_begun: bool, held_at: Option<Offset>) -> Offset {
        let own = if has_begun { self.head } else { self.given_from };
        held_at.map_or(own, |held| held.min(own))
    }
}

/// Why a stage could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageError {
    /// The stage path has failed and takes nothing more; a restart recovers it.
    #[error(
        "stage path {path} has stopped: {reason}. What was staged is safe; start the engine again once the cause is removed"
    )]
    Failed {
        /// The directory.
        path: String,
        /// The first error.
        reason: String,
    },
    /// The stage was closed in order.
    #[error("the stage is closed")]
    Closed,
    /// A message is larger than any record can hold.
    #[error("stage {stage}: a message of {bytes} bytes can't be staged; lower max_message_size")]
    TooLarge {
        /// The stage.
        stage: String,
        /// Its length.
        bytes: usize,
    },
    /// What was to be forgotten is in use.
    #[error("{what} stands in the configuration and can't be forgotten; take it out first")]
    StillConfigured {
        /// The stage, or the producer of a stage.
        what: String,
    },
    /// Only the engine that has a stage open writes to it.
    #[error("stage {stage} is open in another process, and only that one writes to it")]
    NotOwner {
        /// The stage.
        stage: String,
    },
    /// The engine that has the path open can't be asked.
    #[error("stage path {path} is out of reach: {reason}")]
    Unreachable {
        /// The directory.
        path: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The path is not the one it was before.
    #[error(
        "stage path {path} is not the one that was read so far: {reason}. Look at what became of the directory, then start again"
    )]
    Replaced {
        /// The directory.
        path: String,
        /// What has changed.
        reason: String,
    },
    /// What is stored does not read back.
    #[error("stage {stage}: damaged at offset {offset}: {reason}")]
    Damaged {
        /// The stage.
        stage: String,
        /// Where.
        offset: Offset,
        /// What is wrong.
        reason: String,
    },
}

impl StageError {
    /// The exit code that a process should end with when a stage fails it.
    #[must_use]
    pub fn exit_reason(&self) -> ExitReason {
        match self {
            Self::Damaged { .. } => ExitReason::Damaged,
            Self::StillConfigured { .. } => ExitReason::Configuration,
            Self::Unreachable { .. } => ExitReason::StageInUse,
            Self::Failed { .. }
            | Self::TooLarge { .. }
            | Self::NotOwner { .. }
            | Self::Replaced { .. }
            | Self::Closed => ExitReason::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_before_the_oldest_message_or_behind_the_head_is_refused_and_says_where_the_stage_is() {
        let bounds = Bounds {
            oldest: Offset::new(100),
            head: Offset::new(500),
            reserved: Offset::new(1_000),
            given_from: Offset::ZERO,
            staged: 500,
            is_uncounted: false,
        };
        let refused = |from, to: Option<u64>| {
            let outcome = bounds.refuse_outside("trades", Offset::new(from), to.map(Offset::new));
            outcome.err().unwrap_or_default()
        };
        for (from, to) in [(0, None), (0, Some(101)), (499, Some(9_999)), (500, None)] {
            assert_eq!(refused(from, to), "", "{from}");
        }
        assert!(refused(0, Some(100)).contains("begins at offset 100"));
        assert!(refused(501, None).contains("ends before offset 500"));
        assert!(refused(300, Some(300)).contains("300..300 holds no offset"));
    }
}
