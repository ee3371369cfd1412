//! The data transaction: rows, dead letters and cursor become durable together, or not at all.
//!
//! In two halves, so that the next transaction can be encoded while this one is being committed: [`open`] begins it,
//! locks the cursor's row and the tables and checks all of them, in one round trip; [`finish`] sends rows and dead
//! letters, moves the cursor and commits. Tables are locked in order of their names, as every engine does. After a failure of either, [`roll_back`] has to be called before the session
//! is used again.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use super::cursor::{Claim, CursorKey, OwnTables, from_sql, to_sql};
use super::dead_letter::{self, DeadLetter};
use super::ledger;
use super::load::load;
use super::outcomes;
use super::session::{LASTING_COMMIT, Session, Timing, describe};
use super::table::{CopyRows, Loading, Router};
use crate::record::Offset;
use crate::stage::report::Outcomes;
use crate::stage::{Gap, Place};

/// A transaction that is ready to be sent.
pub(super) struct Prepared {
    /// Which lane it is of.
    pub(super) lane: usize,
    /// Where the cursor stands before it.
    pub(super) from: Offset,
    /// Where the cursor stands after it.
    pub(super) end: Offset,
    /// Messages, whatever becomes of them.
    pub(super) messages: u64,
    /// Those of them that are not for any table.
    pub(super) ignored: u64,
    /// The rows of each table that has some, in the order in which the tables are locked.
    pub(super) parts: Vec<Part>,
    pub(super) dead_letters: Vec<DeadLetter>,
    /// Offsets that it steps over, for there is nothing.
    pub(super) gaps: Vec<Gap>,
    /// What it writes into the ledger.
    pub(super) ledger: Vec<ledger::Entry>,
    /// The place up to which the ledger is written with it.
    pub(super) recorded: Place,
    /// Rows that gave way to others of their key, once that is known.
    pub(super) conflicts: u64,
}

/// The rows of one table.
pub(super) struct Part {
    /// Its place among the tables of the lane.
    pub(super) table: usize,
    pub(super) loading: Loading,
    pub(super) rows: CopyRows,
}

impl Prepared {
    /// Adds up something about the rows of all tables.
    pub(super) fn sum(&self, of: impl Fn(&CopyRows) -> u64) -> u64 {
        self.parts.iter().map(|part| of(&part.rows)).sum()
    }
}

/// Why a transaction did not commit, or is not known to have.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Somebody else took the epoch.
    #[error("another engine took over")]
    Fenced,
    /// The cursor's row or table is not there.
    #[error("the cursor is gone from the database")]
    CursorGone,
    /// The cursor is not where it was left.
    #[error("the cursor in the database stands at {found}, not where it was left")]
    CursorMoved {
        /// Where it stands.
        found: Offset,
    },
    /// One of our own tables failed.
    #[error("{}", describe(.0))]
    OwnTable(#[source] tokio_postgres::Error),
    /// A target table is not as it was loaded.
    #[error("table {0} was changed by somebody else")]
    TableChanged(String),
    /// The server stored fewer rows than it was sent.
    #[error("the server stored {stored} of {sent} rows of table {table}")]
    RowsSwallowed {
        /// The table, quoted.
        table: String,
        /// Sent.
        sent: u64,
        /// Stored.
        stored: u64,
    },
    /// The server refused a statement, or the connection failed.
    #[error("{}", describe(.0))]
    Sql(#[from] tokio_postgres::Error),
    /// The server refused rows, or the connection failed while they were sent.
    #[error("{}", describe(.source))]
    Rows {
        /// Which of the transaction's parts they are.
        part: usize,
        /// What it said.
        source: tokio_postgres::Error,
    },
    /// The server did not answer in time.
    #[error("no answer from the server for {} s", .0.as_secs())]
    NoAnswer(Duration),
}

/// The place in the one message of [`open`] of the statement that locks the cursor's row.
const CURSOR_STATEMENT: usize = 3;

/// Begins the transaction: locks the cursor's row and the tables, and checks that all are as we left them. Returns what became of
/// the messages before the cursor, if the row says so.
pub(super) async fn open(
    session: &Session,
    timing: &Timing,
    tables: &OwnTables,
    key: &CursorKey,
    claim: Claim,
    prepared: &Prepared,
    router: &Router,
) -> Result<Option<Outcomes>, Failure> {
    let mut statements = vec![
        // Under a role's default of repeatable read the fingerprint would be that of before the lock.
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE".to_owned(),
        format!("SET LOCAL lock_timeout = {}", timing.lock.as_millis()),
        LASTING_COMMIT.to_owned(),
        key.lock_sql(tables),
    ];
    let targets: Vec<_> = prepared
        .parts
        .iter()
        .filter_map(|part| router.tables().get(part.table))
        .collect();
    if !targets.is_empty() {
        let upserts = prepared.parts.iter().filter_map(|part| part.loading.upsert());
        statements.extend(upserts.map(|upsert| upsert.prepare.clone()));
        let names: Vec<_> = targets.iter().map(|table| table.name_sql()).collect();
        statements.push(lock_sql(&names));
    }
    let fingerprints = statements.len();
    statements.extend(targets.iter().map(|table| table.fingerprint_sql()));
    let script = statements.join("; ");
    let answers = answer(timing, ask(session, &script)).await?;

    let Some([path_id, epoch, next, counted]) = answers.of(CURSOR_STATEMENT) else {
        return Err(Failure::CursorGone);
    };
    if path_id.as_deref() != Some(key.path_id.to_string().as_str()) || number(epoch) != Some(claim.epoch()) {
        return Err(Failure::Fenced);
    }
    let found = from_sql(number(next).unwrap_or(0));
    if found != prepared.from {
        return Err(Failure::CursorMoved { found });
    }
    for (place, table) in targets.iter().enumerate() {
        let row = answers.of(fingerprints + place);
        if !table.fingerprint_matches(row.and_then(|row| row.first()?.as_deref())) {
            return Err(Failure::TableChanged(table.name_sql().to_owned()));
        }
    }
    Ok(outcomes::parse(counted.as_deref()))
}

/// The statement that keeps others from changing tables, given quoted, until the end of a transaction.
pub(super) fn lock_sql(tables: &[&str]) -> String {
    format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", tables.join(", "))
}

fn number(text: &Option<String>) -> Option<i64> {
    text.as_deref()?.parse().ok()
}

/// The rows that the statements of one message answered, with the place of the statement.
struct Answers(Vec<(usize, Vec<Option<String>>)>);

impl Answers {
    fn of(&self, statement: usize) -> Option<&[Option<String>]> {
        self.0
            .iter()
            .find(|(place, _)| *place == statement)
            .map(|(_, row)| row.as_slice())
    }
}

/// Sends several statements in one message. An error of a statement that reads our own tables is told apart from one
/// about the target table.
async fn ask(session: &Session, script: &str) -> Result<Answers, Failure> {
    let mut stream = pin!(session.client.simple_query_raw(script).await?);
    let mut answers = Answers(Vec::new());
    let mut statement = 0;
    loop {
        match stream.try_next().await {
            Ok(Some(SimpleQueryMessage::Row(row))) => {
                let row = (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect();
                answers.0.push((statement, row));
            }
            Ok(Some(SimpleQueryMessage::CommandComplete(_))) => statement += 1,
            Ok(Some(_)) => {}
            Ok(None) => return Ok(answers),
            Err(error) if statement <= CURSOR_STATEMENT => return Err(Failure::OwnTable(error)),
            Err(error) => return Err(Failure::Sql(error)),
        }
    }
}

/// Sends what was prepared, moves the cursor and commits. Returns how many rows of the ledger are new. When this fails after
/// COMMIT was sent, and the failure is of the connection, nobody knows whether it is committed; the cursor will tell.
pub(super) async fn finish(
    session: &mut Session,
    timing: &Timing,
    tables: &OwnTables,
    key: &CursorKey,
    claim: Claim,
    prepared: &mut Prepared,
) -> Result<u64, Failure> {
    prepared.conflicts = 0;
    for (index, part) in prepared.parts.iter().enumerate() {
        let loaded = load(session, &part.loading, &part.rows).await;
        prepared.conflicts += loaded.map_err(|failure| match failure {
            Failure::Sql(source) => Failure::Rows { part: index, source },
            other => other,
        })?;
    }
    if !prepared.dead_letters.is_empty() {
        dead_letter::insert(session, tables, key, &prepared.dead_letters)
            .await
            .map_err(Failure::OwnTable)?;
    }
    let mut recorded = 0;
    if !prepared.ledger.is_empty() {
        recorded = answer(timing, async {
            ledger::insert(session, tables, key, &prepared.ledger)
                .await
                .map_err(Failure::OwnTable)
        })
        .await?;
    }
    answer(timing, move_cursor(session, tables, key, claim, prepared)).await?;
    answer(timing, async {
        Ok(session.client.batch_execute("COMMIT").await?)
    })
    .await?;
    Ok(recorded)
}

async fn move_cursor(
    session: &mut Session,
    tables: &OwnTables,
    key: &CursorKey,
    claim: Claim,
    prepared: &Prepared,
) -> Result<(), Failure> {
    let statement = session
        .statement(&format!(
            "UPDATE {} SET next_offset = $1, updated_at = now(), {} \
             WHERE stage = $2 AND producer = $3 AND stage_path_id = $4::text::uuid AND epoch = $5 AND next_offset = $6",
            tables.cursor(),
            outcomes::add_sql(7)
        ))
        .await
        .map_err(Failure::OwnTable)?;
    let updated = session
        .client
        .execute(
            &statement,
            &[
                &to_sql(prepared.end),
                &key.stage,
                &key.producer,
                &key.path_id.to_string(),
                &claim.epoch(),
                &to_sql(prepared.from),
                &outcomes::values(outcomes::of_transaction(prepared)),
            ],
        )
        .await
        .map_err(Failure::OwnTable)?;
    // We hold the row's lock and have checked it: anything but one row is a rule or trigger on our own table.
    if updated == 1 {
        Ok(())
    } else {
        Err(Failure::CursorGone)
    }
}

/// Outside of any transaction: whether the cursor's row is still ours, where it stands, and what it counts.
pub(super) async fn check_epoch(
    session: &Session,
    timing: &Timing,
    tables: &OwnTables,
    key: &CursorKey,
    claim: Claim,
) -> Result<(Offset, Option<Outcomes>), Failure> {
    let query = format!(
        "SELECT epoch, next_offset, {} FROM {} WHERE stage = $1 AND producer = $2",
        outcomes::select_sql(),
        tables.cursor()
    );
    let row = answer(timing, async {
        let row = session
            .client
            .query_opt(&query, &[&key.stage, &key.producer])
            .await;
        row.map_err(Failure::OwnTable)
    })
    .await?;
    match row {
        Some(row) if row.try_get::<_, i64>(0)? == claim.epoch() => {
            Ok((from_sql(row.try_get(1)?), outcomes::parse(row.try_get(2)?)))
        }
        Some(_) => Err(Failure::Fenced),
        None => Err(Failure::CursorGone),
    }
}

/// Ends what a failure left open. An error means that the session is of no more use.
pub(super) async fn roll_back(session: &Session, timing: &Timing) -> Result<(), Failure> {
    answer(timing, async {
        Ok(session.client.batch_execute("ROLLBACK").await?)
    })
    .await
}

async fn answer<T>(timing: &Timing, asked: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(timing.answer, asked)
        .await
        .unwrap_or(Err(Failure::NoAnswer(timing.answer)))
}
