//! The table behind `on_conflict`: made with its key, or held until it has a unique index that will do.

use std::sync::Arc;

use super::support::{Database, Engine, MemoryStage, QUICK, drain, options, until};
use crate::producer::Producer as _;
use crate::producer::RunUntil;
use crate::producer::postgres::PostgresProducer;

fn start(database: &Database<'_>, stage: &Arc<MemoryStage>, keys: &str) -> Engine {
    Engine::mapped(
        database.target(),
        &[stage],
        options(keys),
        RunUntil::Stopped,
        QUICK,
    )
}

/// What `check --connect` says about the stage `t`; an error where its delivery would be held.
async fn probed(database: &Database<'_>, keys: &str) -> Result<String, String> {
    let producer = PostgresProducer::new(database.target(), options(keys));
    let lines = producer.probe(&["t".to_owned()]).await?;
    Ok(lines.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_with_its_primary_key_whatever_the_keys_are_called() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("t");
    let keys = "max_columns: 4\ncolumns: { d: numeric, at: { path: $.x.y } }\non_conflict: { key: [xmin, d, at], action: update }";
    stage.put([
        r#"{"a":1,"b":2,"xmin":"k","d":"1.50","x":{"y":true}}"#,
        r#"{"xmin":"k","d":1.5,"x":{"y":true},"a":3}"#,
    ]);
    start(&database, &stage, keys);
    database.until("SELECT a::text FROM t", "3").await;
    let key = database
        .sql("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'p'")
        .await;
    assert_eq!(key, ["PRIMARY KEY (xmin_, d, at)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_the_index_holds_with_the_statement_that_makes_it() {
    let database = Database::shared().await;
    let keys = "on_conflict: { key: [b, a], action: update }";
    database
        .sql(
            "CREATE TABLE t (a text, b bigint, n bigint); CREATE UNIQUE INDEX ON t (a); CREATE UNIQUE INDEX ON t (a, b, n); \
             CREATE UNIQUE INDEX ON t (a, b) WHERE n > 0; CREATE INDEX ON t (a, b); CREATE UNIQUE INDEX ON t (a, (b + 1))",
        )
        .await;
    let statement = "CREATE UNIQUE INDEX CONCURRENTLY ON \"public\".\"t\" (\"b\", \"a\")";
    let (stage, other) = (MemoryStage::new("t"), MemoryStage::new("other"));
    stage.put([r#"{"a":"x","b":1,"n":1}"#]);
    let engine = start(&database, &stage, keys);
    let said = probed(&database, keys).await.unwrap_err();
    assert!(
        said.contains("held: table \"public\".\"t\" has no unique index"),
        "{said}"
    );
    assert!(said.contains(statement), "{said}");
    database.sql("ALTER TABLE t ADD UNIQUE (b, a) DEFERRABLE").await;
    other.put_numbers(0..10);
    drain(database.target(), &[&other]).await.unwrap();
    assert_eq!(engine.stats.delivered.get(), 0);
    database.sql(statement).await;
    let said = probed(&database, keys).await.unwrap_err();
    assert!(
        said.contains("has t_b_a_key") && said.contains("deferrable"),
        "{said}"
    );
    database.sql("ALTER TABLE t DROP CONSTRAINT t_b_a_key").await;
    until("it goes on", || engine.stats.delivered.get() == 1).await;

    // Dropped while running: nothing is written by another rule.
    database
        .sql("DO $$ BEGIN EXECUTE (SELECT 'DROP INDEX ' || string_agg(indexrelid::regclass::text, ', ') FROM pg_index i \
              WHERE indrelid = 't'::regclass AND indimmediate); END $$")
        .await;
    stage.put([r#"{"a":"x","b":1,"n":2}"#]);
    database
        .until(
            "SELECT (xact_rollback > 0)::text FROM pg_stat_database WHERE datname = current_database()",
            "true",
        )
        .await;
    assert_eq!(engine.stats.delivered.get(), 1);
    database.sql(statement).await;
    until("it goes on", || engine.stats.delivered.get() == 2).await;
    engine.stop().await.unwrap();
    assert_eq!(database.sql("SELECT a, b, n FROM t").await, ["x|1|2"]);
    let said = probed(&database, keys).await.unwrap();
    assert!(said.contains("exists and takes rows"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_works_when_the_key_has_what_it_is_partitioned_by_and_says_so_when_not() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE t (s text, day date, n bigint) PARTITION BY RANGE (day); \
             CREATE TABLE t_old PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2021-01-01'); \
             CREATE TABLE t_new PARTITION OF t DEFAULT",
        )
        .await;
    let said = probed(&database, "on_conflict: { key: [s], action: update }")
        .await
        .unwrap_err();
    assert!(
        said.contains("partitioned by day") && said.contains("add that to `key`"),
        "{said}"
    );
    let keys = "on_conflict: { key: [s, day], action: update }";
    let said = probed(&database, keys).await.unwrap_err();
    let statement = "CREATE UNIQUE INDEX ON \"public\".\"t\" (\"s\", \"day\")";
    assert!(said.contains(statement), "{said}");
    database.sql(statement).await;
    let stage = MemoryStage::new("t");
    stage.put([
        r#"{"s":"a","day":"2020-05-05","n":1}"#,
        r#"{"s":"a","day":"2021-05-05","n":2}"#,
        r#"{"s":"a","day":"2020-05-05","n":3}"#,
    ]);
    let engine = start(&database, &stage, keys);
    until("it is delivered", || engine.stats.delivered.get() == 3).await;
    engine.stop().await.unwrap();
    assert_eq!(
        database
            .sql("SELECT tableoid::regclass, s, n FROM t ORDER BY day")
            .await,
        ["t_old|a|3", "t_new|a|2"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_no_message_can_fill_is_said_to_be_so() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE t (a bigint, g bigint GENERATED ALWAYS AS (a + 1) STORED UNIQUE)")
        .await;
    let said = probed(&database, "on_conflict: { key: [g], action: update }")
        .await
        .unwrap_err();
    assert!(said.contains("column g") && said.contains("generated"), "{said}");
    for keys in ["new_keys: freeze\n", "new_keys: discard\ntable: other\n"] {
        let said = probed(
            &database,
            &format!("{keys}on_conflict: {{ key: [missing], action: ignore }}"),
        )
        .await
        .unwrap_err();
        assert!(
            said.contains("no column for missing") && said.contains("`columns`"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_the_key_with_a_default_is_filled_from_the_messages_and_never_by_the_default() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE t (s text DEFAULT 'nobody' PRIMARY KEY, n bigint)")
        .await;
    let stage = MemoryStage::new("t");
    stage.put([r#"{"n":1}"#, r#"{"s":"a","n":2}"#]);
    let engine = start(&database, &stage, "on_conflict: { key: [s], action: update }");
    until("it is delivered", || engine.stats.delivered.get() == 2).await;
    engine.stop().await.unwrap();
    assert_eq!(database.sql("SELECT s, n FROM t").await, ["a|2"]);
    assert_eq!(
        database
            .sql("SELECT message_offset FROM _socket_el_dead_letter")
            .await,
        ["0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_of_a_key_are_widened_and_changed_by_others_while_rows_are_updated() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("t");
    let keys = "on_conflict: { key: [k], action: update }";
    let engine = start(&database, &stage, keys);
    let mut sent = 0;
    let mut put = |messages: &[&str]| {
        stage.put(messages);
        sent += messages.len() as u64;
        sent
    };
    let sent = put(&[r#"{"k":1,"n":1}"#, r#"{"k":2,"n":1}"#]);
    until("delivered", || engine.stats.delivered.get() == sent).await;
    let sent = put(&[r#"{"k":1.5,"n":2}"#, r#"{"k":1.0,"n":2}"#]);
    until("delivered", || engine.stats.delivered.get() == sent).await;
    for change in [
        "ALTER TABLE t ALTER n TYPE numeric",
        "ALTER TABLE t ADD COLUMN other text DEFAULT 'x'",
        "ALTER TABLE t RENAME COLUMN k TO the_key",
        "ALTER TABLE t ALTER n TYPE text",
    ] {
        database.sql(change).await;
        let sent = put(&[r#"{"k":2,"n":3,"more":[1]}"#, r#"{"k":2,"n":"4"}"#]);
        until("delivered", || engine.stats.delivered.get() == sent).await;
    }
    engine.stop().await.unwrap();
    assert_eq!(
        database.sql("SELECT the_key, n, other FROM t ORDER BY 1").await,
        ["1|2|x", "1.5|2|x", "2|4|x"]
    );
}
