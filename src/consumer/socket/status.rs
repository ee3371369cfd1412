//! What a consumer goes through: each event sets the state that others read, and is one line in the log.

use std::sync::Mutex;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::refusal::{ConnectError, Remedy};
use crate::consumer::patience::Pausing;
use crate::stats::{ConsumerState, ConsumerStats, StateSnapshot};

/// Tells what one consumer goes through.
pub(super) struct Status {
    runner: String,
    /// Of the server, without anything secret.
    uri: String,
    stats: Arc<ConsumerStats>,
    /// The error that an operator was told of last, so that it is told once.
    told: Mutex<Option<String>>,
}

impl Status {
    pub(super) fn new(runner: &str, uri: &str, stats: Arc<ConsumerStats>) -> Self {
        Self {
            runner: runner.to_owned(),
            uri: uri.to_owned(),
            stats,
            told: Mutex::new(None),
        }
    }

    /// An attempt begins. Its outcome follows within `connect_timeout`, and is what the log tells.
    pub(super) fn connecting(&self) {
        self.stats.attempts.add(1);
        self.stats.state.set(ConsumerState::Connecting, "");
        tracing::debug!(runner = self.runner, uri = self.uri, "connecting");
    }

    /// The handshake is done.
    pub(super) fn connected(&self, took: Duration) {
        self.stats.connects.add(1);
        self.stats.state.set(ConsumerState::Subscribing, "");
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
        tracing::info!(
            runner = self.runner,
            uri = self.uri,
            took_ms = took.as_millis(),
            "connected"
        );
    }

    /// All steps of `subscribe` are done; told when there are any.
    pub(super) fn subscribed(&self, steps: usize) {
        self.stats.state.set(ConsumerState::Live, "");
        if steps > 0 {
            tracing::info!(runner = self.runner, steps, "subscribed");
        }
    }

    /// A message was for the consumer itself.
    pub(super) fn control(&self) {
        self.stats.control.add(1);
    }

    /// An attempt failed.
    pub(super) fn refused(&self, error: &ConnectError, delay: Duration) {
        let said = error.to_string();
        self.wait(&said, delay);
        let (runner, uri, retry_in_ms) = (&self.runner, &self.uri, delay.as_millis());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if error.remedy() == Remedy::Operator && told.as_ref() != Some(&said) {
            tracing::error!(runner, uri, %error, retry_in_ms, "can't connect");
            *told = Some(said);
        } else {
            tracing::warn!(runner, uri, %error, retry_in_ms, "can't connect");
        }
    }

    /// The connection is lost.
    pub(super) fn lost(&self, cause: &str, delay: Duration) {
        self.wait(cause, delay);
        let retry_in_ms = delay.as_millis();
        tracing::warn!(runner = self.runner, cause, retry_in_ms, "connection lost");
    }

    fn wait(&self, cause: &str, delay: Duration) {
        let seconds = delay.as_secs_f32();
        let why = format!("{cause}; the next attempt after {seconds:.1} s");
        self.stats.state.set(ConsumerState::Waiting, why);
    }

    /// No data for too long, and the connection is kept.
    pub(super) fn silent(&self, cause: &str) {
        self.stats.state.set(ConsumerState::Silent, cause);
        tracing::warn!(
            runner = self.runner,
            cause,
            "silent; the connection is kept (idle.action: warn)"
        );
    }

    /// Data after a silence.
    pub(super) fn data_again(&self) {
        self.stats.state.set(ConsumerState::Live, "");
        tracing::info!(runner = self.runner, "data again");
    }

    /// The consumer stops while it is connected.
    pub(super) fn stopped(&self) {
        self.stats.state.set(ConsumerState::Waiting, "the engine stops");
        tracing::info!(runner = self.runner, "connection closed, for the engine stops");
    }

    /// The consumer stops while it waits.
    pub(super) fn stopped_waiting(&self) {
        self.stats.state.set(ConsumerState::Waiting, "the engine stops");
    }
}

impl Pausing for Status {
    /// The state.
    type Before = StateSnapshot;

    fn paused(&self) -> StateSnapshot {
        let before = self.stats.state.snapshot();
        let why = "the stage takes nothing: it is full (on_full: block), or its disk is slow";
        self.stats.state.set(ConsumerState::Paused, why);
        tracing::warn!(runner = self.runner, why, "paused; the socket is not read");
        before
    }

    fn resumed(&self, before: StateSnapshot, after: Duration) {
        self.stats.state.set(before.state, before.why);
        let paused_ms = after.as_millis();
        tracing::info!(runner = self.runner, paused_ms, state = %before.state, "the socket is read again");
    }
}
