//! Files and directories of a stage path: made, renamed and removed so that a power cut at any instant leaves them either
//! as they were or as they were to be.
//!
//! Invariants:
//! * What stands under its own name is whole and on disk: it was made under `tmp-*`, synced, and renamed.
//! * What is removed was renamed to `trash-*` first. [`sweep`] takes away what a crash left of both.
//! * Directories have mode 0700 and files 0600 whatever the umask, and what root makes belongs to the directory's owner.
//! * Links and special files have no place in a stage path and are never followed.
//!
//! What it leaves to others: when anything is to be made or removed, and what the files mean.

mod reserve;
#[cfg(test)]
mod tests;
mod tree;

pub use reserve::ReserveFile;
pub use tree::{FileSum, adopt_owner, copy_tree, dir_bytes, fsync_tree, read_through, restrict_tree};

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

/// What is being made begins with this.
pub const TMP_PREFIX: &str = "tmp-";

/// What is being removed begins with this.
pub const TRASH_PREFIX: &str = "trash-";

/// What was found damaged begins with this. It is evidence: nothing in it is touched.
pub const DAMAGED_PREFIX: &str = "damaged-";

/// Only the owner may enter.
const DIR_MODE: u32 = 0o700;

/// Only the owner may read and write.
const FILE_MODE: u32 = 0o600;

/// How many names are tried for a thing in the trash. More of one name at a time means that removing fails again and
/// again.
const MAX_TRASH_NAMES: u32 = 1000;

/// Why something could not be done to a file or a directory. The operating system's reason is its source.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refused.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: io::Error,
    },
    /// A file gave another number of bytes than it has.
    #[error("{} has {expected} bytes, but {read} could be read: it changes, or is damaged", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its size when reading began.
        expected: u64,
        /// Bytes that were read.
        read: u64,
    },
    /// Neither a file nor a directory.
    #[error("{} is neither a file nor a directory and has no place in a stage; remove it", path.display())]
    Special {
        /// What stands there.
        path: PathBuf,
    },
    /// Deeper or with more entries than any stage is.
    #[error("{} holds more than a stage ever does; is it the right directory?", path.display())]
    TooLarge {
        /// The directory.
        path: PathBuf,
    },
    /// A path without a name that could be used.
    #[error("{} has no usable name", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
}

impl DiskError {
    /// The operating system's reason, when it gave one.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            Self::Length { .. } | Self::Special { .. } | Self::TooLarge { .. } | Self::Name { .. } => None,
        }
    }
}

/// Turns the error of `action` on `path` into a [`DiskError`].
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Makes the directory `parent/name` so that it is either whole and on disk, or not there: `fill` is given an
/// empty directory to put everything into, and has to close all of it before it returns.
///
/// # Errors
/// What `fill` returns, or what went wrong around it. Then nothing is left behind but what a crash would leave, which
/// [`sweep`] removes.
pub fn create_durably<E: From<DiskError>>(
    parent: &Path,
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let unfinished = parent.join(format!("{TMP_PREFIX}{name}"));
    remove_tree(&unfinished)?;
    let made = fill_and_rename(parent, name, &unfinished, fill);
    if made.is_err() {
        // The first error tells more; what is left is swept at the next start.
        drop(remove_tree(&unfinished));
    }
    made
}

fn fill_and_rename<E: From<DiskError>>(
    parent: &Path,
    name: &str,
    unfinished: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    create_dir(unfinished)?;
    fill(unfinished)?;
    restrict_tree(unfinished)?;
    adopt_owner(unfinished, parent)?;
    fsync_tree(unfinished)?;
    rename_durably(unfinished, &parent.join(name))?;
    Ok(())
}

/// Makes a directory that only its owner may enter. Not durable before its parent is synced.
///
/// # Errors
/// When the operating system refuses, or something stands there.
pub fn create_dir(path: &Path) -> Result<(), DiskError> {
    DirBuilder::new()
        .mode(DIR_MODE)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(DIR_MODE)))
        .map_err(failed("create the directory", path))
}

/// Makes a file that only its owner may read and write. Not durable before it and its directory are synced.
///
/// # Errors
/// When the operating system refuses, or something stands there.
pub fn create_file(path: &Path) -> Result<File, DiskError> {
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path);
    made.and_then(|file| {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        Ok(file)
    })
    .map_err(failed("create", path))
}

/// Makes what a directory lists durable.
///
/// # Errors
/// When the operating system refuses.
pub fn fsync_dir(path: &Path) -> Result<(), DiskError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync the directory", path))
}

/// Renames, and returns when the new name is durable. What stands under the new name is never replaced.
///
/// # Errors
/// When the operating system refuses, or something stands under the new name.
pub fn rename_durably(from: &Path, to: &Path) -> Result<(), DiskError> {
    rename_without_replacing(from, to).map_err(failed("rename", from))?;
    let (old, new) = (parent_of(from)?, parent_of(to)?);
    fsync_dir(new)?;
    if old == new { Ok(()) } else { fsync_dir(old) }
}

fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems don't know the flag. One process at a time works in a stage path, so to look first does.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        outcome => Ok(outcome?),
    }
}

/// Removes a file or a directory with all that is in it. When it returns, and after a crash at any instant before,
/// nothing or all of it stands under its name.
///
/// # Errors
/// When the operating system refuses. When it refused after the renaming, [`sweep`] removes the rest.
pub fn remove_durably(path: &Path) -> Result<(), DiskError> {
    let (parent, name) = (parent_of(path)?, name_of(path)?);
    for number in 0..MAX_TRASH_NAMES {
        let trash = parent.join(format!("{TRASH_PREFIX}{number}-{name}"));
        match rename_durably(path, &trash) {
            Err(error) if error.io_kind() == Some(io::ErrorKind::AlreadyExists) => {}
            Err(error) => return Err(error),
            Ok(()) => return remove_tree(&trash),
        }
    }
    Err(DiskError::TooLarge {
        path: parent.to_owned(),
    })
}

/// Removes what a crash may have left in a stage path: its `tmp-*` and `trash-*`, and `snap.*.generating` in its
/// databases. Returns what it removed, in order of name.
///
/// # Errors
/// When the operating system refuses.
pub fn sweep(path: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let mut removed = Vec::new();
    for entry in tree::entries(path)? {
        if entry.name.starts_with(TMP_PREFIX) || entry.name.starts_with(TRASH_PREFIX) {
            remove_tree(&entry.path)?;
            removed.push(entry.path);
        } else if entry.is_dir && !entry.name.starts_with(DAMAGED_PREFIX) {
            for inner in tree::entries(&entry.path)? {
                if inner.name.starts_with("snap.") && inner.name.ends_with(".generating") {
                    remove_tree(&inner.path)?;
                    removed.push(inner.path);
                }
            }
        }
    }
    if !removed.is_empty() {
        fsync_dir(path)?;
    }
    Ok(removed)
}

/// Bytes that the engine's user may still write to the file system of `path`.
///
/// # Errors
/// When the operating system refuses.
pub fn free_bytes(path: &Path) -> Result<u64, DiskError> {
    let stat =
        rustix::fs::statvfs(path).map_err(|errno| failed("ask for the free space of", path)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Removes a file or a directory with all that is in it, if it is there.
fn remove_tree(path: &Path) -> Result<(), DiskError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(failed("remove", path)),
    }
}

/// The directory that `path` stands in.
fn parent_of(path: &Path) -> Result<&Path, DiskError> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(DiskError::Name {
            path: path.to_owned(),
        }),
    }
}

/// The last name of `path`.
fn name_of(path: &Path) -> Result<&str, DiskError> {
    path.file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| DiskError::Name {
            path: path.to_owned(),
        })
}
