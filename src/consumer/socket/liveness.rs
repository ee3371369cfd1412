//! Whether a connection is alive: when to send a ping, and when to give the connection up. Knows no clock of its own.
//!
//! Two silences are told apart. A peer that sends nothing at all, not even the answer to a ping, is gone: TCP alone may take
//! a quarter of an hour to notice. A peer that answers pings but sends no data has forgotten what it was asked for. Data is
//! expected from the moment on which everything is subscribed.

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

/// `idle`: what silence is too long, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Idle {
    /// Time without a data message.
    pub(super) timeout: Duration,
    pub(super) action: IdleAction,
}

/// What to do about a peer that sends no data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum IdleAction {
    /// Leave it and connect again.
    #[default]
    Reconnect,
    /// Say so, once, and go on.
    Warn,
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heard {
    /// A frame of the protocol itself, which a proxy on the way may have made.
    Frame,
    /// A message that is no data.
    Control,
    /// A data message.
    Data,
}

/// What a look at the connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    /// A ping is to be sent.
    PingNow,
    /// No frame of any kind for so long.
    Gone(Duration),
    /// No data message for so long; told once per silence.
    Idle(Duration, IdleAction),
}

/// The silences of one connection.
#[derive(Debug)]
pub(super) struct Liveness {
    ping: Option<Ping>,
    /// The least that shows that the peer is there.
    sign_of_life: Heard,
    idle: Option<Idle>,
    last_sign: Instant,
    /// `None` while no data is expected: before everything is subscribed, and in a silence that is told.
    last_data: Option<Instant>,
    is_silent: bool,
    next_ping: Instant,
}

impl Liveness {
    /// Of a connection that is established `now`.
    pub(super) fn new(ping: Option<Ping>, sign_of_life: Heard, idle: Option<Idle>, now: Instant) -> Self {
        Self {
            ping,
            sign_of_life,
            idle,
            last_sign: now,
            last_data: None,
            is_silent: false,
            next_ping: now + ping.map_or(NEVER, |ping| ping.interval.min(NEVER)),
        }
    }

    /// Everything is subscribed: from now on data is expected.
    pub(super) fn expect_data(&mut self, now: Instant) {
        self.last_data = Some(now);
    }

    /// Something came. Whether it ends a silence that was told.
    pub(super) fn heard(&mut self, now: Instant, what: Heard) -> bool {
        if what >= self.sign_of_life {
            self.last_sign = now;
        }
        if what < Heard::Data {
            return false;
        }
        let was_silent = std::mem::take(&mut self.is_silent);
        if was_silent || self.last_data.is_some() {
            self.last_data = Some(now);
        }
        was_silent
    }

    /// Nobody listened for this long, because what had come could not be staged: no silence of the peer's.
    pub(super) fn forgive(&mut self, deaf: Duration) {
        self.last_sign += deaf;
        self.last_data = self.last_data.map(|last| last + deaf);
    }

    /// Looks; a ping that is due is then counted as sent.
    pub(super) fn look(&mut self, now: Instant) -> Verdict {
        if let Some(ping) = self.ping {
            let silence = now.saturating_duration_since(self.last_sign);
            if silence >= ping.interval.saturating_add(ping.timeout) {
                return Verdict::Gone(silence);
            }
        }
        if let (Some(idle), Some(last_data)) = (self.idle, self.last_data) {
            let silence = now.saturating_duration_since(last_data);
            if silence >= idle.timeout {
                self.last_data = None;
                self.is_silent = true;
                return Verdict::Idle(silence, idle.action);
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
        let look = self.next_ping.min(self.last_sign + gone);
        match (self.idle, self.last_data) {
            (Some(idle), Some(last_data)) => look.min(last_data + idle.timeout.min(NEVER)),
            _ => look,
        }
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
        let mut liveness = Liveness::new(PING, Heard::Frame, None, start);
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
        let mut liveness = Liveness::new(PING, Heard::Frame, idle(IdleAction::Reconnect), start);
        liveness.expect_data(start);
        for second in 1..60 {
            let now = start + second * SECOND;
            liveness.heard(now, Heard::Control);
            assert!(matches!(liveness.look(now), Verdict::Alive | Verdict::PingNow));
        }
        assert_eq!(
            liveness.look(start + 60 * SECOND),
            Verdict::Idle(60 * SECOND, IdleAction::Reconnect)
        );
        liveness.heard(start + 60 * SECOND, Heard::Data);
        assert!(!matches!(liveness.look(start + 60 * SECOND), Verdict::Idle(..)));
    }

    #[test]
    fn time_in_which_nobody_listened_is_no_silence() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PING, Heard::Frame, idle(IdleAction::Reconnect), start);
        liveness.expect_data(start);
        liveness.heard(start + SECOND, Heard::Data);
        liveness.forgive(600 * SECOND);
        assert_eq!(liveness.look(start + 602 * SECOND), Verdict::PingNow);
        assert_eq!(liveness.next_look(), start + 622 * SECOND);
        assert_eq!(liveness.look(start + 631 * SECOND), Verdict::Gone(30 * SECOND));
    }

    fn idle(action: IdleAction) -> Option<Idle> {
        Some(Idle {
            timeout: 60 * SECOND,
            action,
        })
    }

    #[test]
    fn a_silence_is_told_once_and_data_ends_it() {
        let start = Instant::now();
        let mut liveness = Liveness::new(None, Heard::Frame, idle(IdleAction::Warn), start);
        assert_eq!(
            liveness.look(start + 600 * SECOND),
            Verdict::Alive,
            "not subscribed yet"
        );
        liveness.expect_data(start);
        let told = Verdict::Idle(60 * SECOND, IdleAction::Warn);
        assert_eq!(liveness.look(start + 60 * SECOND), told);
        assert_eq!(liveness.look(start + 600 * SECOND), Verdict::Alive);
        assert!(!liveness.heard(start + 601 * SECOND, Heard::Control));
        assert!(liveness.heard(start + 602 * SECOND, Heard::Data));
        assert!(!liveness.heard(start + 602 * SECOND, Heard::Data));
        assert_eq!(liveness.look(start + 662 * SECOND), told, "the next silence");
    }

    #[test]
    fn where_the_peer_must_answer_by_message_frames_of_the_protocol_are_no_sign_of_life() {
        let start = Instant::now();
        let mut liveness = Liveness::new(PING, Heard::Control, None, start);
        liveness.heard(start + 10 * SECOND, Heard::Control);
        liveness.heard(start + 39 * SECOND, Heard::Frame);
        assert_eq!(liveness.look(start + 40 * SECOND), Verdict::Gone(30 * SECOND));
    }

    #[test]
    fn without_limits_nothing_is_ever_due() {
        let start = Instant::now();
        let mut liveness = Liveness::new(None, Heard::Frame, None, start);
        assert_eq!(liveness.look(start + 3_600 * SECOND), Verdict::Alive);
        assert!(liveness.next_look() > start + 3_600 * SECOND);
    }
}
