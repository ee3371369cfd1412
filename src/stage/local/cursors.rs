//! The stage's own copies of its cursors, and which of them the book has already.
//!
//! Invariant: what differs from the book is written there by the committing thread before long, or at once by a
//! [`pin`](pin()); what is forgotten is in neither.

use std::collections::BTreeMap;

use super::meta::Meta;
use super::state::{Shared, StageState, lock};
use crate::record::Offset;

/// The cursors of one stage, by producer.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    now: BTreeMap<String, Offset>,
    booked: BTreeMap<String, Offset>,
}

impl Cursors {
    /// As the book has them.
    pub(super) fn booked(cursors: BTreeMap<String, Offset>) -> Self {
        Self {
            booked: cursors.clone(),
            now: cursors,
        }
    }

    pub(super) fn now(&self) -> &BTreeMap<String, Offset> {
        &self.now
    }

    /// Sets one, in memory.
    pub(super) fn set(&mut self, producer: &str, next: Offset) {
        self.now.insert(producer.to_owned(), next);
    }

    /// Writes down those that the book does not have so, not yet durably. Returns whether there were any.
    pub(super) fn write_down(&mut self, meta: &Meta, stage: &str) -> Result<bool, String> {
        let mut is_new = false;
        for (producer, next) in &self.now {
            if self.booked.get(producer) != Some(next) {
                meta.put_cursor(stage, producer, *next)?;
                self.booked.insert(producer.clone(), *next);
                is_new = true;
            }
        }
        Ok(is_new)
    }

    fn remove(&mut self, producer: &str) -> bool {
        self.booked.remove(producer);
        self.now.remove(producer).is_some()
    }
}

/// Sets a cursor, durably before it returns. On a full disk it is durable once there is room.
pub(super) fn pin(shared: &Shared, stage: &StageState, producer: &str, next: Offset) -> Result<(), String> {
    lock(&stage.cursors).set(producer, next);
    stage.changed.send_replace(());
    if !shared.has_room_for_book()? {
        return Ok(());
    }
    let meta = shared.meta()?;
    lock(&stage.cursors).write_down(&meta, &stage.name)?;
    meta.commit()
}

/// Forgets a cursor durably; `false` when there is none.
pub(super) fn forget(shared: &Shared, stage: &StageState, producer: &str) -> Result<bool, String> {
    // Locked until it is gone from the book: it must not be written down again meanwhile.
    let mut cursors = lock(&stage.cursors);
    if !cursors.remove(producer) {
        return Ok(false);
    }
    // And what was told of it.
    lock(&stage.reports).remove(producer);
    stage.changed.send_replace(());
    let meta = shared.meta()?;
    meta.remove_cursor(&stage.name, producer)?;
    meta.commit()?;
    Ok(true)
}
