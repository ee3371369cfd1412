//! The cursor table: how far each producer has delivered each stage, and whose turn it is to deliver.
//!
//! An engine delivers a stage only while the row's epoch is the one that it took. The start of a process takes the
//! epoch unconditionally; a reconnection only if nobody else has taken it meanwhile. The answer to a reconnection's
//! taking can be lost like any other: so the epoch that it is going to set is drawn once, at random, and tried until an
//! answer comes. Finding it in the row is finding our own.

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::Client;
use uuid::Uuid;

use super::outcomes;
use crate::record::Offset;
use crate::stage::path::replay_of;
use crate::stage::report::Outcomes;

/// Key of the advisory lock under which our own tables are made: the bytes of `socketel`.
const TABLES_LOCK: i64 = i64::from_be_bytes(*b"socketel");
/// How far a reconnection moves the epoch, at least and at most. A start moves it by one.
const LEAST_STEP: i64 = 2;
const MOST_STEP: i64 = 1 << 20;

/// Our own tables in a schema, quoted for SQL.
#[derive(Clone, Debug)]
pub(super) struct OwnTables {
    schema: String,
    cursor: String,
    dead_letter: String,
    table: String,
    gap: String,
}

impl OwnTables {
    pub(super) fn new(schema: &str) -> Self {
        let schema = escape_identifier(schema);
        Self {
            cursor: format!("{schema}.\"_socket_el_cursor\""),
            dead_letter: format!("{schema}.\"_socket_el_dead_letter\""),
            table: format!("{schema}.\"_socket_el_table\""),
            gap: format!("{schema}.\"_socket_el_gap\""),
            schema,
        }
    }

    /// The cursor table.
    pub(super) fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The dead-letter table.
    pub(super) fn dead_letter(&self) -> &str {
        &self.dead_letter
    }

    /// The table that records from which offset on a table holds rows.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// The ledger of gaps.
    pub(super) fn gap(&self) -> &str {
        &self.gap
    }

    /// The statements that make what is missing of schema and tables, a statement each.
    pub(super) async fn missing(
        &self,
        client: &Client,
        schema: &str,
    ) -> Result<Vec<String>, tokio_postgres::Error> {
        let row = client
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1), \
                 to_regclass($2) IS NOT NULL, to_regclass($3) IS NOT NULL, to_regclass($4) IS NOT NULL, \
                 EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($2) AND attname = 'replay'), \
                 EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($3) AND attname = 'into_table'), \
                 EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($2) AND attname = $5), \
                 EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($3) AND attname = 'replayed'), \
                 to_regclass($6) IS NOT NULL",
                &[
                    &schema,
                    &self.cursor,
                    &self.dead_letter,
                    &self.table,
                    &outcomes::FIRST_COLUMN,
                    &self.gap,
                ],
            )
            .await?;
        let (is_schema, is_cursor, is_dead_letter, is_table): (bool, bool, bool, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (has_replay, has_into): (bool, bool) = (row.try_get(4)?, row.try_get(5)?);
        let (has_outcomes, has_replayed): (bool, bool) = (row.try_get(6)?, row.try_get(7)?);
        let is_gap: bool = row.try_get(8)?;
        let mut statements = Vec::new();
        if !is_schema {
            statements.push(format!("CREATE SCHEMA IF NOT EXISTS {}", self.schema));
        }
        if !is_cursor {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {} (stage_path_id uuid NOT NULL, stage text NOT NULL, producer text NOT NULL, \
                 epoch bigint NOT NULL, next_offset bigint NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(), \
                 end_offset bigint, replay jsonb, {}, PRIMARY KEY (stage, producer))",
                self.cursor,
                outcomes::definition("")
            ));
        } else if !has_replay || !has_outcomes {
            // Of a version without replays, or one that did not count.
            statements.push(format!(
                "ALTER TABLE {} ADD COLUMN IF NOT EXISTS end_offset bigint, ADD COLUMN IF NOT EXISTS replay jsonb, {}",
                self.cursor,
                outcomes::definition("ADD COLUMN IF NOT EXISTS ")
            ));
        }
        if !is_dead_letter {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stage_path_id uuid NOT NULL, \
                 stage text NOT NULL, producer text NOT NULL, message_offset bigint NOT NULL, record_index integer, \
                 received_at timestamptz NOT NULL, sqlstate text, reason text NOT NULL, payload bytea NOT NULL, \
                 created_at timestamptz NOT NULL DEFAULT now(), into_table text, replayed boolean NOT NULL DEFAULT false)",
                self.dead_letter
            ));
        } else if !has_into || !has_replayed {
            statements.push(format!(
                "ALTER TABLE {} ADD COLUMN IF NOT EXISTS into_table text, \
                 ADD COLUMN IF NOT EXISTS replayed boolean NOT NULL DEFAULT false",
                self.dead_letter
            ));
        }
        if !is_table {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {} (table_schema text NOT NULL, table_name text NOT NULL, table_oid oid NOT NULL, \
                 stage text NOT NULL, producer text NOT NULL, from_offset bigint NOT NULL, \
                 made_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (table_schema, table_name, stage, producer))",
                self.table
            ));
        }
        if !is_gap {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {} (stage_path_id uuid NOT NULL, stage text NOT NULL, producer text NOT NULL, \
                 from_offset bigint NOT NULL, to_offset bigint NOT NULL, number bigint NOT NULL, cause text NOT NULL, \
                 messages bigint, began_at timestamptz, ended_at timestamptz, noticed_at timestamptz NOT NULL, \
                 detail text NOT NULL, sequence_key text, missing_first numeric, missing_last numeric, \
                 recorded_at timestamptz NOT NULL DEFAULT now(), \
                 PRIMARY KEY (stage, producer, stage_path_id, to_offset, number, cause, from_offset))",
                self.gap
            ));
        }
        Ok(statements)
    }

    /// Makes what is missing, one session at a time.
    pub(super) async fn make(&self, client: &Client, schema: &str) -> Result<(), tokio_postgres::Error> {
        let statements = self.missing(client, schema).await?;
        if statements.is_empty() {
            return Ok(());
        }
        let script = format!(
            "BEGIN; SELECT pg_advisory_xact_lock({TABLES_LOCK}); {}; COMMIT",
            statements.join("; ")
        );
        client.batch_execute(&script).await
    }
}

/// Which row of the cursor table.
#[derive(Clone, Debug)]
pub(super) struct CursorKey {
    /// The stage's path.
    pub(super) path_id: Uuid,
    /// The stage.
    pub(super) stage: String,
    /// The producer.
    pub(super) producer: String,
    /// The table that a replay delivers into, if that is not the producer's own.
    pub(super) into_table: Option<String>,
}

impl CursorKey {
    /// The producer whose messages these are: a replay delivers another's.
    pub(super) fn owner(&self) -> &str {
        replay_of(&self.producer).unwrap_or(&self.producer)
    }

    /// Whether it is the row of a replay.
    pub(super) fn is_replay(&self) -> bool {
        replay_of(&self.producer).is_some()
    }

    /// The condition that picks the row.
    fn condition(&self) -> String {
        format!(
            "stage = {} AND producer = {}",
            escape_literal(&self.stage),
            escape_literal(&self.producer)
        )
    }

    /// The query that locks the row: path id, epoch, next offset and outcomes.
    pub(super) fn lock_sql(&self, tables: &OwnTables) -> String {
        format!(
            "SELECT stage_path_id::text, epoch, next_offset, {} FROM {} WHERE {} FOR UPDATE",
            outcomes::select_sql(),
            tables.cursor,
            self.condition()
        )
    }
}

/// The epoch that an engine holds on a row, and the one that its next reconnection will set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    held: i64,
    next: i64,
}

impl Claim {
    fn of(epoch: i64) -> Self {
        Self {
            held: epoch,
            next: epoch.saturating_add(rand::random_range(LEAST_STEP..=MOST_STEP)),
        }
    }

    /// The epoch that must be in the row.
    pub(super) fn epoch(self) -> i64 {
        self.held
    }
}

/// What taking the epoch at the start of a process found.
#[derive(Debug)]
pub(super) enum Taken {
    /// The row is ours. It has to be committed, or rolled back.
    Ours {
        /// What we hold from the commit on.
        claim: Claim,
        /// The cursor; `None` when the row was made just now.
        next: Option<Offset>,
        /// What became of the messages before it; `None` when the row does not say.
        outcomes: Option<Outcomes>,
    },
    /// The row belongs to another stage path, and is as it was.
    OtherPath(Uuid),
}

/// Takes the epoch unconditionally, inside the open transaction of `client`; makes the row at `first` if there is none.
pub(super) async fn take(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    first: Offset,
) -> Result<Taken, tokio_postgres::Error> {
    let cursor = &tables.cursor;
    let path_id = key.path_id.to_string();
    let taken = client
        .query_opt(
            &format!(
                "INSERT INTO {cursor} AS c (stage_path_id, stage, producer, epoch, next_offset) \
                 VALUES ($1::text::uuid, $2, $3, 1, $4) \
                 ON CONFLICT (stage, producer) DO UPDATE SET epoch = c.epoch + 1, updated_at = now() \
                 WHERE c.stage_path_id = EXCLUDED.stage_path_id \
                 RETURNING epoch, next_offset, xmax = 0, {}",
                outcomes::select_sql()
            ),
            &[&path_id, &key.stage, &key.producer, &to_sql(first)],
        )
        .await?;
    if let Some(row) = taken {
        let made: bool = row.try_get(2)?;
        return Ok(Taken::Ours {
            claim: Claim::of(row.try_get(0)?),
            next: if made {
                None
            } else {
                Some(from_sql(row.try_get(1)?))
            },
            outcomes: outcomes::parse(row.try_get(3)?),
        });
    }
    let other: String = client
        .query_one(
            &format!("SELECT stage_path_id::text FROM {cursor} WHERE stage = $1 AND producer = $2"),
            &[&key.stage, &key.producer],
        )
        .await?
        .try_get(0)?;
    Ok(Taken::OtherPath(Uuid::parse_str(&other).unwrap_or_default()))
}

/// Takes the epoch of a row that is there already, whoever has it: how a replay is taken up. `None` when there is no such
/// row of this stage path.
pub(super) async fn take_up(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
) -> Result<Option<(Claim, Offset)>, tokio_postgres::Error> {
    let row = client
        .query_opt(
            &format!(
                "UPDATE {} SET epoch = epoch + 1, updated_at = now() \
                 WHERE stage = $1 AND producer = $2 AND stage_path_id = $3::text::uuid RETURNING epoch, next_offset",
                tables.cursor
            ),
            &[&key.stage, &key.producer, &key.path_id.to_string()],
        )
        .await?;
    row.map(|row| Ok((Claim::of(row.try_get(0)?), from_sql(row.try_get(1)?))))
        .transpose()
}

/// What a reconnection found.
#[derive(Debug)]
pub(super) enum Retaken {
    /// Still ours.
    Ours {
        /// The new claim.
        claim: Claim,
        /// The cursor.
        next: Offset,
        /// What became of the messages before it; `None` when the row does not say.
        outcomes: Option<Outcomes>,
    },
    /// Somebody else took it.
    Fenced,
    /// It is from before we took it: the database is in an earlier state than it was.
    Earlier,
    /// There is no such row any more.
    Gone,
}

/// Takes the epoch if it is still ours. Waits for whoever holds the row, which may be our own lost transaction.
pub(super) async fn retake(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    claim: Claim,
) -> Result<Retaken, tokio_postgres::Error> {
    let cursor = &tables.cursor;
    let path_id = key.path_id.to_string();
    let row = client
        .query_opt(
            &format!(
                "UPDATE {cursor} SET epoch = $1, updated_at = now() \
                 WHERE stage = $2 AND producer = $3 AND stage_path_id = $4::text::uuid AND epoch IN ($1, $5) \
                 RETURNING next_offset, {}",
                outcomes::select_sql()
            ),
            &[&claim.next, &key.stage, &key.producer, &path_id, &claim.held],
        )
        .await?;
    if let Some(row) = row {
        return Ok(Retaken::Ours {
            claim: Claim::of(claim.next),
            next: from_sql(row.try_get(0)?),
            outcomes: outcomes::parse(row.try_get(1)?),
        });
    }
    let row = client
        .query_opt(
            &format!("SELECT epoch FROM {cursor} WHERE stage = $1 AND producer = $2"),
            &[&key.stage, &key.producer],
        )
        .await?;
    Ok(match row {
        None => Retaken::Gone,
        Some(row) if row.try_get::<_, i64>(0)? < claim.held => Retaken::Earlier,
        Some(_) => Retaken::Fenced,
    })
}

/// An offset as the tables hold it. Saturates where no stage comes.
pub(super) fn to_sql(offset: Offset) -> i64 {
    i64::try_from(offset.get()).unwrap_or(i64::MAX)
}

/// An offset from the tables. Somebody who writes a negative number there gets everything again.
pub(super) fn from_sql(number: i64) -> Offset {
    Offset::new(u64::try_from(number).unwrap_or(0))
}
