//! What is known of the runners while they run: their counters, and whether they still do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

use crate::control::{ConsumerStatus, ProducerStatus, RunnerState, Status, StatusSource};
use crate::stats::{ConsumerStats, ProducerStats};

/// The counters of all runners that run, by name.
#[derive(Clone, Debug, Default)]
pub struct PipelineStats {
    /// Of the consumers.
    pub consumers: BTreeMap<String, Arc<ConsumerStats>>,
    /// Of the producers.
    pub producers: BTreeMap<String, Arc<ProducerStats>>,
}

impl PipelineStats {
    pub(super) fn of<'a>(
        consumers: impl Iterator<Item = &'a str>,
        producers: impl Iterator<Item = &'a str>,
    ) -> Self {
        Self {
            consumers: consumers.map(|name| (name.to_owned(), Arc::default())).collect(),
            producers: producers.map(|name| (name.to_owned(), Arc::default())).collect(),
        }
    }

    pub(super) fn log(&self) {
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
            log_connections(runner, stats);
        }
        for (runner, stats) in &self.producers {
            info!(
                runner,
                delivered = stats.delivered.get(),
                ignored = stats.ignored.get(),
                rows = stats.rows.get(),
                conflicts = stats.conflicts.get(),
                dead_letters = stats.dead_letters.get(),
                extra_values = stats.extra_values.get(),
                discarded_values = stats.discarded_values.get(),
                gaps = stats.gaps.get(),
                transactions = stats.transactions.get(),
                reconnects = stats.reconnects.get(),
                "producer"
            );
        }
    }
}

/// What each of several connections has contributed.
fn log_connections(runner: &str, stats: &ConsumerStats) {
    let connections = stats.connections();
    if connections.len() < 2 {
        return;
    }
    for (connection, stats) in (1..).zip(connections) {
        info!(
            runner,
            connection,
            state = %stats.state.snapshot().state,
            first = stats.first.get(),
            duplicates = stats.duplicates.get(),
            connects = stats.connects.get(),
            rotations = stats.rotations.get(),
            "connection"
        );
    }
}

/// The runners of this process.
#[derive(Debug, Default)]
pub(super) struct Runners {
    pub(super) stats: PipelineStats,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    started: bool,
    ended: BTreeSet<String>,
}

impl Runners {
    pub(super) fn new(stats: PipelineStats) -> Self {
        Self {
            stats,
            progress: Mutex::default(),
        }
    }

    /// They are about to run.
    pub(super) fn started(&self) {
        self.progress().started = true;
    }

    /// One does not run any more.
    pub(super) fn ended(&self, name: &str) {
        self.progress().ended.insert(name.to_owned());
    }

    /// Tells how they are.
    pub(super) fn source(self: &Arc<Self>) -> StatusSource {
        let runners = Arc::clone(self);
        Arc::new(move || runners.status())
    }

    fn status(&self) -> Status {
        let progress = self.progress();
        let state = |name: &str| match (progress.started, progress.ended.contains(name)) {
            (_, true) => RunnerState::Ended,
            (true, false) => RunnerState::Running,
            (false, false) => RunnerState::Starting,
        };
        let consumers = self.stats.consumers.iter();
        let producers = self.stats.producers.iter();
        Status {
            consumers: consumers
                .map(|(name, stats)| (name.clone(), ConsumerStatus::of(state(name), stats)))
                .collect(),
            producers: producers
                .map(|(name, stats)| (name.clone(), ProducerStatus::of(state(name), stats)))
                .collect(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
