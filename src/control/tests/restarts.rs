//! A producer's view of an engine that comes and goes.

use tokio_util::sync::CancellationToken;

use super::support::*;
use crate::record::Offset;
use crate::stage::path::StagePath as _;
use crate::stage::remote::RemotePath;
use crate::stage::{SharedStage, StageError};

async fn patient(path: &std::path::Path, stop: &CancellationToken) -> (RemotePath, SharedStage) {
    let remote = RemotePath::connect_patiently(path, stop.clone()).await.unwrap();
    let stage = remote.stage(STAGE).unwrap();
    (remote, stage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_waits_for_its_engine_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let engine = Engine::start(&path);
    let head = fill(&engine.stage, 10).await;
    let stop = CancellationToken::new();
    let (remote, stage) = patient(&path, &stop).await;
    stage.begun(PRODUCER).await.unwrap();
    assert_eq!(stage.read(Offset::ZERO, ALL).await.unwrap().next, head);
    engine.stop().await;

    // Asked while nobody is there: it waits.
    let waiting = std::sync::Arc::clone(&stage);
    let acked = tokio::spawn(async move { waiting.ack(PRODUCER, head).await });
    let engine = Engine::start(&path);
    acked.await.unwrap().unwrap();
    assert_eq!(engine.stage.cursor(PRODUCER), Some(head));
    let more = fill(&engine.stage, 5).await;
    let mut seen = stage.watch_head();
    seen.wait_for(|seen| *seen == more).await.unwrap();
    let read = stage.read(head, ALL).await.unwrap();
    assert_eq!(messages(&read, head).len(), 5);
    // The new engine was told that the producer has begun: a cursor of this life is no stranger's.
    assert_eq!(engine.stage.reach(PRODUCER), more);
    assert_eq!(engine.stage.reach("another"), head);
    remote.close().await.unwrap();
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_held_stays_so_when_its_engine_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let held = fill(&engine.stage, 10).await;
    let stop = CancellationToken::new();
    let (remote, stage) = patient(dir.path(), &stop).await;
    stage.begun(PRODUCER).await.unwrap();
    stage.hold(PRODUCER, held).await.unwrap();
    fill(&engine.stage, 10).await;
    engine.stop().await;
    let engine = Engine::start(dir.path());
    // Once it has been compared with the new life.
    stage.read(Offset::ZERO, ALL).await.unwrap();
    assert_eq!(
        (stage.reach(PRODUCER), engine.stage.reach(PRODUCER)),
        (held, held)
    );
    remote.close().await.unwrap();
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_told_to_stop_does_not_wait_for_its_engine() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let head = fill(&engine.stage, 10).await;
    let stop = CancellationToken::new();
    let (remote, stage) = patient(dir.path(), &stop).await;
    engine.stop().await;
    let reading = tokio::spawn(async move { stage.read(Offset::ZERO, ALL).await });
    stop.cancel();
    let read = reading.await.unwrap().unwrap();
    // Either it was before the engine had gone, or there was nothing to be had.
    assert!(read.next == Offset::ZERO || read.next == head);
    remote.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stage_path_in_the_same_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let engine = Engine::start(&path);
    fill(&engine.stage, 10).await;
    let (remote, stage) = patient(&path, &CancellationToken::new()).await;
    engine.stop().await;
    std::fs::rename(&path, dir.path().join("aside")).unwrap();
    let engine = Engine::start(&path);
    fill(&engine.stage, 10).await;
    let refused = stage.read(Offset::ZERO, ALL).await.unwrap_err();
    assert!(matches!(refused, StageError::Replaced { .. }), "{refused}");
    let error = remote.failed_for_good().await;
    assert!(matches!(error, StageError::Replaced { .. }), "{error}");
    remote.close().await.unwrap();
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_in_the_same_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("stage"), dir.path().join("old"));
    let engine = Engine::start(&path);
    fill(&engine.stage, 10).await;
    engine.stop().await;
    crate::stage::local::disk::copy_tree(&path, &old).unwrap();
    let engine = Engine::start(&path);
    fill(&engine.stage, 10).await;
    let (remote, stage) = patient(&path, &CancellationToken::new()).await;
    engine.stop().await;
    std::fs::rename(&path, dir.path().join("aside")).unwrap();
    std::fs::rename(&old, &path).unwrap();
    let engine = Engine::start(&path);
    let refused = stage.read(Offset::ZERO, ALL).await.unwrap_err();
    assert!(matches!(refused, StageError::Replaced { .. }), "{refused}");
    remote.close().await.unwrap();
    engine.stop().await;
}
