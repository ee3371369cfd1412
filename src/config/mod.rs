//! `config.yml` and profiles: from text with positions to typed values.
//!
//! The way of a file: `file` gives its text, `parse` its YAML as a `tree` of nodes that know their places,
//! with `variables` replaced; `section` reads mappings key by key, `value` turns nodes into types; `runner` puts
//! the whole together, with the varieties of the [`Registry`] reading their own keys.
//!
//! Invariants: what is typed is valid; all mistakes of a file are reported together, each with its place; no
//! message and no `Debug` shows a secret. Opening stages, feeds and databases is left to others.

mod file;
mod literal;
mod parse;
mod paths;
pub mod percent;
mod problem;
mod profile;
mod runner;
mod secret;
mod section;
mod stage;
mod tree;
pub mod units;
mod value;
mod variables;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use file::FileError;
pub use literal::Literal;
pub use problem::{ConfigError, Position, Problem, nearest};
pub use profile::{
    ChannelBinding, ClientIdentity, Host, Keepalives, PROFILES_VARIABLE, Profile, ProfileError, Profiles,
    Roots, Server, SessionAttrs, SslMode, TlsFileError, TlsFiles, TlsSettings, Verification,
};
pub use runner::{Config, ConfiguredStage, ConsumerRunner, ProducerRunner};
pub use secret::Secret;
pub use section::Section;
pub use stage::{Durability, OnFull, Retention, StageConfig};
pub use variables::Variables;

use crate::registry::Registry;
use problem::Problems;

/// What `config.yml` is read with.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The profiles file (`--profiles`), in place of the usual one.
    pub profiles: Option<PathBuf>,
    /// What `${VAR}` stands for.
    pub variables: Variables,
}

/// A configuration that is sound.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What is allowed but worth telling, a line each.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When the file can't be read, and with all mistakes in it and in the profiles that it names.
    pub fn load(path: &Path, registry: &Registry, options: &LoadOptions) -> Result<Loaded, ConfigError> {
        let text = read_file(path)?;
        Self::parse(path, &text, registry, options)
    }

    /// Reads the text of a file; `path` is only its name in messages.
    ///
    /// # Errors
    /// With all mistakes in it and in the profiles that it names.
    pub fn parse(
        path: &Path,
        text: &str,
        registry: &Registry,
        options: &LoadOptions,
    ) -> Result<Loaded, ConfigError> {
        let profiles = Profiles::locate(options.profiles.as_deref(), &options.variables);
        let (config, mut warnings) = read(path, text, &options.variables, |section, problems| {
            runner::Reader::new(registry, &profiles, problems).read(section)
        })
        .map_err(|mut problems| {
            problems.extend(profiles.mistakes());
            ConfigError::Mistakes { problems }
        })?;
        warnings.extend(profiles.warnings());
        Ok(Loaded { config, warnings })
    }
}

/// The stages of a file and who delivers them, for tools that look at nothing else: what belongs to varieties and profiles is not read, so
/// that it needs neither their variables nor them.
///
/// # Errors
/// When the file can't be read, and with all mistakes in the names and stages in it.
pub fn load_stages(path: &Path, variables: &Variables) -> Result<Vec<ConfiguredStage>, ConfigError> {
    let text = read_file(path)?;
    let (registry, profiles) = (Registry::empty(), Profiles::default());
    read(path, &text, variables, |section, problems| {
        runner::Reader::new(&registry, &profiles, problems).read_stages(section)
    })
    .map_err(|problems| ConfigError::Mistakes { problems })
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    file::read_text(path).map_err(|cause| ConfigError::Unreadable {
        file: path.to_owned(),
        cause,
    })
}

impl Section<'_> {
    /// Reads a text whose outermost level is a mapping, as a variety's tests want it.
    ///
    /// # Errors
    /// With all mistakes in it, unknown keys among them.
    pub fn read_text<T>(
        text: &str,
        variables: &Variables,
        read_keys: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Result<T, ConfigError> {
        read(Path::new("config.yml"), text, variables, |section, _| {
            read_keys(section)
        })
        .map_err(|problems| ConfigError::Mistakes { problems })
    }
}

/// Reads the outermost mapping of a text.
fn read<T>(
    path: &Path,
    text: &str,
    variables: &Variables,
    read_keys: impl FnOnce(&mut Section<'_>, &Problems) -> T,
) -> Result<T, Vec<Problem>> {
    let problems = Problems::of(path);
    let value = parse::parse(text, variables, &problems).and_then(|root| {
        let mut section = Section::of(&root, String::new(), &problems)?;
        Some(read_keys(&mut section, &problems))
    });
    match value {
        Some(value) if problems.count() == 0 => Ok(value),
        _ => Err(problems.into_sorted()),
    }
}
