//! Values as one line of YAML, so that they stand in a configuration as a user would write them, and read back as they were.

use serde_yaml::Value;

/// A value in flow style.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => scalar(text),
        Value::Sequence(items) => {
            let items: Vec<_> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Mapping(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Mapping(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{}: {}", flow(key), flow(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        // What a tag would mean to the reader of a configuration: nothing.
        Value::Tagged(tagged) => flow(&tagged.value),
    }
}

/// A text, in quotes where without them it would be something else.
pub(super) fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    if !text.contains(|character: char| character.is_control() || character == '\u{FEFF}') {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = "\"".to_owned();
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            character if character.is_control() || character == '\u{FEFF}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a text is itself without quotes, anywhere in a line.
fn is_plain(text: &str) -> bool {
    let is_begin =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '/' | '$');
    let is_inside = |character: char| {
        character.is_ascii_alphanumeric()
            || matches!(character, '_' | '/' | '.' | '-' | '@' | '+' | '=' | '$')
    };
    let begins = text.starts_with(is_begin);
    // A colon is itself when no space follows, as in a URI; so is what stands in the braces of a variable, which a flow
    // mapping would take for its own.
    let inside = text.split("://").all(|part| part.chars().all(is_inside));
    let means_itself = matches!(serde_yaml::from_str(text), Ok(Value::String(read)) if read == text);
    begins && inside && means_itself && !looks_like_a_number(text)
}

/// Whether some reader of YAML takes a text for a number: `007` is one to the configuration's, and none to others.
fn looks_like_a_number(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && text.chars().all(|character| {
            character.is_ascii_hexdigit() || matches!(character, 'x' | 'o' | '_' | '.' | '+' | '-')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Section, Variables};

    /// What the configuration's own reader makes of a text at a key.
    fn read(text: &str) -> Value {
        let text = format!("key: {text}\n");
        Section::read_text(&text, &Variables::fixed([]), |section| {
            section.optional::<Value>("key").unwrap_or_default()
        })
        .unwrap_or_else(|mistakes| panic!("{mistakes}: {text}"))
    }

    fn value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[0-9][0-9a-fox_.+-]{0,4}".prop_map(Value::from),
            "[a-z$.'\"{}\\[\\]:,# \\\\\n\t!&*@%-]{0,8}".prop_map(Value::from),
            proptest::sample::select(vec![
                "true",
                "null",
                "~",
                "12",
                "1e3",
                "no",
                "",
                "0x1",
                "wss://a.b/c?d=e&f"
            ])
            .prop_map(Value::from),
        ];
        scalar.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z$.\\[\\]0-9 ]{1,6}", inner, 0..4).prop_map(|entries| {
                    let entries = entries.into_iter().map(|(key, value)| (Value::from(key), value));
                    Value::Mapping(entries.collect())
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_configurations_reader_gets_the_value_back(value in value()) {
            let text = flow(&value);
            prop_assert!(!text.contains('\n'));
            // Variables are replaced by the reader, and not at issue here.
            prop_assume!(!text.contains("${"));
            prop_assert_eq!(read(&text), value, "{}", text);
        }
    }

    #[test]
    fn it_looks_as_a_user_would_write_it() {
        let value: Value =
            serde_yaml::from_str(r#"{"$.type": ["heartbeat", 1, null], "x y": "it's", "id": "12"}"#).unwrap();
        assert_eq!(
            flow(&value),
            "{ $.type: [heartbeat, 1, null], 'x y': 'it''s', id: '12' }"
        );
        assert_eq!(scalar("wss://feed.example/ws"), "wss://feed.example/ws");
        assert_eq!(scalar("${KEY}"), "'${KEY}'");
        assert_eq!(
            flow(&serde_yaml::from_str("[5m, '007', '0x1', 20-5]").unwrap()),
            "[5m, '007', '0x1', '20-5']"
        );
    }
}
