//! A copy of a stage path, to be looked at in place of one that can't be written to. It is removed when it is dropped.
//!
//! Where the file system can, the copy shares its blocks with the original.

use std::path::{Path, PathBuf};

use socket_el::exit::{ExitReason, RunnerError};
use socket_el::stage::local::{disk, is_in_use};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::place::Place;
use crate::stopping::{Stopping, stopped};

/// What of a stage path is needed to open it: the book, the generations, the marks of openings that were not done.
const NEEDED: [&str; 3] = ["meta", "g-", "opening-"];

/// A copy.
pub(super) struct Copy {
    pub(super) place: Place,
    _directory: TempDir,
}

/// Copies a stage path.
pub(super) async fn make(place: &Place, stop: &mut Stopping) -> Result<Copy, RunnerError> {
    if is_in_use(&place.path) {
        let message = format!(
            "{} can't be written to and a process works in it: a copy would not hold together; stop that one first",
            place.path.display()
        );
        return Err(RunnerError::new(ExitReason::StageInUse, message));
    }
    let directory = tempfile::Builder::new()
        .prefix("stage-inspect-")
        .tempdir()
        .map_err(|error| failed(&place.path, &error))?;
    let target = directory.path().join("stage");
    eprintln!(
        "stage-inspect: {} can't be written to; verifying a copy in {}",
        place.path.display(),
        directory.path().display()
    );
    disk::create_dir(&target).map_err(|error| failed(&place.path, &error))?;
    for name in names(&place.path)? {
        let (from, to) = (place.path.join(&name), target.join(&name));
        let mut copying = spawn_blocking(move || copy(&from, &to));
        let mut is_stopped = false;
        // What is being copied is finished before the copy is removed.
        let outcome = tokio::select! {
            outcome = &mut copying => outcome,
            () = stop.asked() => {
                is_stopped = true;
                copying.await
            }
        };
        if is_stopped {
            return Err(stopped());
        }
        let copied = outcome.map_err(|error| RunnerError::new(ExitReason::Failed, error))?;
        copied.map_err(|error| failed(&place.path, error.as_ref()))?;
    }
    Ok(Copy {
        place: Place {
            path: target,
            configured: place.configured.clone(),
        },
        _directory: directory,
    })
}

/// What of a directory is needed.
fn names(path: &Path) -> Result<Vec<PathBuf>, RunnerError> {
    let listed = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = listed.map_err(|error| failed(path, &error))?;
    Ok(entries
        .into_iter()
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|name| {
            let name = name.to_string_lossy();
            NEEDED.iter().any(|needed| name.starts_with(needed))
        })
        .collect())
}

fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if from.is_dir() {
        disk::copy_tree(from, to)?;
    } else {
        std::fs::copy(from, to)?;
    }
    Ok(())
}

fn failed(path: &Path, error: &dyn std::error::Error) -> RunnerError {
    RunnerError::new(
        ExitReason::Failed,
        format!(
            "{} can't be written to, and it could not be copied to be verified: {}",
            path.display(),
            socket_el::exit::chain(error)
        ),
    )
}
