//! `subscribe`, `control` and `ping`: what is said to the server, and which of its messages are not data.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_yaml::Value;
use tokio_tungstenite::tungstenite::Message;

use super::super::liveness::Ping;
use super::super::pattern::{Pattern, Scalar};
use super::super::script::{EXPECT_TIMEOUT, Expect, MAX_STEP_BYTES, Outgoing, Step, file_of, names_files};
use super::PingMessage;
use crate::config::Section;
use crate::config::units::Span;

/// Most steps of `subscribe`.
const MAX_STEPS: usize = 1_000;
/// Most patterns of `control`: each may have to be compared with every message.
const MAX_CONTROL: usize = 64;
/// Most values that one path may have.
const MAX_VALUES: usize = 1_000;
/// The key of a mapping that stands for the bytes of a binary message.
const BASE64_KEY: &str = "base64";
/// The key of a pattern that is a regular expression.
const REGEX_KEY: &str = "regex";

/// `subscribe`: each step is `{ send: … }`, or `{ expect: …, reject: …, timeout: … }`.
pub(super) fn read_subscribe(section: &mut Section<'_>) -> Vec<Step> {
    let given = section.sequence("subscribe").unwrap_or_default();
    if given.len() > MAX_STEPS {
        section.problem("subscribe", &format!("has more than {MAX_STEPS} steps"));
    }
    let mut steps = Vec::with_capacity(given.len());
    for mut step in given {
        if !step.contains("expect") {
            steps.extend(read_send(&mut step).map(Step::Send));
            for key in ["reject", "timeout"] {
                if step.contains(key) {
                    step.optional::<Value>(key);
                    step.problem(key, "belongs to a step with `expect`");
                }
            }
            // Known, so that a misspelled one is recognised.
            step.optional::<Value>("expect");
            continue;
        }
        if step.contains("send") {
            step.optional::<Value>("send");
            step.problem("send", "is a step of its own; write it as one before this");
        }
        let answer = read_pattern(&mut step, "expect");
        let reject = read_pattern(&mut step, "reject");
        let Span(timeout) = step.or("timeout", Span(EXPECT_TIMEOUT));
        if timeout.is_zero() {
            step.problem("timeout", "must be more than 0s");
        }
        steps.extend(answer.map(|answer| {
            Step::Expect(Expect {
                answer,
                reject,
                timeout,
            })
        }));
    }
    steps
}

/// `control`: a list of patterns.
pub(super) fn read_control(section: &mut Section<'_>) -> Vec<Pattern> {
    let given = section.sequence("control").unwrap_or_default();
    if given.len() > MAX_CONTROL {
        section.problem("control", &format!("has more than {MAX_CONTROL} entries"));
    }
    let mut patterns = Vec::with_capacity(given.len());
    for entry in given {
        match read_tests(entry) {
            Some(pattern) if pattern.is_empty() => {
                section.problem("control", "has an entry that names nothing to look for");
            }
            pattern => patterns.extend(pattern),
        }
    }
    patterns
}

/// `ping`: times, and the message when it is one.
pub(super) fn read_ping(section: &mut Section<'_>) -> (Option<Ping>, Option<PingMessage>) {
    let (mut interval, mut timeout) = (Span(Duration::from_secs(20)), Span(Duration::from_secs(10)));
    let mut message = None;
    if let Some(mut ping) = section.section("ping") {
        interval = ping.or("interval", interval);
        timeout = ping.or("timeout", timeout);
        if timeout.0.is_zero() {
            ping.problem("timeout", "must be more than 0s (interval: 0s sends no pings)");
        }
        let expect = read_pattern(&mut ping, "expect");
        if ping.contains("send") {
            message = read_send(&mut ping).map(|send| PingMessage { send, expect });
        } else {
            ping.optional::<Value>("send");
            if expect.is_some() {
                ping.problem(
                    "expect",
                    "is the answer to a message, so it needs `send` beside it",
                );
            }
        }
    }
    let ping = (!interval.0.is_zero()).then_some(Ping {
        interval: interval.0,
        timeout: timeout.0,
    });
    (ping, message)
}

/// The message at `send`. `None` when a problem was reported.
fn read_send(section: &mut Section<'_>) -> Option<Outgoing> {
    let value: Value = section.required("send")?;
    let problem = match outgoing(value) {
        Ok(outgoing) => return Some(outgoing),
        Err(problem) => problem,
    };
    section.problem("send", &problem);
    None
}

/// A text goes as it is, `{ base64: … }` as a binary message, `{ file: path }` as the text of the file, and other
/// values as JSON, in which `{ file: path }` stands for the text of the file again.
fn outgoing(value: Value) -> Result<Outgoing, String> {
    let too_long = || format!("is longer than {MAX_STEP_BYTES} bytes");
    if let Some(path) = file_of(&value) {
        return Ok(Outgoing::File(path));
    }
    let message = match value {
        Value::String(text) => Message::Text(text.into()),
        Value::Mapping(entries) if entries.len() == 1 && entries.contains_key(BASE64_KEY) => {
            let text = entries.get(BASE64_KEY).and_then(Value::as_str);
            let bytes = text.and_then(|text| STANDARD.decode(text).ok());
            Message::Binary(bytes.ok_or("has bytes that are no base64")?.into())
        }
        value if names_files(&value) => return Ok(Outgoing::WithFiles(value)),
        value => {
            let text = serde_json::to_string(&value);
            Message::Text(
                text.map_err(|error| format!("can't be written as JSON: {error}"))?
                    .into(),
            )
        }
    };
    if message.len() > MAX_STEP_BYTES {
        return Err(too_long());
    }
    Ok(Outgoing::Fixed(message))
}

/// The pattern at `key`. `None` when it is absent or null, or when a problem was reported.
fn read_pattern(section: &mut Section<'_>, key: &str) -> Option<Pattern> {
    let pattern = read_tests(section.section(key)?)?;
    if pattern.is_empty() {
        section.problem(
            key,
            "names nothing to look for; it looks like { $.event: subscribed } or { regex: … }",
        );
        return None;
    }
    Some(pattern)
}

/// The entries of a pattern: paths with their values, `regex`. `None` when a problem was reported.
fn read_tests(mut section: Section<'_>) -> Option<Pattern> {
    let mut pattern = Some(Pattern::any());
    if let Some(text) = section.optional::<String>(REGEX_KEY) {
        pattern = match Pattern::any().with_regex(&text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                section.problem(REGEX_KEY, &error.to_string());
                None
            }
        };
    }
    let paths: Vec<&str> = section.keys().filter(|key| *key != REGEX_KEY).collect();
    for key in paths {
        let values = read_values(&mut section, key);
        let path = section.path_of_key(key);
        pattern = match (pattern, path, values) {
            (Some(pattern), Some(path), Some(values)) => Some(pattern.with_field(path, values)),
            _ => None,
        };
    }
    pattern
}

/// The values that may stand at a path: one, or a list. `None` when a problem was reported.
fn read_values(section: &mut Section<'_>, key: &str) -> Option<Vec<Scalar>> {
    let given = section.contains(key);
    let values = match section.optional::<Value>(key) {
        Some(Value::Sequence(items)) => items,
        Some(value) => vec![value],
        None if given => return None,
        None => vec![Value::Null],
    };
    let values: Option<Vec<Scalar>> = values.into_iter().map(scalar).collect();
    match values {
        Some(values) if (1..=MAX_VALUES).contains(&values.len()) => Some(values),
        _ => {
            let message = format!("must be a single value, or a list of up to {MAX_VALUES} of them");
            section.problem(key, &message);
            None
        }
    }
}

fn scalar(value: Value) -> Option<Scalar> {
    Some(match value {
        Value::Null => Scalar::Null,
        Value::Bool(value) => Scalar::Bool(value),
        Value::String(text) => Scalar::Text(text),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Scalar::Unsigned(number),
            (None, Some(number)) => Scalar::Signed(number),
            (None, None) => Scalar::Float(number.as_f64()?),
        },
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => return None,
    })
}
