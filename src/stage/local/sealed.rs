//! Sealed generations: closed while nobody reads them, verified before sled opens them, moved aside when damaged.
//!
//! A generation is opened and closed once more after it was filled: sled then writes a snapshot that covers the whole file, and
//! from then on the files no longer change, so their checksums in the book tell damage from health. Without checksums
//! (a crash came between), or where they differ but a trial finds the database sound, every record is looked at instead.
//!
//! Invariants: at most [`MAX_SEALED_OPEN`] are open unless more are being read at once; what a damaged generation held is
//! recorded as lost before its directory is moved to `damaged-*`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::database::{Database, Opened, wait_until_closed};
use super::disk::{self, DiskError, FileSum};
use super::gaps;
use super::generation;
use super::options::MAX_SEALED_OPEN;
use super::state::{Generation, Shared, describe, lock, read};
use super::trial::Verdict;
use crate::record::Timestamp;
use crate::stage::StageError;
use crate::stage::path::GenerationState;

/// An open generation that nobody has read for this long is closed.
const IDLE: Duration = Duration::from_secs(5);

/// How often it is looked whether there is room to open one.
const ROOM_POLL: Duration = Duration::from_millis(100);

/// A file that can't be read is tried once more after this long: a moment's failure is no damage.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// Places for open databases.
#[derive(Default)]
pub(super) struct SealedStore {
    slots: Mutex<BTreeMap<u64, Arc<Mutex<Slot>>>>,
}

/// The place of one generation. Whoever opens or closes it holds the lock meanwhile.
#[derive(Default)]
struct Slot {
    database: Option<Arc<Database>>,
    last_used: Option<Instant>,
}

impl Slot {
    /// Whether it is open and nobody reads it: the count grows only under the slot's lock.
    fn is_unused(&self) -> bool {
        self.database
            .as_ref()
            .is_some_and(|database| Arc::strong_count(database) == 1)
    }
}

impl SealedStore {
    fn slot(&self, number: u64) -> Arc<Mutex<Slot>> {
        Arc::clone(lock(&self.slots).entry(number).or_default())
    }

    fn all(&self) -> Vec<(u64, Arc<Mutex<Slot>>)> {
        lock(&self.slots)
            .iter()
            .map(|(number, slot)| (*number, Arc::clone(slot)))
            .collect()
    }

    /// Takes over the generation that was appended to until now.
    pub(super) fn take_over(&self, number: u64, database: Arc<Database>) {
        let slot = self.slot(number);
        let mut slot = lock(&slot);
        slot.database = Some(database);
        slot.last_used = Some(Instant::now());
    }

    fn forget(&self, number: u64) {
        lock(&self.slots).remove(&number);
    }

    /// How many are open.
    pub(super) fn open_count(&self) -> usize {
        self.all()
            .iter()
            .filter(|(_, slot)| slot.try_lock().is_ok_and(|slot| slot.database.is_some()))
            .count()
    }
}

/// What became of the wish to read a sealed generation.
enum Sealed {
    /// Open.
    There(Arc<Database>),
    /// No more.
    Gone,
    /// Closed, and the disk too full to open it.
    NoRoom,
}

/// Whether the files of a generation are what they should be.
enum Files {
    /// As summed.
    AsSummed,
    /// Nobody knows: every record has to be looked at.
    Unknown,
    /// Damaged, for this reason.
    Damaged(String),
}

impl Shared {
    /// The database of a generation, open or sealed. `None` when it is no more.
    pub(super) fn database(&self, number: u64) -> Result<Option<Arc<Database>>, StageError> {
        if let Some((open, database)) = &*read(&self.open)
            && *open == number
        {
            return Ok(Some(Arc::clone(database)));
        }
        self.checked(self.sealed_database(number))
    }

    /// The database of a sealed generation, verified and opened if need be. `None` when it is no more: the catalog
    /// says then what became of it.
    ///
    /// On a full disk nothing is opened: this waits until there is room, or the path is closed.
    pub(super) fn sealed_database(&self, number: u64) -> Result<Option<Arc<Database>>, String> {
        loop {
            match self.sealed_unless_full(number)? {
                Sealed::There(database) => return Ok(Some(database)),
                Sealed::Gone => return Ok(None),
                // Nothing is held meanwhile: what is waited for may be dropped.
                Sealed::NoRoom => std::thread::sleep(ROOM_POLL),
            }
        }
    }

    fn sealed_unless_full(&self, number: u64) -> Result<Sealed, String> {
        let slot = self.sealed.slot(number);
        let mut guard = lock(&slot);
        // Nothing is opened once the path is closed.
        self.meta()?;
        guard.last_used = Some(Instant::now());
        if let Some(database) = &guard.database {
            return Ok(Sealed::There(Arc::clone(database)));
        }
        let Some(generation) = self.catalog().get(&number).cloned() else {
            self.sealed.forget(number);
            return Ok(Sealed::Gone);
        };
        if generation.entry.state == GenerationState::Dropping {
            return Ok(Sealed::Gone);
        }
        self.close_least_used(number)?;
        let opening = lock(&self.opening);
        if !self.has_room_to_open()? {
            return Ok(Sealed::NoRoom);
        }
        let opened = self.open_verified(number, &generation)?;
        drop(opening);
        match opened {
            Ok(database) => {
                let database = Arc::new(database);
                guard.database = Some(Arc::clone(&database));
                Ok(Sealed::There(database))
            }
            Err(reason) => {
                self.condemn(number, &generation, &reason)?;
                self.sealed.forget(number);
                Ok(Sealed::Gone)
            }
        }
    }

    /// Opens a sealed generation, or says why it is damaged.
    fn open_verified(
        &self,
        number: u64,
        generation: &Generation,
    ) -> Result<Result<Database, String>, String> {
        let files = self.check_files(number, generation)?;
        if let Files::Damaged(reason) = files {
            return Ok(Err(reason));
        }
        let dir = generation::dir_of(&self.path, number);
        let settings = generation::sealed_settings(&self.options.tuning);
        let opened = Database::open_read_through(&dir, settings, &self.trial, &self.poison);
        let database = match opened.map_err(|error| describe(&error))? {
            Opened::Condemned(reason) => return Ok(Err(reason)),
            Opened::Sound(database) => database,
        };
        if matches!(files, Files::Unknown) {
            self.set_summed(number, None)?;
            for (name, extent) in &generation.extents {
                let scan = generation::scan(&database, name, Some(*extent))?;
                if let Some(stage) = self.stages.get(name) {
                    self.record_gaps(stage, scan.missing)?;
                }
            }
        }
        Ok(Ok(database))
    }

    fn check_files(&self, number: u64, generation: &Generation) -> Result<Files, String> {
        let dir = generation::dir_of(&self.path, number);
        let read = disk::read_through(&dir).or_else(|_| {
            std::thread::sleep(READ_AGAIN);
            disk::read_through(&dir)
        });
        let sums = match read {
            Ok(sums) => sums,
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::PermissionDenied) => {
                return Err(describe(&error));
            }
            Err(error) => return Ok(Files::Damaged(describe(&error))),
        };
        if !generation.entry.summed {
            return Ok(Files::Unknown);
        }
        if sums == generation.sums {
            return Ok(Files::AsSummed);
        }
        let settings = generation::sealed_settings(&self.options.tuning);
        match self.trial.open_in_child(&dir, settings) {
            Verdict::Sound => {
                tracing::warn!(
                    generation = number,
                    "files changed since they were sealed; looking at every record"
                );
                Ok(Files::Unknown)
            }
            Verdict::Condemned(reason) => Ok(Files::Damaged(reason)),
            Verdict::Unclear(reason) => Err(format!(
                "{} changed since it was sealed, and it can't be tried: {reason}",
                dir.display()
            )),
        }
    }

    /// Records what a generation held as lost, and moves it aside whole.
    pub(super) fn condemn(&self, number: u64, generation: &Generation, reason: &str) -> Result<(), String> {
        let dir = generation::dir_of(&self.path, number);
        tracing::error!(generation = number, dir = %dir.display(), reason, "a generation is damaged and moved aside");
        let why = generation::damaged(number, reason);
        for (name, extent) in &generation.extents {
            if let Some(stage) = self.stages.get(name) {
                let dense = read(&stage.gaps).dense_between(extent.first, extent.end);
                let lost = dense.into_iter().map(|(from, to)| gaps::lost(from, to, &why));
                self.record_gaps(stage, lost.collect())?;
            }
        }
        let aside = self.path.join(format!(
            "{}g-{number}-{}",
            disk::DAMAGED_PREFIX,
            Timestamp::now().micros()
        ));
        match disk::rename_durably(&dir, &aside) {
            Err(error) if error.io_kind() != Some(std::io::ErrorKind::NotFound) => {
                return Err(describe(&error));
            }
            _ => {}
        }
        self.meta()?.remove_generation(number)?;
        self.meta()?.commit()?;
        self.catalog_mut().remove(&number);
        Ok(())
    }

    /// Closes the least recently used generations, so that one more may be opened.
    fn close_least_used(&self, wanted: u64) -> Result<(), String> {
        let mut open: Vec<_> = self
            .sealed
            .all()
            .into_iter()
            .filter(|(number, _)| *number != wanted)
            .filter_map(|(number, slot)| {
                let used = slot.try_lock().ok().filter(|slot| slot.is_unused())?.last_used;
                Some((used, number))
            })
            .collect();
        open.sort();
        let excess = (self.sealed.open_count() + 1).saturating_sub(MAX_SEALED_OPEN);
        for (_, number) in open.into_iter().take(excess) {
            self.settle(number, Duration::ZERO)?;
        }
        Ok(())
    }

    /// Closes generation `number` unless somebody reads it or has within `idle`, and sums its files up if that was not done
    /// yet. Returns whether it is closed.
    pub(super) fn settle(&self, number: u64, idle: Duration) -> Result<bool, String> {
        let slot = self.sealed.slot(number);
        let Ok(mut guard) = slot.try_lock() else {
            return Ok(false);
        };
        if guard.database.is_some() {
            let used_lately = guard.last_used.is_some_and(|used| used.elapsed() < idle);
            if !guard.is_unused() || used_lately {
                return Ok(false);
            }
            guard.database = None;
        }
        // Of one that is being dropped there may be nothing left; whoever drops it asks for this lock first.
        let is_unsummed = self.catalog().get(&number).is_some_and(|generation| {
            generation.entry.state == GenerationState::Sealed && !generation.entry.summed
        });
        if is_unsummed {
            self.sum_up(number)?;
        }
        Ok(true)
    }

    /// Opens and closes a closed generation once, and keeps the checksums of its files.
    fn sum_up(&self, number: u64) -> Result<(), String> {
        let dir = generation::dir_of(&self.path, number);
        let settings = generation::sealed_settings(&self.options.tuning);
        let opening = lock(&self.opening);
        if !self.has_room_to_open()? {
            // The keeper comes back to it.
            return Ok(());
        }
        let opened = Database::open(&dir, settings, &self.trial, &self.poison);
        drop(opening);
        match opened.map_err(|error| describe(&error))? {
            Opened::Sound(database) => drop(database),
            Opened::Condemned(reason) => {
                let generation = self.catalog().get(&number).cloned();
                return generation.map_or(Ok(()), |generation| self.condemn(number, &generation, &reason));
            }
        }
        let sums = wait_until_closed(&dir).and_then(|()| disk::read_through(&dir));
        let bytes = disk::dir_bytes(&dir);
        let summed: Result<_, DiskError> = sums.and_then(|sums| Ok((sums, bytes?)));
        let (sums, bytes) = summed.map_err(|error| describe(&error))?;
        if let Some(generation) = self.catalog_mut().get_mut(&number) {
            generation.bytes = bytes;
        }
        self.set_summed(number, Some(sums))
    }

    fn set_summed(&self, number: u64, sums: Option<Vec<FileSum>>) -> Result<(), String> {
        let entry = match self.catalog_mut().get_mut(&number) {
            Some(generation) => {
                generation.entry.summed = sums.is_some();
                generation.sums = sums.clone().unwrap_or_default();
                generation.entry.clone()
            }
            None => return Ok(()),
        };
        if let Some(sums) = sums {
            self.meta()?.put_sums(number, &sums)?;
        }
        self.meta()?.put_generation(number, &entry)?;
        self.meta()?.commit()
    }

    /// Has the next start try everything that is open now: one of them made sled panic.
    pub(super) fn suspect_open(&self) {
        if let Some((_, database)) = &*read(&self.open) {
            database.suspect();
        }
        for (_, slot) in self.sealed.all() {
            // A slot that is locked may be the one of the panic; it is left marked by its own opening.
            if let Ok(slot) = slot.try_lock()
                && let Some(database) = &slot.database
            {
                database.suspect();
            }
        }
    }

    /// Closes everything, for the path is closed.
    pub(super) fn close_all_sealed(&self) {
        for (_, slot) in self.sealed.all() {
            lock(&slot).database = None;
        }
    }

    /// Closes a generation that is to be dropped; `false` while somebody reads it.
    pub(super) fn close_for_good(&self, number: u64) -> bool {
        let slot = self.sealed.slot(number);
        let Ok(mut guard) = slot.try_lock() else {
            return false;
        };
        if guard.database.is_some() && !guard.is_unused() {
            return false;
        }
        guard.database = None;
        self.sealed.forget(number);
        true
    }

    /// Closes what nobody reads any more, and sums up what was sealed.
    pub(super) fn settle_all(&self, idle: Duration) -> Result<(), String> {
        let unsummed: Vec<_> = self
            .catalog()
            .iter()
            .filter(|(_, generation)| {
                generation.entry.state == GenerationState::Sealed && !generation.entry.summed
            })
            .map(|(number, _)| *number)
            .collect();
        for number in unsummed {
            self.settle(number, Duration::ZERO)?;
        }
        for (number, _) in self.sealed.all() {
            self.settle(number, idle.min(IDLE))?;
        }
        Ok(())
    }
}
