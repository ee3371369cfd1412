//! Finds what stands at a few paths of a document, in one walk over its bytes: no tree is built, and nothing is copied.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Path, Step};

/// Paths that are looked for together. Each means a single value: one with `[*]` is never found.
#[derive(Clone, Debug)]
pub struct Finder {
    /// The paths as one tree; the first node is the document.
    nodes: Vec<Node>,
    paths: usize,
}

#[derive(Clone, Debug, Default)]
struct Node {
    next: Vec<(Step, usize)>,
    /// The paths that end here.
    wanted: Vec<usize>,
}

impl Finder {
    /// For these paths, which are counted from 0.
    #[must_use]
    pub fn new<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut finder = Self {
            nodes: vec![Node::default()],
            paths: 0,
        };
        for path in paths {
            let mut at = 0;
            for step in path.steps() {
                at = finder.child(at, step);
            }
            finder.nodes[at].wanted.push(finder.paths);
            finder.paths += 1;
        }
        finder
    }

    fn child(&mut self, of: usize, step: &Step) -> usize {
        if let Some((_, child)) = self.nodes[of].next.iter().find(|(known, _)| known == step) {
            return *child;
        }
        self.nodes.push(Node::default());
        let child = self.nodes.len() - 1;
        self.nodes[of].next.push((step.clone(), child));
        child
    }

    /// The JSON text of what stands at each path. `None` when the payload is no document; then `found` means nothing. Of a
    /// key that stands twice the last counts, as with most readers of JSON.
    pub fn find<'m>(&self, payload: &'m [u8], found: &mut [Option<&'m str>]) -> Option<()> {
        found.fill(None);
        let mut document = serde_json::Deserializer::from_slice(payload);
        self.at(0, found).deserialize(&mut document).ok()?;
        // Half a document, or one with something behind it, is none.
        document.end().ok()
    }

    /// How many paths there are.
    #[must_use]
    pub fn paths(&self) -> usize {
        self.paths
    }

    fn at<'f, 's, 'm>(&'f self, node: usize, found: &'s mut [Option<&'m str>]) -> At<'f, 's, 'm> {
        At {
            finder: self,
            node,
            found,
        }
    }

    fn forget(&self, node: usize, found: &mut [Option<&str>]) {
        let node = &self.nodes[node];
        for &path in &node.wanted {
            found[path] = None;
        }
        for &(_, child) in &node.next {
            self.forget(child, found);
        }
    }
}

/// Walks on from a node of the tree.
struct At<'f, 's, 'm> {
    finder: &'f Finder,
    node: usize,
    found: &'s mut [Option<&'m str>],
}

impl<'f> At<'f, '_, '_> {
    fn node(&self) -> &'f Node {
        &self.finder.nodes[self.node]
    }
}

impl<'m> DeserializeSeed<'m> for At<'_, '_, 'm> {
    type Value = ();

    fn deserialize<D: Deserializer<'m>>(self, document: D) -> Result<(), D::Error> {
        let node = self.node();
        if node.wanted.is_empty() {
            return document.deserialize_any(self);
        }
        let text = <&RawValue as serde::Deserialize>::deserialize(document)?.get();
        for &path in &node.wanted {
            self.found[path] = Some(text);
        }
        if node.next.is_empty() {
            return Ok(());
        }
        let mut within = serde_json::Deserializer::from_str(text);
        within.deserialize_any(self).map_err(serde::de::Error::custom)
    }
}

impl<'m> Visitor<'m> for At<'_, '_, 'm> {
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
        let node = self.node();
        for index in 0.. {
            let step = node.next.iter().find(|(step, _)| *step == Step::Index(index));
            let is_there = match step {
                Some(&(_, child)) => items
                    .next_element_seed(self.finder.at(child, self.found))?
                    .is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !is_there {
                return Ok(());
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'m>>(self, mut entries: A) -> Result<(), A::Error> {
        let node = self.node();
        while let Some(child) = entries.next_key_seed(Which(&node.next))? {
            match child {
                Some(child) => {
                    self.finder.forget(child, self.found);
                    entries.next_value_seed(self.finder.at(child, self.found))?;
                }
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Which of the nodes a key leads to.
struct Which<'f>(&'f [(Step, usize)]);

impl<'m> DeserializeSeed<'m> for Which<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'m>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Which<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        let next = self.0.iter().find(|(step, _)| match step {
            Step::Key(wanted) => wanted == key,
            Step::Index(_) | Step::Each => false,
        });
        Ok(next.map(|(_, child)| *child))
    }
}

/// What a JSON text says, if it is a string.
#[must_use]
pub fn string_of(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inside))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finder(paths: &[&str]) -> Finder {
        let paths: Vec<Path> = paths.iter().map(|path| path.parse().unwrap()).collect();
        Finder::new(&paths)
    }

    fn found<'m>(paths: &[&str], message: &'m str) -> Option<Vec<Option<&'m str>>> {
        let finder = finder(paths);
        let mut found = vec![Some("left from before"); finder.paths()];
        finder.find(message.as_bytes(), &mut found)?;
        Some(found)
    }

    #[test]
    fn what_stands_at_each_path_is_found_in_one_walk() {
        let message = r#"{"u": 12, "data":[[1,2],{"s":"a\"b"}], "x":{"y":null},"e":[]}"#;
        let paths = [
            "$.u",
            "$.data[1].s",
            "$.data[0]",
            "$.data[0][1]",
            "$.x.y",
            "$.none",
            "$.u.v",
            "$.e[0]",
            "$.data[9]",
        ];
        assert_eq!(
            found(&paths, message).unwrap(),
            [
                Some("12"),
                Some(r#""a\"b""#),
                Some("[1,2]"),
                Some("2"),
                Some("null"),
                None,
                None,
                None,
                None
            ]
        );
        assert_eq!(found(&["$"], " [1] ").unwrap(), [Some("[1]")]);
        assert_eq!(found(&["$.a[*]"], r#"{"a":[1]}"#).unwrap(), [None]);
        assert_eq!(found(&["$.é"], r#"{"\u00e9":1}"#).unwrap(), [Some("1")]);
    }

    #[test]
    fn of_a_key_that_stands_twice_the_last_counts() {
        let twice = r#"{"a":{"b":1},"a":{"c":2}}"#;
        assert_eq!(found(&["$.a.b", "$.a.c"], twice).unwrap(), [None, Some("2")]);
    }

    #[test]
    fn what_is_no_document_is_told_from_one_without_the_value() {
        for message in ["", "{", r#"{"a":1"#, r#"{"a":1} x"#, r#"{"a":01}"#, "nope"] {
            assert_eq!(found(&["$.a"], message), None, "{message}");
        }
        assert_eq!(found(&["$.a"], "7").unwrap(), [None]);
        assert_eq!(finder(&["$.a"]).find(b"{\"a\":\"\xff\"}", &mut [None]), None);
        let deep = "[".repeat(100_000);
        assert_eq!(found(&["$[0]"], &deep), None, "no depth of nesting harms");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, near in "[\\[\\]{}\":,ab01 ]{0,20}") {
            let finder = finder(&["$", "$.a", "$[0].b", "$.a[1]"]);
            let mut found = [None; 4];
            let _ = finder.find(&bytes, &mut found);
            let mut found = [None; 4];
            let _ = finder.find(near.as_bytes(), &mut found);
        }
    }
}
