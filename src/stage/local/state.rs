//! What the threads and the callers of a stage path share.
//!
//! Invariants:
//! * A failure is for good: the path is poisoned, heads are closed, nothing is written or synced any more.
//! * The catalog mirrors the book: it is changed after the book was, but where a crash in between does no harm.
//!
//! Locks are held for moments only, and never two of them but a stage's inside the catalog's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::{Semaphore, oneshot, watch};
use uuid::Uuid;

use super::cursors::Cursors;
use super::database::{Database, Poison};
use super::disk::{self, FileSum, ReserveFile};
use super::gaps::{GapChange, GapList};
use super::heard::Heard;
use super::meta::{GenerationEntry, Meta, StageEntry};
use super::options::{LocalOptions, StageRole};
use super::ring::Ring;
use super::sealed::SealedStore;
use super::trial::TrialCommand;
use crate::record::{Batch, Offset, Timestamp};
use crate::stage::path::{Extent, GenerationState};
use crate::stage::report::Report;
use crate::stage::{Appended, Bounds, Gap, GapCause, LastSeen, Outage, Place, StageError};

/// Free space, in segments, without which no database is opened: sled writes when it opens.
const OPEN_ROOM_SEGMENTS: u64 = 2;

/// Free space without which nothing is written in the book: a few of its segments. An error of sled ends the path, so that
/// it must not be met with a full disk.
const BOOK_ROOM: u64 = 2 << 20;

/// Threads that look into the disk at a time for those who only look.
const MAX_LOOKS: usize = 8;

/// What the committing thread is asked to do.
pub(super) enum Command {
    /// Append a batch. The permit holds its place in the queue.
    Append {
        stage: Arc<StageState>,
        batch: Batch,
        answer: oneshot::Sender<Result<Appended, StageError>>,
        permit: tokio::sync::OwnedSemaphorePermit,
    },
    /// Record an outage.
    Outage {
        stage: Arc<StageState>,
        outage: Outage,
        answer: oneshot::Sender<Result<Appended, StageError>>,
    },
    /// Look whether there is room again.
    Wake,
    /// Commit everything queued so far, mark the stop as clean, and end.
    Close,
}

/// One stage.
pub(super) struct StageState {
    pub(super) name: String,
    /// Whether the configuration names it.
    pub(super) is_configured: bool,
    /// The producers that the configuration names.
    pub(super) producers: Vec<String>,
    head: Mutex<Option<watch::Sender<Offset>>>,
    pub(super) head_seen: watch::Receiver<Offset>,
    pub(super) reserved: AtomicU64,
    /// The first offset that is given since the path was opened.
    given_from: Offset,
    /// Messages that were staged before it. From it on every offset is one.
    staged_before: u64,
    /// Whether there were more.
    pub(super) is_uncounted: bool,
    /// Messages that a full stage refused.
    pub(super) refused: AtomicU64,
    /// The place behind the last outage that is durable.
    pub(super) outages: watch::Sender<Place>,
    pub(super) heard: Mutex<Heard>,
    /// What was heard when the path was opened.
    pub(super) last_seen: Option<LastSeen>,
    pub(super) gaps: RwLock<GapList>,
    pub(super) cursors: Mutex<Cursors>,
    /// Producers that have begun since the path was opened.
    pub(super) begun: Mutex<BTreeSet<String>>,
    /// What producers have told of their deliveries, and when.
    pub(super) reports: Mutex<BTreeMap<String, (Report, Timestamp)>>,
    pub(super) ring: Mutex<Ring>,
    /// Wakes who follows bounds, cursors and gaps.
    pub(super) changed: watch::Sender<()>,
}

impl StageState {
    /// What is known of a stage that ends at `entry.head`; `role` is the configuration's, if it names the stage. The next outage
    /// there has the number `sequence`.
    pub(super) fn new(name: &str, role: Option<&StageRole>, entry: &StageEntry, sequence: u32) -> Self {
        let head = entry.head;
        let next = Place {
            offset: head,
            sequence,
        };
        let heard = Heard {
            seen_at: entry.seen_at,
            stopped_at: entry.stopped_at,
        };
        let (sender, head_seen) = watch::channel(head);
        Self {
            name: name.to_owned(),
            is_configured: role.is_some(),
            producers: role.map(|role| role.producers.clone()).unwrap_or_default(),
            head: Mutex::new(Some(sender)),
            head_seen,
            reserved: AtomicU64::new(0),
            given_from: head,
            staged_before: entry.staged.unwrap_or(0),
            is_uncounted: entry.is_uncounted,
            refused: AtomicU64::new(0),
            outages: watch::Sender::new(next),
            heard: Mutex::new(heard),
            last_seen: heard.last(),
            gaps: RwLock::default(),
            cursors: Mutex::default(),
            begun: Mutex::default(),
            reports: Mutex::default(),
            ring: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// The durable head.
    pub(super) fn head(&self) -> Offset {
        *self.head_seen.borrow()
    }

    /// Messages that were staged before this head.
    pub(super) fn staged(&self, head: Offset) -> u64 {
        self.staged_before + head.get().saturating_sub(self.given_from.get())
    }

    /// Moves the durable head and wakes who waits for it.
    pub(super) fn publish_head(&self, head: Offset) {
        if let Some(sender) = &*lock(&self.head) {
            sender.send_replace(head);
        }
        self.changed.send_replace(());
    }

    /// The place behind the last outage that is durable.
    pub(super) fn outages_end(&self) -> Place {
        *self.outages.borrow()
    }

    /// An outage is durable: wakes who waits for one.
    pub(super) fn publish_outages(&self, end: Place) {
        self.outages.send_replace(end);
        self.changed.send_replace(());
    }

    /// The last that is durable came, or ended, then.
    pub(super) fn seen_at(&self, at: Timestamp) {
        lock(&self.heard).seen_at = Some(at);
    }

    /// Ends the channel of the head.
    pub(super) fn close_head(&self) {
        lock(&self.head).take();
        self.changed.send_replace(());
    }

    /// The end of the durable reservation, which is never before the head.
    pub(super) fn reserved(&self) -> Offset {
        Offset::new(self.reserved.load(Ordering::SeqCst)).max(self.head())
    }

    /// The least cursor of everyone who pins this stage. `None` when nobody delivers it; `Some(0)` as long
    /// as a configured producer has not begun.
    pub(super) fn least_cursor(&self) -> Option<Offset> {
        let cursors = lock(&self.cursors);
        let cursors = cursors.now();
        if self.producers.iter().any(|name| !cursors.contains_key(name)) {
            return Some(Offset::ZERO);
        }
        cursors.values().min().copied()
    }
}

/// A generation as the catalog knows it.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) entry: GenerationEntry,
    pub(super) extents: BTreeMap<String, Extent>,
    pub(super) sums: Vec<FileSum>,
    /// Bytes on disk; of the open one as of late.
    pub(super) bytes: u64,
}

/// All generations of the path.
pub(super) type Catalog = BTreeMap<u64, Generation>;

/// What everybody who works on a stage path shares.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) id: Uuid,
    pub(super) options: LocalOptions,
    pub(super) trial: TrialCommand,
    pub(super) poison: Poison,
    /// The book; `None` after the path was closed.
    meta: RwLock<Option<Arc<Meta>>>,
    pub(super) stages: BTreeMap<String, Arc<StageState>>,
    catalog: RwLock<Catalog>,
    /// The generation that is appended to; `None` after the path was closed.
    pub(super) open: RwLock<Option<(u64, Arc<Database>)>>,
    pub(super) sealed: SealedStore,
    pub(super) commands: Sender<Command>,
    /// Room in the queue, in KiB of payload.
    pub(super) room: Arc<Semaphore>,
    /// How many wait for that: what holds their place has to be committed.
    pub(super) awaiting_room: AtomicUsize,
    pub(super) failure: watch::Sender<Option<String>>,
    pub(super) reserve: Mutex<Option<ReserveFile>>,
    /// Held from the question whether there is room to open a sealed database until it is open: two at a time would count
    /// on the same room.
    pub(super) opening: Mutex<()>,
    /// Places for those who only look: on a full disk each of them waits on a thread until a database can be opened, and who has
    /// asked may have gone and ask again meanwhile.
    pub(super) looks: Arc<Semaphore>,
    /// When the commit that is under way began, for the watchdog.
    pub(super) commit_began: Mutex<Option<Instant>>,
}

/// What [`Shared`] is made of.
pub(super) struct Parts {
    pub(super) path: PathBuf,
    pub(super) id: Uuid,
    pub(super) options: LocalOptions,
    pub(super) trial: TrialCommand,
    pub(super) poison: Poison,
    pub(super) meta: Meta,
    pub(super) stages: BTreeMap<String, Arc<StageState>>,
    pub(super) catalog: Catalog,
    pub(super) open: (u64, Arc<Database>),
    pub(super) reserve: Option<ReserveFile>,
}

impl Shared {
    pub(super) fn new(parts: Parts, commands: Sender<Command>) -> Self {
        let kib = (parts.options.tuning.queue_bytes / 1024).max(1);
        Self {
            path: parts.path,
            id: parts.id,
            options: parts.options,
            trial: parts.trial,
            poison: parts.poison,
            meta: RwLock::new(Some(Arc::new(parts.meta))),
            stages: parts.stages,
            catalog: RwLock::new(parts.catalog),
            open: RwLock::new(Some(parts.open)),
            sealed: SealedStore::default(),
            commands,
            room: Arc::new(Semaphore::new(kib)),
            awaiting_room: AtomicUsize::new(0),
            failure: watch::Sender::new(None),
            reserve: Mutex::new(parts.reserve),
            opening: Mutex::default(),
            looks: Arc::new(Semaphore::new(MAX_LOOKS)),
            commit_began: Mutex::new(None),
        }
    }

    /// The book.
    pub(super) fn meta(&self) -> Result<Arc<Meta>, String> {
        let closed = || format!("{} is closed", self.path.display());
        read(&self.meta).clone().ok_or_else(closed)
    }

    /// Closes the book and the generations. Whoever still reads one closes it when done.
    pub(super) fn close_databases(&self) {
        // The book first: without it no sealed generation is opened any more.
        write(&self.meta).take();
        write(&self.open).take();
        self.close_all_sealed();
    }

    pub(super) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        read(&self.catalog)
    }

    pub(super) fn catalog_mut(&self) -> RwLockWriteGuard<'_, Catalog> {
        write(&self.catalog)
    }

    /// Ends the path for good and says why, once.
    pub(super) fn fail(&self, reason: &str) {
        self.poison.store(true, Ordering::SeqCst);
        let first = self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| reason.to_owned());
            first
        });
        if first {
            tracing::error!(path = %self.path.display(), reason, "the stage path has failed and takes nothing more");
        }
        self.end();
    }

    /// Ends what callers wait for.
    pub(super) fn end(&self) {
        self.room.close();
        for stage in self.stages.values() {
            stage.close_head();
        }
    }

    /// Why nothing can be done any more.
    pub(super) fn ended(&self) -> StageError {
        match &*self.failure.borrow() {
            Some(reason) => StageError::Failed {
                path: self.path.display().to_string(),
                reason: reason.clone(),
            },
            None => StageError::Closed,
        }
    }

    /// Fails the path if the outcome is an error, unless it has ended: whoever still reads then meets closed databases.
    pub(super) fn checked<T>(&self, outcome: Result<T, String>) -> Result<T, StageError> {
        outcome.map_err(|reason| {
            if !self.room.is_closed() {
                self.fail(&reason);
            }
            self.ended()
        })
    }

    /// Where the stage begins and ends.
    pub(super) fn bounds(&self, stage: &StageState) -> Bounds {
        let head = stage.head();
        let oldest = self.oldest(&stage.name).map_or(head, |oldest| oldest.min(head));
        Bounds {
            oldest,
            head,
            reserved: stage.reserved(),
            given_from: stage.given_from,
            staged: stage.staged(head),
            is_uncounted: stage.is_uncounted,
        }
    }

    /// Offset of the oldest message of a stage that is not being dropped.
    pub(super) fn oldest(&self, stage: &str) -> Option<Offset> {
        self.catalog()
            .values()
            .filter(|generation| generation.entry.state != GenerationState::Dropping)
            .find_map(|generation| generation.extents.get(stage).map(|extent| extent.first))
    }

    /// Adds gaps that were found, to the book as well, and says what is new of them.
    pub(super) fn record_gaps(&self, stage: &StageState, gaps: Vec<Gap>) -> Result<(), String> {
        for gap in gaps {
            let change = write(&stage.gaps).add(&gap);
            if change != GapChange::default() {
                stage.changed.send_replace(());
                report(&stage.name, &change);
                let meta = self.meta()?;
                meta.put_gaps(&stage.name, &change)?;
                meta.commit()?;
            }
        }
        Ok(())
    }

    /// Whether there is room to open a database, with the reserve's if need be.
    pub(super) fn has_room_to_open(&self) -> Result<bool, String> {
        self.has_room_for(self.options.tuning.segment_bytes as u64 * OPEN_ROOM_SEGMENTS + BOOK_ROOM)
    }

    /// Whether there is room to write in the book what can wait: so much that a database can be opened afterwards.
    pub(super) fn has_room_for_routine(&self) -> Result<bool, String> {
        self.has_room_for(self.options.tuning.segment_bytes as u64 * OPEN_ROOM_SEGMENTS + 2 * BOOK_ROOM)
    }

    /// Whether there is room to write in the book, with the reserve's if need be.
    pub(super) fn has_room_for_book(&self) -> Result<bool, String> {
        self.has_room_for(BOOK_ROOM)
    }

    fn has_room_for(&self, needed: u64) -> Result<bool, String> {
        let free_bytes = || disk::free_bytes(&self.path).map_err(|error| describe(&error));
        let free = free_bytes()?;
        if free >= needed {
            return Ok(true);
        }
        let mut reserve = lock(&self.reserve);
        let Some(reserve) = reserve.as_mut().filter(|reserve| reserve.is_held()) else {
            return Ok(false);
        };
        tracing::warn!(path = %self.path.display(), free, "the disk is full; using the reserve");
        reserve.give_back().map_err(|error| describe(&error))?;
        Ok(free_bytes()? >= needed)
    }
}

/// Logs what was found missing.
fn report(stage: &str, change: &GapChange) {
    for gap in &change.added {
        let (from, to) = (gap.from.get(), gap.to.get());
        match gap.cause {
            GapCause::Lost => {
                tracing::error!(
                    stage,
                    from,
                    to,
                    messages = gap.messages,
                    why = gap.why,
                    "messages are lost from the disk"
                );
            }
            GapCause::DroppedOldest => {
                tracing::error!(
                    stage,
                    from,
                    to,
                    messages = gap.messages,
                    "messages are dropped: the stage is full"
                );
            }
            GapCause::Reservation | GapCause::Expired => {
                tracing::info!(stage, from, to, cause = %gap.cause, "offsets are skipped");
            }
        }
    }
}

/// An error with its source, where only words are passed on.
pub(super) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", describe(source)),
        None => error.to_string(),
    }
}

/// A panic elsewhere has failed the path already; what a lock guards is still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`].
pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`].
pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
