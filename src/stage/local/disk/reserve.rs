//! A file whose blocks can be given back when the disk is full, so that what must be written still can be.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{DiskError, adopt_owner, create_file, failed, free_bytes, fsync_dir, parent_of, remove_tree};

/// Bytes written at a time where the file system can't allocate without writing.
const CHUNK: usize = 256 * 1024;

/// A file of real blocks, held for the day when the disk is full.
#[derive(Debug)]
pub struct ReserveFile {
    path: PathBuf,
    bytes: u64,
    held: bool,
}

impl ReserveFile {
    /// The reserve of `bytes` at `path`, made unless it is there and whole. When there is no room for it, none is
    /// held: [`is_held`](Self::is_held) says so, and [`make_again`](Self::make_again) tries again.
    ///
    /// # Errors
    /// When the operating system refuses for another reason than a full disk.
    pub fn open(path: &Path, bytes: u64) -> Result<Self, DiskError> {
        let held = match fs::symlink_metadata(path) {
            // Blocks count 512 bytes each. A file with holes would give nothing back.
            Ok(found) => found.is_file() && found.len() == bytes && found.blocks() * 512 >= bytes,
            Err(_) => false,
        };
        let mut reserve = Self {
            path: path.to_owned(),
            bytes,
            held,
        };
        if !held {
            reserve.make_again()?;
        }
        Ok(reserve)
    }

    /// Whether the blocks are held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Gives the blocks back to the file system, at once and durably.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn give_back(&mut self) -> Result<(), DiskError> {
        self.held = false;
        remove_tree(&self.path)?;
        // File systems with a journal free blocks for others only when the removal is committed.
        fsync_dir(parent_of(&self.path)?)
    }

    /// Takes the blocks again, unless they are held. Returns whether they are now: `false` while the disk is too full.
    ///
    /// # Errors
    /// When the operating system refuses for another reason than a full disk.
    pub fn make_again(&mut self) -> Result<bool, DiskError> {
        if self.held {
            return Ok(true);
        }
        remove_tree(&self.path)?;
        let parent = parent_of(&self.path)?;
        // Some file systems would fill the disk for everybody before they say that there is no room.
        if free_bytes(parent)? < self.bytes {
            return Ok(false);
        }
        let file = create_file(&self.path)?;
        match allocate(&file, self.bytes).and_then(|()| file.sync_all()) {
            Ok(()) => {
                adopt_owner(&self.path, parent)?;
                fsync_dir(parent)?;
                self.held = true;
                Ok(true)
            }
            Err(error) => {
                drop(file);
                remove_tree(&self.path)?;
                match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Ok(false),
                    _ => Err(failed("reserve space in", &self.path)(error)),
                }
            }
        }
    }
}

/// Gives `file` `bytes` bytes of real blocks.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
        outcome => Ok(outcome?),
    }
}

fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        file.write_all(&zeros[..len])?;
        left -= len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn a_reserve_holds_real_blocks_gives_them_back_and_takes_them_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let mut reserve = ReserveFile::open(&path, 1 << 20).unwrap();
        assert!(reserve.is_held());
        assert!(blocks(&path) >= 1 << 20);
        reserve.give_back().unwrap();
        assert!(!reserve.is_held() && !path.exists());
        assert!(reserve.make_again().unwrap());
        assert!(blocks(&path) >= 1 << 20);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_reserve_with_holes_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        assert!(blocks(&path) < 1 << 20);
        assert!(ReserveFile::open(&path, 1 << 20).unwrap().is_held());
        assert!(blocks(&path) >= 1 << 20);
    }

    #[test]
    fn a_reserve_that_does_not_fit_is_not_held_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let more_than_there_is = free_bytes(dir.path()).unwrap() + (1 << 40);
        let reserve = ReserveFile::open(&path, more_than_there_is).unwrap();
        assert!(!reserve.is_held() && !path.exists());
    }

    #[test]
    fn zeros_are_written_where_blocks_cannot_be_allocated_otherwise() {
        let file = tempfile::tempfile().unwrap();
        write_zeros(&file, CHUNK as u64 + 5).unwrap();
        assert_eq!(file.metadata().unwrap().len(), CHUNK as u64 + 5);
    }
}
