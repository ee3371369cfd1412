//! Why a poll failed, and when to try again. Never quotes headers, credentials or bodies.

use std::time::Duration;

use crate::consumer::reach::connect::ReachError;
use crate::consumer::reach::refusal::{Refusal, Remedy};
use crate::consumer::reach::token::TokenError;
use crate::exit::chain;
use crate::json_path::RecordsError;

/// Why there is no answer, or none that can be staged.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    #[error("no whole answer within {} s (timeout)", .0.as_secs_f32())]
    Timeout(Duration),
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("{}", .0.meaning("that is no answer to a GET: see uri and headers"))]
    Refused(Refusal),
    #[error("what answers is no HTTP server as expected: {0}")]
    NotHttp(String),
    #[error("the connection ended before the whole answer was there: {0}")]
    Broken(String),
    #[error("the answer has more than {0} bytes (max_answer_size)")]
    TooLarge(usize),
    #[error("the answer is compressed, which was not asked for")]
    Compressed,
    #[error("the answer {0} (records)")]
    Records(#[from] RecordsError),
}

impl PollError {
    /// Of an error of the connection.
    pub(super) fn of_hyper(error: hyper::Error) -> Self {
        let said = chain(&error);
        if error.is_parse() {
            Self::NotHttp(said)
        } else {
            Self::Broken(said)
        }
    }

    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Reach(error) => error.remedy(),
            Self::Token(_) => Remedy::Operator,
            Self::Refused(refusal) => refusal.remedy(),
            Self::Timeout(_)
            | Self::NotHttp(_)
            | Self::Broken(_)
            | Self::TooLarge(_)
            | Self::Compressed
            | Self::Records(_) => Remedy::Backoff,
        }
    }
}
