//! The keys of the variety `http`, read into typed values.

use std::sync::Arc;
use std::time::Duration;

use hyper::http::HeaderName;
use hyper::http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use rustls::ClientConfig;

use crate::backoff::Backoff;
use crate::config::Section;
use crate::config::units::{ByteSize, Span};
use crate::consumer::reach::endpoint::Endpoint;
use crate::consumer::reach::headers::{Headers, read_headers};
use crate::consumer::reach::proxy::Proxy;
use crate::consumer::reach::settings::{read_endpoint, read_proxy, read_reconnect, read_tls};
use crate::json_path::{Path, RecordsPath};
use crate::stage::envelope::MAX_MESSAGE;

/// From the start of a poll to the start of the next.
const INTERVAL: Duration = Duration::from_secs(10);
/// What `interval` may be at least: whoever wants data sooner wants a feed that sends it.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// How long a poll may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may be.
const MAX_ANSWER_SIZE: u64 = 16 << 20;
/// What `max_answer_size` may be at most: an answer is held in memory, and without `records` it is one message, which must fit a
/// stage's record.
const MAX_ANSWER_BYTES: u64 = 63 << 20;
const _: () = assert!(MAX_ANSWER_BYTES <= MAX_MESSAGE as u64);

/// What to ask, how, and how often. Holds secrets, so it has no `Debug`.
pub(super) struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) headers: Headers,
    /// `None` for a straight connection.
    pub(super) proxy: Option<Proxy>,
    /// For https.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) interval: Duration,
    /// From the name's look-up to the end of the answer.
    pub(super) timeout: Duration,
    /// Where the messages stand in an answer; `None` when it is one.
    pub(super) records: Option<RecordsPath>,
    pub(super) max_answer_bytes: usize,
    /// How long nothing new may come. `None` when any silence is fine.
    pub(super) idle_timeout: Option<Duration>,
    /// Delays after polls that failed.
    pub(super) backoff: Backoff,
}

impl Settings {
    /// Reads the keys. `None` when something in the file is wrong; it is then reported.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let endpoint = read_endpoint(section, Endpoint::parse_http);
        let has_user = endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.authorization().is_some());
        let headers = read_headers(section, has_user, reserved);
        let proxy = read_proxy(section, endpoint.as_ref());
        let Span(interval) = section.or("interval", Span(INTERVAL));
        if interval < MIN_INTERVAL {
            section.problem("interval", &format!("must be at least {}", Span(MIN_INTERVAL)));
        }
        let Span(timeout) = section.or("timeout", Span(TIMEOUT));
        if timeout.is_zero() {
            section.problem("timeout", "must be more than 0s");
        }
        let records = read_records(section);
        let ByteSize(max_answer_size) = section.or("max_answer_size", ByteSize(MAX_ANSWER_SIZE));
        if !(1..=MAX_ANSWER_BYTES).contains(&max_answer_size) {
            section.problem("max_answer_size", "must be at least 1 byte and at most 63MiB");
        }
        let Span(idle_timeout) = section.or("idle_timeout", Span(Duration::ZERO));
        let backoff = read_reconnect(section);
        let tls = read_tls(section, endpoint.as_ref());
        let endpoint = endpoint.filter(|_| section.is_sound())?;
        Some(Self {
            endpoint,
            headers,
            proxy,
            tls,
            interval,
            timeout,
            records,
            max_answer_bytes: usize::try_from(max_answer_size).ok()?,
            idle_timeout: (!idle_timeout.is_zero()).then_some(idle_timeout),
            backoff,
        })
    }
}

fn read_records(section: &mut Section<'_>) -> Option<RecordsPath> {
    let text: String = section.optional("records")?;
    match text.parse::<Path>() {
        Ok(path) => Some(RecordsPath::new(path)),
        Err(error) => {
            section.problem_within("records", error.at, &error.to_string());
            None
        }
    }
}

/// Why a header can't be given.
fn reserved(name: &HeaderName) -> Option<&'static str> {
    if [IF_NONE_MATCH, IF_MODIFIED_SINCE].contains(name) {
        return Some("is set from the answer before; leave it out");
    }
    if *name == ACCEPT_ENCODING {
        return Some("can't be given: answers are taken as they are, and never compressed");
    }
    [
        CONNECTION,
        CONTENT_LENGTH,
        EXPECT,
        IF_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        RANGE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
    .then_some("has no place in a GET of a whole answer; leave it out")
}
