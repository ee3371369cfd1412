//! The stage as a replay reads it: it ends where the replay ends, and lacks what is to be left out. Everything else is the
//! stage's own, above all its copy of the replay's cursor, which keeps from being removed what is still to be read.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::left_out::{LeftOut, Window};
use crate::record::{Batch, Offset};
use crate::stage::report::Report;
use crate::stage::{
    Accepted, Bounds, Given, Outage, ReadLimit, ReadOutcome, SharedStage, Stage, StageError, StagedBatch,
};

/// A stretch of a stage.
pub(super) struct Stretch {
    stage: SharedStage,
    left_out: Arc<LeftOut>,
    /// Never changes; the sender is kept for those who wait on it.
    head: watch::Sender<Offset>,
}

impl Stretch {
    /// The stage up to where `left_out` ends.
    pub(super) fn new(stage: SharedStage, left_out: Arc<LeftOut>) -> Self {
        Self {
            stage,
            head: watch::Sender::new(left_out.to),
            left_out,
        }
    }

    fn to(&self) -> Offset {
        self.left_out.to
    }
}

#[async_trait]
impl Stage for Stretch {
    fn name(&self) -> &str {
        self.stage.name()
    }

    fn path_id(&self) -> Uuid {
        self.stage.path_id()
    }

    async fn append(&self, _batch: Batch) -> Result<Accepted, StageError> {
        Err(StageError::Closed)
    }

    async fn append_outage(&self, _outage: Outage) -> Result<Accepted, StageError> {
        Err(StageError::Closed)
    }

    async fn read(&self, from: Offset, limit: ReadLimit) -> Result<ReadOutcome, StageError> {
        let mut outcome = ReadOutcome {
            batches: Vec::new(),
            gaps: Vec::new(),
            next: from,
        };
        if from >= self.to() {
            return Ok(outcome);
        }
        let Some(window) = self.left_out.window(from).await else {
            return Ok(outcome);
        };
        let until = window.offsets.end;
        let begin = window.run_at(from).map_or(from, |run| run.end.min(until));
        outcome.next = begin;
        if begin >= until {
            return Ok(outcome);
        }
        let read = self.stage.read(begin, limit).await?;
        for batch in &read.batches {
            add_wanted(batch, begin..until, &window, &mut outcome.batches);
        }
        outcome.gaps = read.gaps.into_iter().filter(|gap| gap.from < until).collect();
        outcome.next = read.next.min(until);
        Ok(outcome)
    }

    async fn ack(&self, producer: &str, next: Offset) -> Result<(), StageError> {
        self.stage.ack(producer, next).await
    }

    fn cursor(&self, producer: &str) -> Option<Offset> {
        self.stage.cursor(producer)
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            head: self.to(),
            ..self.stage.bounds()
        }
    }

    fn count_between(&self, from: Offset, to: Offset) -> u64 {
        self.stage.count_between(from, to)
    }

    fn given_before(&self, offset: Offset) -> Given {
        self.stage.given_before(offset)
    }

    async fn report(&self, producer: &str, report: &Report) -> bool {
        self.stage.report(producer, report).await
    }

    fn watch_head(&self) -> watch::Receiver<Offset> {
        self.head.subscribe()
    }
}

/// Adds the messages of a batch that are wanted, in pieces without a gap.
fn add_wanted(
    batch: &Arc<StagedBatch>,
    wanted: Range<Offset>,
    window: &Window,
    pieces: &mut Vec<Arc<StagedBatch>>,
) {
    let within = batch.first.max(wanted.start)..batch.end().min(wanted.end);
    if within.is_empty() {
        return;
    }
    if batch.end() <= wanted.end && window.is_clear(&within) {
        pieces.push(Arc::clone(batch));
        return;
    }
    let mut piece: Option<StagedBatch> = None;
    for (offset, message) in batch.messages_from(within.start) {
        if offset >= within.end {
            break;
        }
        if window.run_at(offset).is_some() {
            pieces.extend(piece.take().map(Arc::new));
            continue;
        }
        let open = piece.get_or_insert_with(|| StagedBatch {
            first: offset,
            batch: Batch::default(),
        });
        if !open.batch.push(message.payload, message.received_at) {
            // No batch holds it beside the others.
            let mut alone = StagedBatch {
                first: offset,
                batch: Batch::default(),
            };
            let _ = alone.batch.push(message.payload, message.received_at);
            pieces.extend(piece.replace(alone).map(Arc::new));
        }
    }
    pieces.extend(piece.map(Arc::new));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Timestamp;

    fn offset(number: u64) -> Offset {
        Offset::new(number)
    }

    /// The offsets of the pieces of a batch `10..20` that are wanted.
    fn wanted(from: u64, to: u64, runs: &[(u64, u64)]) -> Vec<Vec<u64>> {
        let mut batch = Batch::default();
        for n in 10..20_u8 {
            assert!(batch.push(&[n], Timestamp::default()));
        }
        let batch = Arc::new(StagedBatch {
            first: offset(10),
            batch,
        });
        let runs = runs.iter().map(|&(from, to)| offset(from)..offset(to)).collect();
        let window = Window::of(offset(0)..offset(100), runs);
        let mut pieces = Vec::new();
        add_wanted(&batch, offset(from)..offset(to), &window, &mut pieces);
        pieces
            .iter()
            .map(|piece| {
                let messages = piece.messages_from(offset(from));
                messages
                    .map(|(offset, message)| {
                        assert_eq!(u64::from(message.payload[0]), offset.get());
                        offset.get()
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn what_is_left_out_and_what_is_behind_the_end_is_not_read() {
        assert_eq!(wanted(0, 100, &[]), [(10..20).collect::<Vec<_>>()]);
        assert_eq!(wanted(12, 15, &[]), [[12, 13, 14]]);
        assert_eq!(wanted(0, 100, &[(0, 12), (14, 18)]), [[12, 13], [18, 19]]);
        assert_eq!(wanted(15, 18, &[(16, 17)]), [[15], [17]]);
        assert_eq!(wanted(0, 100, &[(5, 30)]), Vec::<Vec<u64>>::new());
        assert_eq!(wanted(30, 100, &[]), Vec::<Vec<u64>>::new());
    }
}
