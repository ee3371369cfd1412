//! Recorded traffic of real feeds, where it is at hand: every message becomes a row, or several, or a dead letter.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use crate::exports::differences;
use crate::support::cluster::Database;
use crate::support::engine::{Feed, Workspace, config};
use crate::support::source::Source;

/// Names the folder of recordings.
const FEEDS_VARIABLE: &str = "SOCKET_EL_FEEDS";

/// The folder of recordings: files of JSON lines. `None`, with a note, when none is named.
fn recordings() -> Option<PathBuf> {
    let folder = std::env::var_os(FEEDS_VARIABLE).map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: {FEEDS_VARIABLE} names no folder of recorded feeds");
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_every_recorded_feed_is_a_row_or_a_dead_letter() {
    let Some(folder) = recordings() else { return };
    let mut played = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            each_message_arrives(&file).await;
            played += 1;
        }
    }
    assert!(played > 0);
}

async fn each_message_arrives(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let messages = text.lines().count() as u64;
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let feed = Feed::start(&workspace, &["--file", file.to_str().unwrap()]).await;
    workspace.write_config(&config(&[("feed", &feed.url)], "metadata: true"));
    let mut engine = workspace.run();
    // One life of the engine: `until` panics when it ends.
    engine
        .until(&format!("all of {} is delivered", file.display()), async || {
            delivered(&database).await >= Some(messages)
        })
        .await;
    engine.stops_cleanly().await;
    assert_eq!(delivered(&database).await, Some(messages), "{}", file.display());
    let dead = database.count("_socket_el_dead_letter").await.unwrap();
    let rows = database.count("feed").await.unwrap();
    println!(
        "{}: {messages} messages, {rows} rows, {dead} dead letters",
        file.display()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_feed_is_exported_as_the_rows_that_are_delivered_of_it() {
    let Some(folder) = recordings() else { return };
    let mut exported = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            the_export_is_the_table(&file).await;
            exported += 1;
        }
    }
    assert!(exported > 0);
}

/// Stages a file, exports it, and delivers it only then: so both see the same first messages.
async fn the_export_is_the_table(file: &Path) {
    let messages = fs::read_to_string(file).unwrap().lines().count() as u64;
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let feed = Feed::start(&workspace, &["--file", file.to_str().unwrap()]).await;
    workspace.write_config(&config(&[("feed", &feed.url)], "metadata: true"));
    let profiles = ["-c", "config.yml", "--profiles", "profile.yml"];
    let mut engine = workspace.start(&[&["run", "--only", "feed"], &profiles[..]].concat());
    engine
        .until(&format!("all of {} is staged", file.display()), async || {
            staged(&workspace).await == Some(messages)
        })
        .await;
    engine.stops_cleanly().await;
    let arguments = ["export", "feed", "--format", "csv", "-o", "feed.csv"];
    let mut export = workspace.inspect(&[&arguments[..], &profiles].concat()).await;
    export.ends_with(0).await;
    workspace.drain().await;
    let csv = fs::read_to_string(workspace.path().join("feed.csv")).unwrap();
    let differences = differences(&database, &csv, "feed").await;
    let rows = database.count("feed").await.unwrap();
    assert_eq!(
        differences,
        (0, 0),
        "{}: {rows} rows\n{}",
        file.display(),
        export.stderr()
    );
}

/// The messages of the stage `feed`; `None` before there is one.
async fn staged(workspace: &Workspace) -> Option<u64> {
    let listed = workspace
        .inspect(&["--path", "tmp", "--json", "list", "feed"])
        .await;
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout()).ok()?;
    listed["messages"].as_u64()
}

/// Messages that are in one row or several, and dead letters.
async fn delivered(database: &Database) -> Option<u64> {
    database
        .number(
            "SELECT (SELECT count(DISTINCT _offset) FROM feed)
                  + (SELECT count(DISTINCT message_offset) FROM _socket_el_dead_letter)",
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_binance_that_differ_only_in_case_are_different_columns() {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }

    let Some(folder) = recordings() else { return };
    let text = fs::read_to_string(folder.join("binance_futures.jsonl")).unwrap();
    let events: Vec<_> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Envelope<'_>>(line).ok())
        .map(|envelope| envelope.data.get())
        .filter(|data| data.starts_with('{'))
        .collect();
    let expected: BTreeSet<_> = events
        .iter()
        .flat_map(|event| {
            let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(event).unwrap();
            keys.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, _)| key)
        })
        .collect();
    assert!(expected.contains("e") && expected.contains("E"));

    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("binance", &source.url())], ""));
    let mut engine = workspace.run();
    engine
        .until("it is connected", async || !source.starts().await.is_empty())
        .await;
    source.send(events.iter().map(|event| (*event).into())).await;
    engine
        .until("all events are rows", async || {
            database.count("binance").await >= Some(events.len() as u64)
        })
        .await;
    engine.stops_cleanly().await;
    let columns = database
        .rows("SELECT column_name FROM information_schema.columns WHERE table_name = 'binance'")
        .await;
    let columns: BTreeSet<_> = columns
        .into_iter()
        .filter_map(|mut row| row.remove(0))
        .filter(|name| !name.starts_with('_'))
        .collect();
    assert_eq!(columns, expected);
    let mixed = database
        .number("SELECT count(*) FROM binance WHERE \"e\" IS NULL OR \"e\" = \"E\"::text")
        .await;
    assert_eq!(mixed, Some(0));
}
