//! Whether a connection is alive: when to send a ping, and when to give the connection up. Knows no clock of its own.
//!
//! Two silences are told apart. A peer that sends nothing at all, not even the answer to a ping, is gone: TCP alone may take
//! a quarter of an hour to notice. A peer that answers pings but sends no data has forgotten what it was asked for.

use std::time::Duration;

use tokio::time::Instant;

/// How often to look when nothing is to be watched: never, in practice.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// `ping`: how the peer is asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ping {
    /// Time between two pings.
    pub(super) interval: Duration,
    /// How long after a ping some frame must have come.
    pub(super) timeout: Duration,
}

/// What a look at the connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    /// A ping is to be sent.
    PingNow,
    /// No frame of any kind for so long.
    Gone(Duration),
    /// No data message for so long.
    Idle(Duration),
}

/// The silences of one connection.
#[derive(Debug)]
pub(super) struct Liveness {
    ping: Option<Ping>,
    idle_timeout: Option<Duration>,
    last_frame: Instant,
    last_data: Instant,
    next_ping: Instant,
}

impl Liveness {
    /// Of a connection that is established `now`.
    pub(super) fn new(ping: Option<Ping>, idle_timeout: Option<Duration>, now: Instant) -> Self {
        Self {
            ping,
            idle_timeout,
            last_frame: now,
            last_data: now,
            next_ping: now + ping.map_or(NEVER, |ping| ping.interval.min(NEVER)),
        }
    }

    /// Something came; a data message or another frame.
    pub(super) fn heard(&mut self, now: Instant, data: bool) {
        self.last_frame = now;
        if data {
            self.last_data = now;
        }
    }

    /// Nobody listened for this long, because what had come could not be staged: no silence of the peer's.
    pub(super) fn forgive(&mut self, deaf: Duration) {
        self.last_frame += deaf;
        self.last_data += deaf;
    }

    /// Looks; a ping that is due is then counted as sent.
    pub(super) fn look(&mut self, now: Instant) -> Verdict {
        if let Some(ping) = self.ping {
            let silence = now.saturating_duration_since(self.last_frame);
            if silence >= ping.interval.saturating_add(ping.timeout) {
                return Verdict::Gone(silence);
            }
        }
        if let Some(timeout) = self.idle_timeout {
            let silence = now.saturating_duration_since(self.last_data);
            if silence >= timeout {
                return Verdict::Idle(silence);
            }
        }
        match self.ping {
            Some(ping) if now >= self.next_ping => {
                self.next_ping = now + ping.interval.min(NEVER);
                Verdict::PingNow
            }
            _ => Verdict::Alive,
        }
    }

    /// When to look next, if nothing comes before.
    pub(super) fn next_look(&self) -> Instant {
        let gone = self.ping.map_or(NEVER, |ping| {
            ping.interval.saturating_add(ping.timeout).min(NEVER)
        });
        let idle = self.idle_timeout.unwrap_or(NEVER).min(NEVER);
        self.next_ping
            .min(self.last_frame + gone)
            .min(self.last_data + idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PING: Option<Ping> = Some(Ping {
        interval: Duration::from_secs(20),
        timeout: Duration::from_secs(10),
    });

    #[test]
    fn a_peer_that_sends_nothing_is_pinged_and_given_up_after_interval_and_timeout() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PING, None, start);
        assert_eq!(liveness.next_look(), start + 20 * SECOND);
        assert_eq!(liveness.look(start + 19 * SECOND), Verdict::Alive);
        assert_eq!(liveness.look(start + 20 * SECOND), Verdict::PingNow);
        assert_eq!(
            liveness.look(start + 20 * SECOND),
            Verdict::Alive,
            "one ping is enough"
        );
        assert_eq!(liveness.next_look(), start + 30 * SECOND);
        assert_eq!(liveness.look(start + 30 * SECOND), Verdict::Gone(30 * SECOND));
    }

    #[test]
    fn any_frame_keeps_it_but_only_data_keeps_it_from_being_idle() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PING, Some(60 * SECOND), start);
        for second in 1..60 {
            let now = start + second * SECOND;
            liveness.heard(now, false);
            assert!(matches!(liveness.look(now), Verdict::Alive | Verdict::PingNow));
        }
        assert_eq!(liveness.look(start + 60 * SECOND), Verdict::Idle(60 * SECOND));
        liveness.heard(start + 60 * SECOND, true);
        assert!(!matches!(liveness.look(start + 60 * SECOND), Verdict::Idle(_)));
    }

    #[test]
    fn time_in_which_nobody_listened_is_no_silence() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PING, Some(60 * SECOND), start);
        liveness.heard(start + SECOND, true);
        liveness.forgive(600 * SECOND);
        assert_eq!(liveness.look(start + 602 * SECOND), Verdict::PingNow);
        assert_eq!(liveness.next_look(), start + 622 * SECOND);
        assert_eq!(liveness.look(start + 631 * SECOND), Verdict::Gone(30 * SECOND));
    }

    #[test]
    fn without_limits_nothing_is_ever_due() {
        let start = Instant::now();
        let mut liveness = Liveness::new(None, None, start);
        assert_eq!(liveness.look(start + 3_600 * SECOND), Verdict::Alive);
        assert!(liveness.next_look() > start + 3_600 * SECOND);
    }
}
