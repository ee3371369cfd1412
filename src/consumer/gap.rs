//! A stretch without a subscribed connection, from the loss of the last one until the next is subscribed. The first one of a process
//! begins where an earlier process heard its source last.
//!
//! It stands in the stage between the messages before and after it. When a server sends data before it has answered
//! everything, the stretch is recorded in two parts: one before that data, one behind it.

use crate::record::Timestamp;
use crate::stage::{LastSeen, Outage, OutageKind};

/// Why the second part of a stretch stands in the stage.
const UNANSWERED: &str = "the server sent data before all steps of subscribe were done";

/// Why there was no connection before the first one of a process.
const STOPPED: &str = "the engine was stopped";
const ENDED: &str = "the engine was killed, or crashed";

/// A stretch that is not over.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Gap {
    since: Timestamp,
    cause: String,
    /// What has failed since then, the last time.
    later: Option<String>,
    /// Whether its first part is recorded.
    split: bool,
}

impl Gap {
    pub(in crate::consumer) fn new(since: Timestamp, cause: String) -> Self {
        Self {
            since,
            cause,
            later: None,
            split: false,
        }
    }

    /// From when an earlier process heard the source last.
    pub(super) fn since_earlier_run(seen: LastSeen) -> Self {
        let cause = if seen.stopped { STOPPED } else { ENDED };
        Self::new(seen.at, cause.to_owned())
    }

    /// Another attempt failed; only the last one is told, for there may be thousands.
    pub(in crate::consumer) fn goes_on(&mut self, cause: String) {
        self.later = Some(cause);
        // The next connection's data is behind a stretch of its own.
        self.split = false;
    }

    /// The part that stands before the first data of a connection that is not subscribed yet. `None` when that is recorded.
    pub(in crate::consumer) fn split(&mut self) -> Option<Outage> {
        if self.split {
            return None;
        }
        let outage = self.outage(Timestamp::now());
        *self = Self {
            split: true,
            ..Self::new(outage.to, UNANSWERED.to_owned())
        };
        Some(outage)
    }

    /// The stretch up to `to`.
    pub(in crate::consumer) fn outage(&self, to: Timestamp) -> Outage {
        Outage {
            from: self.since,
            // The clock may have been set back meanwhile; a stretch does not end before it begins.
            to: to.max(self.since),
            messages: 0,
            cause: match &self.later {
                Some(later) => format!("{}; then: {later}", self.cause),
                None => self.cause.clone(),
            },
            kind: OutageKind::Disconnected,
        }
    }

    /// The stretch up to the stop of the engine.
    pub(in crate::consumer) fn until_stop(mut self) -> Outage {
        self.later = Some(match self.later {
            Some(later) => format!("{later}; not connected again before the engine stopped"),
            None => "not connected again before the engine stopped".to_owned(),
        });
        self.outage(Timestamp::now())
    }
}
