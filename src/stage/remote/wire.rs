//! What requests and answers say, beside the types of [`path`](crate::stage::path): both ends use these.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::{Offset, Timestamp};
use crate::stage::path::{BatchPosition, BatchQuery};
use crate::stage::{Place, ReadLimit, StageError};

/// The version of the protocol; it stands in every route (`/v1`).
pub const PROTOCOL: u32 = 1;

/// The content type of records, see [`frames`](super::frames).
pub const RECORDS_TYPE: &str = "application/vnd.socket-el.records.v1";

/// The longest body that a request may have: a report with its texts.
pub const MAX_BODY_BYTES: usize = 16 * 1024;

/// `GET /v1`: who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `socket-el`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// The protocol's version.
    pub protocol: u32,
    /// The process.
    pub pid: u32,
    /// The directory.
    pub path: String,
    /// The stage path's id.
    pub id: Uuid,
    /// Drawn when the path was opened: another life of an engine has another one. Stands in the header `etag` of every answer;
    /// a request with another one in `if-match` is refused with 412.
    pub life: Uuid,
    /// When the path was opened.
    pub started_at: Timestamp,
}

/// The body of `PUT /v1/stages/{stage}/cursors/{producer}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// Everything before it is delivered.
    pub next: Offset,
    /// Whether the answer waits until it is on disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
}

/// The query of `…/records`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordParams {
    /// The message to begin with.
    #[serde(default)]
    pub from: Offset,
    /// The most messages.
    #[serde(default = "RecordParams::default_messages")]
    pub messages: usize,
    /// The most bytes of payload before compression.
    #[serde(default = "RecordParams::default_bytes")]
    pub bytes: usize,
}

impl RecordParams {
    /// The most messages that one answer holds; one batch is always answered whole.
    pub const MAX_MESSAGES: usize = 100_000;

    /// The most bytes of payload of one answer; one batch is always answered whole.
    pub const MAX_BYTES: usize = 64 << 20;

    fn default_messages() -> usize {
        10_000
    }

    fn default_bytes() -> usize {
        8 << 20
    }

    /// The limit of the read.
    #[must_use]
    pub fn limit(&self) -> ReadLimit {
        ReadLimit {
            messages: self.messages.min(Self::MAX_MESSAGES),
            bytes: self.bytes.min(Self::MAX_BYTES),
        }
    }
}

/// The query of `…/outages`; see [`Stage::outages`](crate::stage::Stage::outages).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutageParams {
    /// [`Place::offset`] of where to begin.
    #[serde(default)]
    pub from: Offset,
    /// [`Place::sequence`] of where to begin.
    #[serde(default)]
    pub sequence: u32,
    /// The message up to which to go; the durable head when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Offset>,
}

impl OutageParams {
    /// Where to begin.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            offset: self.from,
            sequence: self.sequence,
        }
    }
}

/// The query of `…/batches`: a [`BatchQuery`], flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchParams {
    /// [`BatchPosition::offset`].
    #[serde(default)]
    pub from: Offset,
    /// [`BatchPosition::part`].
    #[serde(default)]
    pub part: u32,
    /// Microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Outages only.
    #[serde(default)]
    pub only_outages: bool,
    /// The most batches.
    #[serde(default = "BatchParams::default_limit")]
    pub limit: usize,
}

impl BatchParams {
    fn default_limit() -> usize {
        100
    }
}

impl From<BatchQuery> for BatchParams {
    fn from(query: BatchQuery) -> Self {
        Self {
            from: query.from.offset,
            part: query.from.part,
            since: query.since,
            only_outages: query.only_outages,
            limit: query.limit,
        }
    }
}

impl From<BatchParams> for BatchQuery {
    fn from(params: BatchParams) -> Self {
        Self {
            from: BatchPosition {
                offset: params.from,
                part: params.part,
            },
            since: params.since,
            only_outages: params.only_outages,
            limit: params.limit,
        }
    }
}

/// The body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// In words.
    pub error: String,
    /// `kind`, and what belongs to it.
    #[serde(flatten)]
    pub what: ErrorKind,
}

/// What went wrong: with the stage, or with the request itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ErrorKind {
    /// The stage could not do it.
    Stage(StageError),
    /// The request is at fault.
    Request {
        /// Why.
        kind: RequestErrorKind,
    },
}

/// What may be wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestErrorKind {
    /// No such route, stage or cursor.
    NotFound,
    /// The route does not take this method.
    MethodNotAllowed,
    /// A parameter or a body that can't be read.
    BadRequest,
    /// A body that is too long.
    TooLong,
    /// The request is meant for another life of the engine.
    OtherLife,
    /// There are as many of its kind as the engine serves at a time.
    Busy,
}
