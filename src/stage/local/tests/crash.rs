//! What a stop, a crash at any step, or a lost part of the directory leaves, and what the next start makes of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::*;
use crate::exit::ExitReason;
use crate::record::Offset;
use crate::stage::local::meta::StageEntry;
use crate::stage::local::writer::WOKEN;
use crate::stage::local::{LocalPath, OpenError, Retention, disk, generation, meta};
use crate::stage::path::GenerationState;
use crate::stage::{Appended, GapCause};

#[tokio::test]
async fn after_a_clean_stop_offsets_go_on_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let (local, stage) = open(&path);
    let id = local.id();
    let mut all = fill(&stage, 3).await;
    stage.ack(PRODUCER, Offset::new(17)).await.unwrap();
    local.close().unwrap();
    assert!(stage.append(batch(&[payload(0, 1)])).await.is_err(), "closed");

    let (local, stage) = open(&path);
    assert_eq!(local.id(), id);
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(17)));
    all.extend(append(&stage, vec![payload(30, 10)]).await);
    assert_eq!(all.last().unwrap().0, 30);
    assert_eq!(read_all(&stage).await, (all, vec![]));
    assert_eq!(stage.count_between(Offset::new(17), Offset::new(31)), 14);
}

#[tokio::test]
async fn after_an_unclean_stop_offsets_go_on_behind_the_reservation_and_the_gap_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(&dir.path().join("stage"));
    let mut all = fill(&stage, 3).await;
    let reserved = stage.bounds().reserved.get();
    assert!(reserved >= 1000);

    let (crashed, stage) = open(&image(&local, "image"));
    let (read, gaps) = read_all(&stage).await;
    assert_eq!(read, all);
    assert_eq!(gaps.len(), 1);
    let gap = &gaps[0];
    assert_eq!((gap.from.get(), gap.to.get()), (30, reserved));
    assert_eq!((gap.messages, gap.cause), (Some(0), GapCause::Reservation));

    all.extend(append(&stage, vec![payload(0, 10)]).await);
    assert_eq!(all.last().unwrap().0, reserved);
    assert_eq!(stage.count_between(Offset::ZERO, stage.bounds().head), 31);
    // The gap stays recorded, and another crash without an append skips nothing more.
    drop(crashed);
    let (_local, stage) = open(&dir.path().join("image"));
    let (read, again) = read_all(&stage).await;
    assert_eq!((read, &again), (all, &gaps));
}

#[tokio::test]
async fn a_second_opener_learns_who_has_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let (_local, _stage) = open(dir.path());
    let refused = LocalPath::open(options(dir.path()), &roles()).err().unwrap();
    assert_eq!(refused.exit_reason(), ExitReason::StageInUse);
    assert!(matches!(refused, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
}

#[tokio::test]
async fn a_path_of_a_newer_version_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (local, _stage) = open(dir.path());
    local.close().unwrap();
    {
        let db = meta::SETTINGS.config(&dir.path().join("meta")).open().unwrap();
        db.open_tree("path").unwrap().insert("schema", "2").unwrap();
        db.flush().unwrap();
    }
    let refused = LocalPath::open(options(dir.path()), &roles()).err().unwrap();
    assert!(matches!(refused, OpenError::Newer { found: 2, .. }), "{refused}");
    assert!(dir.path().join("g-0").is_dir());
}

#[tokio::test]
async fn a_lost_book_is_made_anew_from_the_generations_with_offsets_above_every_reservation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let (local, stage) = open(&path);
    let mut all = fill(&stage, 12).await;
    until_settled(&local).await;
    let (id, reserved) = (local.id(), stage.bounds().reserved);

    let image = image(&local, "image");
    std::fs::remove_dir_all(image.join("meta")).unwrap();
    let (local, stage) = open(&image);
    assert_eq!(local.id(), id);
    let (read, gaps) = read_all(&stage).await;
    assert_eq!(read, all);
    assert_eq!(messages_of(&gaps, GapCause::Lost), 0, "{gaps:?}");
    assert_eq!(
        (stage.bounds().staged, stage.bounds().is_uncounted),
        (all.len() as u64, true),
        "there may have been more before"
    );
    all.extend(append(&stage, vec![payload(0, 10)]).await);
    assert!(all.last().unwrap().0 >= reserved.get());
    assert_eq!(read_all(&stage).await.0, all);
    assert_eq!(
        stage.count_between(Offset::ZERO, stage.bounds().head),
        all.len() as u64
    );
}

#[tokio::test]
async fn a_book_of_a_version_that_did_not_count_is_made_up_for_by_the_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("stage");
    let (local, stage) = open(&first);
    fill(&stage, 2).await;
    // An unclean stop, so that offsets are skipped.
    let mut settings = options(&image(&local, "second"));
    settings.tuning.housekeeping = Duration::from_secs(3600);
    let (local, stage) = open_with(settings.clone());
    fill(&stage, 1).await;
    let meta = local.shared().meta().unwrap();
    let booked = meta.load().unwrap().stages[STAGE];
    let json = serde_json::json!({
        "reserved": booked.reserved, "head": booked.head, "refused": booked.refused,
    });
    let old: StageEntry = serde_json::from_value(json).unwrap();
    assert_eq!((old.staged, old.is_uncounted), (None, false));
    meta.put_stage(STAGE, &old).unwrap();
    meta.commit().unwrap();
    settings.path = image(&local, "third");
    let (_local, stage) = open_with(settings);
    let bounds = stage.bounds();
    assert_eq!((bounds.staged, bounds.is_uncounted), (30, false));
    assert_eq!(read_from(&stage, 0).await.0.len(), 30);
}

#[tokio::test]
async fn a_missing_generation_is_a_recorded_loss_of_exactly_its_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let (local, stage) = open(&path);
    let mut all = fill(&stage, 12).await;
    until_settled(&local).await;
    let lost = local.overview().generations[1].extents[STAGE];

    let image = image(&local, "image");
    std::fs::remove_dir_all(image.join("g-1")).unwrap();
    let (_local, stage) = open(&image);
    let (read, gaps) = read_all(&stage).await;
    all.retain(|(offset, _)| *offset < lost.first.get() || *offset >= lost.end.get());
    assert_eq!(read, all);
    let gap = &gaps[0];
    assert_eq!(
        (gap.from, gap.to, gap.cause),
        (lost.first, lost.end, GapCause::Lost)
    );
    assert_eq!(gap.messages, Some(lost.messages));
    assert!(!stage.bounds().is_uncounted);
}

#[tokio::test]
async fn a_tail_that_the_disk_lost_is_noticed_by_the_head_in_the_book() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let (local, stage) = open(&path);
    let all = fill(&stage, 1).await;
    let early = image(&local, "early");
    append(&stage, (10..20).map(|n| payload(n, 10)).collect()).await;
    until("the book has the head", || {
        let book = local.shared().meta().unwrap().load().unwrap();
        book.stages[STAGE].head == Offset::new(20)
    })
    .await;
    let late = image(&local, "late");
    std::fs::remove_dir_all(late.join("g-0")).unwrap();
    disk::copy_tree(&early.join("g-0"), &late.join("g-0")).unwrap();

    let (_local, stage) = open(&late);
    let (read, gaps) = read_all(&stage).await;
    assert_eq!(read, all);
    assert_eq!(messages_of(&gaps, GapCause::Lost), 10);
    assert_eq!((gaps[0].from.get(), gaps[0].to.get()), (10, 20));
    // Nobody can know whether more was staged behind that head.
    assert_eq!((gaps[1].cause, gaps[1].messages), (GapCause::Lost, None));
    assert_eq!((stage.bounds().staged, stage.bounds().is_uncounted), (20, true));
}

#[tokio::test]
async fn incomplete_parts_at_the_tail_count_as_never_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let mut large = options(&path);
    large.tuning.segment_bytes = 8 << 20;
    large.tuning.seal_bytes = 1 << 30;
    let (local, stage) = open_with(large.clone());
    let mut all = append(&stage, vec![payload(0, 10), vec![b'x'; 300_000], payload(2, 10)]).await;
    let image = image(&local, "image");
    {
        let mut records = Vec::new();
        let mut encoder = crate::stage::envelope::Encoder::new(crate::stage::envelope::Codec::None);
        let (base, lost) = (Offset::new(3), batch(&[vec![b'y'; 300_000]]));
        encoder.encode(STAGE, base, base, &lost, &mut records).unwrap();
        let settings = generation::open_settings(&large.tuning);
        let db = settings.config(&image.join("g-0")).open().unwrap();
        let tree = db.open_tree(generation::tree_of(STAGE)).unwrap();
        for record in &records[..3] {
            tree.insert(record.key, record.value.as_slice()).unwrap();
        }
        db.flush().unwrap();
    }
    large.path = image;
    let (_local, stage) = open_with(large);
    let (read, gaps) = read_all(&stage).await;
    assert_eq!(read, all);
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].from.get(), gaps[0].cause), (3, GapCause::Reservation));
    all.extend(append(&stage, vec![payload(3, 10)]).await);
    let (read, gaps) = read_all(&stage).await;
    assert_eq!(read, all);
    assert_eq!(messages_of(&gaps, GapCause::Lost), 0);
}

/// What was staged for certain when a step was reached, the step, and the directory then.
type Image = (Vec<Numbered>, &'static str, std::path::PathBuf);

#[tokio::test]
async fn a_crash_after_any_step_of_a_commit_roll_drop_or_close_loses_nothing_and_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let mut settings = options(&path);
    settings.retention = Retention {
        age: Duration::ZERO,
        bytes: 0,
    };
    let staged = Arc::new(Mutex::new(Vec::new()));
    let images = Arc::new(Mutex::new(Vec::<Image>::new()));
    {
        let (staged, images, path) = (Arc::clone(&staged), Arc::clone(&images), path.clone());
        settings.tuning.step.set(move |step| {
            if step == WOKEN {
                return;
            }
            let mut images = images.lock().unwrap();
            let image = path.with_file_name(format!("image-{}", images.len()));
            disk::copy_tree(&path, &image).unwrap();
            images.push((staged.lock().unwrap().clone(), step, image));
        });
    }
    let (local, stage) = open_with(settings.clone());
    for number in 0..10_u64 {
        let payloads = (0..10).map(|n| payload(number * 10 + n, 1000)).collect();
        let new = append(&stage, payloads).await;
        staged.lock().unwrap().extend(new);
    }
    let delivered = 55;
    stage.ack(PRODUCER, Offset::new(delivered)).await.unwrap();
    until("the first generation is dropped", || {
        stage.bounds().oldest > Offset::ZERO
    })
    .await;
    local.close().unwrap();
    settings.tuning.step.set(|_| {});

    let images = std::mem::take(&mut *images.lock().unwrap());
    let steps: std::collections::BTreeSet<_> = images.iter().map(|(_, step, _)| *step).collect();
    assert_eq!(
        steps.into_iter().collect::<Vec<_>>(),
        [
            "close: heads",
            "commit: inserted",
            "commit: synced",
            "drop: intended",
            "drop: removed",
            "roll: created",
            "roll: sealed"
        ]
    );
    for (staged, step, image) in images {
        settings.path = image;
        let (local, stage) = open_with(settings.clone());
        let (read, gaps) = read_from(&stage, delivered).await;
        let staged: Vec<_> = staged
            .into_iter()
            .filter(|(offset, _)| *offset >= delivered)
            .collect();
        assert!(
            read.starts_with(&staged),
            "{step}: {} of {}",
            read.len(),
            staged.len()
        );
        assert_eq!(messages_of(&gaps, GapCause::Lost), 0, "{step}: {gaps:?}");
        let before = stage.bounds().reserved;
        let new = append(&stage, vec![payload(0, 1)]).await;
        let known = read.last().map_or(0, |(offset, _)| offset + 1);
        assert!(new[0].0 >= known && new[0].0 <= before.get(), "{step}");
        let summaries = local.overview().generations;
        assert!(
            summaries.iter().all(|g| g.state != GenerationState::Dropping),
            "{step}"
        );
    }
}

#[tokio::test]
async fn an_interval_path_answers_before_the_disk_and_shows_nothing_before_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path());
    settings.durability = crate::stage::local::Durability::Interval(Duration::from_secs(3600));
    let (local, stage) = open_with(settings);
    let accepted = stage.append(batch(&[payload(0, 10)])).await.unwrap();
    let appended = accepted.durable().await.unwrap();
    let end = Offset::new(1);
    assert_eq!(
        appended,
        Appended::Staged {
            first: Offset::ZERO,
            end
        }
    );
    assert_eq!(stage.bounds().head, Offset::ZERO);
    local.close().unwrap();
    let (_local, stage) = open(dir.path());
    assert_eq!(stage.bounds().head, end);
}

#[tokio::test]
async fn on_an_interval_path_nobody_waits_the_interval_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path());
    settings.durability = crate::stage::local::Durability::Interval(Duration::from_secs(3600));
    let (local, stage) = open_with(settings);
    // Less than what brings an early commit on, and more than leaves room for the other.
    for bytes in [20 << 10, 60 << 10, 200 << 10] {
        let append = stage.append(batch(&[payload(0, bytes)]));
        let accepted = tokio::time::timeout(Duration::from_secs(60), append).await;
        accepted.expect("it waits").unwrap().durable().await.unwrap();
    }
    local.close().unwrap();
}

#[tokio::test]
async fn after_a_failure_everybody_is_told_and_a_restart_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let (local, stage) = open(&path);
    let all = fill(&stage, 2).await;
    let (mut failed, mut head) = (local.failed(), stage.watch_head());
    let image = image(&local, "image");
    local.shared().fail("the disk is gone");
    failed.changed().await.unwrap();
    assert_eq!(failed.borrow().as_deref(), Some("the disk is gone"));
    while head.changed().await.is_ok() {}
    let refused = stage.append(batch(&[payload(0, 1)])).await.unwrap_err();
    assert!(refused.to_string().contains("the disk is gone"), "{refused}");
    assert!(local.close().is_err());
    let (_local, stage) = open(&image);
    assert_eq!(read_all(&stage).await.0, all);
}
