//! The keys of the variety `socket`, read into typed values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};

use super::endpoint::Endpoint;
use super::liveness::Ping;
use super::tls::{TlsFiles, client_config};
use crate::backoff::Backoff;
use crate::config::Section;
use crate::config::units::{ByteSize, Span};
use crate::stage::envelope::MAX_MESSAGE;

/// Most headers of a handshake.
const MAX_HEADERS: usize = 64;
/// Most steps of `subscribe`.
const MAX_STEPS: usize = 1_000;
/// Longest message of a step; also what a connection's write buffer must hold.
pub(super) const MAX_STEP_BYTES: usize = 1 << 20;
/// What `max_message_size` may be at most: a message is held in memory, in one piece, and must fit a stage's record.
const MAX_MESSAGE_BYTES: u64 = 63 << 20;
const _: () = assert!(MAX_MESSAGE_BYTES <= MAX_MESSAGE as u64);

/// How to reach a feed, and how to treat it. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) endpoint: Endpoint,
    /// Headers of the handshake besides those that the protocol demands.
    pub(super) headers: HeaderMap,
    /// Text messages to send after every connect, in order.
    pub(super) subscribe: Vec<Utf8Bytes>,
    /// `None` for no pings of our own.
    pub(super) ping: Option<Ping>,
    /// `None` for never.
    pub(super) idle_timeout: Option<Duration>,
    /// From the name's lookup to the last message of `subscribe`.
    pub(super) connect_timeout: Duration,
    /// Delays between attempts.
    pub(super) backoff: Backoff,
    pub(super) max_message_bytes: usize,
    /// For wss.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Settings {
    /// The defaults, for an endpoint without TLS.
    pub(super) fn defaults(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            headers: HeaderMap::new(),
            subscribe: Vec::new(),
            ping: Some(Ping {
                interval: Duration::from_secs(20),
                timeout: Duration::from_secs(10),
            }),
            idle_timeout: Some(Duration::from_secs(60)),
            connect_timeout: Duration::from_secs(30),
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(60)),
            max_message_bytes: 16 << 20,
            tls: None,
        }
    }

    /// Reads the keys. `None` when something in the file is wrong; it is then reported.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let endpoint = read_endpoint(section);
        let headers = read_headers(section, endpoint.as_ref());
        let subscribe = read_subscribe(section);
        let ping = read_ping(section);
        let Span(idle_timeout) = section.or("idle_timeout", Span(Duration::from_secs(60)));
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
            headers,
            subscribe,
            ping,
            idle_timeout: Some(idle_timeout).filter(|timeout| !timeout.is_zero()),
            connect_timeout,
            backoff,
            max_message_bytes: usize::try_from(max_message_size).ok()?,
            tls,
            ..Self::defaults(endpoint)
        })
    }
}

fn read_endpoint(section: &mut Section<'_>) -> Option<Endpoint> {
    let uri: String = section.required("uri")?;
    match Endpoint::parse(&uri) {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            section.problem("uri", &error.to_string());
            None
        }
    }
}

/// `headers` and `subprotocols`. No message quotes a value: values are often secret.
fn read_headers(section: &mut Section<'_>, endpoint: Option<&Endpoint>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(authorization) = endpoint.and_then(Endpoint::authorization) {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    let given: BTreeMap<String, String> = section.or("headers", BTreeMap::new());
    if given.len() > MAX_HEADERS {
        section.problem("headers", &format!("has more than {MAX_HEADERS} entries"));
        return headers;
    }
    let of_the_protocol = [
        CONNECTION,
        UPGRADE,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION,
        SEC_WEBSOCKET_EXTENSIONS,
    ];
    for (name, value) in given {
        let problem = match (HeaderName::try_from(&name), header_value(&value)) {
            (Err(_), _) => format!("{name:?} can't be the name of a header"),
            (_, None) => format!("the value of {name} has characters that a header can't hold"),
            (Ok(name), _) if of_the_protocol.contains(&name) => {
                format!("{name} is set by the WebSocket protocol itself; leave it out")
            }
            (Ok(SEC_WEBSOCKET_PROTOCOL), _) => {
                format!("{name} is set from `subprotocols`; name them there")
            }
            (Ok(name), Some(_)) if headers.contains_key(&name) => {
                format!("{name} is given twice, here and by the user in `uri`, or in two spellings")
            }
            (Ok(name), Some(value)) => {
                headers.insert(name, value);
                continue;
            }
        };
        section.problem("headers", &problem);
    }
    let subprotocols: Vec<String> = section.or("subprotocols", Vec::new());
    if !subprotocols.is_empty() {
        let is_token = |name: &String| HeaderName::try_from(name).is_ok();
        match HeaderValue::try_from(subprotocols.join(", ")) {
            Ok(value) if subprotocols.iter().all(is_token) => {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
            }
            _ => section.problem(
                "subprotocols",
                "names must have only letters, digits and signs like - . _",
            ),
        }
    }
    headers
}

/// The value of a header, marked as not to be shown. `None` when it has other characters than printable ASCII.
fn header_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.to_str().ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn read_subscribe(section: &mut Section<'_>) -> Vec<Utf8Bytes> {
    let steps = section.sequence("subscribe").unwrap_or_default();
    if steps.len() > MAX_STEPS {
        section.problem("subscribe", &format!("has more than {MAX_STEPS} steps"));
    }
    let mut messages = Vec::with_capacity(steps.len());
    for mut step in steps {
        let text = match step.required::<serde_yaml::Value>("send") {
            None => continue,
            Some(serde_yaml::Value::String(text)) => Ok(text),
            Some(value) => serde_json::to_string(&value),
        };
        match text {
            Ok(text) if text.len() <= MAX_STEP_BYTES => messages.push(text.into()),
            Ok(_) => step.problem("send", &format!("is longer than {MAX_STEP_BYTES} bytes")),
            Err(error) => step.problem("send", &format!("can't be written as JSON: {error}")),
        }
    }
    messages
}

fn read_ping(section: &mut Section<'_>) -> Option<Ping> {
    let (mut interval, mut timeout) = (Span(Duration::from_secs(20)), Span(Duration::from_secs(10)));
    if let Some(mut ping) = section.section("ping") {
        interval = ping.or("interval", interval);
        timeout = ping.or("timeout", timeout);
        if timeout.0.is_zero() {
            ping.problem("timeout", "must be more than 0s (interval: 0s sends no pings)");
        }
    }
    (!interval.0.is_zero()).then_some(Ping {
        interval: interval.0,
        timeout: timeout.0,
    })
}

fn read_reconnect(section: &mut Section<'_>) -> Backoff {
    let (mut initial, mut max) = (Span(Duration::from_millis(500)), Span(Duration::from_secs(60)));
    if let Some(mut reconnect) = section.section("reconnect") {
        initial = reconnect.or("initial", initial);
        max = reconnect.or("max", max);
        if initial.0.is_zero() {
            reconnect.problem("initial", "must be more than 0s");
        }
        if max < initial {
            reconnect.problem("max", "must not be less than `initial`");
        }
    }
    Backoff::new(initial.0, max.0)
}

fn read_tls(section: &mut Section<'_>, endpoint: Option<&Endpoint>) -> Option<Arc<ClientConfig>> {
    let is_tls = endpoint.is_some_and(Endpoint::is_tls);
    if endpoint.is_some() && !is_tls && section.contains("tls") {
        section.problem("tls", "is for a uri that begins with wss://");
    }
    if let Some(mut tls) = section.section("tls") {
        let files = TlsFiles {
            ca_file: tls.optional::<PathBuf>("ca_file"),
            cert_file: tls.optional::<PathBuf>("cert_file"),
            key_file: tls.optional::<PathBuf>("key_file"),
        };
        let config = is_tls.then(|| client_config(&files))?;
        return config
            .map_err(|error| tls.problem(error.key(), &error.to_string()))
            .ok();
    }
    let config = is_tls.then(|| client_config(&TlsFiles::default()))?;
    config
        .map_err(|error| section.problem("uri", &error.to_string()))
        .ok()
}
