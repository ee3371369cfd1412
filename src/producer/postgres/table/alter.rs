//! Making and changing the table: one short transaction of its own, before the data.
//!
//! Engines that share a table take turns under an advisory lock, and each reads the catalog again under it. A lock
//! that others hold is waited for briefly and often, rather than long: whoever queues for it behind us waits as well.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::catalog::database;
use super::change::SchemaChange;
use super::error::TableError;
use super::infer::NewType;
use super::layout::{Choices, Layout};
use super::name::{TableName, literal, quoted};

/// How long one attempt waits for a lock, in milliseconds.
const LOCK_TIMEOUT_MS: u32 = 500;
/// How often a change is tried while others hold locks on the table.
const ATTEMPTS: u32 = 10;
/// Pause between attempts in milliseconds; the exact one is drawn by lot, so that engines do not keep meeting.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 50..=250;
/// A column is widened, which writes the table anew under an exclusive lock, only while it has fewer rows than this.
const WIDENED_ROWS: u32 = 100_000;

/// Changes the table, and runs `when_made` in the same transaction if that makes it. Columns that could not be widened are added to `choices.settled`.
pub(super) async fn alter(
    client: &mut Client,
    table: &TableName,
    change: &SchemaChange,
    choices: &mut Choices,
    when_made: &str,
) -> Result<(), TableError> {
    for _ in 0..ATTEMPTS {
        let mut widened = Vec::new();
        let Err(source) = attempt(client, table, change, choices, when_made, &mut widened).await? else {
            return Ok(());
        };
        match source.code() {
            Some(code) if [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) => {
                let pause = rand::random_range(PAUSE_MS);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            // A view or a rule stands on the column.
            Some(code) if *code == SqlState::FEATURE_NOT_SUPPORTED && !widened.is_empty() => {
                let columns = widened.into_iter().map(|(column, _)| column).collect();
                settle(table, columns, "something depends on the column's type", choices);
            }
            _ => return Err(database(table, source)),
        }
    }
    Err(TableError::Locked {
        table: table.to_string(),
        attempts: ATTEMPTS,
        blocking: blocking(client, table).await?,
    })
}

/// One transaction. The inner error is the database's, to be judged by its code; the outer one is final.
async fn attempt(
    client: &mut Client,
    table: &TableName,
    change: &SchemaChange,
    choices: &mut Choices,
    when_made: &str,
    widened: &mut Vec<(String, NewType)>,
) -> Result<Result<(), tokio_postgres::Error>, TableError> {
    /// Hands a database error back to be judged.
    macro_rules! judged {
        ($result:expr) => {
            match $result {
                Ok(value) => value,
                Err(source) => return Ok(Err(source)),
            }
        };
    }
    let transaction = judged!(client.transaction().await);
    let begin = format!(
        "SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SELECT pg_catalog.pg_advisory_xact_lock({})",
        advisory_key(table)
    );
    judged!(transaction.batch_execute(&begin).await);
    let layout = Layout::read(transaction.client(), table, choices).await?;
    if !layout.exists() && change.create.is_none() {
        // Dropped meanwhile. What it is to be made of must be seen first.
        return Ok(Ok(()));
    }
    let mut sql = String::new();
    if !layout.exists() {
        let schema = literal(&table.schema);
        let known = format!("SELECT FROM pg_catalog.pg_namespace WHERE nspname = {schema}");
        if judged!(rows(transaction.client(), &known).await).is_empty() {
            sql = format!("CREATE SCHEMA IF NOT EXISTS {};\n", quoted(&table.schema));
        }
    }
    let mut refused = BTreeSet::new();
    for widening in change.widenings(&layout) {
        let column = quoted(widening.column);
        let question = format!(
            "SELECT (SELECT count(*) FROM (SELECT FROM {table} LIMIT {WIDENED_ROWS}) s) < {WIDENED_ROWS} AS small, \
             EXISTS (SELECT FROM {table} WHERE {column} NOT BETWEEN -(1::bigint << 53) AND 1::bigint << 53) AS large"
        );
        let answer = judged!(rows(transaction.client(), &question).await);
        let is = |name: &str| answer.first().and_then(|row| row.try_get(name).ok()) == Some(Some("t"));
        if is("small") {
            let to = change.widened_type(widening.numbers, is("large"));
            widened.push((widening.column.to_owned(), to));
        } else {
            refused.insert(widening.column.to_owned());
        }
    }
    sql.push_str(&change.sql(&layout, widened));
    if !sql.is_empty() {
        judged!(transaction.batch_execute(&sql).await);
    }
    if !layout.exists() && !when_made.is_empty() {
        judged!(transaction.batch_execute(when_made).await);
    }
    judged!(transaction.commit().await);
    if !sql.is_empty() {
        tracing::info!(%table, sql = sql.trim_end(), "changed the table");
    }
    settle(
        table,
        refused,
        "the table has grown too large to write it anew",
        choices,
    );
    Ok(Ok(()))
}

/// Leaves columns as they are from now on.
fn settle(table: &TableName, columns: BTreeSet<String>, why: &str, choices: &mut Choices) {
    for column in columns {
        tracing::warn!(
            %table,
            column,
            why,
            "the column stays bigint: numbers that it can't hold stand in _extra; declare it in `columns` for a table that is made anew, or change its type by hand, to have them in it"
        );
        choices.settled.insert(column);
    }
}

/// The sessions that hold what a change of the table waits for.
async fn blocking(client: &Client, table: &TableName) -> Result<Vec<i32>, TableError> {
    let question = format!(
        "SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l \
         JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database() \
         WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND (l.relation IN ( \
         SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {} AND c.relname = {}) \
         OR l.locktype = 'advisory' AND l.classid::bigint << 32 | l.objid::bigint = {}) ORDER BY l.pid",
        literal(&table.schema),
        literal(&table.table),
        advisory_key(table)
    );
    let answer = rows(client, &question)
        .await
        .map_err(|source| database(table, source))?;
    let pids = answer
        .iter()
        .filter_map(|row| row.try_get(0).ok().flatten()?.parse().ok());
    Ok(pids.collect())
}

/// The number, in SQL, of the advisory lock under which the table is changed.
fn advisory_key(table: &TableName) -> String {
    format!(
        "pg_catalog.hashtextextended({}, 0)",
        literal(&format!("socket-el table {table}"))
    )
}

async fn rows(
    client: &Client,
    question: &str,
) -> Result<Vec<tokio_postgres::SimpleQueryRow>, tokio_postgres::Error> {
    let answer = client.simple_query(question).await?;
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}
