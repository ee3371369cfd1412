//! The checker of the guarantee: what is in PostgreSQL is each message exactly once, in order.

use super::cluster::Database;

/// What a table holds of the numbers of its messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    /// Different `seq`.
    pub(crate) distinct: u64,
    /// Rows whose `seq` is not above the one before, in the order in which rows were inserted (or of `_offset`).
    pub(crate) out_of_order: u64,
}

impl Tally {
    /// Each of `messages` once, in order.
    pub(crate) fn each_once(messages: u64) -> Self {
        Self {
            rows: messages,
            distinct: messages,
            out_of_order: 0,
        }
    }
}

/// Counts the rows of a table without metadata. Order is that of insertion, which `ctid` shows in a table that
/// nobody has updated or deleted from.
pub(crate) async fn tally(database: &Database, table: &str) -> Tally {
    tally_by(database, table, "ctid").await
}

/// Counts the rows of a table with `metadata: true`, in order of offset, and demands that offsets are distinct and
/// that each has one row.
pub(crate) async fn tally_by_offset(database: &Database, table: &str) -> Tally {
    let doubled = database
        .number(&format!("SELECT count(*) - count(DISTINCT _offset) FROM {table}"))
        .await;
    assert_eq!(doubled, Some(0), "rows of {table} share an offset");
    tally_by(database, table, "_offset").await
}

async fn tally_by(database: &Database, table: &str, order: &str) -> Tally {
    let sql = format!(
        "SELECT count(*), count(DISTINCT seq), count(*) FILTER (WHERE seq <= before)
         FROM (SELECT seq, lag(seq) OVER (ORDER BY {order}) AS before FROM {table}) AS numbered"
    );
    let rows = database.rows(&sql).await;
    let number = |column: usize| rows[0][column].as_ref().unwrap().parse().unwrap();
    Tally {
        rows: number(0),
        distinct: number(1),
        out_of_order: number(2),
    }
}

/// Stretches of `seq` that the table does not hold between its first and its last, as `(first missing, how many)`.
pub(crate) async fn missing_stretches(database: &Database, table: &str) -> Vec<(u64, u64)> {
    let sql = format!(
        "SELECT before + 1, seq - before - 1
         FROM (SELECT seq, lag(seq) OVER (ORDER BY seq) AS before FROM {table}) AS numbered
         WHERE seq > before + 1 ORDER BY seq"
    );
    let number = |value: &Option<String>| value.as_ref().unwrap().parse().unwrap();
    database
        .rows(&sql)
        .await
        .iter()
        .map(|row| (number(&row[0]), number(&row[1])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_sees_doubled_missing_and_swapped_rows() {
    let database = Database::shared().await;
    database
        .rows(
            "CREATE TABLE good AS SELECT n AS seq, n + 5 AS _offset FROM generate_series(0, 9) AS n;
             CREATE TABLE doubled AS SELECT * FROM good; INSERT INTO doubled VALUES (9, 15);
             CREATE TABLE missing AS SELECT * FROM good WHERE seq NOT IN (3, 4, 7);
             CREATE TABLE swapped AS SELECT 9 - seq AS seq, _offset FROM good",
        )
        .await;
    assert_eq!(tally(&database, "good").await, Tally::each_once(10));
    assert_eq!(tally_by_offset(&database, "good").await, Tally::each_once(10));
    assert_eq!(missing_stretches(&database, "good").await, []);
    assert_eq!(
        tally_by_offset(&database, "doubled").await,
        Tally {
            rows: 11,
            distinct: 10,
            out_of_order: 1
        }
    );
    assert_eq!(missing_stretches(&database, "missing").await, [(3, 2), (7, 1)]);
    assert_eq!(tally_by_offset(&database, "swapped").await.out_of_order, 9);
}
