//! Which messages are meant: by values that stand at paths of their JSON, or by a regular expression over their bytes.
//!
//! A message is walked without building a tree, and only when it can match: whoever looks at every message of a feed pays for
//! it. What is no JSON matches no path; a message is never an error here.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use crate::json_path::{Finder, Path, string_of};

/// What a compiled regular expression may take.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// How much of what a regular expression found is shown.
const MAX_SHOWN_CHARS: usize = 120;

/// What a message must hold: all of the tests.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    tests: Vec<Test>,
}

#[derive(Clone, Debug)]
enum Test {
    Field {
        path: Path,
        finder: Finder,
        /// One of them must stand there.
        values: Vec<Scalar>,
        /// Found in every message that can pass. `None` when nothing can be said beforehand.
        hint: Option<Regex>,
    },
    Regex(Regex),
}

/// A value without parts, in a configuration or a message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("is no regular expression: {0}")]
    Regex(String),
}

impl Pattern {
    /// A pattern that everything matches, to add tests to.
    pub(super) fn any() -> Self {
        Self { tests: Vec::new() }
    }

    /// Whether it has no test.
    pub(super) fn is_empty(&self) -> bool {
        self.tests.is_empty()
    }

    /// One of `values` must stand at `path`.
    pub(super) fn with_field(mut self, path: Path, values: Vec<Scalar>) -> Self {
        let hint = hint(&values);
        let finder = Finder::new([&path]);
        self.tests.push(Test::Field {
            path,
            finder,
            values,
            hint,
        });
        self
    }

    /// Something in the message's bytes must match.
    pub(super) fn with_regex(mut self, text: &str) -> Result<Self, PatternError> {
        let regex = RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build();
        // The whole message of the crate draws the expression over several lines; its last line says what is wrong.
        let regex = regex.map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            PatternError::Regex(last.trim_start_matches("error: ").to_owned())
        })?;
        self.tests.push(Test::Regex(regex));
        Ok(self)
    }

    pub(super) fn matches(&self, payload: &[u8]) -> bool {
        self.tests.iter().all(|test| test.passes(payload))
    }

    /// The values that made the message match, for an error; never more of it. `None` when it does not match.
    pub(super) fn matched(&self, payload: &[u8]) -> Option<String> {
        let found: Option<Vec<String>> = self.tests.iter().map(|test| test.found(payload)).collect();
        found.map(|found| found.join(", "))
    }
}

impl Test {
    fn passes(&self, payload: &[u8]) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(payload),
            Self::Field {
                finder, values, hint, ..
            } => {
                hint.as_ref().is_none_or(|hint| hint.is_match(payload))
                    && standing(finder, payload, values).is_some()
            }
        }
    }

    fn found(&self, payload: &[u8]) -> Option<String> {
        match self {
            Self::Regex(regex) => {
                let found = String::from_utf8_lossy(regex.find(payload)?.as_bytes());
                let shown: String = found.chars().take(MAX_SHOWN_CHARS).collect();
                Some(format!("{shown:?}"))
            }
            Self::Field {
                path, finder, values, ..
            } => {
                let value = standing(finder, payload, values)?;
                Some(format!("{path} is {value}"))
            }
        }
    }
}

/// Which of the values stands at the one path of the finder.
fn standing<'v>(finder: &Finder, payload: &[u8], values: &'v [Scalar]) -> Option<&'v Scalar> {
    let mut found = [None];
    finder.find(payload, &mut found)?;
    let [json] = found;
    let json = json?;
    values.iter().find(|value| value.is(json))
}

/// What every message with one of these values holds: the value as it is, or a backslash, for the value may be written
/// with escapes. Only of texts that JSON need not escape.
fn hint(values: &[Scalar]) -> Option<Regex> {
    let mut alternatives = r"\\".to_owned();
    for value in values {
        let Scalar::Text(text) = value else {
            return None;
        };
        if text.is_empty() || text.contains(['"', '\\']) || text.contains(char::is_control) {
            return None;
        }
        alternatives.push('|');
        alternatives.push_str(&regex::escape(text));
    }
    Regex::new(&alternatives).ok()
}

impl Scalar {
    /// Whether a JSON text says this value.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a whole number is compared with a fraction as JavaScript does it"
    )]
    fn is(&self, json: &str) -> bool {
        let number = || serde_json::from_str::<serde_json::Number>(json).ok();
        match self {
            Self::Null => json == "null",
            Self::Bool(value) => json == if *value { "true" } else { "false" },
            Self::Text(value) => string_of(json).is_some_and(|found| found == value.as_str()),
            Self::Unsigned(value) => number().is_some_and(|found| match found.as_u64() {
                Some(found) => found == *value,
                None => found.as_f64() == Some(*value as f64),
            }),
            Self::Signed(value) => number().is_some_and(|found| match found.as_i64() {
                Some(found) => found == *value,
                None => found.as_f64() == Some(*value as f64),
            }),
            Self::Float(value) => number().is_some_and(|found| found.as_f64() == Some(*value)),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(path: &str, values: &[Scalar]) -> Pattern {
        Pattern::any().with_field(path.parse().unwrap(), values.to_vec())
    }

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn a_value_at_a_path_is_found_wherever_the_path_leads() {
        for (path, value, message) in [
            (
                "$.event",
                text("subscribed"),
                r#"{"a":[1,{}],"event":"subscribed","z":null}"#,
            ),
            ("$.a.b", Scalar::Unsigned(1), r#"{"a":{"c":2,"b":1}}"#),
            ("$['a b'].c", Scalar::Bool(true), r#"{"a b":{"c":true}}"#),
            (r#"$["a.b"]"#, Scalar::Null, r#"{"a.b":null}"#),
            ("$[1][0].x", Scalar::Signed(-3), r#"[0,[{"x":-3},4]]"#),
            ("$", text("pong"), r#""pong""#),
            ("$.event", text("subscribed"), r#"{"event":"subscri\u0062ed"}"#),
            ("$.e", text("say \"hi\""), r#"{"e":"say \"hi\""}"#),
            ("$.n", Scalar::Float(1.5), r#"{"n":1.50}"#),
            ("$.n", Scalar::Unsigned(1), r#"{"n":1.0}"#),
            ("$.n", Scalar::Float(2.0), r#"{"n":2}"#),
        ] {
            let pattern = field(path, &[text("other"), value]);
            assert!(pattern.matches(message.as_bytes()), "{path} in {message}");
            assert!(pattern.matched(message.as_bytes()).is_some());
        }
    }

    #[test]
    fn what_differs_is_elsewhere_or_is_no_json_does_not_match() {
        let pattern = field("$.event", &[text("ok"), Scalar::Unsigned(1)]);
        for message in [
            r#"{"event":"no"}"#,
            r#"{"event":"ok2"}"#,
            r#"{"event":"1"}"#,
            r#"{"event":{"event":"ok"}}"#,
            r#"{"other":{"event":"ok"}}"#,
            r#"{"event":["ok"]}"#,
            r#"["event","ok"]"#,
            r#"{"event":"ok""#,
            r#"{"event":"ok"} x"#,
            "ok",
            "",
            "\u{fffd}",
        ] {
            assert!(!pattern.matches(message.as_bytes()), "{message}");
            assert_eq!(pattern.matched(message.as_bytes()), None);
        }
        assert!(!field("$.event", &[text("ok")]).matches(br#"{"event":"ok" "#));
        assert!(!pattern.matches(&[0xff, 0xfe]));
        let deep = "[".repeat(100_000);
        assert!(!pattern.matches(deep.as_bytes()), "no depth of nesting harms");
    }

    #[test]
    fn all_tests_must_pass_and_what_matched_is_shown_and_no_more() {
        let pattern = field("$.event", &[text("error")])
            .with_regex("\"code\":\\s*[0-9]+")
            .unwrap();
        let message = br#"{"event":"error","code": 42,"token":"secret"}"#;
        assert_eq!(
            pattern.matched(message).unwrap(),
            r#"$.event is "error", "\"code\": 42""#
        );
        assert!(!pattern.matches(br#"{"event":"error"}"#));
        assert!(!pattern.matches(br#"{"code": 1}"#));
        let all = Pattern::any().with_regex("(?s).*").unwrap();
        let shown = all.matched(&[b'x'; 10_000]).unwrap();
        assert_eq!(shown.len(), MAX_SHOWN_CHARS + 2);
    }

    #[test]
    fn bytes_that_are_not_utf8_can_be_matched_by_expressions() {
        let pattern = Pattern::any().with_regex(r"(?-u)^\x00\xff").unwrap();
        assert!(pattern.matches(&[0, 0xff, 1]));
        assert!(!pattern.matches(&[1, 0, 0xff]));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let refused = Pattern::any().with_regex("a(b").unwrap_err().to_string();
        assert!(
            refused.contains("unclosed group") && !refused.contains('\n'),
            "{refused}"
        );
        assert!(Pattern::any().with_regex("a{1000}{1000}{1000}").is_err());
    }
}
