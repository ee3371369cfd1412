//! The record of tables that we made: which table of a name it is, and from which offset on it holds the rows of each
//! stage that its producer delivers.
//!
//! Written in the transaction that makes the table. Every delivery into it comes later, and so begins no earlier than
//! where the cursor stands then. A table of another oid is another one, of which nothing is known. What a replay delivers,
//! or a retry of dead letters, lowers the offset: it may be too low, which costs a replay its way, and is never too high,
//! which would double rows.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use super::cursor::{CursorKey, OwnTables, from_sql, to_sql};
use crate::record::Offset;

/// The statement that records the making of a table, whose name is given as SQL, for all stages of the producer.
pub(super) fn record_sql(tables: &OwnTables, key: &CursorKey, table: &str) -> String {
    format!(
        "INSERT INTO {} (table_schema, table_name, table_oid, stage, producer, from_offset) \
         SELECT n.nspname, c.relname, c.oid, k.stage, k.producer, k.next_offset \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN {} k \
         WHERE c.oid = to_regclass({}) AND k.producer = {} \
         ON CONFLICT (table_schema, table_name, stage, producer) DO UPDATE \
         SET table_oid = EXCLUDED.table_oid, from_offset = EXCLUDED.from_offset, made_at = now()",
        tables.table(),
        tables.cursor(),
        escape_literal(table),
        escape_literal(key.owner())
    )
}

/// From which offset on the table holds rows of the stage, and when it was made; `None` when that is not known.
pub(super) async fn holds_from(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    table: &str,
) -> Result<Option<(Offset, String)>, Error> {
    let row = client
        .query_opt(
            &format!(
                "SELECT from_offset, to_char(made_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS\"Z\"') FROM {} \
                 WHERE table_oid = to_regclass($1)::oid AND stage = $2 AND producer = $3",
                tables.table()
            ),
            &[&table, &key.stage, &key.owner()],
        )
        .await?;
    row.map(|row| Ok((from_sql(row.try_get(0)?), row.try_get(1)?)))
        .transpose()
}

/// Notes, inside the open transaction of `client`, that the table holds rows from `offset` on.
pub(super) async fn lower(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    table: &str,
    offset: Offset,
) -> Result<(), Error> {
    client
        .execute(
            &format!(
                "UPDATE {} SET from_offset = $4 \
                 WHERE table_oid = to_regclass($1)::oid AND stage = $2 AND producer = $3 AND from_offset > $4",
                tables.table()
            ),
            &[&table, &key.stage, &key.owner(), &to_sql(offset)],
        )
        .await?;
    Ok(())
}
