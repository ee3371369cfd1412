//! What needs no database: any bytes give sound tuples or a reason, names never merge, and the DDL reads as meant.

mod properties;

use super::encode::Encoder;
use super::keys::Keys;
use super::name::{literal, quoted};
use super::record::Scanned;
use super::*;
use crate::record::Timestamp;

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
