//! From a request's method, path and query to what is asked; and what is said when that can't be answered.

use hyper::header::IF_MATCH;
use hyper::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::MAX_WATCHERS;
use crate::record::Offset;
use crate::stage::StageError;
use crate::stage::path::is_cursor_name;
use crate::stage::remote::{BatchParams, ErrorBody, ErrorKind, OutageParams, RecordParams, RequestErrorKind};

/// What is asked. Names are decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Identity,
    Status,
    Stages,
    Stage(String),
    ForgetStage(String),
    Batches(String, BatchParams),
    Records(String, RecordParams),
    Outages(String, OutageParams),
    Messages(String, MessageParams),
    Watch(String),
    Ack(String, String),
    Begun(String, String),
    Report(String, String),
    ForgetCursor(String, String),
}

/// The query of `…/messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageParams {
    /// The first offset.
    #[serde(default)]
    pub(super) from: Offset,
    /// The offset to stop before; the durable head when it is not given.
    #[serde(default)]
    pub(super) to: Option<Offset>,
    /// The most messages.
    #[serde(default = "default_messages")]
    pub(super) limit: u64,
}

/// Messages that are sent when nobody says how many.
fn default_messages() -> u64 {
    1000
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) body: ErrorBody,
}

impl Refusal {
    /// The request is at fault.
    pub(super) fn request(kind: RequestErrorKind, error: impl Into<String>) -> Self {
        let status = match kind {
            RequestErrorKind::NotFound => StatusCode::NOT_FOUND,
            RequestErrorKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
            RequestErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            RequestErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            RequestErrorKind::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            RequestErrorKind::OtherLife => StatusCode::PRECONDITION_FAILED,
        };
        Self {
            status,
            body: ErrorBody {
                error: error.into(),
                what: ErrorKind::Request { kind },
            },
        }
    }

    /// No more connections may watch.
    pub(super) fn too_many_watchers() -> Self {
        let error = format!("{MAX_WATCHERS} connections watch already; try again when one has ended");
        Self::request(RequestErrorKind::Busy, error)
    }

    /// There is no such stage.
    pub(super) fn no_stage(name: &str) -> Self {
        Self::request(RequestErrorKind::NotFound, format!("there is no stage {name}"))
    }
}

impl From<StageError> for Refusal {
    fn from(error: StageError) -> Self {
        let status = match error {
            StageError::StillConfigured { .. } => StatusCode::CONFLICT,
            StageError::Failed { .. } | StageError::Closed | StageError::Unreachable { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            StageError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            StageError::NotOwner { .. } => StatusCode::FORBIDDEN,
            StageError::Damaged { .. } | StageError::Replaced { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self {
            status,
            body: ErrorBody {
                error: error.to_string(),
                what: ErrorKind::Stage(error),
            },
        }
    }
}

/// What a request asks for.
pub(super) fn parse(method: &Method, path: &str, query: &str) -> Result<Asked, Refusal> {
    let segments = path
        .trim_start_matches('/')
        .split('/')
        .map(decoded)
        .collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (asked, allowed) = match segments.as_slice() {
        ["v1"] => (Asked::Identity, Method::GET),
        ["v1", "status"] => (Asked::Status, Method::GET),
        ["v1", "stages"] => (Asked::Stages, Method::GET),
        ["v1", "stages", stage] if method == Method::DELETE => {
            (Asked::ForgetStage(owned(stage)), Method::DELETE)
        }
        ["v1", "stages", stage] => (Asked::Stage(owned(stage)), Method::GET),
        ["v1", "stages", stage, "batches"] => (Asked::Batches(owned(stage), params(query)?), Method::GET),
        ["v1", "stages", stage, "records"] => (Asked::Records(owned(stage), params(query)?), Method::GET),
        ["v1", "stages", stage, "outages"] => (Asked::Outages(owned(stage), params(query)?), Method::GET),
        ["v1", "stages", stage, "messages"] => (Asked::Messages(owned(stage), params(query)?), Method::GET),
        ["v1", "stages", stage, "watch"] => (Asked::Watch(owned(stage)), Method::GET),
        ["v1", "stages", stage, "cursors", producer] if method == Method::DELETE => {
            (Asked::ForgetCursor(owned(stage), owned(producer)), Method::DELETE)
        }
        ["v1", "stages", stage, "cursors", cursor] => {
            (Asked::Ack(owned(stage), cursor_name(cursor)?), Method::PUT)
        }
        ["v1", "stages", stage, "begun", producer] => {
            (Asked::Begun(owned(stage), cursor_name(producer)?), Method::PUT)
        }
        ["v1", "stages", stage, "deliveries", producer] => {
            (Asked::Report(owned(stage), owned(producer)), Method::PUT)
        }
        _ => {
            return Err(Refusal::request(
                RequestErrorKind::NotFound,
                format!("there is no route {path}; this engine answers below /v1"),
            ));
        }
    };
    if *method == allowed {
        Ok(asked)
    } else {
        Err(Refusal::request(
            RequestErrorKind::MethodNotAllowed,
            format!("{path} takes {allowed}, not {method}"),
        ))
    }
}

/// Refuses a request that is meant for another life of the engine.
pub(super) fn check_life(headers: &HeaderMap, life: Uuid) -> Result<(), Refusal> {
    let Some(wanted) = headers.get(IF_MATCH) else {
        return Ok(());
    };
    if wanted.as_bytes() == format!("\"{life}\"").as_bytes() {
        return Ok(());
    }
    Err(Refusal::request(
        RequestErrorKind::OtherLife,
        "the engine was started again since",
    ))
}

/// The name of a cursor to be set: one that nobody has would keep messages from being removed for ever.
fn cursor_name(name: &str) -> Result<String, Refusal> {
    if is_cursor_name(name) {
        return Ok(owned(name));
    }
    Err(Refusal::request(
        RequestErrorKind::BadRequest,
        format!("{name:?} is not the name of a producer"),
    ))
}

fn owned(name: &str) -> String {
    name.to_owned()
}

fn decoded(segment: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(segment).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| {
        Refusal::request(
            RequestErrorKind::BadRequest,
            "the path is not UTF-8 once it is decoded",
        )
    })
}

fn params<T: DeserializeOwned>(query: &str) -> Result<T, Refusal> {
    serde_urlencoded::from_str(query)
        .map_err(|error| Refusal::request(RequestErrorKind::BadRequest, format!("?{query}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, path: &str, query: &str) -> StatusCode {
        parse(&method, path, query).unwrap_err().status
    }

    #[test]
    fn the_name_of_a_replays_cursor_is_one_piece_of_a_route() {
        let asked = parse(&Method::PUT, "/v1/stages/trades/cursors/postgres%2Freplay", "").unwrap();
        assert_eq!(
            asked,
            Asked::Ack("trades".to_owned(), "postgres/replay".to_owned())
        );
        assert_eq!(
            status(Method::PUT, "/v1/stages/trades/cursors/postgres/replay", ""),
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn what_is_not_known_or_can_not_be_read_is_refused_with_a_fitting_status() {
        assert_eq!(status(Method::GET, "/", ""), StatusCode::NOT_FOUND);
        assert_eq!(status(Method::GET, "/v2", ""), StatusCode::NOT_FOUND);
        assert_eq!(
            status(Method::POST, "/v1/stages", ""),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert_eq!(status(Method::GET, "/v1/stages/%ff", ""), StatusCode::BAD_REQUEST);
        for query in ["from=-1", "from=x", "messages=99999999999999999999", "unknown=1"] {
            let path = "/v1/stages/trades/records";
            assert_eq!(
                status(Method::GET, path, query),
                StatusCode::BAD_REQUEST,
                "{query}"
            );
        }
    }

    #[test]
    fn a_query_that_a_client_writes_is_read_as_it_was() {
        let params = BatchParams {
            from: Offset::new(7),
            part: 3,
            since: Some(crate::record::Timestamp::from_micros(-5)),
            only_outages: true,
            limit: 12,
        };
        let query = serde_urlencoded::to_string(params).unwrap();
        let asked = parse(&Method::GET, "/v1/stages/trades/batches", &query).unwrap();
        assert_eq!(asked, Asked::Batches("trades".to_owned(), params));
    }
}
