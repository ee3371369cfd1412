//! When the server refuses more than a share of the messages, the table is wrong and not the data: the stage is held.

use std::sync::Arc;

use super::super::PostgresOptions;
use super::operator::Operator;
use super::support::{Database, Engine, MemoryStage, PRODUCER, QUICK, until};
use crate::config::percent::Percent;
use crate::producer::RunUntil;
use crate::producer::dead_letters::{DeadLetters as _, LetterFilter};
use crate::stage::report::DeliveryState;

/// A hundred messages of the last 10,000.
fn limited() -> PostgresOptions {
    PostgresOptions {
        poison_limit: Percent::of(1),
        ..PostgresOptions::default()
    }
}

fn start(database: &Database<'_>, stage: &Arc<MemoryStage>) -> Engine {
    Engine::mapped(database.target(), &[stage], limited(), RunUntil::Stopped, QUICK)
}

async fn until_held(stage: &Arc<MemoryStage>) {
    until("it is held", || {
        stage
            .told(PRODUCER)
            .is_some_and(|report| report.condition.state == DeliveryState::Held)
    })
    .await;
    let condition = stage.told(PRODUCER).unwrap().condition;
    for (text, part) in [
        (
            &condition.why,
            "refuses more than 1% of the messages (poison_limit)",
        ),
        (&condition.why, "23514"),
        (&condition.what_to_do, "mend the table"),
        (&condition.what_to_do, "dead-letters retry"),
        (&condition.what_to_do, "raise poison_limit"),
    ] {
        assert!(text.contains(part), "{condition:?}");
    }
}

/// Waits for some more attempts.
async fn is_tried_again(database: &Database<'_>) {
    let attempts = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let before: u64 = database.sql(attempts).await[0].parse().unwrap();
    database
        .until(&format!("SELECT (({attempts}) > {})::text", before + 10), "true")
        .await;
}

/// Rows, different rows, dead letters.
async fn landed(database: &Database<'_>) -> Vec<String> {
    database
        .sql("SELECT count(*), count(DISTINCT n), (SELECT count(*) FROM _socket_el_dead_letter) FROM trades")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_refuses_everything_holds_the_stage_until_it_is_mended_and_a_retry_brings_back_the_rest()
{
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE trades (n bigint CONSTRAINT wrong CHECK (n < 2000))")
        .await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..5_000);
    let engine = start(&database, &stage);
    until_held(&stage).await;
    assert_eq!(landed(&database).await, ["2000|2000|100"]);
    is_tried_again(&database).await;
    assert_eq!(landed(&database).await, ["2000|2000|100"], "no more are given up");

    // The next process remembers.
    engine.stop().await.unwrap();
    let engine = start(&database, &stage);
    until_held(&stage).await;
    is_tried_again(&database).await;
    assert_eq!(landed(&database).await, ["2000|2000|100"]);

    database.sql("ALTER TABLE trades DROP CONSTRAINT wrong").await;
    until("the others are delivered", || {
        stage
            .told(PRODUCER)
            .is_some_and(|report| report.condition.state == DeliveryState::Idle)
    })
    .await;
    // An attempt that was under way when the table was mended may give up the few that it had been refused by then.
    let now = landed(&database).await;
    let figures: Vec<u64> = now[0].split('|').map(|figure| figure.parse().unwrap()).collect();
    let [rows, distinct, letters] = figures[..] else {
        panic!("{now:?}");
    };
    assert!(
        rows == distinct && rows + letters == 5_000 && (100..200).contains(&letters),
        "{now:?}"
    );
    engine.stop().await.unwrap();
    let operator = Operator::new(database.target(), &stage);
    let retried = operator
        .producer
        .retry(PRODUCER, &LetterFilter::default(), false, Default::default())
        .await
        .unwrap();
    assert_eq!(retried.delivered, letters);
    database.holds_exactly("trades", 5_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_refuses_half_is_not_taken_for_mended_and_one_that_refuses_a_few_is() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE trades (n bigint CONSTRAINT wrong CHECK (n % 2 = 0))")
        .await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..5_000);
    let engine = start(&database, &stage);
    until_held(&stage).await;
    let held = landed(&database).await;
    is_tried_again(&database).await;
    assert_eq!(landed(&database).await, held);
    // Of the next thousand a few are still refused, and they are no reason to hold.
    database
        .sql("ALTER TABLE trades DROP CONSTRAINT wrong, ADD CHECK (n NOT BETWEEN 700 AND 708)")
        .await;
    until("it goes on", || engine.stats.delivered.get() == 5_000).await;
    engine.stop().await.unwrap();
    let letters = database
        .sql("SELECT count(*), count(*) FILTER (WHERE message_offset BETWEEN 700 AND 708) FROM _socket_el_dead_letter")
        .await;
    assert_eq!(letters, ["109|9"]);
    assert_eq!(landed(&database).await, ["4891|4891|109"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_without_a_row_number_hold_as_well() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE trades (n bigint);
             CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               RAISE EXCEPTION 'too late' USING ERRCODE = '23514'; END $$;
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON trades DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION late()",
        )
        .await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..1_000);
    let engine = start(&database, &stage);
    until_held(&stage).await;
    let given_up = async || -> u64 {
        let letters = database.sql("SELECT count(*) FROM _socket_el_dead_letter").await;
        letters[0].parse().unwrap()
    };
    assert!((100..110).contains(&given_up().await));
    // Each attempt gives up one at most: to find it takes ten transactions that are rolled back.
    let attempts = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let before = (
        given_up().await,
        database.sql(attempts).await[0].parse::<u64>().unwrap(),
    );
    is_tried_again(&database).await;
    let after = (
        given_up().await,
        database.sql(attempts).await[0].parse::<u64>().unwrap(),
    );
    assert!(
        (after.0 - before.0) * 5 <= after.1 - before.1,
        "{before:?} {after:?}"
    );
    // A few that are refused still are no reason to hold.
    database
        .sql(
            "CREATE OR REPLACE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.n IN (500, 501, 700) THEN RAISE EXCEPTION 'too late' USING ERRCODE = '23514'; END IF; RETURN NULL; END $$",
        )
        .await;
    until("it goes on", || engine.stats.delivered.get() == 1_000).await;
    engine.stop().await.unwrap();
    let letters = given_up().await;
    assert_eq!(
        landed(&database).await,
        [format!("{0}|{0}|{letters}", 1_000 - letters)]
    );
    let those = "SELECT count(*) FROM _socket_el_dead_letter WHERE message_offset IN (500, 501, 700)";
    assert_eq!(database.sql(those).await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_can_not_be_parsed_hold_nothing_however_many_there_are() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put((0..2_000).map(|_| "no json"));
    stage.put_numbers(0..10);
    let engine = start(&database, &stage);
    until("everything is delivered", || {
        engine.stats.delivered.get() == 2_010
    })
    .await;
    engine.stop().await.unwrap();
    assert_eq!(landed(&database).await, ["10|10|2000"]);
}
