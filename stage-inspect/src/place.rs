//! Where the stages are: a directory that was named, or those of a configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use socket_el::config::{ConfigError, ConsumerRunner, Variables, load_stages};
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::stage::StageError;
use socket_el::stage::local::LocalPath;
use socket_el::stage::path::StagePath;

use crate::cli::Location;

/// A directory of stages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) path: PathBuf,
    /// Stages that the configuration keeps there; none when the directory itself was named.
    pub(crate) configured: Vec<String>,
}

impl Place {
    /// The directory of a consumer's stage.
    pub(crate) fn of_stage(consumer: &ConsumerRunner) -> Self {
        Self {
            path: consumer.stage.path.clone(),
            configured: vec![consumer.name.clone()],
        }
    }

    /// Whether the stage can lie here.
    pub(crate) fn may_hold(&self, stage: &str) -> bool {
        self.configured.is_empty() || self.configured.iter().any(|name| name == stage)
    }

    /// Opens the stage path, to look at it.
    pub(crate) async fn open(&self) -> Result<Arc<dyn StagePath>, RunnerError> {
        let path = self.path.clone();
        match tokio::task::spawn_blocking(move || LocalPath::inspect(&path, &[])).await {
            Ok(Ok(opened)) => Ok(Arc::new(opened)),
            Ok(Err(error)) => Err(RunnerError::new(error.exit_reason(), error)),
            Err(error) => Err(RunnerError::new(ExitReason::Failed, error)),
        }
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
    let mut by_path: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for stage in load_stages(&at.config, &Variables::Process)? {
        by_path.entry(stage.config.path).or_default().push(stage.name);
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
        assert_eq!(places[0].configured, ["websocket_1", "websocket_2"]);
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
