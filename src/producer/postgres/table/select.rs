//! What one mapping asks of a message, in terms of the stage's plan: is the message for it, and where do its columns
//! get their values.

use super::keys::Target;
use super::layout::Layout;
use super::mapping::Mapping;
use super::plan::Plan;
use super::search::Found;
use super::when::{Scalar, When};
use super::write::{SlotColumn, column_target};

/// The part of a plan that is of one mapping.
#[derive(Debug)]
pub(super) struct Selection {
    when: Vec<(u32, Vec<Scalar>)>,
    pub(super) source: usize,
    /// Slots that are columns of every record.
    pub(super) include: Vec<u32>,
    /// The columns of slots, by slot.
    pub(super) slots: Vec<Option<SlotColumn>>,
}

impl Selection {
    /// Adds what a mapping asks for to the plan. `None`, and nothing added, when it takes messages as they are.
    pub(super) fn new(plan: &mut Plan, when: &When, mapping: &Mapping) -> Option<Self> {
        let plain = when.0.is_empty()
            && mapping.include.is_empty()
            && mapping.records.steps().is_empty()
            && mapping.by_path().next().is_none();
        if plain {
            return None;
        }
        let conditions = when.0.iter();
        let mut selection = Self {
            when: conditions
                .map(|condition| (plan.root_slot(&condition.path), condition.values.clone()))
                .collect(),
            source: plan.source(&mapping.records),
            include: Vec::new(),
            slots: Vec::new(),
        };
        for include in &mapping.include {
            let slot = plan.own_root_slot(&include.path);
            selection.include.push(slot);
            selection.name(slot, &include.name);
        }
        for (name, path) in mapping.by_path() {
            let slot = plan.record_slot(selection.source, path);
            selection.name(slot, name);
        }
        Some(selection)
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

    /// Whether a message meets all conditions.
    pub(super) fn matches(&self, found: &Found, text: &str) -> bool {
        self.when.iter().all(|(slot, values)| {
            let value = found.root(text, *slot);
            value.is_some_and(|value| values.iter().any(|wanted| wanted.is(value)))
        })
    }
}
