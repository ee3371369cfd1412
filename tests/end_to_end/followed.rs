//! `tail -f` beside a running engine: what comes is shown, and the engine goes first.

use std::fs;

use crate::support::cluster::Database;
use crate::support::engine::{Workspace, config};
use crate::support::source::Source;

const MESSAGES: u64 = 1_000;

/// The niceness of a process, as Linux tells it.
fn niceness(pid: u32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The 19th field; the second, the name, ends at the last parenthesis.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(19 - 3).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_follows_a_running_engine_message_by_message_and_lets_it_go_first() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("feed", &source.url())], ""));
    let mut engine = workspace.run();
    source.release(MESSAGES);
    engine
        .until("the first are there", async || {
            database.count("feed").await >= Some(MESSAGES)
        })
        .await;
    let arguments = ["tail", "feed", "-n", "1", "-f", "--raw"];
    let mut tail = workspace.spawn(&workspace.tool(), &arguments, &[]);
    let lines = |text: String| text.lines().count() as u64;
    engine
        .until("it follows", async || lines(tail.stdout()) == 1)
        .await;
    source.release(MESSAGES);
    engine
        .until("all that came since are shown", async || {
            lines(tail.stdout()) == 1 + MESSAGES
        })
        .await;
    assert_eq!(niceness(tail.pid()), niceness(engine.pid()) + 10);
    tail.kill();
    engine.stops_cleanly().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_goes_on_when_the_engine_was_killed_and_is_started_again_and_shows_each_message_once() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("feed", &source.url())], ""));
    let mut engine = workspace.run();
    source.release(1);
    let is_there = async |rows| database.count("feed").await == Some(rows);
    engine
        .until("the first is there", async || is_there(1).await)
        .await;
    let arguments = ["tail", "feed", "-f", "--raw"];
    let mut tail = workspace.spawn(&workspace.tool(), &arguments, &[]);
    let mut sent = 1;
    let seqs = |text: String| -> Vec<u64> {
        let seq = |line: &str| {
            let message: serde_json::Value = serde_json::from_str(line).unwrap();
            message["seq"].as_u64().unwrap()
        };
        text.lines().map(seq).collect()
    };
    engine
        .until("it follows", async || seqs(tail.stdout()).len() == 1)
        .await;
    for is_killed in [true, false, true] {
        source.release(MESSAGES);
        sent += MESSAGES;
        engine
            .until("all that came are shown", async || {
                is_there(sent).await
                    && tail.stdout().ends_with('\n')
                    && seqs(tail.stdout()).len() as u64 == sent
            })
            .await;
        let connections = source.starts().await.len();
        if is_killed {
            engine.kill();
        } else {
            engine.stops_cleanly().await;
        }
        engine = workspace.run();
        // What is sent before that may go to the connection that has just died.
        engine
            .until("it is connected again", async || {
                source.starts().await.len() > connections
            })
            .await;
    }
    source.release(MESSAGES);
    sent += MESSAGES;
    engine
        .until("what comes later is shown", async || {
            is_there(sent).await && tail.stdout().ends_with('\n') && seqs(tail.stdout()).len() as u64 == sent
        })
        .await;
    assert_eq!(seqs(tail.stdout()), (0..sent).collect::<Vec<_>>());
    tail.interrupt();
    tail.ends_with(0).await;
    engine.stops_cleanly().await;
}
