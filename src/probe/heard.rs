//! What was heard of a feed: counted without limit, kept within one.

use std::time::{Duration, Instant};

use super::secrets::Secrets;
use crate::consumer::socket::{Role, Seen};
use crate::record::Timestamp;

/// Most bytes of messages that are kept, to be looked at when the connection is closed. Those that come later are counted.
pub(super) const MAX_KEPT_BYTES: usize = 32 << 20;
/// Most messages that are kept.
pub(super) const MAX_KEPT: usize = 200_000;
/// Most messages whose sizes are kept.
const MAX_SIZES: usize = 1 << 20;

/// A message that was kept, without secrets.
pub(super) struct Kept {
    pub(super) at: Timestamp,
    pub(super) role: Role,
    pub(super) payload: Box<[u8]>,
}

/// What was heard.
pub(super) struct Heard {
    begun: Instant,
    secrets: Secrets,
    pub(super) data: u64,
    pub(super) data_bytes: u64,
    /// Messages that were no data.
    pub(super) others: u64,
    pub(super) kept: Vec<Kept>,
    kept_bytes: usize,
    /// Messages beyond what is kept.
    pub(super) unkept: u64,
    sizes: Vec<u32>,
    last_data: Option<Instant>,
    longest_silence: Duration,
    pub(super) subscribed_after: Option<Duration>,
    /// When the first answer came that was waited for.
    pub(super) answered_after: Option<Duration>,
    pub(super) pings: u64,
    ping_sent: Option<Instant>,
    pub(super) pings_sent: u64,
    /// How long the first answer to a ping took.
    pub(super) pong_after: Option<Duration>,
}

/// How large messages were.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Sizes {
    pub(super) smallest: u32,
    pub(super) median: u32,
    /// Of a hundred messages, ninety-nine are no larger.
    pub(super) p99: u32,
    pub(super) largest: u32,
}

impl Heard {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self {
            begun: Instant::now(),
            secrets,
            data: 0,
            data_bytes: 0,
            others: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            unkept: 0,
            sizes: Vec::new(),
            last_data: None,
            longest_silence: Duration::ZERO,
            subscribed_after: None,
            answered_after: None,
            pings: 0,
            ping_sent: None,
            pings_sent: 0,
            pong_after: None,
        }
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Takes in an event.
    pub(super) fn see(&mut self, at: Timestamp, seen: Seen<'_>) {
        match seen {
            Seen::Message(role, payload) => self.message(at, role, payload),
            Seen::Ping => self.pings += 1,
            Seen::PingSent => {
                self.pings_sent += 1;
                self.ping_sent = Some(Instant::now());
            }
            Seen::Pong => {
                if let Some(sent) = self.ping_sent.take() {
                    self.pong_after.get_or_insert(sent.elapsed());
                }
            }
            Seen::Subscribed => {
                self.subscribed_after = Some(self.begun.elapsed());
                self.last_data.get_or_insert_with(Instant::now);
            }
        }
    }

    fn message(&mut self, at: Timestamp, role: Role, payload: &[u8]) {
        if role == Role::Data {
            self.data += 1;
            self.data_bytes += payload.len() as u64;
            if self.sizes.len() < MAX_SIZES {
                self.sizes.push(u32::try_from(payload.len()).unwrap_or(u32::MAX));
            }
            self.silence_ends();
        } else {
            self.others += 1;
        }
        if role == Role::Answer && self.answered_after.is_none() {
            self.answered_after = Some(self.begun.elapsed());
        }
        if self.kept.len() >= MAX_KEPT || self.kept_bytes + payload.len() > MAX_KEPT_BYTES {
            self.unkept += 1;
            return;
        }
        self.kept_bytes += payload.len();
        let payload = match self.secrets.conceal_payload(payload) {
            Some(concealed) => concealed.into(),
            None => payload.into(),
        };
        self.kept.push(Kept { at, role, payload });
    }

    fn silence_ends(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last_data.replace(now) {
            self.longest_silence = self.longest_silence.max(now - last);
        }
    }

    /// The longest time without data, from when everything was subscribed until `end`.
    pub(super) fn longest_silence(&self, end: Instant) -> Duration {
        let silence = |last| end.saturating_duration_since(last);
        let last = self.last_data.map_or(Duration::ZERO, silence);
        self.longest_silence.max(last)
    }

    /// `None` when there was no data.
    pub(super) fn sizes(&self) -> Option<Sizes> {
        let mut sizes = self.sizes.clone();
        sizes.sort_unstable();
        let at = |hundredths: usize| {
            sizes
                .get((sizes.len() * hundredths / 100).min(sizes.len().checked_sub(1)?))
                .copied()
        };
        Some(Sizes {
            smallest: at(0)?,
            median: at(50)?,
            p99: at(99)?,
            largest: at(100)?,
        })
    }
}
