//! A YAML file as a tree of nodes that know their places.
//!
//! [`parse`](super::parse) makes it from a text. Nodes are shared between aliases, not copied. Which type a value has
//! is decided in [`value`](super::value), by whoever reads it.

use std::rc::Rc;

use super::problem::{Position, Problems, quotable};

/// Shorter values of variables stand for themselves in a message by chance.
const LEAST_TELLING_BYTES: usize = 4;

/// A value of the file. No `Debug`: it may be a secret.
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) content: Content,
    /// Values in it and itself, aliases written out.
    pub(super) weight: usize,
    /// Levels of nesting in it.
    pub(super) depth: usize,
}

pub(super) enum Content {
    Scalar(Scalar),
    Sequence(Vec<Rc<Node>>),
    /// In the order of the file; no key stands twice.
    Mapping(Vec<Entry>),
}

/// A text as it stands, and what is known about how it was written.
pub(super) struct Scalar {
    /// With its variables replaced.
    pub(super) text: String,
    /// Written without quotes, so that it may be a number, a boolean or null.
    pub(super) plain: bool,
    /// As it was written, when that held variables. Messages show this in place of the text.
    pub(super) written: Option<String>,
    /// Why its variables could not be replaced.
    pub(super) fault: Option<String>,
}

/// An entry of a mapping.
pub(super) struct Entry {
    pub(super) key: String,
    /// The key was written without quotes.
    pub(super) plain: bool,
    pub(super) at: Position,
    pub(super) value: Rc<Node>,
}

impl Node {
    pub(super) fn new(at: Position, content: Content) -> Self {
        let (weight, depth) = match &content {
            Content::Scalar(_) => (1, 0),
            Content::Sequence(items) => extent(items.iter()),
            Content::Mapping(entries) => extent(entries.iter().map(|entry| &entry.value)),
        };
        Self {
            at,
            content,
            weight,
            depth,
        }
    }

    /// Nothing, as an absent or empty value is.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(scalar) if scalar.is_null())
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Scalar(scalar) if scalar.is_null() => "nothing",
            Content::Scalar(_) => "a single value",
            Content::Sequence(_) => "a list",
            Content::Mapping(_) => "a mapping",
        }
    }

    /// Where a character of it stands, counted from 0; where it begins, if that can't be told.
    pub(super) fn place_of(&self, character: usize) -> Position {
        match &self.content {
            Content::Scalar(scalar) if scalar.written.is_none() => {
                self.at.behind(character + usize::from(!scalar.plain))
            }
            _ => self.at,
        }
    }

    /// A message about this value as it may be shown: what came from variables may be a secret that was put into the
    /// wrong key, so the variables take the place of the value.
    pub(super) fn conceal(&self, message: &str) -> String {
        let Content::Scalar(Scalar {
            text,
            written: Some(written),
            ..
        }) = &self.content
        else {
            return message.to_owned();
        };
        let written = quotable(written);
        let message = message.replace(&format!("`{text}`"), &format!("`{written}`"));
        if text.len() < LEAST_TELLING_BYTES {
            return message;
        }
        message.replace(text.as_str(), &written)
    }

    /// Reports each variable in it that could not be replaced, with the path of its key. Whether there was one.
    pub(super) fn report_faults(&self, path: &str, problems: &Problems) -> bool {
        match &self.content {
            Content::Scalar(scalar) => match &scalar.fault {
                Some(fault) => {
                    problems.add(self.at, path, fault.as_str());
                    true
                }
                None => false,
            },
            Content::Sequence(items) => {
                let mut found = false;
                for (index, item) in items.iter().enumerate() {
                    found |= item.report_faults(&format!("{path}[{index}]"), problems);
                }
                found
            }
            Content::Mapping(entries) => {
                let mut found = false;
                for entry in entries {
                    found |= entry.value.report_faults(&join(path, &entry.key), problems);
                }
                found
            }
        }
    }
}

fn extent<'n>(children: impl Iterator<Item = &'n Rc<Node>>) -> (usize, usize) {
    children.fold((1, 1), |(weight, depth), child| {
        (weight.saturating_add(child.weight), depth.max(child.depth + 1))
    })
}

impl Scalar {
    /// A value made of variables is never null: an empty variable is an empty text.
    pub(super) fn is_null(&self) -> bool {
        self.plain
            && self.written.is_none()
            && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// The path of a key in the mapping at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    let key = quotable(key);
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}
