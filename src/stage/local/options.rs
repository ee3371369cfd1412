//! What a stage path is opened with, and why opening it may fail.
//!
//! The limits in [`Tuning`] have names and defaults for production; tests shrink them so that generations roll.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::DiskError;
use super::lock::Holder;
use super::trial::TrialCommand;
use crate::exit::ExitReason;
use crate::stage::envelope::Codec;

const MIB: u64 = 1 << 20;

/// When a batch counts as staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it and everything before it is on disk.
    Fsync,
    /// At once; the disk follows at most this much later. A crash may lose what lies between.
    Interval(Duration),
}

/// How long messages stay for replay after every producer has delivered them: until either is exceeded, by whole
/// generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Time since the generation was sealed.
    pub age: Duration,
    /// Bytes on disk of all delivered generations.
    pub bytes: u64,
}

/// What happens to new messages when `max_bytes` or the disk's free space is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// They wait, and the consumer with them.
    Block,
    /// The oldest generation is dropped, delivered or not, for all stages of the path.
    DropOldest,
    /// They are dropped, counted, and recorded as an outage.
    DropNewest,
}

/// How one stage path is kept.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The directory; made when it is not there.
    pub path: PathBuf,
    /// When a batch counts as staged.
    pub durability: Durability,
    /// How long delivered messages stay.
    pub retention: Retention,
    /// Bytes on disk that all generations may take.
    pub max_bytes: u64,
    /// What happens then.
    pub on_full: OnFull,
    /// Everything that the configuration does not name.
    pub tuning: Tuning,
}

impl LocalOptions {
    /// What the configuration's defaults are, for a directory.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            durability: Durability::Fsync,
            retention: Retention {
                age: Duration::from_secs(24 * 3600),
                bytes: 1 << 30,
            },
            max_bytes: 10 << 30,
            on_full: OnFull::Block,
            tuning: Tuning::default(),
        }
    }
}

/// A stage that the configuration names, and the producers that it names for it: each of them pins what it has not
/// delivered, whether it runs now or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRole {
    /// The stage's name: its consumer's.
    pub name: String,
    /// Names of the producers.
    pub producers: Vec<String>,
}

/// Limits of the store.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// A generation is sealed at this many bytes of records, or a quarter of `max_bytes` if that is less.
    pub seal_bytes: u64,
    /// A generation with data is sealed at this age.
    pub seal_age: Duration,
    /// How payloads are compressed.
    pub codec: Codec,
    /// sled's segments. A leaf of up to 17 records of 64 KiB has to stay below a quarter of one.
    pub segment_bytes: usize,
    /// sled's cache of the open generation; it exceeds it several times.
    pub open_cache_bytes: u64,
    /// The same of a sealed one, of which at most [`MAX_SEALED_OPEN`] are open.
    pub sealed_cache_bytes: u64,
    /// Recently committed batches kept in memory for producers that have caught up, for the whole path.
    pub ring_bytes: usize,
    /// Payload bytes that wait to be committed, for the whole path.
    pub queue_bytes: usize,
    /// Free space below which the path counts as full.
    pub min_free: u64,
    /// Kept in a file of real blocks, to be given back when there is no room to open a database.
    pub reserve_bytes: u64,
    /// Offsets reserved at a time.
    pub reservation: u64,
    /// How often retention, age and idle databases are looked at.
    pub housekeeping: Duration,
    /// The program that tries a suspect database; this one's own when `None`.
    pub trial: Option<TrialCommand>,
    /// Called with the name of each step that a crash could follow.
    #[cfg(test)]
    pub(super) step: super::testing::StepHook,
}

/// Bytes of a segment of sled, the least that a generation takes on disk.
const SEGMENT_BYTES: usize = 8 << 20;

/// The least that `max_bytes` may be: two segments for the generation that is appended to, and two for one that waits to be
/// delivered. With one segment nothing is staged at all, and with two or three `drop_oldest` drops what has just been staged.
pub const LEAST_MAX_BYTES: u64 = 4 * SEGMENT_BYTES as u64;

/// Sealed databases that are open at a time.
pub const MAX_SEALED_OPEN: usize = 2;

/// Offsets that a stage reserves at a time: an unclean stop skips at most so many.
pub const RESERVATION: u64 = 1 << 20;

impl Default for Tuning {
    fn default() -> Self {
        Self {
            seal_bytes: 256 * MIB,
            seal_age: Duration::from_secs(3600),
            codec: Codec::default(),
            segment_bytes: SEGMENT_BYTES,
            open_cache_bytes: 8 * MIB,
            sealed_cache_bytes: 4 * MIB,
            ring_bytes: 4 << 20,
            queue_bytes: 2 << 20,
            min_free: 128 * MIB,
            reserve_bytes: 40 * MIB,
            reservation: RESERVATION,
            housekeeping: Duration::from_secs(1),
            trial: None,
            #[cfg(test)]
            step: super::testing::StepHook::default(),
        }
    }
}

/// Why a stage path could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("stage path {} is in use by {} {}; {}", path.display(), holder_name(*holder), pid.map_or("unknown".to_owned(), |pid| pid.to_string()), what_to_do(*holder))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// What it does there, if it could be read.
        holder: Option<Holder>,
        /// The process, if it could be read.
        pid: Option<u32>,
    },
    /// There is nothing to inspect.
    #[error("there is no stage at {}", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a newer program.
    #[error("stage path {} has format version {found}, this program knows {known}; use the newer socket-el", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// The directory can't be written to.
    #[error("stage path {} is not writable; check its owner, its mode and how it is mounted", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: DiskError,
    },
    /// To open a database takes room.
    #[error("no room to open stage path {}: {free} bytes are free, {needed} are needed; nothing is lost, make room and start again", path.display())]
    DiskFull {
        /// The directory.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// Something could not be done to the files.
    #[error("could not open the stage path")]
    Disk(#[from] DiskError),
    /// sled could not do something.
    #[error("the database {} failed: {reason}; nothing was removed, start again once the cause is", path.display())]
    Database {
        /// Which one.
        path: PathBuf,
        /// In sled's words.
        reason: String,
    },
    /// What the path's book holds can't be read.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// What.
        path: PathBuf,
        /// In words.
        reason: String,
    },
}

fn holder_name(holder: Option<Holder>) -> &'static str {
    match holder {
        Some(Holder::Engine) => "the engine, process",
        Some(Holder::Tool) => "a tool, process",
        None => "process",
    }
}

fn what_to_do(holder: Option<Holder>) -> &'static str {
    match holder {
        Some(Holder::Tool) => "try again when that one is done",
        Some(Holder::Engine) | None => "stop that one first",
    }
}

impl OpenError {
    /// The exit code that a command should end with.
    #[must_use]
    pub fn exit_reason(&self) -> ExitReason {
        match self {
            Self::InUse { .. } => ExitReason::StageInUse,
            Self::Damaged { .. } => ExitReason::Damaged,
            Self::Missing { .. }
            | Self::Newer { .. }
            | Self::NotWritable { .. }
            | Self::DiskFull { .. }
            | Self::Disk(_)
            | Self::Database { .. } => ExitReason::Failed,
        }
    }
}
