//! The keys of the variety `socket`, read into typed values.

mod headers;
mod talk;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_tungstenite::tungstenite::http::HeaderMap;

use super::endpoint::Endpoint;
use super::liveness::{Idle, IdleAction, Ping};
use super::pattern::Pattern;
use super::proxy::Proxy;
use super::script::{Outgoing, Step};
use crate::backoff::Backoff;
use crate::config::Section;
use crate::config::units::{ByteSize, Span};
use crate::consumer::reach::settings::{read_endpoint, read_proxy, read_reconnect, read_tls, reconnect};
use crate::stage::envelope::MAX_MESSAGE;

pub(super) use headers::LateHeader;
use headers::{Headers, read_headers};
use talk::{read_control, read_ping, read_subscribe};

/// How long no data message may come.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// What `max_message_size` may be at most: a message is held in memory, in one piece, and must fit a stage's record.
const MAX_MESSAGE_BYTES: u64 = 63 << 20;
const _: () = assert!(MAX_MESSAGE_BYTES <= MAX_MESSAGE as u64);

/// How to reach a feed, and how to treat it. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) endpoint: Endpoint,
    /// Headers of the handshake besides those that the protocol demands.
    pub(super) headers: HeaderMap,
    /// Headers whose values stand in files, which are read at every connect.
    pub(super) late_headers: Vec<LateHeader>,
    /// `None` for a straight connection.
    pub(super) proxy: Option<Proxy>,
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
    /// For wss.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// A ping that is a message. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(super) struct PingMessage {
    pub(super) send: Outgoing,
    /// The answer. `None` when any frame is one.
    pub(super) expect: Option<Pattern>,
}

impl Settings {
    /// The defaults, for an endpoint without TLS.
    pub(super) fn defaults(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            headers: HeaderMap::new(),
            late_headers: Vec::new(),
            proxy: None,
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
            tls: None,
        }
    }

    /// Reads the keys. `None` when something in the file is wrong; it is then reported.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let endpoint = read_endpoint(section, Endpoint::parse);
        let Headers { given, late, .. } = read_headers(section, endpoint.as_ref());
        let proxy = read_proxy(section, endpoint.as_ref());
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
        let tls = read_tls(section, endpoint.as_ref());
        let endpoint = endpoint.filter(|_| section.is_sound())?;
        Some(Self {
            headers: given,
            late_headers: late,
            proxy,
            subscribe,
            control,
            ping,
            ping_message,
            idle,
            connect_timeout,
            backoff,
            max_message_bytes: usize::try_from(max_message_size).ok()?,
            tls,
            ..Self::defaults(endpoint)
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
