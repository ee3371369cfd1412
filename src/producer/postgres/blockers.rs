//! Who keeps a data transaction from locking its tables.

use tokio_postgres::{Client, Error};

/// The sessions that hold locks on these tables, given quoted, which rows can't be added beside.
pub(super) async fn of_tables(client: &Client, tables: &[&str]) -> Result<Vec<i32>, Error> {
    let rows = client
        .query(
            "SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l \
             JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database() \
             JOIN unnest($1::text[]) t ON l.relation = pg_catalog.to_regclass(t) \
             WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid() \
             AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') ORDER BY l.pid",
            &[&tables],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
