//! One process at a time works in a stage path: an advisory lock on the file `lock`, which names its holder.
//!
//! The lock goes with the process that holds it, however that ends; the file stays.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::disk::{self, DiskError};
use super::options::OpenError;

/// The file's name in the stage path.
const NAME: &str = "lock";

/// Digits of a process id, and more.
const MAX_PID_BYTES: u64 = 20;

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct PathLock {
    _file: File,
}

impl PathLock {
    /// Takes the lock of `path`, or says who has it.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
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
                let mut holder = String::new();
                // Who holds it is told if it can be; that it is held is certain.
                drop((&file).take(MAX_PID_BYTES).read_to_string(&mut holder));
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                    pid: holder.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source).into()),
        }
        disk::adopt_owner(&name, path)?;
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| write!(file, "{}", std::process::id()))
            .map_err(io("write"))?;
        Ok(Self { _file: file })
    }
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
