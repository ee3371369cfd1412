//! Dead letters from the command line: looked at, written out, delivered after all, given up.

use std::time::Duration;

use rand::RngExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::support::checker::{Tally, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::source::Source;

/// Messages that the table refuses.
const REFUSED: u64 = 5_000;

/// Messages beside them.
const TAKEN: u64 = 100;

const PROFILES: [&str; 4] = ["-c", "config.yml", "--profiles", "profile.yml"];

/// The longest life of a retry that is killed.
const LONGEST_LIFE: Duration = Duration::from_millis(300);

/// An engine whose table is locked against most messages, and which was made to skip them.
struct Skipped {
    database: Database,
    engine: Process,
    workspace: Workspace,
    _source: Source,
}

impl Skipped {
    async fn start() -> Self {
        let database = Database::shared().await;
        let workspace = Workspace::direct(&database);
        let source = Source::start().await;
        workspace.write_config(&config(&[("feed", &source.url())], "metadata: true"));
        let mut engine = workspace.run();
        source.release(TAKEN);
        engine
            .until("the first are rows", async || {
                database.count("feed").await == Some(TAKEN)
            })
            .await;
        database
            .rows(
                "CREATE FUNCTION blocks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   RAISE EXCEPTION 'closed' USING ERRCODE = 'XX000'; END $$;
                 CREATE TRIGGER blocks BEFORE INSERT ON feed FOR EACH ROW EXECUTE FUNCTION blocks()",
            )
            .await;
        source.release(REFUSED);
        engine
            .until("all are sent", async || source.sent() >= TAKEN + REFUSED)
            .await;
        engine.until_logged("is held").await;
        let to = (TAKEN + REFUSED).to_string();
        let mut skipped = Self {
            database,
            engine,
            workspace,
            _source: source,
        };
        // The stage may not hold the last of them yet.
        loop {
            let mut skip = skipped.run(&["skip", "feed", "--to", &to, "--yes"]).await;
            if skip.end().await == 0 {
                break;
            }
            assert!(skip.stderr().contains("ends at offset"), "{}", skip.last_words());
        }
        skipped.database.rows("DROP TRIGGER blocks ON feed").await;
        skipped.engine.stops_cleanly().await;
        skipped
    }

    async fn run(&self, arguments: &[&str]) -> Process {
        self.workspace.inspect(&[arguments, &PROFILES].concat()).await
    }

    async fn says(&self, arguments: &[&str]) -> String {
        let mut process = self.run(arguments).await;
        process.ends_with(0).await;
        process.stdout()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_killed_again_and_again_makes_each_letter_a_row_once() {
    let skipped = Skipped::start().await;
    let arguments = [&["dead-letters", "retry"], &PROFILES[..]].concat();
    let tool = skipped.workspace.tool();
    for _ in 0..8 {
        let mut retry = skipped.workspace.spawn(&tool, &arguments, &[]);
        tokio::time::sleep(rand::rng().random_range(Duration::ZERO..LONGEST_LIFE)).await;
        retry.kill();
    }
    skipped.says(&["dead-letters", "retry"]).await;
    assert_eq!(
        tally_by_offset(&skipped.database, "feed").await,
        Tally::each_once(TAKEN + REFUSED)
    );
    assert_eq!(
        skipped
            .database
            .number("SELECT count(*) FROM _socket_el_dead_letter")
            .await,
        Some(0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_shown_exported_and_dropped() {
    let skipped = Skipped::start().await;
    let listed = skipped
        .says(&["--json", "dead-letters", "list", "--from", "200", "--limit", "3"])
        .await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["stages"]["feed"].as_u64(), Some(REFUSED - 100));
    let listed = &listed[0];
    let letters = listed["dead_letters"].as_array().unwrap();
    assert_eq!((letters.len(), letters[0]["offset"].as_u64()), (3, Some(200)));
    let id = letters[0]["id"].to_string();
    assert!(listed["after"].as_i64().is_some());

    let shown = skipped.says(&["dead-letters", "show", &id]).await;
    assert!(
        shown.contains("skipped by an operator") && shown.contains("\"seq\": 200"),
        "{shown}"
    );
    let raw = skipped.says(&["dead-letters", "show", &id, "--raw"]).await;
    let raw: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(raw["seq"].as_u64(), Some(200));

    let export = [
        "dead-letters",
        "export",
        "--reason",
        "Skipped",
        "-o",
        "letters.jsonl",
    ];
    skipped.says(&export).await;
    let lines = std::fs::read_to_string(skipped.workspace.path().join("letters.jsonl")).unwrap();
    let seqs: Vec<_> = lines
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["message"]["seq"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(seqs, (TAKEN..TAKEN + REFUSED).collect::<Vec<_>>());
    skipped.run(&export).await.ends_with(2).await;

    let all_but_ten = ["dead-letters", "drop", "--from", "110"];
    skipped.run(&all_but_ten).await.ends_with(2).await;
    let dropped = skipped.says(&[&all_but_ten[..], &["--yes"]].concat()).await;
    assert!(dropped.contains("4 990"), "{dropped}");
    assert_eq!(
        skipped
            .database
            .number("SELECT count(*) FROM _socket_el_dead_letter")
            .await,
        Some(10)
    );
    skipped
        .run(&["dead-letters", "show", &id])
        .await
        .ends_with(1)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_all_producers_are_listed_together_without_those_that_have_none() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let (bad, good) = (Source::start().await, Source::start().await);
    let consumers = config(&[("feed", &bad.url()), ("other", &good.url())], "");
    let both = "depends_on: [feed, other]";
    assert!(consumers.contains(both), "{consumers}");
    workspace.write_config(&format!(
        "{}\n  - name: archive\n    type: producer\n    variety: postgres\n    depends_on: [other]\n    profile: postgres\n    \
         table: archived\n",
        consumers.replace(both, "depends_on: [feed]").trim_end()
    ));
    let mut engine = workspace.run();
    good.release(TAKEN);
    bad.send(["no json", "nor this"].map(Message::text)).await;
    engine
        .until("two are letters and the others rows", async || {
            database.count("archived").await == Some(TAKEN)
                && database.count("_socket_el_dead_letter").await == Some(2)
        })
        .await;
    let says = async |arguments: &[&str]| {
        let mut said = workspace.inspect(&[arguments, &PROFILES].concat()).await;
        said.ends_with(0).await;
        said.stdout()
    };
    let listed = says(&["dead-letters", "list"]).await;
    assert!(
        listed.starts_with("dead letters of postgres: 2 of feed\n") && !listed.contains("archive"),
        "{listed}"
    );
    // There is no doubt whose they are.
    let dropped = says(&["dead-letters", "drop", "--yes"]).await;
    assert_eq!(dropped, "dropped 2 dead letters of postgres\n");
    assert_eq!(says(&["dead-letters", "list"]).await, "no dead letters\n");
    assert_eq!(says(&["dead-letters", "list", "--json"]).await.trim(), "[]");
    engine.stops_cleanly().await;
}
