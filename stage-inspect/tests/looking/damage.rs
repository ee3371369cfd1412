//! `verify`: what is damaged or missing is named with its offsets, and the command exits with 4.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::Value;

use super::rig::*;

/// Damages the bytes of a message in a file.
fn flip(file: &Path, number: u64) {
    let needle = format!("\"seq\":{number},").into_bytes();
    let bytes = std::fs::read(file).unwrap();
    let places: Vec<_> = bytes
        .windows(needle.len())
        .enumerate()
        .filter_map(|(at, window)| (window == needle).then_some(at))
        .collect();
    assert!(!places.is_empty());
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    for at in places {
        file.write_all_at(b"'", at as u64).unwrap();
    }
}

/// Verifies, and returns the lost stretches `from..to`: all inside of `within`, and all of it named again by a
/// second look, with words that say `why`.
fn check_lost(rig: &Rig, within: (u64, u64), why: &str) -> Vec<(u64, u64)> {
    let first = rig.run(&["verify", "--json"]);
    first.refused(4, "damaged, or not whole: trades");
    let stretches = |report: &Value, known_before: bool| -> Vec<(u64, u64)> {
        let stage = &report[0]["stages"][0];
        let problems = stage["problems"].as_array().unwrap();
        let lost: Vec<_> = problems
            .iter()
            .map(|problem| {
                let what = problem["what"].as_str().unwrap();
                assert!(
                    what.starts_with("lost from the disk: ") && what.contains(why),
                    "{what}"
                );
                assert_eq!(problem["known_before"], known_before);
                let (from, to) = (problem["from"].as_u64().unwrap(), problem["to"].as_u64().unwrap());
                assert_eq!(problem["messages"], to - from);
                assert!(within.0 <= from && to <= within.1, "{from}..{to} in {within:?}");
                (from, to)
            })
            .collect();
        let missing: u64 = lost.iter().map(|(from, to)| to - from).sum();
        assert_eq!(stage["messages"].as_u64(), Some(160 - missing));
        lost
    };
    let found = stretches(&first.json(), false);
    assert!(!found.is_empty());
    let second = rig.run(&["verify", STAGE, "--json"]);
    second.refused(4, "trades");
    assert_eq!(stretches(&second.json(), true), found);

    let text = rig.run(&["verify"]);
    let (from, to) = found[0];
    assert!(text.stdout.contains("not whole"), "{text:?}");
    assert!(text.stdout.contains(&format!("{from}..{to}")), "{text:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_is_called_whole_with_its_outages_and_large_messages() {
    let rig = Rig::new();
    let local = rig.open();
    append(&stage(&local), 0, 16).await;
    stage(&local)
        .append_outage(outage("closed"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    let large = vec![b'x'; 300_000];
    append_payloads(&stage(&local), 160, [&large[..], b"after"].into_iter()).await;
    local.close().unwrap();
    let local = rig.open();
    append(&stage(&local), 162, 1).await;
    local.close().unwrap();

    let text = rig.run(&["verify"]);
    let row: Vec<_> = text.text().lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!([row[0], row[2], row[3], row[4]], ["trades", "172", "1", "whole"]);
    let report = rig.run(&["verify", "--json"]);
    assert_eq!(report.code, 0, "{report:?}");
    assert_eq!(report.json()[0]["whole"], true);
    assert_eq!(report.json()[0]["on_a_copy"], false);
    assert_eq!(report.json()[0]["stages"][0]["problems"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_sealed_generation_is_named_with_its_offsets() {
    let rig = Rig::with_batches(16).await;
    let extent = rig.extents()[1];
    let number = extent.0 + 15;
    flip(&rig.path.join("g-1/db"), number);
    let lost = check_lost(&rig, extent, "damaged");
    assert!(
        lost.iter().any(|(from, to)| (*from..*to).contains(&number)),
        "{lost:?}"
    );
    // The exit code does not depend on who reads the report.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = rig.command(&["verify"]).stdout(writer).status().unwrap();
    assert_eq!(unread.code(), Some(4));
    rig.run(&["show", STAGE, &number.to_string()])
        .refused(1, "holds no message");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_file_is_named_with_its_offsets() {
    let rig = Rig::with_batches(16).await;
    let extent = rig.extents()[1];
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(rig.path.join("g-1/db"))
        .unwrap();
    file.set_len(20_000).unwrap();
    let lost = check_lost(&rig, extent, "generation");
    assert_eq!(lost.last().unwrap().1, extent.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_generation_is_named_with_its_offsets() {
    let rig = Rig::with_batches(16).await;
    let extent = rig.extents()[1];
    std::fs::remove_dir_all(rig.path.join("g-1")).unwrap();
    assert_eq!(check_lost(&rig, extent, "generation 1 is missing"), [extent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_open_generation_is_named_although_the_store_fails_at_it() {
    let rig = Rig::with_batches(16).await;
    let extents = rig.extents();
    let last = *extents.last().unwrap();
    let name = format!("g-{}/db", extents.len() - 1);
    flip(&rig.path.join(name), last.0);
    let lost = check_lost(&rig, last, "damaged");
    assert!(
        lost.iter().any(|(from, to)| (*from..*to).contains(&last.0)),
        "{lost:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_can_only_be_read_is_verified_on_a_copy_which_is_removed() {
    let rig = Rig::with_batches(16).await;
    let tmp = tempfile::tempdir().unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(tmp.path(), everybody).unwrap();
    let whole = rig.run_read_only(&["verify", "--json"], tmp.path());
    assert_eq!(whole.code, 0, "{whole:?}");
    assert!(
        whole.stderr.contains("can't be written to; verifying a copy in"),
        "{whole:?}"
    );
    assert_eq!(whole.json()[0]["on_a_copy"], true);
    assert_eq!(whole.json()[0]["stages"][0]["messages"], 160);

    flip(&rig.path.join("g-1/db"), 75);
    let damaged = rig.run_read_only(&["verify"], tmp.path());
    damaged.refused(4, "trades");
    assert!(damaged.stdout.contains("lost from the disk"), "{damaged:?}");
    assert_eq!(
        std::fs::read_dir(tmp.path()).unwrap().count(),
        0,
        "the copies are removed"
    );
    assert!(rig.path.join("g-1/db").exists(), "the original is as it was");
}
