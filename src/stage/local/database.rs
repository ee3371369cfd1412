//! One sled database: opened with care, committed durably, closed or abandoned.
//!
//! Invariants:
//! * Every file is read from end to end before sled sees it: sled takes what it can't read for a torn tail, and overwrites it.
//! * A mark stands beside a database while it is being opened. Who finds the mark tries a copy in a child process first.
//! * What was recovered is flushed and synced before anybody sees it.
//! * [`Database::commit`] is `flush`, then `fdatasync` on a descriptor of our own: sled's `flush` is no fsync. After an
//!   error nothing is synced any more, not even by dropping: a second fsync may falsely succeed.
//!
//! What it leaves to others: what a condemned database means.

use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::disk::{self, DiskError};
use super::options::OpenError;
use super::trial::{SledSettings, TrialCommand, Verdict};

/// What the mark beside a database that is being opened begins with.
const MARK_PREFIX: &str = "opening-";

/// sled's lock goes a moment after its database is dropped.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Set once anything of a stage path has failed: from then on nothing of it is written or synced.
pub(super) type Poison = Arc<AtomicBool>;

/// What opening came to.
pub(super) enum Opened {
    /// It can be used.
    Sound(Database),
    /// A trial on a copy ended in this error: sled can't open it.
    Condemned(String),
}

/// An open sled database.
pub(super) struct Database {
    /// `None` only while being dropped.
    db: Option<sled::Db>,
    /// The file `db` of the database, to be synced.
    file: File,
    dir: PathBuf,
    poison: Poison,
}

impl Database {
    /// Makes the database `dir` durably, with what `fill` puts into it, and closes it.
    pub(super) fn create(
        dir: &Path,
        settings: SledSettings,
        fill: impl FnOnce(&sled::Db) -> sled::Result<()>,
    ) -> Result<(), OpenError> {
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name().and_then(|name| name.to_str()))
        else {
            return Err(DiskError::Name { path: dir.to_owned() }.into());
        };
        disk::create_durably(parent, name, |unfinished| {
            let failed = |error: sled::Error| failure(dir, &error);
            let db = settings.config(unfinished).open().map_err(failed)?;
            fill(&db).map_err(failed)?;
            db.flush().map_err(failed)?;
            Ok(())
        })
    }

    /// Opens a database that was closed or left by a crash.
    pub(super) fn open(
        dir: &Path,
        settings: SledSettings,
        trial: &TrialCommand,
        poison: &Poison,
    ) -> Result<Opened, OpenError> {
        disk::read_through(dir)?;
        Self::open_read_through(dir, settings, trial, poison)
    }

    /// As [`Self::open`], for a database whose files the caller has just read from end to end.
    pub(super) fn open_read_through(
        dir: &Path,
        settings: SledSettings,
        trial: &TrialCommand,
        poison: &Poison,
    ) -> Result<Opened, OpenError> {
        let mark = mark_of(dir)?;
        if mark.exists() {
            tracing::warn!(database = %dir.display(), "an earlier start did not survive opening it; trying a copy first");
            if let Some(reason) = condemned(dir, settings, trial) {
                disk::remove_durably(&mark)?;
                return Ok(Opened::Condemned(reason));
            }
        } else {
            disk::create_file(&mark)?;
            if let Some(parent) = mark.parent() {
                disk::adopt_owner(&mark, parent)?;
                disk::fsync_dir(parent)?;
            }
        }
        let attempt = catch_unwind(AssertUnwindSafe(|| open_patiently(dir, settings)));
        let reason = match attempt {
            Ok(Ok(db)) => {
                let opened = Self::synced(db, dir, poison)?;
                // sled makes a snapshot when it opens; made by root, the engine's own user could not read it.
                if let Some(parent) = dir.parent() {
                    disk::adopt_owner(dir, parent)?;
                }
                std::fs::remove_file(&mark).map_err(|source| DiskError::Io {
                    action: "remove",
                    path: mark,
                    source,
                })?;
                return Ok(Opened::Sound(opened));
            }
            Ok(Err(error @ sled::Error::Io(_))) => return Err(failure(dir, &error)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "sled panicked".to_owned(),
        };
        // Only what happens to an untouched copy in a process of its own is a verdict.
        match condemned(dir, settings, trial) {
            Some(reason) => {
                disk::remove_durably(&mark)?;
                Ok(Opened::Condemned(reason))
            }
            None => Err(OpenError::Database {
                path: dir.to_owned(),
                reason,
            }),
        }
    }

    fn synced(db: sled::Db, dir: &Path, poison: &Poison) -> Result<Self, OpenError> {
        let name = dir.join("db");
        let file = File::open(&name).map_err(|source| DiskError::Io {
            action: "open",
            path: name,
            source,
        })?;
        let database = Self {
            db: Some(db),
            file,
            dir: dir.to_owned(),
            poison: Arc::clone(poison),
        };
        match database.commit() {
            Ok(()) => Ok(database),
            Err(reason) => Err(OpenError::Database {
                path: dir.to_owned(),
                reason,
            }),
        }
    }

    /// The tree of this name, made when it is not there.
    pub(super) fn tree(&self, name: &str) -> Result<sled::Tree, String> {
        self.handle()?
            .open_tree(name)
            .map_err(|error| self.describe("open a tree of", &error))
    }

    /// The tree of this name, if it is there. Writes nothing, so that it is for what is sealed.
    pub(super) fn tree_if_there(&self, name: &str) -> Result<Option<sled::Tree>, String> {
        let is_there = self
            .handle()?
            .tree_names()
            .iter()
            .any(|found| found == name.as_bytes());
        is_there.then(|| self.tree(name)).transpose()
    }

    /// Names of the trees in order.
    pub(super) fn tree_names(&self) -> Result<Vec<String>, String> {
        let mut names: Vec<_> = self
            .handle()?
            .tree_names()
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Makes everything inserted so far durable. After an error the path is poisoned.
    pub(super) fn commit(&self) -> Result<(), String> {
        if self.poison.load(Ordering::SeqCst) {
            return Err(format!(
                "{} is not written to after a failure",
                self.dir.display()
            ));
        }
        let outcome = self
            .handle()
            .and_then(|db| db.flush().map_err(|error| self.describe("write", &error)))
            .and_then(|_| {
                self.file
                    .sync_data()
                    .map_err(|error| format!("could not sync {}: {error}", self.dir.display()))
            });
        if outcome.is_err() {
            self.poison.store(true, Ordering::SeqCst);
        }
        outcome
    }

    /// Words for an error of sled, without a payload. Unless it is the operating system's, the next start tries a copy first.
    pub(super) fn describe(&self, action: &str, error: &sled::Error) -> String {
        if !matches!(error, sled::Error::Io(_)) {
            self.suspect();
        }
        format!("could not {action} {}: {error}", self.dir.display())
    }

    /// Leaves the mark of an opening, so that the next start tries a copy of this database first.
    pub(super) fn suspect(&self) {
        let marked = mark_of(&self.dir).and_then(|mark| {
            if !mark.exists() {
                disk::create_file(&mark)?;
                if let Some(parent) = mark.parent() {
                    disk::adopt_owner(&mark, parent)?;
                }
            }
            Ok(())
        });
        if let Err(error) = marked {
            tracing::warn!(database = %self.dir.display(), %error, "could not mark a suspect database");
        }
    }

    fn handle(&self) -> Result<&sled::Db, String> {
        self.db
            .as_ref()
            .ok_or_else(|| format!("{} is closed", self.dir.display()))
    }
}

/// sled syncs when it is dropped, which must not happen after a failure: then it is left to the end of the process.
impl Drop for Database {
    fn drop(&mut self) {
        if self.poison.load(Ordering::SeqCst)
            && let Some(db) = self.db.take()
        {
            std::mem::forget(db);
        }
    }
}

/// Waits until sled has let go of a database that was dropped: until then it may still write.
pub(super) fn wait_until_closed(dir: &Path) -> Result<(), DiskError> {
    let name = dir.join("db");
    let deadline = Instant::now() + LOCK_PATIENCE;
    let failed = |source| DiskError::Io {
        action: "wait for the lock of",
        path: name.clone(),
        source,
    };
    let file = File::open(&name).map_err(failed)?;
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
            Err(error) => return Err(failed(error.into())),
        }
    }
}

fn open_patiently(dir: &Path, settings: SledSettings) -> sled::Result<sled::Db> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match settings.config(dir).open() {
            Err(sled::Error::Io(error))
                if error.kind() == std::io::ErrorKind::Other
                    && error.to_string().contains("could not acquire lock")
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(LOCK_POLL);
            }
            outcome => return outcome,
        }
    }
}

/// Why a trial condemns the database, if it does.
fn condemned(dir: &Path, settings: SledSettings, trial: &TrialCommand) -> Option<String> {
    match trial.open_in_child(dir, settings) {
        Verdict::Sound => None,
        Verdict::Condemned(reason) => Some(reason),
        Verdict::Unclear(reason) => {
            tracing::warn!(database = %dir.display(), reason, "a trial came to no verdict");
            None
        }
    }
}

fn mark_of(dir: &Path) -> Result<PathBuf, DiskError> {
    match dir.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(dir.with_file_name(format!("{MARK_PREFIX}{name}"))),
        None => Err(DiskError::Name { path: dir.to_owned() }),
    }
}

fn failure(dir: &Path, error: &sled::Error) -> OpenError {
    OpenError::Database {
        path: dir.to_owned(),
        reason: error.to_string(),
    }
}
