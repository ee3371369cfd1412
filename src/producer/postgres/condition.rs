//! How the delivery of a stage stands, for its operator: what it is doing, since when, why, and what to do.
//!
//! Trouble of the stage's own lasts until something is committed, or nothing is left to deliver: neither a connection that is made
//! again nor an attempt under way ends it. It is told to the stage as soon as it changes; how far delivery is, once a second.

use std::time::Duration;

use tokio::time::Instant;

use crate::stage::report::{Condition, DeliveryState};

/// How far delivery is, is told at most this often.
const PROGRESS: Duration = Duration::from_secs(1);
/// What has not changed is told again after so long, as a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// How one lane stands.
#[derive(Debug)]
pub(super) struct Standing {
    shown: Condition,
    trouble: Option<Trouble>,
    /// When it was told last, or could not be.
    told: Option<Instant>,
    has_news: bool,
    /// Whether the news is more than progress.
    is_urgent: bool,
}

/// Trouble of the stage's own.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    state: DeliveryState,
    why: String,
    what_to_do: String,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self {
            shown: Condition::new(DeliveryState::Connecting, "", ""),
            trouble: None,
            told: None,
            has_news: true,
            is_urgent: true,
        }
    }

    pub(super) fn shown(&self) -> &Condition {
        &self.shown
    }

    fn show(&mut self, state: DeliveryState, why: &str, what_to_do: &str) {
        self.is_urgent |= !(is_well(self.shown.state) && is_well(state));
        self.shown.change(state, why, what_to_do);
        self.has_news = true;
    }

    /// There is no connection. With something to do, it is trouble that a connection alone does not end: a full disk lets us
    /// connect, and refuses the rows again.
    pub(super) fn connecting(&mut self, why: &str, what_to_do: &str) {
        self.show(DeliveryState::Connecting, why, what_to_do);
        let is_own = |trouble: &Trouble| trouble.state != DeliveryState::Connecting;
        if !what_to_do.is_empty() && !self.trouble.as_ref().is_some_and(is_own) {
            self.trouble = Some(Trouble {
                state: DeliveryState::Connecting,
                why: why.to_owned(),
                what_to_do: what_to_do.to_owned(),
            });
        }
    }

    /// There is a connection again.
    pub(super) fn connected(&mut self) {
        match self.trouble.take() {
            Some(trouble) => {
                self.show(trouble.state, &trouble.why, &trouble.what_to_do);
                self.trouble = Some(trouble);
            }
            None => self.show(DeliveryState::Connecting, "", ""),
        }
    }

    /// An operator has to mend something. Returns whether that is new.
    pub(super) fn held(&mut self, why: &str, what_to_do: &str) -> bool {
        self.troubled(DeliveryState::Held, why, what_to_do)
    }

    /// Something transient stands in the way. Returns whether that is new.
    pub(super) fn retrying(&mut self, why: &str) -> bool {
        self.troubled(DeliveryState::Retrying, why, "")
    }

    fn troubled(&mut self, state: DeliveryState, why: &str, what_to_do: &str) -> bool {
        let trouble = Trouble {
            state,
            why: why.to_owned(),
            what_to_do: what_to_do.to_owned(),
        };
        self.show(state, why, what_to_do);
        let is_new = self.trouble.as_ref() != Some(&trouble);
        self.trouble = Some(trouble);
        is_new
    }

    /// A transaction is under way.
    pub(super) fn delivering(&mut self) {
        if self.trouble.is_none() && self.shown.state != DeliveryState::Delivering {
            self.show(DeliveryState::Delivering, "", "");
        }
    }

    /// Something is committed. Returns whether trouble is over by that.
    pub(super) fn committed(&mut self) -> bool {
        self.is_well(DeliveryState::Delivering)
    }

    /// Nothing is left to deliver. Returns whether trouble is over by that.
    pub(super) fn idle(&mut self) -> bool {
        self.is_well(DeliveryState::Idle)
    }

    fn is_well(&mut self, state: DeliveryState) -> bool {
        let was_troubled = self.trouble.take().is_some();
        if self.shown.state != state {
            self.show(state, "", "");
        }
        was_troubled
    }

    /// How far delivery is has changed.
    pub(super) fn advanced(&mut self) {
        self.has_news = true;
    }

    /// When it is to be told.
    pub(super) fn tells_at(&self) -> Instant {
        match self.told {
            None => Instant::now(),
            Some(_) if self.is_urgent => Instant::now(),
            Some(at) if self.has_news => at + PROGRESS,
            Some(at) => at + SIGN_OF_LIFE,
        }
    }

    /// It was told, or could not be.
    pub(super) fn told(&mut self, was_heard: bool) {
        self.told = Some(Instant::now());
        self.is_urgent = false;
        self.has_news = !was_heard;
    }
}

/// Whether nothing stands in the way.
fn is_well(state: DeliveryState) -> bool {
    match state {
        DeliveryState::Idle | DeliveryState::Delivering => true,
        DeliveryState::Connecting | DeliveryState::Retrying | DeliveryState::Held => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_outlasts_connections_and_attempts_and_ends_with_a_commit() {
        let mut standing = Standing::new();
        standing.connected();
        standing.delivering();
        assert!(standing.held("no rights", "grant them"));
        let since = standing.shown().since;
        assert!(!standing.held("no rights", "grant them"), "the same again");
        standing.connecting("refused", "");
        assert_eq!(standing.shown().state, DeliveryState::Connecting);
        standing.connected();
        standing.delivering();
        let shown = standing.shown();
        assert_eq!(
            (shown.state, &*shown.why, &*shown.what_to_do),
            (DeliveryState::Held, "no rights", "grant them")
        );
        assert!(shown.since >= since);
        assert!(standing.retrying("a lock"), "another trouble");
        assert!(standing.committed());
        assert!(!standing.idle());
        assert_eq!(standing.shown().state, DeliveryState::Idle);
        assert_eq!(standing.shown().why, "");
    }

    #[tokio::test]
    async fn what_somebody_has_to_mend_is_shown_while_connections_come_and_go_and_not_in_place_of_what_holds_the_stage()
     {
        let mut standing = Standing::new();
        let shown = |standing: &Standing| (standing.shown().state, standing.shown().why.clone());
        standing.connecting("disk full", "make room");
        let since = standing.shown().since;
        standing.connected();
        standing.delivering();
        assert_eq!(shown(&standing), (DeliveryState::Connecting, "disk full".into()));
        standing.connecting("disk full", "make room");
        assert_eq!(standing.shown().since, since);
        standing.connected();
        standing.held("no rights", "grant them");
        standing.connecting("disk full", "make room");
        standing.connected();
        assert_eq!(shown(&standing), (DeliveryState::Held, "no rights".into()));
        assert!(standing.committed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_at_once_and_progress_once_a_second() {
        let mut standing = Standing::new();
        let now = Instant::now();
        assert_eq!(standing.tells_at(), now);
        standing.connected();
        standing.idle();
        standing.told(true);
        assert_eq!(standing.tells_at(), now + SIGN_OF_LIFE);
        standing.delivering();
        standing.advanced();
        assert_eq!(standing.tells_at(), now + PROGRESS);
        standing.held("no rights", "");
        assert_eq!(standing.tells_at(), now);
        standing.told(false);
        assert_eq!(standing.tells_at(), now + PROGRESS, "nobody has heard it");
        standing.told(true);
        assert_eq!(standing.tells_at(), now + SIGN_OF_LIFE);
    }
}
