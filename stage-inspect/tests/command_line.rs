//! The command itself, on stages that this test makes. (That these tests are here also makes `cargo test --workspace` build
//! the binary for the end-to-end tests.)
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use socket_el::control::{Control, Status};
use socket_el::record::{Batch, Offset, Timestamp};
use socket_el::stage::local::{LocalOptions, LocalPath, StageRole};

fn inspect(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stage-inspect"))
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn open(path: &Path) -> LocalPath {
    let roles = [StageRole {
        name: "websocket_1".to_owned(),
        producers: vec!["postgres".to_owned()],
    }];
    LocalPath::open(LocalOptions::new(path), &roles).unwrap()
}

/// Stages three batches of two messages, of which the first is delivered.
async fn stage_some(path: &Path) -> LocalPath {
    let opened = open(path);
    let stage = opened.stage("websocket_1").unwrap();
    for number in 0..3 {
        let mut batch = Batch::with_capacity(2, 16);
        for micros in 0..2 {
            assert!(batch.push(
                format!("{number}.{micros}").as_bytes(),
                Timestamp::from_micros(micros)
            ));
        }
        stage.append(batch).await.unwrap().durable().await.unwrap();
    }
    stage.ack("postgres", Offset::new(2)).await.unwrap();
    opened
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_the_stages_and_the_batches_of_a_stopped_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tmp");
    stage_some(&path).await.close().unwrap();
    let path = path.to_str().unwrap();

    let stages: serde_json::Value =
        serde_json::from_str(&stdout(&inspect(&["--path", path, "--json", "list"]))).unwrap();
    let stage = &stages[0]["stages"][0];
    assert_eq!(
        (stage["name"].as_str(), stage["messages"].as_u64()),
        (Some("websocket_1"), Some(6))
    );
    assert_eq!(stage["producers"][0]["pending"].as_u64(), Some(4));

    let text = stdout(&inspect(&["--path", path, "list", "websocket_1"]));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[1].starts_with("0..2") && lines[1].ends_with("delivered"),
        "{text}"
    );
    assert!(
        lines[3].starts_with("4..6") && lines[3].ends_with("pending"),
        "{text}"
    );

    let limited = stdout(&inspect(&[
        "--path",
        path,
        "--json",
        "list",
        "websocket_1",
        "--from",
        "3",
        "--limit",
        "1",
    ]));
    let limited: serde_json::Value = serde_json::from_str(&limited).unwrap();
    assert_eq!(limited["batches"].as_array().unwrap().len(), 1);
    assert_eq!(limited["batches"][0]["first"].as_u64(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_changes_nothing_and_is_the_same_through_a_running_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tmp");
    let engine = Arc::new(stage_some(&path).await);
    let control = Control::start(Arc::clone(&engine), Arc::new(Status::default)).unwrap();
    let name = path.to_str().unwrap().to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        inspect(&["-v", "--path", &name, "--json", "list", "websocket_1"])
    });
    let asked = asked.await.unwrap();
    let pid = std::process::id().to_string();
    assert!(
        String::from_utf8_lossy(&asked.stderr).contains(&pid),
        "--verbose names the engine's process"
    );
    control.stop().await;
    engine.close().unwrap();
    let name = path.to_str().unwrap();
    let before = stdout(&inspect(&["--path", name, "--json", "list", "websocket_1"]));
    let again = stdout(&inspect(&["--path", name, "--json", "list", "websocket_1"]));
    assert_eq!(before, again);
    let mut through: serde_json::Value = serde_json::from_str(&stdout(&asked)).unwrap();
    let mut opened: serde_json::Value = serde_json::from_str(&before).unwrap();
    // A named directory has no configuration that would say who delivers; the cursor says it here.
    for listing in [&mut through, &mut opened] {
        assert_eq!(listing["producers"][0]["name"], "postgres");
    }
    assert_eq!(through, opened);
    let opened = open(&path);
    assert_eq!(opened.stage("websocket_1").unwrap().bounds().head, Offset::new(6));
    opened.close().unwrap();
}

#[test]
fn what_is_not_there_is_said_with_the_exit_code_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nowhere");
    let output = inspect(&["--path", missing.to_str().unwrap(), "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!missing.exists(), "looking makes nothing");
    let output = inspect(&["-c", missing.to_str().unwrap(), "list"]);
    assert_eq!(output.status.code(), Some(2));
}

/// Only root can become somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_told_whose_socket_it_is() {
    if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) != 0) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tmp");
    let engine = Arc::new(stage_some(&path).await);
    let control = Control::start(Arc::clone(&engine), Arc::new(Status::default)).unwrap();
    // The other user may look at the directory, and has the program.
    let tool = dir.path().join("stage-inspect");
    std::fs::copy(env!("CARGO_BIN_EXE_stage-inspect"), &tool).unwrap();
    for open in [dir.path(), &path, &tool] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let name = path.to_str().unwrap().to_owned();
    let refused = tokio::task::spawn_blocking(move || {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(tool)
            .args(["--path", &name, "list"])
            .output()
            .unwrap()
    });
    let refused = refused.await.unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("control.sock") && told.contains("id 0"), "{told}");
    control.stop().await;
    engine.close().unwrap();
}
