//! What became of each message is counted in the row of the cursor, exactly, whatever is killed and whoever interferes.

use std::sync::Arc;

use super::super::operate::adopt::adopt;
use super::super::{PostgresOptions, PostgresProducer};
use super::operator::{Operator, everything_from};
use super::support::{Database, Engine, MemoryStage, PRODUCER, Proxy, QUICK, drain, until};
use crate::config::{Section, Variables};
use crate::producer::dead_letters::{DeadLetters as _, LetterFilter};
use crate::producer::operate::Operations as _;
use crate::producer::{Adoption, Producer as _, ProducerContext, RunUntil, Start};
use crate::record::Offset;
use crate::stage::Stage as _;
use crate::stage::report::Outcomes;

/// Reads the row, and demands that it accounts for every message before its cursor.
async fn counted(database: &Database<'_>, stage: &MemoryStage) -> Outcomes {
    let row = database
        .sql(&format!(
            "SELECT next_offset, delivered, ignored, skipped, dead_letters, dropped, lost FROM _socket_el_cursor \
             WHERE stage = '{}' AND producer = '{PRODUCER}'",
            stage.name()
        ))
        .await;
    let row: Vec<u64> = row[0].split('|').map(|number| number.parse().unwrap()).collect();
    let [cursor, delivered, ignored, skipped, dead_letters, dropped, lost] = row[..] else {
        panic!("{row:?}");
    };
    let outcomes = Outcomes {
        delivered,
        ignored,
        skipped,
        dead_letters,
        dropped,
        lost,
    };
    let before = stage.given_before(Offset::new(cursor));
    assert_eq!(outcomes.total(), before.messages, "{outcomes:?} before {cursor}");
    outcomes
}

/// The counts that a test expects: delivered, ignored, skipped, dead letters.
fn expected(delivered: u64, ignored: u64, skipped: u64, dead_letters: u64) -> Outcomes {
    Outcomes {
        delivered,
        ignored,
        skipped,
        dead_letters,
        ..Outcomes::default()
    }
}

/// Drops the letters that are there now; returns how many.
async fn given_up(operator: &Operator, filter: &LetterFilter) -> u64 {
    let picked = operator.producer.count(PRODUCER, filter).await.unwrap();
    operator.producer.discard(PRODUCER, filter, picked).await.unwrap()
}

async fn rows(database: &Database<'_>) -> u64 {
    database.sql("SELECT count(*) FROM trades").await[0]
        .parse()
        .unwrap()
}

async fn letters(database: &Database<'_>) -> u64 {
    database.sql("SELECT count(*) FROM _socket_el_dead_letter").await[0]
        .parse()
        .unwrap()
}

/// Leaves out every message of which `skip` is true.
fn without_skipped() -> PostgresOptions {
    Section::read_text("when: { $.skip: false }", &Variables::default(), |section| {
        PostgresOptions::read(section, PRODUCER)
    })
    .unwrap()
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_a_message_is_counted_once_and_letters_change_their_count_with_what_becomes_of_them() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE trades (n bigint CONSTRAINT odd CHECK (n % 10 <> 3), skip boolean)")
        .await;
    let stage = MemoryStage::new("trades");
    let message = |n: u64| match n % 10 {
        5 => format!("{{\"n\": {n}, \"skip\": true}}"),
        7 => "no json".to_owned(),
        _ => format!("{{\"n\": {n}, \"skip\": false}}"),
    };
    // Of each ten: one is left out, one can't be read, one is refused by the table.
    stage.put((0..1_000).map(message));
    stage.skip(5_000);
    stage.put((1_000..2_000).map(message));
    let operator = Operator::with(database.target(), &stage, without_skipped());
    operator.delivers().await;
    assert_eq!(counted(&database, &stage).await, expected(1_400, 200, 0, 400));
    assert_eq!((rows(&database).await, letters(&database).await), (1_400, 400));

    // Skipped messages are letters as well, and counted apart.
    stage.put((2_000..2_100).map(message));
    stage.skip(300);
    stage.put((2_100..2_200).map(message));
    let head = stage.bounds().head;
    operator.producer.skip(&operator.scope, head).await.unwrap();
    assert_eq!(counted(&database, &stage).await, expected(1_400, 200, 200, 400));

    // Retried: rows now, or letters with another reason. What the mapping leaves out stays a letter.
    database.sql("ALTER TABLE trades DROP CONSTRAINT odd").await;
    let retried = operator
        .producer
        .retry(PRODUCER, &LetterFilter::default(), false, Default::default())
        .await
        .unwrap();
    assert_eq!((retried.delivered, retried.failed), (200 + 160, 200 + 40));
    assert_eq!(counted(&database, &stage).await, expected(1_760, 200, 0, 240));
    assert_eq!((rows(&database).await, letters(&database).await), (1_760, 240));

    // Given up.
    let some = LetterFilter {
        to: Some(Offset::new(500)),
        ..LetterFilter::default()
    };
    assert_eq!(given_up(&operator, &some).await, 50);
    assert_eq!(counted(&database, &stage).await, expected(1_760, 200, 50, 190));

    // A replay, and what is done about its letters, counts nothing.
    database
        .sql("TRUNCATE trades; ALTER TABLE trades ADD CONSTRAINT odd CHECK (n <> 8)")
        .await;
    operator.replays(&everything_from(0)).await;
    assert_eq!(letters(&database).await, 190 + 51);
    assert_eq!(counted(&database, &stage).await, expected(1_760, 200, 50, 190));
    given_up(&operator, &LetterFilter::default()).await;
    assert_eq!(counted(&database, &stage).await, expected(1_760, 200, 240, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_exact_after_kills_and_commits_whose_answers_are_lost() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE trades (n bigint CHECK (n % 1000 <> 77))")
        .await;
    let proxy = Proxy::before(database.cluster.port()).await;
    let stage = MemoryStage::new("trades");
    drain(database.target(), &[&stage]).await.unwrap();
    let mut sent = 0;
    for life in 0..6 {
        stage.put_numbers(sent..sent + 10_000);
        stage.put(["no json"]);
        sent += 10_000;
        let engine = Engine::start(database.target_at(proxy.port), &[&stage]);
        if life % 2 == 0 {
            proxy.swallow_next_commit();
            until("an answer was swallowed", || proxy.has_swallowed()).await;
        } else {
            let delivered = sent - 5_000;
            database
                .until(
                    &format!("SELECT (next_offset >= {delivered})::text FROM _socket_el_cursor"),
                    "true",
                )
                .await;
        }
        engine.kill().await;
        counted(&database, &stage).await;
    }
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(counted(&database, &stage).await, expected(59_940, 0, 0, 66));
    assert_eq!((rows(&database).await, letters(&database).await), (59_940, 66));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_version_that_did_not_count_are_changed_and_made_up_for() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    let path = stage.path_id();
    // As they were made before, with what was delivered then: 90 rows, 4 letters and 6 that were skipped.
    database
        .sql(&format!(
            "CREATE TABLE _socket_el_cursor (stage_path_id uuid NOT NULL, stage text NOT NULL, producer text NOT NULL,
               epoch bigint NOT NULL, next_offset bigint NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(),
               PRIMARY KEY (stage, producer));
             CREATE TABLE _socket_el_dead_letter (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stage_path_id uuid NOT NULL,
               stage text NOT NULL, producer text NOT NULL, message_offset bigint NOT NULL, record_index integer,
               received_at timestamptz NOT NULL, sqlstate text, reason text NOT NULL, payload bytea NOT NULL,
               created_at timestamptz NOT NULL DEFAULT now());
             INSERT INTO _socket_el_cursor VALUES ('{path}', 'trades', '{PRODUCER}', 7, 100);
             INSERT INTO _socket_el_dead_letter (stage_path_id, stage, producer, message_offset, received_at, reason, payload)
               SELECT '{path}', 'trades', '{PRODUCER}', n, now(), CASE WHEN n < 4 THEN 'x' ELSE 'skipped by an operator' END, '{{}}'
               FROM generate_series(0, 9) n"
        ))
        .await;
    stage.put_numbers(100..150);
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(counted(&database, &stage).await, expected(140, 0, 6, 4));
    // Those of the older version count as well.
    let operator = Operator::new(database.target(), &stage);
    assert_eq!(given_up(&operator, &LetterFilter::default()).await, 10);
    assert_eq!(counted(&database, &stage).await, expected(140, 0, 10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_moved_by_hand_is_noticed_and_every_message_still_counts_once() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..300);
    drain(database.target(), &[&stage]).await.unwrap();
    // Forward while nothing runs.
    stage.put_numbers(300..400);
    database.set_cursor(&stage, 350).await;
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(counted(&database, &stage).await, expected(350, 0, 50, 0));
    // Back under a running engine, which is idle.
    let engine = Engine::start(database.target(), &[&stage]);
    database.set_cursor(&stage, 200).await;
    until("it delivers again", || engine.stats.delivered.get() == 200).await;
    assert_eq!(counted(&database, &stage).await, expected(350, 0, 50, 0));
    engine.stop().await.unwrap();
    assert_eq!(rows(&database).await, 550);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_a_producer_began_and_what_is_gone_is_counted() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..300);
    // Gone before the producer was new.
    stage.expire(100);
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(counted(&database, &stage).await, expected(200, 0, 100, 0));

    // Restored from a backup, from which the stage no longer holds all.
    stage.put_numbers(300..500);
    database
        .sql(
            "UPDATE _socket_el_cursor SET next_offset = 150, delivered = 50; DELETE FROM trades WHERE n >= 150",
        )
        .await;
    stage.expire(400);
    drain(database.target(), &[&stage]).await.unwrap();
    let outcomes = counted(&database, &stage).await;
    assert_eq!(
        (outcomes.delivered, outcomes.lost, outcomes.skipped),
        (150, 250, 100)
    );
    assert_eq!(rows(&database).await, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_starts_with_the_newest_message_has_skipped_the_others() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..300);
    let context = |until| ProducerContext {
        name: PRODUCER.to_owned(),
        stages: vec![Arc::clone(&stage) as _],
        start: Start::Newest,
        until,
        stats: Arc::default(),
        stop: Default::default(),
    };
    let producer = || {
        let mut producer = PostgresProducer::new(database.target(), PostgresOptions::default());
        producer.timing = QUICK;
        Box::new(producer)
    };
    producer().run(context(RunUntil::Drained)).await.unwrap();
    stage.put_numbers(300..310);
    producer().run(context(RunUntil::Drained)).await.unwrap();
    assert_eq!(counted(&database, &stage).await, expected(10, 0, 300, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_cursor_counts_anew() {
    let database = Database::shared().await;
    let ours = MemoryStage::new("trades");
    ours.put_numbers(0..100);
    drain(database.target(), &[&ours]).await.unwrap();
    for (keep_cursor, before, after) in [
        (false, expected(0, 0, 40, 0), expected(80, 0, 40, 0)),
        (true, expected(40, 0, 0, 0), expected(120, 0, 0, 0)),
    ] {
        let other = MemoryStage::new("trades");
        other.put_numbers(0..120);
        if keep_cursor {
            database.set_cursor(&ours, 40).await;
        } else {
            other.expire(40);
        }
        let adoption = Adoption {
            producer: PRODUCER.to_owned(),
            stage: Arc::clone(&other) as _,
            keep_cursor,
        };
        adopt(&database.target(), &PostgresOptions::default(), &adoption)
            .await
            .unwrap();
        assert_eq!(counted(&database, &other).await, before);
        drain(database.target(), &[&other]).await.unwrap();
        assert_eq!(counted(&database, &other).await, after);
    }
}

/// Of ten messages one is no JSON.
fn some_are_no_json(numbers: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    numbers.map(|n| match n % 10 {
        7 => "no json".to_owned(),
        _ => format!("{{\"n\": {n}}}"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_adopted_after_its_row_was_removed_accounts_for_the_letters_that_stand() {
    for (keep_cursor, before) in [(true, expected(90, 0, 0, 10)), (false, expected(0, 0, 0, 0))] {
        let database = Database::shared().await;
        let stage = MemoryStage::new("trades");
        stage.put(some_are_no_json(0..100));
        drain(database.target(), &[&stage]).await.unwrap();
        assert_eq!(counted(&database, &stage).await, expected(90, 0, 0, 10));
        database.sql("DELETE FROM _socket_el_cursor").await;
        stage.put(some_are_no_json(100..120));
        let adoption = Adoption {
            producer: PRODUCER.to_owned(),
            stage: Arc::clone(&stage) as _,
            keep_cursor,
        };
        adopt(&database.target(), &PostgresOptions::default(), &adoption)
            .await
            .unwrap();
        assert_eq!(counted(&database, &stage).await, before);
        drain(database.target(), &[&stage]).await.unwrap();
        assert_eq!(counted(&database, &stage).await, expected(108, 0, 0, 12));
        // A message that is delivered again is a row or one letter.
        assert_eq!(letters(&database).await, 12);
        let operator = Operator::new(database.target(), &stage);
        given_up(&operator, &LetterFilter::default()).await;
        assert_eq!(counted(&database, &stage).await, expected(108, 0, 12, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_messages_that_are_delivered_again_because_the_cursor_was_moved_by_hand_count_once() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put(some_are_no_json(0..100));
    drain(database.target(), &[&stage]).await.unwrap();
    database.set_cursor(&stage, 50).await;
    drain(database.target(), &[&stage]).await.unwrap();
    assert_eq!(counted(&database, &stage).await, expected(90, 0, 0, 10));
    // What nobody agreed to give up is still there.
    assert_eq!(letters(&database).await, 15);
    let operator = Operator::new(database.target(), &stage);
    given_up(&operator, &LetterFilter::default()).await;
    assert_eq!(counted(&database, &stage).await, expected(90, 0, 10, 0));
}
