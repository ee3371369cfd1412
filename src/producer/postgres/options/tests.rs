use super::super::table::{
    Condition, ConflictAction, DeclaredColumn, Include, NewKeys, Nul, Numbers, OnConflict, Path, Scalar,
};
use super::*;
use crate::config::Variables;

fn read(text: &str) -> Result<Option<PostgresOptions>, String> {
    Section::read_text(text, &Variables::default(), |section| {
        PostgresOptions::read(section, "sink")
    })
    .map_err(|error| error.to_string())
}

/// The only table of a stage.
fn table(options: &PostgresOptions) -> String {
    let mut tables = options.for_stage("public", "binance").unwrap().tables;
    assert_eq!(tables.len(), 1);
    tables.remove(0).table
}

#[test]
fn the_table_is_the_stages_name_unless_the_configuration_names_one() {
    let options = read("metadata: true").unwrap().unwrap();
    assert_eq!(
        (table(&options), options.routes[0].mapping.metadata),
        ("binance".to_owned(), true)
    );
    let options = read("table: raw_{stage}_v2").unwrap().unwrap();
    assert_eq!(table(&options), "raw_binance_v2");
    let options = read("table: \"{producer}_{stage}\"").unwrap().unwrap();
    assert_eq!(table(&options), "sink_binance");
    let options = read("table: trades").unwrap().unwrap();
    assert_eq!(
        (table(&options), options.routes[0].mapping.metadata),
        ("trades".to_owned(), false)
    );
}

#[test]
fn a_table_that_can_not_be_meant_and_a_key_that_there_is_not_are_refused() {
    for (text, complaint) in [
        ("table: \"\"", "name of a table"),
        ("table: \"{consumer}\"", "no other braces"),
        ("table: _socket_el_cursor", "own tables"),
        (
            "table: market.trades",
            "must not hold a dot: all tables stand in the schema that the profile names",
        ),
        ("batches: {}", "unknown key"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}

#[test]
fn the_share_of_refused_messages_is_read_with_its_sign() {
    let limit = |text| read(text).unwrap().unwrap().poison_limit;
    assert_eq!(limit("metadata: true"), Percent::of(10));
    assert_eq!(limit("poison_limit: 0%"), Percent::of(0));
    assert_eq!(limit("poison_limit: 2.5%").part_of(1_000), 25);
    for text in ["poison_limit: 10", "poison_limit: 101%", "poison_limit: many"] {
        let error = read(text).unwrap_err();
        assert!(
            error.contains("poison_limit: expected a share from 0% to 100%"),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_size_of_a_transaction_is_read_and_has_limits() {
    let batch = |text| read(text).unwrap().unwrap().batch;
    assert_eq!(batch("metadata: true"), Batching::default());
    let interval = std::time::Duration::from_millis(250);
    assert_eq!(
        batch("batch: { rows: 500, bytes: 1MiB, interval: 250ms }"),
        Batching {
            rows: 500,
            bytes: 1 << 20,
            interval
        }
    );
    for (text, complaint) in [
        ("batch: { rows: 0 }", "batch.rows: must be from 1 to 200000"),
        ("batch: { rows: 200001 }", "batch.rows: must be from 1"),
        (
            "batch: { bytes: 1KiB }",
            "batch.bytes: must be from 64KiB to 256MiB",
        ),
        (
            "batch: { interval: 61s }",
            "config.yml:1:20: batch.interval: must be at most 1m",
        ),
        ("batch: { interval: 5 }", "lacks its unit"),
        ("batch: { row: 5 }", "did you mean `rows`"),
        ("batch: 5", "expected a mapping"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}

#[test]
fn every_key_of_the_mapping_is_read() {
    let options = read(
            "records: $.data[*]\ninclude: { stream: $.stream }\n\
             when: { $.type: [match, 'ticker'], \"$['x'][0]\": [1.50, true, null, 'null'] }\n\
             columns:\n  price: numeric\n  time: { path: $.T, type: timestamptz(ms) }\n  p: { path: '$[2][3]' }\n\
             new_keys: discard\nnumbers: numeric\nnul: strip\nmax_columns: 20\nmetadata: true\n\
             on_conflict: { key: [time, _offset], action: update }",
        )
        .unwrap()
        .unwrap();
    let path = |text: &str| text.parse::<Path>().unwrap();
    let column = |name: &str, at: Option<&str>, column_type: Option<&str>| DeclaredColumn {
        name: name.to_owned(),
        path: at.map(path),
        column_type: column_type.map(|text| text.parse().unwrap()),
    };
    let text = |text: &str| Scalar::Text(text.to_owned());
    let values = vec![
        Scalar::number("1.50").unwrap(),
        Scalar::Bool(true),
        Scalar::Null,
        text("null"),
    ];
    let condition = |at: &str, values| Condition {
        path: path(at),
        values,
    };
    assert_eq!(
        options.when.0,
        [
            condition("$.type", vec![text("match"), text("ticker")]),
            condition("$.x[0]", values)
        ]
    );
    let expected = Mapping {
        raw: false,
        records: path("$.data[*]"),
        include: vec![Include {
            name: "stream".to_owned(),
            path: path("$.stream"),
        }],
        columns: vec![
            column("price", None, Some("numeric")),
            column("time", Some("$.T"), Some("timestamptz(ms)")),
            column("p", Some("$[2][3]"), None),
        ],
        new_keys: NewKeys::Discard,
        numbers: Numbers::Numeric,
        metadata: true,
        max_columns: 20,
        nul: Nul::Strip,
        on_conflict: Some(OnConflict {
            key: vec!["time".to_owned(), "_offset".to_owned()],
            action: ConflictAction::Update,
        }),
    };
    assert_eq!(options.routes[0].mapping, expected);
}

#[test]
fn a_mistake_in_the_mapping_is_reported_at_its_character() {
    for (text, complaint) in [
        (
            "records: $.data[x]",
            "config.yml:1:17: records: expected a number",
        ),
        (
            "records: '$.data['",
            "config.yml:1:18: records: expected a number",
        ),
        (
            "include: { stream: '$.a[*]' }",
            "config.yml:1:20: include.stream: must name a single value",
        ),
        ("include: { a: null }", "include.a: needs the path"),
        (
            "columns: { price: numerics }",
            "config.yml:1:19: columns.price: unknown type `numerics`",
        ),
        (
            "columns: { p: { path: $., type: text } }",
            "config.yml:1:25: columns.p.path: expected a key",
        ),
        ("columns: { p: { typ: text } }", "did you mean `type`"),
        ("columns: { '': text }", "must be the name of a column"),
        (
            "columns: { b: {} }",
            "config.yml:1:15: columns.b: needs its type, or { path: …, type: … }",
        ),
        ("columns: { b: { path: null } }", "columns.b: needs its type"),
        (
            "columns: { a: text, p: numeric(20,8) }",
            "config.yml:1:24: columns.p: is cut at the comma, for in {…} a comma begins the next key. Put it into quotes: 'numeric(20,8)'",
        ),
        (
            "columns: { p: { path: $.x, type: numeric(20, 8) } }",
            "config.yml:1:34: columns.p.type: is cut at the comma",
        ),
        (
            "columns: { p: numeric(20 }",
            "columns.p: unknown type `numeric(20`",
        ),
        (
            "columns: { p: float }",
            "unknown type `float`; did you mean `double precision`? Known are boolean,",
        ),
        (
            "max_columns: 1\ncolumns: { a: text, b: text }",
            "config.yml:1:14: max_columns: there are 2 columns that",
        ),
        (
            "when: { $.type.: x }",
            "config.yml:1:16: when.$.type.: expected a key",
        ),
        (
            "when: { '$.a b': x }",
            "config.yml:1:13: when.$.a b: expected . or [",
        ),
        (
            "when: { $.type: { a: 1 } }",
            "config.yml:1:17: when.$.type: expected a single value",
        ),
        ("when: { $.type: [] }", "expected a single value, or a list"),
        ("new_keys: keep", "unknown value `keep`"),
        ("max_columns: 0", "must be from 1 to 1500"),
        (
            "mapping: raw\nrecords: $.data",
            "has no meaning with `mapping: raw`",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}

#[test]
fn a_route_has_the_producers_keys_but_for_its_own_and_adds_to_what_is_listed_by_name() {
    let options = read(
            "when: { $.a: 1 }\ntable: rest\nnumbers: numeric\nrecords: $.data\nnew_keys: discard\nmetadata: true\n\
             include: { at: $.at }\ncolumns: { p: numeric, q: text }\non_conflict: { key: [p], action: ignore }\n\
             routes:\n  - { when: { $.t: x }, table: x, records: $, numbers: double, columns: { q: { path: $.r }, s: jsonb } }\n  \
             - { mapping: raw, on_conflict: { key: [offset], action: ignore } }",
        )
        .unwrap()
        .unwrap();
    let [one, rest] = options.routes.as_slice() else {
        panic!("{options:?}");
    };
    assert_eq!(
        (options.when.0.len(), one.when.0.len(), rest.when.0.len()),
        (1, 1, 0)
    );
    assert_eq!((one.table.as_str(), rest.table.as_str()), ("x", "rest"));
    assert!(one.mapping.records.steps().is_empty() && one.mapping.metadata);
    assert_eq!(
        (one.mapping.numbers, one.mapping.new_keys),
        (Numbers::Double, NewKeys::Discard)
    );
    let columns: Vec<_> = one
        .mapping
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(columns, ["p", "q", "s"]);
    assert!(one.mapping.columns[1].path.is_some() && one.mapping.columns[1].column_type.is_none());
    assert_eq!(one.mapping.include.len(), 1);
    // What it would have no meaning for is not handed down.
    let raw = Mapping {
        raw: true,
        metadata: true,
        on_conflict: Some(OnConflict {
            key: vec!["offset".to_owned()],
            action: ConflictAction::Ignore,
        }),
        ..Mapping::default()
    };
    assert_eq!(rest.mapping, raw);
}

#[test]
fn routes_and_keys_that_can_not_work_together_are_reported_at_their_place() {
    for (text, complaint) in [
        ("routes: []", "config.yml:1:9: routes: must be from 1 to 64"),
        ("routes: {}", "expected a list"),
        ("routes: [1]", "config.yml:1:10: routes[0]: expected a mapping"),
        (
            "routes: [{ tabel: x }]",
            "routes[0].tabel: unknown key; did you mean `table`",
        ),
        (
            "routes: [{ table: _socket_el_x }]",
            "config.yml:1:19: routes[0].table: must not begin",
        ),
        (
            "routes: [{ columns: { p: numerics } }]",
            "routes[0].columns.p: unknown type",
        ),
        (
            "routes: [{ table: a }, { when: { $.a: 1 }, table: b }]",
            "config.yml:1:10: routes[0].when: is missing",
        ),
        (
            "routes: [{ when: { $.a: 1 }, table: a }, { when: { $.a: 1 }, table: b }]",
            "config.yml:1:50: routes[1].when: gets no message: routes[0] takes all that match it",
        ),
        (
            "routes: [{ when: { $.a: [1, 2], $.b: x }, table: a }, { when: { '$[''b'']': x, $.c: 1, $.a: 1.0 }, table: b }]",
            "routes[1].when: gets no message: routes[0] takes all that match it",
        ),
        (
            "when: { $.a: 1 }\nroutes: [{ when: { $.a: [1, 2] }, table: a }, { table: b }]",
            "routes[1].when: gets no message: routes[0] takes all that match it",
        ),
        (
            "when: { $.a: 1 }\nroutes: [{ when: { $.a: [2, '1'] }, table: a }, { table: b }]",
            "routes[0].when: gets no message: the `when` beside `routes` lets none through that matches it",
        ),
        (
            "routes: [{ when: { $.a: 1 }, table: t }, { table: t, records: $.x }]",
            ": routes[1].table: is that of a route before, which differs in more than `when`",
        ),
        (
            "table: x\nroutes: [{ when: { $.a: 1 }, table: a }, { table: b }]",
            "config.yml:1:8: table: is not used",
        ),
        (
            "mapping: raw\nroutes: [{ columns: { p: numeric } }]",
            "config.yml:2:21: routes[0].columns: has no meaning with `mapping: raw`",
        ),
        ("on_conflict: { key: [a] }", "on_conflict.action: is missing"),
        ("on_conflict: { action: update }", "on_conflict.key: is missing"),
        (
            "on_conflict: { key: a, action: update }",
            "on_conflict.key: expected",
        ),
        (
            "on_conflict: { key: [a], action: merge }",
            "on_conflict.action: unknown value `merge`",
        ),
        (
            "on_conflict: { key: [], action: update }",
            "needs one to 32 columns",
        ),
        (
            "on_conflict: { key: [a, a], action: update }",
            "\"a\" in `key` stands twice",
        ),
        (
            "on_conflict: { key: [''], action: update }",
            "must be the name of a column",
        ),
        (
            "columns: { o: json }\non_conflict: { key: [o], action: update }",
            "\"o\" in `key` is of type json, whose values can't be compared; jsonb can",
        ),
        (
            "on_conflict: { key: [_offset], action: update }",
            "\"_offset\" in `key` is a column only with `metadata: true`",
        ),
        (
            "on_conflict: { key: [_extra], action: update }",
            "can't be of a key",
        ),
        (
            "mapping: raw\non_conflict: { key: [s], action: update }",
            "\"s\" in `key` is no column with `mapping: raw`",
        ),
        (
            "on_conflict: { key: [s], action: update }\nroutes: [{ mapping: raw }]",
            "routes[0].on_conflict: \"s\" in `key` is no column",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(complaint), "{text}: {error}");
        assert!(
            error.lines().count() == 1 || text == "routes: [1]",
            "{text}: {error}"
        );
    }
}

#[test]
fn columns_that_are_named_count_and_must_have_room() {
    let fits = "max_columns: 4\nmetadata: true\ncolumns: { a: text }";
    assert!(read(fits).is_ok());
    for text in [
        "max_columns: 4\nmetadata: true\ncolumns: { a: text }\ninclude: { b: $.b }",
        "max_columns: 4\nmetadata: true\ncolumns: { a: text }\non_conflict: { key: [k], action: update }",
        "max_columns: 4\nmetadata: true\nroutes: [{ columns: { a: text, b: text } }]",
    ] {
        let error = read(text).unwrap_err();
        assert!(
            error.contains("5 columns that `columns`, `include`, `on_conflict` and `metadata` name"),
            "{text}: {error}"
        );
    }
    let same = "max_columns: 1\ncolumns: { a: text }\ninclude: { a: $.b }\non_conflict: { key: [a], action: update }";
    assert!(read(same).is_ok(), "one column, named three times");
}

#[test]
fn routes_that_may_still_get_messages_are_taken() {
    for text in [
        "routes: [{ when: { $.a: 1 }, table: a }, { when: { $.a: [1, 2] }, table: b }]",
        "routes: [{ when: { $.a: 1, $.b: 1 }, table: a }, { when: { $.a: 1 }, table: b }]",
        "routes: [{ when: { $.a: 1 }, table: a }, { when: { $.a: '1' }, table: b }]",
        "when: { $.a: [1, 2] }\nroutes: [{ when: { $.a: [1, 3] }, table: a }, { table: b }]",
    ] {
        assert!(read(text).is_ok(), "{text}");
    }
}

#[test]
fn other_tables_take_the_names_of_their_own() {
    let one = read("table: \"raw_{stage}\"").unwrap().unwrap();
    assert_eq!(table(&one.into_table("again").unwrap()), "again");
    assert_eq!(table(&one.into_table("{table}_v2").unwrap()), "raw_binance_v2");
    let two = read("routes: [{ when: { $.a: 1 }, table: a }, {}]")
        .unwrap()
        .unwrap();
    let into = two
        .into_table("x_{table}")
        .unwrap()
        .for_stage("public", "s")
        .unwrap();
    let names: Vec<_> = into.tables.iter().map(|table| table.table.as_str()).collect();
    assert_eq!(names, ["x_a", "x_s"]);
    for (options, wrong) in [
        (&two, "again"),
        (&one, "{stage}"),
        (&one, "_socket_el_x"),
        (&one, "a.b"),
        (&one, ""),
    ] {
        assert!(options.into_table(wrong).is_err(), "{wrong}");
    }
}
