//! One lot of dead letters inside its transaction: locked, encoded, sent.

use std::collections::BTreeMap;

use super::super::cursor::{OwnTables, from_sql};
use super::super::dead_letter::Verdict;
use super::super::session::Session;
use super::super::table::{CopyRows, Encoded, Table};
use super::super::transaction::{self, Failure};
use super::error::OperateError;
use super::letters::timestamp;
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
            "SELECT id, message_offset, received_at, payload FROM {} WHERE id = ANY ($1) ORDER BY id FOR UPDATE {passing}",
            tables.dead_letter()
        );
        let rows = session.client.query(&sql, &[&ids]).await?;
        let mut letters = Vec::with_capacity(rows.len());
        for row in rows {
            letters.push(Locked {
                id: row.try_get(0)?,
                offset: from_sql(row.try_get(1)?),
                received_at: timestamp(row.try_get(2)?),
                payload: row.try_get(3)?,
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
        table: &mut Table,
        refused: &BTreeMap<i64, Verdict>,
    ) -> Result<PreparedLot, Refusal> {
        let mut prepared = PreparedLot {
            busy: self.busy,
            ..PreparedLot::default()
        };
        let mut needs_schema = false;
        for letter in &self.letters {
            if let Some(verdict) = refused.get(&letter.id) {
                prepared.failed.push((letter.id, verdict.clone()));
                continue;
            }
            let message = Message {
                payload: &letter.payload,
                received_at: letter.received_at,
            };
            match table.encode(letter.offset, message, &mut prepared.rows) {
                Encoded::Rows(rows) => {
                    prepared
                        .of_row
                        .extend((0..rows).map(|record| (letter.id, record)));
                    prepared.delivered.push(letter.id);
                    let first = prepared.first.get_or_insert(letter.offset);
                    *first = letter.offset.min(*first);
                }
                Encoded::DeadLetter { reason, record_index } => {
                    let verdict = Verdict {
                        sqlstate: None,
                        reason,
                        record_index,
                    };
                    prepared.failed.push((letter.id, verdict));
                }
                // Nothing is delivered and nothing is lost: the letter stays until somebody drops it.
                Encoded::Ignored => {
                    let verdict = Verdict {
                        sqlstate: None,
                        reason: "the mapping leaves this message out (when, records); drop the letter if that is right"
                            .to_owned(),
                        record_index: None,
                    };
                    prepared.failed.push((letter.id, verdict));
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
    rows: CopyRows,
    of_row: Vec<(i64, u32)>,
    delivered: Vec<i64>,
    failed: Vec<(i64, Verdict)>,
    first: Option<Offset>,
    busy: u64,
}

impl PreparedLot {
    /// The lowest offset that becomes a row.
    pub(super) fn first_delivered(&self) -> Option<Offset> {
        self.first
    }

    /// Sends rows, removes their letters and writes down why the others stay; everything but the commit.
    pub(super) async fn send(
        self,
        session: &mut Session,
        tables: &OwnTables,
        table: &Table,
    ) -> Result<Outcome, Refusal> {
        match self.try_send(session, tables, table).await {
            Ok(()) => Ok(Outcome {
                rows: self.rows.len() as u64,
                failed: self.failed.len() as u64,
                busy: self.busy,
                delivered: self.delivered,
            }),
            Err(failure) => Err(Refusal::Failed(failure, self.of_row)),
        }
    }

    async fn try_send(
        &self,
        session: &mut Session,
        tables: &OwnTables,
        table: &Table,
    ) -> Result<(), Failure> {
        if !self.rows.is_empty() {
            session.client.batch_execute(&table.lock_sql()).await?;
            let row = session.client.query_one(&table.fingerprint_sql(), &[]).await?;
            if !table.fingerprint_matches(row.try_get(0)?) {
                return Err(Failure::TableChanged);
            }
            transaction::copy(session, &table.copy_sql(), &self.rows).await?;
        }
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
        Ok(())
    }
}
