//! What `GET /v1/status` says of the runners of this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::stats::{ConnectionStats, ConsumerStats, ProducerStats, SequenceStats, StateSnapshot};

/// Tells the present status.
pub type StatusSource = Arc<dyn Fn() -> Status + Send + Sync>;

/// The runners by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The consumers.
    pub consumers: BTreeMap<String, ConsumerStatus>,
    /// The producers.
    pub producers: BTreeMap<String, ProducerStatus>,
}

/// Whether a runner runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerState {
    /// Not yet: stages are still being opened.
    Starting,
    /// It does.
    Running,
    /// Not any more.
    Ended,
}

/// What a consumer is doing, and has done since the process started; see [`ConsumerStats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields are those of ConsumerStats, where they are explained"
)]
pub struct ConsumerStatus {
    /// Whether it runs.
    pub state: RunnerState,
    /// What it is doing, since when, and why.
    pub activity: StateSnapshot,
    pub received: u64,
    pub received_bytes: u64,
    pub staged: u64,
    pub dropped: u64,
    pub duplicates: u64,
    pub control: u64,
    pub attempts: u64,
    pub connects: u64,
    pub gaps: u64,
    pub sequence: SequenceStatus,
    /// In the order of the configuration; none when the consumer holds no connections.
    pub connections: Vec<ConnectionStatus>,
}

/// What the source's own numbers show; see [`SequenceStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields are those of SequenceStats, where they are explained"
)]
pub struct SequenceStatus {
    pub holes: u64,
    pub missing: u64,
    pub duplicates: u64,
    pub reordered: u64,
    pub restarts: u64,
    pub unnumbered: u64,
}

impl SequenceStatus {
    fn of(stats: &SequenceStats) -> Self {
        Self {
            holes: stats.holes.get(),
            missing: stats.missing.get(),
            duplicates: stats.duplicates.get(),
            reordered: stats.reordered.get(),
            restarts: stats.restarts.get(),
            unnumbered: stats.unnumbered.get(),
        }
    }
}

impl ConsumerStatus {
    /// Of these counters.
    #[must_use]
    pub fn of(state: RunnerState, stats: &ConsumerStats) -> Self {
        Self {
            state,
            activity: stats.state.snapshot(),
            received: stats.received.get(),
            received_bytes: stats.received_bytes.get(),
            staged: stats.staged.get(),
            dropped: stats.dropped.get(),
            duplicates: stats.duplicates.get(),
            control: stats.control.get(),
            attempts: stats.attempts.get(),
            connects: stats.connects.get(),
            gaps: stats.gaps.get(),
            sequence: SequenceStatus::of(&stats.sequence),
            connections: stats.connections().iter().map(ConnectionStatus::of).collect(),
        }
    }
}

/// What one connection of a consumer is doing, and has done since the process started; see [`ConnectionStats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields are those of ConnectionStats, where they are explained"
)]
pub struct ConnectionStatus {
    pub address: String,
    pub activity: StateSnapshot,
    pub first: u64,
    pub duplicates: u64,
    pub attempts: u64,
    pub connects: u64,
    pub rotations: u64,
}

impl ConnectionStatus {
    fn of(stats: &ConnectionStats) -> Self {
        Self {
            address: stats.address.clone(),
            activity: stats.state.snapshot(),
            first: stats.first.get(),
            duplicates: stats.duplicates.get(),
            attempts: stats.attempts.get(),
            connects: stats.connects.get(),
            rotations: stats.rotations.get(),
        }
    }
}

/// What a producer has done since the process started; see [`ProducerStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields are those of ProducerStats, where they are explained"
)]
pub struct ProducerStatus {
    /// Whether it runs.
    pub state: RunnerState,
    pub delivered: u64,
    pub ignored: u64,
    pub rows: u64,
    pub conflicts: u64,
    pub dead_letters: u64,
    pub extra_values: u64,
    pub discarded_values: u64,
    pub gaps: u64,
    pub transactions: u64,
    pub reconnects: u64,
}

impl ProducerStatus {
    /// Of these counters.
    #[must_use]
    pub fn of(state: RunnerState, stats: &ProducerStats) -> Self {
        Self {
            state,
            delivered: stats.delivered.get(),
            ignored: stats.ignored.get(),
            rows: stats.rows.get(),
            conflicts: stats.conflicts.get(),
            dead_letters: stats.dead_letters.get(),
            extra_values: stats.extra_values.get(),
            discarded_values: stats.discarded_values.get(),
            gaps: stats.gaps.get(),
            transactions: stats.transactions.get(),
            reconnects: stats.reconnects.get(),
        }
    }
}
