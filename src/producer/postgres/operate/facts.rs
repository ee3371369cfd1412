//! What the database and the stage say about a replay.

use tokio_postgres::Client;

use super::super::Target;
use super::super::cursor::{CursorKey, OwnTables, from_sql, to_sql};
use super::super::made;
use super::super::outcomes;
use super::super::session::{LASTING_COMMIT, Session};
use super::super::table::Mapping;
use super::LOCK_TIMEOUT_MS;
use super::decide::{Found, Marked, TableEnd};
use super::error::OperateError;
use crate::producer::operate::Scope;
use crate::record::{Offset, Timestamp};
use crate::stage::path::held_cursor;
use crate::stage::report::Passed;
use crate::stage::{ReadLimit, Stage, StageError};

/// What has to be known to take up a replay again, as it stands in its row.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Remembered {
    /// The command that began it.
    pub(super) asked: String,
    /// The first offset.
    pub(super) from: Offset,
    /// The table, if it is not the producer's own.
    pub(super) into_table: Option<String>,
    /// What becomes of each table.
    pub(super) tables: Vec<TableEnd>,
    /// Rows of this stage that were received before this belong to another.
    pub(super) received_from: Option<Timestamp>,
}

/// The row of a replay.
#[derive(Clone, Debug)]
pub(super) struct ReplayRow {
    pub(super) is_ours: bool,
    pub(super) next: Offset,
    pub(super) to: Offset,
    pub(super) remembered: Remembered,
}

/// A session on the producer's database.
pub(super) async fn connect_only(target: &Target) -> Result<Session, OperateError> {
    Session::open(target)
        .await
        .map_err(|error| OperateError::Connect {
            target: target.to_string(),
            reason: error.to_string(),
        })
}

/// A session on the producer's database, with our own tables made.
pub(super) async fn connect(target: &Target) -> Result<Session, OperateError> {
    let session = connect_only(target).await?;
    OwnTables::new(target.schema())
        .make(&session.client, target.schema())
        .await?;
    Ok(session)
}

/// Begins a transaction that is acted upon once it is committed.
pub(super) fn begin_sql() -> String {
    format!("BEGIN; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; {LASTING_COMMIT}")
}

/// Locks the producer's own row: its epoch and where its cursor stands.
pub(super) async fn lock_own(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
) -> Result<(i64, Offset), OperateError> {
    let row = client
        .query_opt(
            &format!(
                "SELECT stage_path_id::text, epoch, next_offset FROM {} WHERE stage = $1 AND producer = $2 FOR UPDATE",
                tables.cursor()
            ),
            &[&key.stage, &key.producer],
        )
        .await?;
    let (stage, producer) = (&key.stage, &key.producer);
    let Some(row) = row else {
        return Err(OperateError::Refused(format!(
            "producer {producer} has no cursor for stage {stage} in the database: it has delivered nothing yet, or the table \
             was dropped. Start the engine, which tells which"
        )));
    };
    let path: String = row.try_get(0)?;
    if path != key.path_id.to_string() {
        return Err(OperateError::Refused(format!(
            "the cursor of stage {stage} and producer {producer} in the database belongs to another stage path ({path}, ours is \
             {}). `stage-inspect adopt STAGE` takes it over",
            key.path_id
        )));
    }
    Ok((row.try_get(1)?, from_sql(row.try_get(2)?)))
}

/// Where the producer's own row stands, and what it counts.
pub(super) async fn passed(target: &Target, key: &CursorKey) -> Result<Option<Passed>, OperateError> {
    let session = connect(target).await?;
    let sql = format!(
        "SELECT next_offset, {} FROM {} WHERE stage = $1 AND producer = $2 AND stage_path_id = $3::text::uuid",
        outcomes::select_sql(),
        OwnTables::new(target.schema()).cursor()
    );
    let row = session
        .client
        .query_opt(&sql, &[&key.stage, &key.producer, &key.path_id.to_string()])
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let cursor = from_sql(row.try_get(0)?);
    let outcomes = outcomes::parse(row.try_get(1)?);
    Ok(outcomes.map(|outcomes| Passed { cursor, outcomes }))
}

/// Refuses where the cursor is not of this stage's past: what lies before it here was never delivered.
pub(super) fn refuse_held(scope: &Scope) -> Result<(), OperateError> {
    let Some(held) = scope.stage.cursor(&held_cursor(&scope.producer)) else {
        return Ok(());
    };
    Err(OperateError::Refused(format!(
        "delivery of stage {} by {} is held: the cursor in the database is beyond offset {held}, where the stage had not come to \
         before. Decide that first; the engine tells how",
        scope.stage.name(),
        scope.producer
    )))
}

/// The row of a replay, if there is one.
pub(super) async fn replay_row(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    lock: &str,
) -> Result<Option<ReplayRow>, OperateError> {
    let row = client
        .query_opt(
            &format!(
                "SELECT stage_path_id::text, next_offset, end_offset, replay::text FROM {} \
                 WHERE stage = $1 AND producer = $2 {lock}",
                tables.cursor()
            ),
            &[&key.stage, &key.producer],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let path: String = row.try_get(0)?;
    let (to, remembered): (Option<i64>, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
    let remembered = remembered.and_then(|text| serde_json::from_str(&text).ok());
    let (Some(to), Some(remembered)) = (to, remembered) else {
        return Err(OperateError::Refused(format!(
            "the row of {} for stage {} in _socket_el_cursor is not one that this version of stage-inspect wrote. Use the version \
             that began the replay, or remove the row",
            key.producer, key.stage
        )));
    };
    Ok(Some(ReplayRow {
        is_ours: path == key.path_id.to_string(),
        next: from_sql(row.try_get(1)?),
        to: from_sql(to),
        remembered,
    }))
}

/// What there is to know about the table, except what takes reading all of it.
pub(super) async fn look_at_table(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    mapping: &Mapping,
    table: &str,
) -> Result<Found, OperateError> {
    let exists: bool = client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])
        .await?
        .try_get(0)?;
    let is_empty = !exists
        || client
            .query_opt(&format!("SELECT FROM {table} LIMIT 1"), &[])
            .await?
            .is_none();
    Ok(Found {
        is_empty,
        holds_from: made::holds_from(client, tables, key, table)
            .await?
            .map(|(offset, _)| offset),
        marked: None,
        on_conflict: mapping.on_conflict.as_ref().map(|conflict| conflict.action),
    })
}

/// What the metadata columns say, if the table has them and they are filled. Reads the whole table.
pub(super) async fn look_at_rows(
    client: &Client,
    mapping: &Mapping,
    table: &str,
    stage: &str,
    stretch: std::ops::Range<Offset>,
    received_from: Option<Timestamp>,
) -> Result<Option<Marked>, OperateError> {
    let columns: i64 = client
        .query_one(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped \
             AND attname IN ('_stage', '_offset', '_received_at')",
            &[&table],
        )
        .await?
        .try_get(0)?;
    if !mapping.metadata || columns != 3 {
        return Ok(None);
    }
    let row = client
        .query_one(
            &format!(
                "SELECT count(DISTINCT _offset) FILTER (WHERE of_it), \
                        count(*) FILTER (WHERE _offset IS NULL OR _stage IS NULL OR _received_at IS NULL), \
                        count(*) FILTER (WHERE of_it AND _received_at < {}) \
                 FROM (SELECT *, _stage = $1 AND _offset >= $2 AND _offset < $3 AS of_it FROM {table}) rows",
                time_sql(received_from)
            ),
            &[&stage, &to_sql(stretch.start), &to_sql(stretch.end)],
        )
        .await?;
    let count = |column| {
        row.try_get::<_, i64>(column)
            .map(|count| u64::try_from(count).unwrap_or(0))
    };
    Ok(Some(Marked {
        standing: count(0)?,
        unmarked: count(1)?,
        of_earlier_stage: count(2)?,
    }))
}

/// A time in SQL; none is before all others.
fn time_sql(time: Option<Timestamp>) -> String {
    match time {
        None => "'-infinity'::timestamptz".to_owned(),
        // Seconds and microseconds apart: one number would be rounded.
        Some(time) => format!(
            "('epoch'::timestamptz + {} * interval '1 second' + {} * interval '1 microsecond')",
            time.micros().div_euclid(1_000_000),
            time.micros().rem_euclid(1_000_000)
        ),
    }
}

/// How many messages of a stretch stand as dead letters of the delivery with this key.
pub(super) async fn count_dead_letters(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    stretch: std::ops::Range<Offset>,
) -> Result<u64, OperateError> {
    let count: i64 = client
        .query_one(
            &format!(
                "SELECT count(DISTINCT message_offset) FROM {} WHERE stage_path_id = $1::text::uuid AND stage = $2 \
                 AND producer = $3 AND into_table IS NOT DISTINCT FROM $4 AND message_offset >= $5 AND message_offset < $6",
                tables.dead_letter()
            ),
            &[
                &key.path_id.to_string(),
                &key.stage,
                &key.owner(),
                &key.into_table,
                &to_sql(stretch.start),
                &to_sql(stretch.end),
            ],
        )
        .await?
        .try_get(0)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// When the first and the last message of a stretch were received, where that can be told.
pub(super) async fn times(
    scope: &Scope,
    from: Offset,
    to: Offset,
) -> Result<(Option<Timestamp>, Option<Timestamp>), StageError> {
    let stage = scope.stage.as_ref();
    let last = Offset::new(to.get().saturating_sub(1));
    Ok((
        received_at(stage, from, to).await?,
        received_at(stage, last, to).await?,
    ))
}

/// When the first message at `at` or after it, and before `to`, was received.
async fn received_at(stage: &dyn Stage, at: Offset, to: Offset) -> Result<Option<Timestamp>, StageError> {
    let one = ReadLimit {
        messages: 1,
        bytes: 1,
    };
    if at >= to {
        return Ok(None);
    }
    let read = stage.read(at, one).await?;
    let first = read
        .batches
        .iter()
        .flat_map(|batch| batch.messages_from(at))
        .next();
    Ok(first
        .filter(|(offset, _)| *offset < to)
        .map(|(_, message)| message.received_at))
}
