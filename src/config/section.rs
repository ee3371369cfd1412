//! A mapping of a file, read key by key.

use std::rc::Rc;

use serde::de::DeserializeOwned;

use super::problem::{Position, Problems, quotable, suggestion};
use super::tree::{Content, Entry, Node, join};
use super::value;

/// One mapping of `config.yml`, read key by key. Every mistake is kept with the line, column and path of the key,
/// so that all mistakes of a file are reported together; keys that nobody asked for are reported as unknown
/// with the nearest known key when the section goes out of scope.
///
/// So ask for every key before returning, also after a problem: keys behind an early return would count as unknown.
pub struct Section<'a> {
    entries: &'a [Entry],
    at: Position,
    path: String,
    asked: Vec<String>,
    problems: &'a Problems,
    /// Whether somebody reads all of it, so that keys nobody asked for are mistakes.
    complete: bool,
}

impl<'a> Section<'a> {
    /// `None` when the node is no mapping; then a problem was reported. Nothing at all is an empty mapping.
    pub(super) fn of(node: &'a Node, path: String, problems: &'a Problems) -> Option<Self> {
        let entries: &[Entry] = match &node.content {
            Content::Mapping(entries) => entries,
            Content::Scalar(scalar) if scalar.is_null() => &[],
            Content::Scalar(_) | Content::Sequence(_) => {
                problems.add(
                    node.at,
                    path,
                    format!("expected a mapping, found {}", node.kind()),
                );
                return None;
            }
        };
        Some(Self {
            entries,
            at: node.at,
            path,
            asked: Vec::new(),
            problems,
            complete: true,
        })
    }

    /// The entry at `key`, which is known from now on. Null counts as absent.
    fn entry(&mut self, key: &str) -> Option<&'a Entry> {
        if !self.asked.iter().any(|asked| asked == key) {
            self.asked.push(key.to_owned());
        }
        self.find(key).filter(|entry| !entry.value.is_null())
    }

    fn find(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value at `key`, which must be there. `None` when a problem was reported.
    pub fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if self.entry(key).is_none() {
            self.problem(key, "is missing");
            return None;
        }
        self.optional(key)
    }

    /// The value at `key`. `None` when it is absent or null, or when a problem was reported.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let entry = self.entry(key)?;
        let path = join(&self.path, key);
        if entry.value.report_faults(&path, self.problems) {
            return None;
        }
        match value::read(&entry.value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems
                    .add(error.at(&entry.value), path + &error.path, error.message);
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
    pub fn section(&mut self, key: &str) -> Option<Section<'a>> {
        let entry = self.entry(key)?;
        Section::of(&entry.value, join(&self.path, key), self.problems)
    }

    /// The mappings of the list at `key`, each to be read as a section of its own. `None` when it is absent or null,
    /// or no list (then a problem was reported); items that are no mappings are reported and left out.
    pub fn sequence(&mut self, key: &str) -> Option<Vec<Section<'a>>> {
        let entry = self.entry(key)?;
        let path = join(&self.path, key);
        match &entry.value.content {
            Content::Sequence(items) => Some(
                items
                    .iter()
                    .map(Rc::as_ref)
                    .enumerate()
                    .filter_map(|(index, item)| Section::of(item, format!("{path}[{index}]"), self.problems))
                    .collect(),
            ),
            Content::Scalar(_) | Content::Mapping(_) => {
                let message = format!("expected a list, found {}", entry.value.kind());
                self.problems.add(entry.value.at, path, message);
                None
            }
        }
    }

    /// Whether `key` is there, and not null.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.find(key).is_some_and(|entry| !entry.value.is_null())
    }

    /// Reports that the value at `key` is wrong: `message` goes on after the path of the key, e.g. "must be at least 1".
    /// It must not repeat a secret; only a value that came from variables is replaced by them here. Where the key is
    /// absent, the place of the mapping is given.
    pub fn problem(&mut self, key: &str, message: &str) {
        let message = match self.find(key) {
            Some(entry) => entry.value.conceal(message),
            None => message.to_owned(),
        };
        self.problems.add(self.place(key), join(&self.path, key), message);
    }

    /// The same about one character of the value at `key`, counted from 0.
    pub fn problem_within(&mut self, key: &str, character: usize, message: &str) {
        let Some(entry) = self.find(key) else {
            return self.problem(key, message);
        };
        let (at, message) = (entry.value.place_of(character), entry.value.conceal(message));
        self.problems.add(at, join(&self.path, key), message);
    }

    /// The same about one character of an item of the list at `key`.
    pub(super) fn problem_in_item(&mut self, key: &str, index: usize, character: usize, message: &str) {
        let entry = self.find(key);
        let item = entry.and_then(|entry| match &entry.value.content {
            Content::Sequence(items) => items.get(index),
            Content::Scalar(_) | Content::Mapping(_) => None,
        });
        let Some(item) = item else {
            return self.problem(key, message);
        };
        let path = format!("{}[{index}]", join(&self.path, key));
        self.problems
            .add(item.place_of(character), path, item.conceal(message));
    }

    /// The same about one character of the key itself.
    pub fn problem_in_key(&mut self, key: &str, character: usize, message: &str) {
        let at = self.find(key).map_or(self.at, |entry| {
            entry.at.behind(character + usize::from(!entry.plain))
        });
        self.problems.add(at, join(&self.path, key), message);
    }

    /// Whether there is a mapping at `key`.
    #[must_use]
    pub fn contains_mapping(&self, key: &str) -> bool {
        let entry = self.find(key);
        entry.is_some_and(|entry| matches!(entry.value.content, Content::Mapping(_)))
    }

    /// The node at `key`, which is known from now on, null or not.
    pub(super) fn node(&mut self, key: &str) -> Option<&'a Node> {
        self.entry(key);
        self.find(key).map(|entry| &*entry.value)
    }

    pub(super) fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// Whether nothing wrong was reported so far in the whole file.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.count() == 0
    }

    /// The keys that are there, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// Where the value at `key` stands; where it is absent, the place of the mapping.
    pub(super) fn place(&self, key: &str) -> Position {
        self.find(key)
            .filter(|entry| !entry.value.is_null())
            .map_or(self.at, |entry| entry.value.at)
    }

    /// Where the mapping begins.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Adds a name to the path that messages show: `runners[0] (websocket_1)`.
    pub(super) fn label(&mut self, name: &str) {
        self.path = format!("{} ({})", self.path, quotable(name));
    }

    /// Nobody can say what belongs here: unknown keys are not reported.
    pub(super) fn leave_unread(&mut self) {
        self.complete = false;
    }

    fn report_unknown_keys(&self) {
        let known: Vec<&str> = self
            .asked
            .iter()
            .map(String::as_str)
            .filter(|asked| self.find(asked).is_none())
            .collect();
        for entry in self.entries {
            if !self.asked.contains(&entry.key) {
                let message = format!("unknown key{}", suggestion(&entry.key, &known));
                self.problems.add(entry.at, join(&self.path, &entry.key), message);
            }
        }
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if self.complete {
            self.report_unknown_keys();
        }
    }
}
