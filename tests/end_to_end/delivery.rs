//! The main job: messages become rows, once each, in order.

use crate::support::checker::{Tally, missing_stretches, tally, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Feed, Workspace, config};
use crate::support::source::Source;

const MESSAGES: u64 = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_configuration_makes_each_message_of_two_feeds_a_row_once_in_order() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let count = MESSAGES.to_string();
    let mut feed = Feed::start(&workspace, &["--count", &count]).await;
    let uris = ["binance", "huobi"].map(|exchange| format!("{}trades/{exchange}", feed.url));
    workspace.write_config(&config(
        &[("websocket_1", &uris[0]), ("websocket_2", &uris[1])],
        "",
    ));
    let mut engine = workspace.run();
    for table in ["websocket_1", "websocket_2"] {
        engine
            .until("all messages are rows", async || {
                database.count(table).await >= Some(MESSAGES)
            })
            .await;
    }
    engine.stops_cleanly().await;
    for table in ["websocket_1", "websocket_2"] {
        assert_eq!(tally(&database, table).await, Tally::each_once(MESSAGES));
        let columns = database
            .rows(&format!(
                "SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
            ))
            .await;
        for name in [
            "exchange",
            "base",
            "quote",
            "direction",
            "price",
            "volume",
            "timestamp",
            "priceUsd",
            "seq",
        ] {
            assert!(columns.contains(&vec![Some(name.to_owned())]), "column {name}");
        }
    }
    feed.process.stops_cleanly().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_stops_under_load_leave_no_gap_in_the_offsets() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("websocket_1", &source.url())], "metadata: true"));
    for _ in 0..3 {
        let before = database.count("websocket_1").await;
        source.release(MESSAGES);
        let mut engine = workspace.run();
        engine
            .until("rows of this run", async || {
                database.count("websocket_1").await > before
            })
            .await;
        engine.stops_cleanly().await;
    }
    workspace.drain().await;
    let seen = tally_by_offset(&database, "websocket_1").await;
    assert_eq!(seen, Tally::each_once(seen.rows));
    let offsets = database.number("SELECT max(_offset) + 1 FROM websocket_1").await;
    assert_eq!(
        offsets,
        Some(seen.rows),
        "offsets follow on each other over stops"
    );
    // What a feed sends while nobody listens, or into a closing connection, is gone: only there.
    assert!(missing_stretches(&database, "websocket_1").await.len() < 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_slow_feed_do_not_wait_for_a_full_batch() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("websocket_1", &source.url())], ""));
    let mut engine = workspace.run();
    for messages in 1..=3 {
        source.release(1);
        engine
            .until("the message is a row", async || {
                database.count("websocket_1").await == Some(messages)
            })
            .await;
    }
    engine.stops_cleanly().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_comes_twice_at_once_is_one_wish_to_stop() {
    let workspace = Workspace::direct(&Database::shared().await);
    let source = Source::start().await;
    workspace.write_config(&config(&[("websocket_1", &source.url())], ""));
    let mut engine = workspace.run();
    engine.until_logged("connected to the database").await;
    // Two of a kind might be one by the time they arrive.
    engine.interrupt();
    engine.stops_cleanly().await;
    assert!(
        !engine.stderr().contains("received again"),
        "{}",
        engine.last_words()
    );
}
