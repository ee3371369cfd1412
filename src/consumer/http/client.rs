//! One poll: GET over a connection that is kept for the next one, with the validators of the answer before, up to the whole answer.
//!
//! The connection runs only while a poll does: there is no task beside it. A server may end one that idles at any time, so a
//! request that fails on a kept connection is sent once more on a new one. What stands between may forget one without a word, and a
//! request on it would be lost until the poll's time is over: so one that has idled for long is not used again. Redirections are not followed: credentials are for the
//! server that the configuration names.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, ETAG, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, USER_AGENT,
};
use hyper::http::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::error::PollError;
use super::settings::Settings;
use crate::consumer::reach;
use crate::consumer::reach::connect::ReachError;
use crate::consumer::reach::headers::apply;
use crate::consumer::reach::refusal::Refusal;
use crate::stats::ConsumerStats;

/// Most bytes of an answer's head, and of what is read at a time.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long a connection may have idled to be used again: less than what NATs, firewalls and balancers remember.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// Asks one server for one thing, again and again.
pub(super) struct Client<'s> {
    settings: &'s Settings,
    stats: Arc<ConsumerStats>,
    /// With when its last answer was there.
    kept: Option<(Connection, Instant)>,
    validators: Validators,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    validators: Validators,
}

/// What tells whether there is anything new.
#[derive(Default)]
struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: Driver,
}

/// What moves a connection's bytes; `None` when the connection has ended.
struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl<'s> Client<'s> {
    pub(super) fn new(settings: &'s Settings, stats: &Arc<ConsumerStats>) -> Self {
        Self {
            settings,
            stats: Arc::clone(stats),
            kept: None,
            validators: Validators::default(),
        }
    }

    /// Asks once. `None` when the server has nothing, or nothing new.
    pub(super) async fn poll(&mut self) -> Result<Option<Answer>, PollError> {
        let limit = self.settings.timeout;
        timeout(limit, self.ask())
            .await
            .unwrap_or(Err(PollError::Timeout(limit)))
    }

    /// The answer is staged: from now on only something newer is of interest.
    pub(super) fn took(&mut self, answer: Answer) {
        self.validators = answer.validators;
    }

    async fn ask(&mut self) -> Result<Option<Answer>, PollError> {
        let request = request(self.settings, &self.validators).await?;
        let (mut connection, response) = self.send(request).await?;
        let (head, body) = response.into_parts();
        let is_nothing = match head.status {
            StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => false,
            StatusCode::NO_CONTENT => true,
            StatusCode::NOT_MODIFIED if self.validators.are_any() => true,
            // With its body unread the connection is of no more use.
            _ => return Err(PollError::Refused(Refusal::of(&Response::from_parts(head, ())))),
        };
        if let Some(encoding) = head.headers.get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(PollError::Compressed);
        }
        let body = connection
            .driver
            .read(body, self.settings.max_answer_bytes)
            .await?;
        self.kept = Some((connection, Instant::now()));
        Ok((!is_nothing).then(|| Answer {
            body,
            validators: Validators::of(&head.headers),
        }))
    }

    /// Sends a request, and gives the head of the answer with the connection that its body comes over.
    async fn send(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), PollError> {
        if let Some((mut kept, since)) = self.kept.take()
            && since.elapsed() < MAX_IDLE
            && let Ok(response) = kept.send(request.clone()).await
        {
            return Ok((kept, response));
        }
        let mut connection = connect(self.settings, &self.stats).await?;
        let response = connection.send(request).await.map_err(PollError::of_hyper)?;
        Ok((connection, response))
    }
}

async fn request(settings: &Settings, validators: &Validators) -> Result<Request<Empty<Bytes>>, PollError> {
    let endpoint = &settings.endpoint;
    let mut request = Request::new(Empty::new());
    if let Some(target) = endpoint.uri().path_and_query() {
        *request.uri_mut() = target.clone().into();
    }
    let headers = request.headers_mut();
    if let Some(host) = endpoint.uri().authority()
        && let Ok(host) = HeaderValue::from_str(host.as_str())
    {
        headers.insert(HOST, host);
    }
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("socket-el/", env!("CARGO_PKG_VERSION"))),
    );
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(authorization) = endpoint.authorization() {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    apply(&settings.headers.given, &settings.headers.late, headers).await?;
    validators.apply(headers);
    Ok(request)
}

async fn connect(settings: &Settings, stats: &ConsumerStats) -> Result<Connection, PollError> {
    let begun = Instant::now();
    let endpoint = &settings.endpoint;
    let tcp = reach::connect::connect(endpoint, settings.proxy.as_ref()).await?;
    let connection = match &settings.tls {
        None => Connection::over(tcp).await?,
        Some(config) => {
            let handshake = |error| PollError::Reach(ReachError::of_handshake(error));
            let host = ServerName::try_from(endpoint.host().to_owned())
                .map_err(|error| handshake(std::io::Error::other(error)))?;
            let connector = TlsConnector::from(Arc::clone(config));
            let tls = connector.connect(host, tcp).await.map_err(handshake)?;
            Connection::over(tls).await?
        }
    };
    stats.connects.add(1);
    let took_ms = begun.elapsed().as_millis();
    tracing::debug!(uri = endpoint.shown(), took_ms, "connected");
    Ok(connection)
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            etag: headers.get(ETAG).cloned(),
            last_modified: headers.get(LAST_MODIFIED).cloned(),
        }
    }

    fn are_any(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    fn apply(&self, to: &mut HeaderMap) {
        let mut insert = |name: HeaderName, value: &Option<HeaderValue>| {
            if let Some(value) = value {
                to.insert(name, value.clone());
            }
        };
        insert(IF_NONE_MATCH, &self.etag);
        insert(IF_MODIFIED_SINCE, &self.last_modified);
    }
}

impl Connection {
    async fn over<S>(stream: S) -> Result<Self, PollError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(PollError::of_hyper)?;
        // How it ends is told to whoever waits for an answer.
        let driver = Box::pin(async { drop(connection.await) });
        Ok(Self {
            sender,
            driver: Driver(Some(driver)),
        })
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let sender = &mut self.sender;
        let sending = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        self.driver.beside(sending).await
    }
}

impl Driver {
    /// Moves the connection's bytes until the work is done.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Some(driver) = &mut self.0
                && driver.as_mut().poll(context).is_ready()
            {
                self.0 = None;
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// Reads a body, and no more than `max` bytes.
    async fn read(&mut self, mut body: Incoming, max: usize) -> Result<Vec<u8>, PollError> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > max {
            return Err(PollError::TooLarge(max));
        }
        let mut whole = Vec::with_capacity(announced);
        while let Some(frame) = self.beside(body.frame()).await {
            let Ok(data) = frame.map_err(PollError::of_hyper)?.into_data() else {
                continue;
            };
            if whole.len() + data.len() > max {
                return Err(PollError::TooLarge(max));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }
}
