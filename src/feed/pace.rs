//! `--rate`: how many messages a connection may send by now. Knows no clock of its own, so that it can be tested without one.

use std::time::Duration;

use tokio::time::Instant;

/// What a stalled connection may catch up at once, as a time at the full rate. More would turn a pause into a flood.
const MAX_CATCH_UP: Duration = Duration::from_millis(100);

/// How far behind a connection of a broadcast may fall before it is closed, as a time at the full rate.
const MAX_LAG: Duration = Duration::from_secs(5);

/// Shortest wait between two sends: at high rates several messages go out together, because a timer per message
/// would cost more than the message.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);

/// Microseconds in a second.
const MICROS: u128 = 1_000_000;

/// The pace of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u64,
    since: Instant,
    /// Messages sent, or forfeited after a stall, since then.
    used: u64,
    /// Whether a stalled connection forfeits what it could not take.
    forfeits: bool,
}

impl Pace {
    /// `per_second` messages a second from `now` on; 0 is taken as 1.
    pub(super) fn new(per_second: u64, now: Instant) -> Self {
        Self {
            per_second: per_second.max(1),
            since: now,
            used: 0,
            forfeits: true,
        }
    }

    /// The pace of a stream that began at `since`, for a connection that has come when `used` messages had gone out. It forfeits
    /// nothing: its messages are numbered.
    pub(super) fn live(per_second: u64, since: Instant, used: u64) -> Self {
        Self {
            used,
            forfeits: false,
            ..Self::new(per_second, since)
        }
    }

    /// How many messages are out at `now`.
    pub(super) fn due(&self, now: Instant) -> u64 {
        self.messages_in(now.saturating_duration_since(self.since))
    }

    /// Whether a connection is further behind than a broadcast waits for.
    pub(super) fn is_too_late(&self, now: Instant) -> bool {
        !self.forfeits && self.due(now).saturating_sub(self.used) > self.messages_in(MAX_LAG).max(1)
    }

    /// How many messages may be sent now.
    pub(super) fn allowance(&mut self, now: Instant) -> u64 {
        let due = self.due(now);
        if self.forfeits {
            let catch_up = self.messages_in(MAX_CATCH_UP).max(1);
            self.used = self.used.max(due.saturating_sub(catch_up));
        }
        due - self.used.min(due)
    }

    /// Counts messages as sent.
    pub(super) fn spend(&mut self, messages: u64) {
        self.used = self.used.saturating_add(messages);
    }

    /// When to look again.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let micros = (u128::from(self.used) + 1) * MICROS / u128::from(self.per_second) + 1;
        let next = self.since + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        next.max(now + SHORTEST_WAIT)
    }

    fn messages_in(&self, time: Duration) -> u64 {
        let messages = time.as_micros() * u128::from(self.per_second) / MICROS;
        u64::try_from(messages).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_allowed_than_the_rate_gives_in_the_time_that_has_passed() {
        for rate in [1, 7, 1_000, 1_000_000] {
            let start = Instant::now();
            let mut pace = Pace::new(rate, start);
            let mut now = start;
            let mut sent = 0;
            while now < start + Duration::from_secs(3) {
                let allowed = pace.allowance(now);
                pace.spend(allowed);
                sent += allowed;
                assert!(u128::from(sent) <= (now - start).as_micros() * u128::from(rate) / MICROS);
                now = pace.next(now);
            }
            let left = u128::from(rate * 3) - u128::from(sent);
            assert!(left <= u128::from(rate / 100 + 1), "{left} too few at {rate}/s");
        }
    }

    #[test]
    fn a_broadcast_forfeits_nothing_and_waits_for_nobody_longer_than_it_says() {
        let start = Instant::now();
        let mut pace = Pace::live(1_000, start, 40);
        let now = start + Duration::from_secs(1);
        assert_eq!(pace.allowance(now), 960);
        assert!(!pace.is_too_late(now));
        assert!(pace.is_too_late(start + MAX_LAG + Duration::from_millis(41)));
        pace.spend(960);
        assert_eq!(pace.allowance(now), 0);
    }

    #[test]
    fn a_stalled_connection_does_not_catch_up_in_one_flood() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000, start);
        let after_a_minute = start + Duration::from_secs(60);
        assert_eq!(pace.allowance(after_a_minute), 100);
        pace.spend(100);
        assert_eq!(pace.allowance(after_a_minute), 0);
        assert_eq!(pace.allowance(after_a_minute + Duration::from_millis(10)), 10);
    }
}
