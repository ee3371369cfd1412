//! What `check --connect` says of a database: it fails where delivery would be held.

use super::super::{PostgresProducer, Target};
use super::conditions::others_table;
use super::support::{Database, Engine, MemoryStage, QUICK, drain, options};
use crate::producer::{Producer as _, RunUntil};

/// What is found for one stage; as an error where delivery would be held.
async fn probe(target: &Target, keys: &str, stage: &str) -> Result<String, String> {
    let producer = PostgresProducer::new(target.clone(), options(keys));
    let found = producer.probe(&[stage.to_owned()]).await;
    found.map(|lines| lines.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_fails_where_the_role_lacks_what_delivery_needs_and_says_what_becomes_of_new_keys() {
    let database = Database::shared().await;
    let target = others_table(&database, "(n bigint)").await;
    let probe = async |keys: &str, stage: &str| probe(&target, keys, stage).await;
    let told = probe("{}", "trades").await.unwrap();
    assert!(told.contains("a new key would hold the stage"), "{told}");
    let frozen = "what fits no column is a dead letter, which a column _extra would not change";
    let told = probe("new_keys: freeze", "trades").await.unwrap();
    assert!(told.contains(frozen), "{told}");
    let told = probe("new_keys: discard", "trades").await.unwrap();
    assert!(told.contains("until it has the column `_extra jsonb`"), "{told}");
    database.sql("ALTER TABLE trades ADD _extra jsonb").await;
    let told = probe("new_keys: freeze", "trades").await.unwrap();
    assert!(told.contains(frozen), "{told}");
    let told = probe("new_keys: discard", "trades").await.unwrap();
    assert!(
        told.contains("they are dropped, and values that do not fit their columns stand in _extra"),
        "{told}"
    );
    let told = probe("{}", "trades").await.unwrap();
    assert!(told.contains("values of new keys stand in _extra"), "{told}");
    database.sql("ALTER TABLE trades ENABLE ROW LEVEL SECURITY").await;
    let refusal = probe("{}", "trades").await.unwrap_err();
    assert!(refusal.contains("row-level security"), "{refusal}");
    database
        .sql("ALTER TABLE trades DISABLE ROW LEVEL SECURITY")
        .await;
    let upsert = "on_conflict: { key: [n], action: update }";
    database.sql("CREATE UNIQUE INDEX ON trades (n)").await;
    let refusal = probe(upsert, "trades").await.unwrap_err();
    assert!(refusal.contains("GRANT SELECT, UPDATE"), "{refusal}");
    let role = format!("{}_loader", database.name);
    database
        .sql(&format!("REVOKE INSERT ON trades FROM {role}"))
        .await;
    let refusal = probe("{}", "trades").await.unwrap_err();
    assert!(refusal.contains("GRANT INSERT"), "{refusal}");
    database
        .sql(&format!("REVOKE CREATE ON SCHEMA public FROM {role}, PUBLIC"))
        .await;
    let refusal = probe("{}", "other").await.unwrap_err();
    assert!(refusal.contains("GRANT CREATE ON SCHEMA"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_table_makes_dead_letters_of_what_fits_no_column_with_extra_too() {
    let database = Database::shared().await;
    let target = others_table(
        &database,
        "(n bigint, twice bigint GENERATED ALWAYS AS (n * 2) STORED, _extra jsonb)",
    )
    .await;
    let stage = MemoryStage::new("trades");
    stage.put([
        r#"{"n": 1}"#,
        r#"{"n": "no number"}"#,
        r#"{"n": 3, "new": 1}"#,
        r#"{"n": 4, "twice": 9}"#,
    ]);
    let until = RunUntil::Drained;
    let engine = Engine::mapped(target, &[&stage], options("new_keys: freeze"), until, QUICK);
    engine.ended().await.unwrap();
    assert_eq!(
        database
            .sql("SELECT n, twice, _extra FROM trades ORDER BY 1")
            .await,
        ["1|2|", r#"4|8|{"twice": 9}"#]
    );
    let letters = "SELECT message_offset FROM _socket_el_dead_letter ORDER BY 1";
    assert_eq!(database.sql(letters).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_fails_where_columns_that_the_configuration_names_can_only_be_added_by_the_table_s_owner() {
    let database = Database::shared().await;
    let target = others_table(&database, "(n bigint)").await;
    let role = format!("{}_loader", database.name);
    for keys in ["columns: { price: numeric }", "metadata: true"] {
        let refusal = probe(&target, keys, "trades").await.unwrap_err();
        assert!(
            refusal.contains("only its owner can add them") && refusal.contains("ADD COLUMN"),
            "{refusal}"
        );
    }
    database.sql("ALTER TABLE trades ADD price numeric").await;
    probe(&target, "columns: { price: numeric }", "trades")
        .await
        .unwrap();
    database.sql(&format!("ALTER TABLE trades OWNER TO {role}")).await;
    let told = probe(&target, "metadata: true", "trades").await.unwrap();
    assert!(told.contains("would be changed so:"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_fails_where_the_role_may_not_write_the_tables_that_another_role_has_made_for_us() {
    let database = Database::shared().await;
    let target = others_table(&database, "(n bigint)").await;
    let role = format!("{}_loader", database.name);
    let stage = MemoryStage::new("before");
    stage.put_numbers(0..1);
    drain(database.target(), &[&stage]).await.unwrap();
    for (table, rights) in [
        ("_socket_el_cursor", "SELECT, INSERT, UPDATE"),
        ("_socket_el_dead_letter", "SELECT, INSERT"),
        ("_socket_el_gap", "INSERT"),
    ] {
        let refusal = probe(&target, "{}", "trades").await.unwrap_err();
        let said = format!("{table}\" that delivery needs: GRANT {rights} ON it");
        assert!(refusal.contains(&said), "{said}: {refusal}");
        database
            .sql(&format!("GRANT {rights} ON {table} TO {role}"))
            .await;
    }
    probe(&target, "{}", "trades").await.unwrap();

    // With these rights it delivers; to make a table it needs one more.
    let stage = MemoryStage::new("trades");
    stage.put([r#"{"n": 1}"#, "no JSON"]);
    drain(target.clone(), &[&stage]).await.unwrap();
    assert_eq!(database.sql("SELECT n FROM trades").await, ["1"]);
    assert_eq!(
        database
            .sql("SELECT message_offset FROM _socket_el_dead_letter WHERE stage = 'trades'")
            .await,
        ["1"]
    );
    let refusal = probe(&target, "{}", "other").await.unwrap_err();
    assert!(refusal.contains("_socket_el_table"), "{refusal}");
    database
        .sql(&format!(
            "GRANT SELECT, INSERT, UPDATE ON _socket_el_table TO {role}"
        ))
        .await;
    probe(&target, "{}", "other").await.unwrap();
}
