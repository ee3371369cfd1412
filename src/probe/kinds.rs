//! The kinds of messages: told apart by a key that says so, where there is one, else by their shape.
//!
//! Such a key is one of those that feeds use for it, stands in most messages, has few values, and makes a difference:
//! messages with other values look differently.

use std::collections::{BTreeMap, BTreeSet};

use super::heard::Kept;
use super::shape::{Level, Shape, telling};

/// Kinds that are told apart; what is left is one more.
pub(super) const MAX_KINDS: usize = 16;
/// Most values of a key that tells kinds.
const MAX_VALUES: usize = 24;
/// Longest example, in characters.
const MAX_EXAMPLE_CHARS: usize = 400;

/// Keys by which feeds tell kinds, the likeliest first; those behind a point stand one level down.
const TELLING_KEYS: [&str; 27] = [
    "type",
    "event",
    "e",
    "method",
    "op",
    "action",
    "msg_type",
    "msgType",
    "messageType",
    "kind",
    "data.e",
    "data.type",
    "data.event",
    "params.type",
    "params.method",
    "arg.channel",
    "params.channel",
    "header.type",
    "channel",
    "ch",
    "topic",
    "table",
    "stream",
    "name",
    "command",
    "cmd",
    "status",
];

/// What the messages of a kind have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// The value of the key that tells kinds.
    Value {
        /// `data.e`.
        key: &'static str,
        value: String,
    },
    Shape(Shape),
    /// What is left.
    Others,
}

/// A kind.
pub(super) struct Kind {
    pub(super) label: Label,
    /// The places of its messages among those that were kept.
    pub(super) members: Vec<usize>,
}

/// A message, as far as kinds are concerned.
struct Look {
    shape: Shape,
    /// By the place of the key in [`TELLING_KEYS`].
    values: Vec<(usize, String)>,
}

/// Tells the kinds of messages apart, the most frequent first.
pub(super) fn kinds(messages: &[Kept]) -> Vec<Kind> {
    let looks: Vec<_> = messages.iter().map(|kept| look(&kept.payload)).collect();
    let key = telling_key(&looks);
    let mut by_value: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut by_shape: Vec<(&Shape, Vec<usize>)> = Vec::new();
    for (index, look) in looks.iter().enumerate() {
        if let Some(value) = key.and_then(|key| value_of(look, key)) {
            by_value.entry(value).or_default().push(index);
            continue;
        }
        let known = by_shape.iter().position(|(shape, _)| shape.is_like(&look.shape));
        // There are no few kinds, or the last one takes the rest.
        let last = (by_shape.len() >= MAX_VALUES).then(|| by_shape.len() - 1);
        match known.or(last) {
            Some(place) => by_shape[place].1.push(index),
            None => by_shape.push((&look.shape, vec![index])),
        }
    }
    let key_name = key.map_or("", |key| TELLING_KEYS[key]);
    let told = by_value.into_iter().map(|(value, members)| Kind {
        label: Label::Value {
            key: key_name,
            value: value.to_owned(),
        },
        members,
    });
    let shaped = by_shape.into_iter().map(|(shape, members)| Kind {
        label: Label::Shape(shape.clone()),
        members,
    });
    let mut kinds: Vec<_> = told.chain(shaped).collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.members.len()));
    if kinds.len() > MAX_KINDS {
        let mut members: Vec<_> = kinds.drain(MAX_KINDS..).flat_map(|kind| kind.members).collect();
        members.sort_unstable();
        kinds.push(Kind {
            label: Label::Others,
            members,
        });
    }
    kinds
}

fn look(payload: &[u8]) -> Look {
    let level = Level::of(payload);
    let mut values = Vec::new();
    if let Some(level) = &level {
        for (index, key) in TELLING_KEYS.iter().enumerate() {
            let value = match key.split_once('.') {
                None => level.member(key),
                Some((outer, inner)) => level
                    .member(outer)
                    .and_then(Level::of_part)
                    .and_then(|outer| outer.member(inner)),
            };
            values.extend(value.and_then(telling).map(|value| (index, value)));
        }
    }
    Look {
        shape: Shape::of(payload, level.as_ref()),
        values,
    }
}

fn value_of(look: &Look, key: usize) -> Option<&str> {
    let found = look.values.iter().find(|(known, _)| *known == key);
    found.map(|(_, value)| value.as_str())
}

/// The key that tells the kinds, if one does.
fn telling_key(looks: &[Look]) -> Option<usize> {
    let objects = looks
        .iter()
        .filter(|look| matches!(look.shape, Shape::Object(_)))
        .count();
    (0..TELLING_KEYS.len()).find(|&key| {
        let mut values = BTreeSet::new();
        let mut shapes = BTreeSet::new();
        let mut count = 0;
        for look in looks {
            if let Some(value) = value_of(look, key) {
                count += 1;
                values.insert(value);
                shapes.insert(&look.shape);
            }
            if values.len() > MAX_VALUES {
                return false;
            }
        }
        let tells = values.len() == 1 || shapes.len() > 1;
        count * 2 >= objects && count > 0 && tells
    })
}

/// A message as it is shown: in one line, and not endless.
pub(super) fn example(payload: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(payload) else {
        return shortened(&payload.escape_ascii().to_string());
    };
    let printable: String = text
        .chars()
        .take(MAX_EXAMPLE_CHARS + 1)
        .flat_map(|character| match character {
            character if character.is_control() => character.escape_default().collect::<Vec<_>>(),
            character => vec![character],
        })
        .collect();
    shortened(&printable)
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_EXAMPLE_CHARS {
        return text.to_owned();
    }
    let shown: String = text.chars().take(MAX_EXAMPLE_CHARS).collect();
    format!("{shown}…")
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value { key, value } => write!(f, "$.{key} = {value:?}"),
            Self::Shape(shape) => shape.fmt(f),
            Self::Others => f.write_str("others"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::socket::Role;
    use crate::record::Timestamp;

    fn labels(messages: &[&str]) -> Vec<(String, usize)> {
        let kept: Vec<_> = messages
            .iter()
            .map(|message| Kept {
                at: Timestamp::default(),
                role: Role::Data,
                payload: message.as_bytes().into(),
            })
            .collect();
        let kinds = kinds(&kept);
        kinds
            .iter()
            .map(|kind| (kind.label.to_string(), kind.members.len()))
            .collect()
    }

    fn label(text: &str, count: usize) -> (String, usize) {
        (text.to_owned(), count)
    }

    #[test]
    fn a_key_that_feeds_use_for_it_tells_kinds_apart() {
        let messages = [
            r#"{"type":"subscriptions","channels":[]}"#,
            r#"{"type":"match","price":"1.0"}"#,
            r#"{"type":"match","price":"1.5"}"#,
            "[1]",
        ];
        let told = [
            label("$.type = \"match\"", 2),
            label("$.type = \"subscriptions\"", 1),
            label("[number]", 1),
        ];
        assert_eq!(labels(&messages), told);
        let nested = [
            r#"{"stream":"a@depth","data":{"e":"depthUpdate","b":[]}}"#,
            r#"{"stream":"b@depth","data":{"e":"depthUpdate","b":[]}}"#,
            r#"{"stream":"a@trade","data":{"e":"trade","p":"1"}}"#,
        ];
        assert_eq!(
            labels(&nested),
            [
                label("$.data.e = \"depthUpdate\"", 2),
                label("$.data.e = \"trade\"", 1)
            ]
        );
    }

    #[test]
    fn a_key_that_makes_no_difference_or_has_many_values_tells_nothing() {
        let sides = [r#"{"type":"buy","price":1}"#, r#"{"type":"sell","price":2}"#];
        assert_eq!(labels(&sides), [label("{price, type}", 2)]);
        let many: Vec<_> = (0..100)
            .map(|number| format!("{{\"event\":\"e{number}\",\"k{}\":1}}", number % 2))
            .collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(
            labels(&many),
            [label("{event, k0}", 50), label("{event, k1}", 50)]
        );
    }

    #[test]
    fn kinds_and_examples_have_their_limits() {
        let letters = || "abcdefg".chars();
        let many: Vec<_> = letters()
            .flat_map(|one| letters().map(move |two| format!("[\"{one}{two}\"]")))
            .collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let labels = labels(&many);
        assert_eq!(labels.len(), MAX_KINDS + 1);
        assert_eq!(labels.iter().map(|(_, count)| count).sum::<usize>(), 49);
        assert_eq!(labels.last().map(|(label, _)| label.as_str()), Some("others"));
        assert_eq!(
            example("é".repeat(1_000).as_bytes()).chars().count(),
            MAX_EXAMPLE_CHARS + 1
        );
        assert_eq!(example(b"a\x1b[31m\n"), "a\\u{1b}[31m\\n");
        assert_eq!(example(b"\xff\x00"), "\\xff\\x00");
    }
}
