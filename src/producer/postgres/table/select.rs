//! What mappings ask of a message, in terms of the stage's plan: which messages are meant, and where the columns of a table
//! get their values: from paths, or from the keys of records.

use super::encode;
use super::keys::Target;
use super::layout::Layout;
use super::mapping::{Mapping, NewKeys, Nul};
use super::plan::Plan;
use super::search::Found;
use super::when::{Scalar, When};
use super::write::SlotColumn;
use crate::json_path::Step;

/// Conditions, by slot.
#[derive(Debug)]
pub(super) struct Conditions(Vec<(u32, Vec<Scalar>)>);

impl Conditions {
    /// Adds what they look at to the plan.
    pub(super) fn new(plan: &mut Plan, when: &When) -> Self {
        let conditions = when.0.iter();
        Self(
            conditions
                .map(|condition| (plan.root_slot(&condition.path), condition.values.clone()))
                .collect(),
        )
    }

    /// Whether a message meets all of them.
    pub(super) fn are_met(&self, found: &Found, text: &str) -> bool {
        self.0.iter().all(|(slot, values)| {
            let value = found.root(text, *slot);
            value.is_some_and(|value| values.iter().any(|wanted| wanted.is(value)))
        })
    }
}

/// The part of a plan that is of one table.
#[derive(Debug)]
pub(super) struct Selection {
    /// Where its records are gathered; `None` when it keeps whole messages.
    pub(super) source: Option<usize>,
    /// Slots that are columns of every record.
    pub(super) include: Vec<u32>,
    /// The columns of slots, by slot; those of other tables are none.
    pub(super) slots: Vec<Option<SlotColumn>>,
}

impl Selection {
    /// Adds what a mapping asks for to the plan.
    pub(super) fn new(plan: &mut Plan, mapping: &Mapping) -> Self {
        let source = (!mapping.raw).then(|| plan.source(&mapping.records, mapping.is_positional()));
        let mut selection = Self {
            source,
            include: Vec::new(),
            slots: Vec::new(),
        };
        let Some(source) = source else {
            return selection;
        };
        for include in &mapping.include {
            let slot = plan.own_root_slot(&include.path);
            selection.include.push(slot);
            selection.name(slot, &include.name);
        }
        for (name, path) in mapping.by_path() {
            let slot = plan.record_slot(source, path);
            selection.name(slot, name);
        }
        selection
    }

    fn name(&mut self, slot: u32, name: &str) {
        let slot = slot as usize;
        self.slots.resize(self.slots.len().max(slot + 1), None);
        self.slots[slot] = Some(SlotColumn {
            name: name.to_owned(),
            target: Target::Unknown,
        });
    }

    /// Finds the slots' columns in a layout.
    pub(super) fn resolve(&mut self, layout: &Layout) {
        for column in self.slots.iter_mut().flatten() {
            column.target = column_target(layout, &column.name);
        }
    }
}

/// Where the values of a key go.
pub(super) fn resolve(layout: &Layout, mapping: &Mapping, raw: &str) -> Target {
    let key = encode::text::unescape(raw, Nul::Replace);
    let is_key = |step: &Step| matches!(step, Step::Key(step) if *step == *key);
    if mapping
        .by_path()
        .any(|(_, path)| matches!(path.steps(), [step] if is_key(step)))
    {
        return Target::Skip;
    }
    let mut named = mapping
        .by_path()
        .map(|(name, _)| name)
        .chain(mapping.include.iter().map(|include| include.name.as_str()));
    if named.any(|name| name == key) {
        return Target::Taken;
    }
    let target = column_target(layout, &key);
    // What a path takes a part of is known; whether the rest of it is kept is for the keys' rule to say.
    let is_entered = || {
        mapping
            .by_path()
            .any(|(_, path)| path.steps().first().is_some_and(is_key))
    };
    if target == Target::Unknown && mapping.new_keys != NewKeys::Evolve && is_entered() {
        return Target::Skip;
    }
    target
}

/// Where the values for the column of this name go.
fn column_target(layout: &Layout, key: &str) -> Target {
    let Some(index) = layout.column_of_key(key) else {
        return Target::Unknown;
    };
    if !layout.columns[index].writable {
        return Target::Extra;
    }
    match layout.copy.iter().position(|&listed| listed == index) {
        Some(place) => Target::Listed(place),
        None => Target::Unlisted(index),
    }
}
