//! Which columns a table gets, and how they change.

use crate::rig::Rig;

#[tokio::test]
async fn new_keys_become_columns_and_case_makes_a_difference() {
    let mut rig = Rig::new("").await;
    rig.deliver(&[r#"{"e":"trade","E":1}"#]).await;
    rig.deliver(&[r#"{"E":2,"e":"x","new":null}"#]).await;
    assert_eq!(
        rig.columns().await,
        ["e text", "E bigint"],
        "null alone makes no column"
    );
    rig.deliver(&[r#"{"E":3,"new":[1],"say \"hi\"":"y"}"#]).await;
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["trade|1|~|~", "x|2|~|~", "~|3|[1]|y"]
    );
    assert_eq!(rig.columns().await[3], "say \"hi\" text");
}

#[tokio::test]
async fn keys_with_reserved_names_are_renamed_and_never_merged() {
    let mut rig = Rig::new("").await;
    rig.deliver(&[
        r#"{"":1,"_":2,"__":3,"xmin":4,"xmin_":5,"_extra":6,"_extra_":7,"ctid":8,"_offset":9,"tableoid":10,"xmine":11}"#,
    ])
    .await;
    let columns = rig.columns().await;
    assert_eq!(
        columns,
        [
            "_ bigint",
            "__ bigint",
            "___ bigint",
            "xmin_ bigint",
            "xmin__ bigint",
            "_extra_ bigint",
            "_extra__ bigint",
            "ctid_ bigint",
            "_offset_ bigint",
            "tableoid_ bigint",
            "xmine bigint"
        ]
    );
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["1|2|3|4|5|6|7|8|9|10|11"]
    );
}

#[tokio::test]
async fn long_and_colliding_names_keep_their_columns_over_a_restart() {
    let mut rig = Rig::new("").await;
    let long = "ä".repeat(40);
    rig.deliver(&[&format!("{{\"{long}\":1,\"{long}b\":2}}")]).await;
    let names = rig
        .query("SELECT attname FROM pg_attribute WHERE attrelid = 'feed.t'::regclass AND attnum > 0")
        .await;
    assert_eq!(names.len(), 2);
    assert!(
        names
            .iter()
            .all(|name| name.len() <= 63 && name.starts_with("ääää")),
        "{names:?}"
    );
    // A key that is, letter for letter, the cut name of another one.
    let thief = names[0].clone();
    rig.deliver(&[&format!("{{\"{thief}\":3}}")]).await;
    rig.restart().await;
    rig.deliver(&[&format!("{{\"{thief}\":4,\"{long}b\":5,\"{long}\":6}}")])
        .await;
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["1|2|~", "~|~|3", "6|5|4"]
    );
}

#[tokio::test]
async fn conflicting_kinds_take_the_most_frequent_type_and_extra_holds_the_rest() {
    let mut rig = Rig::new("").await;
    let extras = rig
        .deliver(&[r#"{"v":1}"#, r#"{"v":"a"}"#, r#"{"v":"b"}"#, r#"{"v":{"x":1}}"#])
        .await;
    assert_eq!(extras, 2);
    assert_eq!(rig.columns().await, ["v text", "_extra jsonb"]);
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["~|{\"v\": 1}", "a|~", "b|~", "~|{\"v\": {\"x\": 1}}"]
    );
}

#[tokio::test]
async fn numbers_of_one_sample_share_the_narrowest_type_that_holds_them_all() {
    let mut rig = Rig::new("").await;
    let extras = rig
        .deliver(&[
            r#"{"double":1,"exact":9007199254740993,"big":1.5,"huge":1e400,"long":99999999999999999999}"#,
            r#"{"double":1.5,"exact":0.1,"big":99999999999999999999,"huge":1,"long":1}"#,
        ])
        .await;
    assert_eq!(extras, 0);
    assert_eq!(
        rig.columns().await,
        [
            "double double precision",
            "exact numeric",
            "big numeric",
            "huge numeric",
            "long numeric"
        ]
    );
}

#[tokio::test]
async fn a_bigint_of_ours_is_widened_when_it_meets_other_numbers() {
    let mut rig = Rig::new("").await;
    rig.deliver(&[r#"{"a":1,"b":9007199254740993,"c":1}"#]).await;
    let extras = rig
        .deliver(&[r#"{"a":2.0,"b":0.5,"c":99999999999999999999}"#])
        .await;
    assert_eq!(extras, 0);
    assert_eq!(
        rig.columns().await,
        ["a double precision", "b numeric", "c numeric"],
        "b would lose digits in double precision"
    );
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["1|9007199254740993|1", "2|0.5|99999999999999999999"]
    );
}

#[tokio::test]
async fn a_bigint_of_a_large_table_or_under_a_view_stays_and_extra_holds_fractions() {
    let mut rig = Rig::new("").await;
    rig.deliver(&[r#"{"a":1}"#]).await;
    rig.client
        .batch_execute("CREATE VIEW feed.v AS SELECT a FROM feed.t")
        .await
        .unwrap();
    assert_eq!(rig.deliver(&[r#"{"a":1.5}"#]).await, 1);
    rig.client
        .batch_execute("DROP VIEW feed.v; INSERT INTO feed.t (a) SELECT generate_series(1, 99999)")
        .await
        .unwrap();
    rig.restart().await;
    assert_eq!(rig.deliver(&[r#"{"a":2.5}"#, r#"{"a":2.0}"#]).await, 1);
    assert_eq!(rig.columns().await, ["a bigint", "_extra jsonb"]);
    assert_eq!(
        rig.query("SELECT a, _extra FROM feed.t WHERE _extra IS NOT NULL OR a = 2")
            .await,
        ["~|{\"a\": 1.5}", "2|~", "~|{\"a\": 2.5}", "2|~"]
    );
}

#[tokio::test]
async fn a_bigint_of_others_is_never_widened() {
    let mut rig = Rig::new("CREATE SCHEMA feed; CREATE TABLE feed.t (a bigint)").await;
    assert_eq!(rig.deliver(&[r#"{"a":1.5}"#]).await, 1);
    assert_eq!(rig.columns().await, ["a bigint", "_extra jsonb"]);
}

#[tokio::test]
async fn more_keys_than_columns_are_allowed_go_to_extra() {
    let mut rig = Rig::new("").await;
    let fields: Vec<_> = (0..510).map(|n| format!("\"k{n}\":{n}")).collect();
    let message = format!("{{{}}}", fields.join(","));
    assert_eq!(rig.deliver(&[&message]).await, 10);
    assert_eq!(rig.columns().await.len(), 501);
    assert_eq!(
        rig.query("SELECT k499, _extra->'k500', _extra->'k509' FROM feed.t")
            .await,
        ["499|500|509"]
    );
    assert_eq!(rig.deliver(&[r#"{"k1":1,"another":true}"#]).await, 1);
}
