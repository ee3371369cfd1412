//! Stepping over messages that block.

use super::operator::Operator;
use super::support::{Database, Engine, MemoryStage, PRODUCER, Proxy, drain, until};
use crate::producer::operate::Operations as _;
use crate::record::Offset;
use crate::stage::Stage as _;

const SKIPPED: &str = "SELECT count(*), count(DISTINCT message_offset) FROM _socket_el_dead_letter WHERE reason = 'skipped by an operator'";

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_held_by_a_message_goes_on_behind_it_once_it_is_skipped() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE trades (n bigint);
             CREATE FUNCTION blocks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.n = 120 THEN RAISE EXCEPTION 'no' USING ERRCODE = 'XX000'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER blocks BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION blocks()",
        )
        .await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    let engine = Engine::start(database.target(), &[&stage]);
    until("delivered", || engine.stats.delivered.get() == 100).await;
    stage.put_numbers(100..200);
    database
        .until(
            "SELECT (xact_rollback > 1)::text FROM pg_stat_database WHERE datname = current_database()",
            "true",
        )
        .await;
    let operator = Operator::new(database.target(), &stage);
    let done = operator
        .producer
        .skip(&operator.scope, Offset::new(121))
        .await
        .unwrap();
    assert_eq!(
        (done.from, done.to, done.messages),
        (Offset::new(100), Offset::new(121), 21)
    );
    until("it goes on", || engine.stats.delivered.get() == 179).await;
    engine.stop().await.unwrap();
    assert_eq!(database.sql(SKIPPED).await, ["21|21"]);
    assert_eq!(
        database
            .sql("SELECT count(*), count(DISTINCT n) FROM trades")
            .await,
        ["179|179"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_table_can_not_be_changed_finds_its_cursor_moved_as_well() {
    let database = Database::shared().await;
    database
        .sql("CREATE VIEW trades AS SELECT 1 AS n; CREATE TABLE spare (n bigint)")
        .await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    let engine = Engine::start(database.target(), &[&stage]);
    database
        .until("SELECT count(*)::text FROM _socket_el_cursor", "1")
        .await;
    let operator = Operator::new(database.target(), &stage);
    operator
        .producer
        .skip(&operator.scope, Offset::new(100))
        .await
        .unwrap();
    // A lane that never gets to a transaction looks at its row all the same.
    database
        .until(
            "SELECT (epoch > 3)::text FROM _socket_el_cursor WHERE next_offset = 100",
            "true",
        )
        .await;
    database.sql("DROP VIEW trades").await;
    stage.put_numbers(100..150);
    until("it goes on", || engine.stats.delivered.get() == 50).await;
    engine.stop().await.unwrap();
    assert_eq!(
        database.sql("SELECT count(*), min(n) FROM trades").await,
        ["50|100"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_whose_commit_is_in_doubt_writes_each_dead_letter_once() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    drain(database.target(), &[&stage]).await.unwrap();
    stage.put_numbers(10..50_000);
    let proxy = Proxy::before(database.cluster.port()).await;
    let operator = Operator::new(database.target_at(proxy.port), &stage);
    proxy.swallow_next_commit();
    let done = operator
        .producer
        .skip(&operator.scope, Offset::new(45_000))
        .await
        .unwrap();
    assert!(proxy.has_swallowed());
    assert_eq!(done.to, Offset::new(45_000));
    assert_eq!(database.sql(SKIPPED).await, ["44990|44990"]);
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(45_000)));
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(
        database
            .sql("SELECT count(*), count(DISTINCT n), max(n) FROM trades")
            .await,
        ["5010|5010|49999"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_skipped_that_is_delivered_or_has_not_come() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    drain(database.target(), &[&stage]).await.unwrap();
    let operator = Operator::new(database.target(), &stage);
    for to in [5, 10, 11] {
        operator
            .producer
            .skip(&operator.scope, Offset::new(to))
            .await
            .unwrap_err();
    }
    assert_eq!(database.cursor("trades").await, ["10"]);
}
