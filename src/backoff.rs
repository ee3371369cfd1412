//! How long to wait before trying again: exponential with full jitter, shared by whoever connects to something.
//!
//! The ceiling doubles with every attempt, up to a maximum; each delay is drawn evenly from zero to the ceiling,
//! so that many that failed together don't come back together. When to call a connection healthy again is left
//! to the caller.

use std::time::Duration;

/// The delays between attempts at one thing.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// The first delay is at most `initial`, none is longer than `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            ceiling: initial.min(max),
        }
    }

    /// How long to wait before the next attempt; the ceiling of the one after that is doubled.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.max);
        ceiling.mul_f64(rand::random_range(0.0..=1.0))
    }

    /// The most that the next delay can be.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        self.ceiling
    }

    /// Begins again with the first delay, for what was tried has worked.
    pub fn reset(&mut self) {
        self.ceiling = self.initial.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum_and_no_delay_passes_it() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        for expected_ms in [
            100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000,
        ] {
            let expected = Duration::from_millis(expected_ms);
            assert_eq!(backoff.ceiling(), expected);
            assert!(backoff.next_delay() <= expected);
        }
        backoff.reset();
        assert_eq!(backoff.ceiling(), Duration::from_millis(100));
    }

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second);
        let delays: Vec<_> = (0..1_000).map(|_| backoff.next_delay()).collect();
        let short = delays.iter().filter(|delay| **delay < second / 2).count();
        assert!((300..700).contains(&short), "{short} of 1000 in the lower half");
    }

    #[test]
    fn an_initial_delay_above_the_maximum_is_cut_to_it() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(1));
        assert!(backoff.next_delay() <= Duration::from_secs(1));
    }
}
