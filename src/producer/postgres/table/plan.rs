//! What is to be found in a message, for all mappings of a stage together: their paths as one tree, so that a message is
//! walked once whatever they ask for.
//!
//! Values that are asked for one by one get *slots*: from the message's root (`when`, `include`) or from a record
//! (`columns` by path). Records are gathered by *sources*, one for each different `records` path, and another one where
//! arrays can be records as well.

use std::collections::HashMap;

use crate::json_path::{Path, Step};

/// Sources that one stage may have, and so the tables: their sets are kept as bits.
pub(super) const MAX_SOURCES: usize = 64;

/// A place in the tree.
pub(super) type NodeId = u32;

/// A place of the tree, and what is to be done with a value there.
#[derive(Debug, Default)]
pub(super) struct Node {
    keys: Vec<(String, NodeId)>,
    indexes: Vec<(u32, NodeId)>,
    each: Option<NodeId>,
    /// Slots that the value fills.
    pub(super) slots: Vec<Slot>,
    /// Sources whose records are the value, or its elements: a bit each.
    pub(super) sources: u64,
}

/// Where a value goes that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// It was asked for from the message's root.
    Root(u32),
    /// It is a part of a record.
    InRecord { source: u32, slot: u32 },
}

/// Records of one path.
#[derive(Debug)]
pub(super) struct SourcePlan {
    path: Path,
    /// Where the paths of its records begin.
    pub(super) record: NodeId,
    /// Whether arrays can be records: something is asked for by its number.
    pub(super) positional: bool,
}

impl SourcePlan {
    /// Whether the records are the message itself, or its elements.
    pub(super) fn is_message(&self) -> bool {
        self.path.steps().is_empty()
    }
}

/// The tree.
#[derive(Debug)]
pub(super) struct Plan {
    nodes: Vec<Node>,
    pub(super) sources: Vec<SourcePlan>,
    roots: HashMap<Path, u32>,
    slots: u32,
}

/// Where the message itself stands in the tree.
pub(super) const ROOT: NodeId = 0;

impl Plan {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::default()],
            sources: Vec::new(),
            roots: HashMap::new(),
            slots: 0,
        }
    }

    /// The source of the records at a path; `positional`: arrays can be records.
    pub(super) fn source(&mut self, path: &Path, positional: bool) -> usize {
        let path = path.clone().without_last_each();
        let is_known = |source: &SourcePlan| source.path == path && source.positional == positional;
        if let Some(known) = self.sources.iter().position(is_known) {
            return known;
        }
        let index = self.sources.len();
        let node = self.node_at(ROOT, &path);
        self.nodes[node as usize].sources |= 1 << (index % MAX_SOURCES);
        let record = self.add_node();
        self.sources.push(SourcePlan {
            path,
            record,
            positional,
        });
        index
    }

    /// The slot of the value at a path from the message's root.
    pub(super) fn root_slot(&mut self, path: &Path) -> u32 {
        if let Some(&slot) = self.roots.get(path) {
            return slot;
        }
        let slot = self.own_root_slot(path);
        self.roots.insert(path.clone(), slot);
        slot
    }

    /// A new slot of its own for the value at a path from the message's root.
    pub(super) fn own_root_slot(&mut self, path: &Path) -> u32 {
        let slot = self.new_slot();
        let node = self.node_at(ROOT, path);
        self.nodes[node as usize].slots.push(Slot::Root(slot));
        slot
    }

    /// A new slot for the value at a path from each record of a source.
    pub(super) fn record_slot(&mut self, source: usize, path: &Path) -> u32 {
        let slot = self.new_slot();
        let node = self.node_at(self.sources[source].record, path);
        self.nodes[node as usize].slots.push(Slot::InRecord {
            source: u32::try_from(source).unwrap_or(u32::MAX),
            slot,
        });
        slot
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots as usize
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn new_slot(&mut self) -> u32 {
        self.slots += 1;
        self.slots - 1
    }

    fn add_node(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }

    fn node_at(&mut self, from: NodeId, path: &Path) -> NodeId {
        let mut at = from;
        for step in path.steps() {
            let node = &self.nodes[at as usize];
            let next = match step {
                Step::Key(key) => node
                    .keys
                    .iter()
                    .find(|(known, _)| known == key)
                    .map(|(_, next)| *next),
                Step::Index(index) => node
                    .indexes
                    .iter()
                    .find(|(known, _)| known == index)
                    .map(|(_, next)| *next),
                Step::Each => node.each,
            };
            at = next.unwrap_or_else(|| {
                let next = self.add_node();
                let node = &mut self.nodes[at as usize];
                match step {
                    Step::Key(key) => node.keys.push((key.clone(), next)),
                    Step::Index(index) => node.indexes.push((*index, next)),
                    Step::Each => node.each = Some(next),
                }
                next
            });
        }
        at
    }
}

impl Node {
    /// The node of a member.
    pub(super) fn member(&self, key: &str) -> Option<NodeId> {
        let known = self.keys.iter().find(|(known, _)| known == key);
        known.map(|(_, next)| *next)
    }

    /// The nodes of an element.
    pub(super) fn element(&self, index: u32) -> impl Iterator<Item = NodeId> + '_ {
        let indexed = self.indexes.iter().filter(move |(known, _)| *known == index);
        indexed.map(|(_, next)| *next).chain(self.each)
    }

    /// Whether nothing is asked for below it, so that of equal keys the last can count.
    pub(super) fn is_leaf(&self) -> bool {
        self.keys.is_empty() && self.indexes.is_empty() && self.each.is_none() && self.sources == 0
    }

    /// Whether members are asked for by their keys.
    pub(super) fn has_members(&self) -> bool {
        !self.keys.is_empty()
    }
}
