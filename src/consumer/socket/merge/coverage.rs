//! Since when, and up to when, somebody was there to receive: what has to be recorded as a stretch without a connection.
//!
//! A connection covers the time from its subscription to the last that it received: what was sent on it before that has come.
//! Whether it is still alive after that is only known when the next frame comes, or when it is lost. So besides the
//! connections that are live there is a *frontier*, the time up to which it is known that one of them received. It moves with what
//! is received by a connection that was subscribed before it. When a connection is lost on which the frontier relied, and
//! another one was subscribed only after the frontier, the time between was covered by none, though for
//! a while it looked as if: a dead connection looks alive until its silence is noticed. That stretch is recorded late,
//! behind messages that came after it.
//!
//! With one connection this is the stretch from the last that it received until the next one is subscribed.

use super::super::lane::{LANES, Lane};
use crate::consumer::gap::Gap;
use crate::record::Timestamp;
use crate::stage::{LastSeen, Outage};

/// Most ended connections that are remembered while it is not known what they connect to; only a connection that is dead and whose
/// silence is never noticed can bring it there. Then what only that one can have covered is recorded.
const MAX_ISLANDS: usize = 64;
/// Why a stretch is recorded late.
const NOTICED_LATE: &str = "noticed after another connection was live again";

/// What is known of the time that the connections of a consumer cover. The default: no connection was there before.
#[derive(Default)]
pub(super) struct Coverage {
    live: [Option<Covered>; LANES],
    /// What connections covered that are no more and were subscribed only behind the frontier.
    islands: Vec<Covered>,
    /// Up to where it is known that a connection received. `None` before the first subscription: nobody was promised messages.
    frontier: Option<Timestamp>,
    /// The stretch that is not over.
    gap: Option<Gap>,
}

/// What one live connection covers.
#[derive(Clone, Copy)]
struct Covered {
    since: Timestamp,
    until: Timestamp,
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub(in super::super) struct Ended {
    /// Why, in words.
    pub(in super::super) cause: String,
    /// When something came over it for the last time.
    pub(in super::super) last_received: Timestamp,
    /// Whether data has come over it.
    pub(in super::super) had_data: bool,
    /// Whether that is how the engine stops: then nothing is missed from here on that should have been received.
    pub(in super::super) is_stop: bool,
}

impl Coverage {
    /// At the start of a process, when an earlier one heard the source last at that time.
    pub(super) fn at_start(seen: Option<LastSeen>) -> Self {
        Self {
            gap: seen.map(Gap::since_earlier_run),
            ..Self::default()
        }
    }

    /// Whether another connection than this one is live.
    pub(super) fn has_other_than(&self, lane: Lane) -> bool {
        let mut live = self.live.iter().enumerate();
        live.any(|(index, live)| live.is_some() && index != lane.index())
    }

    /// A connection is subscribed. Returns the stretch that is over with it.
    pub(super) fn is_live(&mut self, lane: Lane, at: Timestamp) -> Option<Outage> {
        self.live[lane.index()] = Some(Covered { since: at, until: at });
        match self.gap.take() {
            Some(gap) => {
                self.frontier = Some(at);
                Some(gap.outage(at))
            }
            None => {
                self.frontier.get_or_insert(at);
                None
            }
        }
    }

    /// Something came over a connection.
    pub(super) fn heard(&mut self, lane: Lane, at: Timestamp) {
        if let Some(covered) = &mut self.live[lane.index()] {
            covered.until = covered.until.max(at);
            self.move_frontier();
        }
    }

    /// Up to when a live connection has received, as far as it was told.
    pub(super) fn heard_until(&self, lane: Lane) -> Option<Timestamp> {
        self.live[lane.index()].map(|covered| covered.until)
    }

    /// Data comes: returns the part of a stretch that stands before it. There is one when no connection is subscribed yet.
    pub(super) fn before_data(&mut self) -> Option<Outage> {
        self.gap.as_mut().and_then(Gap::split)
    }

    /// A connection is no more. Returns the stretches that are known only now, oldest first.
    pub(super) fn ended(&mut self, lane: Lane, end: &Ended) -> Vec<Outage> {
        self.heard(lane, end.last_received);
        let covered = self.live[lane.index()].take();
        if let Some(gap) = &mut self.gap {
            if !end.is_stop {
                gap.goes_on(end.cause.clone());
            }
            return Vec::new();
        }
        match (self.frontier, covered) {
            (Some(frontier), Some(covered)) => {
                if covered.since > frontier {
                    self.islands.push(covered);
                }
                self.without_the_lost(end)
            }
            // The time before the first messages is no stretch without them.
            (None, _) if end.had_data && !end.is_stop => {
                self.gap = Some(Gap::new(end.last_received, end.cause.clone()));
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// The engine stops. Returns the stretch that is not over.
    pub(super) fn stopped(self) -> Option<Outage> {
        self.gap.map(Gap::until_stop)
    }

    /// What nobody covered, as it turns out now that a connection is lost.
    fn without_the_lost(&mut self, end: &Ended) -> Vec<Outage> {
        let mut outages = Vec::new();
        while let Some(frontier) = self.frontier {
            let is_relied_on = self.live.iter().flatten().any(|live| live.since <= frontier);
            if is_relied_on && self.islands.len() <= MAX_ISLANDS {
                break;
            }
            let behind = self.behind_frontier(frontier);
            let Some(next) = behind else {
                // Nobody is left.
                if !is_relied_on && !end.is_stop {
                    self.gap = Some(Gap::new(frontier, end.cause.clone()));
                }
                break;
            };
            let gap = Gap::new(frontier, format!("{}; {NOTICED_LATE}", end.cause));
            outages.push(gap.outage(next));
            self.frontier = Some(next);
            self.move_frontier();
        }
        outages
    }

    /// When the next connection behind the frontier was subscribed.
    fn behind_frontier(&self, frontier: Timestamp) -> Option<Timestamp> {
        let behind = self.all_covered().map(|covered| covered.since);
        behind.filter(|since| *since > frontier).min()
    }

    /// Moves the frontier to where connections have received that were subscribed before it.
    fn move_frontier(&mut self) {
        let Some(mut frontier) = self.frontier else {
            return;
        };
        loop {
            let relied_on = self.all_covered().filter(|covered| covered.since <= frontier);
            match relied_on.map(|covered| covered.until).max() {
                Some(until) if until > frontier => frontier = until,
                _ => break,
            }
        }
        self.frontier = Some(frontier);
        self.islands.retain(|island| island.until > frontier);
    }

    fn all_covered(&self) -> impl Iterator<Item = &Covered> {
        self.live.iter().flatten().chain(&self.islands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn lost(last_received: i64) -> Ended {
        Ended {
            cause: "cut".to_owned(),
            last_received: at(last_received),
            had_data: true,
            is_stop: false,
        }
    }

    fn stretches(outages: impl IntoIterator<Item = Outage>) -> Vec<(i64, i64)> {
        let outages = outages.into_iter();
        outages
            .map(|outage| (outage.from.micros(), outage.to.micros()))
            .collect()
    }

    const A: Lane = Lane::first_of(0);
    const B: Lane = Lane::first_of(1);

    #[test]
    fn with_one_connection_a_stretch_goes_from_the_last_frame_to_the_next_subscription() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.is_live(A, at(10)), None);
        coverage.heard(A, at(20));
        assert!(coverage.ended(A, &lost(25)).is_empty());
        let split = coverage.before_data().unwrap();
        assert_eq!((split.from, split.cause.as_str()), (at(25), "cut"));
        assert_eq!(coverage.before_data(), None, "once per connection");
        let rest = coverage.is_live(A, Timestamp::now()).unwrap();
        assert_eq!(rest.from, split.to);
        assert_eq!(coverage.before_data(), None);
    }

    #[test]
    fn nothing_is_recorded_while_one_of_two_is_live() {
        let mut coverage = Coverage::default();
        coverage.is_live(A, at(0));
        for round in 0..10 {
            let begun = round * 100;
            assert_eq!(coverage.is_live(B, at(begun + 10)), None);
            coverage.heard(A, at(begun + 20));
            assert!(coverage.ended(A, &lost(begun + 20)).is_empty());
            assert_eq!(coverage.is_live(A, at(begun + 50)), None);
            coverage.heard(B, at(begun + 60));
            assert!(coverage.ended(B, &lost(begun + 60)).is_empty());
        }
        assert_eq!(coverage.stopped(), None);
    }

    #[test]
    fn the_stretch_of_two_begins_when_the_last_one_received_for_the_last_time() {
        let mut coverage = Coverage::default();
        coverage.is_live(A, at(0));
        coverage.is_live(B, at(1));
        coverage.heard(B, at(30));
        assert!(coverage.ended(B, &lost(30)).is_empty());
        // Half open since 5: its loss is noticed last.
        assert!(coverage.ended(A, &lost(5)).is_empty());
        assert_eq!(stretches(coverage.is_live(B, at(70))), [(30, 70)]);
    }

    #[test]
    fn each_stretch_is_recorded_that_only_a_dead_connection_could_have_covered() {
        for (heard, expected) in [(3, vec![(3, 11), (19, 21), (29, 31)]), (25, vec![(29, 31)])] {
            let mut coverage = Coverage::default();
            coverage.is_live(A, at(0));
            for begun in [11, 21, 31] {
                assert_eq!(coverage.is_live(B, at(begun)), None);
                coverage.heard(B, at(begun + 8));
                if begun < 31 {
                    assert!(coverage.ended(B, &lost(begun + 8)).is_empty());
                }
            }
            assert_eq!(stretches(coverage.ended(A, &lost(heard))), expected);
            assert!(coverage.ended(B, &lost(50)).is_empty());
            assert_eq!(stretches(coverage.is_live(B, at(60))), [(50, 60)]);
        }
    }

    #[test]
    fn what_a_dead_connection_leaves_open_is_bounded() {
        let mut coverage = Coverage::default();
        coverage.is_live(A, at(0));
        let mut recorded = Vec::new();
        for round in 1..=1_000 {
            coverage.is_live(B, at(round * 10));
            recorded.extend(coverage.ended(B, &lost(round * 10 + 5)));
            assert!(coverage.islands.len() <= MAX_ISLANDS);
        }
        recorded.extend(coverage.ended(A, &lost(0)));
        let expected = (0..1_000).map(|round| (if round == 0 { 0 } else { round * 10 + 5 }, round * 10 + 10));
        assert!(stretches(recorded).into_iter().eq(expected));
    }

    #[test]
    fn what_a_dead_connection_seemed_to_cover_is_recorded_when_its_death_is_noticed() {
        let mut coverage = Coverage::default();
        coverage.is_live(A, at(0));
        coverage.is_live(B, at(1));
        coverage.heard(A, at(10));
        coverage.heard(B, at(20));
        // A is dead since 10, and nobody knows yet.
        assert!(coverage.ended(B, &lost(20)).is_empty());
        assert_eq!(coverage.is_live(B, at(25)), None);
        coverage.heard(B, at(28));
        let late = coverage.ended(A, &lost(10));
        assert!(late[0].cause.starts_with("cut; noticed"), "{late:?}");
        assert_eq!(stretches(late), [(20, 25)]);
        // From there on B is what counts.
        assert!(coverage.ended(B, &lost(40)).is_empty());
        assert_eq!(stretches(coverage.is_live(A, at(50))), [(40, 50)]);
    }

    #[test]
    fn what_looked_dead_and_was_not_leaves_no_record() {
        let mut coverage = Coverage::default();
        coverage.is_live(A, at(0));
        coverage.is_live(B, at(1));
        coverage.heard(B, at(20));
        coverage.ended(B, &lost(20));
        coverage.is_live(B, at(25));
        // Only pongs, of which nobody is told before the end.
        assert!(coverage.ended(A, &lost(26)).is_empty());
        assert_eq!(coverage.stopped(), None);
    }

    #[test]
    fn an_orderly_stop_is_no_stretch_and_one_without_a_connection_is() {
        let stop = |last_received| Ended {
            is_stop: true,
            ..lost(last_received)
        };
        let mut coverage = Coverage::default();
        coverage.is_live(A, at(0));
        assert!(coverage.ended(A, &stop(5)).is_empty());
        assert_eq!(coverage.stopped(), None);

        let mut coverage = Coverage::default();
        coverage.is_live(A, at(0));
        coverage.ended(A, &lost(5));
        coverage.ended(B, &stop(0));
        let outage = coverage.stopped().unwrap();
        assert_eq!(
            (outage.from, outage.cause.as_str()),
            (at(5), "cut; then: not connected again before the engine stopped")
        );
    }

    #[test]
    fn before_the_first_subscription_only_data_begins_a_promise() {
        let mut coverage = Coverage::default();
        let silent = Ended {
            had_data: false,
            ..lost(5)
        };
        assert!(coverage.ended(A, &silent).is_empty());
        assert_eq!(coverage.before_data(), None);
        assert!(coverage.ended(A, &lost(7)).is_empty());
        assert_eq!(stretches(coverage.is_live(A, at(9))), [(7, 9)]);
    }
}
