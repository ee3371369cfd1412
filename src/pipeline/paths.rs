//! The stage paths of a configuration: which stages lie where, opened together and closed together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt, select_all};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{self, Config, StageConfig};
use crate::control::{Control, StatusSource};
use crate::exit::{ExitReason, RunnerError, chain};
use crate::stage::local::{
    Durability, Holder, LocalOptions, LocalPath, OnFull, OpenError, Retention, StageRole, Tuning,
};
use crate::stage::look::{LookError, look_into};
use crate::stage::path::{Route, StagePath, StageSummary};
use crate::stage::{SharedStage, StageError};

/// How long a tool that holds the files of a path is waited for.
const TOOL_PATIENCE: Duration = Duration::from_secs(30);

/// How often it is tried, and the least time for which another engine must have been seen: a lock that was just taken may
/// still name the one who had it before.
const TRY_INTERVAL: Duration = Duration::from_millis(100);

/// The stage paths that this process has open.
pub(super) struct OpenPaths {
    paths: Vec<OpenPath>,
}

struct OpenPath {
    path: Arc<LocalPath>,
    /// `None` when the socket could not be made.
    control: Option<Control>,
}

impl OpenPaths {
    /// Opens every path that holds a stage for which `is_owned` says yes, with all the stages and producers that the
    /// configuration has for it: what does not run now still pins what it has not delivered. Each is served to others
    /// from then on. `None` when `stop` was cancelled while a tool was waited for.
    pub(super) async fn open(
        config: &Config,
        is_owned: impl Fn(&str) -> bool,
        runs: impl Fn(&str) -> bool,
        status: &StatusSource,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, RunnerError> {
        let mut open = Self { paths: Vec::new() };
        for (options, roles) in wanted_paths(config).into_values() {
            if !roles.iter().any(|role| is_owned(&role.name)) {
                continue;
            }
            let mut producers = roles.iter().flat_map(|role| &role.producers);
            let elsewhere = producers.find(|producer| !runs(producer)).cloned();
            let outcome = match open_one(options, roles, stop).await {
                Ok(Some(path)) => open.add(path, status, elsewhere.as_deref()),
                Ok(None) => {
                    open.close(&mut None).await;
                    return Ok(None);
                }
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                open.close(&mut None).await;
                return Err(error);
            }
        }
        Ok(Some(open))
    }

    /// Serves a path to others. Who can't is told: without it everything of this process goes on, for not every file system has
    /// sockets, but a producer that is to run in another one could only wait for ever.
    fn add(
        &mut self,
        path: LocalPath,
        status: &StatusSource,
        elsewhere: Option<&str>,
    ) -> Result<(), RunnerError> {
        let path = Arc::new(path);
        let served = Control::start(Arc::clone(&path), Arc::clone(status));
        let error = served.as_ref().err().map(|error| chain(error));
        self.paths.push(OpenPath {
            path,
            control: served.ok(),
        });
        match (error, elsewhere) {
            (None, _) => Ok(()),
            (Some(error), None) => {
                warn!("tools and other processes can't ask this engine: {error}");
                Ok(())
            }
            (Some(error), Some(producer)) => Err(RunnerError::new(
                ExitReason::Failed,
                format!(
                    "{error}. The producer {producer} does not run in this process, and another one could not reach the stages: run \
                     all in one process (without --only), or have the stage's path on a file system that has sockets"
                ),
            )),
        }
    }

    /// The open stages by name.
    pub(super) fn stages(&self) -> BTreeMap<String, SharedStage> {
        self.paths
            .iter()
            .flat_map(|open| stages_of(&open.path))
            .map(|stage| (stage.name().to_owned(), stage))
            .collect()
    }

    /// The stage of this name, if it is open in this process.
    pub(super) fn stage(&self, name: &str) -> Option<SharedStage> {
        self.paths.iter().find_map(|open| open.path.stage(name))
    }

    /// Waits until a path fails of which `told` does not know, and notes it there; for ever when none does.
    pub(super) async fn failed(&self, told: &mut BTreeSet<PathBuf>) -> RunnerError {
        let sound = self
            .paths
            .iter()
            .filter(|open| !told.contains(open.path.directory()));
        let failing: Vec<_> = sound
            .map(|open| async { (open.path.directory(), failure_of(&open.path).await) }.boxed())
            .collect();
        if failing.is_empty() {
            return std::future::pending().await;
        }
        let ((directory, error), ..) = select_all(failing).await;
        told.insert(directory.to_owned());
        RunnerError::new(ExitReason::Failed, error)
    }

    /// Whether the stage of this name lies on a path that has failed.
    pub(super) fn has_failed(&self, name: &str) -> bool {
        let open = self.paths.iter().find(|open| open.path.stage(name).is_some());
        open.is_some_and(|open| open.path.failed().borrow().is_some())
    }

    /// Closes all paths in order, after nobody is served any more; the first error stands in `failure` if there is none yet.
    pub(super) async fn close(self, failure: &mut Option<RunnerError>) {
        for OpenPath { path, control } in self.paths {
            if let Some(control) = control {
                control.stop().await;
            }
            if let Err(error) = StagePath::close(&*path).await {
                failure.get_or_insert(RunnerError::new(error.exit_reason(), error));
            }
        }
    }
}

/// Looks into every stage path of a configuration, for `check --connect`: the path, and what was found. A path that does
/// not exist yet is not made.
pub async fn try_paths(config: &Config) -> Vec<(String, Result<String, RunnerError>)> {
    let mut findings = Vec::new();
    for (path, (_, roles)) in wanted_paths(config) {
        let name = format!("stage path {}", path.display());
        if !path.exists() {
            findings.push((
                name,
                Ok("does not exist yet; `socket-el run` makes it".to_owned()),
            ));
            continue;
        }
        findings.push((name, try_one(&path, &roles).await));
    }
    findings
}

async fn try_one(path: &Path, roles: &[StageRole]) -> Result<String, RunnerError> {
    let looked = look_into(path, roles, |whom| info!("waiting: {whom}")).await;
    let path = match looked {
        Ok(path) => path,
        Err(LookError::Open(OpenError::Missing { .. })) => {
            return Ok("holds no stage yet; `socket-el run` makes them".to_owned());
        }
        Err(error) => return Err(RunnerError::new(error.exit_reason(), error)),
    };
    let failed = |error: StageError| RunnerError::new(error.exit_reason(), error);
    let summary = path.summary().await;
    let route = path.route();
    path.close().await.map_err(failed)?;
    let of_stage = |stage: &StageSummary| {
        format!(
            "{}: offsets {}..{}",
            stage.name, stage.bounds.oldest, stage.bounds.head
        )
    };
    let stages: Vec<_> = summary.map_err(failed)?.stages.iter().map(of_stage).collect();
    let stages = stages.join("; ");
    Ok(match route {
        Route::Files => stages,
        Route::Engine { pid, version } => {
            format!("in use by the running engine (process {pid}, socket-el {version}); {stages}")
        }
    })
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

/// Opens a path. A tool that holds its files is waited for, another engine is not. `None` when `stop` was cancelled meanwhile.
async fn open_one(
    options: LocalOptions,
    roles: Vec<StageRole>,
    stop: &CancellationToken,
) -> Result<Option<LocalPath>, RunnerError> {
    let began = Instant::now();
    let mut told = false;
    loop {
        let (options, roles) = (options.clone(), roles.clone());
        let error = match spawn_blocking(move || LocalPath::open(options, &roles)).await {
            Ok(Ok(path)) => return Ok(Some(path)),
            Ok(Err(error)) => error,
            Err(error) => return Err(RunnerError::new(ExitReason::Failed, error)),
        };
        let patience = match &error {
            OpenError::InUse {
                holder: Some(Holder::Tool),
                ..
            } => TOOL_PATIENCE,
            OpenError::InUse { .. } => TRY_INTERVAL,
            _ => Duration::ZERO,
        };
        if began.elapsed() >= patience {
            return Err(RunnerError::new(error.exit_reason(), error));
        }
        if patience == TOOL_PATIENCE && !std::mem::replace(&mut told, true) {
            info!("waiting up to {} s: {error}", TOOL_PATIENCE.as_secs());
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = sleep(TRY_INTERVAL) => {}
        }
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
