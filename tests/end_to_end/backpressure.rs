//! A stage that takes nothing: the socket is not read, which is told, and consumers of other paths don't notice.

use serde_json::Value;
use socket_el::stage::path::StagePath as _;
use socket_el::stage::remote::RemotePath;

use crate::support::checker::{Tally, tally};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace};
use crate::support::proxy::{Proxy, Traffic};
use crate::support::source::Source;

/// Two consumers with a path, a producer and a database connection each; the path of the first holds little.
fn config(sources: [&Source; 2]) -> String {
    let [small, large] = sources.map(Source::url);
    format!(
        "runners:
  - name: small
    type: consumer
    variety: socket
    uri: {small}
    stage: {{ type: local, path: small_stage, max_bytes: 32MiB, retention: {{ age: 0s, bytes: 0 }}, on_full: block }}
  - name: large
    type: consumer
    variety: socket
    uri: {large}
    stage: {{ type: local, path: large_stage }}
  - {{ name: of_small, type: producer, variety: postgres, depends_on: [small], profile: proxied }}
  - {{ name: of_large, type: producer, variety: postgres, depends_on: [large], profile: postgres }}
"
    )
}

/// What the engine says of a consumer; it is asked by the path of the large stage, which never fails here.
async fn consumer(workspace: &Workspace, name: &str) -> Option<Value> {
    let path = RemotePath::connect(&workspace.path().join("large_stage"))
        .await
        .ok()?;
    let status = path.status().await.ok()?;
    path.close().await.ok()?;
    Some(status?["consumers"][name].clone())
}

/// Waits until the engine says that a consumer is doing this, and returns what it says.
async fn is_doing(engine: &mut Process, workspace: &Workspace, name: &str, state: &str) -> Value {
    let mut told = Value::Null;
    engine
        .until(&format!("{name} is {state}"), async || {
            told = consumer(workspace, name).await.unwrap_or_default();
            told["activity"]["state"] == state
        })
        .await;
    told
}

async fn are_rows(engine: &mut Process, database: &Database, table: &str, messages: u64) {
    engine
        .until(&format!("{messages} messages are rows of {table}"), async || {
            database.count(table).await >= Some(messages)
        })
        .await;
}

struct Both {
    database: Database,
    proxy: Proxy,
    small: Source,
    large: Source,
    engine: Process,
    /// Last, for its directory must outlive the engine.
    workspace: Workspace,
}

impl Both {
    async fn start() -> Self {
        let database = Database::shared().await;
        let workspace = Workspace::direct(&database);
        let proxy = Proxy::to(database.cluster().port()).await;
        let profiles = std::fs::read_to_string(workspace.path().join("profile.yml")).unwrap();
        let port = database.cluster().port().to_string();
        let proxied = profiles
            .replace("postgres:\n", "proxied:\n")
            .replace(&format!("port: {port}"), &format!("port: {}", proxy.port()));
        workspace.write_profile(&format!("{profiles}{proxied}"));
        let (small, large) = (Source::start().await, Source::start().await);
        workspace.write_config(&config([&small, &large]));
        let mut engine = workspace.run();
        for (source, table) in [(&small, "small"), (&large, "large")] {
            source.release(100);
            are_rows(&mut engine, &database, table, 100).await;
        }
        Self {
            database,
            proxy,
            small,
            large,
            engine,
            workspace,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stage_shows_as_paused_and_disturbs_no_other_path_and_goes_on_once_there_is_room() {
    const FLOOD: u64 = 600_000;
    let mut both = Both::start().await;
    let (engine, workspace) = (&mut both.engine, &both.workspace);
    both.proxy.set(Traffic::Refused);
    both.proxy.cut();
    both.small.release(FLOOD);
    let told = is_doing(engine, workspace, "small", "paused").await;
    let why = told["activity"]["why"].as_str().unwrap();
    assert!(why.contains("on_full: block"), "{why}");
    assert_eq!(told["connections"][0]["activity"]["state"], "paused");
    assert_eq!(
        (&told["dropped"], &told["gaps"]),
        (&Value::from(0), &Value::from(0))
    );
    // The other one is not disturbed, again and again.
    for round in 1..=5 {
        both.large.release(1_000);
        are_rows(engine, &both.database, "large", 100 + round * 1_000).await;
    }
    let told = consumer(workspace, "large").await.unwrap();
    assert_eq!(
        (&told["activity"]["state"], &told["connects"]),
        (&Value::from("live"), &Value::from(1))
    );
    let listed = workspace
        .inspect(&["--path", "small_stage", "list"])
        .await
        .stdout();
    assert!(
        listed.contains("paused") && listed.contains("on_full: block"),
        "{listed}"
    );

    // What was received is neither lost nor doubled, over the same connection.
    both.proxy.set(Traffic::Flowing);
    are_rows(engine, &both.database, "small", 100 + FLOOD).await;
    let told = is_doing(engine, workspace, "small", "live").await;
    assert_eq!(
        (&told["connects"], &told["gaps"]),
        (&Value::from(1), &Value::from(0))
    );
    engine.stops_cleanly().await;
    assert_eq!(
        tally(&both.database, "small").await,
        Tally::each_once(100 + FLOOD)
    );
    let log = engine.stderr();
    let (paused, resumed) = (
        log.matches("paused; the socket").count(),
        log.matches("is read again").count(),
    );
    assert!(paused > 0 && paused == resumed, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_fails_leaves_the_consumers_of_other_paths_alone_and_is_told_in_the_end() {
    let mut both = Both::start().await;
    let (engine, workspace) = (&mut both.engine, &both.workspace);
    // The next generation of that path can't be made.
    let (stage, away) = (
        workspace.path().join("small_stage"),
        workspace.path().join("away"),
    );
    std::fs::rename(&stage, &away).unwrap();
    both.small.release(50_000);
    engine.until_logged("the stage path has failed").await;
    engine
        .until_logged("the consumers of other stage paths go on")
        .await;
    for round in 1..=5 {
        both.large.release(1_000);
        are_rows(engine, &both.database, "large", 100 + round * 1_000).await;
    }
    engine
        .until("the consumer of the failed path has ended", async || {
            let told = consumer(workspace, "small").await;
            told.is_some_and(|told| told["state"] == "ended")
        })
        .await;
    let told = consumer(workspace, "large").await.unwrap();
    assert_eq!(
        (&told["activity"]["state"], &told["connects"]),
        (&Value::from("live"), &Value::from(1))
    );
    engine.stops_with(1).await;
    assert_eq!(tally(&both.database, "large").await, Tally::each_once(5_100));

    // Started again, it recovers what was staged.
    std::fs::rename(&away, &stage).unwrap();
    let before = both.small.sent();
    let mut engine = workspace.run();
    both.small.release(100);
    engine
        .until("the path takes messages again", async || {
            both.database.number("SELECT max(seq) FROM small").await >= Some(before)
        })
        .await;
    engine.stops_cleanly().await;
    let seen = tally(&both.database, "small").await;
    assert_eq!(seen, Tally::each_once(seen.rows));
}
