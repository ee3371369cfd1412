//! `export`: everything that was asked for, in a file that is either whole or not there.

use super::rig::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_what_was_staged() {
    let rig = Rig::with_batches(16).await;
    let out = rig.dir.path().join("trades.jsonl");
    let name = out.to_str().unwrap();
    let done = rig.run(&["export", STAGE, "-o", name]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stderr.contains("exported 160 messages of trades to"),
        "{done:?}"
    );
    let text = std::fs::read_to_string(&out).unwrap();
    let expected: String = (0..160)
        .map(|number| {
            let at = format!("2026-11-24T00:{:02}:{:02}.000000Z", number / 60, number % 60);
            let message = payload(number);
            format!("{{\"offset\":{number},\"received_at\":\"{at}\",\"message\":{message}}}\n")
        })
        .collect();
    assert_eq!(text, expected);

    let part = rig.run(&["export", STAGE, "--from", "5", "--to", "8", "-o", "-"]);
    let lines: Vec<_> = expected.lines().skip(5).take(3).collect();
    assert_eq!(part.text().lines().collect::<Vec<_>>(), lines);
    let since = rig.run(&["export", STAGE, "--since", "2026-11-24T00:02:35Z", "-o", "-"]);
    assert_eq!(
        since.text().lines().collect::<Vec<_>>(),
        expected.lines().skip(155).collect::<Vec<_>>()
    );
    let later = rig.run(&["export", STAGE, "--since", "2036-11-24T00:02:35Z", "-o", "-"]);
    assert_eq!(later.text(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_there_is_replaced_only_on_demand_and_nothing_half_done_is_left() {
    let rig = Rig::with_batches(2).await;
    let out = rig.dir.path().join("out");
    std::fs::write(&out, "mine").unwrap();
    let name = out.to_str().unwrap();
    rig.run(&["export", STAGE, "-o", name])
        .refused(2, "--force replaces it");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "mine");
    let done = rig.run(&["export", STAGE, "-o", name, "--force", "--json"]);
    assert_eq!(done.json(), serde_json::json!({ "messages": 20, "missing": 0 }));
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 20);
    let directory = rig.dir.path().to_str().unwrap();
    rig.run(&["export", STAGE, "-o", directory, "--force"])
        .refused(2, "no file");
    let nowhere = rig.dir.path().join("no/where");
    rig.run(&["export", STAGE, "-o", nowhere.to_str().unwrap()])
        .refused(1, "could not write");
    let mut left: Vec<_> = std::fs::read_dir(rig.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["out", "tmp"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_no_longer_be_exported_is_said() {
    let rig = Rig::with_batches(16).await;
    let (from, to) = rig.extents()[1];
    std::fs::remove_dir_all(rig.path.join("g-1")).unwrap();
    let done = rig.run(&["export", STAGE, "-o", "-"]);
    assert_eq!(done.text().lines().count() as u64, 160 - (to - from));
    let words = format!("{} offsets of the stretch hold no message any more", to - from);
    assert!(done.stderr.contains(&words), "{done:?}");
}
