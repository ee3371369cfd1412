//! A small stage path, what is put into it, and what must come out.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::record::{Batch, Offset, Timestamp};
use crate::stage::local::state::Command;
use crate::stage::local::trial::TrialCommand;
use crate::stage::local::writer::WOKEN;
use crate::stage::local::{
    Durability, LocalOptions, LocalPath, OnFull, Retention, StageRole, Tuning, batches, disk,
};
use crate::stage::path::{BatchPosition, BatchQuery, BatchSummary};
use crate::stage::{
    Appended, Gap, GapCause, Outage, OutageKind, Place, PlacedOutage, ReadLimit, SharedStage,
};

pub(super) const STAGE: &str = "trades";
pub(super) const PRODUCER: &str = "postgres";

/// Long enough for anything on a busy machine; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message and its offset.
pub(super) type Numbered = (u64, Vec<u8>);

/// A child of this binary that holds trials.
pub(super) fn trial() -> TrialCommand {
    TrialCommand::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .arg("stage::local::trial::tests::a_child_of_the_trials_below")
        .arg("--nocapture")
}

/// Generations of about 40 messages of 1 kB, so that rolling is exercised.
pub(super) fn tiny() -> Tuning {
    Tuning {
        seal_bytes: 40 << 10,
        codec: crate::stage::envelope::Codec::None,
        segment_bytes: 1 << 18,
        open_cache_bytes: 1 << 20,
        sealed_cache_bytes: 1 << 20,
        ring_bytes: 4 << 10,
        queue_bytes: 64 << 10,
        min_free: 0,
        reserve_bytes: 64 << 10,
        reservation: 1000,
        housekeeping: Duration::from_millis(20),
        trial: Some(trial()),
        ..Tuning::default()
    }
}

pub(super) fn options(path: &Path) -> LocalOptions {
    LocalOptions {
        path: path.to_owned(),
        durability: Durability::Fsync,
        retention: Retention {
            age: Duration::from_secs(3600),
            bytes: u64::MAX,
        },
        max_bytes: u64::MAX,
        on_full: OnFull::Block,
        tuning: tiny(),
    }
}

pub(super) fn roles() -> Vec<StageRole> {
    vec![role(STAGE)]
}

pub(super) fn role(name: &str) -> StageRole {
    StageRole {
        name: name.to_owned(),
        producers: vec![PRODUCER.to_owned()],
    }
}

/// All batches and outages of the stage, page by page.
pub(super) fn all_batches(local: &LocalPath) -> Vec<BatchSummary> {
    let stage = &local.shared().stages[STAGE];
    let mut query = BatchQuery {
        from: BatchPosition::default(),
        since: None,
        only_outages: false,
        limit: 3,
    };
    let mut all = Vec::new();
    loop {
        let page = batches::page(local.shared(), stage, query).unwrap();
        all.extend(page.batches);
        match page.next {
            Some(next) => query.from = next,
            None => return all,
        }
    }
}

pub(super) fn open(path: &Path) -> (LocalPath, SharedStage) {
    open_with(options(path))
}

pub(super) fn open_with(options: LocalOptions) -> (LocalPath, SharedStage) {
    let path = LocalPath::open(options, &roles()).unwrap();
    let stage = path.stage(STAGE).unwrap();
    (path, stage)
}

pub(super) fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = format!("message {number} ").into_bytes();
    payload.resize(bytes.max(payload.len()), b'.');
    payload
}

pub(super) fn batch(payloads: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::default();
    for payload in payloads {
        assert!(batch.push(payload, Timestamp::from_micros(7)));
    }
    batch
}

/// Appends one batch and waits until it is staged; returns its messages with their offsets.
pub(super) async fn append(stage: &SharedStage, payloads: Vec<Vec<u8>>) -> Vec<Numbered> {
    let accepted = stage.append(batch(&payloads)).await.unwrap();
    let Appended::Staged { first, .. } = accepted.durable().await.unwrap() else {
        panic!("not staged");
    };
    (first.get()..).zip(payloads).collect()
}

/// Appends `batches` batches of 10 messages of 1 kB.
pub(super) async fn fill(stage: &SharedStage, batches: u64) -> Vec<Numbered> {
    let mut all = Vec::new();
    for number in 0..batches {
        let payloads = (0..10).map(|n| payload(number * 10 + n, 1000)).collect();
        all.extend(append(stage, payloads).await);
    }
    all
}

/// Reads everything from `from` on, checking that batches and gaps together cover all offsets without overlap, and that every
/// message that was staged there is one that is read or one that a gap stands for.
pub(super) async fn read_from(stage: &SharedStage, from: u64) -> (Vec<Numbered>, Vec<Gap>) {
    let limit = ReadLimit {
        messages: 25,
        bytes: 1 << 20,
    };
    let (mut messages, mut gaps) = (Vec::new(), Vec::new());
    let mut at = Offset::new(from);
    while at < stage.bounds().head {
        let outcome = stage.read(at, limit).await.unwrap();
        assert!(outcome.next > at, "a read below the head makes progress");
        let mut pieces: Vec<_> = outcome.gaps.iter().map(|gap| (gap.from, gap.to)).collect();
        for batch in &outcome.batches {
            pieces.push((batch.first.max(at), batch.end()));
            let new = batch.messages_from(at);
            messages.extend(new.map(|(offset, message)| (offset.get(), message.payload.to_vec())));
        }
        pieces.sort();
        let end = pieces.iter().fold(at, |end, piece| {
            assert_eq!(piece.0, end, "offsets without a batch or a gap");
            piece.1
        });
        assert_eq!(end, outcome.next);
        gaps.extend(outcome.gaps);
        at = outcome.next;
    }
    let (bounds, before) = (stage.bounds(), stage.given_before(Offset::new(from)));
    if bounds.head == at && before.is_exact {
        let gone: u64 = gaps.iter().filter_map(|gap| gap.messages).sum();
        let staged = before.messages + messages.len() as u64 + gone;
        assert_eq!(bounds.staged, staged, "from {from}: {gaps:?}");
    }
    (messages, gaps)
}

/// Reads everything that is there.
pub(super) async fn read_all(stage: &SharedStage) -> (Vec<Numbered>, Vec<Gap>) {
    let oldest = stage.bounds().oldest.get();
    read_from(stage, oldest).await
}

/// All outages from a place up to the head, page by page.
pub(super) async fn outages_from(stage: &SharedStage, from: Place) -> Vec<PlacedOutage> {
    let head = stage.bounds().head;
    let (mut all, mut at) = (Vec::new(), from);
    loop {
        let page = stage.outages(at, head).await.unwrap();
        assert!(
            page.outages
                .iter()
                .all(|placed| placed.place >= at && placed.place < page.next)
        );
        all.extend(page.outages);
        if page.next.offset >= head && page.next >= *stage.watch_outages().borrow() {
            break;
        }
        assert!(page.next > at, "a page makes progress");
        at = page.next;
    }
    assert!(all.is_sorted_by(|one, other| one.place < other.place));
    all
}

/// Messages that gaps of this cause are known to stand for.
pub(super) fn messages_of(gaps: &[Gap], cause: GapCause) -> u64 {
    gaps.iter()
        .filter(|gap| gap.cause == cause)
        .filter_map(|gap| gap.messages)
        .sum()
}

/// The directory as a kill -9 would leave it between two commits.
pub(super) fn image(local: &LocalPath, name: &str) -> PathBuf {
    let shared = local.shared();
    let (path, image) = (shared.path.clone(), shared.path.with_file_name(name));
    let (done, copied) = std::sync::mpsc::channel();
    let copy = image.clone();
    let step = &shared.options.tuning.step;
    step.set(move |step| {
        if step == WOKEN {
            done.send(disk::copy_tree(&path, &copy)).ok();
        }
    });
    shared.commands.send(Command::Wake).unwrap();
    copied.recv_timeout(PATIENCE).unwrap().unwrap();
    step.set(|_| {});
    image
}

/// Waits until `done`; how often it is asked does not change what is asked.
pub(super) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until all sealed generations have their checksums and are closed.
pub(super) async fn until_settled(path: &LocalPath) {
    let shared = path.shared();
    until("all sealed generations are summed up", || {
        shared
            .catalog()
            .values()
            .all(|generation| generation.entry.summed || generation.entry.sealed_at.is_none())
    })
    .await;
    shared.settle_all(Duration::ZERO).unwrap();
}

pub(super) fn outage(cause: &str) -> Outage {
    Outage {
        from: Timestamp::from_micros(1),
        to: Timestamp::from_micros(2),
        messages: 0,
        cause: cause.to_owned(),
        kind: OutageKind::Disconnected,
    }
}
