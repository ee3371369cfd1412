//! One process at a time works in a stage path: an advisory lock on the file `lock`, which names its holder:
//! `<pid> engine` or `<pid> tool`; the number alone is an engine's of an earlier version.
//!
//! The lock goes with the process that holds it, however that ends; the file stays.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::disk::{self, DiskError};
use super::options::OpenError;

/// The file's name in the stage path.
const NAME: &str = "lock";

/// A process id and a word, and more.
const MAX_CONTENT_BYTES: u64 = 40;

/// What a process does in a stage path that it has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It runs the consumers, for as long as it lives, and serves the path to others.
    Engine,
    /// It looks, and is done soon.
    Tool,
}

impl Holder {
    fn word(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Tool => "tool",
        }
    }
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct PathLock {
    file: File,
}

/// Closing the file would not do: a child process that this one is just starting has every open file until it becomes the other
/// program, and a lock lasts as long as anybody has its file.
impl Drop for PathLock {
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "the lock of a stage path goes with its file");
        }
    }
}

impl PathLock {
    /// Takes the lock of `path` for what `holder` says, or tells who has it.
    pub(super) fn take(path: &Path, holder: Holder) -> Result<Self, OpenError> {
        let name = path.join(NAME);
        let io = |action| {
            let name = name.clone();
            move |source| DiskError::Io {
                action,
                path: name,
                source,
            }
        };
        let mut file = match disk::create_file(&name) {
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::AlreadyExists) => OpenOptions::new()
                .read(true)
                .write(true)
                .open(&name)
                .map_err(io("open")),
            made => made,
        }
        .map_err(|source| not_writable(path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut content = String::new();
                // Who holds it is told if it can be; that it is held is certain.
                drop((&file).take(MAX_CONTENT_BYTES).read_to_string(&mut content));
                let (pid, holder) = parse(&content);
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                    holder,
                    pid,
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source).into()),
        }
        disk::adopt_owner(&name, path)?;
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| write!(file, "{} {}", std::process::id(), holder.word()))
            .map_err(io("write"))?;
        Ok(Self { file })
    }
}

/// Who holds it. Just after it was taken nothing may stand there yet.
fn parse(content: &str) -> (Option<u32>, Option<Holder>) {
    let mut words = content.split_whitespace();
    let pid = words.next().and_then(|pid| pid.parse().ok());
    let holder = match words.next() {
        Some("tool") => Some(Holder::Tool),
        Some("engine") => Some(Holder::Engine),
        Some(_) => None,
        None => pid.map(|_| Holder::Engine),
    };
    (pid, holder)
}

/// Whether a process works in the stage path, as far as one can see who may only read it.
#[must_use]
pub fn is_in_use(path: &Path) -> bool {
    File::open(path.join(NAME))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Tells a directory that may not be written from everything else that may go wrong.
pub(super) fn not_writable(path: &Path, source: DiskError) -> OpenError {
    use std::io::ErrorKind;
    match source.io_kind() {
        Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory) => {
            OpenError::NotWritable {
                path: path.to_owned(),
                source,
            }
        }
        _ => OpenError::Disk(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_tells_an_engine_from_a_tool_and_still_reads_what_only_named_the_process() {
        assert_eq!(parse("17 engine"), (Some(17), Some(Holder::Engine)));
        assert_eq!(parse("17 tool"), (Some(17), Some(Holder::Tool)));
        assert_eq!(parse("17"), (Some(17), Some(Holder::Engine)));
        assert_eq!(parse(""), (None, None));
        assert_eq!(parse("17 something newer"), (Some(17), None));

        let dir = tempfile::tempdir().unwrap();
        let held = PathLock::take(dir.path(), Holder::Tool).unwrap();
        let refused = PathLock::take(dir.path(), Holder::Engine).unwrap_err();
        let OpenError::InUse { pid, holder, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!((pid, holder), (Some(std::process::id()), Some(Holder::Tool)));
        drop(held);
        PathLock::take(dir.path(), Holder::Engine).unwrap();
    }

    #[test]
    fn a_lock_that_was_given_back_is_free_although_a_child_being_started_still_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let held = PathLock::take(dir.path(), Holder::Engine).unwrap();
        let of_child = held.file.try_clone().unwrap();
        drop(held);
        PathLock::take(dir.path(), Holder::Engine).unwrap();
        drop(of_child);
    }
}
