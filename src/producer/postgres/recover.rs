//! What to do when a transaction did not commit: the one place that turns failures into waiting, holding,
//! reloading, reconnecting, or a dead letter.
//!
//! A message that the server refuses is found by the row number in COPY's CONTEXT; where that is silent, by halving
//! whole transactions until one message is left. Either way the next transaction is smaller, and grows again with each
//! that commits, so that a stretch of bad messages costs little more than their number in attempts.

use tokio_postgres::error::SqlState;
use tracing::warn;

use super::advice;
use super::blockers;
use super::classify::{Action, action_for, copy_row};
use super::dead_letter::Verdict;
use super::delivery::Delivery;
use super::lane::{MAX_RELOADS, TableWork};
use super::session::describe;
use super::table::{Table, TableError};
use super::transaction::{self, Failure, Prepared};
use crate::exit::RunnerError;

impl Delivery {
    /// Deals with a transaction that failed.
    pub(super) async fn recover(&mut self, prepared: Prepared, failure: Failure) -> Result<(), RunnerError> {
        let index = prepared.lane;
        let reason = failure.to_string();
        let action = match &failure {
            Failure::Fenced => return Err(self.fenced(index)),
            Failure::CursorMoved { .. } => {
                self.turn_back(index).await;
                self.lanes[index].cursor_moved();
                return Ok(());
            }
            Failure::NoAnswer(_) => Action::Reconnect,
            Failure::CursorGone => Action::Hold,
            Failure::RowsSwallowed { .. } => Action::Hold,
            Failure::TableChanged(_) => Action::Reload,
            Failure::OwnTable(error) => match action_for(error) {
                action @ (Action::Reconnect | Action::ReconnectAlarm | Action::Retry | Action::Halve) => {
                    action
                }
                Action::Reload | Action::ReloadOnce | Action::Poison | Action::Hold => Action::Hold,
            },
            Failure::Sql(error) | Failure::Rows { source: error, .. } => action_for(error),
        };
        match action {
            // Whether it was committed is for the cursor to say.
            Action::Reconnect => {
                self.lose_session(&reason, None);
                return Ok(());
            }
            Action::ReconnectAlarm => {
                self.lose_session(&reason, Some(what_to_do(&failure)));
                return Ok(());
            }
            Action::Retry
            | Action::Halve
            | Action::Hold
            | Action::Reload
            | Action::ReloadOnce
            | Action::Poison => {
                self.turn_back(index).await;
            }
        }
        let blocked = self.blocked_by(index, &failure).await;
        let lane = &mut self.lanes[index];
        match (action, failure) {
            (Action::Retry, _) => lane.retry_later(&format!("{reason}{blocked}")),
            (Action::Halve, _) => {
                lane.halve(prepared.messages);
                lane.retry_later(&reason);
            }
            (Action::Reload, _) => self.reload(index, &reason),
            (Action::ReloadOnce, _) if !lane.reloaded_once => {
                lane.reloaded_once = true;
                self.reload(index, &reason);
            }
            (Action::Poison | Action::ReloadOnce, Failure::Rows { part, source }) => {
                self.isolate(&prepared, Some(part), &source);
            }
            (Action::Poison | Action::ReloadOnce, Failure::Sql(error)) => {
                self.isolate(&prepared, None, &error);
            }
            (_, failure) => lane.hold(&reason, what_to_do(&failure)),
        }
        Ok(())
    }

    /// For a lock that was not to be had, who holds locks on the tables: to be added to the reason.
    async fn blocked_by(&self, index: usize, failure: &Failure) -> String {
        let is_locked = match failure {
            Failure::Sql(error) | Failure::Rows { source: error, .. } => {
                error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
            }
            _ => false,
        };
        let (true, Some(session), Some(router)) = (is_locked, &self.session, &self.lanes[index].router)
        else {
            return String::new();
        };
        let names: Vec<_> = router.tables().iter().map(Table::name_sql).collect();
        match blockers::of_tables(&session.client, &names).await {
            Ok(pids) if !pids.is_empty() => {
                let pids: Vec<_> = pids.iter().map(i32::to_string).collect();
                format!(
                    "; sessions that hold locks on {} now: pid {}",
                    names.join(", "),
                    pids.join(", ")
                )
            }
            // Gone meanwhile; or whatever it is shows at the next attempt.
            Ok(_) | Err(_) => String::new(),
        }
    }

    /// The transaction of this lane is known not to be committed: ends it, and forgets what was encoded behind it.
    async fn turn_back(&mut self, index: usize) {
        self.roll_back().await;
        self.lanes[index].turned_back();
        if self.next.as_ref().is_some_and(|next| next.lane == index) {
            self.next = None;
        }
    }

    /// Ends what is open in the session; a session that can't is given up.
    pub(super) async fn roll_back(&mut self) {
        let Some(session) = &self.session else {
            return;
        };
        if let Err(failure) = transaction::roll_back(session, &self.timing).await {
            self.lose_session(&failure.to_string(), None);
        }
    }

    fn reload(&mut self, index: usize, reason: &str) {
        let lane = &mut self.lanes[index];
        lane.work = TableWork::Load;
        lane.reloads += 1;
        if lane.reloads > MAX_RELOADS {
            lane.hold(
                &format!("{reason}; the layout was loaded {MAX_RELOADS} times, and it did not help"),
                "Look at the table and its triggers",
            );
        }
    }

    /// Narrows down which message the server refuses; `part` is the one whose rows it was at.
    fn isolate(&mut self, prepared: &Prepared, part: Option<usize>, error: &tokio_postgres::Error) {
        let lane = &mut self.lanes[prepared.lane];
        let sqlstate = error.code().map(|code| code.code().to_owned());
        let part = part.and_then(|part| prepared.parts.get(part));
        let row = copy_row(error)
            .and_then(|number| usize::try_from(number).ok()?.checked_sub(1))
            .and_then(|index| part?.rows.get(index));
        // A single message is of a single table.
        let only = || {
            let part = prepared.parts.first().filter(|_| prepared.messages == 1);
            part?.rows.get(0)
        };
        let is_named = row.is_some();
        let row = row.or_else(only);
        lane.refusals.tries(prepared.messages);
        // A trial is about all of its messages.
        if !is_named || !lane.refusals.is_on_trial() {
            lane.halve(prepared.messages);
        }
        match row {
            Some(row) => {
                // The server's words may quote the value, so they go with the payload and not into the log.
                let table = part
                    .or(prepared.parts.first())
                    .map_or("", |part| part.loading.table());
                warn!(stage = lane.key.stage, table, offset = %row.offset, record = row.record_index, sqlstate,
                    "the server refuses a message");
                let mut verdict = Verdict {
                    sqlstate,
                    reason: error
                        .as_db_error()
                        .map_or_else(|| describe(error), |db| db.message().to_owned()),
                    record_index: Some(row.record_index),
                };
                verdict.reason += advice::about_row(&verdict);
                lane.condemn(row.offset, verdict, is_named);
            }
            None if prepared.messages > 1 => {}
            None => lane.hold(
                &format!("{} in a transaction that has no rows", describe(error)),
                "Look at triggers on _socket_el_dead_letter, _socket_el_gap and _socket_el_cursor",
            ),
        }
    }

    /// Deals with a table that could not be read or changed.
    pub(super) fn table_failed(&mut self, index: usize, failure: &TableError) {
        let lane = &mut self.lanes[index];
        let TableError::Database { source, .. } = failure else {
            if matches!(failure, TableError::Locked { .. }) {
                lane.retry_later(&failure.to_string());
            } else {
                lane.hold(&failure.to_string(), "");
            }
            return;
        };
        let reason = format!("{failure}: {}", describe(source));
        match action_for(source) {
            Action::Reconnect => self.lose_session(&reason, None),
            Action::ReconnectAlarm => self.lose_session(&reason, Some(advice::what_to_do(source))),
            Action::Retry | Action::Halve => lane.retry_later(&reason),
            Action::Reload | Action::ReloadOnce => self.reload(index, &reason),
            Action::Poison | Action::Hold => lane.hold(&reason, advice::what_to_do(source)),
        }
    }
}

/// What an operator can do.
fn what_to_do(failure: &Failure) -> &'static str {
    match failure {
        Failure::RowsSwallowed { .. } => {
            "A BEFORE trigger or a rule of the table drops rows; the engine does not go on as if they were stored. Change the trigger"
        }
        Failure::OwnTable(error) if action_for(error) == Action::ReconnectAlarm => advice::what_to_do(error),
        Failure::CursorGone | Failure::OwnTable(_) => {
            "Look at _socket_el_cursor, _socket_el_dead_letter and _socket_el_gap: they are not made again while the engine runs. Restore them, or start the engine again to be told the choices"
        }
        Failure::Sql(error) | Failure::Rows { source: error, .. } => advice::what_to_do(error),
        Failure::Fenced | Failure::CursorMoved { .. } | Failure::TableChanged(_) | Failure::NoAnswer(_) => {
            "Look at the database's log"
        }
    }
}
