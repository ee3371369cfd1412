//! One stage and one producer's name have one owner: who comes second is told so, and who was replaced stops.

use std::fs;
use std::path::Path;

use crate::support::checker::{Tally, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::source::Source;

const MESSAGES: u64 = 1_000;

async fn delivers(engine: &mut Process, database: &Database, messages: u64) {
    engine
        .until("all messages are rows", async || {
            database.count("websocket_1").await >= Some(messages)
        })
        .await;
}

/// A workspace for the database with a feed of its own.
async fn workspace(database: &Database) -> (Workspace, Source) {
    let workspace = Workspace::direct(database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("websocket_1", &source.url())], "metadata: true"));
    (workspace, source)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_on_a_stage_path_is_refused_and_names_the_first() {
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    source.release(MESSAGES);
    let mut first = workspace.run();
    delivers(&mut first, &database, MESSAGES).await;
    let mut second = workspace.run();
    second.ends_with(3).await;
    let named = second.stderr().contains(&first.pid().to_string());
    assert!(named, "names process {}\n{}", first.pid(), second.last_words());
    source.release(MESSAGES);
    delivers(&mut first, &database, 2 * MESSAGES).await;
    first.stops_cleanly().await;
    assert_eq!(
        tally_by_offset(&database, "websocket_1").await,
        Tally::each_once(2 * MESSAGES)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stage_path_of_the_same_names_is_refused_until_it_is_adopted() {
    let database = Database::shared().await;
    let (first_home, first_source) = workspace(&database).await;
    let (second_home, second_source) = workspace(&database).await;
    first_source.release(MESSAGES);
    let mut first = first_home.run();
    delivers(&mut first, &database, MESSAGES).await;

    let mut second = second_home.run();
    second.ends_with(1).await;
    let advice = second.stderr().contains("stage-inspect adopt");
    assert!(advice, "names the command that adopts\n{}", second.last_words());
    // The first does not notice.
    first_source.release(MESSAGES);
    delivers(&mut first, &database, 2 * MESSAGES).await;

    let adopt = [
        "adopt",
        "-c",
        "config.yml",
        "--profiles",
        "profile.yml",
        "websocket_1",
    ];
    // Nothing is staged there yet, so that nothing can come twice; and nothing is done before it is agreed to.
    let mut asked = second_home.inspect(&adopt).await;
    asked.ends_with(2).await;
    let told = asked.stderr();
    assert!(
        told.contains("delivery begins at offset 0") && told.contains("does not remember any delivery"),
        "{told}"
    );
    let mut adopted = second_home.inspect(&[&adopt[..], &["--yes"]].concat()).await;
    adopted.ends_with(0).await;
    second_source.release(MESSAGES);
    let mut second = second_home.run();
    delivers(&mut second, &database, 3 * MESSAGES).await;
    first_source.release(MESSAGES);
    first.ends_with(5).await;
    second.stops_cleanly().await;
    assert_eq!(
        database.count("websocket_1").await,
        Some(3 * MESSAGES),
        "{}",
        adopted.last_words()
    );
}

/// Under load the row is ahead of what the tool was told of the stage a moment before.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_engine_no_stage_adopts_the_cursor_that_is_its_own() {
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    let mut engine = workspace.run();
    source.release(MESSAGES);
    delivers(&mut engine, &database, MESSAGES).await;
    let adopt = [
        "adopt",
        "-c",
        "config.yml",
        "--profiles",
        "profile.yml",
        "websocket_1",
    ];
    for _ in 0..10 {
        source.release(MESSAGES);
        let mut refused = workspace.inspect(&adopt).await;
        refused.ends_with(1).await;
        assert!(refused.stderr().contains("already"), "{}", refused.last_words());
    }
    delivers(&mut engine, &database, 11 * MESSAGES).await;
    engine.stops_cleanly().await;
    assert_eq!(
        tally_by_offset(&database, "websocket_1").await,
        Tally::each_once(11 * MESSAGES)
    );
}

/// A copy that is taken from under a running engine begins behind the reservation, so its messages are told from the
/// original's.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_running_stage_and_its_copy_the_one_started_last_delivers_and_the_other_stops() {
    let database = Database::shared().await;
    let (original, source) = workspace(&database).await;
    source.release(MESSAGES);
    let mut engine = original.run();
    delivers(&mut engine, &database, MESSAGES).await;

    let (copy, copy_source) = workspace(&database).await;
    engine.pause();
    copy_directory(&original.path().join("tmp"), &copy.path().join("tmp"));
    engine.go_on();
    source.release(MESSAGES);
    delivers(&mut engine, &database, 2 * MESSAGES).await;

    let mut of_copy = copy.run();
    copy_source.release(MESSAGES);
    delivers(&mut of_copy, &database, 3 * MESSAGES).await;
    source.release(MESSAGES);
    engine.ends_with(5).await;
    of_copy.stops_cleanly().await;
    assert_eq!(database.count("websocket_1").await, Some(3 * MESSAGES));
    let offsets = database
        .number("select count(distinct _offset) from websocket_1")
        .await;
    assert_eq!(offsets, Some(3 * MESSAGES));
}

/// A copy of a stopped stage would give the offsets once more that the original gives: following the cursor would pass over
/// its messages as delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_stopped_stage_whose_original_went_on_holds_and_disturbs_nobody() {
    let database = Database::shared().await;
    let (original, source) = workspace(&database).await;
    source.release(MESSAGES);
    let mut engine = original.run();
    delivers(&mut engine, &database, MESSAGES).await;
    engine.stops_cleanly().await;

    let (copy, copy_source) = workspace(&database).await;
    copy_directory(&original.path().join("tmp"), &copy.path().join("tmp"));
    let mut engine = original.run();
    source.release(MESSAGES);
    delivers(&mut engine, &database, 2 * MESSAGES).await;

    let mut pending = 0;
    // At its second start the copy has staged more than the cursor is ahead of it.
    for _ in 0..2 {
        let mut of_copy = copy.run();
        copy_source.release(3 * MESSAGES);
        pending += 3 * MESSAGES;
        of_copy.until_logged("is older than the cursor").await;
        of_copy
            .until("all is staged and held", async || {
                let listed = copy.inspect(&["--json", "list"]).await.stdout();
                listed.contains(&format!("\"pending\": {pending}")) && listed.contains("\"held_at\": ")
            })
            .await;
        of_copy.stops_cleanly().await;
        // What the row counts is of the original.
        let counts = [
            "--json",
            "counts",
            "-c",
            "config.yml",
            "--profiles",
            "profile.yml",
        ];
        let mut counted = copy.inspect(&counts).await;
        counted.ends_with(0).await;
        assert!(
            counted.stdout().contains("\"counts\": null"),
            "{}",
            counted.stdout()
        );
        assert!(
            counted.stderr().contains("delivery is held"),
            "{}",
            counted.stderr()
        );
    }
    source.release(MESSAGES);
    delivers(&mut engine, &database, 3 * MESSAGES).await;
    engine.stops_cleanly().await;
    assert_eq!(
        tally_by_offset(&database, "websocket_1").await,
        Tally::each_once(3 * MESSAGES)
    );
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_directory(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Who deletes the row and adopts is told beforehand that everything comes again, and the counts still add up afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn who_adopts_after_the_row_was_deleted_is_told_what_comes_again_and_the_counts_add_up() {
    let database = Database::shared().await;
    let (workspace, source) = workspace(&database).await;
    source.release(MESSAGES);
    let mut engine = workspace.run();
    delivers(&mut engine, &database, MESSAGES).await;
    engine.stops_cleanly().await;
    let profiles = ["-c", "config.yml", "--profiles", "profile.yml"];
    for (keep, told, rows) in [
        (true, "no message comes again", MESSAGES),
        (
            false,
            "1000 messages that the stage remembers as delivered are delivered again",
            2 * MESSAGES,
        ),
    ] {
        database.rows("DELETE FROM _socket_el_cursor").await;
        let mut adopt = [&["adopt", "websocket_1"], &profiles[..]].concat();
        if keep {
            adopt.push("--keep-cursor");
        }
        let mut asked = workspace.inspect(&adopt).await;
        asked.ends_with(2).await;
        let words = asked.stderr();
        assert!(words.contains(told), "{words}");
        assert_eq!(
            words.contains("\"public\".\"websocket_1\"") || words.contains("twice"),
            !keep,
            "{words}"
        );
        let untouched = database.number("SELECT count(*) FROM _socket_el_cursor").await;
        assert_eq!(untouched, Some(0));
        adopt.push("--yes");
        workspace.inspect(&adopt).await.ends_with(0).await;
        workspace.drain().await;
        assert_eq!(database.count("websocket_1").await, Some(rows));
        let mut counts = workspace
            .inspect(&[&["--json", "counts"], &profiles[..]].concat())
            .await;
        counts.ends_with(0).await;
        let counts: serde_json::Value = serde_json::from_str(&counts.stdout()).unwrap();
        assert_eq!(counts[0]["counts"]["delivered"].as_u64(), Some(MESSAGES));
    }
}
