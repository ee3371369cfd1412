//! Places in JSON, and the walk to one: over the bytes, without building a tree, and past everything else.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{PatternError, Scalar};

/// Most steps of a path.
pub(super) const MAX_DEPTH: usize = 32;
/// A place in a JSON document: `$`, `.key`, `['key']`, `[n]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Path {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    pub(in super::super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut rest = text.strip_prefix('$').ok_or(PatternError::Path)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, behind) = Step::parse(rest).ok_or(PatternError::Path)?;
            steps.push(step);
            rest = behind;
        }
        if steps.len() > MAX_DEPTH {
            return Err(PatternError::Path);
        }
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }

    /// Which of the values stands at this place of a document, if the payload is one.
    pub(super) fn find<'v>(&self, payload: &[u8], values: &'v [Scalar]) -> Option<&'v Scalar> {
        let mut document = serde_json::Deserializer::from_slice(payload);
        let walk = Walk {
            rest: &self.steps,
            values,
        };
        let found = walk.deserialize(&mut document).ok()?;
        // Half a document, or one with something behind it, is none.
        document.end().ok()?;
        found
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Step {
    /// The first step of a text, and what stands behind it.
    fn parse(text: &str) -> Option<(Self, &str)> {
        if let Some(key) = text.strip_prefix('.') {
            let end = key.find(['.', '[', ']']).unwrap_or(key.len());
            let (key, rest) = key.split_at(end);
            return (!key.is_empty()).then(|| (Self::Key(key.to_owned()), rest));
        }
        let inside = text.strip_prefix('[')?;
        for quote in ['\'', '"'] {
            if let Some(key) = inside.strip_prefix(quote) {
                let (key, behind) = key.split_once(quote)?;
                return Some((Self::Key(key.to_owned()), behind.strip_prefix(']')?));
            }
        }
        let (index, rest) = inside.split_once(']')?;
        Some((Self::Index(index.parse().ok()?), rest))
    }
}

/// Walks to the rest of a path, and compares what stands there.
struct Walk<'p, 'v> {
    rest: &'p [Step],
    values: &'v [Scalar],
}

impl<'v> Walk<'_, 'v> {
    fn compare<E>(self, is: impl Fn(&Scalar) -> bool) -> Result<Option<&'v Scalar>, E> {
        if !self.rest.is_empty() {
            return Ok(None);
        }
        Ok(self.values.iter().find(|value| is(value)))
    }
}

impl<'de, 'v> DeserializeSeed<'de> for Walk<'_, 'v> {
    type Value = Option<&'v Scalar>;

    fn deserialize<D: Deserializer<'de>>(self, document: D) -> Result<Self::Value, D::Error> {
        document.deserialize_any(self)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a whole number is compared with a fraction as JavaScript does it"
)]
impl<'de, 'v> Visitor<'de> for Walk<'_, 'v> {
    type Value = Option<&'v Scalar>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        self.compare(|value| *value == Scalar::Null)
    }

    fn visit_bool<E>(self, found: bool) -> Result<Self::Value, E> {
        self.compare(|value| *value == Scalar::Bool(found))
    }

    fn visit_u64<E>(self, found: u64) -> Result<Self::Value, E> {
        self.compare(|value| match value {
            Scalar::Unsigned(value) => *value == found,
            Scalar::Float(value) => *value == found as f64,
            _ => false,
        })
    }

    fn visit_i64<E>(self, found: i64) -> Result<Self::Value, E> {
        self.compare(|value| match value {
            Scalar::Signed(value) => *value == found,
            Scalar::Float(value) => *value == found as f64,
            _ => false,
        })
    }

    fn visit_f64<E>(self, found: f64) -> Result<Self::Value, E> {
        self.compare(|value| match value {
            Scalar::Float(value) => *value == found,
            Scalar::Unsigned(value) => *value as f64 == found,
            Scalar::Signed(value) => *value as f64 == found,
            _ => false,
        })
    }

    fn visit_str<E>(self, found: &str) -> Result<Self::Value, E> {
        self.compare(|value| matches!(value, Scalar::Text(value) if value == found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        if let Some((Step::Index(wanted), rest)) = self.rest.split_first() {
            let mut index = 0;
            while index < *wanted && items.next_element::<IgnoredAny>()?.is_some() {
                index += 1;
            }
            let walk = Walk {
                rest,
                values: self.values,
            };
            found = items.next_element_seed(walk)?.flatten();
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let step = self.rest.split_first();
        let wanted = match step {
            Some((Step::Key(key), _)) => Some(key.as_str()),
            _ => None,
        };
        while let Some(is_wanted) = entries.next_key_seed(KeyIs(wanted))? {
            match step {
                // Of a key that stands twice the last counts, as with most readers of JSON.
                Some((_, rest)) if is_wanted => {
                    found = entries.next_value_seed(Walk {
                        rest,
                        values: self.values,
                    })?;
                }
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Whether a key is the wanted one.
struct KeyIs<'k>(Option<&'k str>);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(self.0 == Some(key))
    }
}
