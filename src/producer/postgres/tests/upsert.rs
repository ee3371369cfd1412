//! `on_conflict`: of one key there is one row, the first or the last, whatever is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt as _;

use super::operator::{Operator, everything_from, into_table};
use super::support::{Database, Engine, MemoryStage, Proxy, QUICK, options, until};
use crate::producer::RunUntil;
use crate::producer::operate::Doubles;
use crate::stats::ProducerStats;

const UPDATE: &str = "on_conflict: { key: [s], action: update }";
const IGNORE: &str = "on_conflict: { key: [s], action: ignore }";

async fn drained(database: &Database<'_>, stage: &Arc<MemoryStage>, keys: &str) -> Arc<ProducerStats> {
    let target = database.target();
    let engine = Engine::mapped(target, &[stage], options(keys), RunUntil::Drained, QUICK);
    let stats = engine.stats.clone();
    engine.ended().await.unwrap();
    stats
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_row_of_a_key_stands_for_update_and_the_first_for_ignore() {
    for (keys, rows, written) in [
        (UPDATE, ["a|5|", "b|6|x", "c|3|"], 5),
        (IGNORE, ["a|1|", "b|2|", "c|3|"], 3),
    ] {
        let database = Database::shared().await;
        let stage = MemoryStage::new("t");
        stage.put([
            r#"{"s":"a","n":1}"#,
            r#"{"s":"b","n":2}"#,
            r#"{"s":"c","n":3}"#,
            r#"{"s":"a","n":4}"#,
        ]);
        let stats = drained(&database, &stage, keys).await;
        assert_eq!((stats.rows.get(), stats.conflicts.get()), (3, 1));
        // In a transaction of its own, and of an engine of its own.
        stage.put([
            r#"{"s":"a","n":5}"#,
            r#"[{"s":"b","n":1},{"s":"b","n":6,"new":"x"}]"#,
        ]);
        let stats = drained(&database, &stage, keys).await;
        assert_eq!(
            (
                stats.delivered.get(),
                3 + stats.rows.get(),
                stats.rows.get() + stats.conflicts.get()
            ),
            (2, written, 3)
        );
        assert_eq!(database.sql("SELECT s, n, new FROM t ORDER BY s").await, rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_as_it_stands_is_what_the_last_message_says_with_null_for_what_it_lacks() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY, s text UNIQUE, n bigint, m text DEFAULT 'd', \
             twice bigint GENERATED ALWAYS AS (n * 2) STORED, seen text DEFAULT 'never')",
        )
        .await;
    let stage = MemoryStage::new("t");
    stage.put([r#"{"s":"a","n":1,"m":"x"}"#, r#"{"s":"b","n":2}"#]);
    drained(&database, &stage, UPDATE).await;
    database.sql("UPDATE t SET seen = 'by others'").await;
    stage.put([r#"{"s":"a","n":3}"#]);
    drained(&database, &stage, UPDATE).await;
    assert_eq!(
        database
            .sql("SELECT id, s, n, m, twice, seen FROM t ORDER BY s")
            .await,
        ["1|a|3|x|6|by others", "2|b|2||4|by others"],
        "m has a default, and this engine's messages have not named it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_keys_are_found_by_the_columns_own_idea_of_equality() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
             CREATE TABLE t (s text COLLATE blind PRIMARY KEY, price numeric(10,2), n bigint)",
        )
        .await;
    let stage = MemoryStage::new("t");
    stage.put([
        r#"{"s":"ABC","n":1}"#,
        r#"{"s":"abc","n":2}"#,
        r#"{"s":"Abc","n":3,"price":"1.5"}"#,
    ]);
    drained(&database, &stage, UPDATE).await;
    assert_eq!(database.sql("SELECT s, price, n FROM t").await, ["Abc|1.50|3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_all_columns_and_one_of_metadata_work_as_well() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("t");
    stage.put([r#"{"s":"a","n":1}"#, r#"{"s":"a","n":1}"#, r#"{"s":"a","n":2}"#]);
    let stats = drained(&database, &stage, "on_conflict: { key: [n, s], action: update }").await;
    assert_eq!((stats.rows.get(), stats.conflicts.get()), (2, 1));
    assert_eq!(
        database.sql("SELECT s, n FROM t ORDER BY n").await,
        ["a|1", "a|2"]
    );

    let database = Database::shared().await;
    for keys in [
        "table: columns\nmetadata: true\non_conflict: { key: [_stage, _offset], action: ignore }",
        "table: raw\nmapping: raw\non_conflict: { key: [offset], action: ignore }",
    ] {
        let stage = MemoryStage::new("t");
        stage.put([r#"{"s":"a"}"#, "[1]"]);
        let operator = Operator::with(database.target(), &stage, options(keys));
        operator.delivers().await;
        operator.replays(&everything_from(0)).await;
        database.sql("DELETE FROM _socket_el_cursor").await;
    }
    let counts = "SELECT (SELECT count(*) FROM columns), (SELECT count(*) FROM raw)";
    assert_eq!(database.sql(counts).await, ["2|2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_its_key_is_a_dead_letter_and_makes_no_column() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("t");
    stage.put([
        r#"{"heartbeat":1}"#,
        r#"{"s":null,"n":1}"#,
        r#"[{"s":"a","n":1},{"n":2}]"#,
        r#"{"s":"b","n":3}"#,
        r#"{"s":{"nested":1},"n":4}"#,
        "[1,2]",
    ]);
    drained(&database, &stage, UPDATE).await;
    // The same once the table is there.
    stage.put([r#"{"late":1}"#, r#"{"s":null,"n":1}"#, "[1,2]"]);
    drained(&database, &stage, UPDATE).await;
    // Of the strings and the object one kind had to give way.
    assert_eq!(
        database.sql("SELECT to_jsonb(t) FROM t").await,
        [r#"{"n": 3, "s": "b", "_extra": null}"#]
    );
    let letters = database
        .sql("SELECT message_offset, record_index, substr(reason, 1, 29) FROM _socket_el_dead_letter ORDER BY 1")
        .await;
    let lacks = "the record has no value for \"";
    assert_eq!(
        letters,
        [
            format!("0|0|{lacks}"),
            format!("1|0|{lacks}"),
            format!("2|1|{lacks}"),
            "4|0|the value for column \"s\" does".to_owned(),
            format!("5|0|{lacks}"),
            format!("6|0|{lacks}"),
            format!("7|0|{lacks}"),
            format!("8|0|{lacks}"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_only_the_server_refuses_is_found_and_the_others_stand() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE t (s text PRIMARY KEY, n bigint CHECK (n NOT IN (4000, 4777)))")
        .await;
    let stage = MemoryStage::new("t");
    stage.put((0..5_000).map(|n| format!("{{\"s\":\"k{}\",\"n\":{n}}}", n % 1_000)));
    drained(&database, &stage, UPDATE).await;
    let rows = database
        .sql("SELECT count(*), min(n), max(n), (SELECT n FROM t WHERE s = 'k0') FROM t")
        .await;
    assert_eq!(
        rows,
        ["1000|3000|4999|3000"],
        "the last that is no dead letter counts"
    );
    let letters = database
        .sql("SELECT message_offset, sqlstate FROM _socket_el_dead_letter ORDER BY 1")
        .await;
    assert_eq!(letters, ["4000|23514", "4777|23514"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_swallows_an_update_is_noticed() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE t (s text PRIMARY KEY, n bigint);
             CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER swallow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION swallow()",
        )
        .await;
    let stage = MemoryStage::new("t");
    stage.put([r#"{"s":"a","n":1}"#]);
    drained(&database, &stage, UPDATE).await;
    stage.put([r#"{"s":"a","n":2}"#]);
    let (target, keys) = (database.target(), options(UPDATE));
    let engine = Engine::mapped(target, &[&stage], keys, RunUntil::Stopped, QUICK);
    database
        .until(
            "SELECT (xact_rollback > 3)::text FROM pg_stat_database WHERE datname = current_database()",
            "true",
        )
        .await;
    assert_eq!(engine.stats.delivered.get(), 0);
    database.sql("DROP TRIGGER swallow ON t").await;
    until("it goes on", || engine.stats.delivered.get() == 1).await;
    engine.stop().await.unwrap();
    assert_eq!(database.sql("SELECT n FROM t").await, ["2"]);
}

/// A message for a random one of a few keys; `n` grows.
fn random(n: u64, model: &mut BTreeMap<(String, i64), u64>, first: bool) -> String {
    let mut random = rand::rng();
    let (s, k): (u8, i64) = (random.random_range(b'a'..=b'p'), random.random_range(-2..3));
    let s = String::from(char::from(s));
    let entry = model.entry((s.clone(), k));
    if first {
        entry.or_insert(n);
    } else {
        entry.insert_entry(n);
    }
    match random.random_range(0..3) {
        0 => format!("{{\"n\":{n},\"k\":{k},\"s\":\"{s}\"}}"),
        1 => format!(
            "{{\"s\":\"{s}\",\"n\":{n},\"k\":{k},\"pad\":\"{}\"}}",
            "x".repeat(random.random_range(0..200))
        ),
        _ => format!("[{{\"s\":\"{s}\",\"k\":{k},\"n\":{n}}}]"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_equals_the_map_that_the_messages_make_whatever_is_killed_and_lost_on_the_way() {
    for first in [false, true] {
        let database = Database::shared().await;
        let proxy = Proxy::before(database.cluster.port()).await;
        let action = if first { "ignore" } else { "update" };
        let keys = format!("on_conflict: {{ key: [s, k], action: {action} }}");
        let stage = MemoryStage::new("t");
        let (mut model, mut sent) = (BTreeMap::new(), 0);
        for round in 0..12 {
            for _ in 0..rand::rng().random_range(1..8) {
                let count = rand::rng().random_range(1..400);
                let batch: Vec<_> = (sent..sent + count)
                    .map(|n| random(n, &mut model, first))
                    .collect();
                sent += count;
                stage.put(batch);
            }
            let target = database.target_at(proxy.port);
            if round % 3 == 2 {
                proxy.swallow_next_commit();
            }
            let engine = Engine::mapped(target, &[&stage], options(&keys), RunUntil::Stopped, QUICK);
            let part = sent - rand::rng().random_range(0..sent.min(300));
            database
                .until(
                    &format!("SELECT (coalesce(max(next_offset), 0) >= {part})::text FROM _socket_el_cursor"),
                    "true",
                )
                .await;
            engine.kill().await;
            stage.set_local_cursor(None);
        }
        drained(&database, &stage, &keys).await;
        let rows = database
            .sql("SELECT s, k, n FROM t ORDER BY s COLLATE \"C\", k")
            .await;
        let expected: Vec<_> = model.iter().map(|((s, k), n)| format!("{s}|{k}|{n}")).collect();
        assert_eq!(rows, expected, "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_doubles_nothing_and_leaves_what_the_messages_make() {
    for (keys, doubles, a) in [
        (UPDATE, Doubles::LastOfKey, "a|990"),
        (IGNORE, Doubles::FirstOfKey, "a|0"),
    ] {
        let database = Database::shared().await;
        let stage = MemoryStage::new("t");
        let message = |n: u64| {
            format!(
                "{{\"s\":\"{}\",\"n\":{n}}}",
                char::from(b'a' + u8::try_from(n % 10).unwrap())
            )
        };
        stage.put((0..1_000).map(message));
        let operator = Operator::with(database.target(), &stage, options(keys));
        operator.delivers().await;
        database.sql("DELETE FROM t WHERE s IN ('a', 'c')").await;
        let plan = operator.replays(&everything_from(0)).await;
        assert_eq!(plan.tables[0].doubles, doubles);
        let rows = database.sql("SELECT s, n FROM t ORDER BY s").await;
        assert_eq!((rows.len(), rows[0].as_str()), (10, a));
        operator.replays(&into_table("again")).await;
        assert_eq!(database.sql("SELECT s, n FROM again ORDER BY s").await, rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_updates_leaves_no_row_as_an_older_message_has_it_though_delivery_goes_on_meanwhile() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("t");
    let messages =
        |numbers: std::ops::Range<u64>| numbers.map(|n| format!("{{\"s\":\"k{}\",\"n\":{n}}}", n % 10));
    for batch in 0..40 {
        stage.put(messages(batch * 1_000..(batch + 1) * 1_000));
    }
    let (target, keys) = (database.target(), options(UPDATE));
    let engine = Engine::mapped(target, &[&stage], keys, RunUntil::Stopped, QUICK);
    until("all is delivered", || engine.stats.delivered.get() == 40_000).await;
    let operator = Operator::with(database.target(), &stage, options(UPDATE));
    operator.begins(&everything_from(0)).await.unwrap();
    // These have their rows before the replay has come to its first message.
    stage.put(messages(40_000..40_005));
    until("all is delivered", || engine.stats.delivered.get() == 40_005).await;
    operator.goes_on().await.unwrap();
    engine.stop().await.unwrap();
    let rows = database.sql("SELECT s, n FROM t ORDER BY s").await;
    let expected = |k: u64| format!("k{k}|{}", if k < 5 { 40_000 + k } else { 39_990 + k });
    assert_eq!(rows, (0..10).map(expected).collect::<Vec<_>>());

    let until = crate::producer::operate::ReplayWish {
        to: Some(crate::record::Offset::new(10)),
        ..everything_from(0)
    };
    let refused = operator.begins(&until).await.unwrap_err();
    assert!(refused.to_string().contains("--into"), "{refused}");
}
