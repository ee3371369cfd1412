//! Looking into a path through [`StagePath`]: the records as they are stored, and forgetting what has left the configuration.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use super::damage::{overwrite, place_in_file, sealed};
use super::support::*;
use crate::record::Offset;
use crate::stage::envelope::{self, Assembler};
use crate::stage::local::state::lock;
use crate::stage::local::{LocalOptions, LocalPath, Retention, StageRole};
use crate::stage::path::{BatchPosition, BatchQuery, RecordPage, StagePath};
use crate::stage::{Gap, GapCause, ReadLimit, SharedStage, StageError};

const PAGE: ReadLimit = ReadLimit {
    messages: 25,
    bytes: 1 << 20,
};

/// All records from an offset on, decoded, and the gaps; each page continues the one before.
async fn records_from(local: &LocalPath, from: u64) -> (Vec<Numbered>, Vec<Gap>) {
    let head = local.shared().stages[STAGE].head();
    let (mut messages, mut gaps) = (Vec::new(), Vec::new());
    let mut at = Offset::new(from);
    while at < head {
        let page = local.records(STAGE, at, PAGE).await.unwrap();
        assert!(page.next > at, "a page below the head makes progress");
        let mut assembler = Assembler::new();
        for record in &page.records {
            let sealed = envelope::open(STAGE, &record.key, &record.value).unwrap();
            if let Some(batch) = assembler.push(&sealed).unwrap() {
                let new = batch.messages_from(at);
                messages.extend(new.map(|(offset, message)| (offset.get(), message.payload.to_vec())));
            }
        }
        assert!(assembler.is_empty(), "messages of several parts are whole");
        gaps.extend(page.gaps);
        at = page.next;
    }
    (messages, gaps)
}

/// The same through both ways, from an offset on.
async fn check_alike(local: &LocalPath, stage: &SharedStage, from: u64) -> (Vec<Numbered>, Vec<Gap>) {
    let read = read_from(stage, from).await;
    let (messages, gaps) = records_from(local, from).await;
    assert_eq!(messages, read.0);
    let range = |gap: &Gap| (gap.from, gap.to, gap.messages, gap.cause);
    assert_eq!(
        gaps.iter().map(range).collect::<Vec<_>>(),
        read.1.iter().map(range).collect::<Vec<_>>()
    );
    (messages, gaps)
}

#[tokio::test]
async fn records_hold_what_a_read_gives_from_any_offset_on_with_large_messages_and_without_outages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let (local, stage) = open(&path);
    let mut all = fill(&stage, 8).await;
    stage
        .append_outage(outage("closed"))
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    all.extend(
        append(
            &stage,
            vec![payload(1, 300_000), payload(2, 10), payload(3, 200_000)],
        )
        .await,
    );
    all.extend(fill(&stage, 2).await);
    for from in [0, 15, 80, 81, 82, 83, 102] {
        let (messages, gaps) = check_alike(&local, &stage, from).await;
        assert_eq!(messages, all[usize::try_from(from).unwrap()..]);
        assert_eq!(gaps, []);
    }
    let at_the_head = local.records(STAGE, Offset::new(103), PAGE).await.unwrap();
    let nothing = RecordPage {
        next: Offset::new(103),
        ..RecordPage::default()
    };
    assert_eq!(at_the_head, nothing);
    let elsewhere = local.records("another", Offset::new(5), PAGE).await.unwrap();
    assert_eq!((elsewhere.records.len(), elsewhere.next.get()), (0, 5));
}

#[tokio::test]
async fn records_step_over_skipped_offsets_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(&dir.path().join("stage"));
    fill(&stage, 2).await;
    let image = image(&local, "image");
    local.close().unwrap();
    let (local, stage) = open(&image);
    let skipped_to = stage.bounds().head.get();
    fill(&stage, 2).await;
    let (messages, gaps) = check_alike(&local, &stage, 0).await;
    assert_eq!(messages.len(), 40);
    assert_eq!(gaps.len(), 1);
    assert_eq!(
        (gaps[0].from.get(), gaps[0].to.get(), gaps[0].cause),
        (20, skipped_to, GapCause::Reservation)
    );
}

#[tokio::test]
async fn damaged_records_come_out_as_a_recorded_loss_and_nothing_else_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, all) = sealed(dir.path()).await;
    let db = path.join("g-1/db");
    overwrite(&db, place_in_file(&db, b"message 75 "), b"M");
    let (local, stage) = open(&path);
    let (messages, gaps) = records_from(&local, 0).await;
    let lost = messages_of(&gaps, GapCause::Lost);
    assert!(
        lost > 0 && gaps.iter().any(|gap| gap.from.get() <= 75 && 75 < gap.to.get()),
        "{gaps:?}"
    );
    assert_eq!(messages.len() as u64 + lost, all.len() as u64);
    assert_eq!(read_all(&stage).await.0, messages);
    assert_eq!(
        local.overview().stages[0].gaps.len(),
        gaps.len(),
        "it is recorded"
    );
}

/// Retention that keeps nothing that is delivered.
fn keep_nothing(mut options: LocalOptions) -> LocalOptions {
    options.retention = Retention {
        age: Duration::ZERO,
        bytes: 0,
    };
    options
}

fn other(name: &str, producers: &[&str]) -> StageRole {
    StageRole {
        name: name.to_owned(),
        producers: producers.iter().map(|name| (*name).to_owned()).collect(),
    }
}

#[tokio::test]
async fn what_the_configuration_names_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(&dir.path().join("stage"));
    let all = fill(&stage, 2).await;
    stage.ack(PRODUCER, Offset::new(5)).await.unwrap();
    let producer = local.forget_producer(STAGE, PRODUCER).await.unwrap_err();
    assert!(
        matches!(producer, StageError::StillConfigured { what } if what == "producer postgres of stage trades")
    );
    let whole = local.forget_stage(STAGE).await.unwrap_err();
    assert!(matches!(whole, StageError::StillConfigured { what } if what == "stage trades"));
    assert_eq!(
        (stage.cursor(PRODUCER), read_all(&stage).await.0),
        (Some(Offset::new(5)), all)
    );
    assert!(!local.forget_producer(STAGE, "nobody").await.unwrap());
    assert!(!local.forget_producer("nothing", PRODUCER).await.unwrap());
    assert_eq!(local.forget_stage("nothing").await.unwrap(), None);
}

#[tokio::test]
async fn a_producer_that_left_pins_its_generations_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let (local, stage) = open_with(keep_nothing(options(&path)));
    fill(&stage, 16).await;
    stage.ack("old", Offset::new(1)).await.unwrap();
    stage.ack(PRODUCER, Offset::new(160)).await.unwrap();
    until_settled(&local).await;
    let held = local.overview().generations.len();
    assert!(held > 3, "the old cursor holds them");
    // After a restart as well.
    local.close().unwrap();
    let (local, stage) = open_with(keep_nothing(options(&path)));
    until_settled(&local).await;
    assert_eq!(local.overview().generations[0].number, 0);

    assert!(local.forget_producer(STAGE, "old").await.unwrap());
    assert_eq!(stage.cursor("old"), None);
    until("the generations are dropped", || {
        local.overview().generations.len() == 1
    })
    .await;
    local.close().unwrap();
    let (local, _stage) = open_with(keep_nothing(options(&path)));
    assert!(
        !local.overview().stages[0].producers.contains_key("old"),
        "it stays forgotten"
    );
}

#[tokio::test]
async fn a_stage_that_left_is_forgotten_whole_recorded_as_dropped_and_pins_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let settings = keep_nothing(options(&path));
    let (local, stage) = open_with(settings.clone());
    fill(&stage, 16).await;
    stage.ack(PRODUCER, Offset::new(7)).await.unwrap();
    local.close().unwrap();

    let roles = [other("another", &[PRODUCER])];
    let local = LocalPath::open(settings.clone(), &roles).unwrap();
    until_settled(&local).await;
    assert!(local.overview().generations.len() > 3, "what it holds is kept");
    assert_eq!(local.forget_stage(STAGE).await.unwrap(), Some(160));
    let summary = local.overview();
    let forgotten = summary.stage(STAGE).unwrap();
    assert_eq!((forgotten.messages, forgotten.producers.len()), (0, 0));
    assert_eq!(messages_of(&forgotten.gaps, GapCause::DroppedOldest), 160);
    assert_eq!(
        local.forget_stage(STAGE).await.unwrap(),
        Some(0),
        "again is nothing more"
    );
    until("the generations are dropped", || {
        local.overview().generations.len() == 1
    })
    .await;
    local.close().unwrap();

    // When it comes back it goes on behind what was given up.
    let (local, stage) = open_with(settings);
    assert_eq!(append(&stage, vec![payload(0, 10)]).await[0].0, 160);
    assert_eq!(local.overview().stage(STAGE).unwrap().messages, 1);
}

/// On a full disk a sealed generation is opened once there is room, and whoever wants to see it waits on a thread until then, even
/// when nobody waits for the answer any more.
#[test]
fn looks_that_nobody_waits_for_any_more_take_no_thread_from_the_pipeline() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(20)
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(dir.path());
    runtime.block_on(async {
        fill(&stage, 200).await;
        until("the first one is closed", || {
            local.shared().settle(0, Duration::ZERO).unwrap_or(false)
        })
        .await;
    });
    let local = Arc::new(local);
    let no_room = lock(&local.shared().opening);
    let query = BatchQuery {
        from: BatchPosition::default(),
        since: None,
        only_outages: false,
        limit: 1,
    };
    runtime.block_on(async {
        for _ in 0..40 {
            let local = Arc::clone(&local);
            let mut look = Box::pin(async move { local.batches(STAGE, query).await });
            assert!(futures_util::poll!(&mut look).is_pending());
        }
        let other = tokio::task::spawn_blocking(|| ());
        let other = tokio::time::timeout(Duration::from_secs(30), other).await;
        other.expect("a thread for the pipeline").unwrap();
    });
    drop(no_room);
    local.close().unwrap();
}

/// Root's umask may leave to nobody else what sled makes when it opens a database.
#[tokio::test]
async fn what_root_leaves_in_the_path_of_another_user_is_that_users() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can give files away: not tried");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (local, stage) = open(dir.path());
    fill(&stage, 10).await;
    local.close().unwrap();
    // A sled file without its snapshot gets a new one.
    for entry in std::fs::read_dir(dir.path().join("g-0")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let (uid, gid) = (65_534, 65_533);
    let give = |path: &std::path::Path| std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    for_each_below(dir.path(), &mut |path, _| give(path));
    give(dir.path());
    let local = LocalPath::inspect_tuned(dir.path(), &[], tiny()).unwrap();
    local.close().unwrap();
    let mut others = Vec::new();
    for_each_below(dir.path(), &mut |path, found| {
        if (found.uid(), found.gid()) != (uid, gid) {
            others.push(path.to_owned());
        }
    });
    assert!(others.is_empty(), "{others:?}");
    assert!(
        std::fs::read_dir(dir.path().join("g-0")).unwrap().count() > 2,
        "sled has made its snapshot again"
    );
}

fn for_each_below(dir: &std::path::Path, visit: &mut impl FnMut(&std::path::Path, &std::fs::Metadata)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let found = std::fs::symlink_metadata(&path).unwrap();
        visit(&path, &found);
        if found.is_dir() {
            for_each_below(&path, visit);
        }
    }
}
