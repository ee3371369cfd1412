//! `socket-el init`: writes what a newcomer edits, the commented configuration and a profile that only its owner can read.
//!
//! What is there already is left as it is.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::cli::ConfigArgs;
use crate::config::{Profiles, Variables};
use crate::exit::{ExitReason, RunnerError};

/// The commented configuration, the one at the top of the sources.
const CONFIG: &str = include_str!("../../config.yml");

/// A commented profile for it.
const PROFILE: &str = include_str!("profile.yml");

/// The configuration holds no secrets by itself; the profile may.
const CONFIG_MODE: u32 = 0o644;
const PROFILE_MODE: u32 = 0o600;
const PROFILE_DIR_MODE: u32 = 0o700;

/// Writes both files, those that are missing.
pub(super) fn init(args: &ConfigArgs) -> Result<(), RunnerError> {
    let profiles = Profiles::locate(args.profiles.as_deref(), &Variables::Process);
    let Some(profile) = profiles.place() else {
        return Err(RunnerError::new(
            ExitReason::Configuration,
            "there is no place for the profile: HOME is not set; name a file with --profiles FILE",
        ));
    };
    put(&args.config, CONFIG, CONFIG_MODE)?;
    if let Some(dir) = profile.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(PROFILE_DIR_MODE)
            .create(dir)
            .map_err(|error| failed(dir, &error))?;
    }
    put(profile, PROFILE, PROFILE_MODE)?;
    println!("edit both, then: socket-el check --connect");
    Ok(())
}

/// Writes a file that is not there yet, and says what became of it.
fn put(path: &Path, text: &str, mode: u32) -> Result<(), RunnerError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|file| fill(file, text));
    match written {
        Ok(()) => println!("wrote {}", path.display()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            println!("{} is there already, and left as it is", path.display());
        }
        Err(error) => return Err(failed(path, &error)),
    }
    Ok(())
}

fn fill(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn failed(path: &Path, error: &io::Error) -> RunnerError {
    RunnerError::new(
        ExitReason::Failed,
        format!("could not write {}: {error}", path.display()),
    )
}
