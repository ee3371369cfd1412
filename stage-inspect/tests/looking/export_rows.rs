//! `export --format csv|parquet`: messages as rows. What columns and rows they are is proved against the sink itself, in the
//! end-to-end tests.

use super::rig::*;

/// Messages with everything that is no plain row.
const MIXED: [&str; 8] = [
    r#"{"price":1.50,"note":"a, \"b\"\nc","seq":1}"#,
    r#"[{"price":2,"note":"","seq":2},{"price":null,"seq":3,"nested":{"a":[1.0]}}]"#,
    r#"{"price":"no number","seq":4,"time":"2021-04-17T16:43:30Z"}"#,
    "no json",
    "[1,2]",
    "",
    "[]",
    r#"{"price":-12.5,"big":123456789012345678901234567890}"#,
];

/// What they are as CSV, as a table in PostgreSQL would hold them.
const AS_CSV: &str = "\
price,note,seq,nested,time,big,_message,_extra
1.5,\"a, \"\"b\"\"\nc\",1,,,,,
2.0,\"\",2,,,,,
,,3,\"{\"\"a\"\":[1.0]}\",,,,
,,4,,2021-04-17T16:43:30Z,,,\"{\"\"price\"\":\"\"no number\"\"}\"
,,,,,,\"[1,2]\",
,,,,,,[],
-12.5,,,,,123456789012345678901234567890,,
";

async fn mixed() -> Rig {
    let rig = Rig::new();
    let local = rig.open();
    append_payloads(&stage(&local), 0, MIXED.iter().map(|text| text.as_bytes())).await;
    local.close().unwrap();
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_become_rows_of_csv_and_what_is_no_row_is_said() {
    let rig = mixed().await;
    let done = rig.run(&["export", STAGE, "--format", "csv", "-o", "-"]);
    assert_eq!(done.text(), AS_CSV);
    for words in [
        "exported 8 messages of trades as 7 rows to the standard output\n",
        "2 of the messages are left out, for they would be dead letters; the first, offset 3: not JSON: ",
        "1 values fit no column and stand in _extra\n",
    ] {
        assert!(done.stderr.contains(words), "{words}{done:?}");
    }
    let out = rig.dir.path().join("rows.csv");
    let name = out.to_str().unwrap();
    let told = rig
        .run(&["export", STAGE, "--format", "csv", "-o", name, "--json"])
        .json();
    assert_eq!(std::fs::read_to_string(&out).unwrap(), AS_CSV);
    let reason = told["first_left_out"]["reason"].clone();
    let expected = serde_json::json!({
        "messages": 8, "missing": 0, "rows": 7, "ignored": 0, "left_out": 2,
        "first_left_out": { "offset": 3, "reason": reason },
        "extra_values": 1, "discarded_values": 0,
    });
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_and_the_columns_of_metadata_are_exported_as_asked() {
    let rig = Rig::with_batches(16).await;
    let arguments = [
        "export",
        STAGE,
        "--format",
        "csv",
        "--metadata",
        "--from",
        "41",
        "--to",
        "43",
        "-o",
        "-",
    ];
    let pad = ".".repeat(960);
    let line =
        |number: u64| format!("trades,{number},2026-11-24T00:00:{number}.000000Z,{number},1.5,{pad}\n");
    let expected = format!(
        "_stage,_offset,_received_at,seq,price,pad\n{}{}",
        line(41),
        line(42)
    );
    assert_eq!(rig.run(&arguments).text(), expected);
    let none = rig.run(&["export", STAGE, "--format", "csv", "--from", "160", "-o", "-"]);
    assert_eq!(none.text(), "_extra\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_meant_is_refused_before_anything_is_written() {
    let rig = mixed().await;
    let out = rig.dir.path().join("out");
    let name = out.to_str().unwrap();
    rig.run(&["export", STAGE, "--metadata", "-o", name])
        .refused(2, "with --format csv or parquet");
    rig.run(&["export", STAGE, "--format", "parquet", "-o", "-"])
        .refused(2, "Name a file with -o");
    rig.run(&[
        "export",
        STAGE,
        "--format",
        "csv",
        "--producer",
        "postgres",
        "-o",
        name,
    ])
    .refused(2, "needs the configuration");
    if cfg!(not(feature = "parquet")) {
        rig.run(&["export", STAGE, "--format", "parquet", "-o", name])
            .refused(2, "--features stage-inspect/parquet");
    }
    let left: Vec<_> = std::fs::read_dir(rig.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["tmp"]);
}

#[cfg(feature = "parquet")]
mod as_parquet {
    use ::parquet::file::reader::SerializedFileReader;
    use ::parquet::record::Field;

    use super::*;

    /// Compares a file with the messages that it was made of, value by value.
    fn holds(path: &std::path::Path, messages: u64) {
        let rows = SerializedFileReader::try_from(path).unwrap();
        let mut count = 0;
        for (row, number) in rows.into_iter().zip(0..) {
            let row = row.unwrap();
            let source: serde_json::Value = serde_json::from_str(&payload(number)).unwrap();
            let fields: Vec<_> = row.get_column_iter().collect();
            let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(
                names,
                ["_stage", "_offset", "_received_at", "seq", "price", "pad"]
            );
            let long = |number: u64| Field::Long(i64::try_from(number).unwrap());
            let expected = [
                Field::Str(STAGE.to_owned()),
                long(number),
                Field::TimestampMicros(received(number).micros()),
                long(source["seq"].as_u64().unwrap()),
                Field::Double(source["price"].as_f64().unwrap()),
                Field::Str(source["pad"].as_str().unwrap().to_owned()),
            ];
            assert!(
                fields.iter().map(|(_, field)| *field).eq(&expected),
                "{number}: {row}"
            );
            count += 1;
        }
        assert_eq!(count, messages);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_message_is_a_row_of_typed_values_in_a_file_that_is_whole_or_not_there() {
        let rig = Rig::with_batches(16).await;
        let out = rig.dir.path().join("trades.parquet");
        let name = out.to_str().unwrap();
        let arguments = ["export", STAGE, "--format", "parquet", "--metadata", "-o", name];
        let done = rig.run(&arguments);
        assert!(
            done.stderr
                .contains("exported 160 messages of trades as 160 rows"),
            "{done:?}"
        );
        holds(&out, 160);
        rig.run(&arguments).refused(2, "--force replaces it");
        let done = rig.run(&[&arguments[..], &["--force", "--json"]].concat());
        assert_eq!((done.json()["rows"].as_u64(), done.code), (Some(160), 0));
        holds(&out, 160);
        let mut left: Vec<_> = std::fs::read_dir(rig.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["tmp", "trades.parquet"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_of_mixed_messages_hold_what_csv_holds() {
        let rig = mixed().await;
        let out = rig.dir.path().join("mixed.parquet");
        let done = rig.run(&[
            "export",
            STAGE,
            "--format",
            "parquet",
            "-o",
            out.to_str().unwrap(),
        ]);
        assert_eq!(done.code, 0, "{done:?}");
        let rows = SerializedFileReader::try_from(out.as_path()).unwrap().into_iter();
        let rows: Vec<_> = rows.map(|row| row.unwrap().to_string()).collect();
        let null = |text: &str| text.replace('~', "null");
        let expected = [
            r#"{price: 1.5, note: "a, "b"\nc", seq: 1, nested: ~, time: ~, big: ~, _message: ~, _extra: ~}"#,
            r#"{price: 2.0, note: "", seq: 2, nested: ~, time: ~, big: ~, _message: ~, _extra: ~}"#,
            r#"{price: ~, note: ~, seq: 3, nested: "{"a":[1.0]}", time: ~, big: ~, _message: ~, _extra: ~}"#,
            r#"{price: ~, note: ~, seq: 4, nested: ~, time: "2021-04-17T16:43:30Z", big: ~, _message: ~, _extra: "{"price":"no number"}"}"#,
            r#"{price: ~, note: ~, seq: ~, nested: ~, time: ~, big: ~, _message: "[1,2]", _extra: ~}"#,
            r#"{price: ~, note: ~, seq: ~, nested: ~, time: ~, big: ~, _message: "[]", _extra: ~}"#,
            r#"{price: -1.25E1, note: ~, seq: ~, nested: ~, time: ~, big: 123456789012345678901234567890., _message: ~, _extra: ~}"#,
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|row| null(row).replace("\\n", "\n"))
            .collect();
        assert_eq!(rows, expected);
    }
}
