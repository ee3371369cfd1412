//! Room: whether the path is full, by `max_bytes` or because the disk is.
//!
//! Invariants: an error of sled ends the path, so that it must not be met with a full disk: free space is asked for before every
//! batch. What the generations take is asked for now and then.

use std::time::{Duration, Instant};

use super::state::describe;
use super::writer::Writer;
use super::{disk, generation};

/// Free space and sizes are asked for again after so many bytes, and after so long.
const ASK_AFTER_BYTES: u64 = 256 * 1024;
const ASK_AFTER: Duration = Duration::from_millis(100);

/// What is known about room, and since when.
#[derive(Debug, Default)]
pub(super) struct RoomCheck {
    written: u64,
    asked: Option<Instant>,
    full: bool,
    /// Whether it was logged that there is none.
    said: bool,
}

impl RoomCheck {
    /// Records of so many bytes were written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
    }

    fn is_fresh(&self) -> bool {
        self.written < ASK_AFTER_BYTES && self.asked.is_some_and(|asked| asked.elapsed() < ASK_AFTER)
    }

    /// What is known is out of date.
    pub(super) fn forget(&mut self) {
        self.asked = None;
    }
}

impl Writer {
    /// Whether there is room for more, after making some by all that the configuration allows.
    pub(super) fn make_room(&mut self) -> Result<bool, String> {
        // Others may fill the disk at any time, and asking for that costs little.
        if self.room.is_fresh() && (self.room.full || self.is_disk_free()?) {
            return Ok(!self.room.full);
        }
        let mut full = self.is_full()?;
        while full && self.give_up_oldest()? {
            full = self.is_full()?;
        }
        self.room.full = full;
        self.room.written = 0;
        self.room.asked = Some(Instant::now());
        let (path, on_full) = (self.shared.path.display(), self.shared.options.on_full);
        if full && !self.room.said {
            tracing::warn!(%path, ?on_full, "the stage path is full");
        } else if !full && self.room.said {
            tracing::info!(%path, "the stage path has room again");
        }
        self.room.said = full;
        Ok(!full)
    }

    /// Whether as much of the disk is free as should always be. The reserve is for reading and for making room, not for what
    /// can wait.
    pub(super) fn is_disk_free(&self) -> Result<bool, String> {
        let free = disk::free_bytes(&self.shared.path).map_err(|error| describe(&error))?;
        Ok(free >= self.shared.options.tuning.min_free)
    }

    fn is_full(&mut self) -> Result<bool, String> {
        if !self.is_disk_free()? {
            return Ok(true);
        }
        self.measure_open()?;
        let used: u64 = self
            .shared
            .catalog()
            .values()
            .map(|generation| generation.bytes)
            .sum();
        Ok(used >= self.shared.options.max_bytes)
    }

    pub(super) fn measure_open(&self) -> Result<(), String> {
        let number = self.open.number;
        let dir = generation::dir_of(&self.shared.path, number);
        let bytes = disk::dir_bytes(&dir).map_err(|error| describe(&error))?;
        if let Some(generation) = self.shared.catalog_mut().get_mut(&number) {
            generation.bytes = bytes;
        }
        Ok(())
    }
}
