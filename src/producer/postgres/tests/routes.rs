//! One stage into several tables: each message is a row of one of them once, whatever happens to any of the tables.

use std::sync::Arc;

use super::super::session::Timing;
use super::support::{Database, Engine, MemoryStage, PRODUCER, Proxy, QUICK, options, until};
use crate::producer::RunUntil;
use crate::record::Offset;
use crate::stage::Stage as _;

/// The even numbers into one table, the odd ones into another, and what has no number is ignored.
const KEYS: &str =
    "routes:\n  - { when: { $.kind: even }, table: even }\n  - { when: { $.kind: odd }, table: odd }";

fn message(n: u64) -> String {
    let kind = if n.is_multiple_of(2) { "even" } else { "odd" };
    format!("{{\"kind\": \"{kind}\", \"n\": {n}}}")
}

fn put(stage: &MemoryStage, numbers: std::ops::Range<u64>) {
    let messages: Vec<_> = numbers.map(message).collect();
    messages.chunks(100).for_each(|batch| stage.put(batch));
}

fn start(database: &Database<'_>, stages: &[&Arc<MemoryStage>]) -> Engine {
    let target = database.target();
    Engine::mapped(target, stages, options(KEYS), RunUntil::Stopped, QUICK)
}

async fn drain(database: &Database<'_>, stage: &Arc<MemoryStage>, keys: &str) {
    let engine = Engine::mapped(
        database.target(),
        &[stage],
        options(keys),
        RunUntil::Drained,
        QUICK,
    );
    engine.ended().await.unwrap();
}

/// Every number is a row of its table exactly once.
async fn holds_exactly(database: &Database<'_>, messages: u64) {
    let found = database
        .sql(
            "SELECT count(*), count(DISTINCT n), min(n), max(n), count(*) FILTER (WHERE kind <> source) \
             FROM (SELECT n, kind, 'even' AS source FROM even UNION ALL SELECT n, kind, 'odd' FROM odd) rows",
        )
        .await;
    assert_eq!(found, [format!("{messages}|{messages}|0|{}|0", messages - 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_goes_into_the_table_of_the_first_route_that_matches_and_the_rest_is_counted() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("feed");
    stage.put([
        r#"{"type":"match","price":"1.50","sequence":1}"#,
        r#"{"type":"ticker","price":"2","sequence":2}"#,
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"last_match","price":"3","sequence":3}"#,
        r#"{"type":"l2update","changes":[["buy","1.0","0.5"],["sell","2.0","0"]],"time":"2021-04-17T16:43:37Z"}"#,
        "not JSON",
    ]);
    let keys = "numbers: numeric\nmetadata: true\ncolumns: { price: numeric }\nroutes:\n\
        - { when: { $.type: [match, last_match] }, table: '{stage}_trades' }\n\
        - { when: { $.type: ticker }, table: '{stage}_tickers', columns: { price: text } }\n\
        - when: { $.type: l2update }\n  table: '{stage}_levels'\n  records: $.changes[*]\n  metadata: false\n\
        \u{20} include: { time: $.time }\n\
        \u{20} columns: { time: timestamptz, side: { path: '$[0]' }, price: { path: '$[1]', type: numeric }, size: { path: '$[2]', type: numeric } }";
    let engine = Engine::mapped(
        database.target(),
        &[&stage],
        options(keys),
        RunUntil::Drained,
        QUICK,
    );
    let stats = engine.stats.clone();
    engine.ended().await.unwrap();
    let figures = [&stats.delivered, &stats.ignored, &stats.rows, &stats.dead_letters];
    assert_eq!(figures.map(crate::stats::Counter::get), [6, 1, 5, 1]);
    assert_eq!(
        database
            .sql("SELECT _offset, price, sequence, pg_typeof(price) FROM feed_trades ORDER BY 1")
            .await,
        ["0|1.50|1|numeric", "3|3|3|numeric"]
    );
    assert_eq!(
        database
            .sql("SELECT _offset, price, pg_typeof(price) FROM feed_tickers")
            .await,
        ["1|2|text"]
    );
    assert_eq!(
        database
            .sql("SELECT side, price, size, time AT TIME ZONE 'UTC' FROM feed_levels ORDER BY 1")
            .await,
        [
            "buy|1.0|0.5|2021-04-17 16:43:37",
            "sell|2.0|0|2021-04-17 16:43:37"
        ]
    );
    let made = database
        .sql("SELECT table_name, from_offset FROM _socket_el_table ORDER BY 1")
        .await;
    assert_eq!(made, ["feed_levels|0", "feed_tickers|0", "feed_trades|0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_neither_repeated_nor_missed_in_any_table() {
    let database = Database::shared().await;
    let proxy = Proxy::before(database.cluster.port()).await;
    let stage = MemoryStage::new("feed");
    let target = database.target_at(proxy.port);
    let engine = Engine::mapped(target, &[&stage], options(KEYS), RunUntil::Stopped, QUICK);
    let mut sent = 0;
    for _ in 0..10 {
        put(&stage, sent..sent + 300);
        sent += 300;
        until("the messages before are delivered", || {
            engine.stats.delivered.get() == sent
        })
        .await;
        proxy.swallow_next_commit();
        put(&stage, sent..sent + 300);
        sent += 300;
        until("an answer was swallowed", || proxy.has_swallowed()).await;
    }
    until("everything is delivered", || engine.stats.delivered.get() == sent).await;
    assert_eq!(engine.stats.rows.get(), sent);
    engine.stop().await.unwrap();
    holds_exactly(&database, sent).await;
    assert_eq!(stage.cursor(PRODUCER), Some(Offset::new(sent)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_killed_between_two_tables_is_followed_by_one_that_doubles_and_loses_nothing() {
    let database = Database::shared().await;
    // The COPY into the second table waits at one row for as long as the test holds a lock.
    database
        .sql(
            "CREATE TABLE odd (kind text, n bigint);
             CREATE TABLE stop_at (stop bigint);
             CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF EXISTS (SELECT FROM stop_at WHERE stop = NEW.n) THEN PERFORM pg_advisory_xact_lock(42); END IF;
               RETURN NEW; END $$;
             CREATE TRIGGER stop BEFORE INSERT ON odd FOR EACH ROW EXECUTE FUNCTION stop()",
        )
        .await;
    let (holder, connection) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let stage = MemoryStage::new("feed");
    put(&stage, 0..60_000);
    for row in [1, 20_001, 59_999] {
        let script =
            format!("SELECT pg_advisory_lock(42); TRUNCATE stop_at; INSERT INTO stop_at VALUES ({row})");
        holder.batch_execute(&script).await.unwrap();
        let engine = start(&database, &[&stage]);
        database
            .until(
                "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 42",
                "1",
            )
            .await;
        engine.kill().await;
        stage.set_local_cursor(None);
        holder
            .batch_execute("SELECT pg_advisory_unlock(42)")
            .await
            .unwrap();
    }
    drop(holder);
    connection.await.unwrap().unwrap();
    drain(&database, &stage, KEYS).await;
    holds_exactly(&database, 60_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_of_one_table_is_the_only_dead_letter_and_both_tables_have_the_others() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE odd (kind text, n bigint CHECK (n NOT IN (7777, 13333)))")
        .await;
    let stage = MemoryStage::new("feed");
    put(&stage, 0..20_000);
    drain(&database, &stage, KEYS).await;
    let rows = database
        .sql("SELECT (SELECT count(*) FROM even), (SELECT count(DISTINCT n) FROM even), (SELECT count(*) FROM odd), (SELECT count(DISTINCT n) FROM odd)")
        .await;
    assert_eq!(rows, ["10000|10000|9998|9998"]);
    let letters = database
        .sql("SELECT message_offset, record_index, sqlstate FROM _socket_el_dead_letter ORDER BY 1")
        .await;
    assert_eq!(letters, ["7777|0|23514", "13333|0|23514"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_swallows_rows_holds_the_stage_with_all_its_tables() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE odd (kind text, n bigint);
             CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER swallow BEFORE INSERT ON odd FOR EACH ROW EXECUTE FUNCTION swallow()",
        )
        .await;
    let (stage, other) = (MemoryStage::new("feed"), MemoryStage::new("other"));
    put(&stage, 0..100);
    let engine = start(&database, &[&stage, &other]);
    for round in 0..3 {
        other.put([r#"{"kind":"other"}"#]);
        until("the other goes on", || engine.stats.delivered.get() == round + 1).await;
    }
    assert_eq!(database.sql("SELECT count(*) FROM even").await, ["0"]);
    database.sql("DROP TRIGGER swallow ON odd").await;
    until("the held one goes on", || engine.stats.delivered.get() == 103).await;
    engine.stop().await.unwrap();
    holds_exactly(&database, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_the_tables_may_be_altered_and_dropped_while_both_are_loaded() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("feed");
    let engine = start(&database, &[&stage]);
    let mut sent = 0;
    for change in [
        "ALTER TABLE odd ALTER n TYPE numeric",
        "ALTER TABLE even ADD COLUMN extra text DEFAULT 'x'",
        "ALTER TABLE odd ALTER n TYPE double precision",
        "ALTER TABLE even DROP COLUMN extra",
        "ALTER TABLE odd ALTER n TYPE bigint USING n::bigint",
        "",
    ] {
        put(&stage, sent..sent + 20_000);
        until("it is in mid-load", || engine.stats.delivered.get() > sent).await;
        sent += 20_000;
        if !change.is_empty() {
            database.sql(change).await;
        }
        put(&stage, sent..sent + 1_000);
        sent += 1_000;
        until("everything is delivered", || engine.stats.delivered.get() == sent).await;
    }
    holds_exactly(&database, sent).await;
    database.sql("DROP TABLE odd").await;
    put(&stage, sent..sent + 1_000);
    until("it goes on", || engine.stats.delivered.get() == sent + 1_000).await;
    engine.stop().await.unwrap();
    let rows = database
        .sql("SELECT (SELECT count(*) FROM even), count(*), min(n), max(n) FROM odd")
        .await;
    let even = (sent + 1_000) / 2;
    assert_eq!(rows, [format!("{even}|500|{}|{}", sent + 1, sent + 999)]);
    let made = database
        .sql("SELECT table_name, from_offset FROM _socket_el_table ORDER BY 1")
        .await;
    assert_eq!(made, ["even|0".to_owned(), format!("odd|{sent}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_of_a_transaction_are_locked_in_order_of_their_names_whatever_the_order_of_the_routes() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("feed");
    let keys = "routes:\n  - { when: { $.kind: odd }, table: odd }\n  - { table: even }";
    put(&stage, 0..100);
    drain(&database, &stage, keys).await;
    let (holder, connection) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let patient = Timing {
        lock: std::time::Duration::from_secs(60),
        ..QUICK
    };
    let engine = Engine::mapped(
        database.target(),
        &[&stage],
        options(keys),
        RunUntil::Stopped,
        patient,
    );
    let locks = |granted: bool| {
        format!(
            "SELECT coalesce(string_agg(c.relname, ',' ORDER BY c.relname), '') FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
             WHERE l.mode = 'RowExclusiveLock' AND l.granted = {granted} AND c.relname IN ('even', 'odd')"
        )
    };
    let mut sent = 100;
    for (held, waits_for, has) in [("odd", "odd", "even"), ("even", "even", "")] {
        holder
            .batch_execute(&format!("BEGIN; LOCK TABLE {held} IN ACCESS EXCLUSIVE MODE"))
            .await
            .unwrap();
        put(&stage, sent..sent + 100);
        sent += 100;
        database.until(&locks(false), waits_for).await;
        database.until(&locks(true), has).await;
        holder.batch_execute("COMMIT").await.unwrap();
        until("it goes on", || engine.stats.delivered.get() == sent - 100).await;
    }
    engine.stop().await.unwrap();
    drop(holder);
    connection.await.unwrap().unwrap();
    holds_exactly(&database, sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routes_of_one_mapping_share_a_table_and_its_order() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("feed");
    let messages: Vec<_> = (0..1_000_u64)
        .map(|n| match n % 3 {
            0 => format!("{{\"a\":1,\"n\":{n}}}"),
            1 => format!("{{\"b\":\"x\",\"n\":{n}}}"),
            _ => format!("{{\"c\":true,\"n\":{n}}}"),
        })
        .collect();
    messages.chunks(100).for_each(|batch| stage.put(batch));
    drain(
        &database,
        &stage,
        "routes:\n  - { when: { $.a: 1 }, table: t }\n  - { when: { $.c: true }, table: other }\n  - { when: { $.b: x }, table: t }",
    )
    .await;
    let rows = database
        .sql("SELECT count(*), count(a), count(b), count(*) FILTER (WHERE n <= before) FROM (SELECT *, lag(n) OVER (ORDER BY ctid) AS before FROM t) t")
        .await;
    assert_eq!(rows, ["667|334|333|0"]);
    assert_eq!(database.sql("SELECT count(*) FROM other").await, ["333"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routes_that_meet_in_one_table_of_a_stage_in_different_ways_are_refused() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("feed");
    let keys = "routes:\n  - { when: { $.a: 1 }, table: feed }\n  - { table: '{stage}', metadata: true }";
    let engine = Engine::mapped(
        database.target(),
        &[&stage],
        options(keys),
        RunUntil::Drained,
        QUICK,
    );
    let refused = engine.ended().await.unwrap_err();
    assert_eq!(refused.reason(), crate::exit::ExitReason::Configuration);
    assert!(refused.to_string().contains("\"feed\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_transaction_may_refer_to_each_other_by_deferred_keys_and_what_refers_to_nothing_is_a_dead_letter()
 {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE orders (kind text, id bigint PRIMARY KEY); \
             CREATE TABLE fills (kind text, \"order\" bigint REFERENCES orders DEFERRABLE INITIALLY DEFERRED, n bigint)",
        )
        .await;
    let stage = MemoryStage::new("feed");
    let mut messages = Vec::new();
    for n in 0..300 {
        messages.push(format!(r#"{{"kind":"order","id":{n}}}"#));
        // Of an order that is new in the same transaction; two are of none.
        let order = if n % 150 == 77 { n + 1_000 } else { n };
        messages.push(format!(r#"{{"kind":"fill","order":{order},"n":{n}}}"#));
    }
    stage.put(&messages);
    let keys = "routes:\n  - { when: { $.kind: order }, table: orders }\n  - { when: { $.kind: fill }, table: fills }";
    drain(&database, &stage, keys).await;
    let counted = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM fills)";
    assert_eq!(database.sql(counted).await, ["300|298"]);
    assert_eq!(
        database
            .sql("SELECT message_offset, sqlstate FROM _socket_el_dead_letter ORDER BY 1")
            .await,
        ["155|23503", "455|23503"]
    );
}
