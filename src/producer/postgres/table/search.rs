//! One walk over a message for everything that its mappings ask for: [`plan`](super::plan) says what that is.
//!
//! At each value a set of the plan's nodes is active: those whose paths lead here. Records note all their fields, as
//! [`Scanned`] does without a plan, and the values of their slots behind them. What is at a source's path decides how it
//! is read: an object is a record; so is each element of an array, if all are objects, or objects and arrays where the
//! mapping asks for elements by number; there an array of other things is a record itself. Anything else leaves the
//! source without records, and the message is kept whole.

use std::ops::Range;

use super::encode::text;
use super::keys::{ByKey, Key, KeyId, Keys};
use super::mapping::Nul;
use super::plan::{NodeId, Plan, ROOT, Slot};
use super::record::{Field, Name, Place, Scanned, Value, read_place};
use super::walk::{Kind, Rejection, Walk};

/// What was found in a message. Reused from message to message.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Of each source of the plan.
    sources: Vec<Source>,
    keys: Keys,
    /// Where a member leads to, by the node that it is a member of and its key.
    members: Vec<ByKey<Option<NodeId>>>,
    /// The message itself.
    message: Option<Place>,
    /// Whether `\u0000` stands in it.
    any_nul: bool,
    /// The message as one value, where that is asked for.
    whole: Scanned,
    /// The values of root slots, by slot.
    roots: Vec<Option<Place>>,
    /// Active nodes of all levels of the walk, the outermost first.
    active: Vec<u32>,
    /// Nodes of the objects that are open, whose members were met.
    entered: Vec<u32>,
}

#[derive(Debug, Default)]
struct Source {
    scanned: Scanned,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing stands at its path.
    #[default]
    Missing,
    /// Records, or an empty list of them.
    Records,
    /// Something that is no record.
    Other,
}

impl Found {
    /// Reads a message in place of the one before and returns its text.
    pub(super) fn read<'m>(&mut self, plan: &Plan, payload: &'m [u8]) -> Result<&'m str, Box<Rejection>> {
        let text = Scanned::checked_text(payload)?;
        self.sources.resize_with(plan.sources.len(), Source::default);
        let generation = self.keys.begin();
        for source in &mut self.sources {
            source.scanned.start(Nul::default());
            source.scanned.of_generation(generation);
            source.state = State::Missing;
        }
        self.members.resize_with(plan.nodes(), ByKey::default);
        self.members
            .iter_mut()
            .for_each(|members| members.follow(generation));
        self.roots.clear();
        self.roots.resize(plan.slots(), None);
        self.active.clear();
        self.active.push(ROOT);
        self.entered.clear();
        let mut walk = Walk::new(payload);
        walk.next();
        let place = Search {
            plan,
            text,
            found: self,
        }
        .value(&mut walk, 0, 0, 0)?;
        walk.finish()?;
        self.any_nul = walk.any_nul;
        for (source, plan) in self.sources.iter_mut().zip(&plan.sources) {
            // An empty list of records is nothing to keep; a message that is one has none.
            let is_empty_message = plan.is_message() && source.scanned.records() == 0;
            if source.state != State::Records || is_empty_message {
                source.scanned.keep_whole(place.clone());
            }
        }
        self.message = Some(place);
        Ok(text)
    }

    /// Refuses a message with `\u0000` where the rule says so.
    pub(super) fn check_nul(&self, rule: Nul) -> Result<(), Box<Rejection>> {
        if rule == Nul::DeadLetter && self.any_nul {
            return Err(Rejection::Nul.into());
        }
        Ok(())
    }

    /// The message as one value, whatever stands in it.
    pub(super) fn whole(&mut self, rule: Nul) -> &Scanned {
        self.whole.start(rule);
        if let Some(message) = &self.message {
            self.whole.keep_whole(message.clone());
        }
        &self.whole
    }

    /// The value of a root slot.
    pub(super) fn root<'m>(&self, text: &'m str, slot: u32) -> Option<Value<'m>> {
        let place = self.roots.get(slot as usize)?.as_ref()?;
        Some(place.of(text, Nul::Replace))
    }

    /// The records of a source, with these root slots as columns of each. To be asked for once.
    pub(super) fn records(&mut self, source: usize, include: &[u32], rule: Nul) -> &Scanned {
        let scanned = &mut self.sources[source].scanned;
        scanned.follow(rule);
        for &slot in include {
            if let Some(place) = &self.roots[slot as usize] {
                scanned.share(Field {
                    name: Name::Slot(slot),
                    value: place.clone(),
                });
            }
        }
        scanned
    }
}

/// The state of one walk.
struct Search<'s, 'm> {
    plan: &'s Plan,
    text: &'m str,
    found: &'s mut Found,
}

/// The numbers of the bits that are set.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        set &= set.checked_sub(1)?;
        Some(bit as usize)
    })
}

impl Search<'_, '_> {
    /// Reads a value inside of `depth` objects and arrays. Active are the nodes from `level` on; `records` are the sources
    /// of which it is a record.
    fn value(
        &mut self,
        walk: &mut Walk<'_>,
        depth: u32,
        level: usize,
        records: u64,
    ) -> Result<Place, Box<Rejection>> {
        let start = walk.position();
        let outer = (walk.nul, walk.escaped);
        (walk.nul, walk.escaped) = (false, false);
        let sources = self.found.active[level..]
            .iter()
            .fold(0, |sources, &node| sources | self.plan.node(node).sources);
        let mut opened = 0;
        let kind = match walk.peek() {
            _ if self.found.active.len() == level && records == 0 => walk.value(depth)?,
            Some(b'{') => {
                opened = sources;
                self.open(sources);
                self.object(walk, depth + 1, level, records | sources)?;
                Kind::Nested
            }
            Some(b'[') if sources != 0 => {
                opened = self.list(walk, depth, level, sources)?;
                Kind::Nested
            }
            Some(b'[') => {
                self.array(walk, depth + 1, level)?;
                Kind::Nested
            }
            _ => {
                for source in bits(sources) {
                    self.found.sources[source].state = State::Other;
                }
                walk.value(depth)?
            }
        };
        let place = Place {
            span: start..walk.position(),
            kind,
            nul: walk.nul,
            escaped: walk.escaped,
        };
        (walk.nul, walk.escaped) = (outer.0 | walk.nul, outer.1 | walk.escaped);
        for at in level..self.found.active.len() {
            self.fill(self.found.active[at], &place);
        }
        self.close(opened);
        Ok(place)
    }

    /// Hands a value to the slots that ask for it.
    fn fill(&mut self, node: u32, place: &Place) {
        let plan = self.plan;
        for slot in &plan.node(node).slots {
            match *slot {
                Slot::Root(slot) => self.found.roots[slot as usize] = Some(place.clone()),
                Slot::InRecord { source, slot } => self.found.sources[source as usize].scanned.note(Field {
                    name: Name::Slot(slot),
                    value: place.clone(),
                }),
            }
        }
    }

    /// Begins a record of each of the sources: what they ask of it becomes active.
    fn open(&mut self, sources: u64) {
        for source in bits(sources) {
            self.found.active.push(self.plan.sources[source].record);
        }
    }

    /// Ends a record of each of the sources.
    fn close(&mut self, sources: u64) {
        for source in bits(sources) {
            let source = &mut self.found.sources[source];
            source.scanned.end_record();
            if source.state == State::Missing {
                source.state = State::Records;
            }
        }
    }

    fn object(
        &mut self,
        walk: &mut Walk<'_>,
        depth: u32,
        level: usize,
        records: u64,
    ) -> Result<(), Box<Rejection>> {
        let end = self.found.active.len();
        let wanted = (level..end).any(|at| self.plan.node(self.found.active[at]).has_members());
        let entered = self.found.entered.len();
        let mut previous = KeyId::start(depth);
        walk.members(depth, |walk| {
            let key = self.found.keys.read(walk, &mut previous)?;
            walk.next();
            if wanted {
                self.step_into(walk, &key, level..end, entered)?;
            }
            let value = if self.found.active.len() == end {
                self.unasked_value(walk, depth)?
            } else {
                let value = self.value(walk, depth, end, 0)?;
                self.found.active.truncate(end);
                value
            };
            for source in bits(records) {
                self.found.sources[source].scanned.note(Field {
                    name: Name::Key(key.clone()),
                    value: value.clone(),
                });
            }
            Ok(())
        })?;
        self.found.entered.truncate(entered);
        Ok(())
    }

    /// Makes the nodes of a member active. A member that has more below it must not come twice: whose parts would count?
    fn step_into(
        &mut self,
        walk: &Walk<'_>,
        key: &Key,
        level: Range<usize>,
        entered: usize,
    ) -> Result<(), Box<Rejection>> {
        for at in level {
            let node = self.found.active[at];
            let known = self.found.members[node as usize].get(key.id);
            let Some(next) = known.unwrap_or_else(|| self.member(node, key)) else {
                continue;
            };
            if !self.plan.node(next).is_leaf() {
                if self.found.entered[entered..].contains(&next) {
                    return Err(Rejection::TwiceOnPath { at: walk.at }.into());
                }
                self.found.entered.push(next);
            }
            self.found.active.push(next);
        }
        Ok(())
    }

    /// Finds out where a member leads to, which is always the same.
    #[cold]
    fn member(&mut self, node: NodeId, key: &Key) -> Option<NodeId> {
        let raw = &self.text[key.span.start as usize..key.span.end as usize];
        let next = self.plan.node(node).member(&text::unescape(raw, Nul::Replace));
        self.found.members[node as usize].note(key.id, next);
        next
    }

    /// Reads a value of which, and of whose parts, nothing is asked for.
    fn unasked_value(&self, walk: &mut Walk<'_>, depth: u32) -> Result<Place, Box<Rejection>> {
        let outer = (walk.nul, walk.escaped);
        let place = read_place(walk, depth)?;
        (walk.nul, walk.escaped) = (outer.0 | walk.nul, outer.1 | walk.escaped);
        Ok(place)
    }

    /// An array of which some elements may be asked for.
    fn array(&mut self, walk: &mut Walk<'_>, depth: u32, level: usize) -> Result<(), Box<Rejection>> {
        let end = self.found.active.len();
        walk.elements(depth, |walk, index| {
            self.activate_element(level..end, index);
            self.value(walk, depth, end, 0)?;
            self.found.active.truncate(end);
            Ok(())
        })
    }

    fn activate_element(&mut self, level: Range<usize>, index: u32) {
        for at in level {
            let node = self.plan.node(self.found.active[at]);
            self.found.active.extend(node.element(index));
        }
    }

    /// An array at the path of these sources. Returns those of which it is one record itself, which is open then.
    fn list(
        &mut self,
        walk: &mut Walk<'_>,
        depth: u32,
        level: usize,
        sources: u64,
    ) -> Result<u64, Box<Rejection>> {
        let positional = bits(sources)
            .filter(|&source| self.plan.sources[source].positional)
            .fold(0, |set, source| set | 1 << source);
        let (objects, nested) = elements_of(walk, depth + 1)?;
        let each = if objects {
            sources
        } else if nested {
            positional
        } else {
            0
        };
        let itself = if each == 0 { positional } else { 0 };
        for source in bits(sources) {
            self.found.sources[source].state = match self.found.sources[source].state {
                State::Other => State::Other,
                _ if (each | itself) & 1 << source == 0 => State::Other,
                _ => State::Records,
            };
        }
        self.open(itself);
        let end = self.found.active.len();
        walk.elements(depth + 1, |walk, index| {
            self.activate_element(level..end, index);
            self.open(each);
            self.value(walk, depth + 1, end, each)?;
            self.close(each);
            self.found.active.truncate(end);
            Ok(())
        })?;
        Ok(itself)
    }
}

/// Whether all elements of an array are objects, and whether all are objects or arrays. Leaves the walk at the array.
fn elements_of(walk: &mut Walk<'_>, depth: u32) -> Result<(bool, bool), Box<Rejection>> {
    let (at, nul, escaped) = (walk.at, walk.nul, walk.escaped);
    let (mut objects, mut nested) = (true, true);
    walk.elements(depth, |walk, _| {
        match walk.peek() {
            Some(b'{') => {}
            Some(b'[') => objects = false,
            _ => (objects, nested) = (false, false),
        }
        walk.value(depth).map(drop)
    })?;
    (walk.at, walk.nul, walk.escaped) = (at, nul, escaped);
    Ok((objects, nested))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::FieldName;
    use super::*;
    use crate::json_path::Path;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    /// All records, each with its fields.
    fn records(scanned: &Scanned, text: &str) -> Vec<Vec<(String, String)>> {
        let field = |field: usize| {
            let name = match scanned.name(text, field) {
                FieldName::Key(key) => key.to_owned(),
                FieldName::Slot(slot) => format!("slot {slot}"),
            };
            let value = scanned.value(text, field);
            assert_eq!(value.nul, value.raw.contains("\\u0000"), "{value:?}");
            (name, value.raw.to_owned())
        };
        (0..scanned.records())
            .map(|record| scanned.record(record).map(field).collect())
            .collect()
    }

    fn json() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            Just("null".to_owned()),
            "-?[1-9][0-9]{0,3}",
            Just(r#""\u0000a""#.to_owned()),
            Just("{}".to_owned()),
            Just("[]".to_owned()),
        ];
        let value = scalar.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(", "))),
                proptest::collection::vec(("[abc]", inner), 0..4).prop_map(|fields| {
                    let fields: Vec<_> = fields
                        .iter()
                        .map(|(key, value)| format!("\"{key}\": {value}"))
                        .collect();
                    format!("{{{}}}", fields.join(","))
                }),
            ]
        });
        prop_oneof![8 => value, 1 => "[\\[\\]{}\",:ab1 ]{0,12}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_records_of_the_message_itself_are_those_that_are_found_without_a_plan(text in json()) {
            let mut plan = Plan::new();
            let source = plan.source(&path("$"), false);
            let slot = plan.root_slot(&path("$.c"));
            let (mut found, mut plain) = (Found::default(), Scanned::default());
            // The second time the keys are known.
            for _ in 0..2 {
                let searched = found.read(&plan, text.as_bytes());
                let read = plain.read(&mut Keys::default(), text.as_bytes(), Nul::Replace);
                match (searched, read) {
                    (Ok(text), Ok(_)) => {
                        // An empty list is no record here, and a message kept whole there.
                        if text.trim().replace(' ', "") != "[]" {
                            let scanned = found.records(source, &[], Nul::Replace);
                            prop_assert_eq!(records(scanned, text), records(&plain, text));
                            prop_assert_eq!(scanned.whole(text).is_some(), plain.whole(text).is_some());
                        }
                        let is_object = text.starts_with('{');
                        let last = if is_object { records(&plain, text)[0].iter().rev().find(|field| field.0 == "c").cloned() } else { None };
                        let value = found.root(text, slot).map(|value| value.raw.to_owned());
                        prop_assert_eq!(value, last.map(|(_, value)| value));
                    }
                    (Err(searched), Err(read)) => prop_assert_eq!(searched, read),
                    (searched, read) => prop_assert!(false, "{:?} {:?}", searched, read),
                }
            }
        }

        #[test]
        fn no_message_makes_the_search_panic(text in json(), bytes: Vec<u8>) {
            let mut plan = Plan::new();
            let sources = ["$", "$.a", "$.a.b[*]", "$[1]", "$[*].a", "$[0][0].b"];
            let sources = [true, false].map(|positional| sources.map(|text| plan.source(&path(text), positional))).concat();
            for &source in &sources {
                for place in ["$", "$.a", "$[0]", "$.b[1].c", "$[1].a"] {
                    plan.record_slot(source, &path(place));
                }
            }
            let root = plan.own_root_slot(&path("$.a.b"));
            let mut found = Found::default();
            for payload in [text.as_bytes(), &bytes] {
                if let Ok(text) = found.read(&plan, payload) {
                    for &source in &sources {
                        let scanned = found.records(source, &[root], Nul::Strip);
                        records(scanned, text);
                        prop_assert!(scanned.records() == 0 || scanned.whole(text).is_none());
                    }
                }
            }
        }
    }
}
