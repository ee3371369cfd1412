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
