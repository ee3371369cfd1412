//! The keys of the variety `socket`, read into typed values.

mod connections;
mod headers;
mod talk;

use std::time::Duration;

use tokio_tungstenite::tungstenite::http::HeaderMap;

use super::liveness::{Idle, IdleAction, Ping};
use super::merge::WindowLimits;
use super::pattern::Pattern;
use super::script::{Outgoing, Step};
use crate::backoff::Backoff;
use crate::config::Section;
use crate::config::units::{ByteSize, Span};
use crate::consumer::reach::settings::{read_reconnect, reconnect};
use crate::json_path::Finder;
use crate::stage::envelope::MAX_MESSAGE;

pub(super) use connections::Route;
use connections::{WINDOW, read_merging, read_rotate, read_routes};
pub(super) use headers::LateHeader;
use headers::{Headers, read_headers};
use talk::{read_control, read_ping, read_subscribe};

/// How long no data message may come.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// What `max_message_size` may be at most: a message is held in memory, in one piece, and must fit a stage's record.
const MAX_MESSAGE_BYTES: u64 = 63 << 20;
const _: () = assert!(MAX_MESSAGE_BYTES <= MAX_MESSAGE as u64);
/// How long after the one before it each further connection begins: servers that end connections after a fixed time, and
/// proxies, are not to end all of them at once.
const APART: Duration = Duration::from_secs(5);

/// How to reach a feed, and how to treat it. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(super) struct Settings {
    /// One for each connection; at least one.
    pub(super) routes: Vec<Route>,
    /// After how long the next connection is made before the present one ends.
    pub(super) rotate: Option<Duration>,
    /// Where the values stand that make messages of different connections the same one. `None`: their bytes do.
    pub(super) identity: Option<Finder>,
    /// How far connections may be apart.
    pub(super) window: WindowLimits,
    /// How long after the one before it each further connection begins.
    pub(super) apart: Duration,
    /// Headers of the handshake besides those that the protocol demands.
    pub(super) headers: HeaderMap,
    /// Headers whose values stand in files, which are read at every connect.
    pub(super) late_headers: Vec<LateHeader>,
    /// What to do after every connect, in order.
    pub(super) subscribe: Vec<Step>,
    /// Messages that are no data, at any time.
    pub(super) control: Vec<Pattern>,
    /// `None` for no pings of our own.
    pub(super) ping: Option<Ping>,
    /// `None` for pings of the protocol.
    pub(super) ping_message: Option<PingMessage>,
    /// `None` when any silence is fine.
    pub(super) idle: Option<Idle>,
    /// From the name's lookup to the end of the handshake.
    pub(super) connect_timeout: Duration,
    /// Delays between attempts.
    pub(super) backoff: Backoff,
    pub(super) max_message_bytes: usize,
}

/// A ping that is a message. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(super) struct PingMessage {
    pub(super) send: Outgoing,
    /// The answer. `None` when any frame is one.
    pub(super) expect: Option<Pattern>,
}

impl Settings {
    /// The defaults, for these routes.
    pub(super) fn defaults(routes: Vec<Route>) -> Self {
        Self {
            routes,
            rotate: None,
            identity: None,
            window: WINDOW,
            apart: APART,
            headers: HeaderMap::new(),
            late_headers: Vec::new(),
            subscribe: Vec::new(),
            control: Vec::new(),
            ping: Some(Ping {
                interval: Duration::from_secs(20),
                timeout: Duration::from_secs(10),
            }),
            ping_message: None,
            idle: Some(Idle {
                timeout: IDLE_TIMEOUT,
                action: IdleAction::Reconnect,
            }),
            connect_timeout: Duration::from_secs(30),
            backoff: reconnect(),
            max_message_bytes: 16 << 20,
        }
    }

    /// Whether there is ever more than one connection.
    pub(super) fn merges(&self) -> bool {
        self.routes.len() > 1 || self.rotate.is_some()
    }

    /// Reads the keys. `None` when something in the file is wrong; it is then reported.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let routes = read_routes(section);
        let rotate = read_rotate(section);
        let (identity, window) = read_merging(section, routes.len() != 1 || rotate.is_some());
        let Headers { given, late, .. } = read_headers(section, &routes);
        let subscribe = read_subscribe(section);
        let control = read_control(section);
        let (ping, ping_message) = read_ping(section);
        let idle = read_idle(section);
        let Span(connect_timeout) = section.or("connect_timeout", Span(Duration::from_secs(30)));
        if connect_timeout.is_zero() {
            section.problem("connect_timeout", "must be more than 0s");
        }
        let backoff = read_reconnect(section);
        let ByteSize(max_message_size) = section.or("max_message_size", ByteSize(16 << 20));
        if !(1..=MAX_MESSAGE_BYTES).contains(&max_message_size) {
            section.problem("max_message_size", "must be at least 1 byte and at most 63MiB");
        }
        if !section.is_sound() {
            return None;
        }
        Some(Self {
            rotate,
            identity,
            window,
            headers: given,
            late_headers: late,
            subscribe,
            control,
            ping,
            ping_message,
            idle,
            connect_timeout,
            backoff,
            max_message_bytes: usize::try_from(max_message_size).ok()?,
            ..Self::defaults(routes)
        })
    }
}

/// `idle`, or `idle_timeout` in short.
fn read_idle(section: &mut Section<'_>) -> Option<Idle> {
    let short: Option<Span> = section.optional("idle_timeout");
    let mut timeout = short.unwrap_or(Span(IDLE_TIMEOUT));
    let mut action = IdleAction::default();
    if let Some(mut idle) = section.section("idle") {
        timeout = idle.or("timeout", timeout);
        action = idle.or("action", action);
        if short.is_some() {
            section.problem("idle_timeout", "is given twice: here and in idle.timeout");
        }
    }
    (!timeout.0.is_zero()).then_some(Idle {
        timeout: timeout.0,
        action,
    })
}
