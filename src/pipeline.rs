//! Wires the runners of a configuration to their stages, runs them, and stops them in order.
//!
//! Stopping has two phases: consumers close their connections and flush what they hold, and only then do
//! producers finish their transaction, so that what was flushed last can still be delivered; the stage paths
//! are closed after both, when nobody is served any more. The first runner that fails stops all others in the same way, for one process is
//! one unit to its operator: it runs whole or it ends with a reason. Only what a failed stage path brings down is no reason to stop
//! the consumers of other paths: their sources would have to be left, and what those send is not to be had again. The process then
//! ends with the reason when it is stopped.

mod engines;
mod paths;
mod runners;
mod selection;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Config, ConsumerRunner, ProducerRunner};
use crate::consumer::ConsumerContext;
use crate::exit::{ExitReason, RunnerError};
use crate::producer::{Producer, ProducerContext, RunUntil};
use crate::record::Offset;
use crate::stage::SharedStage;
use crate::supervisor::{Ended, TaskSet};

use self::engines::Engines;
pub use self::engines::RunningEngines;
use self::paths::OpenPaths;
pub use self::paths::try_paths;
pub use self::runners::PipelineStats;
use self::runners::Runners;
use self::selection::Selection;

/// How long runners have to stop after they were told to.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How often the counters go into the log.
const STATUS_INTERVAL: Duration = Duration::from_secs(60);

/// Which part of a configuration runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All runners.
    All,
    /// The runners of these names.
    Only(Vec<String>),
    /// The producers, until every stage is empty.
    Drain,
}

/// A configuration with its stages open, ready to run.
pub struct Pipeline {
    paths: OpenPaths,
    consumers: Vec<ConsumerRunner>,
    producers: Vec<ProducerRunner>,
    until: RunUntil,
    runners: Arc<Runners>,
    /// The stages that each producer delivers.
    delivers: BTreeMap<String, Vec<String>>,
    /// Where the stages lie that producers deliver and another process has open.
    elsewhere: BTreeMap<String, PathBuf>,
}

impl Pipeline {
    /// Opens the stage paths that the runners in `scope` own: those of which it runs a consumer, and all when it drains. Other
    /// paths belong to other processes; they are asked when it runs. A tool that holds the files of a path is waited for.
    ///
    /// # Errors
    /// When a name of `scope` is unknown, a stage path does not open, or one can't be served that another process needs.
    pub async fn open(config: Config, scope: Scope) -> Result<Self, RunnerError> {
        let opened = Self::open_unless(config, scope, &CancellationToken::new()).await?;
        opened.ok_or_else(|| RunnerError::new(ExitReason::Failed, "opening was stopped"))
    }

    /// As [`open`](Self::open); `None` when `stop` was cancelled while a tool was waited for.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub async fn open_unless(
        config: Config,
        scope: Scope,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, RunnerError> {
        let selection = Selection::of(&config, &scope)?;
        let drains = scope == Scope::Drain;
        let is_owned = |stage: &str| selection.runs(stage) || (drains && selection.delivers(&config, stage));
        let stats = PipelineStats::of(
            config
                .consumers
                .iter()
                .map(|runner| runner.name.as_str())
                .filter(|name| selection.runs(name)),
            config
                .producers
                .iter()
                .map(|runner| runner.name.as_str())
                .filter(|name| selection.runs(name)),
        );
        let runners = Arc::new(Runners::new(stats));
        let runs = |name: &str| selection.runs(name);
        let Some(paths) = OpenPaths::open(&config, is_owned, runs, &runners.source(), stop).await? else {
            return Ok(None);
        };
        let elsewhere = config
            .consumers
            .iter()
            .filter(|runner| paths.stage(&runner.name).is_none())
            .map(|runner| (runner.name.clone(), runner.stage.path.clone()))
            .collect();
        let delivers = config
            .producers
            .iter()
            .map(|runner| (runner.name.clone(), runner.depends_on.clone()))
            .collect();
        let consumers = config.consumers.into_iter();
        let producers = config.producers.into_iter();
        Ok(Some(Self {
            paths,
            consumers: consumers.filter(|runner| selection.runs(&runner.name)).collect(),
            producers: producers.filter(|runner| selection.runs(&runner.name)).collect(),
            until: if drains {
                RunUntil::Drained
            } else {
                RunUntil::Stopped
            },
            runners,
            delivers,
            elsewhere,
        }))
    }

    /// The counters, to be read while it runs.
    #[must_use]
    pub fn stats(&self) -> PipelineStats {
        self.runners.stats.clone()
    }

    /// The stages that this process has open, by name.
    #[must_use]
    pub fn stages(&self) -> BTreeMap<String, SharedStage> {
        self.paths.stages()
    }

    /// What the producers have still to deliver of the stages that this process has open, to be read while it runs.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let stages = self.paths.stages();
        let deliveries = |producer: &ProducerRunner| -> Vec<(String, SharedStage)> {
            let stages = producer.depends_on.iter().filter_map(|name| stages.get(name));
            stages
                .map(|stage| (producer.name.clone(), Arc::clone(stage)))
                .collect()
        };
        Progress {
            deliveries: self.producers.iter().flat_map(deliveries).collect(),
        }
    }

    /// Runs until `stop` is cancelled, a runner fails, or (draining) every stage is empty; then stops in order.
    ///
    /// # Errors
    /// The first failure of a runner or a stage path, or that the runners did not stop within [`STOP_DEADLINE`].
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RunnerError> {
        let stop_consumers = CancellationToken::new();
        let stop_producers = CancellationToken::new();
        let mut producers = self.spawn_producers(&stop_producers);
        let mut consumers = self.spawn_consumers(&stop_consumers)?;
        let runners = Arc::clone(&self.runners);
        runners.started();

        let mut failure = None;
        let mut failed_paths = BTreeSet::new();
        let mut status = tokio::time::interval_at(Instant::now() + STATUS_INTERVAL, STATUS_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => { info!("stopping"); break }
                reason = self.paths.failed(&mut failed_paths) => {
                    failure.get_or_insert(reason);
                    if !self.has_sound_consumers(&consumers) { break }
                    tell_failed(&failed_paths);
                }
                Some(ended) = consumers.join_next() => {
                    let is_spared = self.paths.has_failed(&ended.name) && self.has_sound_consumers(&consumers);
                    if note_end(&runners, ended, &mut failure) && !is_spared { break }
                }
                Some(ended) = producers.join_next() => {
                    let delivers = self.delivers.get(&ended.name);
                    let is_spared = ended.outcome.is_err()
                        && delivers.is_some_and(|stages| stages.iter().any(|stage| self.paths.has_failed(stage)))
                        && self.has_sound_consumers(&consumers);
                    if (note_end(&runners, ended, &mut failure) || producers.is_empty()) && !is_spared { break }
                }
                _ = status.tick() => {
                    runners.stats.log();
                    tell_failed(&failed_paths);
                }
            }
        }

        let deadline = Instant::now() + STOP_DEADLINE;
        stop_consumers.cancel();
        finish(&runners, &mut consumers, deadline, &mut failure).await;
        stop_producers.cancel();
        finish(&runners, &mut producers, deadline, &mut failure).await;
        runners.stats.log();
        // A task that did not stop still holds its stage: the process is about to end, and the next start recovers.
        if consumers.is_empty() && producers.is_empty() {
            self.paths.close(&mut failure).await;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Whether a consumer runs whose stage can take what it receives.
    fn has_sound_consumers(&self, consumers: &TaskSet) -> bool {
        let running = consumers.running();
        running.iter().any(|name| !self.paths.has_failed(name))
    }

    fn spawn_consumers(&mut self, stop: &CancellationToken) -> Result<TaskSet, RunnerError> {
        let mut tasks = TaskSet::default();
        for runner in self.consumers.drain(..) {
            let stage = self.paths.stage(&runner.name).ok_or_else(|| {
                RunnerError::new(
                    ExitReason::Failed,
                    format!("the stage {} is not open; please report this", runner.name),
                )
            })?;
            let context = ConsumerContext {
                stage,
                batch: runner.batch,
                sequence: runner.sequence,
                stats: Arc::clone(&self.runners.stats.consumers[&runner.name]),
                stop: stop.clone(),
                name: runner.name.clone(),
            };
            tasks.spawn(&runner.name, runner.consumer.run(context));
        }
        Ok(tasks)
    }

    fn spawn_producers(&mut self, stop: &CancellationToken) -> TaskSet {
        let mut tasks = TaskSet::default();
        for runner in self.producers.drain(..) {
            let name = runner.name.clone();
            let context = ProducerContext {
                stages: Vec::new(),
                start: runner.start,
                until: self.until,
                stats: Arc::clone(&self.runners.stats.producers[&runner.name]),
                stop: stop.clone(),
                name: runner.name,
            };
            let stages = runner
                .depends_on
                .into_iter()
                .map(|stage| match self.paths.stage(&stage) {
                    Some(stage) => StageSource::Here(stage),
                    None => {
                        StageSource::Elsewhere(self.elsewhere.get(&stage).cloned().unwrap_or_default(), stage)
                    }
                });
            let stages = stages.collect();
            tasks.spawn(&name, run_producer(runner.producer, stages, context));
        }
        tasks
    }
}

/// Where a stage comes from.
enum StageSource {
    /// This process has it open.
    Here(SharedStage),
    /// Another process has the path open; the stage's name.
    Elsewhere(PathBuf, String),
}

/// Runs a producer once the engines that have its stages open answer.
async fn run_producer(
    producer: Box<dyn Producer>,
    sources: Vec<StageSource>,
    mut context: ProducerContext,
) -> Result<(), RunnerError> {
    let directories: BTreeSet<_> = sources
        .iter()
        .filter_map(|source| match source {
            StageSource::Here(_) => None,
            StageSource::Elsewhere(directory, _) => Some(directory.clone()),
        })
        .collect();
    let directories: Vec<_> = directories.into_iter().collect();
    let Some(engines) = Engines::wait_for(&directories, &context.stop).await? else {
        return Ok(());
    };
    context.stages = sources
        .into_iter()
        .map(|source| match source {
            StageSource::Here(stage) => Ok(stage),
            StageSource::Elsewhere(directory, name) => engines.stage(&directory, &name),
        })
        .collect::<Result<_, _>>()?;
    let outcome = tokio::select! {
        outcome = producer.run(context) => outcome,
        error = engines.failed() => Err(error),
    };
    engines.close().await;
    outcome
}

/// What producers have still to deliver.
pub struct Progress {
    /// Producers and the stages that they deliver.
    deliveries: Vec<(String, SharedStage)>,
}

impl Progress {
    /// How many messages, summed over producers and stages.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let of_delivery = |(producer, stage): &(String, SharedStage)| {
            let bounds = stage.bounds();
            let cursor = stage.cursor(producer).unwrap_or(bounds.oldest).max(bounds.oldest);
            stage.count_between(cursor, bounds.head)
        };
        self.deliveries.iter().map(of_delivery).sum()
    }

    /// Where each of the deliveries stands.
    #[must_use]
    pub fn cursors(&self) -> Vec<Offset> {
        let of_delivery = |(producer, stage): &(String, SharedStage)| {
            let oldest = stage.bounds().oldest;
            stage.cursor(producer).unwrap_or(oldest)
        };
        self.deliveries.iter().map(of_delivery).collect()
    }

    /// How many messages were delivered since the [`cursors`](Self::cursors) were these.
    #[must_use]
    pub fn delivered_since(&self, cursors: &[Offset]) -> u64 {
        let deliveries = self.deliveries.iter().zip(cursors).zip(self.cursors());
        deliveries
            .map(|(((_, stage), before), now)| stage.count_between(*before, now))
            .sum()
    }
}

/// Tells of paths that have failed while the consumers of others go on. It is told again with the counters: one line is soon out of
/// sight, and the process does not end to tell it.
fn tell_failed(paths: &BTreeSet<PathBuf>) {
    for path in paths {
        error!(
            path = %path.display(),
            "the stage path has failed and takes nothing; the consumers of other stage paths go on; start the engine again to recover it"
        );
    }
}

/// Notes how a runner ended; `true` when that is a reason to stop all.
fn note_end(runners: &Runners, ended: Ended, failure: &mut Option<RunnerError>) -> bool {
    runners.ended(&ended.name);
    match ended.outcome {
        Ok(()) => {
            info!(runner = ended.name, "ended");
            false
        }
        Err(reason) => {
            let reason = reason.of_runner(&ended.name);
            // The first failure is the process's; of those that follow from it only the log tells.
            if failure.is_none() {
                *failure = Some(reason);
            } else {
                warn!(runner = ended.name, "{reason}");
            }
            true
        }
    }
}

async fn finish(
    runners: &Runners,
    tasks: &mut TaskSet,
    deadline: Instant,
    failure: &mut Option<RunnerError>,
) {
    while !tasks.is_empty() {
        match timeout_at(deadline, tasks.join_next()).await {
            Ok(Some(ended)) => {
                note_end(runners, ended, failure);
            }
            Ok(None) => return,
            Err(_) => {
                let running = tasks.running().join(", ");
                error!("{running} did not stop within {} s", STOP_DEADLINE.as_secs());
                failure.get_or_insert_with(|| {
                    RunnerError::new(
                        ExitReason::Failed,
                        format!("{running} did not stop in time and was ended; what was staged is safe"),
                    )
                });
                return;
            }
        }
    }
}
