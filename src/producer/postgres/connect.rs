//! Session, start and resynchronisation: everything between having no connection and knowing, for each stage, that its
//! row is ours and where its cursor stands.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::advice;
use super::classify::{Action, action_for};
use super::cursor::{self, Retaken, Taken};
use super::dead_letter;
use super::delivery::Delivery;
use super::dial::ConnectError;
use super::lane::{Lane, stage_failed};
use super::made;
use super::outcomes::{self, Found};
use super::session::{LASTING_COMMIT, Session, Timing, describe, end_own_blockers};
use super::start::{Beginning, HoldCause, decide};
use super::target::Target;
use crate::exit::{ExitReason, RunnerError};
use crate::producer::Start;
use crate::record::Offset;
use crate::stage::path::{held_cursor, replay_of};
use crate::stage::report::Outcomes;

/// What taking one lane's row came to.
enum Claimed {
    /// It is ours.
    Yes(Taking),
    /// An operator has to decide first.
    Held(HoldCause),
    /// The row is gone, which only an operator can have done.
    RowGone,
    /// Somebody else has it.
    Fenced,
    /// It is from before we had it.
    Earlier,
    /// It belongs to another stage path.
    OtherPath(uuid::Uuid),
}

/// A row that was taken.
struct Taking {
    claim: cursor::Claim,
    /// Where its cursor stands.
    beginning: Beginning,
    /// What it counts.
    outcomes: Option<Outcomes>,
    /// How many messages before the cursor those were that the server has refused, when another process delivered them.
    refused: Vec<u64>,
}

impl Delivery {
    /// Makes a session, if the time for it has come; otherwise waits for that time. Sets `self.session` on success.
    pub(super) async fn connect(&mut self) {
        if let Some(at) = self.connect_at {
            tokio::time::sleep_until(at).await;
        }
        match self.try_connect().await {
            Ok(session) => {
                if self.connected_at.is_some() {
                    self.context.stats.reconnects.add(1);
                }
                info!(producer = self.context.name, target = %self.target, with = %session.peer(), "connected to the database");
                self.connected_at = Some(Instant::now());
                self.session = Some(session);
                for lane in &mut self.lanes {
                    lane.standing.connected();
                }
            }
            Err(refusal) => {
                let alarm = refusal.needs_operator().then(|| refusal.what_to_do());
                self.lose_session(&refusal.to_string(), alarm);
            }
        }
    }

    async fn try_connect(&mut self) -> Result<Session, ConnectError> {
        let session = Session::open(&self.target).await?;
        if !self.tables_made {
            session.refuse_transaction_pooling(&self.target).await?;
            // Only here: while running, a table of ours that is gone holds, for what it knew can't be made again.
            self.tables.make(&session.client, self.target.schema()).await?;
            self.tables_made = true;
        }
        Ok(session)
    }

    /// The session is of no more use: everything is taken up again from the cursors, after a while. `alarm` when an operator is
    /// needed: what to do, unless the reason says it.
    pub(super) fn lose_session(&mut self, reason: &str, alarm: Option<&str>) {
        let was_connected = self.session.take().is_some();
        if was_connected && self.connected_at.is_some_and(|at| at.elapsed() >= HEALTHY) {
            self.all_is_well();
        }
        self.next = None;
        for lane in &mut self.lanes {
            lane.disconnected();
            lane.standing.connecting(reason, alarm.unwrap_or_default());
        }
        self.connect_at = Some(Instant::now() + self.connect_backoff.next_delay());
        if self.trouble.as_deref() == Some(reason) {
            debug!(producer = self.context.name, reason, "trying again");
            return;
        }
        let producer = &self.context.name;
        if let Some(what_to_do) = alarm {
            let pause = if what_to_do.is_empty() { "" } else { ". " };
            error!(producer, target = %self.target, "the database can't be used, and is tried again until it can: {reason}{pause}{what_to_do}");
        } else {
            warn!(producer, target = %self.target, "no connection to the database; trying until there is one: {reason}");
        }
        self.trouble = Some(reason.to_owned());
    }

    /// What stood in the way of all lanes is over; what comes next is new.
    pub(super) fn all_is_well(&mut self) {
        self.connect_backoff.reset();
        self.connect_at = None;
        self.trouble = None;
    }

    /// Takes the rows of all lanes that need it and are due.
    pub(super) async fn claim_lanes(&mut self) -> Result<(), RunnerError> {
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            if !lane.needs_claim || !lane.is_due() {
                continue;
            }
            let Some(session) = &self.session else {
                return Ok(());
            };
            let claiming = patiently(&self.target, &self.timing, session.pid(), async {
                match lane.claim {
                    None => self.claim_first(session, lane).await,
                    Some(claim) => self.claim_again(session, lane, claim).await,
                }
            });
            match claiming.await {
                Ok(Claimed::Yes(taking)) => {
                    let lane = &mut self.lanes[index];
                    lane.outcomes = taking.outcomes;
                    lane.refusals.remember(taking.refused);
                    self.begin(index, taking.claim, taking.beginning).await?;
                }
                Ok(Claimed::Held(cause)) => {
                    self.roll_back().await;
                    self.hold(index, cause).await?;
                }
                Ok(Claimed::RowGone) => {
                    self.lanes[index].hold(CURSOR_ROW_GONE, "");
                    self.roll_back().await;
                }
                Ok(Claimed::Fenced) => return Err(self.fenced(index)),
                Ok(Claimed::Earlier) => return Err(self.earlier(index)),
                Ok(Claimed::OtherPath(other)) => return Err(self.other_path(index, other)),
                Err(error) => self.claim_failed(index, &error).await,
            }
        }
        Ok(())
    }

    /// The start of a process: takes the epoch whoever has it.
    async fn claim_first(&self, session: &Session, lane: &Lane) -> Result<Claimed, tokio_postgres::Error> {
        let client = &session.client;
        let (bounds, local) = (lane.stage.bounds(), lane.stage.cursor(&lane.key.producer));
        let reach = lane.stage.reach(&lane.key.producer);
        client.batch_execute(&begin_claim(&self.timing)).await?;
        let first = match decide(None, local, bounds, reach, self.context.start) {
            Beginning::First(first) => first,
            // Not to be kept: the row, if it is made now, is rolled back below.
            Beginning::Follow(_) | Beginning::Redeliver { .. } | Beginning::Hold(_) => bounds.oldest,
        };
        let (claim, found, counted) = match cursor::take(client, &self.tables, &lane.key, first).await? {
            Taken::Ours {
                claim,
                next,
                outcomes,
            } => (claim, next, outcomes),
            Taken::OtherPath(other) => {
                client.batch_execute("ROLLBACK").await?;
                return Ok(Claimed::OtherPath(other));
            }
        };
        match decide(found, local, bounds, reach, self.context.start) {
            Beginning::Hold(cause) => Ok(Claimed::Held(cause)),
            beginning => {
                let stage = lane.stage.as_ref();
                let known = match (found, counted) {
                    (None, _) => Found::Made,
                    (Some(_), None) => Found::Uncounted,
                    (Some(_), Some(outcomes)) => Found::Counted(outcomes),
                };
                let at = found.unwrap_or(first);
                let outcomes = outcomes::settle(client, &self.tables, &lane.key, stage, at, known).await?;
                let refused = dead_letter::refused_lately(client, &self.tables, &lane.key, at).await?;
                let distances = refused.iter().map(|offset| stage.count_between(*offset, at));
                client.batch_execute("COMMIT").await?;
                Ok(Claimed::Yes(Taking {
                    claim,
                    beginning,
                    outcomes: Some(outcomes),
                    refused: distances.collect(),
                }))
            }
        }
    }

    /// A reconnection: takes the epoch only if it is still ours.
    async fn claim_again(
        &self,
        session: &Session,
        lane: &Lane,
        claim: cursor::Claim,
    ) -> Result<Claimed, tokio_postgres::Error> {
        let client = &session.client;
        client.batch_execute(&begin_claim(&self.timing)).await?;
        let (claim, next, counted) = match cursor::retake(client, &self.tables, &lane.key, claim).await? {
            Retaken::Ours {
                claim,
                next,
                outcomes,
            } => (claim, next, outcomes),
            Retaken::Fenced => return Ok(Claimed::Fenced),
            Retaken::Earlier => return Ok(Claimed::Earlier),
            Retaken::Gone => return Ok(Claimed::RowGone),
        };
        let counted = match (counted, next == lane.cursor.offset || lane.key.is_replay()) {
            (counted, true) => counted,
            // Our own transaction whose answer was lost; or somebody else has moved it.
            (counted, false) => {
                let found = counted.map_or(Found::Uncounted, Found::Counted);
                let stage = lane.stage.as_ref();
                Some(outcomes::settle(client, &self.tables, &lane.key, stage, next, found).await?)
            }
        };
        client.batch_execute("COMMIT").await?;
        let (known, bounds) = (Some(lane.cursor.offset), lane.stage.bounds());
        // What is reserved grows while a cursor beyond it is held, and does not make it one of this stage's.
        let held_at = lane.stage.cursor(&held_cursor(&lane.key.producer));
        let reach = held_at.map_or(bounds.reserved, |held| held.min(bounds.reserved));
        Ok(match decide(Some(next), known, bounds, reach, Start::Oldest) {
            Beginning::Hold(cause) => Claimed::Held(cause),
            beginning => Claimed::Yes(Taking {
                claim,
                beginning,
                outcomes: counted,
                refused: Vec::new(),
            }),
        })
    }

    async fn begin(
        &mut self,
        index: usize,
        claim: cursor::Claim,
        beginning: Beginning,
    ) -> Result<(), RunnerError> {
        let lane = &mut self.lanes[index];
        let Some(at) = announce(lane, beginning) else {
            return Ok(());
        };
        if let (Beginning::Redeliver { from, .. }, Some(session), Some(router)) =
            (beginning, &self.session, &lane.router)
        {
            for table in router.tables() {
                let noted =
                    made::lower(&session.client, &self.tables, &lane.key, table.name_sql(), from).await;
                if let Err(error) = noted {
                    lane.needs_claim = true;
                    self.claim_failed(index, &error).await;
                    return Ok(());
                }
            }
        }
        let lane = &mut self.lanes[index];
        let begun = lane.stage.begun(&lane.key.producer).await;
        begun.map_err(stage_failed)?;
        lane.arrived(at, &self.context.stats);
        lane.claimed(claim, at);
        // The stage's copy follows the truth, backwards too: it is what keeps messages from being removed.
        if !matches!(beginning, Beginning::First(_)) {
            let acked = lane.stage.ack(&lane.key.producer, at).await;
            acked.map_err(stage_failed)?;
        }
        Ok(())
    }

    /// An operator has to decide where this lane begins.
    async fn hold(&mut self, index: usize, cause: HoldCause) -> Result<(), RunnerError> {
        let lane = &mut self.lanes[index];
        if let HoldCause::StageOlder { reach, .. } = cause
            && !lane.ends_when_held
        {
            // What is staged while it is held would make the cursor look like one of this stage's before long.
            let noted = lane.stage.hold(&lane.key.producer, reach).await;
            noted.map_err(stage_failed)?;
        }
        lane.hold(&cause.to_string(), "");
        Ok(())
    }

    async fn claim_failed(&mut self, index: usize, error: &tokio_postgres::Error) {
        let reason = describe(error);
        match action_for(error) {
            Action::Reconnect => return self.lose_session(&reason, None),
            Action::ReconnectAlarm => {
                return self.lose_session(&reason, Some(advice::what_to_do(error)));
            }
            Action::Retry | Action::Halve => self.lanes[index].retry_later(&reason),
            Action::Reload | Action::ReloadOnce | Action::Poison | Action::Hold => {
                let reason = format!("the cursor table can't be used: {reason}");
                self.lanes[index].hold(&reason, advice::what_to_do(error));
            }
        }
        self.roll_back().await;
    }

    /// The error of an engine that was taken over.
    pub(super) fn fenced(&self, index: usize) -> RunnerError {
        let key = &self.lanes[index].key;
        let message = match replay_of(&key.producer) {
            Some(producer) => format!(
                "the replay of stage {} by {producer} was taken up by another `stage-inspect replay`, which goes on with it",
                key.stage
            ),
            None => format!(
                "stage {} of producer {} was taken over by another engine, which delivers it now. Stop one of the two; to give \
                 it back to this one, start this one again after the other has stopped",
                key.stage, key.producer
            ),
        };
        RunnerError::new(ExitReason::Fenced, message)
    }

    /// The error of an engine under which the database went back in time. Whether another engine delivers by now can't be told by
    /// the row; the next start takes it, whoever has it.
    fn earlier(&self, index: usize) -> RunnerError {
        let key = &self.lanes[index].key;
        RunnerError::new(
            ExitReason::Fenced,
            format!(
                "the cursor of stage {} and producer {} in the database is from before this engine took it: the database was restored to an \
                 earlier state, or a standby was promoted that had not received all. Start this engine again, unless another one delivers \
                 the stage by now: it goes on from what the database has, and delivers again what that lacks",
                key.stage, key.producer
            ),
        )
    }

    fn other_path(&self, index: usize, other: uuid::Uuid) -> RunnerError {
        let key = &self.lanes[index].key;
        RunnerError::new(
            ExitReason::Failed,
            format!(
                "schema {} already holds stage {} of producer {} from another stage path (id {other}, ours is {}): two stages \
                 of one name are not mixed. Use another schema or other names; or, if this stage is to replace that one, run \
                 `stage-inspect adopt {}`",
                self.target.schema(),
                key.stage,
                key.producer,
                key.path_id,
                key.stage
            ),
        )
    }
}

/// A session that lasted this long was one that works, even if nothing was delivered in it.
const HEALTHY: Duration = Duration::from_secs(60);

/// How many times [`Timing::epoch`] a row is waited for, before the other lanes have their turn.
const EPOCH_WAITS: u32 = 3;

/// Begins the transaction that takes a row.
fn begin_claim(timing: &Timing) -> String {
    format!(
        "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = 0; {LASTING_COMMIT}",
        (timing.epoch * EPOCH_WAITS).as_millis()
    )
}

const CURSOR_ROW_GONE: &str = "the cursor's row was removed from _socket_el_cursor while the engine was running. Put it back, \
     or start the engine again to be told the choices";

/// Says what is unusual about where delivery begins. `None` for a hold.
fn announce(lane: &Lane, beginning: Beginning) -> Option<Offset> {
    let stage = &lane.key.stage;
    match beginning {
        Beginning::First(at) => {
            info!(stage, offset = %at, "first delivery of this stage");
            Some(at)
        }
        Beginning::Follow(at) if lane.claim.is_some() && at == lane.cursor.offset => {
            debug!(stage, offset = %at, "delivery goes on at the cursor in the database");
            Some(at)
        }
        Beginning::Follow(at) => {
            info!(stage, offset = %at, "delivery begins at the cursor in the database");
            Some(at)
        }
        Beginning::Redeliver {
            from,
            delivered,
            gone_until: None,
        } => {
            warn!(stage, %from, %delivered,
                "the database's cursor is behind what was delivered (restored from a backup?): delivering again");
            Some(from)
        }
        Beginning::Redeliver {
            from,
            delivered,
            gone_until: Some(oldest),
        } => {
            error!(stage, %from, %delivered, %oldest,
                "the database's cursor is behind what was delivered (restored from a backup?), and the messages before \
                 the oldest that is retained are gone: delivering again from there");
            Some(from)
        }
        Beginning::Hold(HoldCause::CursorGone { .. } | HoldCause::StageOlder { .. }) => None,
    }
}

/// Awaits `work` in the session of the server's process `pid`; whenever that has waited for long, our own old backends
/// that keep it waiting are terminated.
async fn patiently<T>(target: &Target, timing: &Timing, pid: i32, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = sleep(timing.epoch) => {
                if let Err(error) = end_own_blockers(target, pid).await {
                    warn!(%error, "can't find out who holds the cursor's row");
                }
            }
        }
    }
}
