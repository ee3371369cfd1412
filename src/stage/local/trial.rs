//! Opens a suspect database in a child process, on a copy, to learn whether the engine can dare to open it.
//!
//! sled may panic or exhaust the memory on a damaged database, and writes to whatever it opens. So the engine runs its own
//! program once more: [`run_if_asked`], called first in `main`, sees in the environment that it is such a child, opens the
//! copy, reads every record of every tree, says its verdict on its standard output and exits.
//!
//! Invariants:
//! * The suspect database is only read; the copy is always removed.
//! * Only an error or a panic that the child itself reports condemns a database. A child that was killed, ran out of memory or
//!   time, or could not be started says nothing about it.
//!
//! What it leaves to others: reading the database end to end before (`disk::read_through`), and what becomes of a
//! condemned one.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::disk::{self, DiskError};

/// In a child's environment: the database to open.
const ENV_OPEN: &str = "SOCKET_EL_TRIAL_OPEN";

/// In an engine's environment: the program to run as the child, in place of its own.
const ENV_PROGRAM: &str = "SOCKET_EL_TRIAL_PROGRAM";

/// In a child's environment: segment size and cache capacity, with a colon between.
const ENV_SETTINGS: &str = "SOCKET_EL_TRIAL_SETTINGS";

/// What stands before a verdict on a child's standard output, where a test's own lines may stand too.
const SAYS: &str = "socket-el trial: ";

const SOUND: &str = "sound";
const CONDEMNED: &str = "condemned: ";
const UNCLEAR: &str = "unclear: ";

/// How long a trial may take. A sealed generation of 256 MiB takes a second or two.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// How often the parent looks whether the child has ended.
const POLL: Duration = Duration::from_millis(10);

/// The most bytes of a child's output that are read, and the most characters of a reason that are kept.
const MAX_OUTPUT: u64 = 16 * 1024;
const MAX_REASON: usize = 500;

/// Free space to be left after the copy is made, for what sled writes when it opens it.
const MARGIN_BYTES: u64 = 64 << 20;

/// What a trial found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The database opens, and every record in it can be read.
    Sound,
    /// Opening or reading it ends in this error or panic.
    Condemned(String),
    /// The trial could not be held, or ended without a verdict, for this reason. Try again later.
    Unclear(String),
}

/// How a database is to be opened: as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SledSettings {
    /// Bytes of a segment. sled refuses a database that was made with another size.
    pub segment_size: usize,
    /// Bytes that sled's cache is to stay below; it exceeds them several times.
    pub cache_capacity: u64,
}

impl SledSettings {
    /// sled's configuration for the database in `dir`: no thread that flushes, no compression of its own.
    #[must_use]
    pub fn config(&self, dir: &Path) -> sled::Config {
        sled::Config::new()
            .path(dir)
            .segment_size(self.segment_size)
            .cache_capacity(self.cache_capacity)
            .flush_every_ms(None)
            .use_compression(false)
    }

    fn to_env(self) -> String {
        format!("{}:{}", self.segment_size, self.cache_capacity)
    }

    fn from_env(text: &str) -> Option<Self> {
        let (segment_size, cache_capacity) = text.split_once(':')?;
        Some(Self {
            segment_size: segment_size.parse().ok()?,
            cache_capacity: cache_capacity.parse().ok()?,
        })
    }
}

/// Opens a copy of the database in `db_dir` in a child process of this program, whose `main` calls [`run_if_asked`] first.
/// The database must be closed. Blocks for as long as the trial takes.
#[must_use]
pub fn open_in_child(db_dir: &Path, settings: SledSettings) -> Verdict {
    match std::env::current_exe() {
        Ok(program) => TrialCommand::new(program).open_in_child(db_dir, settings),
        Err(error) => Verdict::Unclear(format!("this program's own file is not known: {error}")),
    }
}

/// The program that is run as the child: one whose `main` calls [`run_if_asked`] first.
#[derive(Clone, Debug)]
pub struct TrialCommand {
    program: PathBuf,
    args: Vec<OsString>,
    time_limit: Duration,
}

impl TrialCommand {
    /// This program, without arguments.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            time_limit: TIME_LIMIT,
        }
    }

    /// This process's own program; or the one that the environment variable `SOCKET_EL_TRIAL_PROGRAM` names, for processes whose
    /// `main` is not ours to begin with [`run_if_asked`], as that of a test is.
    #[must_use]
    pub fn of_this_process() -> Self {
        let program = std::env::var_os(ENV_PROGRAM).map(PathBuf::from);
        // A program that can't be found comes to no verdict, which is what there is to say then.
        Self::new(
            program
                .or_else(|| std::env::current_exe().ok())
                .unwrap_or_default(),
        )
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Gives the child this long instead of two minutes.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// As [`open_in_child`], with this program as the child.
    #[must_use]
    pub fn open_in_child(&self, db_dir: &Path, settings: SledSettings) -> Verdict {
        let copy = match Copy::of(db_dir) {
            Ok(copy) => copy,
            Err(reason) => return Verdict::Unclear(reason),
        };
        self.run(&copy.dir, settings)
            .unwrap_or_else(|error| Verdict::Unclear(format!("could not run the trial: {error}")))
    }

    fn run(&self, dir: &Path, settings: SledSettings) -> io::Result<Verdict> {
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env(ENV_OPEN, dir)
            .env(ENV_SETTINGS, settings.to_env())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        // The verdict is one short line, which a pipe holds: the child never waits for somebody to read.
        let deadline = Instant::now() + self.time_limit;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                outcome => {
                    child.kill()?;
                    child.wait()?;
                    outcome?;
                    let limit = self.time_limit;
                    return Ok(Verdict::Unclear(format!("no verdict within {limit:?}")));
                }
            }
        };
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_OUTPUT).read_to_end(&mut output)?;
        }
        let verdict = said(&String::from_utf8_lossy(&output));
        Ok(match verdict {
            Some(verdict) if status.success() => verdict,
            _ => Verdict::Unclear(format!("the trial ended without a verdict: {status}")),
        })
    }
}

/// The verdict in a child's output. One that condemns outweighs any other: a thread may panic while another one is done.
fn said(output: &str) -> Option<Verdict> {
    let mut verdicts: Vec<_> = output
        .lines()
        .filter_map(|line| line.split_once(SAYS))
        .filter_map(|(_, said)| {
            if said == SOUND {
                Some(Verdict::Sound)
            } else if let Some(reason) = said.strip_prefix(CONDEMNED) {
                Some(Verdict::Condemned(reason.to_owned()))
            } else {
                let reason = said.strip_prefix(UNCLEAR)?;
                Some(Verdict::Unclear(reason.to_owned()))
            }
        })
        .collect();
    let condemning = verdicts
        .iter()
        .position(|verdict| matches!(verdict, Verdict::Condemned(_)));
    match condemning {
        Some(at) => Some(verdicts.swap_remove(at)),
        None => verdicts.pop(),
    }
}

/// A copy of a database beside it, removed when dropped. After a crash `disk::sweep` removes it.
struct Copy {
    dir: PathBuf,
}

impl Copy {
    fn of(db_dir: &Path) -> Result<Self, String> {
        let name = db_dir.file_name().and_then(|name| name.to_str());
        let (Some(parent), Some(name)) = (db_dir.parent(), name) else {
            return Err(format!("{} has no usable name", db_dir.display()));
        };
        let prefix = disk::TMP_PREFIX;
        let copy = Self {
            dir: parent.join(format!("{prefix}trial-{name}-{}", std::process::id())),
        };
        let made = (|| {
            // Copies that share blocks need less, but nobody can tell before.
            let (needed, free) = (disk::dir_bytes(db_dir)? + MARGIN_BYTES, disk::free_bytes(db_dir)?);
            if free < needed {
                return Ok(Some(format!(
                    "a trial needs {needed} bytes of free space, there are {free}"
                )));
            }
            disk::copy_tree(db_dir, &copy.dir)?;
            disk::adopt_owner(&copy.dir, db_dir)?;
            Ok(None)
        })();
        match made {
            Ok(None) => Ok(copy),
            Ok(Some(reason)) => Err(reason),
            Err(error) => Err(describe(&error)),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.dir.display(), %error, "could not remove the copy of a trial; the next start will");
        }
    }
}

/// An error with its source, for a verdict is only words.
fn describe(error: &DiskError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Holds a trial and exits if this process is a child of [`open_in_child`]; otherwise returns at once. To be called first in
/// `main`, before any thread and any argument.
pub fn run_if_asked() {
    let Some(dir) = std::env::var_os(ENV_OPEN) else {
        return;
    };
    // A trial is of no use to anybody once the engine is gone. Where that can't be asked for, it ends by itself.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
    condemn_on_panic();
    let settings = std::env::var(ENV_SETTINGS)
        .ok()
        .and_then(|text| SledSettings::from_env(&text));
    let verdict = match settings {
        Some(settings) => try_open(Path::new(&dir), settings),
        None => Verdict::Unclear(format!("{ENV_SETTINGS} is missing or unusable")),
    };
    say(&verdict);
    std::process::exit(0);
}

/// Makes a panic the verdict. sled has threads of its own: a panic on any of them must not leave the others waiting for it, so
/// the process ends there and then.
fn condemn_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        say(&Verdict::Condemned(format!("panic: {panic}")));
        std::process::exit(0);
    }));
}

/// Opens the database and reads every record of every tree.
fn try_open(dir: &Path, settings: SledSettings) -> Verdict {
    let read_all = || -> sled::Result<()> {
        let db = settings.config(dir).open()?;
        for name in db.tree_names() {
            for record in &db.open_tree(name)? {
                record?;
            }
        }
        db.flush()?;
        Ok(())
    };
    match read_all() {
        Ok(()) => Verdict::Sound,
        Err(sled::Error::Io(error)) if is_of_the_machine(&error) => Verdict::Unclear(error.to_string()),
        // Another segment size than the database was made with, for one: the settings are wrong, not the database.
        Err(sled::Error::Unsupported(reason)) => Verdict::Unclear(reason),
        Err(error) => Verdict::Condemned(error.to_string()),
    }
}

/// Whether an error is the machine's and says nothing about what the database holds.
fn is_of_the_machine(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::OutOfMemory
    )
}

/// Writes a verdict in one line. Nobody can be told when that fails: the parent then sees no verdict, which is what there is.
fn say(verdict: &Verdict) {
    let (word, reason) = match verdict {
        Verdict::Sound => (SOUND, ""),
        Verdict::Condemned(reason) => (CONDEMNED, reason.as_str()),
        Verdict::Unclear(reason) => (UNCLEAR, reason.as_str()),
    };
    let reason: String = reason
        .chars()
        .take(MAX_REASON)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut stdout = io::stdout();
    drop(writeln!(stdout, "{SAYS}{word}{reason}").and_then(|()| stdout.flush()));
}
