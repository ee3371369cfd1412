//! The commit: what was inserted becomes durable, then visible, then answered; and what the book must say before and after it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::generation;
use super::meta::StageEntry;
use super::options::Durability;
use super::state::{StageState, lock};
use super::writer::{COMMIT_BYTES, Inserted, Writer};
use crate::record::Offset;
use crate::stage::Appended;
use crate::stage::path::Extent;

/// With `durability: interval`, a commit comes early when this share of the queue waits for it.
const QUEUE_SHARE: usize = 2;

impl Writer {
    /// Whether what is inserted has waited long enough.
    pub(super) fn is_commit_due(&self) -> bool {
        if !self.answers.is_empty() {
            return true;
        }
        match (self.shared.options.durability, self.uncommitted_since) {
            (_, None) => false,
            (Durability::Fsync, Some(_)) => true,
            (Durability::Interval(interval), Some(since)) => {
                since.elapsed() >= interval
                    || self.uncommitted_bytes >= COMMIT_BYTES
                    || self.uncommitted_payload >= self.shared.options.tuning.queue_bytes / QUEUE_SHARE
                    || self.shared.awaiting_room.load(Ordering::SeqCst) > 0
            }
        }
    }

    /// Whether everything inserted is committed.
    pub(super) fn uncommitted_is_empty(&self) -> bool {
        self.uncommitted_since.is_none()
    }

    /// Makes what is inserted durable; heads stay.
    pub(super) fn sync(&mut self) -> Result<(), String> {
        *lock(&self.shared.commit_began) = Some(Instant::now());
        let outcome = self.open.database.commit();
        *lock(&self.shared.commit_began) = None;
        self.uncommitted_bytes = 0;
        outcome
    }

    /// Makes everything inserted durable, publishes the heads and answers.
    pub(super) fn commit(&mut self) -> Result<(), String> {
        if self.uncommitted_since.take().is_some() {
            self.step("commit: inserted");
            self.sync()?;
            self.step("commit: synced");
        }
        self.uncommitted_payload = 0;
        // Before the heads: whoever sees a message knows of the outages before it.
        for (stage, end, at) in self.recorded.drain(..) {
            stage.seen_at(at);
            stage.publish_outages(end);
        }
        if !self.inserted.is_empty() {
            self.publish();
        }
        for answer in self.answers.drain(..) {
            let at = Offset::ZERO;
            drop(answer.send(Ok(Appended::Staged { first: at, end: at })));
        }
        if self.is_time_to_roll() && self.is_disk_free()? {
            self.roll()?;
        }
        Ok(())
    }

    fn publish(&mut self) {
        let per_stage = self.shared.options.tuning.ring_bytes / self.lanes.len().max(1);
        {
            let mut catalog = self.shared.catalog_mut();
            if let Some(generation) = catalog.get_mut(&self.open.number) {
                for inserted in &self.inserted {
                    let (first, end) = (inserted.batch.first, inserted.batch.end());
                    let extent = generation
                        .extents
                        .entry(inserted.stage.name.clone())
                        .or_insert(Extent::empty_at(first));
                    extent.end = end;
                    extent.period = self.lanes.get(&inserted.stage.name).and_then(|lane| lane.period);
                    extent.messages += inserted.batch.batch.len() as u64;
                }
            }
        }
        for inserted in &self.inserted {
            lock(&inserted.stage.ring).push(Arc::clone(&inserted.batch), per_stage);
        }
        let mut heads: BTreeMap<&str, &Inserted> = BTreeMap::new();
        for inserted in &self.inserted {
            heads.insert(&inserted.stage.name, inserted);
        }
        for last in heads.values() {
            if let Some(at) = last.batch.batch.received_last() {
                last.stage.seen_at(at);
            }
            last.stage.publish_head(last.batch.end());
        }
        for inserted in self.inserted.drain(..) {
            if let Some(answer) = inserted.answer {
                let (first, end) = (inserted.batch.first, inserted.batch.end());
                drop(answer.send(Ok(Appended::Staged { first, end })));
            }
        }
    }

    /// Writes the acks and a recent head of every stage, which makes a loss at the tail visible. Not yet durable. Returns
    /// whether anything is new.
    pub(super) fn put_heads_and_cursors(&mut self) -> Result<bool, String> {
        let meta = self.shared.meta()?;
        let mut new = false;
        for (name, lane) in &self.lanes {
            let entry = entry_of(&lane.state, lane.reserved);
            if self.booked.get(name) != Some(&entry) {
                meta.put_stage(name, &entry)?;
                self.booked.insert(name.clone(), entry);
                new = true;
            }
            new |= lock(&lane.state.cursors).write_down(&meta, name)?;
        }
        Ok(new)
    }

    /// Sees to it that `count` more offsets are reserved durably.
    pub(super) fn reserve(&mut self, stage: &str, count: u64) -> Result<(), String> {
        self.unmark_clean()?;
        let block = self.shared.options.tuning.reservation;
        let Some(lane) = self.lanes.get_mut(stage) else {
            return Ok(());
        };
        let needed = lane.next.advanced_by(count);
        if needed <= lane.reserved {
            return Ok(());
        }
        let end = needed.advanced_by(block);
        lane.reserved = end;
        let entry = entry_of(&lane.state, end);
        self.shared.meta()?.put_stage(stage, &entry)?;
        self.shared.meta()?.commit()?;
        generation::reserve(&self.open.database, stage, end)?;
        lane.state.reserved.store(end.get(), Ordering::SeqCst);
        Ok(())
    }

    /// Before the first append a stop is no longer clean, durably.
    pub(super) fn unmark_clean(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.marked_clean) {
            self.shared.meta()?.mark_clean(false)?;
            self.shared.meta()?.commit()?;
        }
        Ok(())
    }

    /// Commits everything and marks the stop as clean.
    pub(super) fn close(&mut self) -> Result<(), String> {
        let stages: Vec<_> = self.lanes.keys().cloned().collect();
        for stage in stages {
            self.record_refused(&stage)?;
        }
        self.commit()?;
        self.put_heads_and_cursors()?;
        self.shared.meta()?.commit()?;
        self.step("close: heads");
        self.shared.meta()?.mark_clean(true)?;
        self.shared.meta()?.commit()
    }
}

/// A stage's entry in the book, with a head that is durable.
pub(super) fn entry_of(stage: &StageState, reserved: Offset) -> StageEntry {
    let head = stage.head();
    let heard = *lock(&stage.heard);
    StageEntry {
        reserved,
        head,
        staged: Some(stage.staged(head)),
        is_uncounted: stage.is_uncounted,
        refused: stage.refused.load(Ordering::Relaxed),
        seen_at: heard.seen_at,
        stopped_at: heard.stopped_at,
    }
}
