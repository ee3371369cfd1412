//! The ledger of gaps, `_socket_el_gap`: a row for each stretch that a stage lacks, written in the transaction that passes its
//! place in the order.
//!
//! Invariant: a gap is a row once. Those that take offsets are passed once, for the cursor moves over them in the same
//! transaction. Outages take none, so those at the very place of the cursor may come again after a lost answer or a
//! restart; the primary key holds all that tells one from another, and what is there already is left as it is.
//!
//! What a replay passes is not written: the delivery that it repeats has written it.

use std::time::SystemTime;

use super::cursor::{CursorKey, OwnTables, to_sql};
use super::dead_letter::{kept_text, system_time};
use super::session::Session;
use crate::record::{Offset, Timestamp};
use crate::stage::{Gap, OutagePage, Place, PlacedOutage, ReadOutcome, Stage, StageError};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Offsets `from..to` hold no message. Equal where none is skipped; the next message has the offset `to` or a higher one.
    from: Offset,
    to: Offset,
    /// Tells the outages before one message apart, in order.
    number: u32,
    cause: &'static str,
    /// `None` when nobody can know.
    messages: Option<u64>,
    began_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    noticed_at: Timestamp,
    detail: String,
    /// What the source's numbers belong to, where they have a hole.
    sequence_key: Option<String>,
    /// The first and the last of the source's numbers that did not come.
    missing: Option<(u64, u64)>,
}

impl From<&Gap> for Entry {
    fn from(gap: &Gap) -> Self {
        Self {
            from: gap.from,
            to: gap.to,
            number: 0,
            cause: gap.cause.name(),
            messages: gap.messages,
            began_at: gap.period.map(|period| period.from),
            ended_at: gap.period.map(|period| period.to),
            noticed_at: gap.noticed_at,
            detail: gap.cause.to_string(),
            sequence_key: None,
            missing: None,
        }
    }
}

impl From<&PlacedOutage> for Entry {
    fn from(placed: &PlacedOutage) -> Self {
        let outage = &placed.outage;
        let skip = outage.kind.skip();
        Self {
            from: placed.follows.min(placed.place.offset),
            to: placed.place.offset,
            number: placed.place.sequence,
            cause: outage.kind.name(),
            messages: (outage.messages > 0).then_some(outage.messages),
            began_at: Some(outage.from),
            ended_at: Some(outage.to),
            noticed_at: outage.to,
            detail: kept_text(&outage.cause),
            sequence_key: skip.and_then(|skip| skip.key.as_deref()).map(kept_text),
            missing: skip.map(|skip| (skip.first, skip.last)),
        }
    }
}

/// What was read of a stage, with the outages among it.
pub(super) struct WithOutages {
    /// Up to where all outages are known.
    pub(super) messages: ReadOutcome,
    /// Those from the place at which it began, up to the message at `messages.next`.
    pub(super) outages: OutagePage,
}

/// Finds the outages among what was read from the place `from` on.
pub(super) async fn with_outages(
    stage: &dyn Stage,
    from: Place,
    mut read: ReadOutcome,
) -> Result<WithOutages, StageError> {
    let to = read.next;
    // Looked at after the read: whoever sees a message knows of the outages before it.
    if *stage.watch_outages().borrow() <= from {
        let outages = OutagePage {
            outages: Vec::new(),
            next: from.max(to.into()),
        };
        return Ok(WithOutages {
            messages: read,
            outages,
        });
    }
    let outages = stage.outages(from, to).await?;
    let end = outages.next.offset;
    if end < to {
        // A page ends at an outage, and an outage stands between two batches.
        read = read.up_to(end);
    }
    Ok(WithOutages {
        messages: read,
        outages,
    })
}

/// Inserts entries inside the session's open transaction. Returns how many were new.
pub(super) async fn insert(
    session: &mut Session,
    tables: &OwnTables,
    key: &CursorKey,
    entries: &[Entry],
) -> Result<u64, tokio_postgres::Error> {
    let statement = session
        .statement(&format!(
            "INSERT INTO {} (stage_path_id, stage, producer, from_offset, to_offset, number, cause, messages, began_at, ended_at, \
             noticed_at, detail, sequence_key, missing_first, missing_last) \
             SELECT $1::text::uuid, $2, $3, from_offset, to_offset, number, cause, messages, began_at, ended_at, noticed_at, \
             detail, sequence_key, missing_first::numeric, missing_last::numeric \
             FROM unnest($4::int8[], $5::int8[], $6::int8[], $7::text[], $8::int8[], $9::timestamptz[], $10::timestamptz[], \
             $11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::text[]) \
             AS e (from_offset, to_offset, number, cause, messages, began_at, ended_at, noticed_at, detail, sequence_key, \
             missing_first, missing_last) \
             ON CONFLICT DO NOTHING",
            tables.gap()
        ))
        .await?;
    let column = |of: fn(&Entry) -> Option<Timestamp>| -> Vec<Option<SystemTime>> {
        entries.iter().map(|entry| of(entry).map(system_time)).collect()
    };
    let missing = |of: fn((u64, u64)) -> u64| -> Vec<Option<String>> {
        entries
            .iter()
            .map(|entry| entry.missing.map(|missing| of(missing).to_string()))
            .collect()
    };
    let froms: Vec<_> = entries.iter().map(|entry| to_sql(entry.from)).collect();
    let tos: Vec<_> = entries.iter().map(|entry| to_sql(entry.to)).collect();
    let numbers: Vec<_> = entries.iter().map(|entry| i64::from(entry.number)).collect();
    let causes: Vec<_> = entries.iter().map(|entry| entry.cause).collect();
    let messages: Vec<_> = entries
        .iter()
        .map(|entry| {
            entry
                .messages
                .map(|messages| i64::try_from(messages).unwrap_or(i64::MAX))
        })
        .collect();
    let details: Vec<_> = entries.iter().map(|entry| entry.detail.as_str()).collect();
    let keys: Vec<_> = entries
        .iter()
        .map(|entry| entry.sequence_key.as_deref())
        .collect();
    session
        .client
        .execute(
            &statement,
            &[
                &key.path_id.to_string(),
                &key.stage,
                &key.owner(),
                &froms,
                &tos,
                &numbers,
                &causes,
                &messages,
                &column(|entry| entry.began_at),
                &column(|entry| entry.ended_at),
                &column(|entry| Some(entry.noticed_at)),
                &details,
                &keys,
                &missing(|(first, _)| first),
                &missing(|(_, last)| last),
            ],
        )
        .await
}
