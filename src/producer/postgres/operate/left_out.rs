//! Which offsets a replay leaves out: those that stand as dead letters, and where a table tells them, those that have rows in
//! it. With several tables the latter is asked table by table: what a message is for is known only once it is read.
//!
//! Looked up for a window of offsets at a time, for there may be no index that helps. Nobody but the replay itself adds
//! either before its end, and it never comes back to what it has delivered, so that a window stays true.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::Target;
use super::super::cursor::{CursorKey, OwnTables, from_sql, to_sql};
use super::super::session::{Session, Timing};
use super::error::OperateError;
use super::facts;
use crate::backoff::Backoff;
use crate::record::Offset;

/// Offsets that are looked up at once; their runs are held in memory, 16 bytes for each of at most half as many.
const WINDOW: u64 = 1 << 20;

/// What is left out of a window of offsets.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) offsets: Range<Offset>,
    /// In order, without touching each other.
    runs: Vec<Range<Offset>>,
    /// The same of each table by itself.
    of_tables: Vec<Vec<Range<Offset>>>,
}

impl Window {
    /// What is to be left out of these offsets, in order.
    pub(super) fn of(offsets: Range<Offset>, runs: Vec<Range<Offset>>) -> Self {
        Self {
            offsets,
            runs,
            of_tables: Vec::new(),
        }
    }

    /// The run that holds an offset.
    pub(super) fn run_at(&self, offset: Offset) -> Option<&Range<Offset>> {
        run_at(&self.runs, offset)
    }

    /// Whether nothing of a stretch is left out.
    pub(super) fn is_clear(&self, stretch: &Range<Offset>) -> bool {
        let next = self.runs.partition_point(|run| run.end <= stretch.start);
        self.runs.get(next).is_none_or(|run| run.start >= stretch.end)
    }
}

fn run_at(runs: &[Range<Offset>], offset: Offset) -> Option<&Range<Offset>> {
    let next = runs.partition_point(|run| run.end <= offset);
    runs.get(next).filter(|run| run.start <= offset)
}

/// Looks up what is left out.
pub(super) struct LeftOut {
    pub(super) target: Target,
    pub(super) timing: Timing,
    pub(super) key: CursorKey,
    /// Those tables, quoted, whose rows tell their offsets.
    pub(super) tables: Vec<String>,
    /// Whether messages are for other tables as well.
    pub(super) is_routed: bool,
    /// Where the replay ends.
    pub(super) to: Offset,
    /// Cancelled by the operator, or by a failure that no waiting mends.
    pub(super) stop: CancellationToken,
    session: AsyncMutex<Option<Session>>,
    window: Mutex<Option<Arc<Window>>>,
    failure: Mutex<Option<OperateError>>,
}

impl LeftOut {
    pub(super) fn new(
        target: &Target,
        timing: Timing,
        key: CursorKey,
        tables: Vec<String>,
        is_routed: bool,
        to: Offset,
        stop: CancellationToken,
    ) -> Self {
        Self {
            target: target.clone(),
            timing,
            key,
            tables,
            is_routed,
            to,
            stop,
            session: AsyncMutex::default(),
            window: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Why looking up has failed for good.
    pub(super) fn failure(&self) -> Option<OperateError> {
        lock(&self.failure).take()
    }

    /// Whether an offset of the window that was looked up last has rows in a table, where that is not known of all offsets.
    pub(super) fn stands_in(&self, table: &str, offset: Offset) -> bool {
        let window = lock(&self.window).clone();
        let index = self.tables.iter().position(|known| known == table);
        let runs = window.as_ref().zip(index);
        let runs = runs.and_then(|(window, index)| window.of_tables.get(index));
        runs.is_some_and(|runs| run_at(runs, offset).is_some())
    }

    /// The window that holds `at`; `None` when the replay is stopped.
    pub(super) async fn window(&self, at: Offset) -> Option<Arc<Window>> {
        let known = lock(&self.window)
            .clone()
            .filter(|window| window.offsets.contains(&at));
        if known.is_some() {
            return known;
        }
        let offsets = at..at.advanced_by(WINDOW).min(self.to);
        let mut backoff = Backoff::new(self.timing.retry_initial, self.timing.retry_max);
        loop {
            let looked = tokio::select! {
                () = self.stop.cancelled() => return None,
                looked = self.look_up(&offsets) => looked,
            };
            match looked {
                Ok(window) => {
                    let window = Arc::new(window);
                    *lock(&self.window) = Some(Arc::clone(&window));
                    return Some(window);
                }
                Err(error) if error.is_transient() => {
                    warn!("looking up what stands in the table is tried again: {error}");
                    tokio::select! {
                        () = self.stop.cancelled() => return None,
                        () = tokio::time::sleep(backoff.next_delay()) => {}
                    }
                }
                Err(error) => {
                    *lock(&self.failure) = Some(error);
                    self.stop.cancel();
                    return None;
                }
            }
        }
    }

    async fn look_up(&self, offsets: &Range<Offset>) -> Result<Window, OperateError> {
        let mut kept = self.session.lock().await;
        let session = match kept.take() {
            Some(session) if !session.client.is_closed() => session,
            Some(_) | None => facts::connect(&self.target).await?,
        };
        let mut window = Window::of(offsets.clone(), Vec::new());
        let table = self.tables.first().filter(|_| !self.is_routed);
        window.runs = self.ask(&session, offsets, table, true).await?;
        if self.is_routed {
            for table in &self.tables {
                let runs = self.ask(&session, offsets, Some(table), false).await?;
                window.of_tables.push(runs);
            }
        }
        *kept = Some(session);
        Ok(window)
    }

    /// The offsets of dead letters, of the rows of a table, or of both.
    async fn ask(
        &self,
        session: &Session,
        offsets: &Range<Offset>,
        table: Option<&String>,
        letters: bool,
    ) -> Result<Vec<Range<Offset>>, tokio_postgres::Error> {
        match self.try_ask(session, offsets, table, letters).await {
            // Dropped meanwhile: nothing stands in it.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) && table.is_some() => {
                self.try_ask(session, offsets, None, letters).await
            }
            answer => answer,
        }
    }

    async fn try_ask(
        &self,
        session: &Session,
        offsets: &Range<Offset>,
        table: Option<&String>,
        letters: bool,
    ) -> Result<Vec<Range<Offset>>, tokio_postgres::Error> {
        let rows = table.map_or(String::new(), |table| {
            format!("UNION SELECT _offset FROM {table} WHERE _stage = $2 AND _offset >= $5 AND _offset < $6")
        });
        let sql = format!(
            "WITH offsets AS (SELECT message_offset AS n FROM {} WHERE stage_path_id = $1::text::uuid AND stage = $2 \
             AND producer = $3 AND into_table IS NOT DISTINCT FROM $4 AND message_offset >= $5 AND message_offset < $6 AND {letters} {rows}), \
             runs AS (SELECT n, n - row_number() OVER (ORDER BY n) AS run FROM (SELECT DISTINCT n FROM offsets) o) \
             SELECT min(n), max(n) + 1 FROM runs GROUP BY run ORDER BY 1",
            OwnTables::new(self.target.schema()).dead_letter()
        );
        let found = session
            .client
            .query(
                &sql,
                &[
                    &self.key.path_id.to_string(),
                    &self.key.stage,
                    &self.key.owner(),
                    &self.key.into_table,
                    &to_sql(offsets.start),
                    &to_sql(offsets.end),
                ],
            )
            .await?;
        found
            .iter()
            .map(|row| Ok(from_sql(row.try_get(0)?)..from_sql(row.try_get(1)?)))
            .collect()
    }
}

/// Nobody panics while holding one of these; if it happened, what is inside is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
