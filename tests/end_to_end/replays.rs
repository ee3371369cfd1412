//! After an outage of the sink: rows that were lost there come back from what the stage retains, each once, whether the engine
//! runs or not.

use std::path::Path;
use std::time::Duration;

use rand::RngExt as _;

use crate::support::checker::{Tally, tally, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::source::Source;

/// Messages of each step of a load.
const STEP: u64 = 5_000;

/// Where the tool finds the database.
const PROFILES: [&str; 4] = ["-c", "config.yml", "--profiles", "profile.yml"];

/// The longest life of a replay that is killed.
const LONGEST_LIFE: Duration = Duration::from_millis(400);

/// A stage of which everything so far is delivered, with or without the engine running on it.
struct Delivered {
    database: Database,
    source: Source,
    engine: Option<Process>,
    workspace: Workspace,
}

impl Delivered {
    async fn start(producer_keys: &str) -> Self {
        let database = Database::shared().await;
        let workspace = Workspace::direct(&database);
        let source = Source::start().await;
        workspace.write_config(&config(&[("websocket_1", &source.url())], producer_keys));
        let mut delivered = Self {
            engine: Some(workspace.run()),
            database,
            source,
            workspace,
        };
        delivered.gets_a_step(STEP).await;
        delivered
    }

    /// Sends a step, and waits for so many rows.
    async fn gets_a_step(&mut self, rows: u64) {
        self.source.release(STEP);
        self.has_rows(rows).await;
    }

    async fn has_rows(&mut self, rows: u64) {
        let database = &self.database;
        let engine = self.engine.as_mut().unwrap();
        engine
            .until("the rows are there", async || {
                database.count("websocket_1").await == Some(rows)
            })
            .await;
    }

    async fn stops(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            engine.stops_cleanly().await;
        }
    }

    /// Runs `stage-inspect` on the workspace's configuration; it has to end with this code.
    async fn inspect(&self, arguments: &[&str], code: i32) -> Process {
        let mut process = self.workspace.inspect(&[arguments, &PROFILES].concat()).await;
        process.ends_with(code).await;
        process
    }

    /// The table is dropped, and rows come into a new one.
    async fn loses_its_table(&mut self) {
        self.database.rows("DROP TABLE websocket_1").await;
        self.gets_a_step(STEP).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_gets_every_row_back_beside_a_running_engine_and_beside_none() {
    let mut stage = Delivered::start("").await;
    let mut sent = STEP;
    for runs in [true, false] {
        stage.loses_its_table().await;
        sent += STEP;
        if !runs {
            stage.stops().await;
        }
        let told = stage
            .inspect(&["replay", "websocket_1", "--all", "--dry-run"], 0)
            .await;
        assert!(told.stderr().contains("was made anew"), "{}", told.last_words());
        let replayed = stage.inspect(&["replay", "websocket_1", "--all"], 0).await;
        let lost = sent - STEP;
        assert!(
            replayed.stdout().contains(&format!("{lost} rows")),
            "{}",
            replayed.stdout()
        );
        if runs {
            // Normal delivery goes on.
            sent += STEP;
            stage.gets_a_step(sent).await;
        }
    }
    let refused = stage.inspect(&["replay", "websocket_1", "--all"], 1).await;
    assert!(refused.stderr().contains("--into"), "{}", refused.last_words());
    // Replayed rows stand behind later ones, so that only number and difference are told by this checker.
    let seen = tally(&stage.database, "websocket_1").await;
    assert_eq!((seen.rows, seen.distinct), (sent, sent));
    // What a replay pinned and remembered is gone.
    let listed = stage.workspace.inspect(&["--path", "tmp", "list"]).await;
    assert!(!listed.stdout().contains("/replay"), "{}", listed.stdout());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_planned_beside_an_engine_whose_cursor_moves_while_one_asks() {
    let stage = Delivered::start("").await;
    for _ in 0..20 {
        stage.source.release(STEP);
        let asked = ["replay", "websocket_1", "--all", "--into", "again", "--dry-run"];
        stage.inspect(&asked, 0).await;
    }
}

/// Who pipes a command into one that ends at once is no reason to panic, nor to call what was stopped done.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_output_nobody_reads_ends_as_its_work_did() {
    let mut stage = Delivered::start("").await;
    stage.stops().await;
    let tool = stage.workspace.tool();
    let piped = "set -o pipefail; \"$0\" \"$@\" | true";
    for (arguments, code) in [
        (&["replay", "websocket_1", "--all", "--into", "again"][..], 0),
        (
            &[
                "replay",
                "websocket_1",
                "--all",
                "--into",
                "third",
                "--dry-run",
                "--json",
            ],
            0,
        ),
        (&["replay", "websocket_1", "--from", "5", "--to", "3"], 2),
        (&["replay", "websocket_1", "--from", "99999999"], 2),
        (&["adopt", "websocket_1"], 1),
        (&["dead-letters", "drop"], 0),
        (&["skip", "websocket_1", "--to", "1"], 1),
    ] {
        let arguments = [&["-c", piped, tool.to_str().unwrap()], arguments, &PROFILES].concat();
        let mut command = stage.workspace.spawn(Path::new("/bin/bash"), &arguments, &[]);
        command.ends_with(code).await;
        assert!(!command.stderr().contains("panicked"), "{}", command.last_words());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_deleted_at_random_come_back_where_metadata_tells_them() {
    let mut stage = Delivered::start("metadata: true").await;
    stage.gets_a_step(2 * STEP).await;
    stage
        .database
        .rows("DELETE FROM websocket_1 WHERE hashint8(seq) % 3 = 0 OR seq BETWEEN 2000 AND 4000")
        .await;
    stage.inspect(&["replay", "websocket_1", "--all"], 0).await;
    stage.gets_a_step(3 * STEP).await;
    stage.stops().await;
    assert_eq!(
        tally_by_offset(&stage.database, "websocket_1").await,
        Tally::each_once(3 * STEP)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_again_and_again_doubles_and_loses_nothing() {
    let mut stage = Delivered::start("metadata: true").await;
    let mut rows = STEP;
    for _ in 0..7 {
        rows += STEP;
        stage.gets_a_step(rows).await;
    }
    stage.loses_its_table().await;
    let arguments = [&["replay", "websocket_1", "--all"], &PROFILES[..]].concat();
    let tool = stage.workspace.tool();
    for kill in 0..10 {
        if kill == 5 {
            stage.stops().await;
        }
        let mut replay = stage.workspace.spawn(&tool, &arguments, &[]);
        tokio::time::sleep(rand::rng().random_range(Duration::ZERO..LONGEST_LIFE)).await;
        replay.kill();
    }
    // The same command goes on with it, or, if the last one killed was done, finds nothing missing.
    stage.inspect(&["replay", "websocket_1", "--all"], 0).await;
    assert_eq!(
        tally_by_offset(&stage.database, "websocket_1").await,
        Tally::each_once(rows + STEP)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_takes_a_stretch_and_an_interrupted_replay_says_how_to_go_on() {
    let mut stage = Delivered::start("").await;
    stage
        .inspect(
            &[
                "replay",
                "websocket_1",
                "--from",
                "1000",
                "--to",
                "3000",
                "--into",
                "again",
            ],
            0,
        )
        .await;
    let seen = stage
        .database
        .rows("SELECT count(*), count(DISTINCT seq), min(seq), max(seq) FROM again")
        .await;
    let text: Vec<_> = seen[0].iter().flatten().map(String::as_str).collect();
    assert_eq!(text, ["2000", "2000", "1000", "2999"]);
    stage.inspect(&["replay", "websocket_1", "--resume"], 1).await;
    stage.inspect(&["replay", "websocket_1"], 2).await;
    stage
        .inspect(&["replay", "websocket_1", "--all", "--into", "websocket_1"], 2)
        .await;
    stage.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_block_are_skipped_under_a_running_engine_and_kept_as_dead_letters() {
    let mut stage = Delivered::start("metadata: true").await;
    stage
        .database
        .rows(
            "CREATE FUNCTION blocks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.seq = 5000 THEN RAISE EXCEPTION 'no' USING ERRCODE = 'XX000'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER blocks BEFORE INSERT ON websocket_1 FOR EACH ROW EXECUTE FUNCTION blocks()",
        )
        .await;
    stage.source.release(STEP);
    stage.engine.as_mut().unwrap().until_logged("is held").await;
    let refused = stage.inspect(&["skip", "websocket_1", "--to", "5001"], 2).await;
    assert!(refused.stderr().contains("--yes"), "{}", refused.last_words());
    stage
        .inspect(
            &[
                "skip",
                "websocket_1",
                "--producer",
                "postgres",
                "--to",
                "5001",
                "--yes",
            ],
            0,
        )
        .await;
    stage.has_rows(2 * STEP - 1).await;
    stage.stops().await;
    let letters = stage
        .database
        .rows("SELECT message_offset, reason FROM _socket_el_dead_letter")
        .await;
    let text: Vec<_> = letters[0].iter().flatten().map(String::as_str).collect();
    assert_eq!((letters.len(), text), (1, vec!["5000", "skipped by an operator"]));
    assert_eq!(
        tally_by_offset(&stage.database, "websocket_1").await,
        Tally::each_once(2 * STEP - 1)
    );
}
