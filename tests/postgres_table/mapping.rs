//! The mapping's keys: messages in the shape of real feeds become the rows that the configuration asks for.

use crate::rig::{Rig, query};

#[tokio::test]
async fn declared_types_are_made_and_hold_decimals_and_times_to_the_digit() {
    let mut rig = Rig::mapped(
        "SET timezone = 'UTC'",
        "columns: { price: numeric, size: 'numeric(20,8)', time: timestamptz, T: timestamptz(ms), ids: 'bigint[]' }",
    )
    .await;
    rig.deliver(&[
        r#"{"type":"match","price":"0.00001305","size":"985","time":"2021-04-17T16:43:37.089723Z","T":1626992741012,"ids":[1,null,-3]}"#,
        r#"{"type":"match","price":12345678901234567890.123456789,"T":"1626992741012.5","ids":[]}"#,
        r#"{"price":"n/a","T":"2021-07-22T22:25:41Z","ids":[1.5]}"#,
    ])
    .await;
    assert_eq!(
        rig.columns().await,
        [
            "price numeric",
            "size numeric(20,8)",
            "time timestamp with time zone",
            "T timestamp with time zone",
            "ids bigint[]",
            "type text",
            "_extra jsonb"
        ]
    );
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        [
            "0.00001305|985.00000000|2021-04-17 16:43:37.089723+00|2021-07-22 22:25:41.012+00|{1,NULL,-3}|match|~",
            "12345678901234567890.123456789|~|~|2021-07-22 22:25:41.0125+00|{}|match|~",
            "~|~|~|2021-07-22 22:25:41+00|~|~|{\"ids\": [1.5], \"price\": \"n/a\"}",
        ]
    );
}

#[tokio::test]
async fn every_type_that_can_be_declared_reads_back_as_it_was() {
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("boolean", "true", Some("true")),
        ("smallint", "\"-7\"", Some("-7")),
        ("integer", "7", Some("7")),
        ("bigint", "9007199254740993", Some("9007199254740993")),
        ("bigint", "1.5", None),
        ("numeric", "1e-7", Some("0.0000001")),
        ("numeric(5,2)", "1.005", None),
        ("real", "0.5", Some("0.5")),
        ("double precision", "\"0.1\"", Some("0.1")),
        ("text", "1.50", Some("1.50")),
        ("varchar(3)", "\"abcd\"", None),
        ("json", "{\"a\" : 1}", Some("{\"a\" : 1}")),
        ("jsonb", "[1,\"x\"]", Some("[1, \"x\"]")),
        (
            "uuid",
            "\"5ffb8b77-900c-507d-97a2-0922557ffe54\"",
            Some("5ffb8b77-900c-507d-97a2-0922557ffe54"),
        ),
        ("timestamptz", "1626992741", None),
        (
            "timestamptz(s)",
            "1626992741.25",
            Some("2021-07-22 22:25:41.25+00"),
        ),
        (
            "timestamptz(ms)",
            "\"1626992741012\"",
            Some("2021-07-22 22:25:41.012+00"),
        ),
        (
            "timestamptz(us)",
            "1618677786598877",
            Some("2021-04-17 16:43:06.598877+00"),
        ),
        (
            "timestamptz(ns)",
            "1618677786598877499",
            Some("2021-04-17 16:43:06.598877+00"),
        ),
        ("timestamptz(s)", "-62135596800", Some("0001-01-01 00:00:00+00")),
        ("timestamptz(s)", "1e15", None),
        ("timestamp(ms)", "0", Some("1970-01-01 00:00:00")),
        ("date", "\"2021-07-22\"", Some("2021-07-22")),
        ("time", "\"12:34:56.789\"", Some("12:34:56.789")),
        ("time", "\"12:34\"", Some("12:34:00")),
        ("time", "\"12:34.5\"", None),
        ("time", "\"24:00:01\"", None),
        ("inet", "\"10.0.0.1/8\"", Some("10.0.0.1/8")),
        ("cidr", "\"10.0.0.0/8\"", Some("10.0.0.0/8")),
        ("cidr", "\"2001:db8::/32\"", Some("2001:db8::/32")),
        ("cidr", "\"0.0.0.0/0\"", Some("0.0.0.0/0")),
        ("cidr", "\"10.0.0.1/8\"", None),
        ("bytea", "\"\\\\x00ff\"", Some("\\x00ff")),
        ("bytea", "\"AP8=\"", None),
        ("bytea(base64)", "\"AP8=\"", Some("\\x00ff")),
        ("bytea(base64)", "\"AP8\"", None),
        ("numeric[]", "[\"0.10\",2e2,null]", Some("{0.10,200,NULL}")),
        ("numeric[]", "[[1]]", None),
        ("numeric[]", "{\"a\":1}", None),
        (
            "text[]",
            "[\"a,b\",\"\\\"\",1,\"\"]",
            Some("{\"a,b\",\"\\\"\",1,\"\"}"),
        ),
        (
            "timestamptz(ms)[]",
            "[1000]",
            Some("{\"1970-01-01 00:00:01+00\"}"),
        ),
        ("boolean[]", "[true,false]", Some("{t,f}")),
        (
            "jsonb[]",
            "[{\"a\":[1]},\"x\"]",
            Some("{\"{\\\"a\\\": [1]}\",\"\\\"x\\\"\"}"),
        ),
        ("uuid[]", "[]", Some("{}")),
    ];
    for (number, (column_type, json, expected)) in cases.iter().enumerate() {
        let mut rig = Rig::mapped(
            "SET timezone = 'UTC'",
            &format!("columns: {{ v: '{column_type}' }}"),
        )
        .await;
        let extras = rig.deliver(&[&format!("{{\"v\":{json}}}")]).await;
        let found = rig.query("SELECT v::text FROM feed.t").await;
        assert_eq!(
            (found[0].as_str(), extras),
            (expected.unwrap_or("~"), u64::from(expected.is_none())),
            "{number}: {column_type} {json}"
        );
    }
}

#[tokio::test]
async fn a_column_with_a_path_takes_its_value_from_there_and_nothing_is_kept_twice_or_lost() {
    let mut rig = Rig::mapped(
        "",
        "columns:\n  open: { path: $.k.o, type: numeric }\n  event: { path: $.e, type: text }\n  \
         first: { path: '$.k.list[0]' }\n  odd: { path: \"$['a key'].x\", type: bigint }",
    )
    .await;
    rig.deliver(&[
        r#"{"e":"kline","E":5,"k":{"o":"0.35270000","list":[7,8]},"a key":{"x":1}}"#,
        r#"{"e":"kline","E":6,"event":"mine","k":{"o":"x"},"a key":{"x":1.5}}"#,
        r#"{"\u0065":"escaped","E":7,"k":null}"#,
    ])
    .await;
    assert_eq!(
        rig.query("SELECT open, event, first, odd, \"E\", k, _extra FROM feed.t")
            .await,
        [
            "0.35270000|kline|7|1|5|{\"o\": \"0.35270000\", \"list\": [7, 8]}|~",
            "~|kline|~|~|6|{\"o\": \"x\"}|{\"odd\": 1.5, \"open\": \"x\", \"event\": \"mine\"}",
            "~|escaped|~|~|7|~|~",
        ]
    );
    let columns = rig.columns().await;
    assert!(
        !columns.iter().any(|column| column.starts_with("e ")),
        "{columns:?}"
    );
}

#[tokio::test]
async fn an_envelopes_records_become_rows_with_what_stands_outside_of_them() {
    let mut rig = Rig::mapped(
        "SET timezone = 'UTC'",
        "records: $.data\ninclude: { stream: $.stream }\ncolumns: { E: timestamptz(ms), p: numeric }",
    )
    .await;
    rig.deliver(&[
        r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1633998523963,"p":"0.35280000","m":false,"M":true}}"#,
        r#"{"data":[{"e":"a","p":"1.0"},{"e":"b","stream":"own"}],"stream":"two"}"#,
    ])
    .await;
    assert_eq!(
        rig.query("SELECT stream, e, \"E\", p, m, \"M\", _extra FROM feed.t")
            .await,
        [
            "btcusdt@aggTrade|aggTrade|2021-10-12 00:28:43.963+00|0.35280000|f|t|~",
            "two|a|~|1.0|~|~|~",
            "two|b|~|~|~|~|{\"stream\": \"own\"}",
        ]
    );
}

#[tokio::test]
async fn what_has_no_records_is_kept_whole_and_an_empty_list_is_ignored() {
    let mut rig = Rig::mapped("", "records: $.params.data[*]\ninclude: { m: $.method }").await;
    let delivered = rig
        .deliver_all(&[
            r#"{"method":"trades","params":{"data":[{"id":1},{"id":2}]}}"#,
            r#"{"method":"trades","params":{"data":[]}}"#,
            r#"{"result":true}"#,
            r#"{"method":"x","params":{"data":[{"id":3},4]}}"#,
            r#"{"method":"x","params":{"data":null}}"#,
            "[1]",
        ])
        .await;
    assert_eq!((delivered.rows, delivered.ignored), (6, 1));
    assert_eq!(
        rig.query("SELECT m, id, _message FROM feed.t").await,
        [
            "trades|1|~",
            "trades|2|~",
            "~|~|{\"result\": true}",
            "x|~|{\"method\": \"x\", \"params\": {\"data\": [{\"id\": 3}, 4]}}",
            "x|~|{\"method\": \"x\", \"params\": {\"data\": null}}",
            "~|~|[1]",
        ]
    );
}

#[tokio::test]
async fn arrays_become_rows_by_the_places_of_their_elements() {
    let keys = "records: $[1]\ninclude: { channel: '$[0]' }\ncolumns:\n  price: { path: '$[0]', type: numeric }\n  \
                count: { path: '$[1]', type: bigint }\n  amount: { path: '$[2]', type: numeric }";
    let mut rig = Rig::mapped("", keys).await;
    let delivered = rig
        .deliver_all(&[
            "[17,[[0.10,2,-3.5],[60157.36709703,1,4]],5]",
            "[17,[0.068965,3,1e3],6]",
            r#"[17,"hb"]"#,
            r#"{"event":"info"}"#,
            "[17,[]]",
        ])
        .await;
    assert_eq!((delivered.rows, delivered.ignored), (5, 1));
    assert_eq!(
        rig.query("SELECT channel, price, count, amount, _message FROM feed.t")
            .await,
        [
            "17|0.10|2|-3.5|~",
            "17|60157.36709703|1|4|~",
            "17|0.068965|3|1000|~",
            "17|~|~|~|[17, \"hb\"]",
            "~|~|~|~|{\"event\": \"info\"}",
        ]
    );
}

#[tokio::test]
async fn the_message_itself_can_be_an_array_of_values_by_place() {
    let mut rig = Rig::mapped(
        "",
        "columns: { id: { path: '$[0]' }, p: { path: '$[2][3]', type: numeric } }",
    )
    .await;
    rig.deliver(&[r#"[1,"te",[9,8,7,0.123456789012345678901]]"#])
        .await;
    assert_eq!(
        rig.query("SELECT id, p FROM feed.t").await,
        ["1|0.123456789012345678901"]
    );
}

#[tokio::test]
async fn messages_that_do_not_match_are_ignored_and_what_is_no_json_is_not() {
    let mut rig = Rig::mapped("", "when: { $.type: [match, last_match], $.ok: [true, 1, null] }").await;
    let delivered = rig
        .deliver_all(&[
            r#"{"type":"match","ok":true,"n":1}"#,
            r#"{"type":"last_match","ok":1.0,"n":2}"#,
            r#"{"type":"match","ok":null,"n":3}"#,
            r#"{"type":"ticker","ok":true,"n":4}"#,
            r#"{"type":"match","n":5}"#,
            "[]",
            "nonsense",
            r#"{"ok":true,"type":"ticker","type":"match","n":6}"#,
        ])
        .await;
    assert_eq!(rig.query("SELECT n FROM feed.t").await, ["1", "2", "3", "6"]);
    assert_eq!((delivered.rows, delivered.ignored), (4, 3));
    assert_eq!(delivered.dead.len(), 1);
    assert!(delivered.dead[0].2.starts_with("not JSON"), "{delivered:?}");
}

#[tokio::test]
async fn a_key_on_the_way_of_a_path_that_stands_twice_makes_a_dead_letter() {
    let mut rig = Rig::mapped("", "records: $.data").await;
    let delivered = rig
        .deliver_all(&[r#"{"data":{"a":1},"data":{"a":2}}"#, r#"{"data":{"a":3,"a":4}}"#])
        .await;
    assert_eq!(rig.query("SELECT a FROM feed.t").await, ["4"]);
    assert!(delivered.dead[0].2.contains("stands twice"), "{delivered:?}");
}

#[tokio::test]
async fn an_existing_tables_types_rule_and_declared_units_still_apply() {
    let mut rig = Rig::mapped(
        "CREATE SCHEMA feed; CREATE TABLE feed.t (t timestamptz, n bigint, label text, g bigint GENERATED ALWAYS AS (n * 2) STORED); \
         SET timezone = 'UTC'",
        "columns: { t: timestamptz(us), n: numeric, late: 'numeric[]', label: { path: $.l.x } }",
    )
    .await;
    rig.deliver(&[
        r#"{"t":1618677786598877,"n":"5","late":[1],"l":{"x":"a"}}"#,
        r#"{"n":1.5}"#,
    ])
    .await;
    assert_eq!(
        rig.query("SELECT t, n, label, g, late, _extra FROM feed.t").await,
        [
            "2021-04-17 16:43:06.598877+00|5|a|10|{1}|~",
            "~|~|~|~|~|{\"n\": 1.5}"
        ]
    );
}

#[tokio::test]
async fn raw_keeps_every_message_as_it_came() {
    let mut rig = Rig::mapped("SET timezone = 'UTC'", "mapping: raw\nwhen: { $.skip: false }").await;
    let delivered = rig
        .deliver_all(&[
            r#"{"skip":false,"a":[1,{"b":"\u0000"}]}"#,
            r#"{"skip":true}"#,
            "{",
        ])
        .await;
    assert_eq!(
        (delivered.rows, delivered.ignored, delivered.dead.len()),
        (1, 1, 1)
    );
    assert_eq!(
        rig.columns().await,
        [
            "offset bigint",
            "received_at timestamp with time zone",
            "message jsonb"
        ]
    );
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["0|2023-11-14 22:13:20.123456+00|{\"a\": [1, {\"b\": \"\u{FFFD}\"}], \"skip\": false}"]
    );
    let mut rig = Rig::mapped("", "mapping: raw\nmetadata: true").await;
    rig.deliver(&["[]", "1.50"]).await;
    assert_eq!(
        query(&rig.client, "SELECT _stage, \"offset\", message FROM feed.t").await,
        ["websocket_1|0|[]", "websocket_1|1|1.50"]
    );
}

#[tokio::test]
async fn frozen_keys_make_dead_letters_and_leave_the_table_as_it_is() {
    let mut rig = Rig::mapped(
        "",
        "new_keys: freeze\nrecords: $.d\ncolumns: { a: bigint, b: { path: $.n.x, type: text } }",
    )
    .await;
    let delivered = rig
        .deliver_all(&[
            r#"{"d":{"a":1,"n":{"x":"y"}}}"#,
            r#"{"d":[{"a":2},{"a":3,"new":true}]}"#,
            r#"{"d":{"a":"x"}}"#,
            r#"{"d":{"a":4,"new":null}}"#,
        ])
        .await;
    assert_eq!(rig.query("SELECT * FROM feed.t").await, ["1|y", "4|~"]);
    assert_eq!(rig.columns().await, ["a bigint", "b text"]);
    assert_eq!(
        delivered.dead,
        [
            (
                1,
                Some(1),
                "the key \"new\" has no column, and the configuration says new_keys: freeze".to_owned()
            ),
            (
                2,
                Some(0),
                "the value for column \"a\" does not fit its type bigint, and the configuration says new_keys: freeze"
                    .to_owned()
            )
        ]
    );
}

#[tokio::test]
async fn discarded_keys_are_dropped_and_counted() {
    let mut rig = Rig::mapped(
        "",
        "new_keys: discard\ncolumns: { a: bigint, b: { path: $.n.x, type: text } }",
    )
    .await;
    let delivered = rig
        .deliver_all(&[
            r#"{"a":1,"n":{"x":"y"},"new":true,"newer":[1]}"#,
            r#"{"a":"x","nothing":null}"#,
        ])
        .await;
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["1|y|~", "~|~|{\"a\": \"x\"}"]
    );
    assert_eq!((delivered.discarded_values, delivered.extra_values), (2, 1));
}

#[tokio::test]
async fn a_table_that_nothing_can_make_is_refused_with_what_to_do() {
    let mut rig = Rig::mapped(
        "CREATE SCHEMA feed; CREATE TABLE feed.t (a int)",
        "new_keys: freeze",
    )
    .await;
    rig.deliver(&[r#"{"a":1}"#]).await;
    rig.client.batch_execute("DROP TABLE feed.t").await.unwrap();
    let error = rig.load().await.unwrap_err().to_string();
    assert!(
        error.contains("does not exist") && error.contains("declare its columns"),
        "{error}"
    );
}

#[tokio::test]
async fn fractions_are_numeric_where_the_configuration_says_so() {
    let mut rig = Rig::mapped("", "numbers: numeric").await;
    rig.deliver(&[r#"{"p":0.1,"n":1}"#]).await;
    rig.deliver(&[r#"{"p":0.1234567890123456789,"n":2.5}"#]).await;
    assert_eq!(rig.columns().await, ["p numeric", "n numeric"]);
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["0.1|1", "0.1234567890123456789|2.5"]
    );
}

#[tokio::test]
async fn nul_is_left_out_or_makes_a_dead_letter_where_the_configuration_says_so() {
    let messages = [
        r#"{"a":"x\u0000y","b":["\u0000"],"k\u0000":1}"#,
        r#"{"a":"\\u0000"}"#,
    ];
    let mut rig = Rig::mapped("", "nul: strip").await;
    rig.deliver(&messages).await;
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["xy|[\"\"]|1", "\\u0000|~|~"]
    );
    let mut rig = Rig::mapped("", "nul: dead_letter").await;
    let delivered = rig.deliver_all(&messages).await;
    assert_eq!(rig.query("SELECT * FROM feed.t").await, ["\\u0000"]);
    assert_eq!((delivered.dead.len(), delivered.dead[0].0), (1, 0));
}

#[tokio::test]
async fn keys_beyond_max_columns_stand_in_extra() {
    let mut rig = Rig::mapped("", "max_columns: 2").await;
    assert_eq!(rig.deliver(&[r#"{"a":1,"b":2,"c":3,"d":4}"#]).await, 2);
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        ["1|2|{\"c\": 3, \"d\": 4}"]
    );
}

#[tokio::test]
async fn columns_that_the_configuration_names_have_their_place_among_max_columns() {
    let mut rig = Rig::mapped(
        "",
        "max_columns: 4\ncolumns: { a: text, b: { path: $.n.x } }\ninclude: { i: $.at }",
    )
    .await;
    assert_eq!(rig.deliver(&[r#"{"c":1,"d":2}"#]).await, 1);
    assert_eq!(
        rig.columns().await,
        ["a text", "c bigint", "_extra jsonb"],
        "places are kept for b and i"
    );
    assert_eq!(rig.deliver(&[r#"{"a":"x","n":{"x":5},"at":7}"#]).await, 2);
    assert_eq!(
        rig.columns().await,
        ["a text", "c bigint", "_extra jsonb", "b bigint", "i bigint"]
    );
    // The columns for what fits nowhere are not counted.
    let mut rig = Rig::mapped("", "max_columns: 2").await;
    rig.deliver(&[r#"{"v":1}"#, r#"{"v":"a"}"#, r#"{"v":"b"}"#, "5"])
        .await;
    assert_eq!(rig.deliver(&[r#"{"w":1,"x":2}"#]).await, 1);
    assert_eq!(
        rig.columns().await,
        ["v text", "_message jsonb", "_extra jsonb", "w bigint"]
    );
}

#[tokio::test]
async fn a_frozen_table_of_others_gets_no_column_but_those_that_the_configuration_names() {
    const TABLE: &str =
        "CREATE SCHEMA feed; CREATE TABLE feed.t (a bigint, g bigint GENERATED ALWAYS AS (a * 2) STORED)";
    let messages = [
        r#"{"a":1}"#,
        r#"{"a":2,"g":4}"#,
        "[1,2]",
        r#"{"a":"x"}"#,
        r#"{"a":5,"new":6}"#,
    ];
    let mut rig = Rig::mapped(TABLE, "new_keys: freeze").await;
    let delivered = rig.deliver_all(&messages).await;
    assert_eq!(rig.columns().await, ["a bigint", "g bigint"]);
    assert_eq!(delivered.rows, 1);
    let reasons: Vec<_> = delivered
        .dead
        .iter()
        .map(|(_, _, reason)| reason.as_str())
        .collect();
    assert!(
        matches!(reasons.as_slice(), [g, list, _, new]
            if g.contains("\"g\" has no place") && list.contains("column _message") && new.contains("\"new\" has no column"))
            && reasons.iter().all(|reason| reason.contains("new_keys: freeze")),
        "{reasons:?}"
    );
    // Where they are there, they are used.
    let there =
        format!("DROP SCHEMA feed CASCADE; {TABLE}; ALTER TABLE feed.t ADD _extra jsonb, ADD _message jsonb");
    rig.begin_again(&there, "new_keys: freeze").await;
    assert_eq!(rig.deliver_all(&messages).await.rows, 3);
    // What the configuration names is asked for, and made.
    let again = format!("DROP SCHEMA feed CASCADE; {TABLE}");
    rig.begin_again(&again, "new_keys: freeze\nmetadata: true\ncolumns: { c: text }")
        .await;
    assert_eq!(rig.deliver_all(&messages).await.rows, 1);
    assert_eq!(
        rig.columns().await,
        [
            "a bigint",
            "g bigint",
            "_stage text",
            "_offset bigint",
            "_received_at timestamp with time zone",
            "c text"
        ]
    );
}

#[tokio::test]
async fn counts_of_an_epoch_for_a_column_of_others_are_refused_with_the_unit_to_declare() {
    let mut rig = Rig::mapped(
        "CREATE SCHEMA feed; CREATE TABLE feed.t (a timestamptz, b timestamp, c timestamptz, d date)",
        "new_keys: freeze",
    )
    .await;
    for (message, hint) in [
        (
            r#"{"a":1618676321000}"#,
            "declare it in `columns`, most likely `a: timestamptz(ms)`",
        ),
        (
            r#"{"b":"1618676321"}"#,
            "declare it in `columns`, most likely `b: timestamp(s)`",
        ),
        (r#"{"c":1618676321000000.5}"#, "`c: timestamptz(us)`"),
        (r#"{"c":1618676321000000000}"#, "`c: timestamptz(ns)`"),
        (
            r#"{"c":12}"#,
            "declare it in `columns`: timestamptz(s), (ms), (us) or (ns)",
        ),
    ] {
        let delivered = rig.deliver_all(&[message]).await;
        let (_, _, reason) = &delivered.dead[0];
        assert!(
            reason.contains("a number of an epoch needs its unit") && reason.contains(hint),
            "{message}: {reason}"
        );
    }
    for message in [r#"{"a":"soon"}"#, r#"{"a":"Infinity"}"#, r#"{"d":1618676321000}"#] {
        let delivered = rig.deliver_all(&[message]).await;
        assert!(!delivered.dead[0].2.contains("epoch"), "{delivered:?}");
    }
}

#[tokio::test]
async fn an_empty_list_of_records_is_ignored_and_a_message_that_is_one_is_kept() {
    for keys in [
        "",
        "include: { a: $.a }",
        "routes: [{ when: { $.t: x }, table: x }, { table: t }]",
    ] {
        let mut rig = Rig::mapped("", keys).await;
        assert_eq!(rig.deliver_all(&["[]"]).await.ignored, 0, "{keys}");
        assert_eq!(rig.query("SELECT _message FROM feed.t").await, ["[]"], "{keys}");
    }
    let mut rig = Rig::mapped("", "records: $.d").await;
    let delivered = rig
        .deliver_all(&[
            r#"{"d":[]}"#,
            r#"{"d":null}"#,
            r#"{"d":5}"#,
            "{}",
            "[]",
            r#"{"d":[5]}"#,
            r#"{"d":{}}"#,
            r#"{"d":[{},{"x":1}]}"#,
        ])
        .await;
    assert_eq!((delivered.ignored, delivered.rows), (1, 8));
    assert_eq!(
        rig.query("SELECT x, _message FROM feed.t").await,
        [
            "~|{\"d\": null}",
            "~|{\"d\": 5}",
            "~|{}",
            "~|[]",
            "~|{\"d\": [5]}",
            "~|~",
            "~|~",
            "1|~"
        ]
    );
}
