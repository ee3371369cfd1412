//! What a caller may do that is rare: cursors that go back, reads beyond the head, outages while the path is full or right
//! behind each other over many starts, and a newest generation that is gone.

use super::support::*;
use crate::record::{Batch, Offset, Timestamp};
use crate::stage::envelope::MAX_MESSAGE;
use crate::stage::local::{LocalOptions, LocalPath, OnFull, disk};
use crate::stage::path::StagePath as _;
use crate::stage::{GapCause, ReadLimit, StageError};

const LIMIT: ReadLimit = ReadLimit {
    messages: 100,
    bytes: 1 << 20,
};

fn causes(local: &LocalPath) -> Vec<(u64, String)> {
    all_batches(local)
        .into_iter()
        .filter_map(|batch| Some((batch.first.get(), batch.outage?.cause)))
        .collect()
}

#[tokio::test]
async fn a_cursor_that_goes_back_pins_again_and_is_kept_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path());
    let (local, stage) = open_with(settings.clone());
    let all = fill(&stage, 20).await;
    stage.ack(PRODUCER, stage.bounds().head).await.unwrap();
    stage.ack(PRODUCER, Offset::new(3)).await.unwrap();
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(3)));
    local.close().unwrap();
    // Were it not for the cursor, everything would be dropped now.
    settings.retention.age = std::time::Duration::ZERO;
    let (local, stage) = open_with(settings);
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(3)));
    until_settled(&local).await;
    assert_eq!(read_from(&stage, 3).await, (all[3..].to_vec(), vec![]));
    stage.ack(PRODUCER, stage.bounds().head).await.unwrap();
    until("what it pinned is dropped", || {
        local.overview().generations.len() == 1
    })
    .await;
}

/// Settings with which nothing is written in the book but by a roll.
fn without_housekeeping(path: &std::path::Path) -> LocalOptions {
    let mut settings = options(path);
    settings.tuning.housekeeping = std::time::Duration::from_secs(3600);
    settings
}

#[tokio::test]
async fn a_cursor_that_is_forgotten_and_comes_back_at_the_same_offset_is_kept_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open_with(without_housekeeping(dir.path()));
    stage.ack("other", Offset::new(5)).await.unwrap();
    fill(&stage, 60).await;
    assert!(
        local.overview().generations.len() > 1,
        "written in the book by a roll"
    );
    assert!(local.forget_producer(STAGE, "other").await.unwrap());
    stage.ack("other", Offset::new(5)).await.unwrap();
    local.close().unwrap();
    let (_local, stage) = open(dir.path());
    assert_eq!(stage.cursor("other"), Some(Offset::new(5)));
}

#[tokio::test]
async fn a_pin_and_a_hold_and_its_end_are_durable_whoever_is_killed_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("path");
    let mut settings = without_housekeeping(&path);
    // Nothing is made or renamed while it is copied.
    settings.tuning.seal_bytes = u64::MAX;
    let (_local, stage) = open_with(settings);
    fill(&stage, 10).await;
    stage.pin("pinned", Offset::new(3)).await.unwrap();
    stage.hold(PRODUCER, Offset::new(4)).await.unwrap();
    assert_eq!(stage.reach(PRODUCER), Offset::ZERO, "never more than without it");

    let killed = dir.path().join("killed");
    disk::copy_tree(&path, &killed).unwrap();
    let (copy, of_copy) = open_with(without_housekeeping(&killed));
    assert!(of_copy.bounds().given_from.get() > 1000, "behind the reservation");
    assert_eq!(of_copy.cursor("pinned"), Some(Offset::new(3)));
    assert_eq!(of_copy.reach(PRODUCER), Offset::new(4));
    let held = copy.overview().stages[0].producers[PRODUCER].held_at;
    assert_eq!(held, Some(Offset::new(4)));
    of_copy.begun(PRODUCER).await.unwrap();
    assert_eq!(of_copy.reach(PRODUCER), of_copy.bounds().head);

    let again = dir.path().join("again");
    disk::copy_tree(&killed, &again).unwrap();
    let (copy, of_copy) = open_with(without_housekeeping(&again));
    assert_eq!(of_copy.reach(PRODUCER), of_copy.bounds().given_from);
    assert_eq!(copy.overview().stages[0].producers[PRODUCER].held_at, None);
}

#[tokio::test]
async fn a_message_that_no_record_can_hold_is_refused_and_disturbs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(dir.path());
    let mut batch = Batch::default();
    assert!(batch.push(&vec![b'x'; MAX_MESSAGE + 1], Timestamp::now()));
    let refused = stage.append(batch).await.unwrap_err();
    assert!(matches!(refused, StageError::TooLarge { .. }), "{refused}");
    let all = fill(&stage, 1).await;
    assert_eq!(read_from(&stage, 0).await, (all, vec![]));
    local.close().unwrap();
}

#[tokio::test]
async fn a_read_at_the_head_or_beyond_it_is_empty_and_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (_local, stage) = open(dir.path());
    fill(&stage, 1).await;
    for from in [10, 11, u64::MAX] {
        let read = stage.read(Offset::new(from), LIMIT).await.unwrap();
        assert_eq!(read.next.get(), from);
        assert!(read.batches.is_empty() && read.gaps.is_empty());
        assert_eq!(stage.count_between(Offset::new(from), Offset::new(u64::MAX)), 0);
        assert_eq!(stage.count_between(Offset::new(from), Offset::ZERO), 0);
    }
    assert_eq!(stage.count_between(Offset::new(4), Offset::new(u64::MAX)), 6);
}

#[tokio::test]
async fn outages_at_one_place_are_all_kept_over_clean_and_unclean_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().join("stage");
    let mut expected = Vec::new();
    for start in 0..6 {
        let (local, stage) = open(&path);
        if start == 0 {
            fill(&stage, 1).await;
        }
        for number in 0..3 {
            let cause = format!("{start} {number}");
            stage
                .append_outage(outage(&cause))
                .await
                .unwrap()
                .durable()
                .await
                .unwrap();
            expected.push(cause);
        }
        if start % 2 == 0 {
            local.close().unwrap();
        } else {
            path = image(&local, &format!("image-{start}"));
        }
    }
    let (local, _stage) = open(&path);
    let found: Vec<_> = causes(&local).into_iter().map(|(_, cause)| cause).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn an_outage_is_recorded_behind_the_batches_that_wait_for_room_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LocalOptions {
        max_bytes: 1 << 20,
        on_full: OnFull::Block,
        ..options(dir.path())
    };
    let (local, stage) = open_with(settings);
    let mut waiting = loop {
        let payloads: Vec<_> = (0..10).map(|number| payload(number, 1000)).collect();
        let accepted = stage.append(batch(&payloads)).await.unwrap();
        let mut durable = Box::pin(accepted.durable());
        let patience = std::time::Duration::from_secs(1);
        if tokio::time::timeout(patience, &mut durable).await.is_err() {
            break durable;
        }
    };
    let head = stage.bounds().head;
    let recording = tokio::spawn({
        let stage = stage.clone();
        async move { stage.append_outage(outage("behind")).await?.durable().await }
    });
    tokio::task::yield_now().await;
    stage.ack(PRODUCER, head).await.unwrap();
    (&mut waiting).await.unwrap();
    recording.await.unwrap().unwrap();
    let end = head.advanced_by(10).get();
    assert_eq!(causes(&local), [(end, "behind".to_owned())]);
}

#[tokio::test]
async fn what_a_missing_newest_generation_held_behind_the_booked_head_is_a_loss_of_unknown_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let mut settings = options(&path);
    // The book's head stays behind.
    settings.tuning.housekeeping = std::time::Duration::from_secs(3600);
    settings.tuning.seal_bytes = 1 << 30;
    let (local, stage) = open_with(settings.clone());
    fill(&stage, 2).await;
    settings.path = image(&local, "image");
    std::fs::remove_dir_all(settings.path.join("g-0")).unwrap();
    let (_local, stage) = open_with(settings);
    let (read, gaps) = read_from(&stage, 0).await;
    assert_eq!(read, []);
    assert!(stage.bounds().is_uncounted);
    assert!(!gaps.is_empty());
    for gap in gaps {
        assert_eq!(
            (gap.cause, gap.messages),
            (GapCause::Lost, None),
            "nothing says that nothing was there"
        );
    }
}
