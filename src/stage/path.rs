//! A stage path as everybody sees it who looks into it, or delivers from it, without being the engine that keeps it: on
//! this machine's disk ([`LocalPath`](super::local::LocalPath)), or through the engine that has it open.
//!
//! Invariants: what is told comes from the stage alone, so that both ways give the same answer for the same moment.
//! Answers are pages: whatever the backlog, one of them is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::local::gaps::GapList;
use super::report::{Balance, Delivery, Passed};
use super::{Bounds, Gap, Outage, Period, Place, ReadLimit, SharedStage, StageError};
use crate::name;
use crate::record::{Offset, Timestamp};

/// A directory of stages.
#[async_trait]
pub trait StagePath: Send + Sync + 'static {
    /// How it is looked into.
    fn route(&self) -> Route;

    /// The directory.
    fn directory(&self) -> &Path;

    /// The path's id; given once when it was made.
    fn id(&self) -> Uuid;

    /// The stage of this name, to read and to acknowledge; `None` when the path holds none.
    fn stage(&self, name: &str) -> Option<SharedStage>;

    /// Its stages and generations at a glance.
    ///
    /// # Errors
    /// When the path has failed or is out of reach.
    async fn summary(&self) -> Result<PathSummary, StageError>;

    /// A page of the batches and outages of a stage, in order. A stage that is not there has none.
    ///
    /// # Errors
    /// As of [`summary`](Self::summary), or when a record is of a newer program.
    async fn batches(&self, stage: &str, query: BatchQuery) -> Result<BatchPage, StageError>;

    /// A page of the records of a stage as they are stored, from the batch that holds `from`, up to the durable head. A stage that
    /// is not there has none.
    ///
    /// # Errors
    /// As of [`batches`](Self::batches).
    async fn records(&self, stage: &str, from: Offset, limit: ReadLimit) -> Result<RecordPage, StageError>;

    /// Forgets the cursor of a producer that the configuration does not name, so that it no longer pins anything; `false` when
    /// there is none.
    ///
    /// # Errors
    /// [`StageError::StillConfigured`], or as of [`summary`](Self::summary).
    async fn forget_producer(&self, stage: &str, producer: &str) -> Result<bool, StageError>;

    /// Gives up all messages of a stage that the configuration does not name, with its cursors; they are recorded as dropped.
    /// Returns how many messages those were; `None` when there is no such stage.
    ///
    /// # Errors
    /// As of [`forget_producer`](Self::forget_producer).
    async fn forget_stage(&self, stage: &str) -> Result<Option<u64>, StageError>;

    /// What the engine that has it open says of its runners (`GET /v1/status`); `None` when no engine runs on it.
    ///
    /// # Errors
    /// As of [`summary`](Self::summary).
    async fn status(&self) -> Result<Option<serde_json::Value>, StageError> {
        Ok(None)
    }

    /// Ends the use of it; files are closed in order, an engine goes on.
    ///
    /// # Errors
    /// When what was written can't be made durable.
    async fn close(&self) -> Result<(), StageError>;
}

/// How a stage path is looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// This process has opened the files itself.
    Files,
    /// Through the engine that has them open.
    Engine {
        /// Its process.
        pid: u32,
        /// Its version.
        version: String,
    },
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files => f.write_str("opened the files: no engine runs on them"),
            Self::Engine { pid, version } => {
                write!(
                    f,
                    "asked the engine that has it open: process {pid}, socket-el {version}"
                )
            }
        }
    }
}

/// A stage path at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathSummary {
    /// The path's id.
    pub id: Uuid,
    /// All stages in order of name.
    pub stages: Vec<StageSummary>,
    /// All generations in order.
    pub generations: Vec<GenerationSummary>,
}

impl PathSummary {
    /// The stage of this name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&StageSummary> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

/// A stage at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSummary {
    /// Its name.
    pub name: String,
    /// Where it begins and ends.
    pub bounds: Bounds,
    /// Messages in it.
    pub messages: u64,
    /// Messages that it refused since it was made, because it was full (`on_full: drop_newest`).
    pub refused: u64,
    /// By name: those that the configuration names, if there is one, and all that have a cursor. A replay is one of its
    /// own, see [`replay_of`].
    pub producers: BTreeMap<String, ProducerSummary>,
    /// Producers that have begun to deliver since the stage was opened; see [`Stage::begun`](super::Stage::begun).
    #[serde(default)]
    pub begun: BTreeSet<String>,
    /// Offsets that hold no message.
    pub gaps: Vec<Gap>,
    /// Numbers of the generations that hold some of it.
    pub generations: Vec<u64>,
}

impl StageSummary {
    /// What became of every message that the stage was offered, for a producer that is so far in its sink. To be asked of a stage as
    /// it was after that, so that the cursor is not ahead of it.
    #[must_use]
    pub fn balance(&self, passed: Passed) -> Balance {
        let gaps = GapList::from_stored(self.gaps.clone());
        Balance::of(passed, self.bounds, &gaps, self.refused)
    }
}

/// How far a producer is, as far as the stage knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerSummary {
    /// Everything before it is delivered; `None` before its first ack.
    pub cursor: Option<Offset>,
    /// Messages that it has yet to deliver.
    pub pending: u64,
    /// The offset that its cursor in the sink was found beyond, so that it can't come from this stage's past; nothing is delivered
    /// before an operator has decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_at: Option<Offset>,
    /// What it has told since the stage was opened; `None` when nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

/// What follows a producer's name in the name of its replay's cursor. No producer's own name holds a slash.
const REPLAY_SUFFIX: &str = "/replay";

/// The name under which a producer's replay keeps its cursor.
#[must_use]
pub fn replay_cursor(producer: &str) -> String {
    format!("{producer}{REPLAY_SUFFIX}")
}

/// What follows a producer's name in the name under which it is kept how far its cursor in the sink may reach.
const HELD_SUFFIX: &str = "/held";

/// The name under which a stage keeps the offset that a producer's cursor is beyond, as long as that is why nothing is
/// delivered; see [`Stage::hold`](super::Stage::hold).
#[must_use]
pub fn held_cursor(producer: &str) -> String {
    format!("{producer}{HELD_SUFFIX}")
}

/// The producer that is held, if this is the name of such an offset.
#[must_use]
pub fn held_of(cursor: &str) -> Option<&str> {
    cursor.strip_suffix(HELD_SUFFIX)
}

/// Whether a cursor can have this name: a producer's, or one that [`replay_cursor`] or [`held_cursor`] makes of it.
#[must_use]
pub fn is_cursor_name(name: &str) -> bool {
    name::is_well_formed(replay_of(name).or_else(|| held_of(name)).unwrap_or(name))
}

/// The producer whose replay keeps its cursor under this name, if one does.
#[must_use]
pub fn replay_of(cursor: &str) -> Option<&str> {
    cursor.strip_suffix(REPLAY_SUFFIX)
}

/// A generation at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationSummary {
    /// Its number.
    pub number: u64,
    /// What becomes of it.
    pub state: GenerationState,
    /// When it was made.
    pub made_at: Timestamp,
    /// When it was sealed.
    pub sealed_at: Option<Timestamp>,
    /// Bytes on disk.
    pub bytes: u64,
    /// What it holds by stage.
    pub extents: BTreeMap<String, Extent>,
}

/// What becomes of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    /// Appended to.
    Open,
    /// Full: its extents are final.
    Sealed,
    /// About to be removed: that it is missing is no loss.
    Dropping,
}

/// The stretch of one stage that a generation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Offset of its first message.
    pub first: Offset,
    /// The offset after its last message.
    pub end: Offset,
    /// Messages in it.
    pub messages: u64,
    /// When the first of it was received and the last, outages among it included; `None` when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
}

/// What changes in a stage while it is appended to, delivered and acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Glance {
    /// Where it begins and ends.
    pub bounds: Bounds,
    /// The stage's own copies of the cursors, by producer.
    pub cursors: BTreeMap<String, Offset>,
    /// Producers that have begun to deliver since the stage was opened; see [`Stage::begun`](super::Stage::begun).
    pub begun: BTreeSet<String>,
    /// The place behind the last outage; `None` from an engine that does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outages: Option<Place>,
    /// Offsets that hold no message; `None` where they are as they were told before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gaps: Option<Vec<Gap>>,
}

/// Which batches are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchQuery {
    /// Where to begin.
    pub from: BatchPosition,
    /// Leave out what was received before this. Generations that were sealed before it are not looked into.
    pub since: Option<Timestamp>,
    /// Outages only, no batches.
    pub only_outages: bool,
    /// The most to return; at most [`MAX_BATCHES`] are.
    pub limit: usize,
}

/// The most batches of one page.
pub const MAX_BATCHES: usize = 10_000;

/// A place in the order of records, where outages stand behind the batch before which they happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BatchPosition {
    /// The batch that holds this offset, or the first one after it.
    pub offset: Offset,
    /// 0, or what a page said: the records of the batch that begins at the offset are left out up to here.
    pub part: u32,
}

/// Some batches of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchPage {
    /// In order.
    pub batches: Vec<BatchSummary>,
    /// Where to go on; `None` at the end.
    pub next: Option<BatchPosition>,
}

/// A batch, or an outage, as it stands in a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchSummary {
    /// The generation that holds it.
    pub generation: u64,
    /// Offset of the first message; for an outage, of the next one.
    pub first: Offset,
    /// The offset after the last message.
    pub end: Offset,
    /// When the first message came.
    pub received_first: Timestamp,
    /// When the last message came.
    pub received_last: Timestamp,
    /// Bytes before compression, framing included.
    pub raw_bytes: u64,
    /// Bytes of the records without their headers.
    pub stored_bytes: u64,
    /// What is said of the outage, if it is one.
    pub outage: Option<Outage>,
}

/// Some records of a stage, and the gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordPage {
    /// In order of key, without outages. Messages of several parts are whole.
    pub records: Vec<StoredRecord>,
    /// Offsets from the one that was asked for up to `next` that hold no message.
    pub gaps: Vec<Gap>,
    /// Where to read on. The offset that was asked for when there was nothing new.
    pub next: Offset,
}

/// A record as it is stored; [`envelope::open`](super::envelope::open) verifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its key.
    pub key: Vec<u8>,
    /// Header and payload.
    pub value: Vec<u8>,
}
