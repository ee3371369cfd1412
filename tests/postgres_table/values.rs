//! Values read back as what they were.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::rig::Rig;

#[tokio::test]
async fn a_table_is_made_from_the_first_messages_and_holds_them() {
    let mut rig = Rig::new("").await;
    let extras = rig
        .deliver(&[
            r#"{"exchange":"x","price":1,"volume":0.5,"ok":true,"nested":{"a":[1]},"nothing":null}"#,
            r#"[{"exchange":"y\u00e9\n\ud83d\ude00","price":-2,"volume":7,"big":18446744073709551616},{}]"#,
        ])
        .await;
    assert_eq!(extras, 0);
    assert_eq!(
        rig.columns().await,
        [
            "exchange text",
            "price bigint",
            "volume double precision",
            "ok boolean",
            "nested jsonb",
            "big numeric"
        ]
    );
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        [
            "x|1|0.5|t|{\"a\": [1]}|~",
            "yé\n😀|-2|7|~|~|18446744073709551616",
            "~|~|~|~|~|~"
        ]
    );
}

#[tokio::test]
async fn every_type_holds_what_fits_and_the_rest_stands_in_extra() {
    let mut rig = Rig::new(
        "CREATE SCHEMA feed; CREATE TYPE mood AS ENUM ('sad', 'ok'); \
        CREATE DOMAIN percent AS numeric(5,2); CREATE DOMAIN share AS percent",
    )
    .await;
    // Type, JSON, and the text that the column then has; None: NULL there, and the value in _extra.
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("smallint", "-32768", Some("-32768")),
        ("smallint", "32768", None),
        ("int", "2147483647", Some("2147483647")),
        ("int", "2147483648", None),
        ("int", "2e3", Some("2000")),
        ("int", "1.5", None),
        ("int", "true", None),
        ("bigint", "-9223372036854775808", Some("-9223372036854775808")),
        ("bigint", "9223372036854775808", None),
        ("bigint", "\"12\"", Some("12")),
        ("bigint", "\"012\"", None),
        ("numeric", "0.10", Some("0.10")),
        ("numeric", "-0", Some("0")),
        ("numeric", "1e400", Some("1e400")),
        (
            "numeric",
            "\"123456789012345678901234567890.000000000000000000001\"",
            Some("123456789012345678901234567890.000000000000000000001"),
        ),
        ("numeric", "\"NaN\"", None),
        ("numeric", "\" 1\"", None),
        ("numeric(5,2)", "999.99", Some("999.99")),
        ("numeric(5,2)", "1.5000", Some("1.50")),
        ("numeric(5,2)", "1000", None),
        ("numeric(5,2)", "1.005", None),
        ("numeric(3,-2)", "12300", Some("12300")),
        ("numeric(3,-2)", "12350", None),
        ("share", "100.25", Some("100.25")),
        ("share", "100.255", None),
        ("double precision", "9007199254740992", Some("9007199254740992")),
        ("double precision", "9007199254740993", None),
        ("double precision", "0.1", Some("0.1")),
        ("double precision", "1e400", None),
        ("double precision", "1e-400", None),
        ("real", "0.1", Some("0.1")),
        ("real", "16777217", None),
        ("real", "1e39", None),
        ("text", "\"\\u0000a\\\"\\\\\"", Some("\u{FFFD}a\"\\")),
        ("text", "1.50", Some("1.50")),
        ("text", "[1, 2]", Some("[1, 2]")),
        ("text", "[\"\\u0000\\\\u0000\"]", Some("[\"\\ufffd\\\\u0000\"]")),
        ("varchar(3)", "\"äöü\"", Some("äöü")),
        ("varchar(3)", "\"äöüß\"", None),
        ("char(3)", "\"ab\"", Some("ab ")),
        ("char(3)", "\"abcd\"", None),
        ("boolean", "true", Some("true")),
        ("boolean", "\"f\"", Some("false")),
        ("boolean", "\"\\u0074rue\"", Some("true")),
        ("boolean", "1", None),
        ("mood", "\"ok\"", Some("ok")),
        ("mood", "7", None),
        (
            "json",
            "{\"a\" : \"\\\\u0000\\u0000\"}",
            Some("{\"a\" : \"\\\\u0000\\ufffd\"}"),
        ),
        (
            "jsonb",
            "{\"a\" : \"\\\\u0000\\u0000\"}",
            Some("{\"a\": \"\\\\u0000\u{FFFD}\"}"),
        ),
        ("jsonb", "\"text\"", Some("\"text\"")),
        (
            "timestamptz",
            "\"2024-02-29T23:59:59.123456Z\"",
            Some("2024-02-29 23:59:59.123456+00"),
        ),
        (
            "timestamptz",
            "\"1969-12-31 19:00:00-05:30\"",
            Some("1970-01-01 00:30:00+00"),
        ),
        // Halves of a microsecond as the server rounds them.
        (
            "timestamptz",
            "\"2024-02-29T00:00:00.0000005Z\"",
            Some("2024-02-29 00:00:00+00"),
        ),
        (
            "timestamptz",
            "\"1899-01-31 01:05:11.9440505Z\"",
            Some("1899-01-31 01:05:11.94405+00"),
        ),
        (
            "timestamptz",
            "\"2024-02-29T23:59:59.9999999Z\"",
            Some("2024-03-01 00:00:00+00"),
        ),
        ("timestamptz", "\"2024-02-29T06:38.02Z\"", None),
        ("timestamptz", "\"2023-02-29T00:00:00Z\"", None),
        ("timestamptz", "\"2024-02-29T00:00:00\"", None),
        ("timestamptz", "1700000000", None),
        (
            "timestamp",
            "\"0001-01-01T00:00:60Z\"",
            Some("0001-01-01 00:01:00"),
        ),
        ("timestamp", "\"2024-01-01T00:00:00+01\"", None),
        ("date", "\"2000-03-01\"", Some("2000-03-01")),
        ("date", "\"1899-12-31\"", Some("1899-12-31")),
        ("date", "\"2000-3-1\"", None),
        (
            "uuid",
            "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
            Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        ("uuid", "\"a0eebc99\"", None),
        ("inet", "\"192.168.0.1/24\"", Some("192.168.0.1/24")),
        ("inet", "\"::1\"", Some("::1")),
        ("inet", "\"1.2.3\"", None),
        ("inet", "\"1.2.3.4/33\"", None),
        ("inet", "\"1.2.3.4/08\"", None),
        ("bytea", "\"\\\\x00ff\"", Some("\\x00ff")),
        ("bytea", "\"00ff\"", None),
        ("bytea", "\"\\\\x0\"", None),
        ("int[]", "[1]", Some("{1}")),
        ("int[]", "[1.5]", None),
        ("int[]", "1", None),
        ("interval", "\"1 day\"", None),
    ];
    let mut types: Vec<_> = cases.iter().map(|case| case.0).collect();
    types.dedup();
    for column_type in types {
        rig.client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS feed.t; CREATE TABLE feed.t (n int, v {column_type}, _extra jsonb); SET timezone = 'UTC'"
            ))
            .await
            .unwrap();
        rig.restart().await;
        let cases: Vec<_> = cases.iter().filter(|case| case.0 == column_type).collect();
        let messages: Vec<_> = cases
            .iter()
            .enumerate()
            .map(|(n, case)| format!("{{\"n\":{n},\"v\":{}}}", case.1))
            .collect();
        let messages: Vec<_> = messages.iter().map(String::as_str).collect();
        rig.deliver(&messages).await;
        for (n, (_, json, expected)) in cases.iter().enumerate() {
            let expected = match expected {
                Some(text) => format!("'{text}'::{column_type}::text"),
                None => "NULL".to_owned(),
            };
            let extra = if expected == "NULL" {
                format!("'{{\"v\":{json}}}'::jsonb")
            } else {
                "NULL".to_owned()
            };
            let row = rig
                .query(&format!(
                    "SET standard_conforming_strings = on; SELECT v::text IS NOT DISTINCT FROM {expected}, \
                     _extra IS NOT DISTINCT FROM {extra}, v, _extra FROM feed.t WHERE n = {n}"
                ))
                .await;
            assert!(row[0].starts_with("t|t|"), "{column_type} {json}: {row:?}");
        }
    }
}

#[tokio::test]
async fn numbers_of_any_shape_reach_numeric_to_the_digit() {
    let mut rig = Rig::new("CREATE SCHEMA feed; CREATE TABLE feed.t (v numeric, s numeric, raw text)").await;
    let decimal = (
        any::<bool>(),
        prop_oneof![Just("0".to_owned()), "[1-9][0-9]{0,40}", "[1-9]0{1,40}"],
        prop_oneof![Just(String::new()), "\\.[0-9]{1,40}", "\\.0{1,30}[0-9]"],
        prop_oneof![Just(String::new()), "[eE][+-]?[0-9]{1,3}", "e-?1[0-5][0-9]{3}"],
    )
        .prop_map(|(negative, integer, fraction, exponent)| {
            let sign = if negative { "-" } else { "" };
            format!("{sign}{integer}{fraction}{exponent}")
        });
    let mut runner = TestRunner::default();
    let messages: Vec<_> = (0..1_500)
        .map(|_| decimal.new_tree(&mut runner).unwrap().current())
        .map(|number| format!("{{\"v\":{number},\"s\":\"{number}\",\"raw\":\"{number}\"}}"))
        .collect();
    let messages: Vec<_> = messages.iter().map(String::as_str).collect();
    assert_eq!(rig.deliver(&messages).await, 0);
    let wrong = rig
        .query(
            "SELECT raw, left(v::text, 200) FROM feed.t WHERE v::text IS DISTINCT FROM raw::numeric::text \
             OR s::text IS DISTINCT FROM raw::numeric::text",
        )
        .await;
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(rig.query("SELECT count(v) FROM feed.t").await, ["1500"]);
}

#[tokio::test]
async fn messages_without_records_are_kept_whole() {
    let mut rig = Rig::new("").await;
    rig.deliver(&[
        r#"{"event":"info"}"#,
        r#"[0,"hb",{"x":"\u0000"}]"#,
        "[]",
        " null ",
        "\"a\"",
        "1.50",
        "[{},1]",
    ])
    .await;
    assert_eq!(
        rig.query("SELECT event, _message FROM feed.t").await,
        [
            "info|~",
            "~|[0, \"hb\", {\"x\": \"\u{FFFD}\"}]",
            "~|[]",
            "~|null",
            "~|\"a\"",
            "~|1.50",
            "~|[{}, 1]"
        ]
    );
}

#[tokio::test]
async fn metadata_says_where_a_row_comes_from() {
    let mut rig = Rig::with_metadata("SET timezone = 'UTC'", true).await;
    rig.deliver(&[r#"{"a":1}"#, r#"[{"a":2},{"a":3}]"#]).await;
    assert_eq!(
        rig.query("SELECT * FROM feed.t").await,
        [
            "websocket_1|0|2023-11-14 22:13:20.123456+00|1",
            "websocket_1|1|2023-11-14 22:13:20.123456+00|2",
            "websocket_1|1|2023-11-14 22:13:20.123456+00|3"
        ]
    );
}

#[tokio::test]
async fn the_last_of_equal_keys_counts_and_nul_is_replaced() {
    let mut rig = Rig::new("CREATE SCHEMA feed; CREATE TABLE feed.t (a int, i interval, _extra jsonb)").await;
    rig.deliver(&[
        r#"{"a":1,"\u0061":2}"#,
        r#"{"a":"x","a":3}"#,
        r#"{"a":3,"a":"\u0000"}"#,
        r#"{"a":3,"a":null}"#,
        r#"{"i":"1 day","\u0069":null}"#,
        r#"{"i":null,"i":"1 day","a":7}"#,
    ])
    .await;
    assert_eq!(
        rig.query("SELECT a, _extra FROM feed.t").await,
        [
            "2|~",
            "3|~",
            "~|{\"a\": \"\u{FFFD}\"}",
            "~|~",
            "~|~",
            "7|{\"i\": \"1 day\"}"
        ]
    );
}

#[tokio::test]
async fn empty_objects_make_a_table_that_takes_rows() {
    let mut rig = Rig::new("").await;
    rig.deliver(&["{}", "[{},{}]"]).await;
    assert_eq!(rig.query("SELECT count(*) FROM feed.t").await, ["3"]);
    assert_eq!(rig.columns().await, ["_extra jsonb"]);
}
