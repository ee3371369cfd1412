//! Several connections to one feed, cut again and again: every message is staged once as long as one of them lives, and with one
//! connection each stretch that is missing is recorded where it is missing.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use socket_el::stage::path::StagePath as _;
use socket_el::stage::remote::RemotePath;

use crate::support::checker::{Tally, missing_stretches, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Feed, Process, Workspace};
use crate::support::proxy::Proxy;

/// Names another number of messages for the connections that are cut.
const MESSAGES_VARIABLE: &str = "SOCKET_EL_CUT_MESSAGES";
/// Messages unless it is set.
const DEFAULT_MESSAGES: u64 = 25_000;
/// Messages a second.
const RATE: u64 = 2_500;
/// What decides which connection is cut when.
const SEED: u64 = 20_261_125;

fn messages() -> u64 {
    let given = std::env::var(MESSAGES_VARIABLE).ok();
    given.map_or(DEFAULT_MESSAGES, |given| given.parse().unwrap())
}

/// A configuration with one consumer, of which these are keys.
fn config(keys: &str) -> String {
    format!(
        "runners:
  - name: trades
    type: consumer
    variety: socket
    {keys}
    reconnect: {{ initial: 10ms, max: 50ms }}
    stage: {{ type: local, path: tmp }}
  - name: postgres
    type: producer
    variety: postgres
    depends_on: [trades]
    profile: postgres
    metadata: true
"
    )
}

/// What the engine says of the consumer; `None` while it can't be asked.
async fn status(workspace: &Workspace) -> Option<Value> {
    let path = RemotePath::connect(&workspace.path().join("tmp")).await.ok()?;
    let status = path.status().await.ok()?;
    path.close().await.ok()?;
    Some(status?["consumers"]["trades"].clone())
}

/// Whether a connection is live, and how many messages it has brought.
fn place(status: &Value, connection: usize) -> (bool, u64) {
    let connection = &status["connections"][connection];
    let brought = |key: &str| connection[key].as_u64().unwrap_or_default();
    (
        connection["activity"]["state"] == "live",
        brought("first") + brought("duplicates"),
    )
}

fn received(status: &Value) -> u64 {
    status["received"].as_u64().unwrap()
}

/// Waits until a connection is live and brings messages. `false` when all have been sent before.
async fn brings(engine: &mut Process, workspace: &Workspace, connection: usize, messages: u64) -> bool {
    let mut before = None;
    let mut is_over = false;
    engine
        .until("a connection brings messages", async || {
            let Some(status) = status(workspace).await else {
                return false;
            };
            is_over = received(&status) >= messages;
            let (is_live, brought) = place(&status, connection);
            let first = *before.get_or_insert(brought);
            is_over || (is_live && brought > first)
        })
        .await;
    !is_over
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_that_are_cut_at_random_bring_every_message_once_while_one_of_them_lives() {
    let messages = messages();
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let (rate, count) = (RATE.to_string(), messages.to_string());
    let feed = Feed::start(&workspace, &["--broadcast", "--rate", &rate, "--count", &count]).await;
    let (_, port) = feed.url.trim_end_matches('/').rsplit_once(':').unwrap();
    let port = port.parse().unwrap();
    let proxies = [Proxy::to_feed(port).await, Proxy::to_feed(port).await];
    let [a, b] = [&proxies[0], &proxies[1]].map(|proxy| format!("ws://127.0.0.1:{}/trades", proxy.port()));
    workspace.write_config(&config(&format!(
        "connections: [{{ uri: '{a}' }}, {{ uri: '{b}' }}]\n    sequence: {{ path: $.seq }}"
    )));
    let mut engine = workspace.run();

    let mut random = StdRng::seed_from_u64(SEED);
    let mut cuts = 0;
    let mut cut = 1;
    // The one that stays has brought something since the other one came back, so it lives; and the one that is cut lived too.
    while brings(&mut engine, &workspace, cut, messages).await
        && brings(&mut engine, &workspace, 1 - cut, messages).await
    {
        proxies[cut].cut();
        cuts += 1;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        cut = random.random_range(0..2);
    }
    engine
        .until("all messages are rows", async || {
            database.count("trades").await >= Some(messages)
        })
        .await;
    let told = status(&workspace).await.unwrap();
    engine.stops_cleanly().await;

    let seen = tally_by_offset(&database, "trades").await;
    assert_eq!(
        (seen.rows, seen.distinct),
        (messages, messages),
        "{}",
        engine.last_words()
    );
    let ends = database.rows("SELECT min(seq), max(seq) FROM trades").await;
    let ends = [0, 1].map(|column: usize| ends[0][column].as_ref().unwrap().parse::<u64>().unwrap());
    assert_eq!(ends, [0, messages - 1]);
    assert_eq!(told["gaps"], 0, "one of them always lived");
    assert_eq!(seen.out_of_order, 0);
    let sequence = &told["sequence"];
    for what in ["holes", "duplicates", "reordered", "restarts", "unnumbered"] {
        assert_eq!(sequence[what], 0, "{sequence}");
    }
    assert!(cuts >= 5, "only {cuts} cuts");
    let log = engine.stderr();
    assert_eq!(log.matches("connection lost").count(), cuts, "{log}");
    // Nearly everything came twice.
    let duplicates = told["duplicates"].as_u64().unwrap();
    println!("{messages} messages, {cuts} cuts, {duplicates} duplicates");
    assert!(duplicates > 0 && duplicates <= messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_connection_every_message_that_is_missing_is_missing_at_a_recorded_outage() {
    const CUTS: usize = 12;
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let feed = Feed::start(&workspace, &["--broadcast", "--rate", &RATE.to_string()]).await;
    let (_, port) = feed.url.trim_end_matches('/').rsplit_once(':').unwrap();
    let proxy = Proxy::to_feed(port.parse().unwrap()).await;
    workspace.write_config(&config(&format!("uri: ws://127.0.0.1:{}/trades", proxy.port())));
    let mut engine = workspace.run();
    let mut random = StdRng::seed_from_u64(SEED);
    for _ in 0..CUTS {
        assert!(brings(&mut engine, &workspace, 0, u64::MAX).await);
        tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
        proxy.cut();
    }
    assert!(brings(&mut engine, &workspace, 0, u64::MAX).await);
    engine.stops_cleanly().await;
    workspace.drain().await;

    let seen = tally_by_offset(&database, "trades").await;
    assert_eq!(seen, Tally::each_once(seen.rows));
    let missing = missing_stretches(&database, "trades").await;
    assert!(!missing.is_empty());
    // Where numbers are missing, by the offset of the message behind.
    let mut behind = BTreeSet::new();
    for (first, count) in missing {
        let offset = database
            .number(&format!(
                "SELECT _offset FROM trades WHERE seq = {}",
                first + count
            ))
            .await;
        behind.insert(offset.unwrap());
    }
    let listed = workspace.inspect(&["gaps", "trades", "--json"]).await.stdout();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let outages = listed["gaps"].as_array().unwrap().iter();
    let outages: BTreeSet<u64> = outages
        .filter(|gap| gap["cause"] == "outage")
        .map(|gap| gap["from"].as_u64().unwrap())
        .collect();
    assert_eq!(outages.len(), CUTS, "{listed}");
    assert!(behind.is_subset(&outages), "{behind:?} in {outages:?}");
}
