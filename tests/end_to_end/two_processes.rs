//! Receiving and delivering in two processes: the one that delivers reads the stages through the socket of the other.

use std::os::unix::fs::PermissionsExt as _;

use socket_el::stage::local::{LocalOptions, LocalPath};

use crate::kills::{kills, random_life};
use crate::support::checker::{Tally, missing_stretches, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::inspect;
use crate::support::source::Source;

const MESSAGES: u64 = 1_000;

/// Messages released to each round of kills.
const STEP: u64 = 2_000;

/// A workspace for the database with a feed of its own.
async fn workspace(database: &Database) -> (Workspace, Source) {
    let workspace = Workspace::direct(database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("websocket_1", &source.url())], "metadata: true"));
    (workspace, source)
}

fn only(workspace: &Workspace, name: &str) -> Process {
    workspace.start(&[
        "run",
        "-c",
        "config.yml",
        "--profiles",
        "profile.yml",
        "--only",
        name,
    ])
}

fn receiver(workspace: &Workspace) -> Process {
    only(workspace, "websocket_1")
}

fn deliverer(workspace: &Workspace) -> Process {
    only(workspace, "postgres")
}

async fn delivers(process: &mut Process, database: &Database, messages: u64) {
    process
        .until("all messages are rows", async || {
            database.count("websocket_1").await >= Some(messages)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_process_may_be_started_first_and_again_while_the_other_goes_on() {
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    let mut deliverer_one = deliverer(&workspace);
    deliverer_one.until_logged("waiting for the engine").await;
    let mut receiver_one = receiver(&workspace);
    source.release(MESSAGES);
    delivers(&mut deliverer_one, &database, MESSAGES).await;

    // The one that delivers is started again, with a cursor beyond all that was there when the other one began.
    deliverer_one.stops_cleanly().await;
    source.release(MESSAGES);
    let mut deliverer_two = deliverer(&workspace);
    delivers(&mut deliverer_two, &database, 2 * MESSAGES).await;

    // The one that receives is started again; the other waits for it.
    receiver_one.stops_cleanly().await;
    deliverer_two.until_logged("waiting for it").await;
    source.release(MESSAGES);
    let mut receiver_two = receiver(&workspace);
    delivers(&mut deliverer_two, &database, 3 * MESSAGES).await;
    // The one that receives tells how the delivery of the other stands, since it was started too.
    receiver_two
        .until("the delivery has told that all is delivered", async || {
            let listed = workspace.inspect(&["--json", "list"]).await.stdout();
            let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
            let delivery = &listed[0]["stages"][0]["deliveries"][0];
            delivery["state"] == "idle" && delivery["counts"]["delivered"] == 3 * MESSAGES
        })
        .await;
    receiver_two.stops_cleanly().await;
    // Without the other it stops cleanly as well.
    deliverer_two.stops_cleanly().await;
    assert_eq!(
        tally_by_offset(&database, "websocket_1").await,
        Tally::each_once(3 * MESSAGES)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drains_beside_a_process_that_only_receives_is_told_that_nobody_delivers() {
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    let mut receiver = receiver(&workspace);
    source.release(MESSAGES);
    receiver
        .until("all is staged", async || {
            let listed = workspace.inspect(&["--json", "list"]).await.stdout();
            listed.contains(&format!("\"pending\": {MESSAGES}"))
        })
        .await;
    let mut drain = workspace.start(&["drain", "-c", "config.yml", "--profiles", "profile.yml"]);
    drain
        .until_logged("no process has begun to deliver stage websocket_1 by postgres")
        .await;
    let mut deliverer = deliverer(&workspace);
    drain.ends_with(0).await;
    deliverer.stops_cleanly().await;
    receiver.stops_cleanly().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_still_waits_for_its_engine_stops_cleanly() {
    let database = Database::shared().await;
    let (workspace, _source) = workspace(&database).await;
    let mut waiting = deliverer(&workspace);
    waiting.until_logged("waiting for the engine").await;
    assert!(
        !workspace.path().join("tmp/lock").exists(),
        "it never locks the path"
    );
    waiting.stops_cleanly().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_process_is_killed_each_message_stays_a_row_exactly_once() {
    let kills = kills();
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    let mut receiving = receiver(&workspace);
    let mut delivering = deliverer(&workspace);
    for kill in 0..kills {
        source.release(STEP);
        tokio::time::sleep(random_life()).await;
        match kill % 3 {
            0 => {
                receiving.kill();
                receiving = receiver(&workspace);
            }
            1 => {
                delivering.kill();
                delivering = deliverer(&workspace);
            }
            _ => {
                receiving.kill();
                delivering.kill();
                delivering = deliverer(&workspace);
                receiving = receiver(&workspace);
            }
        }
    }
    receiving
        .until("all is sent", async || {
            source.release(1);
            source.sent() > kills * STEP
        })
        .await;
    // Connected now: what is released from here on arrives.
    source.release(STEP);
    let last = source.released() - 1;
    delivering
        .until("the last message is a row", async || {
            database.number("SELECT max(seq) FROM websocket_1").await == Some(last)
        })
        .await;
    delivering.stops_cleanly().await;
    receiving.stops_cleanly().await;
    workspace.drain().await;

    let seen = tally_by_offset(&database, "websocket_1").await;
    assert_eq!(seen, Tally::each_once(seen.rows));
    let starts = source.starts().await;
    for (first, count) in &missing_stretches(&database, "websocket_1").await {
        assert!(
            starts.contains(&(first + count)),
            "{count} messages from {first} on are missing, in the midst of a connection; connections began at {starts:?}"
        );
    }
    let staged = inspect::offsets(&workspace, "websocket_1").await;
    let delivered = inspect::runs(
        database
            .rows("SELECT _offset FROM websocket_1 ORDER BY _offset")
            .await
            .iter()
            .map(|row| row[0].as_ref().unwrap().parse().unwrap()),
    );
    assert_eq!(staged, delivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_and_check_beside_a_running_engine_only_look() {
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    let mut engine = workspace.run();
    engine.until_logged("connected runner").await;
    source.release(10 * MESSAGES);
    let arguments = ["-c", "config.yml", "--profiles", "profile.yml"];
    let mut drain = workspace.start(&[&["drain"], &arguments[..]].concat());
    drain.ends_with(0).await;
    let told = drain.stdout();
    assert!(
        told.contains(&engine.pid().to_string()) && told.contains("0 pending"),
        "{told}"
    );
    delivers(&mut engine, &database, 10 * MESSAGES).await;
    // It connects to the feed as well, which has nothing left to be taken by it.
    let mut check = workspace.start(&[&["check", "--connect"], &arguments[..]].concat());
    check.ends_with(0).await;
    let told = check.stdout();
    assert!(
        told.contains(&format!("in use by the running engine (process {}", engine.pid())),
        "{told}"
    );
    engine.stops_cleanly().await;
    assert_eq!(
        tally_by_offset(&database, "websocket_1").await,
        Tally::each_once(10 * MESSAGES)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_waits_for_a_tool_that_has_the_files_open() {
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    source.release(MESSAGES);
    let mut engine = workspace.run();
    delivers(&mut engine, &database, MESSAGES).await;
    engine.stops_cleanly().await;

    let tool = LocalPath::inspect(&workspace.path().join("tmp"), &[]).unwrap();
    let mut engine = workspace.run();
    engine.until_logged("in use by a tool").await;
    tool.close().unwrap();
    source.release(MESSAGES);
    delivers(&mut engine, &database, 2 * MESSAGES).await;
    engine.stops_cleanly().await;
}

/// A directory stands where the socket is made first, as sockets can't be made on some file systems.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_its_socket_runs_alone_but_not_where_another_process_needs_it() {
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    std::fs::create_dir_all(workspace.path().join("tmp")).unwrap();
    std::fs::set_permissions(
        workspace.path().join("tmp"),
        std::fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    drop(LocalPath::open(LocalOptions::new(&workspace.path().join("tmp")), &[]).unwrap());
    std::fs::create_dir(workspace.path().join("tmp/control.sock")).unwrap();

    let mut alone = receiver(&workspace);
    alone.ends_with(1).await;
    let told = alone.stderr();
    assert!(told.contains("control.sock") && told.contains("--only"), "{told}");
    source.release(MESSAGES);
    let mut engine = workspace.run();
    delivers(&mut engine, &database, MESSAGES).await;
    engine.until_logged("can't ask this engine").await;
    engine.stops_cleanly().await;
}

/// The tool keeps the files for as long as the test likes: what ends the engine is the signal.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_still_waits_for_a_tool_stops_at_the_first_signal() {
    let database = Database::shared().await;
    let (workspace, _source) = workspace(&database).await;
    drop(LocalPath::open(LocalOptions::new(&workspace.path().join("tmp")), &[]).unwrap());
    let tool = LocalPath::inspect(&workspace.path().join("tmp"), &[]).unwrap();
    // Whoever drains wants to know that it was not done.
    for (command, code) in [("run", 0), ("drain", 1)] {
        let arguments = [command, "-c", "config.yml", "--profiles", "profile.yml"];
        let mut engine = workspace.start(&arguments);
        engine.until_logged("in use by a tool").await;
        engine.terminate();
        engine.ends_with(code).await;
    }
    tool.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stage_inspect_says_the_same_of_a_running_engine_and_of_a_stopped_one() {
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    source.release(MESSAGES);
    let mut engine = workspace.run();
    delivers(&mut engine, &database, MESSAGES).await;
    // The ack follows the commit.
    engine
        .until("all is acknowledged", async || {
            let listed = workspace.inspect(&["--json", "list"]).await.stdout();
            listed.contains("\"pending\": 0")
        })
        .await;
    let arguments = ["-v", "--json", "list", "websocket_1"];
    let running = workspace.inspect(&arguments).await;
    let asked = format!("process {}", engine.pid());
    assert!(running.stderr().contains(&asked), "{}", running.stderr());
    engine.stops_cleanly().await;
    let stopped = workspace.inspect(&arguments).await;
    assert!(
        stopped.stderr().contains("opened the files"),
        "{}",
        stopped.stderr()
    );
    assert_eq!(running.stdout(), stopped.stdout());
}
