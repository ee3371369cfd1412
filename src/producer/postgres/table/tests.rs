//! What needs no database: any bytes give sound tuples or a reason, names never merge, and the DDL reads as meant.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::encode::Encoder;
use super::keys::Keys;
use super::name::{column_name, comment, key_of_column, key_of_comment, literal, quoted};
use super::record::Scanned;
use super::walk::Rejection;
use super::*;
use crate::record::Timestamp;

/// So many cases, times what the environment says.
fn cases(usual: u32) -> u32 {
    let times = std::env::var("SOCKET_EL_CASES").ok();
    times.map_or(usual, |times| usual.saturating_mul(times.parse().unwrap()))
}

/// A stage with one table.
fn router(mapping: Mapping) -> Router {
    Router::new(RouterOptions::single("feed", "websocket_1", "t", mapping))
}

/// A table with a column `a`, `b` … for each of these and `_extra` and `_message`.
fn table(encoders: &[Encoder]) -> Router {
    let mut router = router(Mapping::default());
    router.tables_mut()[0].take(layout(encoders)).unwrap();
    router
}

/// Columns `a`, `b` … for each of these and `_extra` and `_message`.
fn layout(encoders: &[Encoder]) -> Layout {
    let names: Vec<_> = ('a'..).take(encoders.len()).map(String::from).collect();
    let mut columns: Vec<_> = names
        .iter()
        .map(String::as_str)
        .zip(encoders.iter().cloned())
        .collect();
    columns.push((name::MESSAGE, Encoder::Jsonb));
    columns.push((name::EXTRA, Encoder::Jsonb));
    Layout::of(&columns)
}

const ALL: [Encoder; 21] = [
    Encoder::Bool,
    Encoder::Int2,
    Encoder::Int4,
    Encoder::Int8,
    Encoder::Float4,
    Encoder::Float8,
    Encoder::Numeric { limit: None },
    Encoder::Numeric { limit: Some((5, 2)) },
    Encoder::Text {
        most: Some(3),
        any: true,
    },
    Encoder::Label,
    Encoder::Json,
    Encoder::Jsonb,
    Encoder::Timestamptz { unit: None },
    Encoder::Timestamp {
        unit: Some(EpochUnit::Millis),
    },
    Encoder::Time,
    Encoder::Cidr,
    Encoder::Bytea { base64: true },
    Encoder::Date,
    Encoder::Uuid,
    Encoder::Inet,
    Encoder::Bytea { base64: false },
];

fn encode(router: &mut Router, payload: &[u8], rows: &mut CopyRows) -> Encoded {
    let message = Message {
        payload,
        received_at: Timestamp::from_micros(0),
    };
    router.encode(Offset::new(7), message, std::slice::from_mut(rows))
}

fn reason(payload: &[u8]) -> String {
    match encode(&mut table(&[]), payload, &mut CopyRows::new()) {
        Encoded::DeadLetter { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// The fields of a tuple; `None` is NULL.
fn fields(mut tuple: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut take = |length: usize| {
        let (taken, rest) = tuple.split_at(length);
        tuple = rest;
        taken.to_vec()
    };
    let count = u16::from_be_bytes(take(2).try_into().unwrap());
    let fields = (0..count).map(|_| {
        let length = i32::from_be_bytes(take(4).try_into().unwrap());
        usize::try_from(length).ok().map(&mut take)
    });
    let fields = fields.collect();
    assert!(tuple.is_empty(), "{tuple:?} behind the last field");
    fields
}

/// Text made of what JSON is made of: often valid, often just not.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        proptest::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "null",
            "true",
            "false",
            " ",
            "\"a\"",
            "\"b\"",
            "\"\\u0000\"",
            "0",
            "-1",
            "1.5",
            "1e3",
            "1E-400",
            "-",
            "01",
            "1.",
            ".5",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\x\"",
            "\"\n\"",
            "\"a\":",
            "\"b\":1,",
            "{\"a\":1}",
            "[[",
            "]]",
            "\"\\\\\\\"\"",
            "nul",
            "\u{e9}",
            "\"\u{e9}\"",
        ])
        .prop_map(str::to_owned),
        "[0-9.eE+-]{1,6}",
    ];
    let value = prop_oneof![token.clone(), "-?[01]{1,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?"];
    prop_oneof![
        proptest::collection::vec(token.clone(), 0..12).prop_map(|tokens| tokens.concat()),
        value.prop_map(|value| format!("{{\"a\":{value}}}")),
        json_object(),
        // A valid object in which one character gives way to something else.
        (json_object(), any::<proptest::sample::Index>(), token).prop_map(|(object, index, token)| {
            let mut characters: Vec<_> = object.chars().map(String::from).collect();
            let index = index.index(characters.len());
            characters[index] = token;
            characters.concat()
        }),
    ]
}

/// A valid object with the columns' keys and values of every kind.
fn json_object() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("JSON has no such number", |value| value.is_finite())
            .prop_map(|value| format!("{value:e}")),
        any::<String>().prop_map(|value| serde_json::Value::from(value).to_string()),
        "\"[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9](:[0-9]{2}(\\.[0-9]{0,10})?)?(Z|[+-][0-9:]{2,5})?\"",
        "\"(\\\\\\\\x)?[0-9a-f:./-]{0,36}\"",
    ];
    let value = scalar.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| format!("[{}]", values.join(","))),
            inner.prop_map(|value| format!("{{\"x\" : {value}}}")),
        ]
    });
    let field = ("[a-w]", value).prop_map(|(key, value)| format!("\"{key}\":{value}"));
    proptest::collection::vec(field, 0..20).prop_map(|fields| format!("{{{}}}", fields.join(",")))
}

/// A record, or several, in one of the places where mappings look for them.
fn envelope() -> impl Strategy<Value = String> {
    let data = prop_oneof![
        3 => json_object(),
        2 => proptest::collection::vec(json_object(), 0..4).prop_map(|records| format!("[{}]", records.join(", "))),
        1 => nearly_json(),
    ];
    (data, json_object(), 0..6).prop_map(|(data, beside, place)| match place {
        0 => data,
        1 => format!("{{\"data\":{data},\"beside\":{beside}}}"),
        2 => format!("{{\"a\":{{\"b\":[{beside},{data}]}}}}"),
        3 => format!("[17,{data},{beside}]"),
        4 => format!("[[{data}],[[{beside}]]]"),
        _ => format!("{{\"data\":{data},\"a\":{beside},\"data\":{data}}}"),
    })
}

/// A message in which a few bytes are others, gone, or too many.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<proptest::sample::Index>(), any::<u8>(), 0..4);
    let changes = proptest::collection::vec(change, 1..4);
    (envelope(), changes).prop_map(|(message, changes)| {
        let mut bytes = message.into_bytes();
        for (place, byte, what) in changes {
            if bytes.is_empty() {
                break;
            }
            let place = place.index(bytes.len());
            match what {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                2 => drop(bytes.remove(place)),
                _ => bytes.truncate(place),
            }
        }
        bytes
    })
}

/// Mappings and conditions of every kind.
fn mapping() -> impl Strategy<Value = (Mapping, When)> {
    let path = || {
        proptest::sample::select(vec![
            "$",
            "$.data",
            "$.data[*]",
            "$.a",
            "$.a.b[1]",
            "$[1]",
            "$[*]",
            "$[0]",
            "$[1][0]",
            "$.x",
            "$.data.a",
        ])
        .prop_map(|text| text.parse::<Path>().unwrap())
    };
    let single = move || path().prop_filter("a single value", |path| !path.is_plural());
    let column_type = proptest::sample::select(vec![
        "numeric",
        "timestamptz(ms)",
        "text",
        "jsonb",
        "bigint[]",
        "bytea(base64)",
        "uuid",
        "inet",
        "time[]",
    ])
    .prop_map(|text| text.parse::<ColumnType>().unwrap());
    let column = (
        "[a-w]",
        proptest::option::of(single()),
        proptest::option::of(column_type),
    )
        .prop_map(|(name, path, column_type)| DeclaredColumn {
            name,
            path,
            column_type,
        });
    let include = ("[a-w]|stream", single()).prop_map(|(name, path)| Include { name, path });
    let condition = single().prop_map(|path| Condition {
        path,
        values: vec![Scalar::Null, Scalar::Bool(true), Scalar::Text("x".to_owned())],
    });
    let rules = (
        proptest::sample::select(vec![NewKeys::Evolve, NewKeys::Freeze, NewKeys::Discard]),
        proptest::sample::select(vec![Numbers::Double, Numbers::Numeric]),
        proptest::sample::select(vec![Nul::Replace, Nul::Strip, Nul::DeadLetter]),
        any::<[bool; 3]>(),
        1_usize..40,
    );
    (
        path(),
        proptest::collection::vec(column, 0..5),
        proptest::collection::vec(include, 0..3),
        proptest::option::weighted(0.2, condition),
        rules,
    )
        .prop_map(
            |(
                records,
                columns,
                include,
                when,
                (new_keys, numbers, nul, [raw, metadata, keyed], max_columns),
            )| {
                let mapping = Mapping {
                    raw: raw && columns.is_empty(),
                    records,
                    include,
                    columns,
                    new_keys,
                    numbers,
                    metadata: metadata && max_columns < 4,
                    max_columns,
                    nul,
                    on_conflict: (keyed && max_columns < 9).then(|| OnConflict {
                        key: vec!["a".to_owned(), "d".to_owned()],
                        action: ConflictAction::Update,
                    }),
                };
                (mapping, When(when.into_iter().collect()))
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_any_mapping_panic_and_tuples_are_sound(
        routes in proptest::collection::vec(mapping(), 1..4),
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            envelope().prop_map(String::into_bytes),
            mutated(),
        ]
    ) {
        let tables = routes.iter().enumerate().map(|(number, (mapping, _))| TableOptions {
            table: format!("t{number}"),
            mapping: mapping.clone(),
        });
        let mut router = Router::new(RouterOptions {
            schema: "feed".to_owned(),
            stage: "websocket_1".to_owned(),
            when: When::default(),
            tables: tables.collect(),
            routes: routes.iter().enumerate().map(|(number, (_, when))| (when.clone(), number)).collect(),
        });
        for table in router.tables_mut() {
            table.take(layout(&ALL)).unwrap();
        }
        let mut rows: Vec<_> = routes.iter().map(|_| CopyRows::new()).collect();
        let message = Message { payload: &payload, received_at: Timestamp::from_micros(0) };
        let encoded = router.encode(Offset::new(7), message, &mut rows);
        let count: usize = rows.iter().map(CopyRows::len).sum();
        match encoded {
            Encoded::Rows(told) => prop_assert_eq!(told as usize, count),
            Encoded::DeadLetter { .. } | Encoded::Ignored => prop_assert_eq!(count, 0),
            Encoded::NeedsSchema => {
                prop_assert_eq!(count, 0);
                let changes: Vec<_> = router.tables().iter().filter_map(Table::wanted_change).collect();
                prop_assert!(changes.iter().any(|change| !change.to_string().is_empty()));
            }
        }
        prop_assert!(rows.iter().filter(|rows| !rows.is_empty()).count() <= 1, "one message, one table");
        for row in rows.iter().flat_map(CopyRows::iter) {
            prop_assert_eq!(fields(row.bytes).len(), ALL.len() + 2);
        }
    }

    #[test]
    fn any_bytes_are_encoded_or_refused_and_tuples_are_sound(
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            nearly_json().prop_map(String::into_bytes),
        ]
    ) {
        let mut table = table(&ALL);
        let mut rows = CopyRows::new();
        match encode(&mut table, &payload, &mut rows) {
            Encoded::Rows(count) => prop_assert_eq!(count as usize, rows.len()),
            Encoded::DeadLetter { .. } => prop_assert!(rows.is_empty()),
            Encoded::Ignored => prop_assert!(false, "nothing is left out without being told"),
            Encoded::NeedsSchema => {
                prop_assert!(rows.bytes().is_empty());
                prop_assert!(table.tables()[0].wanted_change().is_some());
            }
        }
        for row in rows.iter() {
            prop_assert_eq!(fields(row.bytes).len(), ALL.len() + 2);
        }
    }

    #[test]
    fn what_is_json_is_decided_as_others_decide_it(text in nearly_json()) {
        let others: Result<IgnoredAny, _> = serde_json::from_str(&text);
        let (mut keys, mut scanned) = (Keys::default(), Scanned::default());
        let ours = scanned.read(&mut keys, text.as_bytes(), Nul::Replace).map(drop).map_err(|error| *error);
        let fields = format!("{scanned:?}");
        // The second time its keys are known.
        let again = scanned.read(&mut keys, text.as_bytes(), Nul::Replace).map(drop).map_err(|error| *error);
        prop_assert_eq!(&ours, &again);
        let fields_again = format!("{scanned:?}");
        prop_assert!(ours.is_err() || fields == fields_again);
        match ours {
            Ok(()) => prop_assert!(others.is_ok(), "{}", text),
            Err(Rejection::Empty | Rejection::NotJson { .. }) => prop_assert!(others.is_err(), "{}", text),
            // Others refuse these only when they read what the string means.
            Err(Rejection::LoneSurrogate { .. }) => {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_err(), "{}", text);
            }
            Err(Rejection::HugeNumber { .. }) => prop_assert!(text.contains(['e', 'E']), "{}", text),
            Err(Rejection::TooDeep { .. }) => prop_assert!(text.matches(['[', '{']).count() > 128, "{}", text),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn every_string_arrives_as_it_was_but_for_nul(text: String, ascii in "[ -~\u{0}-\u{1f}]{0,20}") {
        for text in [text, ascii] {
            let mut table = table(&[Encoder::Text { most: None, any: false }]);
            let mut rows = CopyRows::new();
            let message = serde_json::json!({ "a": text }).to_string();
            prop_assert_eq!(encode(&mut table, message.as_bytes(), &mut rows), Encoded::Rows(1));
            let tuple = fields(rows.get(0).unwrap().bytes);
            let expected = text.replace('\0', "\u{FFFD}").into_bytes();
            prop_assert_eq!(&tuple[0], &Some(expected));
        }
    }

    #[test]
    fn two_short_keys_never_get_one_name(
        one in "_{0,3}(extra|xmin|ctid|message|x)?_{0,3}",
        other in "_{0,3}(extra|xmin|ctid|message|x)?_{0,3}",
    ) {
        prop_assert_eq!(one == other, column_name(&one, 0) == column_name(&other, 0));
        let name = column_name(&one, 0);
        prop_assert_eq!(key_of_column(&name), Some(one.as_str()));
    }

    #[test]
    fn names_fit_and_comments_remember_their_keys(key: String, attempt in 0_u32..3) {
        let name = column_name(&key.repeat(4), attempt);
        prop_assert!(!name.is_empty() && name.len() <= 63);
        prop_assert_eq!(key_of_comment(&comment(&key)), Some(key));
    }
}

#[test]
fn what_can_never_become_a_row_has_its_reason() {
    for (payload, expected) in [
        (&b""[..], "the message is empty"),
        (b"  ", "not JSON: the end where a value was expected at byte 2"),
        (b"hello", "not JSON: expected a value at byte 0"),
        (b"{\"a\":\xff}", "not UTF-8 at byte 5"),
        (
            b"{\"a\":1} x",
            "not JSON: more after the end of the value at byte 8",
        ),
        (b"{\"a\":01}", "not JSON: expected , or } at byte 6"),
        (b"[{\"a\":1},]", "not JSON: expected a value at byte 9"),
        (b"[{},{\"a\":1}", "not JSON: expected , or ] at byte 11"),
        (b"{'a':1}", "not JSON: expected a key in quotes at byte 1"),
        (b"[1,\"\\q\"]", "not JSON: an unknown escape at byte 4"),
        (b"{\"a\":NaN}", "not JSON: expected a value at byte 5"),
        (
            b"[\"\\ud800\"]",
            "a lone surrogate escape at byte 2: PostgreSQL can't keep it as text",
        ),
        (
            b"{\"\\udc00\":1}",
            "a lone surrogate escape at byte 2: PostgreSQL can't keep it as text",
        ),
        (
            b"{\"a\":{\"b\":1e131072}}",
            "a number at byte 10 that PostgreSQL can't keep: over 131,072 digits before the point or 16,383 after it",
        ),
    ] {
        assert_eq!(reason(payload), expected, "{}", payload.escape_ascii());
    }
}

#[test]
fn a_hundred_and_twenty_eight_levels_pass_and_one_more_does_not() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    let mut rows = CopyRows::new();
    let mut table = table(&[Encoder::Jsonb]);
    assert_eq!(
        encode(&mut table, nested(128).as_bytes(), &mut rows),
        Encoded::Rows(1)
    );
    assert_eq!(
        reason(nested(129).as_bytes()),
        "objects and arrays nested deeper than 128 at byte 132"
    );
    assert!(reason("[".repeat(100_000).as_bytes()).contains("deeper"));
}

#[test]
fn numbers_at_the_ends_of_what_numeric_holds() {
    let long = "9".repeat(131_072);
    let fine = format!("0.{}", "1".repeat(16_383));
    for (number, fits) in [
        ("1e131071", true),
        ("1e131072", false),
        ("0.001e131074", true),
        ("1e-16383", true),
        ("1e-16384", false),
        ("0e-16384", false),
        ("1e99999999999999999999", false),
        (&long, true),
        (&format!("{long}9"), false),
        (&fine, true),
        (&format!("{fine}1"), false),
    ] {
        let mut scanned = Scanned::default();
        let read = scanned.read(&mut Keys::default(), number.as_bytes(), Nul::Replace);
        assert_eq!(read.is_ok(), fits, "{} …", &number[..number.len().min(30)]);
    }
}

#[test]
fn rows_are_found_and_cut_at_their_bounds() {
    let mut table = table(&[Encoder::Int2]);
    let mut rows = CopyRows::new();
    assert_eq!(
        encode(&mut table, br#"[{"a":1},{"a":"x"},{"a":3}]"#, &mut rows),
        Encoded::Rows(3)
    );
    assert_eq!(rows.extra_values(), 1);
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.offset.get(), row.record_index, row.start))
        .collect();
    assert_eq!(seen, [(7, 0, 0), (7, 1, 16), (7, 2, 40)]);
    assert_eq!(rows.get(1).map(|row| row.bytes), Some(&rows.bytes()[16..40]));
    assert_eq!(
        fields(&rows.bytes()[16..40]),
        [None, None, Some(b"\x01{\"a\":\"x\"}".to_vec())]
    );
    rows.truncate(1);
    assert_eq!((rows.len(), rows.bytes().len(), rows.extra_values()), (1, 16, 0));
    assert_eq!(rows.get(1), None);
}

#[test]
fn a_message_that_the_table_is_not_ready_for_leaves_no_row() {
    let mut table = table(&[Encoder::Int2]);
    let mut rows = CopyRows::new();
    assert_eq!(encode(&mut table, br#"{"a":1}"#, &mut rows), Encoded::Rows(1));
    assert_eq!(
        encode(&mut table, br#"[{"a":1},{"new":"x"}]"#, &mut rows),
        Encoded::NeedsSchema
    );
    assert_eq!(encode(&mut table, br#"{"a":1}"#, &mut rows), Encoded::NeedsSchema);
    assert_eq!(rows.len(), 1);
    assert!(matches!(
        encode(&mut table, b"{", &mut rows),
        Encoded::DeadLetter { .. }
    ));
    let table = &table.tables()[0];
    let change = table.wanted_change().unwrap();
    assert_eq!(
        table.describe(&change),
        r#"ALTER TABLE "feed"."t"
    ADD COLUMN IF NOT EXISTS "new" text;
COMMENT ON COLUMN "feed"."t"."new" IS 'socket-el key: "new"';
"#
    );
}

#[test]
fn the_ddl_of_a_new_table_is_shown_whole() {
    let mut table = router(Mapping {
        metadata: true,
        ..Mapping::default()
    });
    let message = br#"{"s":"x","p":1.5,"it's":true,"n":null}"#;
    assert_eq!(
        encode(&mut table, message, &mut CopyRows::new()),
        Encoded::NeedsSchema
    );
    let change = table.tables()[0].wanted_change().unwrap();
    assert_eq!(
        change.to_string(),
        r#"CREATE TABLE IF NOT EXISTS "feed"."t" (
    _stage text,
    _offset bigint,
    _received_at timestamp with time zone,
    "s" text,
    "p" double precision,
    "it's" boolean
);
COMMENT ON TABLE "feed"."t" IS 'socket-el: made for stage websocket_1, holds its rows from offset 7 on';
COMMENT ON COLUMN "feed"."t"."s" IS 'socket-el key: "s"';
COMMENT ON COLUMN "feed"."t"."p" IS 'socket-el key: "p"';
COMMENT ON COLUMN "feed"."t"."it's" IS 'socket-el key: "it''s"';
"#
    );
}

#[test]
fn names_and_constants_in_sql_can_not_end_early() {
    assert_eq!(quoted("a\"; DROP TABLE x; --"), "\"a\"\"; DROP TABLE x; --\"");
    assert_eq!(literal("it's"), "'it''s'");
    assert_eq!(literal("\\'"), "E'\\\\'''");
}
