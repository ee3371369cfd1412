//! `config.yml` and profiles: from text with positions to typed values.

pub mod units;

use serde::de::DeserializeOwned;

/// One mapping of `config.yml`, read key by key. Every mistake is kept with the line, column and path of the key,
/// so that all mistakes of a file are reported together; keys that nobody asked for are reported as unknown
/// with the nearest known key.
pub struct Section<'a> {
    mapping: &'a serde_yaml::Mapping,
    path: String,
    asked: Vec<String>,
    problems: &'a mut Vec<String>,
}

impl<'a> Section<'a> {
    /// The value at `key`, which must be there. `None` when a problem was reported.
    pub fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if !self.contains(key) {
            self.problem(key, "is missing");
            return None;
        }
        self.optional(key)
    }

    /// The value at `key`. `None` when it is absent or null, or when a problem was reported.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        self.asked.push(key.to_owned());
        let value = self.mapping.get(key).filter(|value| !value.is_null())?;
        match serde_yaml::from_value(value.clone()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key, &error.to_string());
                None
            }
        }
    }

    /// The value at `key`, or `default` when it is absent or null. (After a problem, too: it is reported.)
    pub fn or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The mapping at `key`, to be read as a section of its own. `None` when it is absent or null, or no mapping
    /// (then a problem was reported). Its unknown keys are reported when it goes out of scope.
    pub fn section(&mut self, key: &str) -> Option<Section<'_>> {
        self.asked.push(key.to_owned());
        let path = format!("{}.{key}", self.path);
        match self.mapping.get(key)? {
            serde_yaml::Value::Mapping(mapping) => Some(Section {
                mapping,
                path,
                asked: Vec::new(),
                problems: self.problems,
            }),
            serde_yaml::Value::Null => None,
            _ => {
                self.problem(key, "should be a mapping");
                None
            }
        }
    }

    /// Whether `key` is there, and not null.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.mapping.get(key).is_some_and(|value| !value.is_null())
    }

    /// Reports that the value at `key` is wrong: `message` goes on after the path of the key, e.g. "must be at least 1".
    pub fn problem(&mut self, key: &str, message: &str) {
        self.problems.push(format!("{}.{key}: {message}", self.path));
    }

    /// Whether nothing wrong was reported so far in the whole file.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// The entries of the profiles file.
#[derive(Debug, Default)]
pub struct Profiles {}
