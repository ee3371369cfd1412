//! What is done to all files of a directory: read, synced, copied, counted, given to its owner.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{DIR_MODE, DiskError, FILE_MODE, create_dir, create_file, failed};

/// Directories inside each other: `path/g-1/blobs` is the deepest that a stage has.
const MAX_DEPTH: usize = 8;

/// Entries of one directory. A generation has a handful; the limit keeps a wrong path from being read for hours.
const MAX_ENTRIES: usize = 100_000;

/// Bytes read at a time.
const READ_BUFFER: usize = 256 * 1024;

/// Bytes of a block in the operating system's count of a file's blocks, whatever the file system's own.
const BLOCK: u64 = 512;

/// A file's size and checksum.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileSum {
    /// Relative to the directory that was read, with `/` between directories.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of all its bytes.
    pub crc32c: u32,
}

/// An entry of a directory: a file or a directory.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) is_dir: bool,
    metadata: Metadata,
}

/// What a directory holds, in order of name. What vanishes meanwhile is left out.
pub(super) fn entries(dir: &Path) -> Result<Vec<Entry>, DiskError> {
    let list = "list the directory";
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed(list, dir))? {
        let entry = entry.map_err(failed(list, dir))?;
        let path = entry.path();
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            outcome => outcome.map_err(failed("look at", &path))?,
        };
        let Ok(name) = entry.file_name().into_string() else {
            return Err(DiskError::Name { path });
        };
        if found.len() == MAX_ENTRIES {
            return Err(DiskError::TooLarge { path: dir.to_owned() });
        }
        found.push(Entry {
            name,
            path,
            is_dir: metadata.is_dir(),
            metadata,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Calls `visit` for everything below `dir`, a directory after what it holds, with names relative to `dir`.
fn walk(dir: &Path, visit: &mut dyn FnMut(&str, &Entry) -> Result<(), DiskError>) -> Result<(), DiskError> {
    walk_below(dir, "", MAX_DEPTH, visit)
}

fn walk_below(
    dir: &Path,
    prefix: &str,
    depth: usize,
    visit: &mut dyn FnMut(&str, &Entry) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    if depth == 0 {
        return Err(DiskError::TooLarge { path: dir.to_owned() });
    }
    for entry in entries(dir)? {
        let name = format!("{prefix}{}", entry.name);
        if entry.is_dir {
            walk_below(&entry.path, &format!("{name}/"), depth - 1, visit)?;
        }
        visit(&name, &entry)?;
    }
    Ok(())
}

/// Refuses what is neither a file nor a directory: to open a pipe would wait for ever.
fn file_only(entry: &Entry) -> Result<(), DiskError> {
    if entry.metadata.is_file() {
        Ok(())
    } else {
        Err(DiskError::Special {
            path: entry.path.clone(),
        })
    }
}

/// Makes everything in `dir`, and `dir` itself, durable: what the files hold, and what the directories list. The
/// entry of `dir` in its own parent is not.
///
/// # Errors
/// When the operating system refuses. A second attempt may falsely succeed: what was to be synced must be taken for lost.
pub fn fsync_tree(dir: &Path) -> Result<(), DiskError> {
    walk(dir, &mut |_, entry| {
        if entry.is_dir {
            return super::fsync_dir(&entry.path);
        }
        file_only(entry)?;
        File::open(&entry.path)
            .and_then(|file| file.sync_all())
            .map_err(failed("sync", &entry.path))
    })?;
    super::fsync_dir(dir)
}

/// Reads every file in `dir` from end to end, and returns their sizes and checksums in order of name.
///
/// # Errors
/// When a file cannot be read, or gives another number of bytes than it has. A database for which this failed must not be
/// opened by sled, which would take the unreadable part for a torn tail and overwrite it.
pub fn read_through(dir: &Path) -> Result<Vec<FileSum>, DiskError> {
    let mut buffer = vec![0; READ_BUFFER];
    let mut sums = Vec::new();
    walk(dir, &mut |name, entry| {
        if entry.is_dir {
            return Ok(());
        }
        file_only(entry)?;
        let (size, crc32c) = read_file_through(&entry.path, &mut buffer)?;
        sums.push(FileSum {
            name: name.to_owned(),
            size,
            crc32c,
        });
        Ok(())
    })?;
    sums.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sums)
}

/// Size and checksum of one file.
pub(super) fn read_file_through(path: &Path, buffer: &mut [u8]) -> Result<(u64, u32), DiskError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let expected = file.metadata().map_err(failed("look at", path))?.len();
    let (mut size, mut sum) = (0, 0);
    loop {
        let read = match file.read(buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => outcome.map_err(failed("read", path))?,
        };
        sum = crc32c::crc32c_append(sum, &buffer[..read]);
        size += read as u64;
    }
    if size == expected {
        Ok((size, sum))
    } else {
        Err(DiskError::Length {
            path: path.to_owned(),
            expected,
            read: size,
        })
    }
}

/// Copies the directory `from` to `to`, which must not exist. Where the file system can, the copies share their blocks until one
/// is written to, which takes neither time nor space. Not synced.
///
/// # Errors
/// When the operating system refuses; a part of the copy may then be there.
pub fn copy_tree(from: &Path, to: &Path) -> Result<(), DiskError> {
    create_dir(to)?;
    copy_below(from, to, MAX_DEPTH)
}

fn copy_below(from: &Path, to: &Path, depth: usize) -> Result<(), DiskError> {
    if depth == 0 {
        return Err(DiskError::TooLarge {
            path: from.to_owned(),
        });
    }
    for entry in entries(from)? {
        let target = to.join(&entry.name);
        if entry.is_dir {
            create_dir(&target)?;
            copy_below(&entry.path, &target, depth - 1)?;
            continue;
        }
        file_only(&entry)?;
        let mut source = File::open(&entry.path).map_err(failed("open", &entry.path))?;
        let mut copy = create_file(&target)?;
        if rustix::fs::ioctl_ficlone(&copy, &source).is_err() {
            let copied = io::copy(&mut source, &mut copy).map_err(failed("copy", &entry.path))?;
            let expected = entry.metadata.len();
            if copied != expected {
                return Err(DiskError::Length {
                    path: entry.path,
                    expected,
                    read: copied,
                });
            }
        }
    }
    Ok(())
}

/// Bytes that `dir` and everything in it take on the disk.
///
/// # Errors
/// When the operating system refuses.
pub fn dir_bytes(dir: &Path) -> Result<u64, DiskError> {
    let own = fs::symlink_metadata(dir).map_err(failed("look at", dir))?;
    let mut blocks = own.blocks();
    walk(dir, &mut |_, entry| {
        blocks += entry.metadata.blocks();
        Ok(())
    })?;
    Ok(blocks * BLOCK)
}

/// Gives `path`, and everything in it when it is a directory, to the owner and the group of `like`. Does nothing unless root
/// does it: nobody else may, and nobody else makes what belongs to others.
///
/// # Errors
/// When the operating system refuses.
pub fn adopt_owner(path: &Path, like: &Path) -> Result<(), DiskError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let wanted = fs::symlink_metadata(like).map_err(failed("look at", like))?;
    let (uid, gid) = (wanted.uid(), wanted.gid());
    let give = |path: &Path, now: &Metadata| {
        if (now.uid(), now.gid()) == (uid, gid) {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(failed("change the owner of", path))
    };
    let own = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if own.is_dir() {
        walk(path, &mut |_, entry| give(&entry.path, &entry.metadata))?;
    }
    give(path, &own)
}

/// Takes all rights to `dir` and everything in it from everyone but the owner.
///
/// # Errors
/// When the operating system refuses.
pub fn restrict_tree(dir: &Path) -> Result<(), DiskError> {
    let restrict = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("change the mode of", path))
    };
    walk(dir, &mut |_, entry| {
        if entry.is_dir {
            return restrict(&entry.path, DIR_MODE);
        }
        file_only(entry)?;
        restrict(&entry.path, FILE_MODE)
    })?;
    restrict(dir, DIR_MODE)
}
