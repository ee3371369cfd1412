//! The one stage that a command is about: found in the directories of a configuration or in the one that was named.
//!
//! A stage that has left the configuration is found as well, as long as its directory is still named there.

use std::sync::Arc;

use socket_el::config::nearest;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::stage::SharedStage;
use socket_el::stage::path::{GenerationSummary, StagePath, StageSummary};

use crate::cli::Cli;
use crate::place::{close, places, stage_failed};

/// A stage, and the open path that holds it.
pub(crate) struct Chosen {
    pub(crate) path: Arc<dyn StagePath>,
    pub(crate) summary: StageSummary,
    /// Those of the whole path.
    pub(crate) generations: Vec<GenerationSummary>,
}

impl Chosen {
    /// The stage, to be read.
    pub(crate) fn stage(&self) -> Result<SharedStage, RunnerError> {
        let name = &self.summary.name;
        self.path
            .stage(name)
            .ok_or_else(|| RunnerError::new(ExitReason::Failed, format!("stage {name} is no longer there")))
    }

    /// Ends the use of the path.
    pub(crate) async fn close(self) -> Result<(), RunnerError> {
        close(self.path).await
    }
}

/// Finds the stage of this name.
pub(crate) async fn choose(cli: &Cli, name: &str) -> Result<Chosen, RunnerError> {
    let mut places = places(&cli.at).map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
    places.sort_by_key(|place| !place.may_hold(name));
    let mut known: Vec<String> = Vec::new();
    for place in &places {
        known.extend(place.configured.iter().map(|role| role.name.clone()));
        let path = match place.open(cli).await {
            Ok(path) => path,
            Err(error) if place.may_hold(name) => return Err(error),
            // It is only looked into for a stage that has left the configuration.
            Err(_) => continue,
        };
        let summary = path.summary().await.map_err(stage_failed)?;
        known.extend(summary.stages.iter().map(|stage| stage.name.clone()));
        if let Some(stage) = summary.stage(name) {
            return Ok(Chosen {
                summary: stage.clone(),
                generations: summary.generations,
                path,
            });
        }
        close(path).await?;
    }
    known.sort();
    known.dedup();
    let mut message = unknown(name, &known);
    if cli.at.path.is_none() {
        message += ". A directory that the configuration no longer names is looked into with --path";
    }
    Err(RunnerError::new(ExitReason::Configuration, message))
}

/// That there is no such stage, and which there are.
pub(crate) fn unknown(name: &str, known: &[String]) -> String {
    let names = known.iter().map(String::as_str);
    match (nearest(name, names), known.is_empty()) {
        (_, true) => format!("there is no stage {name}, nor any other"),
        (Some(near), _) => format!("there is no stage {name}; did you mean {near}?"),
        (None, _) => format!("there is no stage {name}; there are {}", known.join(", ")),
    }
}
