//! Dead letters delivered after all: each is a letter or a row, whatever is lost in between.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::operator::{Operator, everything_from};
use super::support::{Database, MemoryStage, PRODUCER, Proxy, drain};
use crate::exit::RunnerError;
use crate::producer::dead_letters::{DeadLetters as _, LetterFilter, PickedLetters, Retried};
use crate::producer::operate::Operations as _;
use crate::record::Offset;

impl Operator {
    async fn retries(&self, filter: &LetterFilter, anyway: bool) -> Result<Retried, RunnerError> {
        self.producer
            .retry(PRODUCER, filter, anyway, CancellationToken::new())
            .await
    }

    async fn retries_all(&self) -> Retried {
        self.retries(&LetterFilter::default(), false).await.unwrap()
    }
}

/// A stage of which every message from `refused` on is a dead letter, for a constraint that is gone by now.
async fn refused_from(database: &Database<'_>, refused: u64, messages: u64) -> Arc<MemoryStage> {
    database
        .sql(&format!(
            "CREATE TABLE trades (n bigint CONSTRAINT low CHECK (n < {refused}))"
        ))
        .await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..refused);
    drain(database.target(), &[&stage]).await.unwrap();
    stage.put_numbers(refused..messages);
    let operator = Operator::new(database.target(), &stage);
    operator
        .producer
        .skip(&operator.scope, Offset::new(messages))
        .await
        .unwrap();
    stage
}

async fn letters_left(database: &Database<'_>) -> String {
    database
        .sql("SELECT count(*) FROM _socket_el_dead_letter")
        .await
        .remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_become_rows_once_the_table_is_mended_and_those_that_can_not_stay_with_the_new_reason() {
    let database = Database::shared().await;
    let stage = refused_from(&database, 100, 2_600).await;
    let operator = Operator::new(database.target(), &stage);
    // Each is still refused, by itself.
    let some = LetterFilter {
        from: Some(Offset::new(100)),
        to: Some(Offset::new(110)),
        ..LetterFilter::default()
    };
    let retried = operator.retries(&some, false).await.unwrap();
    assert_eq!((retried.delivered, retried.failed), (0, 10));
    let reasons = database
        .sql("SELECT sqlstate, count(*) FROM _socket_el_dead_letter WHERE reason LIKE '%\"low\"%' GROUP BY 1")
        .await;
    assert_eq!(reasons, ["23514|10"]);
    database
        .sql("ALTER TABLE trades DROP CONSTRAINT low, ADD CHECK (n NOT IN (150, 2000, 2001))")
        .await;
    let retried = operator.retries_all().await;
    assert_eq!(
        (retried.delivered, retried.rows, retried.failed),
        (2_497, 2_497, 3)
    );
    assert_eq!(
        database
            .sql("SELECT count(*), count(DISTINCT n) FROM trades")
            .await,
        ["2597|2597"]
    );
    assert_eq!(
        database
            .sql("SELECT message_offset FROM _socket_el_dead_letter ORDER BY 1")
            .await,
        ["150", "2000", "2001"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_needs_a_column_gets_it() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..10);
    drain(database.target(), &[&stage]).await.unwrap();
    stage.put([&b"{\"n\": 10, \"m\": \"new\"}"[..], b"{\"n\": 11}", b"no json"]);
    let operator = Operator::new(database.target(), &stage);
    operator
        .producer
        .skip(&operator.scope, Offset::new(13))
        .await
        .unwrap();
    let retried = operator.retries_all().await;
    assert_eq!((retried.delivered, retried.failed), (2, 1));
    database.holds_exactly("trades", 12).await;
    assert_eq!(database.sql("SELECT m FROM trades WHERE n = 10").await, ["new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_refused_at_the_commit_are_found_by_halving() {
    let database = Database::shared().await;
    let stage = refused_from(&database, 10, 210).await;
    database
        .sql(
            "ALTER TABLE trades DROP CONSTRAINT low; INSERT INTO trades VALUES (77);
             ALTER TABLE trades ADD UNIQUE (n) DEFERRABLE INITIALLY DEFERRED",
        )
        .await;
    let retried = Operator::new(database.target(), &stage).retries_all().await;
    assert_eq!((retried.delivered, retried.failed), (199, 1));
    assert_eq!(
        database
            .sql("SELECT message_offset, sqlstate FROM _socket_el_dead_letter")
            .await,
        ["77|23505"]
    );
    database.holds_exactly("trades", 210).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_killed_or_whose_commit_is_in_doubt_delivers_each_letter_once() {
    let database = Database::shared().await;
    let stage = refused_from(&database, 100, 12_100).await;
    database.sql("ALTER TABLE trades DROP CONSTRAINT low").await;
    for left in [11_000, 9_000] {
        let killed = Operator::new(database.target(), &stage);
        let killed = tokio::spawn(async move { killed.retries_all().await });
        database
            .until(
                &format!("SELECT (count(*) <= {left})::text FROM _socket_el_dead_letter"),
                "true",
            )
            .await;
        killed.abort();
        let _ = killed.await;
    }
    let proxy = Proxy::before(database.cluster.port()).await;
    let left: u64 = letters_left(&database).await.parse().unwrap();
    let operator = Operator::new(database.target_at(proxy.port), &stage);
    proxy.swallow_next_commit();
    let retried = operator.retries_all().await;
    assert!(proxy.has_swallowed());
    assert_eq!(retried.delivered, left);
    database.holds_exactly("trades", 12_100).await;
    assert_eq!(letters_left(&database).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_deliver_each_letter_once() {
    let database = Database::shared().await;
    let stage = refused_from(&database, 100, 8_100).await;
    database.sql("ALTER TABLE trades DROP CONSTRAINT low").await;
    let (one, two) = (
        Operator::new(database.target(), &stage),
        Operator::new(database.target(), &stage),
    );
    let (one, two) = tokio::join!(one.retries_all(), two.retries_all());
    assert_eq!(one.failed + two.failed, 0);
    Operator::new(database.target(), &stage).retries_all().await;
    database.holds_exactly("trades", 8_100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_letter_is_delivered_beside_an_unfinished_replay_or_before_one_that_it_would_spoil() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put([&b"{\"n\": 0}"[..], b"no json", b"{\"n\": 1}"]);
    let operator = Operator::new(database.target(), &stage);
    operator.delivers().await;
    stage.put_numbers(2..4);
    operator
        .producer
        .skip(&operator.scope, Offset::new(4))
        .await
        .unwrap();
    database.sql("DROP TABLE trades").await;
    operator.delivers().await;
    // The table was made anew at offset 4; the letter of offset 3 is from before.
    let refused = operator
        .retries(&LetterFilter::default(), false)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("--anyway"), "{refused}");
    operator.begins(&everything_from(0)).await.unwrap();
    let refused = operator
        .retries(&LetterFilter::default(), true)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("--resume"), "{refused}");
    operator.goes_on().await.unwrap();
    assert_eq!(operator.retries_all().await.delivered, 1);
    database.holds_exactly("trades", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_picked_paged_and_given_up_by_their_filter() {
    let database = Database::shared().await;
    let stage = refused_from(&database, 100, 400).await;
    let operator = Operator::new(database.target(), &stage);
    let filter = LetterFilter {
        stage: Some("trades".to_owned()),
        reason: Some("SKIPPED by".to_owned()),
        from: Some(Offset::new(150)),
        ..LetterFilter::default()
    };
    let letters = operator.producer.as_ref();
    let picked = letters.count(PRODUCER, &filter).await.unwrap();
    assert_eq!(picked.letters, 250);
    let none = PickedLetters::default();
    assert_eq!(letters.count("another", &filter).await.unwrap(), none);
    let page = letters.page(PRODUCER, &filter, 0, 10, true).await.unwrap();
    assert_eq!((page.len(), page[0].offset), (10, Offset::new(150)));
    assert_eq!(page[0].payload.as_deref(), Some(&b"{\"n\": 150}"[..]));
    let next = letters
        .page(PRODUCER, &filter, page[9].id, 1_000, false)
        .await
        .unwrap();
    assert_eq!(
        (next.len(), next[0].offset, next[0].payload.is_none()),
        (240, Offset::new(160), true)
    );
    assert_eq!(letters.discard(PRODUCER, &filter, none).await.unwrap(), 0);
    assert_eq!(letters.discard(PRODUCER, &filter, picked).await.unwrap(), 250);
    assert_eq!(letters_left(&database).await, "50");
}

/// Between the question and the answer an engine may write more of them, also with numbers that it was given before.
#[tokio::test(flavor = "multi_thread")]
async fn no_letter_is_given_up_that_was_not_counted() {
    let database = Database::shared().await;
    let stage = refused_from(&database, 100, 110).await;
    let operator = Operator::new(database.target(), &stage);
    let (letters, filter) = (operator.producer.as_ref(), LetterFilter::default());
    let add = |id: &str| {
        let sql = format!(
            "INSERT INTO _socket_el_dead_letter (id, stage_path_id, stage, producer, message_offset, received_at, reason, payload) \
             OVERRIDING SYSTEM VALUE SELECT {id}, stage_path_id, stage, producer, 1000, received_at, reason, payload \
             FROM _socket_el_dead_letter LIMIT 1"
        );
        let database = &database;
        async move { database.sql(&sql).await }
    };
    let picked = letters.count(PRODUCER, &filter).await.unwrap();
    assert_eq!(picked.letters, 10);
    add("0").await;
    let refused = letters.discard(PRODUCER, &filter, picked).await.unwrap_err();
    assert!(refused.to_string().contains("there are 11"), "{refused}");
    assert_eq!(letters_left(&database).await, "11");

    let picked = letters.count(PRODUCER, &filter).await.unwrap();
    add("1000000").await;
    assert_eq!(letters.discard(PRODUCER, &filter, picked).await.unwrap(), 11);
    assert_eq!(letters_left(&database).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn to_look_for_letters_makes_no_table() {
    let database = Database::shared().await;
    let operator = Operator::new(database.target(), &MemoryStage::new("trades"));
    let (letters, filter) = (operator.producer.as_ref(), LetterFilter::default());
    let picked = letters.count(PRODUCER, &filter).await.unwrap();
    assert_eq!(picked, PickedLetters::default());
    assert!(
        letters
            .page(PRODUCER, &filter, 0, 10, true)
            .await
            .unwrap()
            .is_empty()
    );
    let made = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(database.sql(made).await, ["0"]);
}
