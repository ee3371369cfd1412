//! Several tables at once: a message is read once and goes by the first route that matches, with that route's mapping.

use crate::rig::Rig;

#[tokio::test]
async fn the_first_route_that_matches_decides_and_the_last_without_conditions_takes_the_rest() {
    let mut rig = Rig::mapped(
        "",
        "when: { $.ok: true }\nroutes:\n  - { when: { $.type: [a, b] }, table: z }\n  - { when: { $.type: [b, x] }, table: never }\n  \
         - { when: { $.type: c, $.n: 1 }, table: c }\n  - { table: rest, mapping: raw }",
    )
    .await;
    let delivered = rig
        .deliver_all(&[
            r#"{"ok":true,"type":"a"}"#,
            r#"{"ok":true,"type":"b"}"#,
            r#"{"ok":true,"type":"c","n":1}"#,
            r#"{"ok":true,"type":"c","n":2}"#,
            r#"{"ok":false,"type":"a"}"#,
            r#"{"ok":true}"#,
            "[1]",
        ])
        .await;
    assert_eq!((delivered.rows, delivered.ignored), (5, 2));
    let names: Vec<_> = rig
        .router
        .tables()
        .iter()
        .map(|table| table.name_sql().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            r#""feed"."c""#,
            r#""feed"."never""#,
            r#""feed"."rest""#,
            r#""feed"."z""#
        ],
        "in order of their names"
    );
    assert_eq!(rig.query("SELECT type FROM feed.z").await, ["a", "b"]);
    assert_eq!(rig.query("SELECT n FROM feed.c").await, ["1"]);
    assert_eq!(
        rig.query("SELECT \"offset\", message->>'n' FROM feed.rest").await,
        ["3|2", "5|~"]
    );
    assert_eq!(
        rig.query("SELECT to_regclass('feed.never')").await,
        ["~"],
        "a table that no message is for is not made"
    );
}

#[tokio::test]
async fn each_table_has_its_own_records_paths_and_rules() {
    let mut rig = Rig::mapped(
        "",
        "metadata: true\ninclude: { at: $.at }\ncolumns: { p: numeric }\nroutes:\n  \
         - { when: { $.e: list }, table: list, records: '$.d[*]', columns: { first: { path: '$[0]' }, q: { path: '$.p' } } }\n  \
         - { when: { $.e: one }, table: one, records: $.d, metadata: false, nul: strip, columns: { p: text } }\n  \
         - { when: { $.e: own }, table: own, include: { at: $.d.at }, nul: dead_letter }\n  \
         - { when: { $.e: free }, table: free, records: $.d, new_keys: discard }",
    )
    .await;
    let delivered = rig
        .deliver_all(&[
            r#"{"e":"list","at":1,"d":[[7,8],[9]]}"#,
            r#"{"e":"list","at":2,"d":[{"p":"1.0"}]}"#,
            r#"{"e":"one","at":3,"d":{"p":"2.50","x":"a\u0000b"}}"#,
            r#"{"e":"one","at":4,"d":[[5]]}"#,
            r#"{"e":"own","at":5,"d":{"at":6}}"#,
            r#"{"e":"own","at":5,"x":"\u0000"}"#,
            r#"{"e":"free","at":7,"d":[{"p":"3","x":1},{"p":4}]}"#,
        ])
        .await;
    assert_eq!((delivered.rows, delivered.discarded_values), (8, 1));
    assert_eq!((delivered.dead.len(), delivered.dead[0].0), (1, 5));
    assert_eq!(
        rig.query("SELECT _offset, at, first, q, p FROM feed.list").await,
        ["0|1|7|~|~", "0|1|9|~|~", "1|2|~|1.0|~"],
        "the key p is taken by a path there"
    );
    assert_eq!(
        rig.query("SELECT at, p, x, _message IS NOT NULL FROM feed.one")
            .await,
        ["3|2.50|ab|f", "4|~|~|t"],
        "arrays are no records where nothing is asked for by place"
    );
    assert_eq!(rig.query("SELECT at, d FROM feed.own").await, ["6|{\"at\": 6}"]);
    assert_eq!(
        rig.query("SELECT _offset, at, p FROM feed.free").await,
        ["6|7|3", "6|7|4"]
    );
}

#[tokio::test]
async fn what_the_configuration_tells_of_the_tables_is_shown_as_sql_that_runs() {
    let rig = Rig::mapped(
        "",
        "metadata: true\nroutes:\n  - { when: { $.a: 1 }, table: a, columns: { s: text, p: numeric }, on_conflict: { key: [s], action: update } }\n  \
         - { when: { $.b: 1 }, table: b, on_conflict: { key: [s], action: ignore }, new_keys: evolve }\n  \
         - { when: { $.c: 1 }, table: c, mapping: raw, on_conflict: { key: [offset, _stage], action: ignore } }",
    )
    .await;
    let shown: Vec<_> = rig
        .router
        .tables()
        .iter()
        .map(|table| table.foreseen().unwrap())
        .collect();
    assert_eq!(
        shown[0],
        "CREATE TABLE IF NOT EXISTS \"feed\".\"a\" (\n    _stage text,\n    _offset bigint,\n    _received_at timestamp with time zone,\n    \
         \"s\" text,\n    \"p\" numeric,\n    PRIMARY KEY (\"s\")\n);\n\
         COMMENT ON TABLE \"feed\".\"a\" IS 'socket-el: made for stage websocket_1, holds its rows from offset 0 on';\n\
         COMMENT ON COLUMN \"feed\".\"a\".\"s\" IS 'socket-el key: \"s\"';\nCOMMENT ON COLUMN \"feed\".\"a\".\"p\" IS 'socket-el key: \"p\"';\n\
         -- and a column for each other key of the messages\n"
    );
    assert!(
        shown[1].ends_with("-- with PRIMARY KEY (\"s\")\n"),
        "{}",
        shown[1]
    );
    rig.client.batch_execute("CREATE SCHEMA feed").await.unwrap();
    for sql in &shown {
        rig.client.batch_execute(sql).await.unwrap();
    }
    let keys = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p' AND connamespace = 'feed'::regnamespace ORDER BY 1";
    assert_eq!(
        rig.query(keys).await,
        ["PRIMARY KEY (\"offset\", _stage)", "PRIMARY KEY (s)"]
    );
}
