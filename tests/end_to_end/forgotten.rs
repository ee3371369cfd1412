//! What has left the configuration is forgotten: its cursors on the disk and in the database go, and what is data there is named and
//! stays.

use tokio_tungstenite::tungstenite::Message;

use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::source::Source;

/// Trades beside the two messages that are no JSON.
const TRADES: u64 = 100;

const PROFILES: [&str; 4] = ["-c", "config.yml", "--profiles", "profile.yml"];

/// An engine that has delivered some messages of `feed` and made two dead letters.
struct Delivered {
    database: Database,
    engine: Process,
    workspace: Workspace,
    source: Source,
}

impl Delivered {
    async fn start() -> Self {
        let database = Database::shared().await;
        let workspace = Workspace::direct(&database);
        let source = Source::start().await;
        workspace.write_config(&config(&[("feed", &source.url())], ""));
        let mut engine = workspace.run();
        source.release(TRADES);
        source.send(["no json", "nor this"].map(Message::text)).await;
        engine
            .until("all are rows or letters", async || {
                database.count("feed").await == Some(TRADES) && letters(&database).await == Some(2)
            })
            .await;
        Self {
            database,
            engine,
            workspace,
            source,
        }
    }

    /// The consumer gets another name, in the same directory.
    fn renames_the_stage(&self) {
        self.workspace
            .write_config(&config(&[("renamed", &self.source.url())], ""));
    }

    async fn forget(&self, arguments: &[&str]) -> Process {
        self.workspace
            .inspect(&[&["forget", "feed"], arguments].concat())
            .await
    }

    async fn cursors(&self) -> Option<u64> {
        self.database
            .number("SELECT count(*) FROM _socket_el_cursor WHERE stage = 'feed'")
            .await
    }
}

async fn letters(database: &Database) -> Option<u64> {
    database.count("_socket_el_dead_letter").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_stage_takes_its_cursor_along_and_its_dead_letters_stay_with_the_statement_that_removes_them()
 {
    let mut delivered = Delivered::start().await;
    delivered.renames_the_stage();

    // The engine still runs as it was configured before.
    let mut refused = delivered.forget(&[&PROFILES[..], &["--yes"]].concat()).await;
    refused.ends_with(2).await;
    let told = refused.stderr();
    assert!(
        told.contains(&format!("process {}", delivered.engine.pid()))
            && told.contains("Start the engine again"),
        "{told}"
    );
    assert_eq!(delivered.cursors().await, Some(1));
    delivered.engine.stops_cleanly().await;

    let mut asked = delivered.forget(&PROFILES).await;
    asked.ends_with(2).await;
    let told = asked.stderr();
    for words in [
        "2 dead letters of postgres stay in",
        "the cursor of postgres in _socket_el_cursor",
        "all 102 messages of stage feed",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
    assert_eq!(delivered.cursors().await, Some(1));

    let mut done = delivered.forget(&[&PROFILES[..], &["--yes"]].concat()).await;
    done.ends_with(0).await;
    assert_eq!(
        (delivered.cursors().await, letters(&delivered.database).await),
        (Some(0), Some(2))
    );
    // What it says removes the rest.
    let told = done.stdout();
    let statements: Vec<_> = told
        .lines()
        .filter_map(|line| line.split_once("to remove them: "))
        .map(|(_, statement)| statement)
        .collect();
    assert!(!statements.is_empty(), "{told}");
    for statement in statements {
        delivered.database.rows(statement).await;
    }
    assert_eq!(letters(&delivered.database).await, Some(0));
    assert_eq!(delivered.database.count("_socket_el_gap").await, Some(0));
    assert_eq!(delivered.database.count("feed").await, Some(TRADES));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_was_renamed_is_forgotten_and_without_its_profile_what_may_stay_is_named() {
    let mut delivered = Delivered::start().await;
    delivered.engine.stops_cleanly().await;
    let renamed = config(&[("feed", &delivered.source.url())], "").replace("name: postgres", "name: loader");
    assert!(renamed.contains("name: loader"), "{renamed}");
    delivered.workspace.write_config(&renamed);

    let without = [
        "-c",
        "config.yml",
        "--profiles",
        "nowhere.yml",
        "--producer",
        "postgres",
    ];
    let mut asked = delivered.forget(&without).await;
    asked.ends_with(2).await;
    let told = asked.stderr();
    assert!(
        told.contains("not looked into: ")
            && told.contains("nowhere.yml")
            && told.contains("stage = 'feed' AND stage_path_id = '"),
        "{told}"
    );

    let with = [&PROFILES[..], &["--producer", "postgres", "--yes"]].concat();
    delivered.forget(&with).await.ends_with(0).await;
    assert_eq!(
        (delivered.cursors().await, letters(&delivered.database).await),
        (Some(0), Some(2))
    );
    let listed = delivered.workspace.inspect(&["--json", "list"]).await.stdout();
    assert!(!listed.contains("\"postgres\""), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_the_role_may_not_remove_is_not_said_to_be_gone() {
    let mut delivered = Delivered::start().await;
    delivered.engine.stops_cleanly().await;
    delivered.renames_the_stage();
    let database = &delivered.database;
    let role = format!("reader_{}", database.name());
    database
        .rows(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
        ))
        .await;
    delivered.workspace.write_profile(&format!(
        "postgres:\n  user: {role}\n  password: x\n  database: {}\n  host: 127.0.0.1\n  port: {}\n",
        database.name(),
        database.cluster().port()
    ));

    let json = [&PROFILES[..], &["--producer", "postgres", "--yes", "--json"]].concat();
    let mut in_part = delivered.forget(&json).await;
    in_part.ends_with(1).await;
    let told = in_part.stdout();
    assert!(
        told.contains("\"cursor_not_removed\"") && told.contains("permission denied"),
        "{told}"
    );
    let mut in_part = delivered.forget(&[&PROFILES[..], &["--yes"]].concat()).await;
    in_part.ends_with(1).await;
    let (told, failed) = (in_part.stdout(), in_part.stderr());
    assert!(
        told.contains("forgot stage feed") && !told.contains("the cursor of postgres"),
        "{told}"
    );
    assert!(
        failed.contains("the cursor of postgres in _socket_el_cursor")
            && failed.contains("could not be removed: "),
        "{failed}"
    );
    assert_eq!(delivered.cursors().await, Some(1));

    // What it says removes it.
    let (_, statement) = failed.split_once("Remove it as a role that may: ").unwrap();
    delivered.database.rows(statement).await;
    assert_eq!(delivered.cursors().await, Some(0));
}
