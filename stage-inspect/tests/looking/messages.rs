//! `show` and `tail`.

use super::rig::*;

/// A stage of ten messages, of which two are no JSON.
async fn mixed() -> Rig {
    let rig = Rig::new();
    let local = rig.open();
    let payloads: [&[u8]; 4] = [
        b"{\"a\":1.10,\"b\":[]}",
        b"hello\x1b[31m",
        b"\xff\x00",
        b"[1,\n2]",
    ];
    append_payloads(&stage(&local), 0, payloads.into_iter()).await;
    local.close().unwrap();
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_shown_pretty_as_json_and_as_their_bytes() {
    let rig = mixed().await;
    assert_eq!(
        rig.run(&["show", STAGE, "0..4"]).text(),
        "-- 0  2026-11-24 00:00:00.000Z\n{\n  \"a\": 1.10,\n  \"b\": []\n}\n\
         -- 1  2026-11-24 00:00:01.000Z\nhello\\u{1b}[31m\n\
         -- 2  2026-11-24 00:00:02.000Z\n\\xff\\x00\n\
         -- 3  2026-11-24 00:00:03.000Z\n[\n  1,\n  2\n]\n"
    );
    assert_eq!(
        rig.run(&["show", STAGE, "0..4", "--json"]).text(),
        "{\"offset\":0,\"received_at\":\"2026-11-24T00:00:00.000000Z\",\"message\":{\"a\":1.10,\"b\":[]}}\n\
         {\"offset\":1,\"received_at\":\"2026-11-24T00:00:01.000000Z\",\"payload_base64\":\"aGVsbG8bWzMxbQ==\"}\n\
         {\"offset\":2,\"received_at\":\"2026-11-24T00:00:02.000000Z\",\"payload_base64\":\"/wA=\"}\n\
         {\"offset\":3,\"received_at\":\"2026-11-24T00:00:03.000000Z\",\"message\":[1, 2]}\n"
    );
    let raw = rig.command(&["show", STAGE, "1..3", "--raw"]).output().unwrap();
    assert_eq!(raw.stdout, b"hello\x1b[31m\n\xff\x00\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_offsets_without_a_message_it_is_said_what_is_known() {
    let rig = Rig::with_batches(16).await;
    let (from, to) = rig.extents()[1];
    std::fs::remove_dir_all(rig.path.join("g-1")).unwrap();

    let lost = rig.run(&["show", STAGE, &from.to_string()]);
    lost.refused(1, "holds no message at");
    assert_eq!(lost.stdout, format!("-- {from}: lost from the disk\n"));
    let later = rig.run(&["show", STAGE, "160..170", "--json"]);
    later.refused(2, "it begins at 0 and ends before 160");
    assert_eq!(
        later.json_lines(),
        [serde_json::json!({ "from": 160, "to": 170, "messages": 0, "cause": "not_yet" })]
    );
    // Some of them are there.
    let range = format!("{}..{}", from - 1, to + 1);
    let some = rig.run(&["show", STAGE, &range, "--json"]);
    assert_eq!(some.code, 0, "{some:?}");
    let lines = some.json_lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["offset"], from - 1);
    assert_eq!(
        lines[1],
        serde_json::json!({ "from": from, "to": to, "messages": to - from, "cause": "lost" })
    );
    assert_eq!(lines[2]["message"]["seq"], to);
    let raw = rig.run(&["show", STAGE, &range, "--raw"]);
    assert_eq!(raw.text(), format!("{}\n{}\n", payload(from - 1), payload(to)));
    assert!(raw.stderr.contains("lost from the disk"), "{raw:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_shows_the_last_messages_over_gaps_and_follows_nobody_when_no_engine_runs() {
    let rig = Rig::with_batches(16).await;
    let (from, to) = *rig.extents().last().unwrap();
    let (before, _) = rig.extents()[1];
    let offsets = |ran: Ran| -> Vec<u64> {
        let lines = ran.json_lines();
        lines.iter().filter_map(|line| line["offset"].as_u64()).collect()
    };
    assert_eq!(
        offsets(rig.run(&["tail", STAGE, "--json"])),
        (150..160).collect::<Vec<_>>()
    );
    let numbers: Vec<_> = (2..rig.extents().len() - 1).collect();
    for number in numbers {
        std::fs::remove_dir_all(rig.path.join(format!("g-{number}"))).unwrap();
    }
    let wanted = to - from + 5;
    let (_, end_of_1) = {
        let first = before;
        (first, rig.extents()[1].1)
    };
    let expected: Vec<_> = (end_of_1 - 5..end_of_1).chain(from..to).collect();
    let shown = rig.run(&["tail", STAGE, "-n", &wanted.to_string(), "--json"]);
    assert_eq!(offsets(shown), expected);

    let followed = rig.run(&["tail", STAGE, "-n", "1", "-f", "--raw"]);
    assert_eq!(followed.text(), payload(159) + "\n");
    assert!(followed.stderr.contains("nothing to follow"), "{followed:?}");
    assert_eq!(rig.run(&["tail", STAGE, "-n", "0"]).text(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_that_can_hold_nothing_is_a_mistake_of_who_asks_for_it() {
    let rig = Rig::with_batches(16).await;
    for command in [&["list", STAGE][..], &["export", STAGE, "-o", "-"]] {
        let run = |range: &[&str]| rig.run(&[command, range].concat());
        run(&["--from", "5", "--to", "3"]).refused(2, "5..3 holds no offset");
        run(&["--from", "161"]).refused(
            2,
            "stage trades ends before offset 160: nothing has come at 161 yet",
        );
        // Where the next message will come, there is nothing yet.
        assert_eq!(run(&["--from", "160"]).code, 0);
    }
    rig.run(&["show", STAGE, "5..3"])
        .refused(2, "5..3 holds no offset");
    rig.run(&["show", STAGE, "160"]).refused(2, "ends before 160");
}
