//! Who may deliver a stage: fencing, other stage paths, adoption.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::super::PostgresOptions;
use super::super::operate::adopt::{AdoptError, adopt, plan};
use super::super::session::Timing;
use super::support::{Database, Engine, MemoryStage, PRODUCER, Proxy, QUICK, drain, options, until};
use crate::exit::ExitReason;
use crate::producer::{Adoption, DoubledTable, RunUntil};
use crate::record::Offset;
use crate::stage::{SharedStage, Stage as _};

/// Learns what happened to its epoch by delivering only.
const UNATTENTIVE: Timing = Timing {
    idle_check: Duration::from_secs(3_600),
    ..QUICK
};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_engines_on_one_stage_the_older_is_fenced_and_every_row_is_there_once() {
    let database = Database::shared().await;
    let path = Uuid::new_v4();
    // A copy of the stage's directory, started beside the original.
    let (original, copy) = (
        MemoryStage::at_path("trades", path),
        MemoryStage::at_path("trades", path),
    );
    for stage in [&original, &copy] {
        stage.put_numbers(0..5_000);
    }
    let older = Engine::start(database.target(), &[&original]);
    until("the older delivers", || older.stats.delivered.get() == 5_000).await;
    let newer = Engine::start(database.target(), &[&copy]);
    // Idle, it learns of it too.
    let fenced = older.ended().await.unwrap_err();
    assert_eq!(fenced.reason(), ExitReason::Fenced);
    assert!(fenced.to_string().contains("trades"), "{fenced}");
    copy.put_numbers(5_000..6_000);
    until("the newer delivers", || newer.stats.delivered.get() == 1_000).await;
    newer.stop().await.unwrap();
    database.holds_exactly("trades", 6_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_fenced_under_load_adds_no_row() {
    let database = Database::shared().await;
    let path = Uuid::new_v4();
    let (original, copy) = (
        MemoryStage::at_path("trades", path),
        MemoryStage::at_path("trades", path),
    );
    for stage in [&original, &copy] {
        stage.put_numbers(0..100_000);
    }
    // It looks at the epoch in its transactions only.
    let older = Engine::with(database.target(), &[&original], RunUntil::Stopped, UNATTENTIVE);
    until("the older delivers", || older.stats.delivered.get() > 0).await;
    drain(database.target(), &[&copy]).await.unwrap();
    // It may have been through with the others before it was fenced.
    original.put_numbers(100_000..100_100);
    assert_eq!(older.ended().await.unwrap_err().reason(), ExitReason::Fenced);
    database.holds_exactly("trades", 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stage_path_of_the_same_names_is_refused_and_the_first_goes_on() {
    let database = Database::shared().await;
    let (ours, other) = (MemoryStage::new("trades"), MemoryStage::new("trades"));
    ours.put_numbers(0..100);
    other.put_numbers(0..100);
    let engine = Engine::start(database.target(), &[&ours]);
    until("ours is delivered", || engine.stats.delivered.get() == 100).await;
    let before = database
        .sql("SELECT stage_path_id, epoch, next_offset FROM _socket_el_cursor")
        .await;
    let refused = drain(database.target(), &[&other]).await.unwrap_err();
    assert_eq!(refused.reason(), ExitReason::Failed);
    assert!(refused.to_string().contains("stage-inspect adopt"), "{refused}");
    let after = database
        .sql("SELECT stage_path_id, epoch, next_offset FROM _socket_el_cursor")
        .await;
    assert_eq!(before, after);
    ours.put_numbers(100..200);
    until("ours goes on", || engine.stats.delivered.get() == 200).await;
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 200).await;
}

fn adoption(stage: &Arc<MemoryStage>, keep_cursor: bool) -> Adoption {
    Adoption {
        producer: PRODUCER.to_owned(),
        stage: Arc::clone(stage) as SharedStage,
        keep_cursor,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_database_has_no_cursor_the_stages_own_copy_is_kept() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    stage.ack(PRODUCER, Offset::new(60)).await.unwrap();
    let target = database.target();
    let adopted = adopt(&target, &PostgresOptions::default(), &adoption(&stage, true))
        .await
        .unwrap();
    assert_eq!(
        (adopted.previous_offset, adopted.next_offset),
        (None, Offset::new(60))
    );
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(database.sql("SELECT count(*) FROM trades").await, ["40"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_stage_begins_at_its_oldest_message_and_the_engine_before_is_fenced() {
    let database = Database::shared().await;
    let (ours, other) = (MemoryStage::new("trades"), MemoryStage::new("trades"));
    ours.put_numbers(0..100);
    let engine = Engine::start(database.target(), &[&ours]);
    until("ours is delivered", || engine.stats.delivered.get() == 100).await;
    let adopted = adopt(
        &database.target(),
        &PostgresOptions::default(),
        &adoption(&other, false),
    )
    .await
    .unwrap();
    assert_eq!(adopted.previous_path, Some(ours.path_id()));
    assert_eq!(adopted.previous_offset, Some(Offset::new(100)));
    assert_eq!(adopted.next_offset, Offset::ZERO);
    assert_eq!(engine.ended().await.unwrap_err().reason(), ExitReason::Fenced);
    other.put_numbers(100..150);
    drain(database.target(), &[&other]).await.unwrap();
    database.holds_exactly("trades", 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_path_keeps_its_cursor_and_one_without_has_none_to_keep() {
    let database = Database::shared().await;
    let target = database.target();
    let (ours, moved) = (MemoryStage::new("trades"), MemoryStage::new("trades"));
    let missing = adopt(&target, &PostgresOptions::default(), &adoption(&moved, true)).await;
    assert!(matches!(missing, Err(AdoptError::NoCursor { .. })), "{missing:?}");
    ours.put_numbers(0..100);
    moved.put_numbers(0..150);
    drain(target.clone(), &[&ours]).await.unwrap();
    let adopted = adopt(&target, &PostgresOptions::default(), &adoption(&moved, true))
        .await
        .unwrap();
    assert_eq!(adopted.next_offset, Offset::new(100));
    drain(target, &[&moved]).await.unwrap();
    database.holds_exactly("trades", 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_does_not_adopt_its_own_cursor_and_nothing_is_delivered_twice() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    let engine = Engine::start(database.target(), &[&stage]);
    until("all is delivered", || engine.stats.delivered.get() == 100).await;
    for keep_cursor in [false, true] {
        let refused = adopt(
            &database.target(),
            &PostgresOptions::default(),
            &adoption(&stage, keep_cursor),
        )
        .await;
        assert!(
            matches!(&refused, Err(AdoptError::Ours { cursor, .. }) if cursor.get() == 100),
            "{refused:?}"
        );
    }
    stage.put_numbers(100..200);
    until("the engine is not fenced", || engine.stats.delivered.get() == 200).await;
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_adoption_comes_to_is_told_before_anything_is_changed() {
    let database = Database::shared().await;
    let target = database.target();
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..99);
    stage.put(["no json"]);
    drain(target.clone(), &[&stage]).await.unwrap();
    database.sql("DELETE FROM _socket_el_cursor").await;
    stage.put_numbers(100..150);
    let planned = async |keep_cursor, keys: &str| {
        plan(&target, &options(keys), &adoption(&stage, keep_cursor))
            .await
            .unwrap()
    };
    let all = planned(false, "").await;
    assert_eq!(
        (all.next_offset, all.delivered_again, all.letters_removed),
        (Offset::ZERO, 100, 1)
    );
    let table = |messages| DoubledTable {
        table: "\"public\".\"trades\"".to_owned(),
        messages,
    };
    assert_eq!(all.doubled, [table(100)]);
    let keyed = planned(false, "on_conflict: { key: [n], action: ignore }").await;
    assert_eq!(keyed.doubled, []);
    let kept = planned(true, "").await;
    assert_eq!(
        (kept.next_offset.get(), kept.delivered_again, kept.letters_removed),
        (100, 0, 0)
    );
    assert_eq!((kept.outcomes.delivered, kept.outcomes.dead_letters), (99, 1));
    // Made anew where the rows of the first 100 are not in it.
    database.sql("UPDATE _socket_el_table SET from_offset = 60").await;
    assert_eq!(planned(false, "").await.doubled, [table(40)]);
    database.sql("TRUNCATE trades").await;
    assert_eq!(planned(false, "").await.doubled, []);
    let untouched =
        "SELECT (SELECT count(*) FROM _socket_el_cursor), (SELECT count(*) FROM _socket_el_dead_letter)";
    assert_eq!(database.sql(untouched).await, ["0|1"]);
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(100)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_the_stage_has_not_come_to_is_not_kept() {
    let database = Database::shared().await;
    let target = database.target();
    let (ours, other) = (MemoryStage::new("trades"), MemoryStage::new("trades"));
    ours.put_numbers(0..100);
    other.put_numbers(0..99);
    drain(target.clone(), &[&ours]).await.unwrap();
    let row = || database.sql("SELECT stage_path_id, epoch, next_offset FROM _socket_el_cursor");
    let before = row().await;
    let refused = adopt(&target, &PostgresOptions::default(), &adoption(&other, true)).await;
    assert!(
        matches!(refused, Err(AdoptError::BeyondHead { .. })),
        "{refused:?}"
    );
    assert_eq!(row().await, before);
    other.put_numbers(99..100);
    adopt(&target, &PostgresOptions::default(), &adoption(&other, true))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_backend_that_keeps_the_cursors_row_is_terminated() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    drain(database.target(), &[&stage]).await.unwrap();
    // What an engine leaves behind whose machine vanished: a session that holds the row and never answers.
    let mut config = database.config();
    config.application_name(format!("socket-el/{PRODUCER}"));
    let (zombie, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    zombie
        .batch_execute("BEGIN; SELECT FROM _socket_el_cursor FOR UPDATE")
        .await
        .unwrap();
    stage.put_numbers(100..200);
    drain(database.target(), &[&stage]).await.unwrap();
    connection.await.unwrap().unwrap_err();
    database.holds_exactly("trades", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_was_taken_over_while_it_had_no_connection_does_not_take_the_epoch_back() {
    let database = Database::shared().await;
    let path = Uuid::new_v4();
    let (original, copy) = (
        MemoryStage::at_path("trades", path),
        MemoryStage::at_path("trades", path),
    );
    for stage in [&original, &copy] {
        stage.put_numbers(0..100);
    }
    let older = Engine::with(database.target(), &[&original], RunUntil::Stopped, UNATTENTIVE);
    until("the older delivers", || older.stats.delivered.get() == 100).await;
    copy.put_numbers(100..200);
    drain(database.target(), &[&copy]).await.unwrap();
    database.end_sessions().await;
    original.put_numbers(100..200);
    assert_eq!(older.ended().await.unwrap_err().reason(), ExitReason::Fenced);
    database.holds_exactly("trades", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_loses_the_answer_to_taking_the_epoch_does_not_fence_itself() {
    let database = Database::shared().await;
    let proxy = Proxy::before(database.cluster.port()).await;
    let stage = MemoryStage::new("trades");
    let engine = Engine::start(database.target_at(proxy.port), &[&stage]);
    let mut sent = 0;
    for _ in 0..3 {
        stage.put_numbers(sent..sent + 100);
        sent += 100;
        until("everything is delivered", || engine.stats.delivered.get() == sent).await;
        // Idle, it notices the lost session and takes the epoch again.
        proxy.swallow_next_commit();
        database.end_sessions().await;
        until("an answer was swallowed", || proxy.has_swallowed()).await;
    }
    stage.put_numbers(sent..sent + 100);
    sent += 100;
    until("everything is delivered", || engine.stats.delivered.get() == sent).await;
    engine.stop().await.unwrap();
    database.holds_exactly("trades", sent).await;
}
