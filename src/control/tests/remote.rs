//! The client as tools use it.

use super::support::*;
use crate::exit::ExitReason;
use crate::record::{Batch, Offset};
use crate::stage::path::{StagePath as _, replay_cursor};
use crate::stage::remote::RemotePath;
use crate::stage::report::{Condition, DeliveryState, Outcomes, Passed, Report};
use crate::stage::{Outage, OutageKind, StageError};

#[tokio::test]
async fn only_the_owner_appends() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let remote = RemotePath::connect(dir.path()).await.unwrap();
    let stage = remote.stage(STAGE).unwrap();
    let refused = stage.append(Batch::default()).await.unwrap_err();
    assert!(matches!(refused, StageError::NotOwner { .. }));
    let outage = Outage {
        from: crate::record::Timestamp::from_micros(1),
        to: crate::record::Timestamp::from_micros(2),
        messages: 0,
        cause: String::new(),
        kind: OutageKind::Disconnected,
    };
    assert!(stage.append_outage(outage).await.is_err());
    engine.stop().await;
}

#[tokio::test]
async fn cursors_are_acknowledged_pinned_and_forgotten_from_afar() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let head = fill(&engine.stage, 10).await;
    let remote = RemotePath::connect(dir.path()).await.unwrap();
    let stage = remote.stage(STAGE).unwrap();
    stage.ack(PRODUCER, head).await.unwrap();
    assert_eq!(
        (engine.stage.cursor(PRODUCER), stage.cursor(PRODUCER)),
        (Some(head), Some(head))
    );
    let replay = replay_cursor(PRODUCER);
    stage.ack(&replay, Offset::new(4)).await.unwrap();
    assert_eq!(engine.stage.cursor(&replay), Some(Offset::new(4)));
    assert!(remote.forget_producer(STAGE, &replay).await.unwrap());
    assert!(!remote.forget_producer(STAGE, &replay).await.unwrap());
    assert_eq!(engine.stage.cursor(&replay), None);

    let refused = remote.forget_producer(STAGE, PRODUCER).await.unwrap_err();
    let here = engine.local.forget_producer(STAGE, PRODUCER).await.unwrap_err();
    assert_eq!(refused, here);
    assert_eq!(refused.exit_reason(), ExitReason::Configuration);
    assert_eq!(remote.forget_stage("other").await.unwrap(), None);
    engine.stop().await;
}

/// Before anything else of the engine has come: whoever asks it too early would take its own cursor for another's.
#[tokio::test]
async fn how_far_a_cursor_may_reach_is_known_from_the_first_moment_on() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    engine.stage.begun(PRODUCER).await.unwrap();
    let head = fill(&engine.stage, 10).await;
    let remote = RemotePath::connect(dir.path()).await.unwrap();
    assert_eq!(remote.stage(STAGE).unwrap().reach(PRODUCER), head);
    assert_eq!(remote.stage(STAGE).unwrap().reach("another"), Offset::ZERO);

    remote
        .stage(STAGE)
        .unwrap()
        .hold(PRODUCER, Offset::new(4))
        .await
        .unwrap();
    assert_eq!(engine.stage.reach(PRODUCER), Offset::new(4));
    let remote = RemotePath::connect(dir.path()).await.unwrap();
    let stage = remote.stage(STAGE).unwrap();
    assert_eq!(stage.reach(PRODUCER), Offset::new(4));
    stage.begun(PRODUCER).await.unwrap();
    assert_eq!(
        (stage.reach(PRODUCER), engine.stage.reach(PRODUCER)),
        (head, head)
    );
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_told_from_afar_and_accounts_for_every_message_in_status_and_summary() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    fill(&engine.stage, 10).await;
    let remote = RemotePath::connect(dir.path()).await.unwrap();
    let stage = remote.stage(STAGE).unwrap();
    let passed = Passed {
        cursor: Offset::new(6),
        outcomes: Outcomes {
            delivered: 3,
            ignored: 2,
            dead_letters: 1,
            ..Outcomes::default()
        },
    };
    let report = Report {
        condition: Condition::new(DeliveryState::Held, "no rights", "grant them"),
        passed: Some(passed),
    };
    assert!(stage.report(PRODUCER, &report).await);
    // Nobody knows this one: it takes no room.
    assert!(stage.report("unknown", &report).await);
    let summary = remote.summary().await.unwrap();
    let producers = &summary.stage(STAGE).unwrap().producers;
    assert_eq!(producers.len(), 1);
    let told = producers[PRODUCER].delivery.clone().unwrap();
    assert_eq!(told.condition, report.condition);
    let balance = told.balance.unwrap();
    assert_eq!(
        (balance.received, balance.pending, balance.difference()),
        (10, 4, 0)
    );
    assert_eq!(summary.stage(STAGE).unwrap().balance(passed), balance);

    let (status, body) = ask(dir.path(), "GET /v1/status", "").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let delivery = &body["deliveries"][STAGE][PRODUCER];
    assert_eq!((status, &delivery["state"]), (200, &"held".into()));
    assert_eq!(delivery["why"], "no rights");
    assert_eq!(delivery["what_to_do"], "grant them");
    assert_eq!(delivery["balance"]["dead_letters"], 1);

    engine.stop().await;
    assert!(!stage.report(PRODUCER, &report).await, "nobody has heard it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_at_once_follows_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let remote = RemotePath::connect(dir.path()).await.unwrap();
    let stage = remote.stage(STAGE).unwrap();
    let mut head = stage.watch_head();
    let appended = fill(&engine.stage, 10).await;
    head.wait_for(|head| *head == appended).await.unwrap();
    assert_eq!(stage.bounds().head, appended);
    assert_eq!(stage.count_between(Offset::ZERO, appended), 10);
    engine.stage.ack("another", Offset::new(3)).await.unwrap();
    until("the cursor is known", || {
        stage.cursor("another") == Some(Offset::new(3))
    })
    .await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_told_at_once_when_the_engine_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    fill(&engine.stage, 1).await;
    let remote = RemotePath::connect(dir.path()).await.unwrap();
    let stage = remote.stage(STAGE).unwrap();
    stage.read(Offset::ZERO, ALL).await.unwrap();
    let mut head = stage.watch_head();
    head.borrow_and_update();
    let woken = tokio::spawn(async move { head.wait_for(|head| head.get() > 1).await.is_err() });
    engine.stop().await;
    assert!(woken.await.unwrap(), "who waits for more is woken");
    let error = stage.read(Offset::ZERO, ALL).await.unwrap_err();
    assert_eq!(error.exit_reason(), ExitReason::StageInUse, "{error}");
    let error = remote.summary().await.unwrap_err();
    assert_eq!(error.exit_reason(), ExitReason::StageInUse, "{error}");
    remote.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tools_at_once_get_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    for _ in 0..20 {
        fill(&engine.stage, 50).await;
    }
    let path = dir.path().to_owned();
    let mut tools = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let path = path.clone();
        tools.spawn(async move {
            let remote = RemotePath::connect(&path).await.unwrap();
            let stage = remote.stage(STAGE).unwrap();
            let read = messages(&stage.read(Offset::ZERO, ALL).await.unwrap(), Offset::ZERO);
            remote.close().await.unwrap();
            read.len()
        });
    }
    while let Some(read) = tools.join_next().await {
        assert_eq!(read.unwrap(), 1000);
    }
    engine.stop().await;
}
