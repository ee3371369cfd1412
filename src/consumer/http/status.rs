//! What a consumer goes through: each event sets the state that others read, and what is new is a line in the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::PollError;
use crate::consumer::patience::Pausing;
use crate::consumer::reach::refusal::Remedy;
use crate::stats::{ConsumerState, ConsumerStats, StateSnapshot};

/// Tells what one consumer goes through.
pub(super) struct Status {
    runner: String,
    /// Of the source, without anything secret.
    uri: String,
    stats: Arc<ConsumerStats>,
    idle_timeout: Option<Duration>,
    seen: Mutex<Seen>,
}

struct Seen {
    /// Whether the last poll was answered.
    is_answered: bool,
    /// When something new came last.
    last_data: Instant,
    /// The error that an operator was told of last, so that it is told once.
    told: Option<String>,
}

impl Status {
    pub(super) fn new(
        runner: &str,
        uri: &str,
        stats: Arc<ConsumerStats>,
        idle_timeout: Option<Duration>,
    ) -> Self {
        Self {
            runner: runner.to_owned(),
            uri: uri.to_owned(),
            stats,
            idle_timeout,
            seen: Mutex::new(Seen {
                is_answered: false,
                last_data: Instant::now(),
                told: None,
            }),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A poll begins. Its outcome follows within `timeout`.
    pub(super) fn polling(&self) {
        self.stats.attempts.add(1);
        if !self.seen().is_answered {
            self.stats.state.set(ConsumerState::Connecting, "");
        }
    }

    /// The server has answered, and so many messages are staged.
    pub(super) fn answered(&self, messages: usize, took: Duration) {
        let (runner, took_ms) = (&self.runner, took.as_millis());
        let mut seen = self.seen();
        let was_answered = std::mem::replace(&mut seen.is_answered, true);
        seen.told = None;
        if was_answered {
            tracing::debug!(runner, messages, took_ms, "answered");
        } else {
            tracing::info!(runner, uri = self.uri, messages, took_ms, "the source answers");
        }
        let is_silent = self.stats.state.snapshot().state == ConsumerState::Silent;
        if messages > 0 {
            seen.last_data = Instant::now();
            self.stats.state.set(ConsumerState::Live, "");
            if is_silent {
                tracing::info!(runner, "data again");
            }
            return;
        }
        let silence = seen.last_data.elapsed();
        if self.idle_timeout.is_none_or(|limit| silence < limit) {
            self.stats.state.set(ConsumerState::Live, "");
        } else if !is_silent {
            let cause = format!("nothing new for {} s (idle_timeout)", silence.as_secs_f32());
            tracing::warn!(runner, cause, "silent; polls go on");
            self.stats.state.set(ConsumerState::Silent, cause);
        }
    }

    /// A poll failed.
    pub(super) fn failed(&self, error: &PollError, delay: Duration) {
        let said = error.to_string();
        let seconds = delay.as_secs_f32();
        let why = format!("{said}; the next attempt after {seconds:.1} s");
        self.stats.state.set(ConsumerState::Waiting, why);
        let (runner, uri, retry_in_ms) = (&self.runner, &self.uri, delay.as_millis());
        let mut seen = self.seen();
        seen.is_answered = false;
        if error.remedy() == Remedy::Operator && seen.told.as_ref() != Some(&said) {
            tracing::error!(runner, uri, %error, retry_in_ms, "poll failed");
            seen.told = Some(said);
        } else {
            tracing::warn!(runner, uri, %error, retry_in_ms, "poll failed");
        }
    }

    /// The consumer stops.
    pub(super) fn stopped(&self) {
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
        tracing::warn!(runner = self.runner, why, "paused; the source is not asked");
        before
    }

    fn resumed(&self, before: StateSnapshot, after: Duration) {
        self.stats.state.set(before.state, before.why);
        let paused_ms = after.as_millis();
        tracing::info!(runner = self.runner, paused_ms, state = %before.state, "the source is asked again");
    }
}
