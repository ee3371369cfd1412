//! Profiles: how to reach a database, kept apart from `config.yml` because of the passwords.
//!
//! The file is read when the first profile is asked for, so that a configuration without one needs no file; only
//! mistakes in profiles that are asked for count. `connection` reads one profile, through `source` from its keys or its
//! `url`; `host`, `tls` and `pgpass` know their own parts of it. Connecting is left to the sinks.

mod connection;
mod host;
mod pgpass;
mod source;
mod tls;
mod url;

pub use connection::{Keepalives, Profile, SessionAttrs};
pub use host::{Host, Server};
pub use tls::{
    ChannelBinding, ClientIdentity, Roots, SslMode, TlsFileError, TlsFiles, TlsSettings, Verification,
};

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::file::{FileError, read_text};
use crate::config::parse;
use crate::config::problem::{Problem, Problems, quotable, suggestion};
use crate::config::section::Section;
use crate::config::tree::Content;
use crate::config::variables::Variables;

/// Names a profiles file in place of the usual one.
pub const PROFILES_VARIABLE: &str = "SOCKET_EL_PROFILES";

/// Place of the usual profiles file in the home directory.
const USUAL_FILE: &str = ".socket_el/profile.yml";

/// Why there is no such profile. One line each.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is no file.
    #[error(
        "there is no profiles file: looked for {looked_for}; name another with --profiles FILE or SOCKET_EL_PROFILES, or write `{name}: {{ user: me, password: \"…\", database: mine }}` into it (mode 0600)"
    )]
    NoFile {
        /// Where a file was looked for.
        looked_for: String,
        /// The profile.
        name: String,
    },
    /// The file can't be read.
    #[error("the profiles file {} {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file holds no profile of this name.
    #[error("there is no profile `{name}` in {}{hint}", file.display())]
    Unknown {
        /// The name, fit to be shown.
        name: String,
        /// The file.
        file: PathBuf,
        /// The nearest profile, or all of them.
        hint: String,
    },
    /// There are mistakes in it; [`Profiles::mistakes`] has them with their places.
    #[error("the profile `{name}` in {} has mistakes", file.display())]
    Mistakes {
        /// The name.
        name: String,
        /// The file.
        file: PathBuf,
    },
}

/// The entries of the profiles file, which is read when the first is asked for.
#[derive(Default)]
pub struct Profiles {
    /// `None` when there is no place to look at.
    file: Option<PathBuf>,
    variables: Variables,
    entries: OnceLock<Result<ProfileFile, FileError>>,
}

/// A profiles file that could be read.
struct ProfileFile {
    /// Whether others than the owner may read or write it.
    open_to_others: Option<u32>,
    /// Mistakes of the file as a whole: no profile can be taken from it.
    mistakes: Vec<Problem>,
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    outcome: Result<Profile, Vec<Problem>>,
    /// What is allowed but worth telling.
    warnings: Vec<String>,
    asked_for: AtomicBool,
}

/// Names of files only.
impl std::fmt::Debug for Profiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiles")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Profiles {
    /// The file that is named, else the one that `SOCKET_EL_PROFILES` names, else `~/.socket_el/profile.yml`. Nothing
    /// is read yet.
    #[must_use]
    pub fn locate(named: Option<&Path>, variables: &Variables) -> Self {
        let filled = |name| variables.get(name).filter(|value| !value.is_empty());
        let file = named
            .map(Path::to_owned)
            .or_else(|| filled(PROFILES_VARIABLE).map(PathBuf::from))
            .or_else(|| filled("HOME").map(|home| Path::new(&home).join(USUAL_FILE)));
        Self {
            file,
            variables: variables.clone(),
            entries: OnceLock::new(),
        }
    }

    /// The file, whether it is there or not; `None` when there is no place to look at.
    #[must_use]
    pub fn place(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The profile of this name.
    ///
    /// # Errors
    /// When there is none, or mistakes are in it.
    pub fn get(&self, name: &str) -> Result<&Profile, ProfileError> {
        let no_file = |looked_for: String| ProfileError::NoFile {
            looked_for,
            name: quotable(name),
        };
        let Some(path) = &self.file else {
            return Err(no_file(format!("~/{USUAL_FILE}, but HOME is not set")));
        };
        let file = match self.file(path) {
            Ok(file) => file,
            Err(error) if error.is_missing() => return Err(no_file(path.display().to_string())),
            Err(error) => {
                return Err(ProfileError::Unreadable {
                    file: path.clone(),
                    reason: error.to_string(),
                });
            }
        };
        let mistakes = || ProfileError::Mistakes {
            name: quotable(name),
            file: path.clone(),
        };
        if !file.mistakes.is_empty() {
            return Err(mistakes());
        }
        let Some(entry) = file.entries.get(name) else {
            let known: Vec<&str> = file.entries.keys().map(String::as_str).collect();
            return Err(ProfileError::Unknown {
                name: quotable(name),
                file: path.clone(),
                hint: suggestion(name, &known),
            });
        };
        entry.asked_for.store(true, Ordering::Relaxed);
        entry.outcome.as_ref().map_err(|_| mistakes())
    }

    /// The mistakes of the profiles that were asked for, with their places.
    #[must_use]
    pub fn mistakes(&self) -> Vec<Problem> {
        let Some(Ok(file)) = self.entries.get() else {
            return Vec::new();
        };
        let of_entries = file
            .entries
            .values()
            .filter(|entry| entry.asked_for.load(Ordering::Relaxed))
            .filter_map(|entry| entry.outcome.as_ref().err())
            .flatten();
        file.mistakes.iter().chain(of_entries).cloned().collect()
    }

    /// What is worth telling about the file and the profiles that were asked for.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let (Some(path), Some(Ok(file))) = (&self.file, self.entries.get()) else {
            return Vec::new();
        };
        let path = &path.display();
        let of_file = file.open_to_others.map(|mode| {
            format!("{path}: others can get at the passwords in it (mode {mode:04o}); run: chmod 600 {path}")
        });
        let of_profiles = file
            .entries
            .iter()
            .filter(|(_, entry)| entry.asked_for.load(Ordering::Relaxed))
            .flat_map(|(name, entry)| {
                let name = quotable(name);
                entry
                    .warnings
                    .iter()
                    .map(move |warning| format!("{path}: profile `{name}`: {warning}"))
            });
        of_file.into_iter().chain(of_profiles).collect()
    }

    fn file(&self, path: &Path) -> Result<&ProfileFile, &FileError> {
        self.entries
            .get_or_init(|| ProfileFile::read(path, &self.variables))
            .as_ref()
    }
}

impl ProfileFile {
    fn read(path: &Path, variables: &Variables) -> Result<Self, FileError> {
        let text = read_text(path)?;
        let mode = std::fs::metadata(path)
            .map_err(FileError::Refused)?
            .permissions()
            .mode()
            & 0o7777;
        Ok(Self {
            open_to_others: (mode & 0o077 != 0).then_some(mode),
            ..Self::parse(path, &text, variables)
        })
    }

    fn parse(path: &Path, text: &str, variables: &Variables) -> Self {
        let problems = Problems::of(path);
        let mut entries = BTreeMap::new();
        let root = parse::parse(text, variables, &problems);
        match root.as_ref().map(|root| (root, &root.content)) {
            None => {}
            Some((_, Content::Mapping(file_entries))) => {
                for entry in file_entries {
                    let own_problems = Problems::of(path);
                    let mut warnings = Vec::new();
                    let profile = Section::of(&entry.value, quotable(&entry.key), &own_problems)
                        .and_then(|mut section| Profile::read(&mut section, variables, &mut warnings));
                    let outcome = match profile {
                        Some(profile) if own_problems.count() == 0 => Ok(profile),
                        _ => Err(own_problems.into_sorted()),
                    };
                    let entry_of_file = Entry {
                        outcome,
                        warnings,
                        asked_for: AtomicBool::new(false),
                    };
                    entries.insert(entry.key.clone(), entry_of_file);
                }
            }
            Some((root, _)) if root.is_null() => {}
            Some((root, _)) => {
                let message = format!("expected a mapping of profiles, found {}", root.kind());
                problems.add(root.at, "", message);
            }
        }
        Self {
            open_to_others: None,
            mistakes: problems.into_sorted(),
            entries,
        }
    }
}
