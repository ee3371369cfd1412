//! From a text to a tree of nodes.
//!
//! One parser reads both the values and their places, so the two can't disagree. What it accepts is YAML 1.2 as
//! configurations use it: one document, keys that are plain text and stand once, anchors, aliases and merges (`<<`).
//! Limits on depth and on the count of nodes, both with all aliases written out, keep a small file from becoming a large
//! one; the limit on its size is [`file`](super::file)'s.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::problem::{Position, Problems};
use super::tree::{Content, Entry, Node, Scalar, join};
use super::variables::{Variables, expand};

/// Deepest nesting of lists and mappings, aliases written out.
const MAX_DEPTH: usize = 64;

/// Most values of a file, aliases written out.
const MAX_NODES: usize = 50_000;

/// Reads the text of a file. `None` when it can't be parsed: then a problem was added.
pub(super) fn parse(text: &str, variables: &Variables, problems: &Problems) -> Option<Rc<Node>> {
    let mut builder = Builder {
        variables,
        problems,
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
    };
    // A byte order mark is no part of the document.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match builder.read(text) {
        Ok(()) => Some(builder.root.unwrap_or_else(|| {
            Rc::new(Node::new(
                Position::START,
                Content::Scalar(Scalar {
                    text: String::new(),
                    plain: true,
                    written: None,
                    fault: None,
                }),
            ))
        })),
        Err(Refused { at, message }) => {
            problems.add(at, "", message);
            None
        }
    }
}

/// Why parsing stopped.
struct Refused {
    at: Position,
    message: String,
}

fn refused<T>(at: Position, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused {
        at,
        message: message.into(),
    })
}

/// A list or mapping whose end is not reached yet.
struct Open {
    at: Position,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    Sequence(Vec<Rc<Node>>),
    Mapping {
        entries: Vec<Entry>,
        /// Keys so far, with the indices of their entries.
        keys: HashMap<String, usize>,
        /// Read already; its value comes next.
        key: Option<Key>,
        /// Values of `<<`.
        merges: Vec<(Position, Rc<Node>)>,
    },
}

struct Key {
    at: Position,
    text: String,
    plain: bool,
    merges: bool,
}

struct Builder<'b> {
    variables: &'b Variables,
    problems: &'b Problems,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    /// Count so far, aliases written out.
    nodes: usize,
    root: Option<Rc<Node>>,
}

impl Builder<'_> {
    fn read(&mut self, text: &str) -> Result<(), Refused> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| Refused {
                at: Position::of(error.marker()),
                message: format!("this is no YAML: {}", error.info()),
            })?;
            let at = Position::of(&span.start);
            match event {
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return refused(
                            at,
                            "a second document begins here; a configuration is a single one",
                        );
                    }
                }
                Event::Alias(anchor) => self.alias(at, anchor)?,
                Event::Scalar(text, style, anchor, tag) => {
                    let plain = style == ScalarStyle::Plain && !is_text(at, tag.as_deref())?;
                    self.scalar(at, &text, plain, anchor)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    refuse_tag(at, tag.as_deref())?;
                    self.open(at, anchor, OpenContent::Sequence(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    refuse_tag(at, tag.as_deref())?;
                    let content = OpenContent::Mapping {
                        entries: Vec::new(),
                        keys: HashMap::new(),
                        key: None,
                        merges: Vec::new(),
                    };
                    self.open(at, anchor, content)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
            }
        }
        Ok(())
    }

    /// Whether what comes next is the key of a mapping.
    fn expects_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                content: OpenContent::Mapping { key: None, .. },
                ..
            })
        )
    }

    fn alias(&mut self, at: Position, anchor: usize) -> Result<(), Refused> {
        if self.expects_key() {
            return refused(at, "an alias can't be a key");
        }
        let Some(node) = self.anchors.get(&anchor).map(Rc::clone) else {
            return refused(at, "an alias stands inside of what it names");
        };
        let weight = node.weight;
        self.place(at, node, weight)
    }

    fn scalar(&mut self, at: Position, text: &str, plain: bool, anchor: usize) -> Result<(), Refused> {
        if let Some(Open {
            content: OpenContent::Mapping { key: key @ None, .. },
            ..
        }) = self.open.last_mut()
        {
            *key = Some(Key {
                at,
                text: text.to_owned(),
                plain,
                merges: plain && text == "<<",
            });
            return Ok(());
        }
        let mut scalar = Scalar {
            text: text.to_owned(),
            plain,
            written: None,
            fault: None,
        };
        match expand(text, self.variables) {
            Ok(None) => {}
            Ok(Some(expanded)) => {
                scalar.written = expanded.from_variables.then(|| text.to_owned());
                scalar.text = expanded.text;
            }
            Err(error) => scalar.fault = Some(error.to_string()),
        }
        let node = Rc::new(Node::new(at, Content::Scalar(scalar)));
        self.remember(anchor, &node);
        self.place(at, node, 1)
    }

    fn open(&mut self, at: Position, anchor: usize, content: OpenContent) -> Result<(), Refused> {
        if self.expects_key() {
            return refused(
                at,
                "a key must be plain text (did you mean to quote a value that begins with `{` or `[`?)",
            );
        }
        if self.open.len() >= MAX_DEPTH {
            return refused(at, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.open.push(Open { at, anchor, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        let Some(Open { at, anchor, content }) = self.open.pop() else {
            return Ok(());
        };
        let content = match content {
            OpenContent::Sequence(items) => Content::Sequence(items),
            OpenContent::Mapping {
                mut entries,
                mut keys,
                merges,
                ..
            } => {
                for (at, merged) in &merges {
                    self.merge(&mut entries, &mut keys, *at, merged, true)?;
                }
                Content::Mapping(entries)
            }
        };
        let node = Rc::new(Node::new(at, content));
        self.remember(anchor, &node);
        self.place(at, node, 1)
    }

    /// Adds the entries of `merged` whose keys are not there yet. They are counted already: as the value of `<<`.
    fn merge(
        &mut self,
        entries: &mut Vec<Entry>,
        keys: &mut HashMap<String, usize>,
        at: Position,
        merged: &Node,
        lists: bool,
    ) -> Result<(), Refused> {
        match &merged.content {
            Content::Mapping(others) => {
                for other in others {
                    if !keys.contains_key(&other.key) {
                        keys.insert(other.key.clone(), entries.len());
                        entries.push(Entry {
                            key: other.key.clone(),
                            plain: other.plain,
                            at: other.at,
                            value: Rc::clone(&other.value),
                        });
                    }
                }
                Ok(())
            }
            Content::Sequence(items) if lists => {
                for item in items {
                    self.merge(entries, keys, at, item, false)?;
                }
                Ok(())
            }
            Content::Sequence(_) | Content::Scalar(_) => {
                refused(at, "`<<` takes a mapping, or a list of mappings, to merge")
            }
        }
    }

    /// Keeps a value for its aliases; the parser numbers anchors from 1.
    fn remember(&mut self, anchor: usize, node: &Rc<Node>) {
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(node));
        }
    }

    /// Puts a complete value where it belongs. It counts as `weight` values: 1, for what it holds is counted already,
    /// or all of them when it is repeated by an alias.
    fn place(&mut self, at: Position, node: Rc<Node>, weight: usize) -> Result<(), Refused> {
        self.count(at, weight)?;
        if self.open.len() + node.depth > MAX_DEPTH {
            return refused(at, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(OpenContent::Sequence(items)) => items.push(node),
            Some(OpenContent::Mapping {
                entries,
                keys,
                key,
                merges,
            }) => {
                // A value without a key can't come: the parser hands over both.
                let Some(Key {
                    at,
                    text,
                    plain,
                    merges: is_merge,
                }) = key.take()
                else {
                    return refused(at, "a value without a key");
                };
                if is_merge {
                    merges.push((at, node));
                } else if let Some(first) = keys.get(&text) {
                    let line = entries.get(*first).map_or(0, |entry| entry.at.line);
                    let path = self.path_of(&text);
                    self.problems
                        .add(at, path, format!("stands twice; first in line {line}"));
                } else {
                    keys.insert(text.clone(), entries.len());
                    entries.push(Entry {
                        key: text,
                        plain,
                        at,
                        value: node,
                    });
                }
            }
        }
        Ok(())
    }

    /// Path of a key of the innermost open mapping.
    fn path_of(&self, key: &str) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.content {
                OpenContent::Sequence(items) => path.push_str(&format!("[{}]", items.len())),
                OpenContent::Mapping { key: Some(key), .. } => {
                    path = join(&path, &key.text);
                }
                OpenContent::Mapping { key: None, .. } => {}
            }
        }
        join(&path, key)
    }

    fn count(&mut self, at: Position, new: usize) -> Result<(), Refused> {
        self.nodes = self.nodes.saturating_add(new);
        if self.nodes > MAX_NODES {
            return refused(at, format!("more than {MAX_NODES} values, aliases written out"));
        }
        Ok(())
    }
}

/// Whether the tag says that a scalar is text whatever it looks like.
fn is_text(at: Position, tag: Option<&Tag>) -> Result<bool, Refused> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        tag => refuse_tag(at, tag).map(|()| false),
    }
}

fn refuse_tag(at: Position, tag: Option<&Tag>) -> Result<(), Refused> {
    match tag {
        None => Ok(()),
        Some(_) => refused(
            at,
            "tags (`!…`) have no meaning here; quote a text that begins with `!`",
        ),
    }
}
