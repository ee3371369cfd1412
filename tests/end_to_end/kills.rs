//! The engine is killed at random instants, again and again, and what it had staged is a row exactly once.

use std::time::Duration;

use rand::RngExt as _;

use crate::support::checker::{Tally, missing_stretches, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Workspace, config};
use crate::support::inspect;
use crate::support::source::Source;

/// How many kills, unless the environment variable says otherwise.
const KILLS: u64 = 30;
const KILLS_VARIABLE: &str = "SOCKET_EL_KILLS";

/// The longest life before a kill, counted from its start or from its connection to the feed.
const LONGEST_LIFE: Duration = Duration::from_millis(600);

/// Messages released to each life.
const STEP: u64 = 2_000;

pub(crate) fn kills() -> u64 {
    match std::env::var(KILLS_VARIABLE) {
        Ok(number) => number.parse().unwrap(),
        Err(_) => KILLS,
    }
}

pub(crate) fn random_life() -> Duration {
    rand::rng().random_range(Duration::ZERO..LONGEST_LIFE)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_staged_before_a_kill_is_a_row_exactly_once() {
    killed_again_and_again("metadata: true", "websocket_1", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_staged_before_a_kill_is_a_row_of_one_of_several_tables_exactly_once() {
    killed_again_and_again(
        "metadata: true\nroutes:\n  - { when: { $.direction: sell }, table: sales }\n  - { when: { $.direction: buy }, table: purchases }",
        "trades",
        // What stands in the wrong table stands nowhere.
        "CREATE TABLE sales (seq bigint, direction text, _stage text, _offset bigint, _received_at timestamptz); \
         CREATE TABLE purchases (LIKE sales); \
         CREATE VIEW trades AS SELECT seq, _offset FROM sales WHERE direction = 'sell' AND seq % 2 = 1 \
         UNION ALL SELECT seq, _offset FROM purchases WHERE direction = 'buy' AND seq % 2 = 0",
    )
    .await;
}

/// Kills the engine at random instants, and compares what the stage holds with what is a row in `rows`, a table or a view that
/// `setup` makes.
async fn killed_again_and_again(producer_keys: &str, rows: &str, setup: &str) {
    let kills = kills();
    let database = Database::shared().await;
    if !setup.is_empty() {
        database.rows(setup).await;
    }
    let last_seq = format!("SELECT max(seq) FROM {rows}");
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("websocket_1", &source.url())], producer_keys));

    for kill in 0..kills {
        source.release(STEP);
        let connections = source.starts().await.len();
        let mut engine = workspace.run();
        // Every third life may end while it still opens its stage or recovers.
        if kill % 3 != 0 {
            engine
                .until("it is connected", async || {
                    source.starts().await.len() > connections
                })
                .await;
        }
        tokio::time::sleep(random_life()).await;
        engine.kill();
    }

    source.release(STEP);
    let last = source.released() - 1;
    let mut engine = workspace.run();
    engine
        .until("the last message is a row", async || {
            database.number(&last_seq).await == Some(last)
        })
        .await;
    engine.stops_cleanly().await;
    workspace.drain().await;

    let seen = tally_by_offset(&database, rows).await;
    assert_eq!(seen, Tally::each_once(seen.rows));
    // A killed connection loses the end of what was sent to it. Nothing is missing anywhere else.
    let starts = source.starts().await;
    let missing = missing_stretches(&database, rows).await;
    for (first, count) in &missing {
        assert!(
            starts.contains(&(first + count)),
            "{count} messages from {first} on are missing, in the midst of a connection; connections began at {starts:?}"
        );
    }
    // The stage still has what was delivered, for it retains a day: each of its messages is a row, and no row is another's.
    let staged = inspect::offsets(&workspace, "websocket_1").await;
    let delivered = inspect::runs(
        database
            .rows(&format!("SELECT _offset FROM {rows} ORDER BY _offset"))
            .await
            .iter()
            .map(|row| row[0].as_ref().unwrap().parse().unwrap()),
    );
    assert_eq!(staged, delivered);
    println!(
        "{kills} kills: {} messages released, {} rows, {} stretches lost at the source",
        source.released(),
        seen.rows,
        missing.len()
    );
}
