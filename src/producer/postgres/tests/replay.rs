//! What was delivered is delivered again, and no row stands twice.

use std::sync::Arc;
use std::time::Duration;

use super::super::PostgresOptions;
use super::super::operate::adopt::{AdoptError, adopt};
use super::super::table::Mapping;
use super::operator::{Operator, everything_from, into_table};
use super::support::{Database, Engine, MemoryStage, PRODUCER, Proxy, drain, until};
use crate::exit::ExitReason;
use crate::producer::Adoption;
use crate::producer::operate::{Doubles, Operations as _, ReplayWish};
use crate::record::Offset;
use crate::stage::Stage as _;
use crate::stage::path::replay_cursor;

fn with_metadata() -> PostgresOptions {
    PostgresOptions::mapped(Mapping {
        metadata: true,
        ..Mapping::default()
    })
}

/// A stage whose `messages` are delivered.
async fn delivered(database: &Database<'_>, messages: u64) -> Arc<MemoryStage> {
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..messages);
    drain(database.target(), &[&stage]).await.unwrap();
    stage
}

/// Rows of our own tables that a replay leaves: none.
async fn leaves_nothing(database: &Database<'_>) {
    let left = database
        .sql("SELECT count(*) FROM _socket_el_cursor WHERE end_offset IS NOT NULL OR replay IS NOT NULL")
        .await;
    assert_eq!(left, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_while_running_gets_every_row_back_once_and_a_second_replay_is_refused() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..30_000);
    let engine = Engine::start(database.target(), &[&stage]);
    until("delivered", || engine.stats.delivered.get() == 30_000).await;
    database.sql("DROP TABLE trades").await;
    stage.put_numbers(30_000..31_000);
    until("delivered into a new table", || {
        engine.stats.delivered.get() == 31_000
    })
    .await;
    let recorded = database
        .sql("SELECT table_name, stage, producer, from_offset, table_oid = 'trades'::regclass FROM _socket_el_table")
        .await;
    assert_eq!(recorded, [format!("trades|trades|{PRODUCER}|30000|t")]);

    let operator = Operator::new(database.target(), &stage);
    let plan = operator.begins(&everything_from(0)).await.unwrap();
    assert_eq!(
        (plan.tables[0].doubles, plan.to),
        (Doubles::MadeLater, Offset::new(30_000))
    );
    assert_eq!(stage.cursor(&replay_cursor(PRODUCER)), Some(Offset::ZERO));
    // Normal delivery goes on beside it.
    stage.put_numbers(31_000..32_000);
    operator.goes_on().await.unwrap();
    until("delivered", || engine.stats.delivered.get() == 32_000).await;
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 32_000).await;
    assert_eq!(database.cursor("trades").await, ["32000"]);
    leaves_nothing(&database).await;

    let refused = operator.begins(&everything_from(0)).await.unwrap_err();
    assert_eq!(refused.reason(), ExitReason::Failed);
    assert!(refused.to_string().contains("--into"), "{refused}");
    database.holds_exactly("trades", 32_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_while_nothing_ran_is_recorded_by_the_next_engine() {
    let database = Database::shared().await;
    let stage = delivered(&database, 500).await;
    database.sql("DROP TABLE trades").await;
    stage.put_numbers(500..700);
    drain(database.target(), &[&stage]).await.unwrap();
    let plan = Operator::new(database.target(), &stage)
        .replays(&everything_from(0))
        .await;
    assert_eq!(plan.to, Offset::new(500));
    database.holds_exactly("trades", 700).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_missing_or_empty_gets_everything_up_to_the_cursor() {
    let database = Database::shared().await;
    let stage = delivered(&database, 500).await;
    let operator = Operator::new(database.target(), &stage);
    for lost in ["DROP TABLE trades", "TRUNCATE trades"] {
        database.sql(lost).await;
        let plan = operator.replays(&everything_from(0)).await;
        assert_eq!((plan.tables[0].doubles, plan.messages), (Doubles::NoneThere, 500));
        database.holds_exactly("trades", 500).await;
        operator.begins(&everything_from(0)).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_as_a_dead_letter_is_left_out_and_not_doubled() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put([&b"{\"n\": 0}"[..], b"no json", b"{\"n\": 1}"]);
    drain(database.target(), &[&stage]).await.unwrap();
    database.sql("DROP TABLE trades").await;
    let plan = Operator::new(database.target(), &stage)
        .replays(&everything_from(0))
        .await;
    assert_eq!(plan.dead_letters, 1);
    database.holds_exactly("trades", 2).await;
    let letters = database
        .sql("SELECT message_offset, producer FROM _socket_el_dead_letter")
        .await;
    assert_eq!(letters, [format!("1|{PRODUCER}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_tell_their_offsets_are_left_out_and_the_deleted_ones_come_back() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..20_000);
    stage.skip(5_000);
    stage.put_numbers(20_000..30_000);
    let operator = Operator::with(database.target(), &stage, with_metadata());
    operator.delivers().await;
    database
        .sql("DELETE FROM trades WHERE n % 7 = 3 OR n BETWEEN 4000 AND 17000 OR n > 29990")
        .await;
    let standing: u64 = database.sql("SELECT count(*) FROM trades").await[0]
        .parse()
        .unwrap();
    let plan = operator.replays(&everything_from(0)).await;
    assert_eq!(
        (plan.tables[0].doubles, plan.standing()),
        (Doubles::LeftOut, standing)
    );
    database.holds_exactly("trades", 30_000).await;
    // With everything there, nothing comes.
    operator.replays(&everything_from(0)).await;
    database.holds_exactly("trades", 30_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_earlier_stage_of_the_name_are_not_taken_for_this_ones() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    let operator = Operator::with(database.target(), &stage, with_metadata());
    operator.delivers().await;
    database
        .sql("UPDATE trades SET _received_at = _received_at - interval '1 hour' WHERE n < 50")
        .await;
    let refused = operator.begins(&everything_from(0)).await.unwrap_err();
    assert!(refused.to_string().contains("earlier stage"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_table_is_refused_unless_doubles_are_asked_for_or_another_table_is() {
    let database = Database::shared().await;
    database.sql("CREATE TABLE trades (n bigint)").await;
    let stage = delivered(&database, 300).await;
    let operator = Operator::new(database.target(), &stage);
    let refused = operator.begins(&everything_from(0)).await.unwrap_err();
    assert_eq!(refused.reason(), ExitReason::Failed);
    for way in ["--into", "--allow-duplicates", "metadata: true"] {
        assert!(refused.to_string().contains(way), "{refused}");
    }
    leaves_nothing(&database).await;
    operator.replays(&into_table("again")).await;
    database.holds_exactly("again", 300).await;
    database.holds_exactly("trades", 300).await;
    operator.begins(&into_table("again")).await.unwrap_err();
    let doubled = ReplayWish {
        allow_duplicates: true,
        to: Some(Offset::new(200)),
        ..everything_from(100)
    };
    operator.replays(&doubled).await;
    assert_eq!(
        database
            .sql("SELECT count(*), count(DISTINCT n) FROM trades")
            .await,
        ["400|300"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_replay_whose_answer_is_lost_is_neither_repeated_nor_missed() {
    let database = Database::shared().await;
    let stage = delivered(&database, 90_000).await;
    database.sql("DROP TABLE trades").await;
    let proxy = Proxy::before(database.cluster.port()).await;
    let direct = Operator::new(database.target(), &stage);
    let operator = Operator::new(database.target_at(proxy.port), &stage);
    direct.begins(&everything_from(0)).await.unwrap();
    proxy.swallow_next_commit();
    // The answer to taking the replay up is the first to be lost; whoever asks again takes it up.
    operator.goes_on().await.unwrap_err();
    let replaying = tokio::spawn(async move { operator.goes_on().await });
    for next in [1, 20_001, 40_001] {
        database
            .until(
                &format!("SELECT (coalesce(max(next_offset), 90000) >= {next})::text FROM _socket_el_cursor WHERE end_offset IS NOT NULL"),
                "true",
            )
            .await;
        proxy.swallow_next_commit();
    }
    replaying.await.unwrap().unwrap();
    assert!(proxy.has_swallowed());
    database.holds_exactly("trades", 90_000).await;
    leaves_nothing(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replay_is_gone_on_with_and_another_one_is_refused_until_then() {
    let database = Database::shared().await;
    let stage = delivered(&database, 60_000).await;
    database.sql("DROP TABLE trades").await;
    let operator = Operator::new(database.target(), &stage);
    operator.begins(&everything_from(0)).await.unwrap();
    for next in [1, 20_000, 40_000] {
        let killed = Operator::new(database.target(), &stage);
        let killed = tokio::spawn(async move { killed.goes_on().await });
        database
            .until(
                &format!("SELECT (coalesce(max(next_offset), 60000) >= {next})::text FROM _socket_el_cursor WHERE end_offset IS NOT NULL"),
                "true",
            )
            .await;
        killed.abort();
        let _ = killed.await;
    }
    if operator
        .producer
        .unfinished_replay(&operator.scope)
        .await
        .unwrap()
        .is_some()
    {
        let refused = operator.begins(&everything_from(5)).await.unwrap_err();
        assert!(refused.to_string().contains("--resume"), "{refused}");
        let plan = operator.replays(&everything_from(0)).await;
        assert!(plan.next > plan.from);
    }
    database.holds_exactly("trades", 60_000).await;
    leaves_nothing(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_up_a_replay_fences_whoever_is_at_it() {
    let database = Database::shared().await;
    let stage = delivered(&database, 100).await;
    database.sql("DROP TABLE trades").await;
    // The first is held up in the midst of a transaction, by the table's lock.
    database.sql("CREATE TABLE trades (n bigint)").await;
    let (holder, connection) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let operator = Operator::new(database.target(), &stage);
    operator.begins(&everything_from(0)).await.unwrap();
    holder
        .batch_execute("BEGIN; LOCK TABLE trades IN SHARE MODE")
        .await
        .unwrap();
    let first = Operator::new(database.target(), &stage);
    let first = tokio::spawn(async move { first.goes_on().await });
    database
        .until(
            "SELECT (count(*) > 0)::text FROM pg_stat_database WHERE datname = current_database() AND xact_rollback > 0",
            "true",
        )
        .await;
    // Between its attempts the second leaves the cursor to the first for long enough to find that it is not its own any more.
    let mut second = Operator::new(database.target(), &stage);
    let timing = &mut Arc::get_mut(&mut second.producer).unwrap().timing;
    (timing.retry_initial, timing.retry_max) = (Duration::from_secs(2), Duration::from_secs(2));
    let second = tokio::spawn(async move { second.goes_on().await });
    let fenced = first.await.unwrap().unwrap_err();
    assert_eq!(fenced.reason(), ExitReason::Fenced, "{fenced}");
    assert!(
        fenced.to_string().contains("another `stage-inspect replay`"),
        "{fenced}"
    );
    holder.batch_execute("ROLLBACK").await.unwrap();
    second.await.unwrap().unwrap();
    database.holds_exactly("trades", 100).await;
    connection.abort();
}

/// Adopted, the stage would be delivered from its oldest message on, and so twice what the replay has yet to deliver.
#[tokio::test(flavor = "multi_thread")]
async fn no_cursor_is_adopted_while_a_replay_is_unfinished() {
    let database = Database::shared().await;
    let stage = delivered(&database, 1_000).await;
    let operator = Operator::new(database.target(), &stage);
    operator.begins(&into_table("again")).await.unwrap();
    database
        .sql("DELETE FROM _socket_el_cursor WHERE producer = 'postgres'")
        .await;
    let adoption = Adoption {
        producer: PRODUCER.to_owned(),
        stage: stage.clone(),
        keep_cursor: true,
    };
    let refused = adopt(&database.target(), &PostgresOptions::default(), &adoption).await;
    assert!(
        matches!(refused, Err(AdoptError::ReplayUnfinished { .. })),
        "{refused:?}"
    );
    operator.producer.abandon_replay(&operator.scope).await.unwrap();
    adopt(&database.target(), &PostgresOptions::default(), &adoption)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_replay_keeps_what_it_delivered_and_lets_another_begin() {
    let database = Database::shared().await;
    let stage = delivered(&database, 300).await;
    database.sql("DROP TABLE trades").await;
    let operator = Operator::new(database.target(), &stage);
    operator.begins(&everything_from(0)).await.unwrap();
    let ended = operator.producer.abandon_replay(&operator.scope).await.unwrap();
    assert_eq!(ended, Some(Offset::ZERO));
    assert_eq!(stage.cursor(&replay_cursor(PRODUCER)), None);
    operator.replays(&everything_from(100)).await;
    assert_eq!(
        database.sql("SELECT count(*), min(n) FROM trades").await,
        ["200|100"]
    );
    assert_eq!(
        operator.producer.abandon_replay(&operator.scope).await.unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_has_to_mend_ends_a_replay_which_then_goes_on() {
    let database = Database::shared().await;
    let stage = delivered(&database, 300).await;
    database
        .sql(
            "TRUNCATE trades;
             CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               RAISE EXCEPTION 'not now' USING ERRCODE = 'XX000'; END $$;
             CREATE TRIGGER broken BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION broken()",
        )
        .await;
    let operator = Operator::new(database.target(), &stage);
    operator.begins(&everything_from(0)).await.unwrap();
    let ended = operator.goes_on().await.unwrap_err();
    assert!(ended.to_string().contains("not now"), "{ended}");
    database.sql("DROP TRIGGER broken ON trades").await;
    operator.goes_on().await.unwrap();
    database.holds_exactly("trades", 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_version_without_replays_get_the_columns() {
    let database = Database::shared().await;
    let stage = delivered(&database, 100).await;
    database
        .sql(
            "ALTER TABLE _socket_el_cursor DROP COLUMN end_offset, DROP COLUMN replay;
             ALTER TABLE _socket_el_dead_letter DROP COLUMN into_table; DROP TABLE _socket_el_table; TRUNCATE trades",
        )
        .await;
    Operator::new(database.target(), &stage)
        .replays(&everything_from(0))
        .await;
    database.holds_exactly("trades", 100).await;
}
