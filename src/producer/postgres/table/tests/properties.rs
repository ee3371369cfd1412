//! What holds for whatever comes: no bytes make any mapping panic, what is JSON is decided as others decide it, names never meet.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::super::encode::Encoder;
use super::super::keys::Keys;
use super::super::name::{column_name, comment, key_of_column, key_of_comment};
use super::super::record::Scanned;
use super::super::walk::Rejection;
use super::super::*;
use super::{ALL, encode, fields, layout, table};
use crate::record::Timestamp;

/// So many cases, times what the environment says.
fn cases(usual: u32) -> u32 {
    let times = std::env::var("SOCKET_EL_CASES").ok();
    times.map_or(usual, |times| usual.saturating_mul(times.parse().unwrap()))
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
