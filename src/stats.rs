//! Counters of the runners: written on the hot path, read by the log, the progress bars and the status.

mod state;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub use state::{ConsumerState, StateCell, StateSnapshot};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one consumer has done since the process started.
#[derive(Debug, Default)]
pub struct ConsumerStats {
    /// Messages received from the source.
    pub received: Counter,
    /// Bytes of their payloads.
    pub received_bytes: Counter,
    /// Messages that are durable in the stage.
    pub staged: Counter,
    /// Messages that a full stage dropped (`on_full: drop_newest`).
    pub dropped: Counter,
    /// Connections established.
    pub connects: Counter,
    /// Recorded stretches in which messages may have been missed.
    pub gaps: Counter,
    /// Messages that were for the consumer and not for the stage: answers, heartbeats. Not among `received`.
    pub control: Counter,
    /// Messages that another connection had brought already. Not among `received`.
    pub duplicates: Counter,
    /// Attempts to connect, whatever became of them.
    pub attempts: Counter,
    /// What the source's own numbers show.
    pub sequence: SequenceStats,
    /// What the consumer is doing.
    pub state: StateCell,
    connections: OnceLock<Vec<ConnectionStats>>,
}

impl ConsumerStats {
    /// Names the connections that the consumer holds, by their addresses without anything secret; the first call counts.
    /// Returns them.
    pub fn hold_connections(&self, addresses: impl IntoIterator<Item = String>) -> &[ConnectionStats] {
        self.connections.get_or_init(|| {
            let of = |address| ConnectionStats {
                address,
                ..ConnectionStats::default()
            };
            addresses.into_iter().map(of).collect()
        })
    }

    /// The connections that the consumer holds, in the order of the configuration; none when it does not tell.
    pub fn connections(&self) -> &[ConnectionStats] {
        self.connections.get().map_or(&[], Vec::as_slice)
    }
}

/// What one of the connections that a consumer holds has done since the process started.
#[derive(Debug, Default)]
pub struct ConnectionStats {
    /// Of the source, without anything secret.
    pub address: String,
    /// What it is doing.
    pub state: StateCell,
    /// Messages that it was the first to bring.
    pub first: Counter,
    /// Messages that another one had brought already.
    pub duplicates: Counter,
    /// Times it was established.
    pub connects: Counter,
    /// Attempts, whatever became of them.
    pub attempts: Counter,
    /// Times it was replaced before its end (`rotate`).
    pub rotations: Counter,
}

/// What the source's own numbers show, where the configuration says where they stand (`sequence`).
#[derive(Debug, Default)]
pub struct SequenceStats {
    /// Holes in them.
    pub holes: Counter,
    /// Messages that are missing in the holes, where numbers count messages.
    pub missing: Counter,
    /// Messages whose number came before.
    pub duplicates: Counter,
    /// Messages whose number is lower than one before them.
    pub reordered: Counter,
    /// Times the source began to count anew.
    pub restarts: Counter,
    /// Messages without a number, or beyond the keys that are followed.
    pub unnumbered: Counter,
}

/// What one producer has done since the process started, over all its stages.
#[derive(Debug, Default)]
pub struct ProducerStats {
    /// Messages whose delivery is committed, whatever became of them (row, several rows, dead letter,
    /// ignored).
    pub delivered: Counter,
    /// Messages among them that the mapping leaves out (`when`, an empty list of records).
    pub ignored: Counter,
    /// Rows committed: added or, with `on_conflict`, updated.
    pub rows: Counter,
    /// Rows that gave way to another of their key: to one that stood before, or that came later in the same transaction
    /// (`on_conflict`).
    pub conflicts: Counter,
    /// Messages that became dead letters.
    pub dead_letters: Counter,
    /// Values that did not fit their column and stand in `_extra`.
    pub extra_values: Counter,
    /// Values that were dropped, for their keys are new (`new_keys: discard`).
    pub discarded_values: Counter,
    /// Rows that are new in the ledger of gaps, in transactions whose commit was answered.
    pub gaps: Counter,
    /// Transactions committed.
    pub transactions: Counter,
    /// Times the sink's connection was made again.
    pub reconnects: Counter,
}
