//! The stage paths that other processes have open: their engines are waited for, and asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Progress;
use crate::backoff::Backoff;
use crate::config::Config;
use crate::exit::{ExitReason, RunnerError};
use crate::stage::path::StagePath as _;
use crate::stage::remote::{ClientError, RemotePath};
use crate::stage::{SharedStage, StageError};

/// How long the first wait for an engine takes at most, and the longest.
const RETRY_INITIAL: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The engines that a producer of this process needs, connected.
pub(super) struct Engines {
    paths: Vec<RemotePath>,
}

impl Engines {
    /// Waits for the engines of all these paths; `None` when `stop` was cancelled before.
    pub(super) async fn wait_for(
        directories: &[PathBuf],
        stop: &CancellationToken,
    ) -> Result<Option<Self>, RunnerError> {
        let mut paths = Vec::new();
        for directory in directories {
            let path = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                path = wait_for_one(directory, stop) => path?,
            };
            paths.push(path);
        }
        Ok(Some(Self { paths }))
    }

    /// The stage of this name.
    pub(super) fn stage(&self, directory: &Path, name: &str) -> Result<SharedStage, RunnerError> {
        let path = self.paths.iter().find(|path| path.directory() == directory);
        let stage = path.and_then(|path| path.stage(name));
        stage.ok_or_else(|| {
            RunnerError::new(
                ExitReason::Configuration,
                format!(
                    "the engine that has stage path {} open has no stage {name}: it was started with another configuration",
                    directory.display()
                ),
            )
        })
    }

    /// Waits until a stage is not to be had any more; for ever when there is none.
    pub(super) async fn failed(&self) -> RunnerError {
        let failing: Vec<_> = self
            .paths
            .iter()
            .map(|path| Box::pin(path.failed_for_good()))
            .collect();
        if failing.is_empty() {
            return std::future::pending().await;
        }
        let (error, ..) = futures_util::future::select_all(failing).await;
        RunnerError::new(error.exit_reason(), error)
    }

    /// Ends the tasks that follow the engines.
    pub(super) async fn close(self) {
        for path in self.paths {
            // Nothing is written over there that could fail to last.
            drop(path.close().await);
        }
    }
}

async fn wait_for_one(directory: &Path, stop: &CancellationToken) -> Result<RemotePath, RunnerError> {
    let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
    let mut told = false;
    loop {
        let error = match RemotePath::connect_patiently(directory, stop.clone()).await {
            Ok(path) => {
                info!(path = %directory.display(), pid = path.identity().pid, "reading through the engine that has the stage path open");
                return Ok(path);
            }
            Err(error) => error,
        };
        match error {
            ClientError::NoEngine
            | ClientError::OtherLife
            | ClientError::Lost(_)
            | ClientError::Broken(_)
            | ClientError::TimedOut
            | ClientError::Stage(StageError::Failed { .. } | StageError::Closed) => {}
            ClientError::Forbidden(_)
            | ClientError::OtherProtocol(_)
            | ClientError::NotFound(_)
            | ClientError::Stage(_) => {
                return Err(RunnerError::new(
                    ExitReason::StageInUse,
                    format!("stage path {} is out of reach: {error}", directory.display()),
                ));
            }
        }
        if !std::mem::replace(&mut told, true) {
            info!(path = %directory.display(), "waiting for the engine that runs the consumers of this stage path: {error}");
        }
        sleep(backoff.next_delay()).await;
    }
}

/// The running engines whose stages a configuration's producers deliver, to be watched.
pub struct RunningEngines {
    paths: Vec<Arc<RemotePath>>,
    progress: Progress,
}

impl RunningEngines {
    /// Connects to the engines that have the configuration's delivered stage paths open; `None` when none of them is open.
    ///
    /// # Errors
    /// When an engine can't be asked, or only some of the paths are open in one.
    pub async fn of(config: &Config) -> Result<Option<Self>, RunnerError> {
        let mut paths: Vec<Arc<RemotePath>> = Vec::new();
        let mut closed = Vec::new();
        for directory in delivered_paths(config) {
            match RemotePath::connect(&directory).await {
                Ok(path) => paths.push(Arc::new(path)),
                Err(ClientError::NoEngine) => closed.push(directory),
                Err(error) => {
                    return Err(RunnerError::new(
                        ExitReason::StageInUse,
                        format!("stage path {} is out of reach: {error}", directory.display()),
                    ));
                }
            }
        }
        let Some(open) = paths.first() else {
            return Ok(None);
        };
        if let Some(closed) = closed.first() {
            return Err(RunnerError::new(
                ExitReason::StageInUse,
                format!(
                    "stage path {} is open in an engine (process {}), but {} in none: stop that engine to drain all, or start \
                     one for the other path",
                    open.directory().display(),
                    open.identity().pid,
                    closed.display()
                ),
            ));
        }
        let stage = |name: &str| paths.iter().find_map(|path| path.stage(name));
        let deliveries = config.producers.iter().flat_map(|producer| {
            let stages = producer.depends_on.iter().filter_map(|name| stage(name));
            stages.map(|stage| (producer.name.clone(), stage))
        });
        let progress = Progress {
            deliveries: deliveries.collect(),
        };
        Ok(Some(Self { paths, progress }))
    }

    /// What the engines have still to deliver.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Producers and stages of which no process has begun to deliver since the engine started.
    ///
    /// # Errors
    /// When an engine can't be asked.
    pub async fn idle(&self) -> Result<Vec<(String, String)>, RunnerError> {
        let mut idle = Vec::new();
        for path in &self.paths {
            let summary = path.summary().await;
            let summary = summary.map_err(|error| RunnerError::new(error.exit_reason(), error))?;
            for (producer, stage) in &self.progress.deliveries {
                let begun = summary.stage(stage.name()).map(|stage| &stage.begun);
                if begun.is_some_and(|begun| !begun.contains(producer)) {
                    idle.push((producer.clone(), stage.name().to_owned()));
                }
            }
        }
        Ok(idle)
    }

    /// The processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.paths.iter().map(|path| path.identity().pid).collect()
    }

    /// Waits until an engine is not to be asked any more, and says why.
    pub async fn gone(&self) -> RunnerError {
        let failing = self.paths.iter().map(|path| Box::pin(path.failed_for_good()));
        let (error, ..) = futures_util::future::select_all(failing).await;
        RunnerError::new(error.exit_reason(), error)
    }

    /// Ends the watching.
    pub async fn close(&self) {
        for path in &self.paths {
            // Nothing is written over there that could fail to last.
            drop(path.close().await);
        }
    }
}

/// The directories of all stages that a producer delivers, each once.
fn delivered_paths(config: &Config) -> Vec<PathBuf> {
    let delivered = |name: &str| config.producers_of(name).next().is_some();
    let mut paths: Vec<_> = config
        .consumers
        .iter()
        .filter(|consumer| delivered(&consumer.name))
        .map(|consumer| consumer.stage.path.clone())
        .collect();
    paths.sort();
    paths.dedup();
    paths
}
