//! The records of a document: what stands at a path that may mean several values, each as its JSON text, byte for byte.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Path, Step};

/// Why a document has no records to take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// Syntax. Nothing of the document is quoted.
    #[error("is no JSON (line {line}, column {column})")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// In bytes, counted from 1.
        column: usize,
    },
    /// There is no such place.
    #[error("has nothing at {0}")]
    Nowhere(Path),
    /// Beyond the limit.
    #[error("has more than {0} records")]
    TooMany(usize),
}

/// Where the records of a document stand: a list, whose elements are the records, or one record; null is none. An `[*]` at the end
/// of the path says nothing more, and others mean the records of all elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsPath(Path);

impl RecordsPath {
    /// For this path.
    #[must_use]
    pub fn new(path: Path) -> Self {
        Self(path.without_last_each())
    }

    /// The records of a document, in their order; at most `limit`. Of a key that stands twice the last counts.
    ///
    /// # Errors
    /// When it is no JSON, the path leads nowhere, or there are more.
    pub fn find<'m>(&self, payload: &'m [u8], limit: usize) -> Result<Vec<&'m str>, RecordsError> {
        let mut found = Found {
            records: Vec::new(),
            limit,
            is_somewhere: false,
        };
        let mut document = serde_json::Deserializer::from_slice(payload);
        let walk = Walk {
            rest: self.0.steps(),
            found: &mut found,
        };
        // Half a document, or one with something behind it, is none.
        let walked = walk.deserialize(&mut document).and_then(|()| document.end());
        match walked {
            _ if found.records.len() > limit => Err(RecordsError::TooMany(limit)),
            Err(error) => Err(RecordsError::NotJson {
                line: error.line(),
                column: error.column(),
            }),
            Ok(()) if !found.is_somewhere => Err(RecordsError::Nowhere(self.0.clone())),
            Ok(()) => Ok(found.records),
        }
    }
}

struct Found<'m> {
    /// Up to one more than the limit.
    records: Vec<&'m str>,
    limit: usize,
    /// Whether the path leads to a value, or to a list without elements.
    is_somewhere: bool,
}

impl<'m> Found<'m> {
    /// `false` when it is one too many.
    fn add(&mut self, record: &'m str) -> bool {
        self.records.push(record);
        self.records.len() <= self.limit
    }
}

/// Walks down the rest of a path.
struct Walk<'p, 's, 'm> {
    rest: &'p [Step],
    found: &'s mut Found<'m>,
}

impl<'m> DeserializeSeed<'m> for Walk<'_, '_, 'm> {
    type Value = ();

    fn deserialize<D: Deserializer<'m>>(self, document: D) -> Result<(), D::Error> {
        if !self.rest.is_empty() {
            return document.deserialize_any(self);
        }
        self.found.is_somewhere = true;
        let text = <&RawValue>::deserialize(document)?.get();
        if text.starts_with('[') {
            let mut list = serde_json::Deserializer::from_str(text);
            return list
                .deserialize_seq(Elements(self.found))
                .map_err(D::Error::custom);
        }
        if text != "null" && !self.found.add(text) {
            return Err(too_many());
        }
        Ok(())
    }
}

impl<'m> Visitor<'m> for Walk<'_, '_, 'm> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'m>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.rest.split_first() else {
            return Ok(());
        };
        self.found.is_somewhere |= *step == Step::Each;
        for index in 0.. {
            let is_meant = match step {
                Step::Each => true,
                Step::Index(wanted) => *wanted == index,
                Step::Key(_) => false,
            };
            let is_there = if is_meant {
                let found = &mut *self.found;
                items.next_element_seed(Walk { rest, found })?.is_some()
            } else {
                items.next_element::<IgnoredAny>()?.is_some()
            };
            if !is_there {
                return Ok(());
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'m>>(self, mut entries: A) -> Result<(), A::Error> {
        let (before, was_somewhere) = (self.found.records.len(), self.found.is_somewhere);
        let (wanted, rest) = match self.rest.split_first() {
            Some((Step::Key(key), rest)) => (Some(key.as_str()), rest),
            _ => (None, self.rest),
        };
        while let Some(is_wanted) = entries.next_key_seed(KeyIs(wanted))? {
            if is_wanted {
                let found = &mut *self.found;
                found.records.truncate(before);
                found.is_somewhere = was_somewhere;
                entries.next_value_seed(Walk { rest, found })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Whether a key is the wanted one.
struct KeyIs<'k>(Option<&'k str>);

impl<'m> DeserializeSeed<'m> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'m>>(self, key: D) -> Result<bool, D::Error> {
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

/// Takes the elements of a list.
struct Elements<'s, 'm>(&'s mut Found<'m>);

impl<'m> Visitor<'m> for Elements<'_, 'm> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'m>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&RawValue>()? {
            if !self.0.add(item.get()) {
                return Err(too_many());
            }
        }
        Ok(())
    }
}

/// Ends a walk; what is then said is [`RecordsError::TooMany`].
fn too_many<E: serde::de::Error>() -> E {
    E::custom("too many records")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records<'m>(path: &str, document: &'m str) -> Result<Vec<&'m str>, RecordsError> {
        RecordsPath::new(path.parse().unwrap()).find(document.as_bytes(), 4)
    }

    #[test]
    fn each_element_is_a_record_byte_for_byte() {
        let document =
            r#"{"n":1, "data" : [ {"a" : 1.50 } ,"\u00e9", [1, 2] ,null], "o":{"x": [ ] , "y":null}}"#;
        let elements = [r#"{"a" : 1.50 }"#, r#""\u00e9""#, "[1, 2]", "null"];
        assert_eq!(records("$.data", document).unwrap(), elements);
        assert_eq!(records("$.data[*]", document).unwrap(), elements);
        assert_eq!(
            records("$.data[2]", document).unwrap(),
            ["1", "2"],
            "a list in the list"
        );
        assert_eq!(records("$.n", document).unwrap(), ["1"], "one record");
        assert_eq!(records("$.o", document).unwrap(), [r#"{"x": [ ] , "y":null}"#]);
        for none in ["$.o.x", "$.o.x[*]", "$.o.x[*].z", "$.o.y"] {
            assert_eq!(records(none, document).unwrap(), [""; 0], "{none}");
        }
        assert_eq!(records("$", " [ 1 , 2 ] ").unwrap(), ["1", "2"]);
        let groups = r#"[{"of":[1,2]},{"none":0},{"of":[]},{"of":3}]"#;
        assert_eq!(records("$[*].of[*]", groups).unwrap(), ["1", "2", "3"]);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_told_from_a_list_without_elements() {
        for (path, document) in [
            ("$.data", r#"{"error":"no"}"#),
            ("$.data[*]", "[]"),
            ("$.data.x", r#"{"data":null}"#),
            ("$[7]", "[1]"),
            ("$.a[*].b", r#"{"a":1}"#),
        ] {
            let refused = records(path, document).unwrap_err();
            assert!(matches!(refused, RecordsError::Nowhere(_)), "{path}: {refused}");
        }
        let refused = records("$.data[*]", "{}").unwrap_err();
        assert_eq!(refused.to_string(), "has nothing at $.data");
    }

    #[test]
    fn of_a_key_that_stands_twice_the_last_counts() {
        assert_eq!(records("$.a", r#"{"a":[1,2],"a":[3]}"#).unwrap(), ["3"]);
        let refused = records("$.a.b", r#"{"a":{"b":1},"a":{"c":2}}"#).unwrap_err();
        assert!(matches!(refused, RecordsError::Nowhere(_)));
    }

    #[test]
    fn what_is_no_document_has_no_records_and_is_not_quoted() {
        for document in [
            "",
            "<html>secret",
            "[1",
            "[1] x",
            r#"{"a":[1"#,
            "[1,]",
            "\"\u{1}\"",
        ] {
            let refused = records("$", document).unwrap_err();
            assert!(
                matches!(refused, RecordsError::NotJson { .. }),
                "{document}: {refused}"
            );
            assert!(!refused.to_string().contains("secret"));
        }
        let deep = "[".repeat(100_000);
        assert!(records("$[0]", &deep).is_err(), "no depth of nesting harms");
    }

    #[test]
    fn no_more_records_are_taken_than_the_limit() {
        assert_eq!(records("$", "[1,2,3,4]").unwrap().len(), 4);
        assert_eq!(records("$", "[1,2,3,4,5]"), Err(RecordsError::TooMany(4)));
        assert_eq!(
            records("$[*].a", r#"[{"a":1},{"a":1},{"a":[1,1]},{"a":1}]"#),
            Err(RecordsError::TooMany(4))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, near in "[\\[\\]{}\":,ab01 ]{0,20}") {
            for path in ["$", "$.a", "$[*].b", "$.a[1]"] {
                let path = RecordsPath::new(path.parse().unwrap());
                let _ = path.find(&bytes, 3);
                let _ = path.find(near.as_bytes(), 3);
            }
        }
    }
}
