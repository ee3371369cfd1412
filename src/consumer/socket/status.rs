//! What a consumer goes through: each event on one of its connections sets the states that others read, and is one line in the
//! log.
//!
//! The [`Board`] holds what every connection is doing, and makes of it the state of each entry of `connections` and that of the
//! consumer: the best of them, or `paused` while the stage takes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lane::{LANES, Lane};
use super::refusal::{ConnectError, Remedy};
use crate::consumer::patience::Pausing;
use crate::stats::{ConnectionStats, ConsumerState, ConsumerStats};

/// Why a state is `paused`.
const STAGE_TAKES_NOTHING: &str = "the stage takes nothing: it is full (on_full: block), or its disk is slow";

/// What all connections of a consumer are doing.
pub(super) struct Board {
    runner: String,
    stats: Arc<ConsumerStats>,
    doing: Mutex<Doing>,
}

#[derive(Default)]
struct Doing {
    lanes: [Option<(ConsumerState, String)>; LANES],
    is_paused: bool,
}

impl Board {
    /// Of a consumer whose connections have these addresses.
    pub(super) fn new(
        runner: &str,
        stats: Arc<ConsumerStats>,
        addresses: impl IntoIterator<Item = String>,
    ) -> Arc<Self> {
        stats.hold_connections(addresses);
        Arc::new(Self {
            runner: runner.to_owned(),
            stats,
            doing: Mutex::default(),
        })
    }

    /// What this connection's entry has done.
    pub(super) fn contribution(&self, lane: Lane) -> &ConnectionStats {
        &self.stats.connections()[lane.entry()]
    }

    /// Messages were duplicates.
    pub(super) fn duplicates(&self, messages: u64) {
        self.stats.duplicates.add(messages);
    }

    fn set(&self, lane: Lane, state: ConsumerState, why: impl Into<String>) {
        let mut doing = self.doing();
        doing.lanes[lane.index()] = Some((state, why.into()));
        self.show(&doing);
    }

    /// There is no connection at this place any more, nor shall there be one again soon.
    pub(super) fn clear(&self, lane: Lane) {
        let mut doing = self.doing();
        doing.lanes[lane.index()] = None;
        self.show(&doing);
    }

    /// Sets the states that others read.
    fn show(&self, doing: &Doing) {
        let connections = self.stats.connections();
        let mut shown = Vec::with_capacity(connections.len());
        for (lanes, connection) in doing.lanes.chunks(2).zip(connections) {
            // While the next connection is made (`rotate`) the one that is live still counts.
            let best = lanes.iter().flatten().max_by_key(|(state, _)| rank(*state));
            let Some((state, why)) = best else {
                continue;
            };
            if doing.is_paused && is_connected(*state) {
                connection.state.set(ConsumerState::Paused, STAGE_TAKES_NOTHING);
            } else {
                connection.state.set(*state, why.as_str());
            }
            shown.push((*state, why.as_str()));
        }
        if doing.is_paused {
            self.stats.state.set(ConsumerState::Paused, STAGE_TAKES_NOTHING);
        } else if let Some((state, why)) = together(&shown, connections.len()) {
            self.stats.state.set(state, why);
        }
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pausing for Board {
    /// What connections were doing stands on the board.
    type Before = ();

    fn paused(&self) {
        let why = STAGE_TAKES_NOTHING;
        tracing::warn!(runner = self.runner, why, "paused; the socket is not read");
        let mut doing = self.doing();
        doing.is_paused = true;
        self.show(&doing);
    }

    fn resumed(&self, (): (), after: Duration) {
        let mut doing = self.doing();
        doing.is_paused = false;
        self.show(&doing);
        let paused_ms = after.as_millis();
        let state = self.stats.state.snapshot().state;
        tracing::info!(runner = self.runner, paused_ms, %state, "the socket is read again");
    }
}

/// How far a connection is on its way to data.
fn rank(state: ConsumerState) -> u8 {
    match state {
        ConsumerState::Waiting => 0,
        ConsumerState::Connecting => 1,
        ConsumerState::Subscribing => 2,
        ConsumerState::Silent => 3,
        ConsumerState::Paused => 4,
        ConsumerState::Live => 5,
    }
}

fn is_connected(state: ConsumerState) -> bool {
    rank(state) >= rank(ConsumerState::Subscribing)
}

/// What a consumer with `held` connections is doing when those that have begun do this.
fn together(doing: &[(ConsumerState, &str)], held: usize) -> Option<(ConsumerState, String)> {
    let (state, why) = doing.iter().copied().max_by_key(|(state, _)| rank(*state))?;
    if held == 1 {
        return Some((state, why.to_owned()));
    }
    let in_it = doing.iter().filter(|(other, _)| *other == state).count();
    let why = match (in_it == held, why.is_empty()) {
        (true, _) => why.to_owned(),
        (false, true) => format!("{in_it} of {held} connections"),
        (false, false) => format!("{in_it} of {held} connections: {why}"),
    };
    Some((state, why))
}

/// Tells what one connection goes through.
pub(super) struct Status {
    board: Arc<Board>,
    lane: Lane,
    /// Of the server, without anything secret.
    uri: String,
    /// The number of the connection among several, from 1.
    connection: Option<usize>,
    /// The error that an operator was told of last, so that it is told once.
    told: Mutex<Option<String>>,
}

impl Status {
    pub(super) fn new(board: &Arc<Board>, lane: Lane) -> Self {
        let connections = board.stats.connections();
        Self {
            lane,
            uri: connections[lane.entry()].address.clone(),
            connection: (connections.len() > 1).then(|| lane.entry() + 1),
            board: Arc::clone(board),
            told: Mutex::new(None),
        }
    }

    fn set(&self, state: ConsumerState, why: impl Into<String>) {
        self.board.set(self.lane, state, why);
    }

    fn stats(&self) -> (&ConsumerStats, &ConnectionStats) {
        (&self.board.stats, self.board.contribution(self.lane))
    }

    /// An attempt begins. Its outcome follows within `connect_timeout`, and is what the log tells.
    pub(super) fn connecting(&self) {
        let (all, own) = self.stats();
        all.attempts.add(1);
        own.attempts.add(1);
        self.set(ConsumerState::Connecting, "");
        let (runner, connection, uri) = (&self.board.runner, self.connection, &self.uri);
        tracing::debug!(runner, connection, uri, "connecting");
    }

    /// The handshake is done.
    pub(super) fn connected(&self, took: Duration) {
        let (all, own) = self.stats();
        all.connects.add(1);
        own.connects.add(1);
        self.set(ConsumerState::Subscribing, "");
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let (runner, connection, uri) = (&self.board.runner, self.connection, &self.uri);
        let took_ms = took.as_millis();
        tracing::info!(runner, connection, uri, took_ms, "connected");
    }

    /// All steps of `subscribe` are done; told when there are any.
    pub(super) fn subscribed(&self, steps: usize) {
        self.set(ConsumerState::Live, "");
        if steps > 0 {
            let (runner, connection) = (&self.board.runner, self.connection);
            tracing::info!(runner, connection, steps, "subscribed");
        }
    }

    /// A message was for the consumer itself.
    pub(super) fn control(&self) {
        self.board.stats.control.add(1);
    }

    /// An attempt failed.
    pub(super) fn refused(&self, error: &ConnectError, delay: Duration) {
        let said = error.to_string();
        self.wait(&said, delay);
        let (runner, connection, uri) = (&self.board.runner, self.connection, &self.uri);
        let retry_in_ms = delay.as_millis();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if error.remedy() == Remedy::Operator && told.as_ref() != Some(&said) {
            tracing::error!(runner, connection, uri, %error, retry_in_ms, "can't connect");
            *told = Some(said);
        } else {
            tracing::warn!(runner, connection, uri, %error, retry_in_ms, "can't connect");
        }
    }

    /// The connection is lost, and the next attempt comes after `delay`.
    pub(super) fn lost(&self, cause: &str, delay: Duration) {
        self.wait(cause, delay);
        let (runner, connection) = (&self.board.runner, self.connection);
        let retry_in_ms = delay.as_millis();
        tracing::warn!(runner, connection, cause, retry_in_ms, "connection lost");
    }

    fn wait(&self, cause: &str, delay: Duration) {
        let seconds = delay.as_secs_f32();
        let why = format!("{cause}; the next attempt after {seconds:.1} s");
        self.set(ConsumerState::Waiting, why);
    }

    /// The first attempt comes after `delay`, so that not all connections end together.
    pub(super) fn starts_apart(&self, delay: Duration) {
        let why = format!("it begins {} s after the first one", delay.as_secs_f32());
        self.set(ConsumerState::Waiting, why);
    }

    /// The next connection is to be made while this one is live.
    pub(super) fn rotates(&self) {
        let (runner, connection) = (&self.board.runner, self.connection);
        tracing::debug!(runner, connection, "making the next connection (rotate)");
    }

    /// The connection is lost, or given up for the next one, which takes its place.
    pub(super) fn replaced(&self, how: Replaced<'_>) {
        self.board.clear(self.lane);
        let (runner, connection) = (&self.board.runner, self.connection);
        match how {
            Replaced::Rotated => {
                self.stats().1.rotations.add(1);
                tracing::info!(runner, connection, "replaced by the next connection (rotate)");
            }
            Replaced::Lost(cause) => {
                tracing::warn!(
                    runner,
                    connection,
                    cause,
                    "connection lost; the next one is under way (rotate)"
                );
            }
        }
    }

    /// The next connection is not waited for any more.
    pub(super) fn dropped(&self) {
        self.board.clear(self.lane);
    }

    /// No data for too long, and the connection is kept.
    pub(super) fn silent(&self, cause: &str) {
        self.set(ConsumerState::Silent, cause);
        let (runner, connection) = (&self.board.runner, self.connection);
        tracing::warn!(
            runner,
            connection,
            cause,
            "silent; the connection is kept (idle.action: warn)"
        );
    }

    /// Data after a silence.
    pub(super) fn data_again(&self) {
        self.set(ConsumerState::Live, "");
        let (runner, connection) = (&self.board.runner, self.connection);
        tracing::info!(runner, connection, "data again");
    }

    /// The consumer stops while it is connected.
    pub(super) fn stopped(&self) {
        self.stopped_waiting();
        let (runner, connection) = (&self.board.runner, self.connection);
        tracing::info!(runner, connection, "connection closed, for the engine stops");
    }

    /// The consumer stops while it waits.
    pub(super) fn stopped_waiting(&self) {
        self.set(ConsumerState::Waiting, "the engine stops");
    }
}

/// What became of a connection whose place another one has taken.
#[derive(Clone, Copy)]
pub(super) enum Replaced<'c> {
    /// It was closed in order.
    Rotated,
    /// It was lost before the next one was live.
    Lost(&'c str),
}
