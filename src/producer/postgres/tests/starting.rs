//! Each row of the table of what a start finds, on a real server.

use super::super::operate::adopt::adopt;
use super::super::{PostgresOptions, PostgresProducer, Target};
use super::operator::{Operator, everything_from};
use super::support::{Database, Engine, MemoryStage, PRODUCER, drain, until};
use crate::producer::operate::Operations as _;
use crate::producer::{Adoption, Producer as _};
use crate::record::Offset;
use crate::stage::Stage as _;
use crate::stage::path::held_cursor;

/// A database with 300 messages of stage `trades` delivered.
async fn delivered() -> (Database<'static>, std::sync::Arc<MemoryStage>) {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..300);
    drain(database.target(), &[&stage]).await.unwrap();
    (database, stage)
}

/// The engine takes nothing while it is held: its attempts are seen in the row's table being read, and no row comes.
async fn is_held(database: &Database<'_>, stage: &std::sync::Arc<MemoryStage>) {
    let before = database.sql("SELECT count(*) FROM trades").await;
    let row = database
        .sql("SELECT epoch, next_offset FROM _socket_el_cursor")
        .await;
    let engine = Engine::start(database.target(), &[stage]);
    database
        .until(
            &format!(
                "SELECT (count(*) > 0)::text FROM pg_stat_activity WHERE datname = current_database() \
                 AND application_name = 'socket-el/{PRODUCER}' AND query LIKE '%ROLLBACK%'"
            ),
            "true",
        )
        .await;
    assert!(engine.is_running());
    assert_eq!(engine.stats.delivered.get(), 0);
    engine.stop().await.unwrap();
    assert_eq!(database.sql("SELECT count(*) FROM trades").await, before);
    assert_eq!(
        database
            .sql("SELECT epoch, next_offset FROM _socket_el_cursor")
            .await,
        row
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cursor_anywhere_is_a_first_start_from_the_oldest_message() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..300);
    stage.expire(200);
    drain(database.target(), &[&stage]).await.unwrap();
    let rows = database.sql("SELECT count(*), min(n), max(n) FROM trades").await;
    assert_eq!(rows, ["100|200|299"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_table_that_was_dropped_holds_and_skips_nothing() {
    let (database, stage) = delivered().await;
    database.sql("DROP TABLE _socket_el_cursor").await;
    // The engine makes the table again at its start, but no row of it.
    let engine = Engine::start(database.target(), &[&stage]);
    database
        .until(
            "SELECT (to_regclass('_socket_el_cursor') IS NOT NULL)::text",
            "true",
        )
        .await;
    engine.stop().await.unwrap();
    is_held(&database, &stage).await;
    assert!(database.cursor("trades").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_ahead_of_the_local_copy_is_followed() {
    let (database, stage) = delivered().await;
    stage.set_local_cursor(Some(100));
    stage.put_numbers(300..400);
    drain(database.target(), &[&stage]).await.unwrap();
    database.holds_exactly("trades", 400).await;
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(400)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_beyond_the_reservation_holds_and_skips_nothing() {
    let (database, stage) = delivered().await;
    let beyond = stage.bounds().reserved.get() + 1;
    database.set_cursor(&stage, beyond).await;
    stage.put_numbers(300..400);
    is_held(&database, &stage).await;
}

/// What is staged meanwhile takes the very offsets that the cursor is beyond.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_moved_beyond_the_reservation_is_held_however_far_the_stage_comes() {
    let (database, stage) = delivered().await;
    let engine = Engine::start(database.target(), &[&stage]);
    database
        .until("SELECT epoch::text FROM _socket_el_cursor", "2")
        .await;
    let beyond = stage.bounds().reserved.get() + 1;
    database.set_cursor(&stage, beyond).await;
    until("it is held", || stage.cursor(&held_cursor(PRODUCER)).is_some()).await;
    stage.reserve(2 * beyond);
    stage.put_numbers(300..400);
    // Each attempt begins with the row.
    for _ in 0..3 {
        let before = &database.sql("SELECT updated_at FROM _socket_el_cursor").await[0];
        let again = format!("SELECT (updated_at > '{before}')::text FROM _socket_el_cursor");
        database.until(&again, "true").await;
    }
    assert_eq!(database.cursor("trades").await, [beyond.to_string()]);
    assert_eq!(engine.stats.delivered.get(), 0);
    database.set_cursor(&stage, 300).await;
    until("it goes on", || engine.stats.delivered.get() == 100).await;
    assert_eq!(stage.cursor(&held_cursor(PRODUCER)), None);
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 400).await;
}

/// A stage that was restored from a copy, whose engine is started again and again while it is held: what it stages meanwhile
/// takes the offsets that the cursor is beyond.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_from_elsewhere_is_held_over_restarts_until_an_operator_decides() {
    let (database, stage) = delivered().await;
    database.set_cursor(&stage, 350).await;
    stage.open_again();
    is_held(&database, &stage).await;
    for end in [400, 500] {
        let head = stage.bounds().head.get();
        stage.put_numbers(head..end);
        stage.open_again();
        is_held(&database, &stage).await;
    }
    let operator = Operator::new(database.target(), &stage);
    let refused = [
        operator.begins(&everything_from(0)).await.map(drop),
        operator
            .producer
            .plan_skip(&operator.scope, Offset::new(450))
            .await
            .map(drop),
    ];
    for refused in refused {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("is held"), "{refused}");
    }
    let adoption = Adoption {
        producer: PRODUCER.to_owned(),
        stage: stage.clone(),
        keep_cursor: false,
    };
    stage.expire(300);
    adopt(&database.target(), &PostgresOptions::default(), &adoption)
        .await
        .unwrap();
    drain(database.target(), &[&stage]).await.unwrap();
    database.holds_exactly("trades", 500).await;
    stage.open_again();
    stage.put_numbers(500..600);
    drain(database.target(), &[&stage]).await.unwrap();
    database.holds_exactly("trades", 600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_to_an_earlier_state_gets_again_what_it_lost() {
    let (database, stage) = delivered().await;
    database.sql("DELETE FROM trades WHERE n >= 120").await;
    database.set_cursor(&stage, 120).await;
    drain(database.target(), &[&stage]).await.unwrap();
    database.holds_exactly("trades", 300).await;
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(300)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_to_before_what_is_retained_gets_what_there_is() {
    let (database, stage) = delivered().await;
    database.sql("DELETE FROM trades WHERE n >= 50").await;
    database.set_cursor(&stage, 50).await;
    stage.expire(200);
    drain(database.target(), &[&stage]).await.unwrap();
    let rows = database
        .sql("SELECT count(*) FILTER (WHERE n < 50), count(*) FILTER (WHERE n >= 200), count(*) FROM trades")
        .await;
    assert_eq!(rows, ["50|100|150"]);
    assert_eq!(database.cursor("trades").await, ["300"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_somebody_moves_back_while_the_engine_runs_is_followed() {
    let (database, stage) = delivered().await;
    let engine = Engine::start(database.target(), &[&stage]);
    stage.put_numbers(300..400);
    until("the engine delivers", || engine.stats.delivered.get() == 100).await;
    database.set_cursor(&stage, 150).await;
    stage.put_numbers(400..500);
    until("it has begun again", || engine.stats.delivered.get() == 100 + 350).await;
    engine.stop().await.unwrap();
    let rows = database
        .sql("SELECT count(*) FILTER (WHERE n < 150), count(*) FILTER (WHERE n >= 150), count(DISTINCT n) FROM trades")
        .await;
    assert_eq!(rows, ["150|600|500"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_missing_is_made() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    let target = Target::new(database.config(), "Feeds \"live\"", PRODUCER);
    drain(target, &[&stage]).await.unwrap();
    let rows = database
        .sql("SELECT count(*) FROM \"Feeds \"\"live\"\"\".trades")
        .await;
    assert_eq!(rows, ["10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_what_would_be_made_and_changes_nothing() {
    let database = Database::shared().await;
    let producer = PostgresProducer::new(database.target(), PostgresOptions::default());
    let lines = producer.probe(&["trades".to_owned()]).await.unwrap().join("\n");
    assert!(
        lines.contains("CREATE TABLE IF NOT EXISTS \"public\".\"_socket_el_cursor\""),
        "{lines}"
    );
    assert!(lines.contains("\"trades\" would be made"), "{lines}");
    assert_eq!(
        database
            .sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
            .await,
        ["0"]
    );

    let mut config = database.config();
    config.password("a wrong one");
    let wrong = PostgresProducer::new(
        Target::new(config, "public", PRODUCER),
        PostgresOptions::default(),
    );
    let refusal = wrong.probe(&[]).await.unwrap_err();
    assert!(
        refusal.contains("28P01") && !refusal.contains("a wrong one"),
        "{refusal}"
    );
}
