//! `forget`: only what has left the configuration, and only when it was agreed to.

use super::rig::*;

/// A rig with a configuration that names the stage and one producer, and the arguments that read it.
fn configured(rig: &Rig, runners: &str) -> String {
    let file = rig.dir.path().join("config.yml");
    std::fs::write(&file, format!("runners:\n{runners}")).unwrap();
    file.to_str().unwrap().to_owned()
}

fn consumer(rig: &Rig, name: &str) -> String {
    let path = rig.path.display();
    format!(
        "  - {{ name: {name}, type: consumer, variety: socket, uri: ws://x, stage: {{ type: local, path: {path} }} }}\n"
    )
}

fn run(config: &str, arguments: &[&str]) -> Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stage-inspect"));
    command
        .args(["-c", config])
        .args(arguments)
        .stdin(std::process::Stdio::null());
    Ran::of(command.output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_configuration_is_not_forgotten() {
    let rig = Rig::with_batches(2).await;
    let producer =
        "  - { name: postgres, type: producer, variety: postgres, depends_on: [trades], profile: x }\n";
    let config = configured(&rig, &(consumer(&rig, STAGE) + producer));
    run(&config, &["forget", STAGE, "--yes"]).refused(
        2,
        "stage trades stands in the configuration and can't be forgotten",
    );
    run(&config, &["forget", STAGE, "--producer", PRODUCER, "--yes"])
        .refused(2, "producer postgres of stage trades stands in the configuration");
    assert_eq!(
        rig.run(&["list", "--json"]).json()[0]["stages"][0]["messages"],
        20
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_left_the_configuration_is_shown_first_and_then_forgotten_whole() {
    let rig = Rig::with_batches(16).await;
    let local = rig.open();
    ack(&stage(&local), PRODUCER, 40).await;
    local.close().unwrap();
    let config = configured(&rig, &consumer(&rig, "another"));
    let listed = run(&config, &["list", "--json"]).json();
    assert_eq!(
        listed[0]["stages"].as_array().unwrap().len(),
        1,
        "looking makes no stage"
    );
    let asked = run(&config, &["forget", STAGE]);
    asked.refused(2, "would forget all 160 messages of stage trades, about");
    assert!(asked.stderr.contains("postgres at 40, 120 pending"), "{asked:?}");
    assert_eq!(
        rig.run(&["list", "--json"]).json()[0]["stages"][0]["messages"],
        160
    );

    let done = run(&config, &["forget", STAGE, "--yes", "--json"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        (done.json()["messages"].as_u64(), done.json()["stage"].as_str()),
        (Some(160), Some(STAGE))
    );
    assert!(done.json()["pinned_bytes"].as_u64().unwrap() > 0);
    let stage = &rig.run(&["list", "--json"]).json()[0]["stages"][0];
    assert_eq!(
        (stage["messages"].as_u64(), stage["dropped"].as_u64()),
        (Some(0), Some(160))
    );
    assert_eq!(stage["producers"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_left_the_configuration_is_forgotten_and_the_messages_stay() {
    let rig = Rig::with_batches(4).await;
    let local = rig.open();
    ack(&stage(&local), PRODUCER, 40).await;
    ack(&stage(&local), "old", 10).await;
    // Of a replay that was never finished.
    ack(&stage(&local), "old/replay", 5).await;
    local.close().unwrap();
    rig.run(&["forget", STAGE, "--producer", "postgers", "--yes"])
        .refused(2, "no cursor of a producer postgers; did you mean postgres?");
    rig.run(&["forget", STAGE, "--producer", "old"]).refused(
        2,
        "the cursor of old at 10, 30 pending; old/replay at 5, 35 pending",
    );
    let done = rig.run(&["forget", STAGE, "--producer", "old", "--yes"]);
    assert!(
        done.text()
            .starts_with("forgot the cursor of old at stage trades"),
        "{done:?}"
    );
    let stage = &rig.run(&["list", "--json"]).json()[0]["stages"][0];
    assert_eq!(
        (stage["messages"].as_u64(), stage["state"].as_str()),
        (Some(40), Some("delivered"))
    );
    assert_eq!(stage["producers"].as_array().unwrap().len(), 1);
}
