//! Any JSON at all: what is read back is what was sent, in its column, in `_extra` or in `_message`, or it is a dead letter
//! with its reason. Nothing is lost, and nothing changes but `\u0000`,
//! what `double precision` rounds, and strings of numbers in columns of numbers.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::rig::Rig;

/// Rounds of messages; the table changes between them as their keys and types do.
const ROUNDS: usize = 6;
const MESSAGES: usize = 250;

/// A string's inside as JSON writes it: plain, escaped, NUL, pairs of surrogates and lone ones.
fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        60 => any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        20 => "\"[0-9]{1,3}(\\.[0-9]{1,9})?\"",
        20 => Just(r#""\u0000a\ud83d\ude00\\u0000""#.to_owned()),
        10 => Just(r#""2021-04-17T16:43:30.244075Z""#.to_owned()),
        1 => Just(r#""\ud800""#.to_owned()),
    ]
}

fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        40 => any::<i64>().prop_map(|number| number.to_string()),
        20 => any::<i8>().prop_map(|number| number.to_string()),
        30 => "-?(0|[1-9][0-9]{0,5})\\.[0-9]{1,9}",
        20 => "-?[1-9][0-9]{0,40}(\\.[0-9]{1,40})?",
        10 => "-?[1-9]e[-+]?[1-9][0-9]{0,2}",
        1 => Just("1e200000".to_owned()),
    ];
    let scalar = prop_oneof![
        2 => Just("null".to_owned()),
        2 => any::<bool>().prop_map(|value| value.to_string()),
        5 => number,
        5 => string(),
    ];
    scalar.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| format!("[{}]", values.join(" , "))),
            proptest::collection::vec((string(), inner), 0..4).prop_map(object),
        ]
    })
}

fn object(fields: Vec<(String, String)>) -> String {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(key, value)| format!("{key} : {value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn message() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        12 => "[a-hA-C]".prop_map(|key| format!("\"{key}\"")),
        1 => proptest::sample::select(vec!["_extra", "_message", "_offset", "ctid", "", "k\\u0000", "it's \\\"quoted\\\""])
            .prop_map(|key| format!("\"{key}\"")),
        1 => ("[a-c]", 62_usize..70).prop_map(|(letter, length)| format!("\"{}\"", letter.repeat(length))),
    ];
    let record = proptest::collection::vec((key, value()), 0..9)
        .prop_map(object)
        .boxed();
    prop_oneof![
        10 => record.clone(),
        2 => proptest::collection::vec(record, 1..4).prop_map(|records| format!("[{}]", records.join(","))),
        1 => value(),
        1 => Just(format!("{{\"deep\":{}{}}}", "[".repeat(130), "]".repeat(130))),
        1 => Just("{\"a\":1".to_owned()),
    ]
}

/// Records that no row holds: a value is in its column, or in `_extra` under its key.
const LOST: &str = r#"
    WITH keys AS (
        SELECT attname AS name, (substr(col_description(attrelid, attnum), 16))::jsonb #>> '{}' AS key, atttypid
        FROM pg_attribute
        WHERE attrelid = 'feed.t'::regclass AND attnum > 0 AND col_description(attrelid, attnum) LIKE 'socket-el key: %'
    ), sent AS (
        SELECT n, m, jsonb_typeof(m) = 'object'
            OR jsonb_typeof(m) = 'array' AND jsonb_array_length(m) > 0
                AND NOT EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof(m) WHEN 'array' THEN m ELSE '[]' END) e
                                WHERE jsonb_typeof(e) <> 'object') AS has_records
        FROM (SELECT n, message::jsonb AS m FROM source) s
    ), records AS (
        SELECT n, r FROM sent, jsonb_array_elements(CASE jsonb_typeof(m) WHEN 'array' THEN m ELSE jsonb_build_array(m) END) r
        WHERE has_records
    ), stored AS (SELECT _offset, to_jsonb(t) AS row, _extra, _message FROM feed.t)
    SELECT n, r FROM records WHERE NOT EXISTS (
        SELECT FROM stored WHERE _offset = n AND NOT EXISTS (
            SELECT FROM jsonb_each(r) e LEFT JOIN keys k ON k.key = e.key
            WHERE e.value <> 'null'
            AND row->k.name::text IS DISTINCT FROM e.value
            AND _extra->e.key IS DISTINCT FROM e.value
            AND CASE WHEN row->k.name::text = 'null' THEN true
                WHEN k.atttypid = 'float8'::regtype OR jsonb_typeof(e.value) = 'string' AND k.atttypid IN ('int8'::regtype, 'numeric'::regtype)
                THEN (row->>k.name::text)::float8 IS DISTINCT FROM (e.value #>> '{}')::float8
                WHEN k.atttypid = 'bool'::regtype THEN left(row->>k.name::text, 1) <> left(e.value #>> '{}', 1)
                ELSE true END))
    UNION ALL
    SELECT n, m FROM sent WHERE NOT has_records
        AND NOT EXISTS (SELECT FROM stored WHERE _offset = n AND _message = m)
    UNION ALL
    SELECT n, m FROM sent WHERE (SELECT count(*) FROM stored WHERE _offset = n)
        <> CASE WHEN has_records THEN (SELECT count(*) FROM records WHERE records.n = sent.n) ELSE 1 END"#;

#[tokio::test]
async fn any_json_is_read_back_or_is_a_dead_letter_with_its_reason() {
    let mut rig = Rig::with_metadata("CREATE TABLE source (n bigint, message text)", true).await;
    let mut runner = TestRunner::default();
    let (mut sent, mut dead) = (0, 0);
    for _ in 0..ROUNDS {
        let messages: Vec<_> = (0..MESSAGES)
            .map(|_| message().new_tree(&mut runner).unwrap().current())
            .collect();
        let texts: Vec<_> = messages.iter().map(String::as_str).collect();
        let delivered = rig.deliver_all(&texts).await;
        assert_eq!(delivered.ignored, 0);
        for (number, _, reason) in &delivered.dead {
            let known = [
                "not JSON",
                "a lone surrogate",
                "objects and arrays nested deeper",
                "a number at byte",
            ];
            assert!(
                known.iter().any(|known| reason.starts_with(known)),
                "{reason}: {}",
                texts[*number]
            );
        }
        let insert = rig
            .client
            .prepare("INSERT INTO source VALUES ($1, $2)")
            .await
            .unwrap();
        for (number, text) in texts.iter().enumerate() {
            if delivered.dead.iter().all(|(dead, ..)| *dead != number) {
                let offset = i64::try_from(sent + number).unwrap();
                // NUL, but not a backslash before `u0000`.
                let text = text
                    .replace("\\\\u0000", "\\\\\u{1}")
                    .replace("\\u0000", "\\ufffd")
                    .replace('\u{1}', "u0000");
                rig.client.execute(&insert, &[&offset, &text]).await.unwrap();
            }
        }
        sent += texts.len();
        dead += delivered.dead.len();
    }
    // Where chance had every value fit its column, and every message have records.
    let own =
        "ALTER TABLE feed.t ADD COLUMN IF NOT EXISTS _extra jsonb, ADD COLUMN IF NOT EXISTS _message jsonb";
    rig.client.batch_execute(own).await.unwrap();
    let lost = rig.query(LOST).await;
    assert!(lost.is_empty(), "{lost:#?}");
    let rows = rig.query("SELECT count(DISTINCT _offset) FROM feed.t").await;
    assert_eq!(rows, [(sent - dead).to_string()]);
    assert!(dead > 0 && dead < sent / 2, "{dead} of {sent}");
}
