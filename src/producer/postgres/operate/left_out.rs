//! Which offsets a replay leaves out: those that stand as dead letters, and where the table tells them, those that have rows.
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
}

impl Window {
    /// What is to be left out of these offsets, in order.
    pub(super) fn of(offsets: Range<Offset>, runs: Vec<Range<Offset>>) -> Self {
        Self { offsets, runs }
    }

    /// The run that holds an offset.
    pub(super) fn run_at(&self, offset: Offset) -> Option<&Range<Offset>> {
        let next = self.runs.partition_point(|run| run.end <= offset);
        self.runs.get(next).filter(|run| run.start <= offset)
    }

    /// Whether nothing of a stretch is left out.
    pub(super) fn is_clear(&self, stretch: &Range<Offset>) -> bool {
        let next = self.runs.partition_point(|run| run.end <= stretch.start);
        self.runs.get(next).is_none_or(|run| run.start >= stretch.end)
    }
}

/// Looks up what is left out.
pub(super) struct LeftOut {
    pub(super) target: Target,
    pub(super) timing: Timing,
    pub(super) key: CursorKey,
    /// The table, quoted, if its rows tell their offsets.
    pub(super) table: Option<String>,
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
        table: Option<String>,
        to: Offset,
        stop: CancellationToken,
    ) -> Self {
        Self {
            target: target.clone(),
            timing,
            key,
            table,
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
                Ok(runs) => {
                    let window = Arc::new(Window::of(offsets, runs));
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

    async fn look_up(&self, offsets: &Range<Offset>) -> Result<Vec<Range<Offset>>, OperateError> {
        let mut kept = self.session.lock().await;
        let session = match kept.take() {
            Some(session) if !session.client.is_closed() => session,
            Some(_) | None => facts::connect(&self.target).await?,
        };
        let with_rows = self.ask(&session, offsets, self.table.as_deref()).await;
        let runs = match with_rows {
            // Dropped meanwhile: nothing stands in it.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                self.ask(&session, offsets, None).await?
            }
            answer => answer?,
        };
        *kept = Some(session);
        Ok(runs)
    }

    async fn ask(
        &self,
        session: &Session,
        offsets: &Range<Offset>,
        table: Option<&str>,
    ) -> Result<Vec<Range<Offset>>, tokio_postgres::Error> {
        let rows = table.map_or(String::new(), |table| {
            format!("UNION SELECT _offset FROM {table} WHERE _stage = $2 AND _offset >= $5 AND _offset < $6")
        });
        let sql = format!(
            "WITH offsets AS (SELECT message_offset AS n FROM {} WHERE stage_path_id = $1::text::uuid AND stage = $2 \
             AND producer = $3 AND into_table IS NOT DISTINCT FROM $4 AND message_offset >= $5 AND message_offset < $6 {rows}), \
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
