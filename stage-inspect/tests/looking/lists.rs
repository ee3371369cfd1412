//! `list` and `gaps`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::rig::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_stages_of_a_path_are_listed_with_their_producers_backlogs_and_replays() {
    let rig = Rig::new();
    let local = rig.open_with(&[]);
    local.close().unwrap();
    let local = rig.open();
    let trades = stage(&local);
    append(&trades, 0, 12).await;
    ack(&trades, PRODUCER, 100).await;
    ack(&trades, "postgres/replay", 20).await;
    local.close().unwrap();

    let listed = rig.run(&["list"]);
    let lines: Vec<Vec<_>> = listed
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[1],
        [
            "STAGE",
            "STATE",
            "HEAD",
            "MESSAGES",
            "KEPT",
            "GENERATIONS",
            "PRODUCER",
            "DELIVERY",
            "CURSOR",
            "PENDING",
            "BYTES",
            "OLDEST"
        ]
    );
    let generations = rig.extents().len().to_string();
    assert_eq!(
        lines[2][..10],
        [
            "trades",
            "pending",
            "120",
            "120",
            "20",
            &generations,
            "postgres",
            "-",
            "100",
            "20"
        ]
    );
    // About 1 kB each.
    assert!(
        lines[2][10].starts_with("~1") && lines[2][11] == "KiB",
        "{:?}",
        lines[2]
    );
    assert_eq!(lines[3][..5], ["postgres", "(replay)", "-", "20", "100"]);

    let json = rig.run(&["list", "--json"]).json();
    let stage = &json[0]["stages"][0];
    assert_eq!(stage["state"], "pending");
    assert_eq!(stage["kept"], 20);
    assert_eq!(stage["producers"][1]["replay_of"], "postgres");
    assert_eq!(
        stage["backlogs"][0]["oldest_received_at"],
        "2026-11-24T00:01:40.000000Z"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_stage_is_told_in_a_word() {
    let rig = Rig::new();
    let local = rig.open();
    let state = || rig.run(&["list", "--json"]).json()[0]["stages"][0]["state"].clone();
    local.close().unwrap();
    assert_eq!(state(), "empty");
    let local = rig.open();
    append(&stage(&local), 0, 1).await;
    local.close().unwrap();
    assert_eq!(state(), "no_producer");
    for (cursor, expected) in [(4, "pending"), (10, "delivered")] {
        let local = rig.open();
        ack(&stage(&local), PRODUCER, cursor).await;
        local.close().unwrap();
        assert_eq!(state(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_batches_of_a_stage_are_listed_between_offsets_and_since_a_time() {
    let rig = Rig::new();
    let local = rig.open();
    append(&stage(&local), 0, 4).await;
    stage(&local)
        .append_outage(outage("gone\u{1b}[31m"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    append(&stage(&local), 40, 4).await;
    ack(&stage(&local), PRODUCER, 20).await;
    local.close().unwrap();

    let text = rig.run(&["list", STAGE]);
    let lines: Vec<_> = text.text().lines().collect();
    assert_eq!(lines.len(), 10, "{text:?}");
    assert!(lines[1].starts_with("0..10") && lines[1].ends_with("delivered"));
    assert!(lines[3].starts_with("20..30") && lines[3].ends_with("pending"));
    assert!(
        lines[5].ends_with("no connection: gone\\u{1b}[31m"),
        "{}",
        lines[5]
    );

    let firsts = |arguments: &[&str]| -> Vec<u64> {
        let all = [&["list", STAGE, "--json"], arguments].concat();
        let json = rig.run(&all).json();
        let batches = json["batches"].as_array().unwrap().iter();
        batches
            .filter(|batch| batch["outage"].is_null())
            .map(|batch| batch["first"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(firsts(&[]), [0, 10, 20, 30, 40, 50, 60, 70]);
    assert_eq!(firsts(&["--from", "15", "--to", "35"]), [10, 20, 30]);
    assert_eq!(firsts(&["--from", "15", "--to", "30"]), [10, 20]);
    assert_eq!(firsts(&["--from", "15", "--limit", "2"]), [10, 20]);
    // Message 69 came at 00:01:09.
    assert_eq!(firsts(&["--since", "2026-11-24T00:01:09Z"]), [60, 70]);
    assert_eq!(firsts(&["--since", "2036-11-24T00:00:00Z"]), [0; 0]);
    let json = rig.run(&["list", STAGE, "--json"]).json();
    assert_eq!(json["batches"][0]["delivered_by"][0], PRODUCER);
    assert_eq!(
        json["batches"][4]["outage"]["from"],
        "2026-11-24T00:00:01.000000Z"
    );
    let limited = rig.run(&["list", STAGE, "--limit", "2"]);
    assert!(limited.text().ends_with("more with --from 20\n"), "{limited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_comes_page_by_page_and_may_be_cut_short_by_its_reader() {
    let rig = Rig::new();
    let local = rig.open();
    let trades = stage(&local);
    let payloads: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    for batch in 0..2_000 {
        append_payloads(&trades, batch * 50, payloads.iter().map(String::as_bytes)).await;
    }
    local.close().unwrap();

    let few = rig.run(&["list", STAGE, "--limit", "3"]);
    assert_eq!(few.text().lines().count(), 5);
    let all = rig.run(&["list", STAGE, "--limit", "1000000"]);
    assert_eq!(all.text().lines().count(), 2_001);
    assert!(all.text().lines().last().unwrap().starts_with("99950..100000"));
    let json = rig.run(&["list", STAGE, "--limit", "1000000", "--json"]).json();
    assert_eq!(json["batches"].as_array().unwrap().len(), 2_000);
    assert_eq!(json["messages"], 100_000);

    for arguments in [
        &["list", STAGE, "--limit", "1000000", "--json"][..],
        &["show", STAGE, "0..100000"],
        &["tail", STAGE, "-n", "100000", "--raw"],
        &["export", STAGE, "-o", "-"],
    ] {
        let mut child = rig
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert!(ran.code == 0 && ran.stderr.is_empty(), "{arguments:?}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_of_every_kind_are_listed_in_order() {
    let rig = Rig::new();
    let local = rig.open();
    stage(&local)
        .append_outage(outage("before anything"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    append(&stage(&local), 0, 16).await;
    stage(&local)
        .append_outage(outage("closed"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    local.close().unwrap();
    let extents = rig.extents();
    std::fs::remove_dir_all(rig.path.join("g-1")).unwrap();
    let (from, to) = extents[1];

    let text = rig.run(&["gaps", STAGE]);
    let lines: Vec<Vec<_>> = text
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[1][..4], ["before", "0", "outage", "?"]);
    let lost = [
        format!("{from}..{to}"),
        "lost".to_owned(),
        (to - from).to_string(),
    ];
    assert_eq!(lines[2][..3], lost);
    assert_eq!(lines[3][..4], ["before", "160", "outage", "?"]);

    let json = rig.run(&["gaps", STAGE, "--json"]).json();
    assert_eq!(json["refused"], 0);
    let gap = &json["gaps"][1];
    assert_eq!((gap["from"].as_u64(), gap["to"].as_u64()), (Some(from), Some(to)));
    assert_eq!(
        (gap["cause"].as_str(), gap["messages"].as_u64()),
        (Some("lost"), Some(to - from))
    );
    assert_eq!(json["gaps"][2]["outage"]["cause"], "closed");

    let whole = Rig::with_batches(1).await;
    assert_eq!(whole.run(&["gaps", STAGE]).text(), "stage trades has no gaps\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_and_what_is_not_there_have_their_exit_codes() {
    let rig = Rig::with_batches(1).await;
    let out = rig.dir.path().join("out");
    let out = out.to_str().unwrap();
    for arguments in [
        &["list", "tradse"][..],
        &["show", "tradse", "1"],
        &["tail", "tradse"],
        &["gaps", "tradse"],
        &["verify", "tradse"],
        &["forget", "tradse", "--yes"],
        &["export", "tradse", "-o", out],
    ] {
        rig.run(arguments)
            .refused(2, "there is no stage tradse; did you mean trades?");
    }
    rig.run(&["list", "xyz"]).refused(2, "there are trades");
    for arguments in [
        &["list", STAGE, "--since", "yesterday"][..],
        &["list", "--limit", "3"],
        &["show", STAGE, "5..5"],
        &["show", STAGE],
        &["export", STAGE],
        &["nonsense"],
    ] {
        rig.run(arguments).refused(2, "");
    }
    let nowhere = Rig::new();
    for arguments in [&["list"][..], &["list", STAGE], &["verify"], &["gaps", STAGE]] {
        nowhere.run(arguments).refused(1, "there is no stage at");
    }
    assert!(!nowhere.path.exists(), "looking makes nothing");
}
