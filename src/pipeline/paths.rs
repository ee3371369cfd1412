//! The stage paths of a configuration: which stages lie where, opened together and closed together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::future::{FutureExt, select_all};
use tokio::task::spawn_blocking;

use crate::config::{self, Config, StageConfig};
use crate::exit::{ExitReason, RunnerError};
use crate::stage::local::{Durability, LocalOptions, LocalPath, OnFull, Retention, StageRole, Tuning};
use crate::stage::{SharedStage, StageError};

/// The open stage paths.
pub(super) struct OpenPaths {
    paths: Vec<LocalPath>,
}

impl OpenPaths {
    /// Opens every path that holds a stage for which `is_used` says yes, with all the stages and producers that the
    /// configuration has for it: what does not run now still pins what it has not delivered.
    pub(super) async fn open(config: &Config, is_used: impl Fn(&str) -> bool) -> Result<Self, RunnerError> {
        let mut paths = Vec::new();
        for (options, roles) in wanted_paths(config).into_values() {
            if roles.iter().any(|role| is_used(&role.name)) {
                paths.push(open_one(options, roles).await?);
            }
        }
        Ok(Self { paths })
    }

    /// The open stages by name.
    pub(super) fn stages(&self) -> BTreeMap<String, SharedStage> {
        self.paths
            .iter()
            .flat_map(stages_of)
            .map(|stage| (stage.name().to_owned(), stage))
            .collect()
    }

    /// The stage of this name.
    pub(super) fn stage(&self, name: &str) -> Result<SharedStage, RunnerError> {
        self.paths
            .iter()
            .find_map(|path| path.stage(name))
            .ok_or_else(|| {
                RunnerError::new(
                    ExitReason::Failed,
                    format!("the stage {name} is not open; please report this"),
                )
            })
    }

    /// Waits until a path fails; for ever when none does.
    pub(super) async fn failed(&self) -> RunnerError {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        let (error, ..) = select_all(self.paths.iter().map(|path| failure_of(path).boxed())).await;
        RunnerError::new(ExitReason::Failed, error)
    }

    /// Closes all paths in order; the first error stands in `failure` if there is none yet.
    pub(super) async fn close(self, failure: &mut Option<RunnerError>) {
        for path in self.paths {
            if let Err(error) = close_one(path).await {
                failure.get_or_insert(error);
            }
        }
    }
}

/// Opens and closes every stage path of a configuration, for `check --connect`: the path, and what was found. A
/// path that does not exist yet is not made.
pub async fn try_paths(config: &Config) -> Vec<(String, Result<String, RunnerError>)> {
    let mut findings = Vec::new();
    for (path, (options, roles)) in wanted_paths(config) {
        let name = format!("stage path {}", path.display());
        if !path.exists() {
            findings.push((
                name,
                Ok("does not exist yet; `socket-el run` makes it".to_owned()),
            ));
            continue;
        }
        findings.push((name, try_one(options, roles).await));
    }
    findings
}

async fn try_one(options: LocalOptions, roles: Vec<StageRole>) -> Result<String, RunnerError> {
    let path = open_one(options, roles).await?;
    let of_stage = |stage: SharedStage| {
        let bounds = stage.bounds();
        format!("{}: offsets {}..{}", stage.name(), bounds.oldest, bounds.head)
    };
    let stages: Vec<_> = stages_of(&path).map(of_stage).collect();
    close_one(path).await?;
    Ok(stages.join("; "))
}

/// The stages of a path.
fn stages_of(path: &LocalPath) -> impl Iterator<Item = SharedStage> + '_ {
    path.stage_names().filter_map(|name| path.stage(name))
}

/// Waits until a path fails and says why; for ever when it does not.
async fn failure_of(path: &LocalPath) -> StageError {
    let mut failed = path.failed();
    let reason = failed
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|reason| reason.clone());
    match reason {
        Some(reason) => StageError::Failed {
            path: path.directory().display().to_string(),
            reason,
        },
        None => std::future::pending().await,
    }
}

/// Closes a path, which blocks.
async fn close_one(path: LocalPath) -> Result<(), RunnerError> {
    match spawn_blocking(move || path.close()).await {
        Ok(closed) => closed.map_err(|error| RunnerError::new(error.exit_reason(), error)),
        Err(error) => Err(RunnerError::new(ExitReason::Failed, error)),
    }
}

/// The stage paths of a configuration, each with all its stages.
fn wanted_paths(config: &Config) -> BTreeMap<PathBuf, (LocalOptions, Vec<StageRole>)> {
    let mut paths = BTreeMap::new();
    for runner in &config.consumers {
        let entry = paths
            .entry(runner.stage.path.clone())
            .or_insert_with(|| (local_options(&runner.stage), Vec::new()));
        entry.1.push(role_of(config, &runner.name));
    }
    paths
}

async fn open_one(options: LocalOptions, roles: Vec<StageRole>) -> Result<LocalPath, RunnerError> {
    let opened = spawn_blocking(move || LocalPath::open(options, &roles)).await;
    match opened {
        Ok(Ok(path)) => Ok(path),
        Ok(Err(error)) => Err(RunnerError::new(error.exit_reason(), error)),
        Err(error) => Err(RunnerError::new(ExitReason::Failed, error)),
    }
}

/// A consumer's stage, and the producers that deliver it.
fn role_of(config: &Config, consumer: &str) -> StageRole {
    let delivers = |depends_on: &[String]| depends_on.iter().any(|name| name == consumer);
    let producers = config
        .producers
        .iter()
        .filter(|producer| delivers(&producer.depends_on));
    StageRole {
        name: consumer.to_owned(),
        producers: producers.map(|producer| producer.name.clone()).collect(),
    }
}

fn local_options(stage: &StageConfig) -> LocalOptions {
    LocalOptions {
        path: stage.path.clone(),
        durability: match stage.durability {
            config::Durability::Fsync => Durability::Fsync,
            config::Durability::Interval(interval) => Durability::Interval(interval.duration()),
        },
        retention: Retention {
            age: stage.retention.age.duration(),
            bytes: stage.retention.bytes.bytes(),
        },
        max_bytes: stage.max_bytes.bytes(),
        on_full: match stage.on_full {
            config::OnFull::Block => OnFull::Block,
            config::OnFull::DropOldest => OnFull::DropOldest,
            config::OnFull::DropNewest => OnFull::DropNewest,
        },
        tuning: Tuning::default(),
    }
}
