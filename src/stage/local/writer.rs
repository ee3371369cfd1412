//! The committing thread: the only one that gives offsets, inserts records and moves heads.
//!
//! It takes what has gathered from all stages, inserts it into the open generation, commits once, publishes the heads and
//! answers. While it commits, the next group gathers by itself, so it never waits for one.
//!
//! Invariants:
//! * A head moves only after the commit that covers it, and only past whole batches.
//! * An offset is used only after a reservation that covers it is durable.
//! * Not more than [`COMMIT_BYTES`] and one record are inserted between two commits.
//!
//! What it leaves to others: rolling, dropping and what to do when there is no room (`space`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::database::Database;
use super::generation::tree_of;
use super::meta::StageEntry;
use super::options::{Durability, OnFull};
use super::state::{Command, Shared, StageState};
use crate::record::{Batch, Offset, Timestamp};
use crate::stage::envelope::{Encoder, Record};
use crate::stage::{Appended, Outage, Period, Place, StageError, StagedBatch};

/// Bytes of records between two commits: far less than a quarter of a segment.
pub(super) const COMMIT_BYTES: usize = 1 << 20;

/// Commands taken together at most.
const COMMIT_COMMANDS: usize = 256;

/// How often a full path looks for room.
const FULL_POLL: Duration = Duration::from_millis(100);

/// The step of a command that changes nothing.
pub(super) const WOKEN: &str = "woken";

type Answer = oneshot::Sender<Result<Appended, StageError>>;

/// Where the next batch of a stage goes.
pub(super) struct Lane {
    pub(super) state: Arc<StageState>,
    /// Its tree in the open generation.
    pub(super) tree: Option<sled::Tree>,
    /// The next offset to give.
    pub(super) next: Offset,
    /// The offset after the batch before, as the next record will say.
    pub(super) prev_end: Offset,
    pub(super) reserved: Offset,
    /// Sequence number of the next outage at `next`.
    pub(super) outage_sequence: u32,
    /// Messages that a full stage refused and that no record tells of yet.
    pub(super) refused: Option<Outage>,
    /// The time that everything in the open generation spans.
    pub(super) period: Option<Period>,
}

impl Lane {
    /// Something of that time is inserted.
    pub(super) fn spans(&mut self, period: Period) {
        self.period = Period::joined(self.period, Some(period));
    }
}

/// What waits, in order, because the path is full.
pub(super) enum Waiting {
    /// To be appended.
    Batch(WaitingBatch),
    /// To be recorded behind the batches that wait before it.
    Outage {
        stage: Arc<StageState>,
        outage: Outage,
        answer: Answer,
    },
}

/// A batch that waits.
pub(super) struct WaitingBatch {
    pub(super) stage: Arc<StageState>,
    pub(super) batch: Batch,
    pub(super) answer: Answer,
    permit: OwnedSemaphorePermit,
}

/// What was inserted and is not committed yet.
pub(super) struct Inserted {
    pub(super) stage: Arc<StageState>,
    pub(super) batch: Arc<StagedBatch>,
    pub(super) answer: Option<Answer>,
    /// Goes when the batch is committed: what is not yet on disk counts against the queue.
    _permit: OwnedSemaphorePermit,
}

/// The open generation as the writer knows it.
pub(super) struct OpenGeneration {
    pub(super) number: u64,
    pub(super) database: Arc<Database>,
    /// Bytes of records in it.
    pub(super) record_bytes: u64,
    /// When its first message came.
    pub(super) first_data: Option<Instant>,
}

/// The thread's own state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: BTreeMap<String, Lane>,
    pub(super) open: OpenGeneration,
    pub(super) keeper: SyncSender<()>,
    pub(super) room: super::room::RoomCheck,
    /// Whether the book still says that the last stop was clean.
    pub(super) marked_clean: bool,
    pub(super) encoder: Encoder,
    records: Vec<Record>,
    waiting: VecDeque<Waiting>,
    pub(super) inserted: Vec<Inserted>,
    /// Outages that are inserted and not committed yet: the place behind each, and when it ended.
    pub(super) recorded: Vec<(Arc<StageState>, Place, Timestamp)>,
    pub(super) answers: Vec<Answer>,
    pub(super) uncommitted_bytes: usize,
    /// Bytes of payload that wait for a commit, which hold their place in the queue.
    pub(super) uncommitted_payload: usize,
    pub(super) uncommitted_since: Option<Instant>,
    /// What the book has of each stage.
    pub(super) booked: BTreeMap<String, StageEntry>,
    housekept: Instant,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        lanes: BTreeMap<String, Lane>,
        open: OpenGeneration,
        keeper: SyncSender<()>,
        marked_clean: bool,
    ) -> Self {
        Self {
            encoder: Encoder::new(shared.options.tuning.codec),
            shared,
            lanes,
            open,
            keeper,
            room: super::room::RoomCheck::default(),
            marked_clean,
            records: Vec::new(),
            waiting: VecDeque::new(),
            inserted: Vec::new(),
            recorded: Vec::new(),
            answers: Vec::new(),
            uncommitted_bytes: 0,
            uncommitted_payload: 0,
            uncommitted_since: None,
            booked: BTreeMap::new(),
            housekept: Instant::now(),
        }
    }

    /// Works until the path is closed or fails, and answers everyone who still waits then.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        if let Err(reason) = self.work(commands) {
            self.shared.fail(&reason);
        }
        self.shared.end();
        let ended = self.shared.ended();
        let inserted = self.inserted.drain(..).filter_map(|inserted| inserted.answer);
        let waiting = self.waiting.drain(..).map(|waiting| match waiting {
            Waiting::Batch(WaitingBatch { answer, .. }) | Waiting::Outage { answer, .. } => answer,
        });
        let queued = commands.try_iter().filter_map(|command| match command {
            Command::Append { answer, .. } | Command::Outage { answer, .. } => Some(answer),
            Command::Wake | Command::Close => None,
        });
        for answer in inserted
            .chain(waiting)
            .chain(self.answers.drain(..))
            .chain(queued)
        {
            // Nobody waits any more when sending fails, which is as good.
            drop(answer.send(Err(ended.clone())));
        }
    }

    fn work(&mut self, commands: &Receiver<Command>) -> Result<(), String> {
        loop {
            let closing = self.gather(commands)?;
            if self.shared.failure.borrow().is_some() {
                return Ok(());
            }
            self.append_waiting()?;
            if closing || self.is_commit_due() {
                self.commit()?;
            }
            if closing {
                return self.close();
            }
            if self.housekept.elapsed() >= self.shared.options.tuning.housekeeping {
                self.housekept = Instant::now();
                self.housekeep()?;
            }
        }
    }

    /// Takes what has gathered; waits for the first command only when there is nothing to do. Returns whether to close.
    fn gather(&mut self, commands: &Receiver<Command>) -> Result<bool, String> {
        let mut taken = 0;
        let mut patience = self.patience();
        loop {
            let command = match commands.recv_timeout(patience) {
                Ok(command) => command,
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => return Ok(true),
            };
            patience = Duration::ZERO;
            match command {
                Command::Append {
                    stage,
                    batch,
                    answer,
                    permit,
                } => {
                    self.waiting.push_back(Waiting::Batch(WaitingBatch {
                        stage,
                        batch,
                        answer,
                        permit,
                    }));
                    self.append_waiting()?;
                }
                Command::Outage {
                    stage,
                    outage,
                    answer,
                } => {
                    self.waiting.push_back(Waiting::Outage {
                        stage,
                        outage,
                        answer,
                    });
                    self.append_waiting()?;
                }
                Command::Wake => self.step(WOKEN),
                Command::Close => return Ok(true),
            }
            taken += 1;
            let full_group = taken >= COMMIT_COMMANDS || self.uncommitted_bytes >= COMMIT_BYTES;
            if full_group || self.shared.failure.borrow().is_some() {
                return Ok(false);
            }
        }
    }

    fn patience(&self) -> Duration {
        let housekeeping = self.shared.options.tuning.housekeeping;
        let until_commit = match (self.shared.options.durability, self.uncommitted_since) {
            (Durability::Interval(interval), Some(since)) => interval.saturating_sub(since.elapsed()),
            _ => housekeeping,
        };
        let until_room = if self.waiting.is_empty() {
            housekeeping
        } else {
            FULL_POLL
        };
        until_commit.min(until_room).min(housekeeping)
    }

    /// Appends what waits, as far as there is room.
    fn append_waiting(&mut self) -> Result<(), String> {
        while !self.waiting.is_empty() {
            let has_room = self.make_room()?;
            let refuses = self.shared.options.on_full == OnFull::DropNewest;
            if !has_room && !refuses {
                return Ok(());
            }
            let Some(waiting) = self.waiting.pop_front() else {
                return Ok(());
            };
            match waiting {
                Waiting::Batch(batch) if has_room => self.append(batch)?,
                Waiting::Batch(batch) => self.refuse(batch),
                Waiting::Outage {
                    stage,
                    outage,
                    answer,
                } => {
                    // It is small: only a disk without any room at all has none for it.
                    if has_room || self.shared.has_room_for_book()? {
                        self.append_outage(&stage.name, &outage)?;
                    } else {
                        self.add_refused(&stage.name, outage);
                    }
                    self.answers.push(answer);
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, waiting: WaitingBatch) -> Result<(), String> {
        let WaitingBatch {
            stage,
            batch,
            answer,
            permit,
        } = waiting;
        if batch.is_empty() {
            let at = self.lanes.get(&stage.name).map_or(Offset::ZERO, |lane| lane.next);
            // Nobody waits any more when sending fails, which is as good.
            drop(answer.send(Ok(Appended::Staged { first: at, end: at })));
            return Ok(());
        }
        self.record_refused(&stage.name)?;
        self.reserve(&stage.name, batch.len() as u64)?;
        let Some(lane) = self.lanes.get(&stage.name) else {
            return Ok(());
        };
        let first = lane.next;
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        let encoded = self
            .encoder
            .encode(&stage.name, first, lane.prev_end, &batch, &mut records);
        let end = match encoded {
            Ok(end) => end,
            Err(error) => {
                // Nothing was inserted: only this batch is refused, and its sender is told.
                self.records = records;
                tracing::error!(stage = stage.name, %error, "a batch can't be staged");
                drop(answer.send(Err(StageError::Damaged {
                    stage: stage.name.clone(),
                    offset: first,
                    reason: error.to_string(),
                })));
                return Ok(());
            }
        };
        for record in records.drain(..) {
            self.insert(&stage.name, record)?;
        }
        self.records = records;
        // Outages alone make no generation old: nothing is let go by a roll that carries all of them over.
        self.open.first_data.get_or_insert_with(Instant::now);
        if let Some(lane) = self.lanes.get_mut(&stage.name) {
            lane.next = end;
            lane.prev_end = end;
            lane.outage_sequence = 0;
            if let (Some(from), Some(to)) = (batch.received_first(), batch.received_last()) {
                lane.spans(Period { from, to });
            }
        }
        let answer = match self.shared.options.durability {
            Durability::Fsync => Some(answer),
            Durability::Interval(_) => {
                drop(answer.send(Ok(Appended::Staged { first, end })));
                None
            }
        };
        // A batch's place in the queue is a KiB at least.
        self.uncommitted_payload += batch.byte_len().max(1024);
        self.inserted.push(Inserted {
            stage,
            batch: Arc::new(StagedBatch { first, batch }),
            answer,
            _permit: permit,
        });
        Ok(())
    }

    /// Inserts one record; commits in between when a large batch has inserted enough. Heads stay: the batch is not whole.
    pub(super) fn insert(&mut self, stage: &str, record: Record) -> Result<(), String> {
        if self.uncommitted_bytes >= COMMIT_BYTES {
            self.sync()?;
        }
        let bytes = record.key.len() + record.value.len();
        let Some(lane) = self.lanes.get_mut(stage) else {
            return Err(format!("stage {stage} is not one of this path"));
        };
        let tree = match &lane.tree {
            Some(tree) => tree,
            None => lane.tree.insert(self.open.database.tree(&tree_of(stage))?),
        };
        tree.insert(record.key, record.value)
            .map_err(|error| self.open.database.describe("write to", &error))?;
        self.uncommitted_bytes += bytes;
        self.uncommitted_since.get_or_insert_with(Instant::now);
        self.open.record_bytes += bytes as u64;
        self.room.wrote(bytes as u64);
        Ok(())
    }

    /// A place at which a test may look at the directory as a crash would leave it.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "the hook is for tests only"))]
    pub(super) fn step(&self, name: &'static str) {
        #[cfg(test)]
        self.shared.options.tuning.step.reached(name);
        #[cfg(not(test))]
        let _ = name;
    }
}
