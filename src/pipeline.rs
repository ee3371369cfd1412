//! Wires the runners of a configuration to their stages, runs them, and stops them in order.
//!
//! Stopping has two phases: consumers close their connections and flush what they hold, and only then do
//! producers finish their transaction, so that what was flushed last can still be delivered; the stage paths
//! are closed after both. The first runner that fails stops all others in the same way, for one process is
//! one unit to its operator: it runs whole or it ends with a reason.

mod paths;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Config, ConsumerRunner, ProducerRunner};
use crate::consumer::ConsumerContext;
use crate::exit::{ExitReason, RunnerError};
use crate::producer::{ProducerContext, RunUntil};
use crate::stage::SharedStage;
use crate::stats::{ConsumerStats, ProducerStats};
use crate::supervisor::{Ended, TaskSet};

use self::paths::OpenPaths;
pub use self::paths::try_paths;

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
    stats: PipelineStats,
}

/// The counters of all runners that run, by name.
#[derive(Clone, Debug, Default)]
pub struct PipelineStats {
    /// Of the consumers.
    pub consumers: BTreeMap<String, Arc<ConsumerStats>>,
    /// Of the producers.
    pub producers: BTreeMap<String, Arc<ProducerStats>>,
}

impl Pipeline {
    /// Opens the stage paths that the runners in `scope` use.
    ///
    /// # Errors
    /// When a name of `scope` is unknown or the scope can't run alone, or a stage path does not open.
    pub async fn open(config: Config, scope: Scope) -> Result<Self, RunnerError> {
        let selection = Selection::of(&config, &scope)?;
        let paths = OpenPaths::open(&config, |stage| selection.uses_stage(&config, stage)).await?;
        let consumers: Vec<_> = config
            .consumers
            .into_iter()
            .filter(|runner| selection.names.contains(&runner.name))
            .collect();
        let producers: Vec<_> = config
            .producers
            .into_iter()
            .filter(|runner| selection.names.contains(&runner.name))
            .collect();
        let stats = PipelineStats {
            consumers: consumers
                .iter()
                .map(|runner| (runner.name.clone(), Arc::default()))
                .collect(),
            producers: producers
                .iter()
                .map(|runner| (runner.name.clone(), Arc::default()))
                .collect(),
        };
        let until = if scope == Scope::Drain {
            RunUntil::Drained
        } else {
            RunUntil::Stopped
        };
        Ok(Self {
            paths,
            consumers,
            producers,
            until,
            stats,
        })
    }

    /// The counters, to be read while it runs.
    #[must_use]
    pub fn stats(&self) -> PipelineStats {
        self.stats.clone()
    }

    /// The stages that are open, by name.
    #[must_use]
    pub fn stages(&self) -> BTreeMap<String, SharedStage> {
        self.paths.stages()
    }

    /// What the producers have still to deliver, to be read while it runs.
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
        let mut producers = self.spawn_producers(&stop_producers)?;
        let mut consumers = self.spawn_consumers(&stop_consumers)?;

        let mut failure = None;
        let mut status = tokio::time::interval_at(Instant::now() + STATUS_INTERVAL, STATUS_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => { info!("stopping"); break }
                reason = self.paths.failed() => { failure = Some(reason); break }
                Some(ended) = consumers.join_next() => if note_end(ended, &mut failure) { break },
                Some(ended) = producers.join_next() => {
                    if note_end(ended, &mut failure) || producers.is_empty() { break }
                }
                _ = status.tick() => self.stats.log(),
            }
        }

        let deadline = Instant::now() + STOP_DEADLINE;
        stop_consumers.cancel();
        finish(&mut consumers, deadline, &mut failure).await;
        stop_producers.cancel();
        finish(&mut producers, deadline, &mut failure).await;
        self.stats.log();
        // A task that did not stop still holds its stage: the process is about to end, and the next start recovers.
        if consumers.is_empty() && producers.is_empty() {
            self.paths.close(&mut failure).await;
        }
        failure.map_or(Ok(()), Err)
    }

    fn spawn_consumers(&mut self, stop: &CancellationToken) -> Result<TaskSet, RunnerError> {
        let mut tasks = TaskSet::default();
        for runner in self.consumers.drain(..) {
            let context = ConsumerContext {
                stage: self.paths.stage(&runner.name)?,
                batch: runner.batch,
                stats: Arc::clone(&self.stats.consumers[&runner.name]),
                stop: stop.clone(),
                name: runner.name.clone(),
            };
            tasks.spawn(&runner.name, runner.consumer.run(context));
        }
        Ok(tasks)
    }

    fn spawn_producers(&mut self, stop: &CancellationToken) -> Result<TaskSet, RunnerError> {
        let mut tasks = TaskSet::default();
        for runner in self.producers.drain(..) {
            let stages = runner
                .depends_on
                .iter()
                .map(|stage| self.paths.stage(stage))
                .collect::<Result<_, _>>()?;
            let context = ProducerContext {
                stages,
                start: runner.start,
                until: self.until,
                stats: Arc::clone(&self.stats.producers[&runner.name]),
                stop: stop.clone(),
                name: runner.name.clone(),
            };
            tasks.spawn(&runner.name, runner.producer.run(context));
        }
        Ok(tasks)
    }
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
}

/// Notes how a runner ended; `true` when that is a reason to stop all.
fn note_end(ended: Ended, failure: &mut Option<RunnerError>) -> bool {
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

async fn finish(tasks: &mut TaskSet, deadline: Instant, failure: &mut Option<RunnerError>) {
    while !tasks.is_empty() {
        match timeout_at(deadline, tasks.join_next()).await {
            Ok(Some(ended)) => {
                note_end(ended, failure);
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

impl PipelineStats {
    fn log(&self) {
        for (runner, stats) in &self.consumers {
            info!(
                runner,
                received = stats.received.get(),
                staged = stats.staged.get(),
                dropped = stats.dropped.get(),
                connects = stats.connects.get(),
                gaps = stats.gaps.get(),
                "consumer"
            );
        }
        for (runner, stats) in &self.producers {
            info!(
                runner,
                delivered = stats.delivered.get(),
                rows = stats.rows.get(),
                dead_letters = stats.dead_letters.get(),
                extra_values = stats.extra_values.get(),
                transactions = stats.transactions.get(),
                reconnects = stats.reconnects.get(),
                "producer"
            );
        }
    }
}

/// The names of the runners that run.
struct Selection {
    names: Vec<String>,
}

impl Selection {
    fn of(config: &Config, scope: &Scope) -> Result<Self, RunnerError> {
        let consumers = || config.consumers.iter().map(|runner| runner.name.clone());
        let producers = || config.producers.iter().map(|runner| runner.name.clone());
        match scope {
            Scope::All => Ok(Self {
                names: consumers().chain(producers()).collect(),
            }),
            Scope::Drain => Ok(Self {
                names: producers().collect(),
            }),
            Scope::Only(names) => {
                let known: Vec<_> = consumers().chain(producers()).collect();
                if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
                    return Err(usage(format!(
                        "--only {unknown}: no runner of that name; the configuration has {}",
                        known.join(", ")
                    )));
                }
                let selection = Self { names: names.clone() };
                selection.refuse_producers_alone(config)?;
                Ok(selection)
            }
        }
    }

    /// A stage path belongs to the process that runs a consumer of it.
    fn refuse_producers_alone(&self, config: &Config) -> Result<(), RunnerError> {
        let runs_in = |path: &std::path::Path| {
            config
                .consumers
                .iter()
                .any(|runner| runner.stage.path == path && self.names.contains(&runner.name))
        };
        for producer in config
            .producers
            .iter()
            .filter(|producer| self.names.contains(&producer.name))
        {
            let stages = config
                .consumers
                .iter()
                .filter(|runner| producer.depends_on.contains(&runner.name));
            if let Some(stage) = stages.into_iter().find(|runner| !runs_in(&runner.stage.path)) {
                return Err(usage(format!(
                    "--only {}: no consumer of its stage path {} runs in this process. Name one with --only too, or \
                     deliver what is staged with `socket-el drain`",
                    producer.name,
                    stage.stage.path.display()
                )));
            }
        }
        Ok(())
    }

    /// Whether a runner that runs writes or reads the stage of this name.
    fn uses_stage(&self, config: &Config, stage: &str) -> bool {
        let delivers = |runner: &ProducerRunner| {
            self.names.contains(&runner.name) && runner.depends_on.iter().any(|name| name == stage)
        };
        self.names.iter().any(|name| name == stage) || config.producers.iter().any(delivers)
    }
}

fn usage(message: String) -> RunnerError {
    RunnerError::new(ExitReason::Configuration, message)
}
