//! The data transaction: rows, dead letters and cursor become durable together, or not at all.
//!
//! In two halves, so that the next transaction can be encoded while this one is being committed: [`open`] begins it,
//! locks the cursor's row and the table and checks both, in one round trip; [`finish`] sends rows and dead
//! letters, moves the cursor and commits. After a failure of either, [`roll_back`] has to be called before the session
//! is used again.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, TryStreamExt as _};
use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use super::cursor::{Claim, CursorKey, OwnTables, from_sql, to_sql};
use super::dead_letter::{self, DeadLetter};
use super::session::{LASTING_COMMIT, Session, Timing, describe};
use super::table::{CopyRows, Table};
use crate::record::Offset;
use crate::stage::Gap;

/// Rows are sent in pieces of this size: large enough to cost few messages, small enough not to be held twice.
const COPY_PIECE_BYTES: usize = 128 << 10;
/// The signature, no flags, no extension of the header.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A field count of -1 ends the rows.
const COPY_TRAILER: &[u8] = &[0xff, 0xff];

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
    /// Those of them that are not for the table.
    pub(super) ignored: u64,
    pub(super) rows: CopyRows,
    pub(super) dead_letters: Vec<DeadLetter>,
    /// Offsets that it steps over, for there is nothing.
    pub(super) gaps: Vec<Gap>,
    /// The COPY statement that belongs to the rows.
    pub(super) copy_sql: String,
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
    /// The target table is not as it was loaded.
    #[error("the table was changed by somebody else")]
    TableChanged,
    /// The server stored fewer rows than it was sent.
    #[error("the server stored {stored} of {sent} rows")]
    RowsSwallowed {
        /// Sent.
        sent: u64,
        /// Stored.
        stored: u64,
    },
    /// The server refused a statement, or the connection failed.
    #[error("{}", describe(.0))]
    Sql(#[from] tokio_postgres::Error),
    /// The server did not answer in time.
    #[error("no answer from the server for {} s", .0.as_secs())]
    NoAnswer(Duration),
}

/// The statements of [`open`], by their place in its one message.
const CURSOR_STATEMENT: usize = 3;
const FINGERPRINT_STATEMENT: usize = 5;

/// Begins the transaction: locks the cursor's row and the table, and checks that both are as we left them.
pub(super) async fn open(
    session: &Session,
    timing: &Timing,
    tables: &OwnTables,
    key: &CursorKey,
    claim: Claim,
    prepared: &Prepared,
    table: &Table,
) -> Result<(), Failure> {
    let mut script = format!(
        // Under a role's default of repeatable read the fingerprint would be that of before the lock.
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {}; {LASTING_COMMIT}; {}",
        timing.lock.as_millis(),
        key.lock_sql(tables)
    );
    let with_rows = !prepared.rows.is_empty();
    if with_rows {
        script = format!("{script}; {}; {}", table.lock_sql(), table.fingerprint_sql());
    }
    let answers = answer(timing, ask(session, &script)).await?;

    let Some(cursor) = answers.of(CURSOR_STATEMENT) else {
        return Err(Failure::CursorGone);
    };
    let [path_id, epoch, next] = cursor else {
        return Err(Failure::CursorGone);
    };
    if path_id.as_deref() != Some(key.path_id.to_string().as_str()) || number(epoch) != Some(claim.epoch()) {
        return Err(Failure::Fenced);
    }
    let found = from_sql(number(next).unwrap_or(0));
    if found != prepared.from {
        return Err(Failure::CursorMoved { found });
    }
    if with_rows {
        let fingerprint = answers
            .of(FINGERPRINT_STATEMENT)
            .and_then(|row| row.first()?.as_deref());
        if !table.fingerprint_matches(fingerprint) {
            return Err(Failure::TableChanged);
        }
    }
    Ok(())
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

/// Sends what was prepared, moves the cursor and commits. When this fails after COMMIT was sent, and the failure is of the
/// connection, nobody knows whether it is committed; the cursor will tell.
pub(super) async fn finish(
    session: &mut Session,
    timing: &Timing,
    tables: &OwnTables,
    key: &CursorKey,
    claim: Claim,
    prepared: &Prepared,
) -> Result<(), Failure> {
    if !prepared.rows.is_empty() {
        copy(session, &prepared.copy_sql, &prepared.rows).await?;
    }
    if !prepared.dead_letters.is_empty() {
        dead_letter::insert(session, tables, key, &prepared.dead_letters)
            .await
            .map_err(Failure::OwnTable)?;
    }
    answer(timing, move_cursor(session, tables, key, claim, prepared)).await?;
    answer(timing, async {
        Ok(session.client.batch_execute("COMMIT").await?)
    })
    .await
}

/// Sends rows; all of them must be stored.
pub(super) async fn copy(session: &mut Session, copy_sql: &str, rows: &CopyRows) -> Result<(), Failure> {
    let statement = session.statement(copy_sql).await?;
    let mut sink = pin!(session.client.copy_in::<_, Bytes>(&statement).await?);
    let pieces = std::iter::once(COPY_HEADER)
        .chain(rows.bytes().chunks(COPY_PIECE_BYTES))
        .chain(std::iter::once(COPY_TRAILER));
    for piece in pieces {
        if sink.feed(Bytes::copy_from_slice(piece)).await.is_err() {
            // The connection is gone; what the server said last, if anything, is what `finish` returns.
            break;
        }
    }
    let stored = sink.finish().await?;
    let sent = rows.len() as u64;
    if stored == sent {
        Ok(())
    } else {
        Err(Failure::RowsSwallowed { sent, stored })
    }
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
            "UPDATE {} SET next_offset = $1, updated_at = now() \
             WHERE stage = $2 AND producer = $3 AND stage_path_id = $4::text::uuid AND epoch = $5 AND next_offset = $6",
            tables.cursor()
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

/// Outside of any transaction: whether the cursor's row is still ours.
pub(super) async fn check_epoch(
    session: &Session,
    timing: &Timing,
    tables: &OwnTables,
    key: &CursorKey,
    claim: Claim,
) -> Result<(), Failure> {
    let query = format!(
        "SELECT epoch FROM {} WHERE stage = $1 AND producer = $2",
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
        Some(row) if row.try_get::<_, i64>(0)? == claim.epoch() => Ok(()),
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
