//! Which messages a mapping is for: conditions on values of the message.

use super::encode::{Decimal, text};
use super::mapping::Nul;
use super::record::Value;
use super::walk::Kind;
use crate::json_path::Path;

/// Conditions, all of which a message must meet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When(pub Vec<Condition>);

impl When {
    /// Whether every message that meets the other conditions meets these.
    pub(in super::super) fn covers(&self, other: &Self) -> bool {
        let is_met = |condition: &Condition| {
            other.0.iter().any(|asked| {
                asked.path == condition.path && asked.values.iter().all(|value| condition.has(value))
            })
        };
        self.0.iter().all(is_met)
    }

    /// Whether no message can meet these and the other conditions, for at one path they ask for different values.
    pub(in super::super) fn excludes(&self, other: &Self) -> bool {
        let is_against = |condition: &Condition| {
            other.0.iter().any(|asked| {
                asked.path == condition.path && !asked.values.iter().any(|value| condition.has(value))
            })
        };
        self.0.iter().any(is_against)
    }
}

impl Condition {
    /// Whether a value is one of those asked for.
    fn has(&self, value: &Scalar) -> bool {
        self.values.iter().any(|known| known.is_same(value))
    }
}

/// What stands at a path is one of these values.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Where the value stands in the message.
    pub path: Path,
    /// What it may be; at least one.
    pub values: Vec<Scalar>,
}

/// A value that is no object and no array.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number in JSON's grammar; `1.0` is the same as `1`.
    Number(String),
    /// A string.
    Text(String),
}

impl Scalar {
    /// Whether a value is this one. What is missing is nothing, not even null.
    pub(super) fn is(&self, value: Value<'_>) -> bool {
        match (self, value.kind) {
            (Self::Null, Kind::Null) => true,
            (Self::Bool(wanted), Kind::Bool) => value.raw == if *wanted { "true" } else { "false" },
            (Self::Number(wanted), Kind::Integer | Kind::Fraction) => {
                wanted == value.raw
                    || match (Decimal::parse(wanted), Decimal::parse(value.raw)) {
                        (Some(wanted), Some(found)) => wanted.is_same(&found),
                        _ => false,
                    }
            }
            (Self::Text(wanted), Kind::String) => {
                let quoted = value.quoted().unwrap_or_default();
                if value.escaped {
                    text::unescape(quoted, Nul::Replace) == wanted.as_str()
                } else {
                    quoted == wanted
                }
            }
            _ => false,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => match (Decimal::parse(one), Decimal::parse(other)) {
                (Some(one), Some(other)) => one.is_same(&other),
                _ => one == other,
            },
            _ => self == other,
        }
    }

    /// Reads a number, if JSON has one like it.
    #[must_use]
    pub fn number(text: &str) -> Option<Self> {
        Decimal::parse(text).map(|_| Self::Number(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Keys;
    use super::super::record::Scanned;
    use super::*;

    fn is(scalar: &Scalar, json: &str) -> bool {
        // A single value is kept whole.
        let mut scanned = Scanned::default();
        match scanned
            .read(&mut Keys::default(), json.as_bytes(), Nul::Replace)
            .map(|text| scanned.whole(text))
        {
            Ok(Some(value)) => scalar.is(value),
            _ => false,
        }
    }

    #[test]
    fn values_are_the_same_whatever_way_they_are_written() {
        let text = Scalar::Text("match".to_owned());
        assert!(is(&text, "\"match\"") && is(&text, "\"m\\u0061tch\""));
        assert!(!is(&text, "\"Match\"") && !is(&text, "null"));
        let one = Scalar::number("1").unwrap();
        for (json, same) in [
            ("1", true),
            ("1.0", true),
            ("10e-1", true),
            ("\"1\"", false),
            ("-1", false),
            ("true", false),
        ] {
            assert_eq!(is(&one, json), same, "{json}");
        }
        assert!(is(&Scalar::number("-0.50").unwrap(), "-5e-1"));
        assert!(
            is(&Scalar::Bool(true), "true")
                && !is(&Scalar::Bool(true), "\"true\"")
                && !is(&Scalar::Bool(true), "false")
        );
        assert!(is(&Scalar::Null, "null") && !is(&Scalar::Null, "0"));
        assert_eq!(Scalar::number("inf"), None);
    }
}
