//! One stage on its way into the database: where its delivery stands, and ([`hindrance`]) what stands in its way.

mod hindrance;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info};

use super::PostgresOptions;
use super::batching::Filling;
use super::condition::Standing;
use super::cursor::{Claim, CursorKey, OwnTables};
use super::dead_letter::Verdict;
use super::encode::{Done, Job, Outcome};
use super::ledger;
use super::made;
use super::outcomes;
use super::refusals::Refusals;
use super::session::Timing;
use super::spare::Spare;
use super::table::{CopyRows, Router, Table};
use super::transaction::{Part, Prepared};
use crate::backoff::Backoff;
use crate::exit::{ExitReason, RunnerError};
use crate::record::Offset;
use crate::stage::report::{Outcomes, Passed, Report};
use crate::stage::{GapCause, Place, ReadLimit, SharedStage, StageError};
use crate::stats::ProducerStats;

/// How often in a row the catalog may be found changed before an operator is asked.
pub(super) const MAX_RELOADS: u32 = 3;

/// How often in a row the table may be found lacking something, before an operator is asked. Each change covers a
/// thousand messages, so that one transaction can need a few.
const MAX_CHANGES: u32 = 100;

/// What has to be done to the tables before more is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableWork {
    /// Nothing.
    Nothing,
    /// Their layouts have to be read.
    Load,
    /// They lack what the messages need.
    Change,
}

/// What a transaction in flight will have delivered, to be counted if its commit turns out to have happened.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    end: Offset,
    messages: u64,
    ignored: u64,
    rows: u64,
    conflicts: u64,
    dead_letters: u64,
    extra_values: u64,
    discarded_values: u64,
}

/// One stage of a producer.
pub(super) struct Lane {
    pub(super) stage: SharedStage,
    pub(super) head: watch::Receiver<Offset>,
    /// The place behind the last outage.
    pub(super) outages: watch::Receiver<Place>,
    pub(super) key: CursorKey,
    /// The names of its tables, for messages.
    pub(super) tables: String,
    /// Away while it encodes.
    pub(super) router: Option<Router>,
    pub(super) work: TableWork,
    /// `None` until this process has taken the row for the first time.
    pub(super) claim: Option<Claim>,
    /// The row has to be taken (again) before anything is delivered.
    pub(super) needs_claim: bool,
    /// Where the cursor in the database stands, and which of the outages there are known to be in the ledger.
    pub(super) cursor: Place,
    /// Where the next transaction begins; ahead of the cursor while one is in flight.
    pub(super) position: Place,
    in_flight: Option<InFlight>,
    condemned: BTreeMap<Offset, Verdict>,
    pub(super) refusals: Refusals,
    /// The most messages of a transaction: halved while looking for a message that the server refuses.
    limit: usize,
    pub(super) filling: Filling,
    pub(super) reloads: u32,
    /// Changes of the table since something was committed.
    changes: u32,
    pub(super) reloaded_once: bool,
    not_before: Option<Instant>,
    retry: Backoff,
    hold_delay: Duration,
    /// What became of the messages before the cursor; `None` until the row has said so.
    pub(super) outcomes: Option<Outcomes>,
    pub(super) standing: Standing,
    /// A replay is not held but ends, for its operator looks on.
    pub(super) ends_when_held: bool,
    /// Why it has to end.
    pub(super) ended_by: Option<String>,
}

impl Lane {
    pub(super) fn new(
        stage: SharedStage,
        producer: &str,
        schema: &str,
        options: &PostgresOptions,
        timing: &Timing,
    ) -> Result<Self, String> {
        let key = CursorKey {
            path_id: stage.path_id(),
            stage: stage.name().to_owned(),
            producer: producer.to_owned(),
            into_table: None,
        };
        let own_tables = OwnTables::new(schema);
        let mut router = Router::new(options.for_stage(schema, stage.name())?);
        for table in router.tables_mut() {
            table.when_made(made::record_sql(&own_tables, &key, table.name_sql()));
        }
        let names: Vec<_> = router.tables().iter().map(Table::name_sql).collect();
        let tables = names.join(", ");
        Ok(Self {
            head: stage.watch_head(),
            outages: stage.watch_outages(),
            key,
            stage,
            tables,
            router: Some(router),
            work: TableWork::Load,
            claim: None,
            needs_claim: true,
            cursor: Place::default(),
            position: Place::default(),
            in_flight: None,
            condemned: BTreeMap::new(),
            refusals: Refusals::new(options.poison_limit),
            limit: options.batch.rows,
            filling: Filling::new(options.batch),
            reloads: 0,
            changes: 0,
            reloaded_once: false,
            not_before: None,
            retry: Backoff::new(timing.retry_initial, timing.retry_max),
            hold_delay: timing.hold,
            outcomes: None,
            standing: Standing::new(),
            ends_when_held: false,
            ended_by: None,
        })
    }

    /// Whether it may be tried now.
    pub(super) fn is_due(&self) -> bool {
        self.not_before.is_none_or(|at| at <= Instant::now())
    }

    /// When it may be tried again, if it has to wait.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.not_before.filter(|at| *at > Instant::now())
    }

    /// Whether messages can be encoded for it now.
    pub(super) fn is_ready(&self) -> bool {
        !self.needs_claim && self.work == TableWork::Nothing && self.is_due()
    }

    /// Whether everything up to the durable head is delivered.
    pub(super) fn is_drained(&self) -> bool {
        !self.needs_claim
            && self.cursor.offset >= self.stage.bounds().head
            && self.cursor >= *self.outages.borrow()
    }

    /// The connection is gone: what was read ahead is void, and the row has to be taken again.
    pub(super) fn disconnected(&mut self) {
        self.position = self.cursor;
        self.needs_claim = true;
    }

    /// The cursor was found elsewhere than it was left, with our epoch still in the row: somebody moved it. Where it stands is
    /// looked at with the row taken.
    pub(super) fn cursor_moved(&mut self) {
        self.position = self.cursor;
        self.needs_claim = true;
    }

    /// The row is ours, and the cursor stands at `next`.
    pub(super) fn claimed(&mut self, claim: Claim, next: Offset) {
        self.claim = Some(claim);
        self.needs_claim = false;
        // The ledger may know of outages at this very place. To write them again changes nothing.
        self.cursor = next.into();
        self.position = self.cursor;
        self.not_before = None;
    }

    /// A transaction begins to be sent.
    pub(super) fn departing(&mut self) {
        self.filling.begins();
        self.standing.delivering();
    }

    /// The transaction was sent; until its answer comes nobody knows whether it is committed.
    pub(super) fn departed(&mut self, prepared: &Prepared) {
        self.in_flight = Some(InFlight {
            end: prepared.end,
            messages: prepared.messages,
            ignored: prepared.ignored,
            rows: prepared.sum(|rows| rows.len() as u64) - prepared.conflicts,
            conflicts: prepared.conflicts,
            dead_letters: prepared.dead_letters.len() as u64,
            extra_values: prepared.sum(CopyRows::extra_values),
            discarded_values: prepared.sum(CopyRows::discarded_values),
        });
    }

    /// The transaction in flight is known not to be committed.
    pub(super) fn turned_back(&mut self) {
        self.in_flight = None;
        self.filling.failed();
        self.position = self.cursor;
    }

    /// The cursor is known to stand at `next`: counts what was in flight if that is where it led.
    pub(super) fn arrived(&mut self, next: Offset, stats: &ProducerStats) {
        if let Some(landed) = self.in_flight.take().filter(|in_flight| in_flight.end == next) {
            stats.delivered.add(landed.messages);
            stats.ignored.add(landed.ignored);
            stats.rows.add(landed.rows);
            stats.conflicts.add(landed.conflicts);
            stats.dead_letters.add(landed.dead_letters);
            stats.extra_values.add(landed.extra_values);
            stats.discarded_values.add(landed.discarded_values);
            stats.transactions.add(1);
        }
    }

    /// The transaction is committed.
    pub(super) fn committed(&mut self, prepared: &Prepared, stats: &ProducerStats) {
        self.arrived(prepared.end, stats);
        self.cursor = prepared.recorded;
        self.outcomes = self
            .outcomes
            .map(|before| outcomes::sum(before, outcomes::of_transaction(prepared)));
        self.condemned = self.condemned.split_off(&prepared.end);
        self.refusals.committed(prepared.messages);
        self.limit = self.limit.saturating_mul(2).min(self.filling.batching.rows);
        self.reloads = 0;
        self.changes = 0;
        self.reloaded_once = false;
        self.not_before = None;
        self.retry.reset();
        if self.standing.committed() {
            self.goes_on();
        }
        self.standing.advanced();
        for gap in &prepared.gaps {
            match (gap.cause, gap.messages) {
                (GapCause::Reservation, _) | (_, Some(0)) => {
                    info!(stage = self.key.stage, from = %gap.from, to = %gap.to, "passed offsets without messages: {}", gap.cause);
                }
                (GapCause::Lost | GapCause::DroppedOldest | GapCause::Expired, messages) => {
                    error!(stage = self.key.stage, from = %gap.from, to = %gap.to, ?messages,
                        "messages will never be delivered: {}", gap.cause);
                }
            }
        }
    }

    /// How its delivery stands, for the stage.
    pub(super) fn report(&self) -> Report {
        let outcomes = self.outcomes.filter(|_| !self.key.is_replay());
        Report {
            condition: self.standing.shown().clone(),
            passed: outcomes.map(|outcomes| Passed {
                cursor: self.cursor.offset,
                outcomes,
            }),
        }
    }

    /// Reads and encodes the next transaction. `None` when there is nothing new, or a table has to be changed first.
    pub(super) async fn prepare(
        &mut self,
        index: usize,
        spare: &mut Spare,
    ) -> Result<Option<Prepared>, RunnerError> {
        let from = self.position.offset;
        let head = *self.head.borrow_and_update();
        let batching = self.filling.batching;
        let limit = ReadLimit {
            messages: self.limit,
            bytes: batching.bytes,
        };
        let read = self.stage.read(from, limit).await.map_err(stage_failed)?;
        // What may hold an outage is not waited with: it is rare, and somebody may look for it.
        let may_wait = *self.outages.borrow() <= self.position;
        let read = ledger::with_outages(self.stage.as_ref(), self.position, read)
            .await
            .map_err(stage_failed)?;
        let (read, outages) = (read.messages, read.outages);
        if read.next <= from && outages.outages.is_empty() {
            // Past records of outages that can't be read. The cursor follows unless a transaction is on its way behind it.
            let is_settled = self.position == self.cursor;
            self.position = self.position.max(outages.next);
            if is_settled {
                self.cursor = self.position;
            }
            return Ok(None);
        }
        if may_wait && self.filling.waits_for_more(&read, from, self.limit, head) {
            return Ok(None);
        }
        let Some(router) = self.router.take() else {
            return Err(RunnerError::new(
                ExitReason::Failed,
                "an encoder was lost; this is a mistake in the program",
            ));
        };
        let job = Job {
            rows: router.tables().iter().map(|_| spare.take()).collect(),
            router,
            batches: read.batches,
            from,
            next: read.next,
            messages: self.limit,
            batching,
            condemned: std::mem::take(&mut self.condemned),
        };
        let done: Done = tokio::task::spawn_blocking(|| job.run())
            .await
            .map_err(|panic| RunnerError::new(ExitReason::Failed, panic))?;
        self.condemned = done.condemned;
        let router = self.router.insert(done.router);
        match done.outcome {
            Outcome::Encoded {
                end,
                messages,
                ignored,
                dead_letters,
            } => {
                let gaps: Vec<_> = read.gaps.into_iter().filter(|gap| gap.from < end).collect();
                let passed = outages
                    .outages
                    .partition_point(|outage| outage.place.offset <= end);
                let passed = &outages.outages[..passed];
                let recorded = passed
                    .last()
                    .map_or(self.position, |last| last.place.next())
                    .max(end.into());
                let mut entries = Vec::new();
                if !self.key.is_replay() {
                    entries.extend(gaps.iter().map(ledger::Entry::from));
                    entries.extend(passed.iter().map(ledger::Entry::from));
                }
                self.position = recorded;
                Ok(Some(Prepared {
                    lane: index,
                    from,
                    end,
                    messages,
                    ignored,
                    parts: parts(router, done.rows, spare),
                    dead_letters,
                    gaps,
                    ledger: entries,
                    recorded,
                    conflicts: 0,
                }))
            }
            Outcome::NeedsSchema => {
                self.work = TableWork::Change;
                self.changes += 1;
                if self.changes > MAX_CHANGES {
                    self.hold(
                        "the tables were changed again and again, and still do not take the messages",
                        "Look at their columns",
                    );
                }
                done.rows.into_iter().for_each(|rows| spare.give(rows));
                Ok(None)
            }
        }
    }
}

/// The rows of those tables that have some.
fn parts(router: &Router, rows: Vec<CopyRows>, spare: &mut Spare) -> Vec<Part> {
    let mut parts = Vec::new();
    for (table, (target, rows)) in router.tables().iter().zip(rows).enumerate() {
        if rows.is_empty() {
            spare.give(rows);
        } else {
            let loading = target.loading();
            parts.push(Part { table, loading, rows });
        }
    }
    parts
}

/// A stage that fails ends the process: a restart recovers it.
pub(super) fn stage_failed(error: StageError) -> RunnerError {
    RunnerError::new(error.exit_reason(), error)
}
