//! An open stage path and its stages, as the rest of the program sees them.
//!
//! Invariants: the lock is taken first and released last; both threads have ended before the databases are closed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use tokio::sync::watch;
use uuid::Uuid;

use super::cursors::Cursors;
use super::disk::{self, ReserveFile};
use super::handle::LocalStage;
use super::lock::{Holder, PathLock, not_writable};
use super::options::{LocalOptions, OpenError, StageRole};
use super::recover::{self, Recovered};
use super::state::{Command, Parts, Shared, StageState, lock, write};
use super::trial::TrialCommand;
use super::writer::{Lane, OpenGeneration, Writer};
use super::{keeper, meta};
use crate::stage::{SharedStage, StageError};

/// The reserve's name in the path.
const RESERVE: &str = "reserve";

/// Free space that opening needs, in segments: the book, the open generation and one to roll to.
const OPEN_ROOM_SEGMENTS: u64 = 3;

/// An open stage path. Dropping it closes it, as [`close`](Self::close) does.
pub struct LocalPath {
    shared: Arc<Shared>,
    stages: BTreeMap<String, Arc<LocalStage>>,
    running: Arc<Mutex<Option<Running>>>,
}

/// What ends when the path is closed.
struct Running {
    writer: JoinHandle<()>,
    keeper: JoinHandle<()>,
    _lock: PathLock,
}

impl LocalPath {
    /// Opens the path, recovering what a crash left, or makes it. Blocks, for seconds after a crash. Stages that the path holds
    /// and `stages` does not name are there as well.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is lost by one.
    pub fn open(options: LocalOptions, stages: &[StageRole]) -> Result<Self, OpenError> {
        make_directory(&options.path)?;
        Self::open_existing(options, stages, Holder::Engine)
    }

    pub(super) fn open_existing(
        mut options: LocalOptions,
        roles: &[StageRole],
        holder: Holder,
    ) -> Result<Self, OpenError> {
        // The working directory may change; the path may not.
        options.path = std::path::absolute(&options.path).unwrap_or(options.path);
        let path_lock = PathLock::take(&options.path, holder)?;
        ensure_room(&options)?;
        let trial = options
            .tuning
            .trial
            .clone()
            .unwrap_or_else(TrialCommand::of_this_process);
        let poison = Arc::default();
        // Who only looks makes no stage that is not there yet.
        let made = if holder == Holder::Engine { roles } else { &[] };
        let names: Vec<_> = made.iter().map(|role| role.name.as_str()).collect();
        let recovered = recover::recover(&options, &trial, &poison, &names)
            .map_err(|error| unwritable(&options.path, error))?;
        let reserve = ReserveFile::open(&options.path.join(RESERVE), options.tuning.reserve_bytes)?;
        let Recovered {
            id,
            meta,
            catalog,
            open,
            stages: continuations,
            clean,
        } = recovered;

        let (mut states, mut lanes) = (BTreeMap::new(), BTreeMap::new());
        for (name, from) in continuations {
            let role = roles.iter().find(|role| role.name == name);
            let state = Arc::new(StageState::new(&name, role, &from.entry, from.outage_sequence));
            state.reserved.store(from.entry.reserved.get(), Ordering::SeqCst);
            state.refused.store(from.entry.refused, Ordering::Relaxed);
            *write(&state.gaps) = from.gaps;
            *lock(&state.cursors) = Cursors::booked(from.cursors);
            lanes.insert(
                name.clone(),
                Lane {
                    state: Arc::clone(&state),
                    tree: None,
                    next: from.next,
                    prev_end: from.prev_end,
                    reserved: from.entry.reserved,
                    outage_sequence: from.outage_sequence,
                    refused: None,
                    period: from.period,
                },
            );
            states.insert(name, state);
        }
        let generation = catalog.get(&open.0);
        let holds_data = generation.is_some_and(|generation| !generation.extents.is_empty());
        let open_generation = OpenGeneration {
            number: open.0,
            database: Arc::clone(&open.1),
            // The disk's bytes are more than the records'; a restart seals a little early.
            record_bytes: generation
                .filter(|_| holds_data)
                .map_or(0, |generation| generation.bytes / 2),
            first_data: holds_data.then(std::time::Instant::now),
        };
        let (commands, received) = mpsc::channel();
        let parts = Parts {
            path: options.path.clone(),
            id,
            options,
            trial,
            poison,
            meta,
            stages: states,
            catalog,
            open,
            reserve: Some(reserve),
        };
        let shared = Arc::new(Shared::new(parts, commands));
        // One wish to look is enough.
        let (wake_keeper, woken) = mpsc::sync_channel(1);
        let writer = Writer::new(Arc::clone(&shared), lanes, open_generation, wake_keeper, clean);
        let writer = spawn("stage-writer", &shared, move || writer.run(&received))?;
        let keeping = Arc::clone(&shared);
        let keeper = spawn("stage-keeper", &shared, move || keeper::keep(&keeping, &woken))?;
        let stages = shared
            .stages
            .iter()
            .map(|(name, state)| (name.clone(), Arc::new(LocalStage::new(&shared, state))))
            .collect();
        Ok(Self {
            shared,
            stages,
            running: Arc::new(Mutex::new(Some(Running {
                writer,
                keeper,
                _lock: path_lock,
            }))),
        })
    }

    /// The stage of this name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<SharedStage> {
        let stage = self.stages.get(name)?;
        Some(Arc::clone(stage) as SharedStage)
    }

    /// Names of all stages in order.
    pub fn stage_names(&self) -> impl Iterator<Item = &str> + '_ {
        self.stages.keys().map(String::as_str)
    }

    /// The path's id; given once when it was made.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.shared.id
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.shared.path
    }

    /// Why the path has failed, to wait on: `None` while it has not.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failure.subscribe()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Commits everything that was queued, marks the stop as clean, closes the databases and releases the lock. Blocks.
    ///
    /// # Errors
    /// When the path has failed, before or now.
    pub fn close(&self) -> Result<(), StageError> {
        self.closing()()
    }

    /// [`close`](Self::close), to be done elsewhere.
    pub(super) fn closing(&self) -> impl FnOnce() -> Result<(), StageError> + Send + 'static {
        let (shared, running) = (Arc::clone(&self.shared), Arc::clone(&self.running));
        move || {
            // Who closes it a second time waits for the first.
            let mut running = lock(&running);
            if let Some(Running {
                writer,
                keeper,
                _lock,
            }) = running.take()
            {
                // No thread hears it when both are gone already.
                drop(shared.commands.send(Command::Close));
                // A panic of a thread has failed the path already.
                drop(writer.join());
                drop(keeper.join());
                shared.end();
                shared.close_databases();
            }
            match shared.ended() {
                StageError::Closed => Ok(()),
                failed => Err(failed),
            }
        }
    }
}

impl Drop for LocalPath {
    fn drop(&mut self) {
        drop(self.closing()());
    }
}

/// Starts a named thread whose panic fails the path.
fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let watched = Arc::clone(shared);
    let words = format!("the thread {name} panicked");
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            watched.suspect_open();
            watched.fail(&words);
        }
    });
    spawned.map_err(|source| {
        OpenError::Disk(disk::DiskError::Io {
            action: "start a thread for",
            path: shared.path.clone(),
            source,
        })
    })
}

fn make_directory(path: &Path) -> Result<(), OpenError> {
    let made = match path.parent() {
        Some(parent) if !path.exists() => std::fs::create_dir_all(parent)
            .map_err(|source| disk::DiskError::Io {
                action: "create the directory",
                path: parent.to_owned(),
                source,
            })
            .and_then(|()| disk::create_dir(path)),
        _ => Ok(()),
    };
    made.map_err(|source| not_writable(path, source))
}

/// Makes sure that there is room to open, with the reserve's if need be.
fn ensure_room(options: &LocalOptions) -> Result<(), OpenError> {
    let needed = options.tuning.segment_bytes as u64 * OPEN_ROOM_SEGMENTS;
    let mut free = disk::free_bytes(&options.path)?;
    let reserve = options.path.join(RESERVE);
    if free < needed && reserve.exists() {
        disk::remove_durably(&reserve)?;
        free = disk::free_bytes(&options.path)?;
    }
    if free < needed {
        return Err(OpenError::DiskFull {
            path: options.path.clone(),
            free,
            needed,
        });
    }
    Ok(())
}

/// Tells that a directory is not writable from other errors.
fn unwritable(path: &Path, error: OpenError) -> OpenError {
    match error {
        OpenError::Disk(source) => not_writable(path, source),
        other => other,
    }
}

/// Whether a directory holds a stage path.
pub(super) fn is_there(path: &Path) -> bool {
    path.join(meta::NAME).is_dir() || path.join("g-0").is_dir()
}
