//! The ledger of gaps: each once, in the transaction that passes its place.

use super::operator::{Operator, into_table};
use super::support::{Database, Engine, MemoryStage, Proxy, drain, until};
use crate::producer::operate::Operations as _;
use crate::record::{Offset, Timestamp};
use crate::stage::{Outage, OutageKind, Skip, Stage as _};

/// The details of all rows in the order of the stage.
const DETAILS: &str =
    "SELECT detail FROM _socket_el_gap ORDER BY to_offset, (cause = 'outage'), number, recorded_at";

/// How many rows and different ones there are.
const COUNTS: &str =
    "SELECT count(*), count(DISTINCT (to_offset, number, cause, detail)) FROM _socket_el_gap";

/// Waits until the ledger has so many rows.
async fn until_recorded(database: &Database<'_>, rows: usize) {
    database
        .until("SELECT count(*) FROM _socket_el_gap", &rows.to_string())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_and_outages_of_every_kind_are_rows_that_say_all_that_is_known() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    let outage = |messages, cause: &str, kind| Outage {
        from: Timestamp::from_micros(1_700_000_001_000_000),
        to: Timestamp::from_micros(1_700_000_002_500_000),
        messages,
        cause: cause.to_owned(),
        kind,
    };
    stage.put_outage(outage(0, "closed\0(1006)", OutageKind::Disconnected));
    stage.put_numbers(0..10);
    stage.skip(90);
    let skip = |key: Option<&str>, first, last| {
        OutageKind::Sequence(Some(Skip {
            key: key.map(str::to_owned),
            first,
            last,
        }))
    };
    stage.put_outage(outage(7, "full", OutageKind::DroppedNewest));
    stage.put_outage(outage(1, "large", OutageKind::TooLarge));
    stage.put_outage(outage(10, "hole", skip(Some("BTC"), 11, 20)));
    stage.put_outage(outage(0, "hole", skip(None, 5, u64::MAX)));
    stage.put_outage(outage(99, "many holes", OutageKind::Sequence(None)));
    stage.put_numbers(10..20);
    let engine = Engine::start(database.target(), &[&stage]);
    until("delivered", || engine.stats.delivered.get() == 20).await;
    let stats = engine.stats.clone();
    engine.stop().await.unwrap();
    let rows = database
        .sql(
            "SELECT stage, producer, from_offset, to_offset, number, cause, coalesce(messages::text, '?'), \
             extract(epoch FROM began_at)::bigint, extract(epoch FROM ended_at), detail, \
             coalesce(sequence_key, '-'), missing_first, missing_last \
             FROM _socket_el_gap ORDER BY to_offset, cause <> 'reservation', number",
        )
        .await;
    assert_eq!(
        rows,
        [
            "trades|postgres|0|0|0|outage|?|1700000001|1700000002.500000|closed(1006)|-||",
            "trades|postgres|10|100|0|reservation|0|||offsets reserved before an unclean stop|-||",
            "trades|postgres|10|100|0|dropped_newest|7|1700000001|1700000002.500000|full|-||",
            "trades|postgres|10|100|1|too_large|1|1700000001|1700000002.500000|large|-||",
            "trades|postgres|10|100|2|sequence|10|1700000001|1700000002.500000|hole|BTC|11|20",
            "trades|postgres|10|100|3|sequence|?|1700000001|1700000002.500000|hole|-|5|18446744073709551615",
            "trades|postgres|10|100|4|sequence|99|1700000001|1700000002.500000|many holes|-||",
        ]
    );
    assert_eq!(
        database
            .sql("SELECT DISTINCT stage_path_id FROM _socket_el_gap")
            .await,
        [stage.path_id().to_string()]
    );
    assert_eq!(stats.gaps.get(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_no_message_follows_is_recorded_at_once_and_once() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    let engine = Engine::start(database.target(), &[&stage]);
    // Before the first message there is no table, and none is needed.
    stage.put_outages(["nothing yet"]);
    until_recorded(&database, 1).await;
    stage.put_numbers(0..10);
    until("delivered", || engine.stats.delivered.get() == 10).await;
    // More than one page at one place.
    let causes: Vec<_> = (0..8).map(|number| number.to_string()).collect();
    stage.put_outages(causes.iter().map(String::as_str));
    until_recorded(&database, 9).await;
    assert_eq!(database.cursor("trades").await, ["10"]);
    engine.stop().await.unwrap();
    // Another process finds them at its cursor again, and leaves them as they are.
    let engine = Engine::start(database.target(), &[&stage]);
    stage.put_outages(["after the restart"]);
    until_recorded(&database, 10).await;
    stage.put_numbers(10..20);
    until("delivered", || engine.stats.delivered.get() == 10).await;
    engine.stop().await.unwrap();
    let mut expected = vec!["nothing yet".to_owned()];
    expected.extend(causes);
    expected.push("after the restart".to_owned());
    assert_eq!(database.sql(DETAILS).await, expected);
    database.holds_exactly("trades", 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_with_the_outages_behind_the_last_message() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    stage.put_outages(["1", "2", "3", "4", "5"]);
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(database.sql(DETAILS).await, ["1", "2", "3", "4", "5"]);
    // Nor does it end while it waits to try again.
    database.sql("CREATE SEQUENCE tries").await;
    database
        .sql(
            "CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('tries') = 1 THEN RAISE EXCEPTION 'once' USING ERRCODE = '40001'; END IF; RETURN NEW; END $$",
        )
        .await;
    database
        .sql("CREATE TRIGGER once BEFORE INSERT ON _socket_el_gap FOR EACH STATEMENT EXECUTE FUNCTION fail_once()")
        .await;
    stage.put_outages(["6"]);
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(database.sql(DETAILS).await, ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_nothing_but_an_outage_whose_answer_is_lost_leaves_one_row() {
    let database = Database::shared().await;
    let proxy = Proxy::before(database.cluster.port()).await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    let engine = Engine::start(database.target_at(proxy.port), &[&stage]);
    until("delivered", || engine.stats.delivered.get() == 10).await;
    for number in 0..5 {
        proxy.swallow_next_commit();
        stage.put_outages([number.to_string().as_str()]);
        until("an answer was swallowed", || proxy.has_swallowed()).await;
        // What is recorded next comes after it has been found out.
        stage.put_outages([format!("behind {number}").as_str()]);
        until_recorded(&database, 2 * number + 2).await;
    }
    assert!(engine.stats.reconnects.get() >= 5);
    engine.stop().await.unwrap();
    assert_eq!(database.sql(COUNTS).await, ["10|10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_engines_lose_and_double_no_row_among_messages() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    let mut expected = Vec::new();
    for number in 0..40 {
        for nth in 0..number % 6 {
            let cause = format!("{number} {nth}");
            stage.put_outages([cause.as_str()]);
            expected.push(cause);
        }
        stage.put_numbers(number * 1000..(number + 1) * 1000);
    }
    for delivered in [1, 9_000, 20_000, 33_000] {
        let engine = Engine::start(database.target(), &[&stage]);
        database
            .until(
                &format!("SELECT (next_offset >= {delivered})::text FROM _socket_el_cursor"),
                "true",
            )
            .await;
        engine.kill().await;
        stage.set_local_cursor(None);
    }
    drain(database.target(), &[&stage]).await.unwrap();
    database.holds_exactly("trades", 40_000).await;
    assert_eq!(database.sql(DETAILS).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_undone_leaves_no_row_and_the_next_one_writes_it() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    drain(database.target(), &[&stage]).await.unwrap();
    // The cursor can't move, so what was written before is undone.
    database
        .sql("ALTER TABLE _socket_el_cursor ADD CONSTRAINT stuck CHECK (next_offset <= 10)")
        .await;
    stage.put_outages(["before ten more"]);
    stage.put_numbers(10..20);
    let engine = Engine::start(database.target(), &[&stage]);
    database
        .until(
            "SELECT (sum(xact_rollback) > 3)::text FROM pg_stat_database WHERE datname = current_database()",
            "true",
        )
        .await;
    assert_eq!(database.sql(COUNTS).await, ["0|0"]);
    database
        .sql("ALTER TABLE _socket_el_cursor DROP CONSTRAINT stuck")
        .await;
    until("it goes on", || engine.stats.delivered.get() == 10).await;
    engine.stop().await.unwrap();
    assert_eq!(database.sql(DETAILS).await, ["before ten more"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_message_is_isolated_without_doubling_the_outages_around_it() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE trades (n bigint CHECK (n <> 5))")
        .await;
    let stage = MemoryStage::new("trades");
    for n in 0..10 {
        stage.put_outages([n.to_string().as_str()]);
        stage.put_numbers(n..n + 1);
    }
    drain(database.target(), &[&stage]).await.unwrap();
    let expected: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(database.sql(DETAILS).await, expected);
    assert_eq!(
        database.sql("SELECT count(*) FROM _socket_el_dead_letter").await,
        ["1"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_records_what_it_passes_and_a_replay_records_nothing_again() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    drain(database.target(), &[&stage]).await.unwrap();
    for number in 0..8 {
        stage.put_outages([number.to_string().as_str()]);
    }
    stage.skip(50);
    stage.put_numbers(10..20);
    stage.put_outages(["behind"]);
    stage.put_numbers(20..30);
    let proxy = Proxy::before(database.cluster.port()).await;
    let operator = Operator::new(database.target_at(proxy.port), &stage);
    proxy.swallow_next_commit();
    operator
        .producer
        .skip(&operator.scope, Offset::new(65))
        .await
        .unwrap();
    let mut expected: Vec<_> = (0..8).map(|n| n.to_string()).collect();
    expected.push("offsets reserved before an unclean stop".to_owned());
    assert_eq!(database.sql(DETAILS).await, expected);
    drain(database.target(), &[&stage]).await.unwrap();
    expected.push("behind".to_owned());
    assert_eq!(database.sql(DETAILS).await, expected);

    let operator = Operator::new(database.target(), &stage);
    operator.replays(&into_table("again")).await;
    assert_eq!(database.sql("SELECT count(*) FROM again").await, ["30"]);
    assert_eq!(database.sql(DETAILS).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_set_back_records_nothing_twice() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_outages(["first"]);
    stage.put_numbers(0..10);
    stage.put_outages(["second", "third"]);
    stage.put_numbers(10..20);
    drain(database.target(), &[&stage]).await.unwrap();
    database.set_cursor(&stage, 0).await;
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(database.sql("SELECT count(*) FROM trades").await, ["40"]);
    assert_eq!(database.sql(DETAILS).await, ["first", "second", "third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_gone_holds_the_stage_and_its_messages() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    let engine = Engine::start(database.target(), &[&stage]);
    until("delivered", || engine.stats.delivered.get() == 10).await;
    database
        .sql("ALTER TABLE _socket_el_gap RENAME TO elsewhere")
        .await;
    stage.put_outages(["closed"]);
    stage.put_numbers(10..20);
    database
        .until(
            "SELECT (sum(xact_rollback) > 2)::text FROM pg_stat_database WHERE datname = current_database()",
            "true",
        )
        .await;
    database.holds_exactly("trades", 10).await;
    assert!(engine.is_running());
    database
        .sql("ALTER TABLE elsewhere RENAME TO _socket_el_gap")
        .await;
    until("it goes on", || engine.stats.delivered.get() == 20).await;
    engine.stop().await.unwrap();
    assert_eq!(database.sql(DETAILS).await, ["closed"]);
}
