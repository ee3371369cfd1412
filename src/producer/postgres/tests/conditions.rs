//! How a delivery stands is told to its stage: what it is doing, why, and what to do.

use std::sync::Arc;

use super::super::Target;
use super::support::{Database, Engine, MemoryStage, PRODUCER, QUICK, cluster, options, until};
use crate::private_postgres::StopMode;
use crate::producer::RunUntil;
use crate::record::Offset;
use crate::stage::report::{Condition, DeliveryState};

/// Waits until the stage is told that its delivery is in a state.
async fn until_told(stage: &Arc<MemoryStage>, state: DeliveryState) -> Condition {
    until(&format!("it is {state:?}"), || {
        stage
            .told(PRODUCER)
            .is_some_and(|report| report.condition.state == state)
    })
    .await;
    stage.told(PRODUCER).unwrap().condition
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_stage_is_told_with_what_to_do_until_it_goes_on_and_other_stages_are_well() {
    let database = Database::shared().await;
    database.sql("CREATE VIEW held AS SELECT 1 AS n").await;
    let (held, other) = (MemoryStage::new("held"), MemoryStage::new("other"));
    held.put_numbers(0..10);
    other.put_numbers(0..10);
    let engine = Engine::start(database.target(), &[&held, &other]);
    let condition = until_told(&held, DeliveryState::Held).await;
    assert!(
        condition.why.contains("is a view") && condition.why.contains("Name another table"),
        "{condition:?}"
    );
    until_told(&other, DeliveryState::Idle).await;
    // It is tried again and again, and held since the first time.
    let before = database
        .sql("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
        .await;
    database
        .until(
            &format!(
                "SELECT (xact_commit > {} + 20)::text FROM pg_stat_database WHERE datname = current_database()",
                before[0]
            ),
            "true",
        )
        .await;
    assert_eq!(
        until_told(&held, DeliveryState::Held).await.since,
        condition.since
    );
    database.sql("DROP VIEW held").await;
    assert_eq!(until_told(&held, DeliveryState::Idle).await.why, "");
    let passed = held.told(PRODUCER).unwrap().passed.unwrap();
    assert_eq!((passed.cursor, passed.outcomes.delivered), (Offset::new(10), 10));
    engine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_taken_away_hold_and_say_what_to_grant() {
    let database = Database::shared().await;
    let name = &database.name;
    database
        .sql(&format!(
            "CREATE ROLE {name}_loader LOGIN PASSWORD 'x'; GRANT ALL ON SCHEMA public TO {name}_loader"
        ))
        .await;
    let mut config = database.config();
    config.user(format!("{name}_loader")).password("x");
    let target = super::super::Target::new(config, "public", PRODUCER);
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    let engine = Engine::start(target, &[&stage]);
    until_told(&stage, DeliveryState::Idle).await;
    database
        .sql(&format!(
            "ALTER TABLE trades OWNER TO postgres; GRANT SELECT ON trades TO {name}_loader"
        ))
        .await;
    stage.put_numbers(10..20);
    let condition = until_told(&stage, DeliveryState::Held).await;
    assert!(condition.why.contains("42501"), "{condition:?}");
    assert!(
        condition.what_to_do.contains("INSERT and SELECT on the table"),
        "{condition:?}"
    );
    database
        .sql(&format!("GRANT INSERT ON trades TO {name}_loader"))
        .await;
    until_told(&stage, DeliveryState::Idle).await;

    // Row-level security, which COPY does not do: 0A000.
    database.sql("ALTER TABLE trades ENABLE ROW LEVEL SECURITY").await;
    stage.put_numbers(20..30);
    let condition = until_told(&stage, DeliveryState::Held).await;
    assert!(
        condition.why.contains("0A000") && condition.what_to_do.contains("row-level security"),
        "{condition:?}"
    );
    database
        .sql("ALTER TABLE trades DISABLE ROW LEVEL SECURITY")
        .await;
    until_told(&stage, DeliveryState::Idle).await;
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 30).await;
    assert_eq!(
        database.sql("SELECT count(*) FROM _socket_el_dead_letter").await,
        ["0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_for_all_stages_and_what_held_one_is_told_again_afterwards() {
    let cluster = cluster();
    let database = Database::on(&cluster).await;
    database.sql("CREATE VIEW held AS SELECT 1 AS n").await;
    let (held, other) = (MemoryStage::new("held"), MemoryStage::new("other"));
    held.put_numbers(0..10);
    let engine = Engine::start(database.target(), &[&held, &other]);
    until_told(&held, DeliveryState::Held).await;
    cluster.stop(StopMode::Fast).unwrap();
    for stage in [&held, &other] {
        let condition = until_told(stage, DeliveryState::Connecting).await;
        assert_ne!(condition.why, "");
    }
    cluster.start_again().unwrap();
    until_told(&held, DeliveryState::Held).await;
    until_told(&other, DeliveryState::Idle).await;
    engine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_is_told_as_transient() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    let engine = Engine::start(database.target(), &[&stage]);
    until_told(&stage, DeliveryState::Idle).await;
    let (holder, connection) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    holder
        .batch_execute("BEGIN; LOCK TABLE trades IN SHARE MODE")
        .await
        .unwrap();
    let pid: i32 = holder
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    // Who only reads is not in the way.
    let (reader, reading) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    let reading = tokio::spawn(reading);
    reader
        .batch_execute("BEGIN; LOCK TABLE trades IN ACCESS SHARE MODE")
        .await
        .unwrap();
    stage.put_numbers(10..20);
    let condition = until_told(&stage, DeliveryState::Retrying).await;
    assert!(
        condition.why.contains("55P03") && condition.why.ends_with(&format!("now: pid {pid}")),
        "{condition:?}"
    );
    drop((holder, reader));
    connection.await.unwrap().unwrap();
    reading.await.unwrap().unwrap();
    until_told(&stage, DeliveryState::Idle).await;
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_server_finds_damaged_holds_and_no_message_is_given_up_for_it() {
    let cluster = cluster();
    let database = Database::on(&cluster).await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    let engine = Engine::start(database.target(), &[&stage]);
    until_told(&stage, DeliveryState::Idle).await;
    database.sql("CHECKPOINT").await;
    let file = database.sql("SELECT pg_relation_filepath('trades')").await;
    cluster.stop(StopMode::Fast).unwrap();
    let file = cluster.socket_dir().join("data").join(&file[0]);
    std::fs::write(&file, [0xab; 8192]).unwrap();
    cluster.start_again().unwrap();
    stage.put_numbers(10..20);
    let condition = until_told(&stage, DeliveryState::Held).await;
    assert!(
        condition.why.contains("XX001") && condition.what_to_do.contains("its disks"),
        "{condition:?}"
    );
    database.sql("TRUNCATE trades").await;
    until_told(&stage, DeliveryState::Idle).await;
    engine.stop().await.unwrap();
    let rows = database
        .sql("SELECT count(*), min(n), max(n), (SELECT count(*) FROM _socket_el_dead_letter) FROM trades")
        .await;
    assert_eq!(rows, ["10|10|19|0"]);
}

/// Makes the table `trades`, and a role that may load it and does not own it.
pub(super) async fn others_table(database: &Database<'_>, columns: &str) -> Target {
    let name = &database.name;
    database
        .sql(&format!(
            "CREATE ROLE {name}_loader LOGIN PASSWORD 'x'; GRANT ALL ON SCHEMA public TO {name}_loader; \
             CREATE TABLE trades {columns}; GRANT SELECT, INSERT ON trades TO {name}_loader"
        ))
        .await;
    let mut config = database.config();
    config.user(format!("{name}_loader")).password("x");
    Target::new(config, "public", PRODUCER)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_no_column_of_a_table_of_somebody_else_is_a_dead_letter_and_holds_up_nothing() {
    let database = Database::shared().await;
    let target = others_table(&database, "(n bigint, price numeric)").await;
    let stage = MemoryStage::new("trades");
    let put = || {
        stage.put([
            r#"{"n": 1, "price": "1.50"}"#,
            r#"{"n": "no number", "price": 2}"#,
            r#"{"n": 3, "price": 3, "new": "dropped"}"#,
            "[1, 2, 3]",
            r#"{"n": 5, "price": 5}"#,
        ]);
    };
    put();
    let engine = Engine::mapped(
        target,
        &[&stage],
        options("new_keys: discard"),
        RunUntil::Stopped,
        QUICK,
    );
    until_told(&stage, DeliveryState::Idle).await;
    let rows = "SELECT n, price FROM trades ORDER BY 1";
    assert_eq!(database.sql(rows).await, ["1|1.50", "3|3", "5|5"]);
    let letters = "SELECT message_offset, reason FROM _socket_el_dead_letter ORDER BY 1";
    let found = database.sql(letters).await;
    assert!(
        found.len() == 2
            && found[0].starts_with("1|the value of \"n\" has no place")
            && found[1].starts_with("3|it is neither an object"),
        "{found:?}"
    );

    // Its owner makes room: what comes then stays in the row.
    database
        .sql("ALTER TABLE trades ADD _extra jsonb, ADD _message jsonb")
        .await;
    put();
    until("the others are delivered", || engine.stats.delivered.get() == 10).await;
    engine.stop().await.unwrap();
    let kept =
        "SELECT _extra, _message FROM trades WHERE _extra IS NOT NULL OR _message IS NOT NULL ORDER BY 1";
    assert_eq!(database.sql(kept).await, [r#"{"n": "no number"}|"#, "|[1, 2, 3]"]);
    assert_eq!(database.sql(letters).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_of_a_table_of_somebody_else_stand_in_extra_until_they_get_their_columns() {
    let database = Database::shared().await;
    let target = others_table(&database, "(n bigint, _extra jsonb)").await;
    // As we make them: this one would be widened.
    database
        .sql("COMMENT ON COLUMN trades.n IS 'socket-el key: \"n\"'")
        .await;
    let stage = MemoryStage::new("trades");
    stage.put([
        r#"{"n": 1, "new": "x"}"#,
        r#"{"n": 2.5}"#,
        r#"{"n": 3, "newer": [1]}"#,
    ]);
    let engine = Engine::mapped(target, &[&stage], options("{}"), RunUntil::Stopped, QUICK);
    until_told(&stage, DeliveryState::Idle).await;
    assert_eq!(
        database.sql("SELECT n, _extra FROM trades").await,
        [r#"1|{"new": "x"}"#, r#"|{"n": 2.5}"#, r#"3|{"newer": [1]}"#]
    );
    database.sql("ALTER TABLE trades ADD new text").await;
    stage.put([r#"{"n": 4, "new": "y", "newer": 5}"#]);
    until("the last is delivered", || engine.stats.delivered.get() == 4).await;
    engine.stop().await.unwrap();
    assert_eq!(
        database.sql("SELECT new, _extra FROM trades WHERE n = 4").await,
        [r#"y|{"newer": 5}"#]
    );
    assert_eq!(
        database.sql("SELECT count(*) FROM _socket_el_dead_letter").await,
        ["0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_of_a_table_of_somebody_else_without_extra_hold_the_stage_with_the_statement_to_run() {
    let database = Database::shared().await;
    let target = others_table(&database, "(n bigint)").await;
    let stage = MemoryStage::new("trades");
    stage.put([r#"{"n": 1, "new": "x"}"#]);
    let engine = Engine::mapped(target, &[&stage], options("{}"), RunUntil::Stopped, QUICK);
    let condition = until_told(&stage, DeliveryState::Held).await;
    for part in [
        r#"ADD COLUMN IF NOT EXISTS "new" text"#,
        "only the table's owner can add them",
        r#"ALTER TABLE "public"."trades" ADD COLUMN _extra jsonb"#,
        "new_keys",
    ] {
        let told = format!("{} {}", condition.why, condition.what_to_do);
        assert!(told.contains(part), "{part}: {condition:?}");
    }
    database.sql("ALTER TABLE trades ADD _extra jsonb").await;
    until_told(&stage, DeliveryState::Idle).await;
    engine.stop().await.unwrap();
    assert_eq!(
        database.sql("SELECT n, _extra FROM trades").await,
        [r#"1|{"new": "x"}"#]
    );
}
