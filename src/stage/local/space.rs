//! Space: when the open generation is sealed, and which generations are dropped.
//!
//! Invariants:
//! * A drop leaves a trail: acks, what is dropped undelivered, and the intent are durable before anything is closed or renamed,
//!   so that a crash in between never looks like a missing generation.
//! * A roll makes the new generation durable, then the old one's seal in the book, and only then appends to the new one.
//! * Generations go oldest first.

use std::sync::Arc;

use super::carried;
use super::database::{Database, Opened};
use super::disk;
use super::gaps;
use super::generation;
use super::meta::GenerationEntry;
use super::options::OnFull;
use super::state::{Generation, describe, lock, read};
use super::writer::{OpenGeneration, Writer};
use crate::record::{Offset, Timestamp};
use crate::stage::path::{Extent, GenerationState};
use crate::stage::{Gap, GapCause};

/// A generation that is delivered and past its retention is sealed early once it holds this share of its size, to be dropped.
const EARLY_SEAL_SHARE: u64 = 4;

/// Who still needs a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    /// Nobody.
    Free,
    /// Only stages that no producer delivers.
    Orphan,
    /// A producer that has not delivered all of it.
    Undelivered,
}

impl Writer {
    /// Drops the oldest generation although its retention is not over, if that is allowed. `false` when nothing may go.
    pub(super) fn give_up_oldest(&mut self) -> Result<bool, String> {
        if self.finish_drops()? {
            return Ok(true);
        }
        let Some((number, generation)) = self.oldest_generation() else {
            return Ok(false);
        };
        let allowed = match self.pin(&generation) {
            Pin::Free | Pin::Orphan => true,
            Pin::Undelivered => self.shared.options.on_full == OnFull::DropOldest,
        };
        // An open generation without data would give nothing back.
        let is_worth_it = number != self.open.number || !generation.extents.is_empty();
        if !allowed || !is_worth_it {
            return Ok(false);
        }
        if number == self.open.number {
            self.commit()?;
            if number == self.open.number && !self.roll()? {
                return Ok(false);
            }
        }
        self.drop_generation(number)
    }

    fn oldest_generation(&self) -> Option<(u64, Generation)> {
        self.shared
            .catalog()
            .iter()
            .find(|(_, generation)| generation.entry.state != GenerationState::Dropping)
            .map(|(number, generation)| (*number, generation.clone()))
    }

    fn pin(&self, generation: &Generation) -> Pin {
        let mut pin = Pin::Free;
        for (name, extent) in &generation.extents {
            let stage = self.shared.stages.get(name);
            // What is given up, or lost, needs nobody.
            if stage.is_some_and(|stage| {
                read(&stage.gaps)
                    .dense_between(extent.first, extent.end)
                    .is_empty()
            }) {
                continue;
            }
            match stage.map(|stage| stage.least_cursor()) {
                Some(Some(cursor)) if cursor < extent.end => return Pin::Undelivered,
                Some(Some(_)) => {}
                Some(None) | None => pin = Pin::Orphan,
            }
        }
        pin
    }

    /// What has to be done now and then: retention, age, and what a crash would otherwise forget.
    pub(super) fn housekeep(&mut self) -> Result<(), String> {
        // On a full disk the book lags behind: what the reserve gave back is for reading what is staged.
        if self.shared.has_room_for_routine()? && self.put_heads_and_cursors()? {
            self.shared.meta()?.commit()?;
        }
        self.measure_open()?;
        let wants_to_roll = self.is_time_to_roll() || self.is_worth_an_early_seal();
        if wants_to_roll && self.uncommitted_is_empty() && self.is_disk_free()? {
            self.roll()?;
        }
        self.finish_drops()?;
        while let Some((number, generation)) = self.oldest_generation() {
            let over = self.pin(&generation) == Pin::Free && self.is_retention_over(&generation);
            if number == self.open.number || !over || !self.drop_generation(number)? {
                break;
            }
        }
        self.thin_gaps()
    }

    fn is_retention_over(&self, oldest: &Generation) -> bool {
        let retention = self.shared.options.retention;
        let since = oldest.entry.sealed_at.unwrap_or(oldest.entry.made_at);
        let age = Timestamp::now().micros().saturating_sub(since.micros());
        if u128::try_from(age).is_ok_and(|age| age >= retention.age.as_micros()) {
            return true;
        }
        let delivered: u64 = self
            .shared
            .catalog()
            .values()
            .filter(|generation| generation.entry.state == GenerationState::Sealed)
            .filter(|generation| self.pin(generation) == Pin::Free)
            .map(|generation| generation.bytes)
            .sum();
        delivered > retention.bytes
    }

    /// Whether the open generation could be dropped at once if it were sealed, and gives back enough to be worth it.
    fn is_worth_an_early_seal(&self) -> bool {
        let catalog = self.shared.catalog();
        let Some(generation) = catalog.get(&self.open.number).cloned() else {
            return false;
        };
        drop(catalog);
        let retention = self.shared.options.retention;
        let old = self
            .open
            .first_data
            .is_some_and(|first| first.elapsed() >= retention.age);
        (old || generation.bytes > retention.bytes)
            && self.open.record_bytes >= self.seal_bytes() / EARLY_SEAL_SHARE
            && self.pin(&generation) == Pin::Free
    }

    fn seal_bytes(&self) -> u64 {
        let options = &self.shared.options;
        // sled takes more than twice the bytes of the records, and something must be left to be dropped.
        options.tuning.seal_bytes.min(options.max_bytes / 8).max(1)
    }

    /// Whether the open generation is full or old.
    pub(super) fn is_time_to_roll(&self) -> bool {
        let old = self
            .open
            .first_data
            .is_some_and(|first| first.elapsed() >= self.shared.options.tuning.seal_age);
        self.open.record_bytes >= self.seal_bytes() || old
    }

    /// Seals the open generation and goes on in a new one; `false` when there is no room for one. Everything inserted must be
    /// committed.
    pub(super) fn roll(&mut self) -> Result<bool, String> {
        let shared = Arc::clone(&self.shared);
        let (old, new) = (self.open.number, self.open.number + 1);
        let tuning = &shared.options.tuning;
        if !shared.has_room_to_open()? {
            return Ok(false);
        }
        let reserved = self
            .lanes
            .iter()
            .map(|(name, lane)| (name.as_str(), lane.reserved));
        let mut carried = Vec::new();
        for stage in self.lanes.keys() {
            let end = shared
                .catalog()
                .get(&old)
                .and_then(|generation| Some(generation.extents.get(stage)?.end));
            carried.push(carried::trailing(&self.open.database, stage, end)?);
        }
        generation::create(&shared.path, new, tuning, shared.id, reserved, &carried)
            .map_err(|error| describe(&error))?;
        self.step("roll: created");

        let made_at = Timestamp::now();
        let mut sealed = shared
            .catalog()
            .get(&old)
            .cloned()
            .ok_or("the open generation is not in the catalog")?;
        sealed.entry.sealed_at = Some(made_at);
        sealed.entry.state = GenerationState::Sealed;
        for (stage, extent) in &sealed.extents {
            shared.meta()?.put_extent(old, stage, extent)?;
        }
        self.put_heads_and_cursors()?;
        shared.meta()?.put_generation(old, &sealed.entry)?;
        let entry = GenerationEntry {
            state: GenerationState::Open,
            made_at,
            sealed_at: None,
            summed: false,
        };
        for (stage, lane) in &self.lanes {
            shared
                .meta()?
                .put_extent(new, stage, &Extent::empty_at(lane.next))?;
        }
        shared.meta()?.put_generation(new, &entry)?;
        shared.meta()?.commit()?;
        self.step("roll: sealed");

        let dir = generation::dir_of(&shared.path, new);
        let opened = Database::open(
            &dir,
            generation::open_settings(tuning),
            &shared.trial,
            &shared.poison,
        );
        let database = match opened.map_err(|error| describe(&error))? {
            Opened::Sound(database) => Arc::new(database),
            Opened::Condemned(reason) => return Err(reason),
        };
        shared.catalog_mut().insert(
            new,
            Generation {
                entry,
                extents: std::collections::BTreeMap::new(),
                sums: Vec::new(),
                bytes: 0,
            },
        );
        for (lane, carried) in self.lanes.values_mut().zip(&carried) {
            lane.tree = None;
            lane.period = carried.period;
        }
        let before = std::mem::replace(
            &mut self.open,
            OpenGeneration {
                number: new,
                database: Arc::clone(&database),
                record_bytes: 0,
                first_data: None,
            },
        );
        // Who reads the old one finds it in one place or the other.
        shared.sealed.take_over(old, before.database);
        *super::state::write(&shared.open) = Some((new, database));
        // Only now: the keeper opens anew whatever the catalog calls sealed.
        shared.catalog_mut().insert(old, sealed);
        // When the keeper has enough to do already it looks anyway.
        self.keeper.try_send(()).ok();
        self.room.forget();
        Ok(true)
    }

    /// Drops a sealed generation. `false` when somebody still reads it, or there is no room to write down that it goes: it
    /// goes a little later.
    fn drop_generation(&mut self, number: u64) -> Result<bool, String> {
        let shared = Arc::clone(&self.shared);
        let Some(generation) = shared.catalog().get(&number).cloned() else {
            return Ok(false);
        };
        if !shared.has_room_for_book()? {
            return Ok(false);
        }
        self.put_heads_and_cursors()?;
        for (name, extent) in &generation.extents {
            let Some(stage) = shared.stages.get(name) else {
                continue;
            };
            let undelivered = stage.least_cursor().unwrap_or(Offset::ZERO).max(extent.first);
            let dropped = read(&stage.gaps).dense_between(undelivered, extent.end);
            let dropped = dropped.into_iter().map(|(from, to)| Gap {
                period: extent.period,
                ..gaps::of_messages(from, to, GapCause::DroppedOldest)
            });
            lock(&stage.ring).forget_before(extent.end);
            shared.record_gaps(stage, dropped.collect())?;
        }
        let entry = GenerationEntry {
            state: GenerationState::Dropping,
            ..generation.entry
        };
        shared.meta()?.put_generation(number, &entry)?;
        shared.meta()?.commit()?;
        self.step("drop: intended");
        if let Some(generation) = shared.catalog_mut().get_mut(&number) {
            generation.entry = entry;
        }
        for stage in shared.stages.values() {
            stage.changed.send_replace(());
        }
        self.remove(number)
    }

    /// Goes on with drops that somebody's reading has held up. Returns whether anything is removed.
    fn finish_drops(&mut self) -> Result<bool, String> {
        let dropping: Vec<_> = self
            .shared
            .catalog()
            .iter()
            .filter(|(_, generation)| generation.entry.state == GenerationState::Dropping)
            .map(|(number, _)| *number)
            .collect();
        let mut removed = false;
        for number in dropping {
            removed |= self.remove(number)?;
        }
        Ok(removed)
    }

    fn remove(&mut self, number: u64) -> Result<bool, String> {
        let shared = Arc::clone(&self.shared);
        if !shared.close_for_good(number) {
            return Ok(false);
        }
        let dir = generation::dir_of(&shared.path, number);
        disk::remove_durably(&dir).map_err(|error| describe(&error))?;
        self.step("drop: removed");
        shared.meta()?.remove_generation(number)?;
        shared.meta()?.commit()?;
        shared.catalog_mut().remove(&number);
        self.room.forget();
        tracing::debug!(generation = number, "a generation is dropped");
        Ok(true)
    }

    fn thin_gaps(&self) -> Result<(), String> {
        for (name, stage) in &self.shared.stages {
            let oldest = self.shared.bounds(stage).oldest;
            let change = super::state::write(&stage.gaps).thin_before(oldest);
            if !change.added.is_empty() {
                stage.changed.send_replace(());
                self.shared.meta()?.put_gaps(name, &change)?;
            }
        }
        Ok(())
    }
}
