//! A full path: what each `on_full` does, what a drop gives back, and what pins.

use std::time::Duration;

use super::support::*;
use crate::record::Offset;
use crate::stage::local::{LEAST_MAX_BYTES, LocalOptions, OnFull, Retention, Tuning, disk};
use crate::stage::path::StagePath;
use crate::stage::{Appended, GapCause, Given};

fn small(path: &std::path::Path, on_full: OnFull) -> LocalOptions {
    LocalOptions {
        max_bytes: 1 << 20,
        on_full,
        ..options(path)
    }
}

#[tokio::test]
async fn a_full_path_blocks_and_goes_on_by_itself_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open_with(small(dir.path(), OnFull::Block));
    let filling = tokio::spawn({
        let stage = stage.clone();
        async move { fill(&stage, 150).await }
    });
    until("the path is full", || {
        let used: u64 = local
            .overview()
            .generations
            .iter()
            .map(|generation| generation.bytes)
            .sum();
        used >= 1 << 20
    })
    .await;
    assert!(!filling.is_finished());
    // A producer delivers what is there, again and again, until all has come.
    let (mut at, mut read) = (Offset::ZERO, Vec::new());
    while read.len() < 1500 {
        let (new, gaps) = read_from(&stage, at.get()).await;
        assert_eq!(gaps, []);
        read.extend(new);
        at = Offset::new(read.last().map_or(0, |(offset, _)| offset + 1));
        stage.ack(PRODUCER, at).await.unwrap();
        let mut head = stage.watch_head();
        if read.len() < 1500 {
            head.wait_for(|head| *head > at).await.unwrap();
        }
    }
    assert_eq!(filling.await.unwrap(), read);
}

#[tokio::test]
async fn drop_oldest_drops_whole_generations_and_records_what_was_not_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let (_local, stage) = open_with(small(dir.path(), OnFull::DropOldest));
    let mut all = fill(&stage, 5).await;
    stage.ack(PRODUCER, Offset::new(5)).await.unwrap();
    all.extend(fill(&stage, 200).await);
    let (read, gaps) = read_from(&stage, 5).await;
    let dropped = messages_of(&gaps, GapCause::DroppedOldest);
    assert!(dropped > 0);
    assert_eq!(read.len() as u64 + dropped + 5, all.len() as u64);
    assert!(all.ends_with(&read));
    assert_eq!(gaps[0].from.get(), 5);
    assert_eq!(stage.bounds().staged, all.len() as u64);
    assert_eq!(
        stage.given_before(Offset::new(5)),
        Given {
            messages: 5,
            is_exact: false
        }
    );
}

#[tokio::test]
async fn drop_newest_counts_what_it_refuses_and_records_an_outage() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open_with(small(dir.path(), OnFull::DropNewest));
    let (mut staged, mut refused) = (0, 0);
    while refused < 30 {
        let payloads: Vec<_> = (0..10).map(|n| payload(n, 1000)).collect();
        let accepted = stage.append(batch(&payloads)).await.unwrap();
        match accepted.durable().await.unwrap() {
            Appended::Staged { .. } => staged += 10,
            Appended::Dropped { messages } => refused += messages,
        }
    }
    assert_eq!(read_all(&stage).await.0.len() as u64, staged);
    assert_eq!(local.overview().stages[0].refused, refused);
    local.close().unwrap();
    let (local, _stage) = open_with(small(dir.path(), OnFull::DropNewest));
    assert_eq!(local.overview().stages[0].refused, refused);
    let outages: Vec<_> = all_batches(&local)
        .into_iter()
        .filter_map(|batch| batch.outage)
        .collect();
    let recorded: u64 = outages.iter().map(|outage| outage.messages).sum();
    assert_eq!(recorded, refused);
    assert!(outages.iter().all(|outage| outage.cause == "stage full"));
}

#[tokio::test]
async fn what_is_delivered_and_past_its_retention_gives_the_disk_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path());
    settings.retention = Retention {
        age: Duration::ZERO,
        bytes: 0,
    };
    let (local, stage) = open_with(settings);
    let all = fill(&stage, 60).await;
    until_settled(&local).await;
    let full = disk::dir_bytes(dir.path()).unwrap();
    assert!(
        local.overview().generations.len() > 5,
        "nothing is dropped before it is delivered"
    );
    stage.ack(PRODUCER, stage.bounds().head).await.unwrap();
    until("all but a little is dropped", || {
        local.overview().generations.len() == 1
    })
    .await;
    let left = disk::dir_bytes(dir.path()).unwrap();
    assert!(left < full / 2, "{left} of {full}");
    assert_eq!(stage.count_between(Offset::ZERO, stage.bounds().head), 0);
    // A cursor from before is told so.
    let (read, gaps) = read_from(&stage, 0).await;
    assert_eq!(read, []);
    assert!(gaps.iter().all(|gap| gap.cause == GapCause::Expired), "{gaps:?}");
    assert_eq!(messages_of(&gaps, GapCause::Expired), all.len() as u64);
    assert_eq!(stage.bounds().staged, all.len() as u64);
    assert_eq!(append(&stage, vec![payload(0, 1)]).await[0].0, all.len() as u64);
}

#[tokio::test]
async fn a_cursor_that_the_configuration_no_longer_names_pins_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path());
    settings.retention.age = Duration::ZERO;
    let (local, stage) = open_with(settings);
    fill(&stage, 20).await;
    stage.ack("gone", Offset::new(3)).await.unwrap();
    stage.ack(PRODUCER, stage.bounds().head).await.unwrap();
    local.shared().meta().unwrap().load().unwrap();
    let before = local.overview().generations.len();
    assert_eq!(stage.bounds().oldest, Offset::ZERO);
    assert!(local.forget_producer(STAGE, "gone").await.unwrap());
    assert!(!local.forget_producer(STAGE, "gone").await.unwrap());
    until("what it pinned is dropped", || {
        local.overview().generations.len() < before
    })
    .await;
}

/// A path as it is in production, of so many bytes.
fn real(path: &std::path::Path, max_bytes: u64, on_full: OnFull) -> LocalOptions {
    LocalOptions {
        max_bytes,
        on_full,
        tuning: Tuning {
            min_free: 0,
            reserve_bytes: 0,
            housekeeping: Duration::from_millis(20),
            ..Tuning::default()
        },
        ..options(path)
    }
}

/// Payloads that no compression makes smaller.
fn noise() -> Vec<Vec<u8>> {
    let payload = || (0..1000).map(|_| rand::random()).collect();
    (0..500).map(|_| payload()).collect()
}

/// Half a megabyte each, of which the disk takes more than twice as much: more than the path holds.
const FLOOD: usize = 70;

#[tokio::test]
async fn the_least_size_holds_something_whatever_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open_with(real(dir.path(), LEAST_MAX_BYTES, OnFull::DropOldest));
    let mut least_kept = u64::MAX;
    for number in 0..FLOOD {
        append(&stage, noise()).await;
        let used: u64 = local.overview().generations.iter().map(|one| one.bytes).sum();
        assert!(used < LEAST_MAX_BYTES + (8 << 20), "{used}");
        let bounds = stage.bounds();
        if number > 10 {
            least_kept = least_kept.min(bounds.head.get() - bounds.oldest.get());
        }
    }
    println!("at least {least_kept} messages are kept");
    assert!(least_kept >= 2000, "{least_kept}");
}

#[tokio::test]
async fn the_least_size_lets_everything_through_that_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let (_local, stage) = open_with(real(dir.path(), LEAST_MAX_BYTES, OnFull::Block));
    for _ in 0..FLOOD {
        append(&stage, noise()).await;
        stage.ack(PRODUCER, stage.bounds().head).await.unwrap();
    }
}
