//! What a message looks like: its JSON taken apart as far as it takes to tell kinds of messages from each other.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Most members or elements of a level that are looked at.
const MAX_PARTS: usize = 64;
/// Longest text that can tell a kind.
const MAX_TELLING_CHARS: usize = 64;

/// A level of JSON: its parts as they are written.
pub(super) enum Level<'m> {
    Object(Vec<(String, &'m RawValue)>),
    List(Vec<&'m RawValue>),
    Scalar,
}

impl<'m> Level<'m> {
    /// `None` when it is no JSON.
    pub(super) fn of(payload: &'m [u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok().and_then(Self::of_part)
    }

    /// Of a part of a message, or the whole of it.
    pub(super) fn of_part(part: &'m RawValue) -> Option<Self> {
        // Other values are not read, for some numbers are beyond what the reader knows.
        if part.get().starts_with(['{', '[']) {
            return serde_json::from_str(part.get()).ok();
        }
        Some(Self::Scalar)
    }

    pub(super) fn member(&self, key: &str) -> Option<&'m RawValue> {
        match self {
            Self::Object(members) => {
                let found = members.iter().rev().find(|(known, _)| known == key);
                found.map(|(_, value)| *value)
            }
            _ => None,
        }
    }
}

impl<'de: 'm, 'm> Deserialize<'de> for Level<'m> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LevelVisitor)
    }
}

struct LevelVisitor;

impl<'de> Visitor<'de> for LevelVisitor {
    type Value = Level<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value::<&RawValue>()?;
            if members.len() < MAX_PARTS {
                members.push((key, value));
            }
        }
        Ok(Level::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while list.len() < MAX_PARTS {
            match items.next_element::<&RawValue>()? {
                Some(item) => list.push(item),
                None => return Ok(Level::List(list)),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Level::List(list))
    }
}

/// Keys and elements down to the second level: what two messages of one kind have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// Paths of the members: `data`, `data.price`.
    Object(BTreeSet<String>),
    /// What the elements are.
    List(String),
    Scalar,
    NotJson,
    Binary,
}

impl Shape {
    pub(super) fn of(payload: &[u8], level: Option<&Level<'_>>) -> Self {
        match level {
            Some(Level::Object(members)) => Self::Object(paths(members)),
            Some(Level::List(items)) => Self::List(elements(items)),
            Some(Level::Scalar) => Self::Scalar,
            None if std::str::from_utf8(payload).is_ok() => Self::NotJson,
            None => Self::Binary,
        }
    }

    /// Whether two messages look as if they were of one kind: most of their keys are the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(one), Self::Object(two)) => {
                let shared = one.intersection(two).count();
                let all = one.len() + two.len() - shared;
                shared * 10 >= all * 6
            }
            (one, two) => one == two,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(paths) => {
                let first: Vec<_> = paths
                    .iter()
                    .filter(|path| !path.contains('.'))
                    .take(8)
                    .cloned()
                    .collect();
                let more = if paths.len() > first.len() { ", …" } else { "" };
                write!(f, "{{{}{more}}}", first.join(", "))
            }
            Self::List(elements) => f.write_str(elements),
            Self::Scalar => f.write_str("a single value"),
            Self::NotJson => f.write_str("text that is not JSON"),
            Self::Binary => f.write_str("binary"),
        }
    }
}

fn paths(members: &[(String, &RawValue)]) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (key, value) in members {
        if let Some(Level::Object(inner)) = Level::of_part(value) {
            paths.extend(inner.iter().map(|(inner, _)| format!("{key}.{inner}")));
        }
        paths.insert(key.clone());
    }
    paths
}

/// `[number, [[…], …], number]`; short words in small letters stand for themselves, for they tell kinds.
fn elements(items: &[&RawValue]) -> String {
    let described = items
        .iter()
        .take(8)
        .map(|item| match item.get().as_bytes().first() {
            Some(b'{') => "{…}".to_owned(),
            Some(b'[') => match Level::of_part(item) {
                Some(Level::List(inner))
                    if inner.first().is_some_and(|first| first.get().starts_with('[')) =>
                {
                    "[[…], …]".to_owned()
                }
                _ => "[…]".to_owned(),
            },
            Some(b'"') => match telling(item) {
                Some(word) if is_word(&word) => format!("\"{word}\""),
                _ => "text".to_owned(),
            },
            Some(b't' | b'f') => "boolean".to_owned(),
            Some(b'n') => "null".to_owned(),
            _ => "number".to_owned(),
        });
    let described: Vec<_> = described.collect();
    let more = if items.len() > described.len() {
        ", …"
    } else {
        ""
    };
    format!("[{}{more}]", described.join(", "))
}

fn is_word(text: &str) -> bool {
    (1..=12).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'))
}

/// A value that can tell a kind: a short text, or a whole number, which stays as it is written.
pub(super) fn telling(value: &RawValue) -> Option<String> {
    let text = value.get();
    if text.starts_with('"') {
        let text: String = serde_json::from_str(text).ok()?;
        return (text.chars().count() <= MAX_TELLING_CHARS).then_some(text);
    }
    let is_number = text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    is_number.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Shape {
        Shape::of(text.as_bytes(), Level::of(text.as_bytes()).as_ref())
    }

    #[test]
    fn any_payload_has_a_shape() {
        for (payload, shown) in [
            (r#"{"b":1,"a":{"x":1e400}}"#, "{a, b, …}"),
            (r#"[17,"hb",3]"#, r#"[number, "hb", number]"#),
            (
                r#"[17,[[1,2],[3]],"XBT/USD",null,true,{}]"#,
                "[number, [[…], …], text, null, boolean, {…}]",
            ),
            ("1e999999", "a single value"),
            ("\"x\"", "a single value"),
            ("hello", "text that is not JSON"),
            ("", "text that is not JSON"),
        ] {
            assert_eq!(shape(payload).to_string(), shown, "{payload}");
        }
        assert_eq!(Shape::of(b"\xff\x00", None).to_string(), "binary");
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(shape(&deep).to_string(), "[[[…], …]]");
    }

    #[test]
    fn messages_with_a_key_more_or_less_are_alike_and_others_are_not() {
        let trade = shape(r#"{"p":1,"q":2,"t":3,"s":"x"}"#);
        assert!(trade.is_like(&shape(r#"{"p":1,"q":2,"t":3,"s":"x","extra":1}"#)));
        assert!(!trade.is_like(&shape(r#"{"p":1,"bids":[],"asks":[]}"#)));
        assert!(!shape("[1]").is_like(&shape("[[1]]")));
        let envelope = shape(r#"{"stream":"a","data":{"u":1,"s":"x","b":"1"}}"#);
        assert!(!envelope.is_like(&shape(r#"{"stream":"a","data":{"e":"x","E":1,"k":{}}}"#)));
    }
}
