//! What a consumer is doing: set by the consumer, read by whoever shows it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::record::Timestamp;

/// What a consumer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConsumerState {
    /// It tries to reach the source.
    Connecting,
    /// It is connected, and does what makes the source send.
    Subscribing,
    /// It receives.
    Live,
    /// It is connected and subscribed, and no data has come for too long.
    Silent,
    /// It has no connection and will try again.
    Waiting,
    /// The stage takes nothing, so the source is not read.
    Paused,
}

impl fmt::Display for ConsumerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A state, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateSnapshot {
    /// What the consumer is doing.
    pub state: ConsumerState,
    /// Since when; as JSON in microseconds since the epoch.
    pub since: Timestamp,
    /// Why, in words; nothing where the state says it all. Never a secret, never a payload.
    pub why: String,
}

/// The present state of one consumer. Changes are rare, so it is behind a lock.
#[derive(Debug)]
pub struct StateCell(Mutex<StateSnapshot>);

impl Default for StateCell {
    fn default() -> Self {
        Self(Mutex::new(StateSnapshot {
            state: ConsumerState::Waiting,
            since: Timestamp::now(),
            why: "not started yet".to_owned(),
        }))
    }
}

impl StateCell {
    /// Changes the state. One that is set again keeps its `since`, and gets the new reason.
    pub fn set(&self, state: ConsumerState, why: impl Into<String>) {
        let mut present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if present.state != state {
            present.since = Timestamp::now();
        }
        present.state = state;
        present.why = why.into();
    }

    /// The state as it is now.
    #[must_use]
    pub fn snapshot(&self) -> StateSnapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_tells_since_when_and_why_and_is_json_in_small_letters() {
        let cell = StateCell::default();
        assert_eq!(cell.snapshot().state, ConsumerState::Waiting);
        cell.set(ConsumerState::Live, "");
        let live = cell.snapshot();
        cell.set(ConsumerState::Live, "again");
        assert_eq!(cell.snapshot().since, live.since, "the same state goes on");
        assert_eq!(cell.snapshot().why, "again");
        cell.set(ConsumerState::Paused, "the stage is full");
        let paused = cell.snapshot();
        assert!(paused.since >= live.since);
        let json = serde_json::to_value(&paused).unwrap();
        assert_eq!(json["state"], "paused");
        assert_eq!(json["why"], "the stage is full");
        assert_eq!(json["since"], paused.since.micros());
        assert_eq!(ConsumerState::Subscribing.to_string(), "subscribing");
    }
}
