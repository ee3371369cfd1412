//! The dead letters as they stand in the database: found, counted, shown and given up.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::super::Target;
use super::super::cursor::{OwnTables, from_sql, to_sql};
use super::super::dead_letter::SKIPPED;
use super::super::outcomes;
use super::super::session::Session;
use super::error::OperateError;
use super::facts;
use crate::producer::dead_letters::{Letter, LetterFilter, PickedLetters};
use crate::record::Timestamp;

/// Bytes of messages that are fetched at once; the first one is fetched whatever its size.
const PAGE_BYTES: i64 = 8 << 20;

/// The conditions of a filter, and what stands for their numbers.
pub(super) struct Picked {
    producer: String,
    stage: Option<String>,
    reason: Option<String>,
    sqlstate: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    ids: Option<Vec<i64>>,
}

/// The conditions in SQL: seven parameters from $1 on.
pub(super) const CONDITIONS: &str = "producer = $1 AND ($2::text IS NULL OR stage = $2) \
     AND ($3::text IS NULL OR position(lower($3) IN lower(reason)) > 0) AND ($4::text IS NULL OR sqlstate = $4) \
     AND ($5::int8 IS NULL OR message_offset >= $5) AND ($6::int8 IS NULL OR message_offset < $6) \
     AND ($7::int8[] IS NULL OR id = ANY ($7))";

impl Picked {
    pub(super) fn new(producer: &str, filter: &LetterFilter) -> Self {
        Self {
            producer: producer.to_owned(),
            stage: filter.stage.clone(),
            reason: filter.reason.clone(),
            sqlstate: filter.sqlstate.clone(),
            from: filter.from.map(to_sql),
            to: filter.to.map(to_sql),
            ids: (!filter.ids.is_empty()).then(|| filter.ids.clone()),
        }
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 7] {
        [
            &self.producer,
            &self.stage,
            &self.reason,
            &self.sqlstate,
            &self.from,
            &self.to,
            &self.ids,
        ]
    }
}

/// How many letters a filter picks.
pub(super) async fn count(
    target: &Target,
    producer: &str,
    filter: &LetterFilter,
) -> Result<PickedLetters, OperateError> {
    let Some(session) = connect_to_look(target).await? else {
        return Ok(PickedLetters::default());
    };
    let tables = OwnTables::new(target.schema());
    let sql = format!(
        "SELECT count(*), coalesce(max(id), 0) FROM {} WHERE {CONDITIONS}",
        tables.dead_letter()
    );
    let picked = Picked::new(producer, filter);
    let row = session.client.query_one(&sql, &picked.parameters()).await?;
    Ok(PickedLetters {
        letters: u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0),
        last: row.try_get(1)?,
    })
}

/// How many letters a filter picks of each stage.
pub(super) async fn by_stage(
    target: &Target,
    producer: &str,
    filter: &LetterFilter,
) -> Result<BTreeMap<String, u64>, OperateError> {
    let Some(session) = connect_to_look(target).await? else {
        return Ok(BTreeMap::new());
    };
    let sql = format!(
        "SELECT stage, count(*) FROM {} WHERE {CONDITIONS} GROUP BY stage",
        OwnTables::new(target.schema()).dead_letter()
    );
    let picked = Picked::new(producer, filter);
    let rows = session.client.query(&sql, &picked.parameters()).await?;
    let of_stage = |row: &Row| {
        let letters: i64 = row.try_get(1)?;
        Ok((row.try_get(0)?, u64::try_from(letters).unwrap_or(0)))
    };
    rows.iter().map(of_stage).collect()
}

/// A session to look at the letters; `None` where no table for them was made yet, for looking makes none.
async fn connect_to_look(target: &Target) -> Result<Option<Session>, OperateError> {
    let session = facts::connect_only(target).await?;
    let tables = OwnTables::new(target.schema());
    let is_there: bool = session
        .client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&tables.dead_letter()])
        .await?
        .try_get(0)?;
    if !is_there {
        return Ok(None);
    }
    // One of an older version gets the columns that it lacks.
    tables.make(&session.client, target.schema()).await?;
    Ok(Some(session))
}

/// A page of the letters that a filter picks.
pub(super) async fn page(
    target: &Target,
    producer: &str,
    filter: &LetterFilter,
    after: i64,
    limit: u32,
    with_payload: bool,
) -> Result<Vec<Letter>, OperateError> {
    let Some(session) = connect_to_look(target).await? else {
        return Ok(Vec::new());
    };
    let (payload, bytes) = if with_payload {
        ("payload", PAGE_BYTES)
    } else {
        ("NULL::bytea", i64::MAX)
    };
    let sql = format!(
        "SELECT id, stage, message_offset, record_index, received_at, sqlstate, reason, into_table, \
                octet_length(payload)::int8, {payload} FROM {} WHERE id = ANY ($1) ORDER BY id",
        OwnTables::new(target.schema()).dead_letter()
    );
    let ids = ids(
        &session.client,
        target,
        &Picked::new(producer, filter),
        "true",
        after,
        limit,
        bytes,
    )
    .await?;
    let rows = session.client.query(&sql, &[&ids]).await?;
    rows.iter().map(letter).collect()
}

/// The numbers of a page: those above `after` that fulfil a further condition, as many as their bytes allow.
pub(super) async fn ids(
    client: &Client,
    target: &Target,
    picked: &Picked,
    further: &str,
    after: i64,
    limit: u32,
    bytes: i64,
) -> Result<Vec<i64>, OperateError> {
    let sql = format!(
        "SELECT id FROM (SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM \
         (SELECT id, octet_length(payload)::int8 AS size FROM {} WHERE {CONDITIONS} AND id > $8 AND {further} \
         ORDER BY id LIMIT $9) page) sized WHERE before < {bytes} ORDER BY id",
        OwnTables::new(target.schema()).dead_letter()
    );
    let (limit, [a, b, c, d, e, f, g]) = (i64::from(limit), picked.parameters());
    let rows = client.query(&sql, &[a, b, c, d, e, f, g, &after, &limit]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// A row of the columns that [`page`] asks for.
fn letter(row: &Row) -> Result<Letter, OperateError> {
    let bytes: i64 = row.try_get(8)?;
    Ok(Letter {
        id: row.try_get(0)?,
        stage: row.try_get(1)?,
        offset: from_sql(row.try_get(2)?),
        record_index: row.try_get(3)?,
        received_at: timestamp(row.try_get(4)?),
        sqlstate: row.try_get(5)?,
        reason: row.try_get(6)?,
        into_table: row.try_get(7)?,
        bytes: u64::try_from(bytes).unwrap_or(0),
        payload: row.try_get(9)?,
    })
}

/// A time of the database as ours.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let micros = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    Timestamp::from_micros(micros)
}

/// Whether the cursor's row counts the message of letter `l`: not those that a replay has left, or another stage path.
pub(super) fn counted_sql(tables: &OwnTables) -> String {
    format!(
        "(l.into_table IS NULL AND NOT l.replayed AND EXISTS (SELECT FROM {} c WHERE c.stage = l.stage \
         AND c.producer = l.producer AND c.stage_path_id = l.stage_path_id AND c.{} IS NOT NULL))",
        tables.cursor(),
        outcomes::FIRST_COLUMN
    )
}

/// Whether letter `l` counts as skipped, and not as a dead letter.
pub(super) fn as_skipped_sql() -> String {
    format!("(l.reason = '{SKIPPED}' AND l.sqlstate IS NULL)")
}

/// Removes the letters that a filter picked, unless there are more of them now than were seen; they count as skipped from then on.
pub(super) async fn discard(
    target: &Target,
    producer: &str,
    filter: &LetterFilter,
    seen: PickedLetters,
) -> Result<u64, OperateError> {
    if seen.letters == 0 {
        return Ok(0);
    }
    let session = facts::connect(target).await?;
    let tables = OwnTables::new(target.schema());
    // Rows before letters, as whoever retries them locks them.
    let lock = format!(
        "SELECT FROM {} WHERE producer = $1 ORDER BY stage FOR NO KEY UPDATE",
        tables.cursor()
    );
    let sql = format!(
        "WITH gone AS (DELETE FROM {} l WHERE {CONDITIONS} AND id <= $8 RETURNING stage, {} AND NOT {} AS recounted), \
         counts AS (SELECT stage, count(*) AS n FROM gone WHERE recounted GROUP BY stage), \
         moved AS (UPDATE {} c SET dead_letters = c.dead_letters - n, skipped = c.skipped + n FROM counts \
                   WHERE c.stage = counts.stage AND c.producer = $1) \
         SELECT count(*) FROM gone",
        tables.dead_letter(),
        counted_sql(&tables),
        as_skipped_sql(),
        tables.cursor()
    );
    session.client.batch_execute(&facts::begin_sql()).await?;
    session.client.query(&lock, &[&producer]).await?;
    let picked = Picked::new(producer, filter);
    let [a, b, c, d, e, f, g] = picked.parameters();
    let gone: i64 = session
        .client
        .query_one(&sql, &[a, b, c, d, e, f, g, &seen.last])
        .await?
        .try_get(0)?;
    let gone = u64::try_from(gone).unwrap_or(0);
    // Numbers are given before transactions are committed: one that was under way may have been passed by.
    if gone > seen.letters {
        return Err(OperateError::Refused(format!(
            "there are {gone} of these dead letters by now, and there were {} a moment ago. Nothing was dropped; look again",
            seen.letters
        )));
    }
    session.client.batch_execute("COMMIT").await?;
    Ok(gone)
}
