//! Replay and retry of a stage that goes into several tables.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::operator::{Operator, everything_from, into_table};
use super::support::{Database, MemoryStage, PRODUCER, options};
use crate::producer::dead_letters::{DeadLetters as _, LetterFilter};
use crate::producer::operate::{Doubles, Operations as _};
use crate::record::Offset;

const ROUTES: &str = "routes:\n  - { when: { $.kind: even }, table: even }\n  - { table: odd }";

fn put(stage: &MemoryStage, numbers: std::ops::Range<u64>) {
    stage.put(numbers.map(|n| {
        let kind = if n.is_multiple_of(2) { "even" } else { "odd" };
        format!("{{\"kind\": \"{kind}\", \"n\": {n}}}")
    }));
}

async fn delivered(database: &Database<'_>, keys: &str, messages: u64) -> (Arc<MemoryStage>, Operator) {
    let stage = MemoryStage::new("feed");
    put(&stage, 0..messages);
    let operator = Operator::with(database.target(), &stage, options(keys));
    operator.delivers().await;
    (stage, operator)
}

async fn counts(database: &Database<'_>, one: &str, other: &str) -> String {
    let sql = format!(
        "SELECT (SELECT count(*) FROM {one}), (SELECT count(DISTINCT n) FROM {one}), \
         (SELECT count(*) FROM {other}), (SELECT count(DISTINCT n) FROM {other})"
    );
    database.sql(&sql).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_gets_its_rows_back_and_the_other_none_twice() {
    let database = Database::shared().await;
    let (stage, operator) = delivered(&database, ROUTES, 1_000).await;
    let refused = operator.begins(&everything_from(0)).await.unwrap_err();
    assert!(refused.to_string().contains("\"even\""), "{refused}");
    database.sql("DROP TABLE odd").await;
    put(&stage, 1_000..1_500);
    operator.delivers().await;
    let plan = operator.replays(&everything_from(0)).await;
    let ends: Vec<_> = plan
        .tables
        .iter()
        .map(|table| (table.table.as_str(), table.until.get(), table.doubles))
        .collect();
    assert_eq!(
        ends,
        [
            ("\"public\".\"even\"", 0, Doubles::HasAll),
            ("\"public\".\"odd\"", 1_000, Doubles::MadeLater)
        ]
    );
    assert_eq!(counts(&database, "even", "odd").await, "750|750|750|750");
    assert!(
        operator.begins(&everything_from(0)).await.is_err(),
        "it holds its rows now"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_deleted_come_back_into_each_table_where_metadata_tells_them() {
    let database = Database::shared().await;
    let keys = format!("metadata: true\n{ROUTES}");
    let (_stage, operator) = delivered(&database, &keys, 1_000).await;
    database
        .sql("DELETE FROM even WHERE n % 3 = 0; TRUNCATE odd")
        .await;
    let plan = operator.replays(&everything_from(0)).await;
    let doubles: Vec<_> = plan.tables.iter().map(|table| table.doubles).collect();
    assert_eq!(doubles, [Doubles::LeftOut, Doubles::NoneThere]);
    assert_eq!(counts(&database, "even", "odd").await, "500|500|500|500");
    operator.replays(&everything_from(0)).await;
    assert_eq!(counts(&database, "even", "odd").await, "500|500|500|500");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_new_takes_old_messages_though_they_stand_in_another_table() {
    let database = Database::shared().await;
    let (stage, _) = delivered(&database, "metadata: true\ntable: odd", 1_000).await;
    let keys = format!("metadata: true\n{ROUTES}");
    let operator = Operator::with(database.target(), &stage, options(&keys));
    put(&stage, 1_000..1_100);
    operator.delivers().await;
    operator.replays(&everything_from(0)).await;
    assert_eq!(counts(&database, "even", "odd").await, "550|550|1050|1050");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_into_other_tables_names_each_by_its_own() {
    let database = Database::shared().await;
    let (_stage, operator) = delivered(&database, ROUTES, 1_000).await;
    for wrong in ["again", "{table}", "{stage}_x"] {
        let refused = operator.begins(&into_table(wrong)).await.unwrap_err();
        assert_eq!(
            refused.reason(),
            crate::exit::ExitReason::Configuration,
            "{wrong}"
        );
    }
    operator.replays(&into_table("{table}_again")).await;
    assert_eq!(
        counts(&database, "even_again", "odd_again").await,
        "500|500|500|500"
    );
    assert_eq!(counts(&database, "even", "odd").await, "500|500|500|500");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_all_tables_are_retried_into_theirs() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE odd (kind text, n bigint CONSTRAINT low CHECK (n < 100))")
        .await;
    let (stage, operator) = delivered(&database, ROUTES, 10).await;
    put(&stage, 100..300);
    stage.put(["no JSON"]);
    operator
        .producer
        .skip(&operator.scope, Offset::new(211))
        .await
        .unwrap();
    database
        .sql("ALTER TABLE odd DROP CONSTRAINT low, ADD CHECK (n <> 151)")
        .await;
    let retried = operator
        .producer
        .retry(
            PRODUCER,
            &LetterFilter::default(),
            false,
            CancellationToken::new(),
        )
        .await
        .unwrap();
    assert_eq!((retried.delivered, retried.rows, retried.failed), (199, 199, 2));
    assert_eq!(counts(&database, "even", "odd").await, "105|105|104|104");
    let left = database
        .sql("SELECT message_offset, sqlstate FROM _socket_el_dead_letter ORDER BY 1")
        .await;
    assert_eq!(left, ["61|23514", "210|"]);
}
