//! From batches of a stage to a prepared transaction: the CPU-bound half of delivery, run beside the commit of the
//! transaction before.
//!
//! Whole messages only. Bounded by [`Batching`] and the lane's own limit; at least one message is taken whatever its size.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batching::Batching;
use super::dead_letter::{DeadLetter, Verdict};
use super::table::{CopyRows, Encoded, Router, SAMPLE_MESSAGES};
use crate::record::Offset;
use crate::stage::StagedBatch;

/// What to encode, and with what.
pub(super) struct Job {
    pub(super) router: Router,
    /// Of each of its tables.
    pub(super) rows: Vec<CopyRows>,
    pub(super) batches: Vec<Arc<StagedBatch>>,
    /// The first message that is wanted.
    pub(super) from: Offset,
    /// Where reading goes on after the batches.
    pub(super) next: Offset,
    /// The most messages.
    pub(super) messages: usize,
    pub(super) batching: Batching,
    /// Messages that the server refused before.
    pub(super) condemned: BTreeMap<Offset, Verdict>,
}

/// What came of a [`Job`]; gives back what it took.
pub(super) struct Done {
    pub(super) router: Router,
    /// Of each of its tables.
    pub(super) rows: Vec<CopyRows>,
    pub(super) condemned: BTreeMap<Offset, Verdict>,
    pub(super) outcome: Outcome,
}

/// Whether the rows can be sent.
pub(super) enum Outcome {
    /// Rows and dead letters of the messages before `end`.
    Encoded {
        end: Offset,
        messages: u64,
        /// Those of them that are not for any table.
        ignored: u64,
        dead_letters: Vec<DeadLetter>,
    },
    /// A table has to be changed, or its layout loaded again, first. There are no rows.
    NeedsSchema,
}

impl Job {
    /// Encodes. Takes as long as the CPU needs: never to be called where tasks wait.
    pub(super) fn run(mut self) -> Done {
        self.rows.iter_mut().for_each(CopyRows::clear);
        let outcome = self.encode();
        if matches!(outcome, Outcome::NeedsSchema) {
            self.rows.iter_mut().for_each(CopyRows::clear);
        }
        Done {
            router: self.router,
            rows: self.rows,
            condemned: self.condemned,
            outcome,
        }
    }

    fn encode(&mut self) -> Outcome {
        let from = self.from;
        let mut left = self.batches.iter().flat_map(|batch| batch.messages_from(from));
        let (mut messages, mut bytes, mut ignored) = (0, 0, 0);
        let mut dead_letters = Vec::new();
        let mut end = self.next;
        for (offset, message) in left.by_ref() {
            let rows = self.rows.iter().map(CopyRows::len).sum::<usize>();
            let encoded = self.rows.iter().map(|rows| rows.bytes().len()).sum();
            let full = messages >= self.messages
                || rows >= self.batching.rows
                || bytes.max(encoded) >= self.batching.bytes;
            if full && messages > 0 {
                end = offset;
                break;
            }
            messages += 1;
            bytes += message.payload.len();
            if let Some(verdict) = self.condemned.get(&offset) {
                dead_letters.push(DeadLetter::new(offset, message, verdict.clone()));
                continue;
            }
            match self.router.encode(offset, message, &mut self.rows) {
                Encoded::Rows(_) => {}
                Encoded::Ignored => ignored += 1,
                Encoded::DeadLetter { reason, record_index } => {
                    let verdict = Verdict {
                        sqlstate: None,
                        reason,
                        record_index,
                    };
                    dead_letters.push(DeadLetter::new(offset, message, verdict));
                }
                Encoded::NeedsSchema => {
                    // Those that follow are only looked at, so that one change of each table does for all of them.
                    for (offset, message) in left.take(SAMPLE_MESSAGES) {
                        let _ = self.router.encode(offset, message, &mut self.rows);
                    }
                    return Outcome::NeedsSchema;
                }
            }
        }
        Outcome::Encoded {
            end,
            messages: messages as u64,
            ignored,
            dead_letters,
        }
    }
}
