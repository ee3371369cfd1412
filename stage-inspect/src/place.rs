//! Where the stages are: a directory that was named, or those of a configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use socket_el::config::{Config, ConfigError, ConsumerRunner, Variables, load_stages};
use socket_el::exit::RunnerError;
use socket_el::stage::StageError;
use socket_el::stage::local::StageRole;
use socket_el::stage::look::look_into;
use socket_el::stage::path::StagePath;

use crate::cli::{Cli, Location};

/// A directory of stages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) path: PathBuf,
    /// Stages that the configuration keeps there, and who delivers them; none when the directory itself was named.
    pub(crate) configured: Vec<StageRole>,
}

impl Place {
    /// The directory of a consumer's stage, with all stages that the configuration keeps there.
    pub(crate) fn of_stage(config: &Config, consumer: &ConsumerRunner) -> Self {
        let path = &consumer.stage.path;
        let together = config.consumers.iter().filter(|other| other.stage.path == *path);
        let role = |consumer: &ConsumerRunner| StageRole {
            name: consumer.name.clone(),
            producers: config
                .producers_of(&consumer.name)
                .map(|producer| producer.name.clone())
                .collect(),
        };
        Self {
            path: path.clone(),
            configured: together.map(role).collect(),
        }
    }

    /// Whether the stage can lie here.
    pub(crate) fn may_hold(&self, stage: &str) -> bool {
        self.configured.is_empty() || self.configured.iter().any(|role| role.name == stage)
    }

    /// Opens the stage path, to look at it: through the engine that has it open, or by opening the files. With --verbose it
    /// says which.
    pub(crate) async fn open(&self, cli: &Cli) -> Result<Arc<dyn StagePath>, RunnerError> {
        let waits = |whom: &str| eprintln!("stage-inspect: waiting: {whom}");
        let opened = look_into(&self.path, &self.configured, waits).await;
        let opened = opened.map_err(|error| RunnerError::new(error.exit_reason(), error))?;
        if cli.verbose {
            eprintln!("{}: {}", self.path.display(), opened.route());
        }
        Ok(opened)
    }
}

/// Ends the use of a stage path.
pub(crate) async fn close(path: Arc<dyn StagePath>) -> Result<(), RunnerError> {
    path.close().await.map_err(stage_failed)
}

/// A stage's error as the command's.
pub(crate) fn stage_failed(error: StageError) -> RunnerError {
    RunnerError::new(error.exit_reason(), error)
}

/// The directories to look into, in order of their paths.
pub(crate) fn places(at: &Location) -> Result<Vec<Place>, ConfigError> {
    if let Some(path) = &at.path {
        return Ok(vec![Place {
            path: path.clone(),
            configured: Vec::new(),
        }]);
    }
    let mut by_path: BTreeMap<PathBuf, Vec<StageRole>> = BTreeMap::new();
    for stage in load_stages(&at.config, &Variables::Process)? {
        by_path.entry(stage.config.path).or_default().push(StageRole {
            name: stage.name,
            producers: stage.producers,
        });
    }
    Ok(by_path
        .into_iter()
        .map(|(path, configured)| Place { path, configured })
        .collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_sample_keeps_both_stages_in_one_place() {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../config.yml");
        let cli = Cli::parse_from(["stage-inspect", "-c", sample, "list"]);
        let places = places(&cli.at).unwrap();
        assert_eq!(places.len(), 1);
        let role = |name: &str| StageRole {
            name: name.to_owned(),
            producers: vec!["postgres".to_owned()],
        };
        assert_eq!(places[0].configured, [role("websocket_1"), role("websocket_2")]);
        assert!(places[0].path.ends_with("tmp"));
    }

    #[test]
    fn a_named_directory_needs_no_configuration() {
        let cli = Cli::parse_from(["stage-inspect", "--path", "/nowhere/stage", "list"]);
        let expected = Place {
            path: PathBuf::from("/nowhere/stage"),
            configured: Vec::new(),
        };
        assert_eq!(places(&cli.at).unwrap(), [expected]);
    }
}
