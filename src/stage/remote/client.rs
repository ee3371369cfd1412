//! One request to the engine, and its answer. Every request has a connection of its own: they cost little on one machine, and
//! none can be found stale.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, IF_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::socket::{NoAnswer, connect};
use super::wire::{ErrorBody, ErrorKind, Identity, PROTOCOL, RequestErrorKind};
use crate::stage::StageError;

/// The longest that an answer is waited for, and each next piece of it.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The longest answer that is read whole: two pages of records, or what a few thousand stages say of themselves.
const MAX_ANSWER: usize = 256 << 20;

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No engine has the path open, or it is just being opened.
    #[error("no engine answers there; start it with `socket-el run`")]
    NoEngine,
    /// The socket belongs to somebody else.
    #[error("{0}")]
    Forbidden(String),
    /// The engine is of another version.
    #[error("{0}")]
    OtherProtocol(String),
    /// Another life of the engine answers.
    #[error("the engine was started again meanwhile; try again")]
    OtherLife,
    /// The connection broke: the engine stops, or has ended.
    #[error("the engine is gone, or has broken off the connection: {0}")]
    Lost(String),
    /// The answer is none.
    #[error("the engine did not answer as expected: {0}")]
    Broken(String),
    /// The engine has not answered in time.
    #[error("the engine has not answered within {} s", ANSWER_TIME.as_secs())]
    TimedOut,
    /// There is no such stage or cursor.
    #[error("{0}")]
    NotFound(String),
    /// The engine's stage could not do it.
    #[error(transparent)]
    Stage(#[from] StageError),
}

impl ClientError {
    /// As the error of a stage.
    pub(super) fn into_stage_error(self, path: &Path) -> StageError {
        match self {
            Self::Stage(error) => error,
            other => StageError::Unreachable {
                path: path.display().to_string(),
                reason: other.to_string(),
            },
        }
    }
}

impl From<NoAnswer> for ClientError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::NoSocket | NoAnswer::Stale => Self::NoEngine,
            NoAnswer::Forbidden(whose) => Self::Forbidden(whose),
            NoAnswer::Other(error) => Self::Broken(error.to_string()),
        }
    }
}

/// Asks the engine of one stage path.
#[derive(Clone, Debug)]
pub(super) struct Client {
    directory: PathBuf,
}

/// An answer whose body is still to be read.
pub(super) struct Answer {
    response: Response<Incoming>,
    /// Ends with the answer.
    _connection: AbortOnDropHandle<()>,
}

impl Client {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Who answers.
    pub(super) async fn identity(&self) -> Result<Identity, ClientError> {
        let identity: Identity = match self.get("", None).await {
            Err(ClientError::NotFound(_)) => return Err(self.other_protocol("another version")),
            answer => answer?.json().await?,
        };
        if identity.protocol != PROTOCOL {
            return Err(self.other_protocol(&format!("version {}", identity.protocol)));
        }
        Ok(identity)
    }

    fn other_protocol(&self, found: &str) -> ClientError {
        ClientError::OtherProtocol(format!(
            "the engine that has {} open speaks {found} of the control protocol, this program version {PROTOCOL}; use the \
             program that came with the engine",
            self.directory.display()
        ))
    }

    /// `GET` of a route below `/v1`, meant for one life of the engine if it is named.
    pub(super) async fn get(&self, route: &str, life: Option<Uuid>) -> Result<Answer, ClientError> {
        self.send(Method::GET, route, life, Bytes::new()).await
    }

    /// `PUT` of a body of JSON.
    pub(super) async fn put(
        &self,
        route: &str,
        life: Option<Uuid>,
        body: &impl Serialize,
    ) -> Result<Answer, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Broken(error.to_string()))?;
        self.send(Method::PUT, route, life, body.into()).await
    }

    /// `DELETE`.
    pub(super) async fn delete(&self, route: &str) -> Result<Answer, ClientError> {
        self.send(Method::DELETE, route, None, Bytes::new()).await
    }

    async fn send(
        &self,
        method: Method,
        route: &str,
        life: Option<Uuid>,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v{PROTOCOL}{route}"))
            .header(HOST, "socket-el");
        if let Some(life) = life {
            request = request.header(IF_MATCH, format!("\"{life}\""));
        }
        let request = request.body(Full::new(body)).map_err(broken)?;
        let exchange = async {
            let stream = connect(&self.directory).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
            let connection = AbortOnDropHandle::new(tokio::spawn(async move {
                // What breaks it is seen where the answer is read.
                drop(connection.await);
            }));
            let response = sender.send_request(request).await.map_err(lost)?;
            Ok::<_, ClientError>(Answer {
                response,
                _connection: connection,
            })
        };
        let answer = timeout(ANSWER_TIME, exchange)
            .await
            .map_err(|_| ClientError::TimedOut)??;
        if answer.response.status().is_success() {
            return Ok(answer);
        }
        Err(answer.into_error().await)
    }
}

impl Answer {
    /// The next piece of a body without end; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.response.body_mut().frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(lost(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body.
    pub(super) async fn bytes(self) -> Result<Bytes, ClientError> {
        let Self {
            response,
            _connection,
        } = self;
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        match timeout(ANSWER_TIME, body.collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ClientError::Broken(error.to_string())),
            Ok(Err(error)) => Err(ClientError::Lost(crate::exit::chain(error.as_ref()))),
            Err(_) => Err(ClientError::TimedOut),
        }
    }

    /// The whole body, as JSON.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Broken(error.to_string()))
    }

    /// What an answer that is no success says.
    async fn into_error(self) -> ClientError {
        let status = self.response.status();
        let bytes = match self.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => match body.what {
                ErrorKind::Stage(error) => ClientError::Stage(error),
                ErrorKind::Request {
                    kind: RequestErrorKind::OtherLife,
                } => ClientError::OtherLife,
                ErrorKind::Request {
                    kind: RequestErrorKind::NotFound,
                } => ClientError::NotFound(body.error),
                ErrorKind::Request { .. } => ClientError::Broken(body.error),
            },
            Err(_) if status == StatusCode::NOT_FOUND => ClientError::NotFound("no such route".to_owned()),
            Err(_) => ClientError::Broken(format!("status {status}")),
        }
    }
}

fn broken(error: impl std::error::Error) -> ClientError {
    ClientError::Broken(crate::exit::chain(&error))
}

fn lost(error: hyper::Error) -> ClientError {
    ClientError::Lost(crate::exit::chain(&error))
}

/// A name as a piece of a route.
pub(super) fn escaped(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// A route with a query.
pub(super) fn with_query(route: &str, query: &impl Serialize) -> Result<String, ClientError> {
    let query = serde_urlencoded::to_string(query).map_err(broken)?;
    Ok(format!("{route}?{query}"))
}
