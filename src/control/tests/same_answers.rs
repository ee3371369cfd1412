//! Whatever a stage holds, it reads the same over the socket as from the files.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::*;
use crate::record::Offset;
use crate::stage::local::disk;
use crate::stage::path::{BatchPosition, BatchQuery, StagePath};
use crate::stage::remote::RemotePath;
use crate::stage::{GapCause, Outage, OutageKind, Place, ReadLimit};

/// What is done to a stage before it is compared.
#[derive(Clone, Debug)]
enum Step {
    /// Messages of these lengths in one batch.
    Append(Vec<usize>),
    /// A stretch without a connection.
    Outage,
    /// The engine is killed and started again: offsets are skipped.
    Crash,
    /// A producer acknowledges so many percent.
    Ack(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(0..300_usize, 1..40).prop_map(Step::Append),
        // A message of several parts.
        2 => (60_000..300_000_usize).prop_map(|bytes| Step::Append(vec![10, bytes, 10])),
        1 => Just(Step::Outage),
        2 => Just(Step::Crash),
        1 => (0..=100_u64).prop_map(Step::Ack),
    ]
}

/// A payload that does not compress to nothing.
fn payload(seed: usize, bytes: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Does the steps; returns the directory where the engine would be started next.
async fn made_by(home: &Path, steps: &[Step]) -> std::path::PathBuf {
    let mut path = home.join("stage-0");
    let mut local = open(&path);
    for (number, step) in steps.iter().enumerate() {
        let stage = local.stage(STAGE).unwrap();
        match step {
            Step::Append(lengths) => {
                let payloads: Vec<_> = lengths
                    .iter()
                    .enumerate()
                    .map(|(index, bytes)| payload(number * 100 + index, *bytes))
                    .collect();
                append(&stage, &payloads).await;
            }
            Step::Outage => {
                let outage = Outage {
                    from: crate::record::Timestamp::from_micros(1),
                    to: crate::record::Timestamp::from_micros(2),
                    messages: 0,
                    cause: "for the test".to_owned(),
                    kind: OutageKind::Disconnected,
                };
                stage
                    .append_outage(outage)
                    .await
                    .unwrap()
                    .durable()
                    .await
                    .unwrap();
            }
            Step::Crash => {
                // Nothing is under way: what lies there now is what a kill would leave.
                let next = home.join(format!("stage-{}", number + 1));
                // But a generation is made ready ahead of need, and a copy that met it half made is taken again.
                while disk::copy_tree(&path, &next).is_err() {
                    std::fs::remove_dir_all(&next).unwrap();
                }
                local.close().unwrap();
                path = next;
                local = open(&path);
            }
            Step::Ack(percent) => {
                let head = stage.bounds().head.get();
                stage
                    .ack(PRODUCER, Offset::new(head * percent / 100))
                    .await
                    .unwrap();
            }
        }
    }
    local.close().unwrap();
    path
}

/// Compares all that both ways can be asked.
async fn compare(engine: &Engine, from: u64, limit: ReadLimit) {
    let remote = RemotePath::connect(engine.local.directory()).await.unwrap();
    let local: &dyn StagePath = &*engine.local;
    assert_eq!(remote.summary().await.unwrap(), local.summary().await.unwrap());
    let far = remote.stage(STAGE).unwrap();
    let near = &engine.stage;
    assert_eq!(far.bounds(), near.bounds());
    assert_eq!(far.cursor(PRODUCER), near.cursor(PRODUCER));
    let head = near.bounds().head;
    let mut at = Offset::new(from.min(head.get()));
    assert_eq!(far.count_between(at, head), near.count_between(at, head));
    loop {
        assert_eq!(
            remote.records(STAGE, at, limit).await.unwrap(),
            local.records(STAGE, at, limit).await.unwrap()
        );
        let (there, here) = (
            far.read(at, limit).await.unwrap(),
            near.read(at, limit).await.unwrap(),
        );
        assert_eq!(messages(&there, at), messages(&here, at));
        assert_eq!((there.gaps, there.next), (here.gaps, here.next));
        if here.next == at {
            break;
        }
        at = here.next;
    }
    let mut place = Place::from(Offset::new(from.min(head.get())));
    loop {
        let page = near.outages(place, head).await.unwrap();
        assert_eq!(far.outages(place, head).await.unwrap(), page);
        if page.next.offset >= head {
            break;
        }
        place = page.next;
    }
    assert!(*far.watch_outages().borrow() <= *near.watch_outages().borrow());
    let mut query = BatchQuery {
        from: BatchPosition::default(),
        since: None,
        only_outages: false,
        limit: 7,
    };
    loop {
        let page = local.batches(STAGE, query).await.unwrap();
        assert_eq!(remote.batches(STAGE, query).await.unwrap(), page);
        match page.next {
            Some(next) => query.from = next,
            None => break,
        }
    }
    remote.close().await.unwrap();
}

#[test]
fn whatever_was_staged_reads_the_same_over_the_socket_as_from_the_files() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    });
    let steps = prop::collection::vec(step(), 1..12);
    let asked = (steps, 0..2_000_u64, 1..200_usize, 1..400_000_usize);
    let checked = runner.run(&asked, |(steps, from, messages, bytes)| {
        runtime.block_on(async {
            let home = tempfile::tempdir().unwrap();
            let path = made_by(home.path(), &steps).await;
            let engine = Engine::start(&path);
            for from in [0, from] {
                compare(&engine, from, ReadLimit { messages, bytes }).await;
            }
            engine.stop().await;
        });
        Ok(())
    });
    checked.unwrap();
}

#[tokio::test]
async fn a_damaged_stretch_is_the_same_loss_over_the_socket_as_from_the_files() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("stage");
    let local = open(&path);
    let stage = local.stage(STAGE).unwrap();
    for seed in 0..12 {
        append(&stage, &[payload(seed, 50_000), b"needle".to_vec()]).await;
    }
    until("generations are sealed", || {
        local.overview().generations.len() > 2
    })
    .await;
    local.close().unwrap();
    let db = path.join("g-0/db");
    let mut bytes = std::fs::read(&db).unwrap();
    let needle = &payload(0, 50_000)[100..200];
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&db, bytes).unwrap();

    let engine = Engine::start(&path);
    let remote = RemotePath::connect(&path).await.unwrap();
    let far = remote.stage(STAGE).unwrap();
    let over_there = far.read(Offset::ZERO, ALL).await.unwrap();
    assert!(over_there.gaps.iter().any(|gap| gap.cause == GapCause::Lost));
    remote.close().await.unwrap();
    compare(&engine, 0, ALL).await;
    engine.stop().await;
}
