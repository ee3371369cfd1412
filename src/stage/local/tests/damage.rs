//! Damage to what lies on the disk: noticed, recorded with its offsets, and survived.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::support::*;
use crate::record::Offset;
use crate::stage::GapCause;
use crate::stage::local::{LocalPath, MAX_SEALED_OPEN, OpenError, generation};
use crate::stage::path::{GenerationState, ProducerSummary};

/// A closed path of several sealed generations, and what is in it.
pub(super) async fn sealed(dir: &Path) -> (PathBuf, Vec<Numbered>) {
    let path = dir.join("stage");
    let (local, stage) = open(&path);
    let all = fill(&stage, 16).await;
    until_settled(&local).await;
    local.close().unwrap();
    (path, all)
}

/// Opens the path, reads everything, and checks that what is not read is recorded as lost, and inside the extent of `number`.
async fn check_loss(path: &Path, number: usize, all: &[Numbered]) {
    let (local, stage) = open(path);
    let extent = local.overview().generations[number].extents[STAGE];
    let (read, gaps) = read_all(&stage).await;
    let lost = messages_of(&gaps, GapCause::Lost);
    assert_eq!(read.len() as u64 + lost, all.len() as u64, "{gaps:?}");
    assert!(lost > 0);
    let mut at = read.iter();
    for message in all {
        let inside = message.0 >= extent.first.get() && message.0 < extent.end.get();
        if gaps
            .iter()
            .all(|gap| message.0 < gap.from.get() || message.0 >= gap.to.get())
        {
            assert_eq!(at.next(), Some(message));
        } else {
            assert!(
                inside,
                "{} is lost though another generation was damaged",
                message.0
            );
        }
    }
    assert_eq!(
        stage.count_between(Offset::ZERO, stage.bounds().head),
        read.len() as u64
    );
    // It stays recorded, and appending goes on.
    drop(local);
    let (_local, stage) = open(path);
    assert_eq!(messages_of(&read_all(&stage).await.1, GapCause::Lost), lost);
    append(&stage, vec![payload(0, 10)]).await;
}

/// Where some bytes stand in a file.
pub(super) fn place_in_file(path: &Path, needle: &[u8]) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let found = bytes.windows(needle.len()).position(|window| window == needle);
    found.unwrap() as u64
}

pub(super) fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_a_sealed_generation_is_a_recorded_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (path, all) = sealed(dir.path()).await;
    let at = place_in_file(&path.join("g-1/db"), b"message 75 ");
    overwrite(&path.join("g-1/db"), at, b"M");
    check_loss(&path, 1, &all).await;
}

#[tokio::test]
async fn a_cut_sealed_generation_is_a_recorded_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (path, all) = sealed(dir.path()).await;
    let at = place_in_file(&path.join("g-1/db"), b"message 75 ");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path.join("g-1/db"))
        .unwrap();
    file.set_len(at).unwrap();
    check_loss(&path, 1, &all).await;
}

#[tokio::test]
async fn a_sealed_generation_without_checksums_is_looked_through_and_a_shorter_one_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, all) = sealed(dir.path()).await;
    {
        // As an older state of the same generation would be: sound for sled, but the last batch is not there.
        let settings = crate::stage::local::generation::open_settings(&tiny());
        let db = settings.config(&path.join("g-1")).open().unwrap();
        let tree = db.open_tree("stage:trades").unwrap();
        tree.pop_max().unwrap();
        db.flush().unwrap();
    }
    check_loss(&path, 1, &all).await;
}

#[tokio::test]
async fn a_start_that_finds_the_mark_of_an_opening_tries_a_copy_first_and_opens_what_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let (path, all) = sealed(dir.path()).await;
    for name in ["opening-meta", "opening-g-1"] {
        std::fs::write(path.join(name), "").unwrap();
    }
    let (_local, stage) = open(&path);
    assert_eq!(read_all(&stage).await, (all, vec![]));
    assert!(!path.join("opening-meta").exists() && !path.join("opening-g-1").exists());
}

#[tokio::test]
async fn damage_in_the_open_generation_is_a_recorded_loss_after_a_restart_or_two() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let mut settings = options(&path);
    settings.tuning.seal_bytes = 1 << 30;
    let (local, stage) = open_with(settings.clone());
    let all = fill(&stage, 40).await;
    local.close().unwrap();
    let at = place_in_file(&path.join("g-0/db"), b"message 75 ");
    overwrite(&path.join("g-0/db"), at, b"M");
    for attempt in 0.. {
        assert!(attempt < 5, "it never recovers");
        let (local, stage) = open_with(settings.clone());
        let limit = crate::stage::ReadLimit {
            messages: 1000,
            bytes: 1 << 20,
        };
        if stage.read(Offset::ZERO, limit).await.is_err() {
            assert!(local.close().is_err());
            continue;
        }
        let (read, gaps) = read_all(&stage).await;
        let lost = messages_of(&gaps, GapCause::Lost);
        assert_eq!(read.len() as u64 + lost, all.len() as u64, "{gaps:?}");
        assert!(lost > 0);
        let rest = append(&stage, vec![payload(0, 10)]).await;
        assert!(rest[0].0 >= 400);
        break;
    }
}

#[tokio::test]
async fn an_unreadable_book_is_moved_aside_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, all) = sealed(dir.path()).await;
    let db = path.join("meta/db");
    let length = std::fs::metadata(&db).unwrap().len();
    overwrite(&db, 0, &vec![0x5a; usize::try_from(length).unwrap()]);
    let (_local, stage) = open(&path);
    let (read, gaps) = read_all(&stage).await;
    assert_eq!(read, all);
    assert_eq!(messages_of(&gaps, GapCause::Lost), 0);
    let aside = std::fs::read_dir(&path).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("damaged-meta")
    });
    assert_eq!(aside.count(), 1);
}

#[tokio::test]
async fn a_backlog_of_many_generations_is_read_with_few_of_them_open() {
    let dir = tempfile::tempdir().unwrap();
    let (path, all) = sealed(dir.path()).await;
    let (local, stage) = open(&path);
    assert!(local.overview().generations.len() > MAX_SEALED_OPEN + 1);
    let limit = crate::stage::ReadLimit {
        messages: 10,
        bytes: 1 << 20,
    };
    let (mut at, mut read) = (Offset::ZERO, Vec::new());
    while at < stage.bounds().head {
        let outcome = stage.read(at, limit).await.unwrap();
        for batch in &outcome.batches {
            let new = batch.messages_from(at);
            read.extend(new.map(|(offset, message)| (offset.get(), message.payload.to_vec())));
        }
        at = outcome.next;
        assert!(local.shared().sealed.open_count() <= MAX_SEALED_OPEN);
    }
    assert_eq!(read, all);
    until("nobody reads and all are closed", || {
        local.shared().settle_all(std::time::Duration::ZERO).unwrap();
        local.shared().sealed.open_count() == 0
    })
    .await;
}

#[tokio::test]
async fn an_inspected_path_shows_its_stages_batches_and_outages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let missing = LocalPath::inspect(&path, &[]).err().unwrap();
    assert!(matches!(missing, OpenError::Missing { .. }));
    let (local, stage) = open(&path);
    stage
        .append_outage(outage("before anything"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    let all = fill(&stage, 7).await;
    stage
        .append_outage(outage("first"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    stage
        .append_outage(outage("second"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    stage.ack(PRODUCER, Offset::new(15)).await.unwrap();
    local.close().unwrap();

    let (local, stage) = open(&path);
    stage
        .append_outage(outage("after the restart"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    local.close().unwrap();

    let local = LocalPath::inspect_tuned(&path, &[], tiny()).unwrap();
    let stages = local.overview().stages;
    assert_eq!(stages.len(), 1);
    assert_eq!((stages[0].messages, stages[0].bounds.head.get()), (70, 70));
    assert_eq!(
        stages[0].producers[PRODUCER],
        ProducerSummary {
            cursor: Some(Offset::new(15)),
            pending: 55,
            held_at: None,
            delivery: None
        }
    );
    let batches = all_batches(&local);
    let ranges: Vec<_> = batches
        .iter()
        .filter(|batch| batch.outage.is_none())
        .map(|batch| (batch.first.get(), batch.end.get()))
        .collect();
    assert_eq!(ranges, (0..7).map(|n| (10 * n, 10 * n + 10)).collect::<Vec<_>>());
    let outages: Vec<_> = batches.iter().filter_map(|batch| batch.outage.as_ref()).collect();
    let causes: Vec<_> = outages.iter().map(|outage| outage.cause.as_str()).collect();
    assert_eq!(
        causes,
        ["before anything", "first", "second", "after the restart"]
    );
    assert_eq!(all.len(), 70);
}

#[tokio::test]
async fn a_generation_that_is_being_dropped_is_not_summed_up() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(dir.path());
    fill(&stage, 20).await;
    until_settled(&local).await;
    let shared = local.shared();
    {
        // As the drop leaves it after the directory is gone.
        let mut catalog = shared.catalog_mut();
        let generation = catalog.get_mut(&0).unwrap();
        generation.entry.state = GenerationState::Dropping;
        generation.entry.summed = false;
    }
    assert!(shared.close_for_good(0));
    std::fs::remove_dir_all(generation::dir_of(dir.path(), 0)).unwrap();
    assert_eq!(shared.settle(0, std::time::Duration::ZERO), Ok(true));
}
