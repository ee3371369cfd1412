//! A table in memory is the one that PostgreSQL has after the same messages: columns, types, and rows to the byte.

use socket_el::producer::postgres::table::{CopyRows, Datum, Encoded, MemoryTable};
use socket_el::record::{Message, Offset};

use crate::rig::{Rig, mapped, payload};

fn numbered<'m>(messages: &[&'m str]) -> Vec<(Offset, Message<'m>)> {
    let numbers = (0..).map(Offset::new);
    numbers
        .zip(messages.iter().map(|message| payload(message.as_bytes())))
        .collect()
}

fn memory(keys: &str) -> MemoryTable {
    MemoryTable::new(mapped(keys), "t").unwrap()
}

/// Takes messages into both, so many at a time, and compares the tables `t`. Returns the columns with their types.
async fn compared(keys: &str, deliveries: &[&[&str]]) -> Vec<String> {
    let mut rig = Rig::mapped("", keys).await;
    let mut memory = memory(keys);
    for messages in deliveries {
        rig.deliver_all(messages).await;
        memory.learn(&numbered(messages)).unwrap();
    }
    memory.settle().unwrap();

    let tables = rig.router.tables().iter();
    let place = tables
        .clone()
        .position(|table| table.name_sql() == "\"feed\".\"t\"")
        .unwrap();
    let names = memory.columns().map(|column| column.name.replace('"', "\"\""));
    let listed = format!("(\"{}\"", names.collect::<Vec<_>>().join("\", \""));
    let loading = rig.router.tables()[place].loading();
    assert!(
        loading.copy_sql().contains(&listed),
        "{listed}\n{}",
        loading.copy_sql()
    );
    let typed = memory
        .columns()
        .map(|column| format!("{} {}", column.name, column.column_type.sql()));
    let mut typed: Vec<_> = typed.collect();
    typed.sort();
    let mut in_catalog = rig.columns().await;
    in_catalog.sort();
    assert_eq!(typed, in_catalog, "{keys}");

    for (offset, message) in numbered(&deliveries.concat()) {
        let mut rows: Vec<_> = rig.router.tables().iter().map(|_| CopyRows::new()).collect();
        let outcome = rig.router.encode(offset, message, &mut rows);
        assert_ne!(outcome, Encoded::NeedsSchema, "{keys}");
        // What goes into another table is not for this one.
        let is_elsewhere = matches!(outcome, Encoded::Rows(_)) && rows[place].is_empty();
        let outcome = if is_elsewhere { Encoded::Ignored } else { outcome };
        assert_eq!(memory.encode(offset, message), outcome, "{offset} {keys}");
        assert_eq!(memory.rows().bytes(), rows[place].bytes(), "{offset} {keys}");
    }
    typed
}

#[tokio::test]
async fn without_a_mapping_columns_and_rows_are_those_of_the_table() {
    let long = format!(r#"{{"{}":1,"{}":2}}"#, "k".repeat(70), "k".repeat(71));
    let columns = compared(
        "",
        &[
            &[
                r#"{"e":"trade","E":1618677786614,"price":1,"ok":true,"big":18446744073709551616,"nothing":null}"#,
                r#"[{"e":"x","price":2,"nested":{"a":[1]},"text":"é\n\u0000"},{}]"#,
                r#"{"e":5,"mixed":1,"_extra":1,"xmin":"a","":0}"#,
                r#"{"mixed":"text","mixed":"last counts"}"#,
                "[1,2]",
                "no json",
                "[]",
                "",
                &long,
            ],
            &[
                r#"{"price":0.5,"ok":"true","later":7}"#,
                r#"{"ok":"no bool","later":9007199254740993}"#,
            ],
            &[r#"{"later":1.5}"#, r#"{"wide":1e400,"price":9007199254740993}"#],
        ],
    )
    .await;
    assert!(columns.contains(&"later numeric".to_owned()), "{columns:?}");
    assert!(
        columns.contains(&"price double precision".to_owned()),
        "{columns:?}"
    );
}

#[tokio::test]
async fn with_a_mapping_columns_and_rows_are_those_of_the_table() {
    let book = [
        r#"{"channel":1,"data":[{"price":"1.40","t":1618677786614,"id":"00000000-0000-4000-8000-000000000001","list":[1,null,2.5]}]}"#,
        r#"{"channel":"a","data":[{"price":"x","t":"2021-04-17T16:43:30.244075Z","id":"no","more":1},{"price":-0.00001}]}"#,
        r#"{"channel":2,"data":[],"type":"empty"}"#,
        r#"{"channel":3,"data":{"price":7,"more":2.5,"\u0000":1}}"#,
        r#"{"channel":4}"#,
    ];
    let keys = "records: $.data\ninclude: { channel: $.channel }\nmetadata: true\n\
                columns:\n  price: numeric\n  t: timestamptz(ms)\n  id: uuid\n  list: 'numeric[]'\n  short: varchar(2)\n";
    let columns = compared(keys, &[&book[..1], &book[1..]]).await;
    assert!(columns.contains(&"list numeric[]".to_owned()), "{columns:?}");
    for more in [
        "new_keys: discard",
        "new_keys: freeze",
        "numbers: numeric",
        "nul: strip",
        "max_columns: 10",
    ] {
        compared(&format!("{keys}{more}"), &[&book[..2], &book[2..]]).await;
    }
    compared("mapping: raw", &[&book[..2], &["nonsense", "[[]]"]]).await;
    let arrays =
        "records: $[1]\ncolumns:\n  price: { path: '$[0]', type: 'numeric(8,4)' }\n  rest: { path: '$[1]' }";
    let levels = [
        r#"[17,[[0.0689,3],[1.10,"x"]]]"#,
        "[17,[0.02621,0]]",
        r#"[17,"hb"]"#,
    ];
    compared(arrays, &[&levels]).await;
    compared("when: { $.channel: [1, 3] }", &[&book]).await;
}

#[tokio::test]
async fn of_several_tables_one_is_made_and_rows_need_their_key() {
    let messages = [
        r#"{"kind":"trade","id":1,"price":1}"#,
        r#"{"kind":"quote","bid":2}"#,
        r#"{"kind":"trade","price":2}"#,
        r#"{"kind":"trade","id":1,"price":2.5}"#,
        "no json",
        r#"{"kind":"other"}"#,
    ];
    let routes = "routes:\n  - { when: { $.kind: quote }, table: quotes }\n  \
                  - { when: { $.kind: trade }, table: t, on_conflict: { key: [id], action: update } }";
    let columns = compared(routes, &[&messages[..2], &messages[2..]]).await;
    assert_eq!(columns, ["id bigint", "kind text", "price double precision"]);
}

#[tokio::test]
async fn a_table_that_no_message_has_made_has_the_columns_that_are_known() {
    let names = |keys: &str| {
        let mut memory = memory(keys);
        memory.learn(&numbered(&["nonsense", r#"{"data":[]}"#])).unwrap();
        memory.settle().unwrap();
        let names = memory.columns().map(|column| column.name);
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("records: $.data"), ["_extra"]);
    assert_eq!(
        names("records: $.data\nmetadata: true\ncolumns: { price: numeric }"),
        ["_stage", "_offset", "_received_at", "price"]
    );
    let error = MemoryTable::new(mapped("new_keys: freeze"), "t").unwrap_err();
    assert!(error.to_string().contains("declare its columns"), "{error}");
}

#[tokio::test]
async fn numbers_without_a_declared_size_are_measured() {
    let mut memory = memory("columns: { price: numeric, lots: 'numeric[]' }");
    let messages = [
        r#"{"price":"1.40","lots":[12,0.125],"seq":12345}"#,
        r#"{"price":"660.5","lots":null,"seq":-9}"#,
        r#"{"price":"0.00001306"}"#,
    ];
    memory.learn(&numbered(&messages)).unwrap();
    let digits: Vec<_> = memory
        .columns()
        .map(|column| (column.name, column.digits.before, column.digits.after))
        .collect();
    let expected = [("price", 3, 8), ("lots", 2, 3), ("seq", 5, 0)];
    assert_eq!(
        digits,
        expected.map(|(name, before, after)| (name.to_owned(), before, after))
    );
    memory.encode(Offset::ZERO, payload(messages[0].as_bytes()));
    let row = memory.rows().get(0).unwrap();
    let datums: Vec<_> = memory.datums(row).map(Result::unwrap).collect();
    assert!(
        matches!(&datums[..], [Datum::Numeric(price), Datum::List(lots), Datum::Integer(12345)]
            if price.to_string() == "1.40" && lots.len() == 2),
        "{datums:?}"
    );
}

#[tokio::test]
async fn a_column_that_becomes_numeric_is_measured_anew() {
    let mut memory = memory("numbers: numeric");
    let deliveries = [
        &[r#"{"x":1}"#, r#"{"x":2}"#, r#"{"x":"1.23456"}"#][..],
        &[r#"{"x":25.5}"#],
    ];
    let digits = |memory: &MemoryTable| {
        let x = memory.columns().next().unwrap();
        (x.column_type.sql(), x.digits.before, x.digits.after)
    };
    for messages in deliveries {
        memory.learn(&numbered(messages)).unwrap();
    }
    // The text did not fit while the column was a bigint, and does now.
    assert!(!memory.is_measured());
    assert_eq!(digits(&memory), ("numeric".to_owned(), 2, 1));
    memory.learn_again();
    for messages in deliveries {
        memory.learn(&numbered(messages)).unwrap();
    }
    assert!(memory.is_measured());
    assert_eq!(digits(&memory), ("numeric".to_owned(), 2, 5));
}
