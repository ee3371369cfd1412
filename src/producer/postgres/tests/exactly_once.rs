//! Rows, dead letters and the cursor go together.

use super::support::{Database, Engine, MemoryStage, PRODUCER, Proxy, QUICK, drain, until};
use crate::producer::RunUntil;
use crate::record::Offset;
use crate::stage::Stage as _;

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_a_row_once_and_cursor_and_ack_stand_behind_the_last() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..45_000);
    drain(database.target(), &[&stage]).await.unwrap();
    database.holds_exactly("trades", 45_000).await;
    assert_eq!(database.cursor("trades").await, ["45000"]);
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(45_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_later_is_delivered_while_running_and_a_restart_goes_on_there() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    let engine = Engine::start(database.target(), &[&stage]);
    for round in 0..5 {
        stage.put_numbers(round * 100..(round + 1) * 100);
        let delivered = (round + 1) * 100;
        until("the round is delivered", || {
            engine.stats.delivered.get() == delivered
        })
        .await;
    }
    engine.stop().await.unwrap();
    stage.put_numbers(500..700);
    let engine = Engine::with(database.target(), &[&stage], RunUntil::Drained, QUICK);
    let stats = engine.stats.clone();
    engine.ended().await.unwrap();
    assert_eq!((stats.delivered.get(), stats.rows.get()), (200, 200));
    database.holds_exactly("trades", 700).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_stages_are_delivered_side_by_side() {
    let database = Database::shared().await;
    let stages: Vec<_> = ["a", "b", "c"].into_iter().map(MemoryStage::new).collect();
    for stage in &stages {
        stage.put_numbers(0..21_000);
    }
    drain(database.target(), &stages.iter().collect::<Vec<_>>())
        .await
        .unwrap();
    for stage in &stages {
        database.holds_exactly(stage.name(), 21_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_json_is_a_dead_letter_with_its_bytes_in_the_transaction_of_its_neighbours() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put([&b"{\"n\": 0}"[..], b"not\0json\xff", b"{\"n\": 1}"]);
    drain(database.target(), &[&stage]).await.unwrap();
    database.holds_exactly("trades", 2).await;
    let letters = database
        .sql(
            "SELECT stage_path_id, stage, producer, message_offset, payload, received_at = '2023-11-14 22:13:20.123456+00', \
             reason <> '' FROM _socket_el_dead_letter",
        )
        .await;
    let path = stage.path_id();
    assert_eq!(
        letters,
        [format!("{path}|trades|{PRODUCER}|1|\\x6e6f74006a736f6eff|t|t")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_transaction_that_fails_after_the_copy_are_not_there_and_come_once_later() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    drain(database.target(), &[&stage]).await.unwrap();
    // The cursor can't move, so COPY is undone.
    database
        .sql("ALTER TABLE _socket_el_cursor ADD CONSTRAINT stuck CHECK (next_offset <= 10)")
        .await;
    stage.put_numbers(10..500);
    let engine = Engine::start(database.target(), &[&stage]);
    database
        .until(
            "SELECT (sum(xact_rollback) > 3)::text FROM pg_stat_database WHERE datname = current_database()",
            "true",
        )
        .await;
    database.holds_exactly("trades", 10).await;
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(10)));
    database
        .sql("ALTER TABLE _socket_el_cursor DROP CONSTRAINT stuck")
        .await;
    until("it goes on", || engine.stats.delivered.get() == 490).await;
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_neither_repeated_nor_missed() {
    let database = Database::shared().await;
    let proxy = Proxy::before(database.cluster.port()).await;
    let stage = MemoryStage::new("trades");
    let engine = Engine::start(database.target_at(proxy.port), &[&stage]);
    let mut sent = 0;
    for _ in 0..10 {
        stage.put_numbers(sent..sent + 300);
        sent += 300;
        until("the messages before are delivered", || {
            engine.stats.delivered.get() == sent
        })
        .await;
        proxy.swallow_next_commit();
        stage.put_numbers(sent..sent + 300);
        sent += 300;
        until("an answer was swallowed", || proxy.has_swallowed()).await;
    }
    until("everything is delivered", || engine.stats.delivered.get() == sent).await;
    assert!(engine.stats.reconnects.get() >= 10);
    engine.stop().await.unwrap();
    database.holds_exactly("trades", sent).await;
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(sent)));
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_of_the_role_weaken_neither_the_commit_nor_the_checks() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE trades (n bigint, seen text, level text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               NEW.seen := current_setting('synchronous_commit');
               NEW.level := current_setting('transaction_isolation');
               RETURN NEW; END $$;
             CREATE TRIGGER note BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await;
    let role = format!(
        "ALTER ROLE {} IN DATABASE {}",
        database.cluster.superuser(),
        database.name
    );
    for setting in [
        "synchronous_commit = off",
        "default_transaction_isolation = 'repeatable read'",
        "standard_conforming_strings = off",
        "default_transaction_read_only = on",
    ] {
        database.sql(&format!("{role} SET {setting}")).await;
    }
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    drain(database.target(), &[&stage]).await.unwrap();
    // What is stricter stays, and what is weaker does not.
    for level in ["remote_apply", "local", "remote_write"] {
        database
            .sql(&format!(
                "BEGIN READ WRITE; {role} SET synchronous_commit = {level}; COMMIT"
            ))
            .await;
        stage.put_numbers(10..20);
        drain(database.target(), &[&stage]).await.unwrap();
    }
    let seen = database
        .sql("SELECT seen, level, count(*) FROM trades GROUP BY 1, 2 ORDER BY 1")
        .await;
    assert_eq!(seen, ["on|read committed|30", "remote_apply|read committed|10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_without_messages_are_passed_and_the_cursor_ends_behind_the_last_message() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..150);
    stage.skip(5_000);
    stage.put_numbers(150..300);
    drain(database.target(), &[&stage]).await.unwrap();
    database.holds_exactly("trades", 300).await;
    assert_eq!(database.cursor("trades").await, ["5300"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_is_followed_by_one_that_doubles_and_loses_nothing() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..60_000);
    for delivered in [1, 15_000, 30_000, 45_000] {
        let engine = Engine::start(database.target(), &[&stage]);
        database
            .until(
                &format!("SELECT (next_offset >= {delivered})::text FROM _socket_el_cursor"),
                "true",
            )
            .await;
        engine.kill().await;
        // The local copy may lag.
        stage.set_local_cursor(None);
    }
    drain(database.target(), &[&stage]).await.unwrap();
    database.holds_exactly("trades", 60_000).await;
}
