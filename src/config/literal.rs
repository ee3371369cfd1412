//! Values as they are written, for keys whose values are compared with data: quotes decide between text and number.

use super::section::Section;
use super::tree::{Content, Node, join};
use super::value;

/// A single value of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// `null`, without quotes.
    Null,
    /// `true` or `false`, without quotes.
    Bool(bool),
    /// A number without quotes, as it is written.
    Number(String),
    /// Anything else.
    Text(String),
}

impl Section<'_> {
    /// The single value at `key`, or each of the list there. Null is a value here. `None` when the key is absent, or
    /// when a problem was reported.
    pub fn literals(&mut self, key: &str) -> Option<Vec<Literal>> {
        let node = self.node(key)?;
        let path = join(self.path(), key);
        if node.report_faults(&path, self.problems()) {
            return None;
        }
        let read = |node: &Node| match &node.content {
            Content::Scalar(scalar) => Some(value::literal(scalar)),
            Content::Sequence(_) | Content::Mapping(_) => None,
        };
        let literals: Option<Vec<_>> = match &node.content {
            Content::Sequence(items) => items.iter().map(|item| read(item)).collect(),
            Content::Scalar(_) | Content::Mapping(_) => read(node).map(|literal| vec![literal]),
        };
        if literals.as_ref().is_none_or(Vec::is_empty) {
            self.problem(key, "expected a single value, or a list of them");
            return None;
        }
        literals
    }
}
