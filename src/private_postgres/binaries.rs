//! Finds the installed server binaries. Distributions keep them off PATH, for a machine may have several versions.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PrivatePostgresError;

/// Directories that hold a `bin` per version, and how the names of those versions begin.
const VERSIONED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql"),
    ("/usr/local/opt", "postgresql"),
];

/// The programs of one installation.
#[derive(Debug)]
pub(super) struct Binaries {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
}

impl Binaries {
    /// On PATH; else the newest of the usual places; else where `pg_config` says.
    pub(super) fn find() -> Result<Self, PrivatePostgresError> {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(usual_places())
            .find_map(|dir| Self::in_dir(&dir))
            .or_else(|| Self::in_dir(&dir_of_pg_config()?))
            .ok_or(PrivatePostgresError::NotInstalled)
    }

    fn in_dir(dir: &Path) -> Option<Self> {
        // Programs on PATH may be links, and not to all of an installation: the others lie where the links lead.
        let real = |name| fs::canonicalize(dir.join(name)).ok();
        let found = Self {
            initdb: real("initdb")?,
            postgres: real("postgres")?,
        };
        (found.initdb.is_file() && found.postgres.is_file()).then_some(found)
    }
}

/// The `bin` directories of versioned installations, newest first.
fn usual_places() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix) in VERSIONED {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if let Some(version) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix(prefix))
            {
                found.push((version_number(version), entry.path().join("bin")));
            }
        }
    }
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, bin)| bin).collect()
}

/// `15` of `15` or `@15`; Homebrew's plain `postgresql` counts as 0.
fn version_number(version: &str) -> u32 {
    version
        .trim_start_matches('@')
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap_or(0)
}

fn dir_of_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(dir.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_not_by_text() {
        assert!(version_number("15") > version_number("9.6"));
        assert!(version_number("@17") > version_number("@16"));
        assert_eq!(version_number(""), 0);
    }
}
