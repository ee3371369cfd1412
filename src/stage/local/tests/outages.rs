//! Outages in the order of a stage: found by whoever passes their place, once, whatever rolls, drops, stops or crashes lie
//! between.

use std::collections::BTreeSet;
use std::path::Path;

use super::support::*;
use crate::record::{Offset, Timestamp};
use crate::stage::local::database::wait_until_closed;
use crate::stage::local::{LocalOptions, LocalPath, OnFull, Retention, disk, generation};
use crate::stage::path::GenerationState;
use crate::stage::{GapCause, LastSeen, Outage, OutageKind, Place, SharedStage};

/// The causes of all outages from a place up to the head, page by page.
async fn causes_from(stage: &SharedStage, from: Place) -> Vec<String> {
    let all = outages_from(stage, from).await;
    all.into_iter().map(|placed| placed.outage.cause).collect()
}

async fn record(stage: &SharedStage, cause: &str) {
    let accepted = stage.append_outage(outage(cause)).await.unwrap();
    accepted.durable().await.unwrap();
}

fn start() -> Place {
    Place::default()
}

#[tokio::test]
async fn outages_are_found_in_their_places_over_many_generations_and_pages() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(dir.path());
    let mut expected = Vec::new();
    for number in 0..12 {
        // At some places several, so that a page ends among them.
        for nth in 0..=number % 7 {
            let cause = format!("{number} {nth}");
            record(&stage, &cause).await;
            expected.push((number * 10, cause));
        }
        fill(&stage, 1).await;
    }
    assert!(local.overview().generations.len() > 2, "it has rolled");
    let found: Vec<_> = outages_from(&stage, start())
        .await
        .into_iter()
        .map(|placed| (placed.place.offset.get(), placed.outage.cause))
        .collect();
    assert_eq!(found, expected);
    // From the midst of a place on, and up to the message at an offset.
    let from = Place {
        offset: Offset::new(60),
        sequence: 3,
    };
    let page = stage.outages(from, Offset::new(65)).await.unwrap();
    let causes: Vec<_> = page
        .outages
        .iter()
        .map(|placed| placed.outage.cause.as_str())
        .collect();
    assert_eq!(causes, ["6 3", "6 4", "6 5", "6 6"]);
    let page = stage.outages(page.next, Offset::new(65)).await.unwrap();
    assert_eq!((page.outages.len(), page.next), (0, Offset::new(65).into()));
    local.close().unwrap();
}

#[tokio::test]
async fn an_outage_behind_the_last_message_outlives_the_generation_that_it_was_recorded_in() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LocalOptions {
        retention: Retention {
            age: std::time::Duration::ZERO,
            bytes: 0,
        },
        ..options(dir.path())
    };
    let roles = [role(STAGE), role("busy")];
    let local = LocalPath::open(settings.clone(), &roles).unwrap();
    let (stage, busy) = (local.stage(STAGE).unwrap(), local.stage("busy").unwrap());
    let delivered = fill(&stage, 1).await.len() as u64;
    record(&stage, "first").await;
    record(&stage, "second").await;
    // Every message is delivered, and the other stage makes the path roll and drop.
    stage.ack(PRODUCER, Offset::new(delivered)).await.unwrap();
    fill(&busy, 30).await;
    busy.ack(PRODUCER, busy.bounds().head).await.unwrap();
    until("the generation is dropped", || {
        local.overview().generations[0].number > 1
    })
    .await;
    let at_head = Place::from(Offset::new(delivered));
    assert_eq!(causes_from(&stage, at_head).await, ["first", "second"]);
    assert_eq!(listed(&local, STAGE), ["first", "second"], "each is listed once");
    record(&stage, "third").await;
    local.close().unwrap();

    let local = LocalPath::open(settings, &roles).unwrap();
    let stage = local.stage(STAGE).unwrap();
    record(&stage, "fourth").await;
    fill(&stage, 1).await;
    assert_eq!(
        causes_from(&stage, at_head).await,
        ["first", "second", "third", "fourth"]
    );
    local.close().unwrap();
}

#[tokio::test]
async fn outages_before_skipped_offsets_are_found_and_no_place_is_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().join("stage");
    let (local, stage) = open(&path);
    fill(&stage, 1).await;
    record(&stage, "before the crash").await;
    path = image(&local, "image-1");
    drop(local);
    let (local, stage) = open(&path);
    let head = stage.bounds().head.get();
    assert!(head > 10, "offsets are skipped");
    record(&stage, "after it").await;
    let found = outages_from(&stage, Offset::new(10).into()).await;
    let places: Vec<_> = found
        .iter()
        .map(|placed| {
            (
                placed.place.offset.get(),
                placed.place.sequence,
                placed.follows.get(),
            )
        })
        .collect();
    assert_eq!(places, [(10, 0, 10), (head, 0, 10)]);
    // Also by whoever has passed the message before it, and stops before the next.
    let page = stage
        .outages(Offset::new(10).into(), Offset::new(head))
        .await
        .unwrap();
    assert_eq!(page.outages, found);

    path = image(&local, "image-2");
    drop(local);
    let (local, stage) = open(&path);
    record(&stage, "after another").await;
    fill(&stage, 8).await;
    let found = outages_from(&stage, start()).await;
    let causes: Vec<_> = found.iter().map(|placed| placed.outage.cause.as_str()).collect();
    assert_eq!(causes, ["before the crash", "after it", "after another"]);
    local.close().unwrap();
}

#[tokio::test]
async fn an_outage_is_told_once_it_is_durable_and_wakes_who_waits_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(dir.path());
    fill(&stage, 1).await;
    let mut waiting = stage.watch_outages();
    let here = Place::from(Offset::new(10));
    assert!(*waiting.borrow_and_update() <= here);
    record(&stage, "closed").await;
    assert_eq!(*waiting.wait_for(|end| *end > here).await.unwrap(), here.next());
    assert_eq!(
        local.glance(STAGE).unwrap().outages,
        Some(here.next()),
        "others are told as well"
    );
    local.close().unwrap();
}

#[tokio::test]
async fn what_a_lost_book_knew_of_outages_at_the_head_is_in_the_generations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let (local, stage) = open(&path);
    fill(&stage, 6).await;
    record(&stage, "at the head").await;
    local.close().unwrap();
    std::fs::remove_dir_all(path.join("meta")).unwrap();
    let (local, stage) = open(&path);
    assert_eq!(causes_from(&stage, start()).await, ["at the head"]);
    assert_eq!(listed(&local, STAGE), ["at the head"]);
    local.close().unwrap();
}

#[tokio::test]
async fn a_place_is_not_given_again_when_the_newest_generation_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let (local, stage) = open(&path);
    record(&stage, "gone").await;
    local.close().unwrap();
    std::fs::remove_dir_all(path.join("g-0")).unwrap();
    let (local, stage) = open(&path);
    record(&stage, "new").await;
    let found = outages_from(&stage, start()).await;
    assert_eq!(found.len(), 1);
    assert!(found[0].place > start().next(), "{:?}", found[0].place);
    local.close().unwrap();
}

#[tokio::test]
async fn what_is_dropped_undelivered_says_when_it_was_received_with_the_outages_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LocalOptions {
        max_bytes: 2 << 20,
        on_full: OnFull::DropOldest,
        ..options(dir.path())
    };
    let (local, stage) = open_with(settings);
    let mut first = outage("at the beginning");
    (first.from, first.to) = (Timestamp::from_micros(2), Timestamp::from_micros(5));
    stage.append_outage(first).await.unwrap().durable().await.unwrap();
    while !local.overview().stages[0]
        .gaps
        .iter()
        .any(|gap| gap.cause == GapCause::DroppedOldest)
    {
        fill(&stage, 5).await;
    }
    let gap = local.overview().stages[0].gaps[0].clone();
    let period = gap.period.unwrap();
    // Messages of these tests come at 7.
    assert_eq!((period.from.micros(), period.to.micros()), (2, 7));
    let dropped = stage.outages(start(), gap.to).await.unwrap();
    assert_eq!(dropped.outages, [], "it is gone, and the gap stands for it");
    local.close().unwrap();
}

#[tokio::test]
async fn refused_messages_are_an_outage_of_their_own_kind_with_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LocalOptions {
        max_bytes: 1 << 20,
        on_full: OnFull::DropNewest,
        ..options(dir.path())
    };
    let (local, stage) = open_with(settings);
    let mut refused = 0;
    while refused < 30 {
        let payloads: Vec<_> = (0..10).map(|number| payload(number, 1000)).collect();
        let accepted = stage.append(batch(&payloads)).await.unwrap();
        if let crate::stage::Appended::Dropped { messages } = accepted.durable().await.unwrap() {
            refused += messages;
        }
    }
    local.close().unwrap();
    let (local, stage) = open(dir.path());
    let found = outages_from(&stage, start()).await;
    let kinds: Vec<_> = found
        .iter()
        .map(|placed| (placed.outage.kind.clone(), placed.outage.messages))
        .collect();
    assert_eq!(kinds, [(OutageKind::DroppedNewest, refused)]);
    local.close().unwrap();
}

#[tokio::test]
async fn when_the_source_was_heard_last_is_known_after_every_kind_of_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().join("stage");
    let seen = |stage: &SharedStage| stage.last_seen().map(|seen| (seen.at.micros(), seen.stopped));
    let (local, stage) = open(&path);
    assert_eq!(stage.last_seen(), None, "a stage that is new");
    fill(&stage, 1).await;
    assert_eq!(
        stage.last_seen(),
        None,
        "what is heard now is no earlier process's"
    );
    path = image(&local, "killed");
    drop(local);

    let (local, stage) = open(&path);
    assert_eq!(
        seen(&stage),
        Some((7, false)),
        "messages of these tests come at 7"
    );
    let mut later = outage("later");
    later.to = Timestamp::from_micros(20);
    stage.append_outage(later).await.unwrap().durable().await.unwrap();
    path = image(&local, "killed-again");
    drop(local);

    let (local, stage) = open(&path);
    assert_eq!(seen(&stage), Some((20, false)));
    stage.note_stop(Timestamp::from_micros(30));
    local.close().unwrap();
    // Who only looks changes nothing about it.
    LocalPath::inspect_tuned(&path, &[], tiny())
        .unwrap()
        .close()
        .unwrap();
    let (local, stage) = open(&path);
    let stopped = LastSeen {
        at: Timestamp::from_micros(30),
        stopped: true,
    };
    assert_eq!(stage.last_seen(), Some(stopped));
    // Rolled generations do not hold the last that came; the book knows.
    let mut batch = batch(&[payload(1, 1000)]);
    for number in 0..100 {
        assert!(batch.push(&payload(number, 1000), Timestamp::from_micros(50)));
    }
    stage.append(batch).await.unwrap().durable().await.unwrap();
    until("it rolls", || local.overview().generations.len() > 1).await;
    path = image(&local, "killed-behind-a-roll");
    drop(local);
    let (local, stage) = open(&path);
    assert_eq!(seen(&stage), Some((50, false)));
    local.close().unwrap();
}

/// Takes from a closed path what earlier versions did not write: the index, and outages carried over by a roll.
fn make_earlier(path: &Path) {
    let mut seen = BTreeSet::new();
    for number in 0.. {
        let dir = generation::dir_of(path, number);
        if !dir.exists() {
            break;
        }
        let db = generation::open_settings(&tiny()).config(&dir).open().unwrap();
        assert!(db.drop_tree(generation::outages_tree_of(STAGE)).unwrap());
        db.open_tree("path").unwrap().remove("outages-indexed").unwrap();
        let tree = db.open_tree(generation::tree_of(STAGE)).unwrap();
        for key in tree.iter().keys() {
            let key = key.unwrap();
            let is_outage = key[8] & 0x80 != 0;
            if is_outage && !seen.insert(key.clone()) {
                tree.remove(key).unwrap();
            }
        }
        db.flush().unwrap();
        drop((tree, db));
        wait_until_closed(&dir).unwrap();
    }
}

/// The files of all sealed generations.
fn sealed_files(local: &LocalPath) -> Vec<Vec<disk::FileSum>> {
    let overview = local.overview();
    let sealed = overview
        .generations
        .iter()
        .filter(|found| found.state == GenerationState::Sealed);
    sealed
        .map(|found| disk::read_through(&generation::dir_of(local.directory(), found.number)).unwrap())
        .collect()
}

#[tokio::test]
async fn what_an_earlier_version_recorded_is_found_and_its_sealed_files_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(dir.path());
    let mut expected = Vec::new();
    for number in 0..12 {
        for nth in 0..=number % 3 {
            let cause = format!("{number} {nth}");
            record(&stage, &cause).await;
            expected.push(cause);
        }
        fill(&stage, 1).await;
    }
    record(&stage, "at the head").await;
    expected.push("at the head".to_owned());
    assert!(local.overview().generations.len() > 2, "it has rolled");
    local.close().unwrap();
    make_earlier(dir.path());

    let (local, stage) = open(dir.path());
    assert_eq!(causes_from(&stage, start()).await, expected);
    assert_eq!(listed(&local, STAGE), expected);
    let is_summed = || {
        local
            .shared()
            .catalog()
            .values()
            .all(|found| found.entry.state == GenerationState::Open || found.entry.summed)
    };
    until("what was changed by hand is summed up again", is_summed).await;
    let files = sealed_files(&local);
    assert_eq!(causes_from(&stage, start()).await, expected);
    local.close().unwrap();

    let (local, stage) = open(dir.path());
    assert_eq!(sealed_files(&local), files);
    assert_eq!(causes_from(&stage, start()).await, expected);
    // What was open then goes on as any other.
    record(&stage, "by this one").await;
    fill(&stage, 8).await;
    expected.push("by this one".to_owned());
    assert_eq!(causes_from(&stage, start()).await, expected);
    assert_eq!(listed(&local, STAGE), expected);
    local.close().unwrap();
}

/// The causes of the outages that are listed.
fn listed(local: &LocalPath, stage: &str) -> Vec<String> {
    assert_eq!(stage, STAGE);
    all_batches(local)
        .into_iter()
        .filter_map(|batch| batch.outage)
        .map(|outage: Outage| outage.cause)
        .collect()
}
