//! The database is restored from a dump, rows and cursor alike: what it lacks is delivered again, once.

use std::path::PathBuf;
use std::process::Command;

use crate::support::checker::{Tally, missing_stretches, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::source::Source;

/// Messages of each step.
const STEP: u64 = 2_000;

/// A dump of a database, made and restored with PostgreSQL's own programs.
struct Dump<'a> {
    database: &'a Database,
    file: PathBuf,
}

impl<'a> Dump<'a> {
    fn of(database: &'a Database, workspace: &Workspace) -> Self {
        let file = workspace.path().join("database.dump");
        let dump = Self { database, file };
        dump.runs(
            "pg_dump",
            &[
                "--format=custom",
                "--file",
                dump.file.to_str().unwrap(),
                database.name(),
            ],
        );
        dump
    }

    /// Drops the database, whoever uses it, and makes it anew as it was.
    async fn restore(&self) {
        let name = self.database.name();
        self.database
            .cluster()
            .query("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"))
            .await
            .unwrap();
        self.runs(
            "pg_restore",
            &["--create", "--dbname=postgres", self.file.to_str().unwrap()],
        );
    }

    fn runs(&self, program: &str, arguments: &[&str]) {
        let cluster = self.database.cluster();
        let output = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", &cluster.port().to_string()])
            .args(["--username", cluster.superuser()])
            .args(arguments)
            .env("PGPASSWORD", cluster.password())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

async fn arrives(engine: &mut Process, database: &Database, messages: u64) {
    engine
        .until("all messages are rows", async || {
            database.count("feed").await >= Some(messages)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_from_a_dump_gets_again_what_it_lacks_whether_the_engine_ran_or_not() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("feed", &source.url())], "metadata: true"));
    let mut engine = workspace.run();
    source.release(STEP);
    arrives(&mut engine, &database, STEP).await;
    let dump = Dump::of(&database, &workspace);
    source.release(STEP);
    arrives(&mut engine, &database, 2 * STEP).await;
    engine.stops_cleanly().await;

    dump.restore().await;
    assert_eq!(database.count("feed").await, Some(STEP));
    let mut engine = workspace.run();
    engine.until_logged("restored from a backup?").await;
    arrives(&mut engine, &database, 2 * STEP).await;
    source.release(STEP);
    arrives(&mut engine, &database, 3 * STEP).await;

    // Under a running engine: it can't tell this from having been taken over, and says so.
    dump.restore().await;
    engine.ends_with(5).await;
    assert!(
        engine.stderr().contains("restored to an earlier state"),
        "{}",
        engine.last_words()
    );
    let mut engine = workspace.run();
    arrives(&mut engine, &database, 3 * STEP).await;
    engine.stops_cleanly().await;
    assert_eq!(
        tally_by_offset(&database, "feed").await,
        Tally::each_once(3 * STEP)
    );
    assert_eq!(missing_stretches(&database, "feed").await, []);
    let counted = workspace
        .inspect(&[
            "--json",
            "counts",
            "-c",
            "config.yml",
            "--profiles",
            "profile.yml",
        ])
        .await;
    let counts: serde_json::Value = serde_json::from_str(&counted.stdout()).unwrap();
    let counts = &counts[0]["counts"];
    assert_eq!(
        (&counts["received"], &counts["delivered"]),
        (&(3 * STEP).into(), &(3 * STEP).into()),
        "{counts}"
    );
}
