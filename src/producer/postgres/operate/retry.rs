//! Dead letters delivered after all: a bounded number at a time, each lot in one transaction that locks them, copies their
//! rows, removes them and commits. Whatever is killed or lost in between, a letter is a letter or a row.
//!
//! The producer's own cursor row is locked meanwhile, so that no replay begins, and its counts follow; while one is unfinished no
//! letter is delivered, for a replay leaves out what stands as a dead letter when it comes there.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::classify::{Action, action_for, copy_row};
use super::super::cursor::{CursorKey, OwnTables};
use super::super::dead_letter::Verdict;
use super::super::made;
use super::super::session::{Session, Timing, describe};
use super::super::table::{Router, Table, TableError};
use super::super::transaction::Failure;
use super::super::{PostgresOptions, Target};
use super::error::OperateError;
use super::letters::{self, CONDITIONS, Picked};
use super::lot::{Lot, Outcome, Refusal};
use super::{facts, options_into, router_of};
use crate::backoff::Backoff;
use crate::producer::dead_letters::{LetterFilter, Retried};
use crate::record::Offset;
use crate::stage::path::replay_cursor;

/// The most letters of one transaction, and the most bytes of their messages (the first may pass it).
const LOT_LETTERS: u32 = 1_000;
const LOT_BYTES: i64 = 8 << 20;

/// How often in a row something transient may happen.
const ATTEMPTS: u32 = 20;

/// How often in a row the table may be found lacking something.
const MAX_CHANGES: u32 = 20;

/// Who asks for what.
pub(super) struct Retry<'a> {
    pub(super) target: &'a Target,
    pub(super) options: &'a PostgresOptions,
    pub(super) timing: Timing,
    pub(super) producer: &'a str,
    pub(super) filter: &'a LetterFilter,
    pub(super) anyway: bool,
    pub(super) stop: CancellationToken,
}

impl Retry<'_> {
    /// Delivers all letters that are picked, table by table.
    pub(super) async fn run(&self) -> Result<Retried, OperateError> {
        let session = facts::connect(self.target).await?;
        let sql = format!(
            "SELECT DISTINCT stage, into_table FROM {} WHERE {CONDITIONS} ORDER BY 1, 2",
            OwnTables::new(self.target.schema()).dead_letter()
        );
        let picked = Picked::new(self.producer, self.filter);
        let groups = session.client.query(&sql, &picked.parameters()).await?;
        drop(session);
        let mut retried = Retried::default();
        for group in groups {
            let (stage, into_table): (String, Option<String>) = (group.try_get(0)?, group.try_get(1)?);
            self.deliver(&stage, into_table, &mut retried).await?;
        }
        Ok(retried)
    }

    /// Delivers the letters of one stage, into the producer's own tables or those of a replay.
    async fn deliver(
        &self,
        stage: &str,
        into_table: Option<String>,
        retried: &mut Retried,
    ) -> Result<(), OperateError> {
        let options = options_into(self.options, into_table.as_deref())?;
        let key = CursorKey {
            path_id: uuid::Uuid::nil(),
            stage: stage.to_owned(),
            producer: self.producer.to_owned(),
            into_table,
        };
        let tables = OwnTables::new(self.target.schema());
        let mut router = router_of(self.target.schema(), &options, stage)?;
        for table in router.tables_mut() {
            table.when_made(made::record_sql(&tables, &key, table.name_sql()));
        }
        let mut lots = Lots {
            retry: self,
            key,
            tables,
            router,
            session: None,
            is_loaded: false,
            after: 0,
            limit: LOT_LETTERS,
            refused: BTreeMap::new(),
            in_doubt: None,
            changes: 0,
        };
        let (mut backoff, mut failures) = (Backoff::new(self.timing.retry_initial, self.timing.retry_max), 0);
        loop {
            if self.stop.is_cancelled() {
                retried.stopped = true;
                return Ok(());
            }
            match lots.next(retried).await {
                Ok(true) => failures = 0,
                Ok(false) => return Ok(()),
                Err(error) if error.is_transient() && failures < ATTEMPTS => {
                    warn!("tried again: {error}");
                    failures += 1;
                    lots.session = None;
                    lots.is_loaded = false;
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The letters of one stage, lot by lot.
struct Lots<'a> {
    retry: &'a Retry<'a>,
    key: CursorKey,
    tables: OwnTables,
    router: Router,
    session: Option<Session>,
    is_loaded: bool,
    /// The last letter that was dealt with.
    after: i64,
    limit: u32,
    /// Letters that the server has refused just now.
    refused: BTreeMap<i64, Verdict>,
    /// A lot whose commit was sent, and not answered.
    in_doubt: Option<Outcome>,
    changes: u32,
}

impl Lots<'_> {
    /// Deals with the next lot; `false` when there is none.
    async fn next(&mut self, retried: &mut Retried) -> Result<bool, OperateError> {
        let retry = self.retry;
        let mut session = match self.session.take() {
            Some(session) => session,
            None => facts::connect(retry.target).await?,
        };
        if !self.is_loaded {
            let loaded = self.router.mend(&mut session.client, false).await;
            loaded.map_err(table_failed)?;
            self.is_loaded = true;
        }
        let waits = self.in_doubt.is_some();
        if let Some(outcome) = &self.in_doubt {
            // Waits for the lost transaction, if the server has not noticed yet that it is lost.
            let lot = Lot::lock(&session, &self.tables, &outcome.delivered, true).await?;
            session.client.batch_execute("ROLLBACK").await?;
            if lot.is_empty() {
                outcome.count(retried);
            }
            self.in_doubt = None;
        }
        let further = format!(
            "stage = {} AND into_table IS NOT DISTINCT FROM {}",
            postgres_protocol::escape::escape_literal(&self.key.stage),
            self.key.into_table.as_deref().map_or("NULL".to_owned(), |table| {
                postgres_protocol::escape::escape_literal(table)
            })
        );
        let picked = Picked::new(retry.producer, retry.filter);
        let ids = letters::ids(
            &session.client,
            retry.target,
            &picked,
            &further,
            self.after,
            self.limit,
            LOT_BYTES,
        )
        .await?;
        let Some(last) = ids.last().copied() else {
            return Ok(false);
        };
        let done = self.transaction(&mut session, &ids, waits).await;
        match done {
            Ok(outcome) => {
                outcome.count(retried);
                (self.in_doubt, self.after, self.changes) = (None, last, 0);
                self.limit = self.limit.saturating_mul(2).min(LOT_LETTERS);
                self.refused.clear();
            }
            Err(refusal) => {
                if !session.client.is_closed() {
                    session.client.batch_execute("ROLLBACK").await?;
                }
                self.deal_with(&mut session, refusal, &ids).await?;
            }
        }
        self.session = Some(session);
        Ok(true)
    }

    /// One transaction. What is returned is committed.
    async fn transaction(
        &mut self,
        session: &mut Session,
        ids: &[i64],
        waits: bool,
    ) -> Result<Outcome, Refusal> {
        session
            .client
            .batch_execute(&facts::begin_sql())
            .await
            .map_err(Failure::from)?;
        self.refuse_beside_replay(session).await?;
        let lot = Lot::lock_again(session, &self.tables, ids, waits).await?;
        let prepared = lot.encode(&mut self.router, &self.refused)?;
        for (table, first) in prepared.first_delivered(&self.router) {
            self.note_first(session, table, first).await?;
        }
        let outcome = prepared
            .send(session, &self.tables, &self.key, &self.router)
            .await?;
        self.in_doubt = Some(outcome.only_delivered());
        session
            .client
            .batch_execute("COMMIT")
            .await
            .map_err(Failure::from)?;
        Ok(outcome)
    }

    /// Notes that a table gets the row of an offset, or refuses that for what a replay could no longer bring back.
    async fn note_first(&self, session: &Session, table: &Table, first: Offset) -> Result<(), Refusal> {
        let (is_keyed, table) = (table.mapping().on_conflict.is_some(), table.name_sql());
        let holds = made::holds_from(&session.client, &self.tables, &self.key, table)
            .await
            .map_err(Failure::from)?;
        let Some((from, _)) = holds.filter(|(from, _)| *from > first) else {
            return Ok(());
        };
        if !self.retry.anyway && !is_keyed {
            return Err(Refusal::Final(OperateError::Refused(format!(
                "table {table} was made anew at offset {from} of stage {}, and the message at {first} is from before: \
                 `stage-inspect replay` first brings back what else was before. With --anyway it is delivered now, and a \
                 replay of what is behind it is refused from then on",
                self.key.stage
            ))));
        }
        let lowered = made::lower(&session.client, &self.tables, &self.key, table, first).await;
        Ok(lowered.map_err(Failure::from)?)
    }

    /// A replay under way counts on the letters that stand.
    async fn refuse_beside_replay(&self, session: &Session) -> Result<(), Refusal> {
        let sql = format!(
            "SELECT producer FROM {} WHERE stage = $1 AND producer IN ($2, $3) ORDER BY producer FOR NO KEY UPDATE",
            self.tables.cursor()
        );
        let replay = replay_cursor(&self.key.producer);
        let rows = session
            .client
            .query(&sql, &[&self.key.stage, &self.key.producer, &replay])
            .await
            .map_err(Failure::from)?;
        let is_replayed = rows
            .iter()
            .any(|row| row.try_get::<_, &str>(0).is_ok_and(|name| name == replay));
        if !is_replayed {
            return Ok(());
        }
        Err(Refusal::Final(OperateError::Refused(format!(
            "a replay of stage {} by {} is unfinished: finish it with `stage-inspect replay {} --resume`, then retry",
            self.key.stage, self.key.producer, self.key.stage
        ))))
    }

    async fn deal_with(
        &mut self,
        session: &mut Session,
        refusal: Refusal,
        ids: &[i64],
    ) -> Result<(), OperateError> {
        let (failure, rows) = match refusal {
            Refusal::Final(error) => return Err(error),
            Refusal::NeedsSchema => return self.change(session).await,
            Refusal::Failed(failure, rows) => (failure, rows),
        };
        let error = match failure {
            Failure::Sql(error) | Failure::OwnTable(error) | Failure::Rows { source: error, .. } => error,
            Failure::TableChanged(_) => return self.change(session).await,
            other => return Err(OperateError::Refused(other.to_string())),
        };
        match action_for(&error) {
            Action::Reconnect | Action::ReconnectAlarm | Action::Retry | Action::Halve | Action::Hold => {
                return Err(OperateError::Database(error));
            }
            Action::Reload => return self.change(session).await,
            Action::ReloadOnce | Action::Poison => {}
        }
        // Known not to be committed.
        self.in_doubt = None;
        let row = copy_row(&error)
            .and_then(|number| usize::try_from(number).ok()?.checked_sub(1))
            .and_then(|index| rows.get(index).copied());
        let only = ids.first().copied().filter(|_| ids.len() == 1);
        let verdict = |record_index| Verdict {
            sqlstate: error.code().map(|code| code.code().to_owned()),
            reason: error
                .as_db_error()
                .map_or_else(|| describe(&error), |db| db.message().to_owned()),
            record_index,
        };
        match (row, only) {
            (Some((id, record)), _) => drop(self.refused.insert(id, verdict(Some(record)))),
            (None, Some(id)) if !self.refused.contains_key(&id) => {
                self.refused.insert(id, verdict(None));
            }
            (None, Some(_)) => return Err(OperateError::Database(error)),
            (None, None) => self.limit = u32::try_from(ids.len() / 2).unwrap_or(1).max(1),
        }
        Ok(())
    }

    /// Brings the tables to what the letters need.
    async fn change(&mut self, session: &mut Session) -> Result<(), OperateError> {
        self.in_doubt = None;
        self.changes += 1;
        if self.changes > MAX_CHANGES {
            let names: Vec<_> = self.router.tables().iter().map(Table::name_sql).collect();
            return Err(OperateError::Refused(format!(
                "{} was changed again and again, and still does not take the dead letters. Look at its columns",
                names.join(", ")
            )));
        }
        let mended = self.router.mend(&mut session.client, true).await;
        mended.map_err(table_failed)
    }
}

fn table_failed(error: TableError) -> OperateError {
    match error {
        TableError::Database { source, .. } => OperateError::Database(source),
        other => OperateError::Refused(other.to_string()),
    }
}
