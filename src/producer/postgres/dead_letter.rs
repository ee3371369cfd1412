//! Dead letters: messages that can never become rows, kept with their bytes and the reason, in the same transaction
//! as the rows of their neighbours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::Client;

use super::cursor::{CursorKey, OwnTables, from_sql, to_sql};
use super::refusals::WINDOW;
use super::session::Session;
use crate::record::{Message, Offset, Timestamp};

/// The longest reason that is kept, in bytes: a server's message may quote a whole value.
const MAX_REASON_BYTES: usize = 1_000;

/// The reason of those that an operator had skipped; it tells them from those that could not be rows.
pub(super) const SKIPPED: &str = "skipped by an operator";

/// Why a message can't be a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What the server called it, if the server refused.
    pub(super) sqlstate: Option<String>,
    /// In words.
    pub(super) reason: String,
    /// The record of the message that is at fault, if it is one.
    pub(super) record_index: Option<u32>,
}

impl Verdict {
    /// The reason as it is kept.
    pub(super) fn kept_reason(&self) -> String {
        kept_text(&self.reason)
    }
}

/// A text as our own tables keep it: without NUL, which text does not hold, and cut.
pub(super) fn kept_text(text: &str) -> String {
    let mut text = text.replace('\0', "");
    let mut end = MAX_REASON_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// A message that can never become a row.
#[derive(Clone, Debug)]
pub(super) struct DeadLetter {
    offset: Offset,
    received_at: Timestamp,
    payload: Vec<u8>,
    verdict: Verdict,
}

impl DeadLetter {
    /// Keeps a copy of the message.
    pub(super) fn new(offset: Offset, message: Message<'_>, mut verdict: Verdict) -> Self {
        verdict.reason = verdict.kept_reason();
        Self {
            offset,
            received_at: message.received_at,
            payload: message.payload.to_vec(),
            verdict,
        }
    }
}

/// Of the latest dead letters of all stages, at most so many are looked at.
const LATEST: u64 = 2 * WINDOW;

/// Messages before the cursor at `at` that the server has refused lately, the last first.
pub(super) async fn refused_lately(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    at: Offset,
) -> Result<Vec<Offset>, tokio_postgres::Error> {
    let rows = client
        .query(
            &format!(
                "SELECT DISTINCT message_offset FROM (SELECT stage_path_id, stage, producer, message_offset, sqlstate, into_table, replayed \
                 FROM {} ORDER BY id DESC LIMIT {LATEST}) latest \
                 WHERE stage = $1 AND producer = $2 AND stage_path_id = $3::text::uuid AND message_offset < $4 \
                 AND sqlstate IS NOT NULL AND into_table IS NULL AND NOT replayed ORDER BY 1 DESC LIMIT {WINDOW}",
                tables.dead_letter()
            ),
            &[
                &key.stage,
                &key.producer,
                &key.path_id.to_string(),
                &to_sql(at),
            ],
        )
        .await?;
    rows.iter().map(|row| Ok(from_sql(row.try_get(0)?))).collect()
}

/// Inserts dead letters inside the session's open transaction.
pub(super) async fn insert(
    session: &mut Session,
    tables: &OwnTables,
    key: &CursorKey,
    letters: &[DeadLetter],
) -> Result<(), tokio_postgres::Error> {
    let statement = session
        .statement(&format!(
            "INSERT INTO {} (stage_path_id, stage, producer, message_offset, record_index, received_at, sqlstate, reason, payload, \
             into_table, replayed) \
             SELECT $1::text::uuid, $2, $3, l.*, $10, $11 FROM unnest($4::int8[], $5::int4[], $6::timestamptz[], $7::text[], $8::text[], $9::bytea[]) l",
            tables.dead_letter()
        ))
        .await?;
    let path_id = key.path_id.to_string();
    let offsets: Vec<_> = letters.iter().map(|letter| to_sql(letter.offset)).collect();
    let records: Vec<_> = letters
        .iter()
        .map(|letter| letter.verdict.record_index.and_then(|i| i32::try_from(i).ok()))
        .collect();
    let times: Vec<_> = letters
        .iter()
        .map(|letter| system_time(letter.received_at))
        .collect();
    let states: Vec<_> = letters
        .iter()
        .map(|letter| letter.verdict.sqlstate.as_deref())
        .collect();
    let reasons: Vec<_> = letters
        .iter()
        .map(|letter| letter.verdict.reason.as_str())
        .collect();
    let payloads: Vec<_> = letters.iter().map(|letter| letter.payload.as_slice()).collect();
    session
        .client
        .execute(
            &statement,
            &[
                &path_id,
                &key.stage,
                &key.owner(),
                &offsets,
                &records,
                &times,
                &states,
                &reasons,
                &payloads,
                &key.into_table,
                &key.is_replay(),
            ],
        )
        .await?;
    Ok(())
}

/// A time as the driver takes it.
pub(super) fn system_time(at: Timestamp) -> SystemTime {
    let distance = Duration::from_micros(at.micros().unsigned_abs());
    let time = if at.micros() < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}
