//! The loop of a producer: takes its stages in turn, one transaction each, and encodes the next while the present one
//! is being committed.
//!
//! Memory is bounded: at most two transactions exist at a time, each within the limits of `batching`.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, select_all};
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::PostgresOptions;
use super::cursor::OwnTables;
use super::lane::{Lane, TableWork, stage_failed};
use super::session::{Session, Timing};
use super::spare::Spare;
use super::table::TableError;
use super::target::Target;
use super::transaction::{self, Failure, Prepared};
use crate::backoff::Backoff;
use crate::exit::{ExitReason, RunnerError};
use crate::producer::{ProducerContext, RunUntil};
use crate::stage::{ReadLimit, StageError};

/// A producer at work.
pub(super) struct Delivery {
    pub(super) target: Target,
    pub(super) timing: Timing,
    pub(super) context: ProducerContext,
    pub(super) tables: OwnTables,
    pub(super) lanes: Vec<Lane>,
    pub(super) session: Option<Session>,
    /// Whether our own tables were made, which happens once.
    pub(super) tables_made: bool,
    /// When the last session was made.
    pub(super) connected_at: Option<Instant>,
    /// Reset by a committed transaction or a long session, not by a connection: a server may accept everything but data.
    pub(super) connect_backoff: Backoff,
    pub(super) connect_at: Option<Instant>,
    /// What was last logged to stand in the way of all lanes.
    pub(super) trouble: Option<String>,
    /// Encoded while the transaction before it was being committed.
    pub(super) next: Option<Prepared>,
    /// The lane whose turn it is.
    turn: usize,
    spare: Spare,
}

/// Whether the loop goes on.
enum Step {
    GoOn,
    Finished,
}

impl Delivery {
    pub(super) fn new(
        target: Target,
        options: &PostgresOptions,
        timing: Timing,
        context: ProducerContext,
    ) -> Result<Self, RunnerError> {
        let mut lanes = context
            .stages
            .iter()
            .map(|stage| Lane::new(stage.clone(), &context.name, target.schema(), options, &timing))
            .collect::<Result<Vec<_>, String>>()
            .map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
        if context.until == RunUntil::Drained {
            // Nothing more comes that would be worth waiting for.
            for lane in &mut lanes {
                lane.filling.batching.interval = Duration::ZERO;
            }
        }
        Ok(Self {
            tables: OwnTables::new(target.schema()),
            target,
            timing,
            context,
            lanes,
            session: None,
            tables_made: false,
            connected_at: None,
            connect_backoff: Backoff::new(timing.retry_initial, timing.retry_max),
            connect_at: None,
            trouble: None,
            next: None,
            turn: 0,
            spare: Spare::default(),
        })
    }

    /// Delivers until it is told to stop, or everything is delivered and that was all that was asked for.
    pub(super) async fn run(mut self) -> Result<(), RunnerError> {
        let stop = self.context.stop.clone();
        while !stop.is_cancelled() {
            if let Some(reason) = self.lanes.iter_mut().find_map(|lane| lane.ended_by.take()) {
                return Err(RunnerError::new(ExitReason::Failed, reason));
            }
            self.tell().await;
            if self.session.is_none() {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.connect() => {}
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                claimed = self.claim_lanes() => claimed?,
            }
            self.mend_tables().await;
            match self.step().await? {
                Step::GoOn => {}
                Step::Finished => break,
            }
        }
        info!(producer = self.context.name, "stopped");
        Ok(())
    }

    /// One transaction, or waiting for something to do.
    async fn step(&mut self) -> Result<Step, RunnerError> {
        let mut prepared = match self.next.take() {
            Some(prepared) => prepared,
            None => match prepare_next(&mut self.lanes, &mut self.turn, &mut self.spare).await? {
                Some(prepared) => prepared,
                None => return self.idle().await,
            },
        };
        let lane = &mut self.lanes[prepared.lane];
        let (Some(session), Some(claim), Some(router)) = (&mut self.session, lane.claim, &lane.router) else {
            // Lost meanwhile; what was prepared is void.
            lane.position = lane.cursor;
            return Ok(Step::GoOn);
        };
        let key = lane.key.clone();
        let opened = transaction::open(
            session,
            &self.timing,
            &self.tables,
            &key,
            claim,
            &prepared,
            router,
        )
        .await;
        match opened {
            Ok(outcomes) => lane.outcomes = outcomes,
            Err(failure) => {
                self.recover(prepared, failure).await?;
                return Ok(Step::GoOn);
            }
        }
        self.lanes[prepared.lane].departing();
        let (finished, next) = tokio::join!(
            transaction::finish(session, &self.timing, &self.tables, &key, claim, &mut prepared),
            prepare_next(&mut self.lanes, &mut self.turn, &mut self.spare),
        );
        let (next, stage_error) = match next {
            Ok(next) => (next, None),
            Err(error) => (None, Some(error)),
        };
        self.next = next;
        self.lanes[prepared.lane].departed(&prepared);
        match finished {
            Ok(recorded) => {
                self.context.stats.gaps.add(recorded);
                self.settle(prepared).await?;
            }
            Err(failure) => self.recover(prepared, failure).await?,
        }
        stage_error.map_or(Ok(Step::GoOn), Err)
    }

    /// The transaction is committed: acknowledges it.
    async fn settle(&mut self, prepared: Prepared) -> Result<(), RunnerError> {
        self.all_is_well();
        let lane = &mut self.lanes[prepared.lane];
        lane.committed(&prepared, &self.context.stats);
        for part in prepared.parts {
            self.spare.give(part.rows);
        }
        let acked = lane.stage.ack(&lane.key.producer, prepared.end).await;
        acked.map_err(stage_failed)
    }

    /// Tells the stages how their deliveries stand.
    async fn tell(&mut self) {
        for lane in &mut self.lanes {
            if lane.standing.tells_at() <= Instant::now() {
                let was_heard = lane.stage.report(&lane.key.producer, &lane.report()).await;
                lane.standing.told(was_heard);
            }
        }
    }

    /// Reads and changes the tables of the lanes that need it.
    async fn mend_tables(&mut self) {
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            if self.session.is_none() || lane.work == TableWork::Nothing || lane.needs_claim || !lane.is_due()
            {
                continue;
            }
            match self.mend_table(index).await {
                Ok(()) => self.lanes[index].work = TableWork::Nothing,
                Err(failure) => self.table_failed(index, &failure),
            }
        }
    }

    async fn mend_table(&mut self, index: usize) -> Result<(), TableError> {
        let lane = &mut self.lanes[index];
        let (Some(session), Some(router)) = (&mut self.session, &mut lane.router) else {
            return Ok(());
        };
        router
            .mend(&mut session.client, lane.work == TableWork::Change)
            .await
    }

    /// Waits until there is something to do.
    async fn idle(&mut self) -> Result<Step, RunnerError> {
        let at_work = |lane: &Lane| lane.work != TableWork::Nothing || lane.needs_claim;
        if self.session.is_none() || self.lanes.iter().any(|lane| at_work(lane) && lane.is_due()) {
            return Ok(Step::GoOn);
        }
        if self.context.until == RunUntil::Drained && self.lanes.iter().all(Lane::is_drained) {
            return Ok(Step::Finished);
        }
        for lane in &mut self.lanes {
            lane.rests();
        }
        let look = Instant::now() + self.timing.idle_check;
        let wake = self
            .lanes
            .iter()
            .flat_map(|lane| [lane.waits_until(), lane.filling.waits_until()])
            .flatten()
            .chain(self.lanes.iter().map(|lane| lane.standing.tells_at()))
            .fold(look, Instant::min);
        let stop = self.context.stop.clone();
        let mut heads: Vec<BoxFuture<'_, Result<(), StageError>>> = self
            .lanes
            .iter_mut()
            .filter(|lane| lane.is_ready())
            .map(|lane| {
                let Lane {
                    head,
                    outages,
                    stage,
                    position,
                    filling,
                    ..
                } = lane;
                let seen = filling.seen().max(position.offset);
                let position = *position;
                let outage = async move {
                    if outages.wait_for(|end| *end > position).await.is_err() {
                        // The stage records none, or ends: then the head says so.
                        std::future::pending::<()>().await;
                    }
                };
                let woken = async move {
                    let moved = tokio::select! {
                        moved = head.wait_for(|head| *head > seen) => moved.is_ok(),
                        () = outage => true,
                    };
                    if moved {
                        return Ok(());
                    }
                    // Closed: reading says why.
                    let limit = ReadLimit {
                        messages: 1,
                        bytes: 1,
                    };
                    stage.read(position.offset, limit).await.map(drop)?;
                    Err(StageError::Closed)
                };
                woken.boxed()
            })
            .collect();
        if heads.is_empty() {
            heads.push(std::future::pending().boxed());
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(Step::GoOn),
            (woken, _, _) = select_all(heads) => return woken.map(|()| Step::GoOn).map_err(stage_failed),
            () = sleep_until(wake) => {}
        }
        if Instant::now() >= look {
            self.check_epochs().await?;
        }
        Ok(Step::GoOn)
    }

    /// While nothing is delivered: whether the rows are still ours, so that an idle engine too learns that it was taken over.
    async fn check_epochs(&mut self) -> Result<(), RunnerError> {
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            let (Some(session), Some(claim)) = (&self.session, lane.claim.filter(|_| lane.is_ready())) else {
                continue;
            };
            match transaction::check_epoch(session, &self.timing, &self.tables, &lane.key, claim).await {
                Ok((next, outcomes)) => {
                    let lane = &mut self.lanes[index];
                    if next != lane.cursor.offset {
                        lane.cursor_moved();
                    } else if lane.outcomes != outcomes {
                        // An operator has dealt with dead letters.
                        lane.outcomes = outcomes;
                        lane.standing.advanced();
                    }
                }
                Err(Failure::Fenced) => return Err(self.fenced(index)),
                // Of no consequence before there is something to deliver, but a lost connection is made again at once.
                Err(failure) => {
                    if self
                        .session
                        .as_ref()
                        .is_some_and(|session| session.client.is_closed())
                    {
                        self.lose_session(&failure.to_string(), None);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads and encodes the next transaction of the first lane, beginning with the one whose turn it is, that has something.
async fn prepare_next(
    lanes: &mut [Lane],
    turn: &mut usize,
    spare: &mut Spare,
) -> Result<Option<Prepared>, RunnerError> {
    let count = lanes.len();
    for _ in 0..count {
        let index = *turn % count;
        *turn = index + 1;
        let lane = &mut lanes[index];
        if !lane.is_ready() {
            continue;
        }
        if let Some(prepared) = lane.prepare(index, spare).await? {
            return Ok(Some(prepared));
        }
    }
    Ok(None)
}
