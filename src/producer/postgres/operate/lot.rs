//! One lot of dead letters inside its transaction: locked, encoded, sent.

use std::collections::BTreeMap;

use super::super::cursor::{CursorKey, OwnTables, from_sql};
use super::super::dead_letter::Verdict;
use super::super::load::load;
use super::super::session::Session;
use super::super::table::{CopyRows, Encoded, Router, Table};
use super::super::transaction::{Failure, lock_sql};
use super::error::OperateError;
use super::letters::{self, timestamp};
use crate::producer::dead_letters::Retried;
use crate::record::{Message, Offset, Timestamp};

/// Why a lot did not commit, or is not known to have.
pub(super) enum Refusal {
    /// Nothing more is tried.
    Final(OperateError),
    /// The table has to be changed, or loaded again, first.
    NeedsSchema,
    /// The server refused; with letter and record of each row that was sent.
    Failed(Failure, Vec<(i64, u32)>),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure, Vec::new())
    }
}

/// What a committed lot has done.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Letters that are rows now.
    pub(super) delivered: Vec<i64>,
    rows: u64,
    failed: u64,
    busy: u64,
}

impl Outcome {
    /// Without the letters that stay, which are tried again after a commit that is in doubt.
    pub(super) fn only_delivered(&self) -> Self {
        Self {
            failed: 0,
            busy: 0,
            ..self.clone()
        }
    }

    pub(super) fn count(&self, retried: &mut Retried) {
        retried.delivered += self.delivered.len() as u64;
        retried.rows += self.rows;
        retried.failed += self.failed;
        retried.busy += self.busy;
    }
}

struct Locked {
    id: i64,
    offset: Offset,
    received_at: Timestamp,
    payload: Vec<u8>,
    /// As what the cursor's row counts it.
    counted: Option<As>,
}

/// As what the cursor's row counts a letter.
#[derive(Clone, Copy)]
enum As {
    Skipped,
    DeadLetter,
}

/// How the counts of the cursor's row change.
#[derive(Clone, Copy, Debug, Default)]
struct Recount {
    delivered: i64,
    skipped: i64,
    dead_letters: i64,
}

impl Recount {
    /// A letter becomes rows.
    fn delivered(&mut self, counted: Option<As>) {
        match counted {
            Some(As::Skipped) => self.skipped -= 1,
            Some(As::DeadLetter) => self.dead_letters -= 1,
            None => return,
        }
        self.delivered += 1;
    }

    /// A letter stays, for it can't become rows.
    fn failed(&mut self, counted: Option<As>) {
        if let Some(As::Skipped) = counted {
            self.skipped -= 1;
            self.dead_letters += 1;
        }
    }
}

/// Letters that are locked.
pub(super) struct Lot {
    letters: Vec<Locked>,
    busy: u64,
}

impl Lot {
    /// Locks letters in a transaction of its own beginning: waits for whoever is at them.
    pub(super) async fn lock(
        session: &Session,
        tables: &OwnTables,
        ids: &[i64],
        waits: bool,
    ) -> Result<Self, OperateError> {
        session.client.batch_execute(&super::facts::begin_sql()).await?;
        Ok(Self::select(session, tables, ids, waits).await?)
    }

    /// Locks letters inside the open transaction; those that somebody else is at are passed over, or waited for.
    pub(super) async fn lock_again(
        session: &Session,
        tables: &OwnTables,
        ids: &[i64],
        waits: bool,
    ) -> Result<Self, Refusal> {
        let lot = Self::select(session, tables, ids, waits).await;
        Ok(lot.map_err(Failure::OwnTable)?)
    }

    async fn select(
        session: &Session,
        tables: &OwnTables,
        ids: &[i64],
        waits: bool,
    ) -> Result<Self, tokio_postgres::Error> {
        let passing = if waits { "" } else { "SKIP LOCKED" };
        let sql = format!(
            "SELECT id, message_offset, received_at, payload, {}, {} FROM {} l WHERE id = ANY ($1) \
             ORDER BY id FOR UPDATE OF l {passing}",
            letters::counted_sql(tables),
            letters::as_skipped_sql(),
            tables.dead_letter(),
        );
        let rows = session.client.query(&sql, &[&ids]).await?;
        let mut letters = Vec::with_capacity(rows.len());
        for row in rows {
            letters.push(Locked {
                id: row.try_get(0)?,
                offset: from_sql(row.try_get(1)?),
                received_at: timestamp(row.try_get(2)?),
                payload: row.try_get(3)?,
                counted: match (row.try_get(4)?, row.try_get(5)?) {
                    (false, _) => None,
                    (true, true) => Some(As::Skipped),
                    (true, false) => Some(As::DeadLetter),
                },
            });
        }
        Ok(Self {
            busy: ids.len().saturating_sub(letters.len()) as u64,
            letters,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Encodes all letters but those that the server has refused. A lot is small, so that this is done where it is awaited.
    pub(super) fn encode(
        &self,
        router: &mut Router,
        refused: &BTreeMap<i64, Verdict>,
    ) -> Result<PreparedLot, Refusal> {
        let mut prepared = PreparedLot {
            busy: self.busy,
            ..PreparedLot::default()
        };
        prepared.rows.resize_with(router.tables().len(), CopyRows::new);
        prepared.of_row.resize_with(router.tables().len(), Vec::new);
        let mut needs_schema = false;
        for letter in &self.letters {
            if let Some(verdict) = refused.get(&letter.id) {
                prepared.fails(letter, verdict.clone());
                continue;
            }
            let message = Message {
                payload: &letter.payload,
                received_at: letter.received_at,
            };
            match router.encode(letter.offset, message, &mut prepared.rows) {
                Encoded::Rows(_) => {
                    for (rows, of_row) in prepared.rows.iter().zip(&mut prepared.of_row) {
                        let new = (of_row.len()..rows.len()).filter_map(|index| rows.get(index));
                        of_row.extend(new.map(|row| (letter.id, row.record_index)));
                    }
                    prepared.delivered.push(letter.id);
                    prepared.recount.delivered(letter.counted);
                }
                Encoded::DeadLetter { reason, record_index } => {
                    let verdict = Verdict {
                        sqlstate: None,
                        reason,
                        record_index,
                    };
                    prepared.fails(letter, verdict);
                }
                // Nothing is delivered and nothing is lost: the letter stays until somebody drops it.
                Encoded::Ignored => {
                    let verdict = Verdict {
                        sqlstate: None,
                        reason: "the mapping leaves this message out (when, routes, records); drop the letter if that is right"
                            .to_owned(),
                        record_index: None,
                    };
                    prepared.fails(letter, verdict);
                }
                // Those that follow are only looked at, so that one change of the table does for all of them.
                Encoded::NeedsSchema => needs_schema = true,
            }
        }
        if needs_schema {
            return Err(Refusal::NeedsSchema);
        }
        Ok(prepared)
    }
}

/// A lot that is ready to be sent.
#[derive(Default)]
pub(super) struct PreparedLot {
    /// Of each table.
    rows: Vec<CopyRows>,
    /// Of each table, letter and record of each row.
    of_row: Vec<Vec<(i64, u32)>>,
    delivered: Vec<i64>,
    failed: Vec<(i64, Verdict)>,
    recount: Recount,
    busy: u64,
}

impl PreparedLot {
    fn fails(&mut self, letter: &Locked, verdict: Verdict) {
        self.recount.failed(letter.counted);
        self.failed.push((letter.id, verdict));
    }

    /// The tables that get rows, with the lowest offset of these.
    pub(super) fn first_delivered<'r>(&self, router: &'r Router) -> Vec<(&'r Table, Offset)> {
        let tables = router.tables().iter().zip(&self.rows);
        let first = |rows: &CopyRows| rows.iter().map(|row| row.offset).min();
        tables
            .filter_map(|(table, rows)| Some((table, first(rows)?)))
            .collect()
    }

    /// Sends rows, removes their letters and writes down why the others stay; everything but the commit.
    pub(super) async fn send(
        mut self,
        session: &mut Session,
        tables: &OwnTables,
        key: &CursorKey,
        router: &Router,
    ) -> Result<Outcome, Refusal> {
        match self.try_send(session, tables, key, router).await {
            Ok(conflicts) => Ok(Outcome {
                rows: self.rows.iter().map(|rows| rows.len() as u64).sum::<u64>() - conflicts,
                failed: self.failed.len() as u64,
                busy: self.busy,
                delivered: self.delivered,
            }),
            Err(failure) => {
                let of_row = match &failure {
                    Failure::Rows { part, .. } => self.of_row.swap_remove(*part),
                    _ => Vec::new(),
                };
                Err(Refusal::Failed(failure, of_row))
            }
        }
    }

    /// Returns how many rows gave way to others of their key.
    async fn try_send(
        &self,
        session: &mut Session,
        tables: &OwnTables,
        key: &CursorKey,
        router: &Router,
    ) -> Result<u64, Failure> {
        let conflicts = self.send_rows(session, router).await?;
        let letters = tables.dead_letter();
        let removed = session
            .client
            .execute(
                &format!("DELETE FROM {letters} WHERE id = ANY ($1)"),
                &[&self.delivered],
            )
            .await
            .map_err(Failure::OwnTable)?;
        if removed != self.delivered.len() as u64 {
            return Err(Failure::RowsSwallowed {
                table: letters.to_owned(),
                sent: self.delivered.len() as u64,
                stored: removed,
            });
        }
        let update =
            format!("UPDATE {letters} SET sqlstate = $2, reason = $3, record_index = $4 WHERE id = $1");
        for (id, verdict) in &self.failed {
            let record = verdict.record_index.and_then(|index| i32::try_from(index).ok());
            let reason = verdict.kept_reason();
            session
                .client
                .execute(&update, &[id, &verdict.sqlstate, &reason, &record])
                .await
                .map_err(Failure::OwnTable)?;
        }
        let Recount {
            delivered,
            skipped,
            dead_letters,
        } = self.recount;
        let counts = format!(
            "UPDATE {} SET delivered = delivered + $3, skipped = skipped + $4, dead_letters = dead_letters + $5 \
             WHERE stage = $1 AND producer = $2",
            tables.cursor()
        );
        session
            .client
            .execute(
                &counts,
                &[&key.stage, &key.producer, &delivered, &skipped, &dead_letters],
            )
            .await
            .map_err(Failure::OwnTable)?;
        Ok(conflicts)
    }

    async fn send_rows(&self, session: &mut Session, router: &Router) -> Result<u64, Failure> {
        let targets = router.tables().iter().zip(&self.rows).enumerate();
        let targets: Vec<_> = targets.filter(|(_, (_, rows))| !rows.is_empty()).collect();
        if targets.is_empty() {
            return Ok(0);
        }
        let names: Vec<_> = targets.iter().map(|(_, (table, _))| table.name_sql()).collect();
        session.client.batch_execute(&lock_sql(&names)).await?;
        for (_, (table, _)) in &targets {
            let row = session.client.query_one(&table.fingerprint_sql(), &[]).await?;
            if !table.fingerprint_matches(row.try_get(0)?) {
                return Err(Failure::TableChanged(table.name_sql().to_owned()));
            }
        }
        let mut conflicts = 0;
        for (part, (table, rows)) in targets {
            let loading = table.loading();
            if let Some(upsert) = loading.upsert() {
                session.client.batch_execute(&upsert.prepare).await?;
            }
            let loaded = load(session, &loading, rows).await;
            conflicts += loaded.map_err(|failure| match failure {
                Failure::Sql(source) => Failure::Rows { part, source },
                other => other,
            })?;
        }
        Ok(conflicts)
    }
}
