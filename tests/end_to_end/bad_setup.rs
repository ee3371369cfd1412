//! What is wrong around the engine is said clearly: which thing, where, and what to do.

use std::fs;

use crate::support::checker::{Tally, tally};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::source::Source;

const MESSAGES: u64 = 200;

const CHECK: [&str; 5] = ["check", "-c", "config.yml", "--profiles", "profile.yml"];

/// Demands that stderr has a line with all of these.
fn says(process: &Process, parts: &[&str]) {
    let log = process.stderr();
    let said = log
        .lines()
        .any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(said, "no line with {parts:?} in\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_mistakes_of_a_configuration_are_reported_at_once_each_with_its_place() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    workspace.write_config(
        "runners:
  - name: websocket_1
    type: consumer
    variety: sockets
    uri: ws://127.0.0.1:9/
    stage: { type: local, path: tmp }
  - name: websocket_1
    type: consumer
    variety: socket
    uri: http://127.0.0.1:9/
    stage: { type: local, path: tmp }
    batch_configuration:
      size: many
      intervall: 1s
  - name: postgres
    type: producer
    variety: postgres
    depends_on: [websocket_7]
    profile: postgres
",
    );
    for command in [&CHECK[..], &["run", "--profiles", "profile.yml"]] {
        let mut process = workspace.start(command);
        process.ends_with(2).await;
        says(&process, &["config.yml:4:", "sockets", "socket"]);
        says(&process, &["config.yml:7:", "websocket_1"]);
        says(&process, &["config.yml:10:", "uri"]);
        says(&process, &["config.yml:13:", "size"]);
        says(&process, &["config.yml:14:", "intervall", "interval"]);
        says(&process, &["config.yml:18:", "websocket_7"]);
    }
    assert!(
        !workspace.path().join("tmp").exists(),
        "nothing is made by mistake"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_configuration_profile_or_profiles_file_is_named() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let mut process = workspace.run();
    process.ends_with(2).await;
    says(&process, &["config.yml"]);

    workspace.write_config(&config(&[("websocket_1", "ws://127.0.0.1:9/")], ""));
    let mut process = workspace.start(&["run", "-c", "config.yml", "--profiles", "elsewhere.yml"]);
    process.ends_with(2).await;
    says(&process, &["elsewhere.yml"]);

    workspace.write_profile("other:\n  user: u\n  database: d\n  host: h\n");
    let mut process = workspace.run();
    process.ends_with(2).await;
    says(&process, &["postgres", "other"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_without_being_shown_and_mended_without_a_restart() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let role = format!("loader_{}", database.name());
    database
        .rows(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'the right one'; GRANT ALL ON SCHEMA public TO {role}"
        ))
        .await;
    workspace.write_profile(&format!(
        "postgres:\n  user: {role}\n  password: not-this-one\n  database: {}\n  host: 127.0.0.1\n  port: {}\n",
        database.name(),
        database.cluster().port()
    ));
    let source = Source::start().await;
    workspace.write_config(&config(&[("websocket_1", &source.url())], ""));

    let mut check = workspace.start(&[&CHECK[..], &["--connect"]].concat());
    check.ends_with(1).await;
    let found = check.stdout() + &check.stderr();
    assert!(
        found.contains("password authentication failed") && !found.contains("not-this-one"),
        "{found}"
    );

    source.release(MESSAGES);
    let mut engine = workspace.run();
    engine.until_logged("password authentication failed").await;
    assert!(!engine.stderr().contains("not-this-one"));
    database
        .rows(&format!("ALTER ROLE {role} PASSWORD 'not-this-one'"))
        .await;
    engine
        .until("the messages are rows", async || {
            database.count("websocket_1").await == Some(MESSAGES)
        })
        .await;
    engine.stops_cleanly().await;
    assert_eq!(tally(&database, "websocket_1").await, Tally::each_once(MESSAGES));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_exist_is_named_and_used_once_it_does() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let missing = format!("{}_later", database.name());
    let cluster = database.cluster();
    workspace.write_profile(&format!(
        "postgres:\n  user: {}\n  password: {}\n  database: {missing}\n  host: 127.0.0.1\n  port: {}\n",
        cluster.superuser(),
        cluster.password(),
        cluster.port()
    ));
    let source = Source::start().await;
    workspace.write_config(&config(&[("websocket_1", &source.url())], ""));
    source.release(MESSAGES);
    let mut engine = workspace.run();
    engine.until_logged(&missing).await;
    cluster.create_database(&missing).await.unwrap();
    engine
        .until("the messages are rows", async || {
            let rows = cluster.query(&missing, "SELECT count(*) FROM websocket_1").await;
            rows.is_ok_and(|rows| rows[0][0] == Some(MESSAGES.to_string()))
        })
        .await;
    engine.stops_cleanly().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_can_not_be_written_is_named() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    // Where a file stands no directory can be made, not even by root, whom permissions do not stop.
    fs::write(workspace.path().join("tmp"), "a file").unwrap();
    workspace.write_config(&config(&[("websocket_1", "ws://127.0.0.1:9/")], ""));
    let mut engine = workspace.run();
    engine.ends_with(1).await;
    says(&engine, &["tmp"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_of_a_newer_version_is_refused_and_left_as_it_is() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    workspace.write_config(&config(&[("websocket_1", "ws://127.0.0.1:9/")], ""));
    let mut engine = workspace.run();
    engine.until_logged("running").await;
    engine.stops_cleanly().await;
    let meta = sled::Config::new()
        .path(workspace.path().join("tmp/meta"))
        .segment_size(512 << 10)
        .open()
        .unwrap();
    let path = meta.open_tree("path").unwrap();
    path.insert("schema", "2").unwrap();
    meta.flush().unwrap();
    drop((path, meta));

    let mut engine = workspace.run();
    engine.ends_with(1).await;
    says(&engine, &["tmp", "format version 2"]);
    assert!(workspace.path().join("tmp/g-0").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn init_writes_what_check_accepts_for_its_owner_only_and_never_overwrites() {
    use std::os::unix::fs::PermissionsExt as _;

    let workspace = Workspace::direct(&Database::shared().await);
    fs::remove_file(workspace.path().join("profile.yml")).unwrap();
    let config = workspace.path().join("config.yml");
    let profile = workspace.path().join(".socket_el/profile.yml");
    let mut first = workspace.start(&["init"]);
    first.ends_with(0).await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&profile), 0o600);
    assert_eq!(mode(profile.parent().unwrap()), 0o700);
    let mut check = workspace.start(&["check"]);
    check.ends_with(0).await;
    assert!(!check.stderr().contains("WARN"), "{}", check.stderr());

    fs::write(&config, "runners: []\n").unwrap();
    fs::remove_file(&profile).unwrap();
    let mut second = workspace.start(&["init"]);
    second.ends_with(0).await;
    assert!(second.stdout().contains("left as it is"), "{}", second.stdout());
    assert_eq!(fs::read_to_string(&config).unwrap(), "runners: []\n");
    assert!(profile.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_the_tables_of_every_route_as_sql_and_what_the_database_lacks_of_them() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    let keys = "routes:\n  - { when: { $.a: 1 }, table: prices, columns: { s: text, p: numeric }, on_conflict: { key: [s], action: update } }\n  - {}";
    workspace.write_config(&config(&[("websocket_1", &source.url())], keys));
    let mut check = workspace.start(&CHECK);
    check.ends_with(0).await;
    let told = check.stdout();
    for line in [
        "stage websocket_1: table \"public\".\"prices\" is made so:",
        "\"p\" numeric,",
        "PRIMARY KEY (\"s\")",
        "stage websocket_1: table \"public\".\"websocket_1\" is made from its first messages",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    database.rows("CREATE TABLE prices (s text)").await;
    let mut check = workspace.start(&[&CHECK[..], &["--connect"]].concat());
    check.ends_with(1).await;
    let told = check.stdout();
    let index = "CREATE UNIQUE INDEX CONCURRENTLY ON \"public\".\"prices\" (\"s\")";
    assert!(told.contains(&format!("would be held: table \"public\".\"prices\" has no unique index on the key of on_conflict. Make it: {index}")), "{told}");
    database.rows(index).await;
    let mut check = workspace.start(&[&CHECK[..], &["--connect"]].concat());
    check.ends_with(0).await;
    let told = check.stdout();
    assert!(
        told.contains("exists, and would be changed so:")
            && told.contains("ADD COLUMN IF NOT EXISTS \"p\" numeric"),
        "{told}"
    );
}
