//! Why there is no connection, what that means for the operator, and when it is worth trying again.

use std::io;
use std::time::Duration;

use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use super::token::TokenError;
use crate::consumer::reach::connect::ReachError;
use crate::consumer::reach::refusal::Refusal;
pub(super) use crate::consumer::reach::refusal::Remedy;

/// Why there is no connection. Says what to do where that is known; never quotes headers, credentials or bodies.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {} s (connect_timeout)", .0.as_secs_f32())]
    Timeout(Duration),
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("{}", .0.meaning("it opened no WebSocket: see uri, headers and subprotocols"))]
    Http(Refusal),
    #[error("what answers is no WebSocket server as asked for: {0}")]
    Handshake(#[source] Box<tungstenite::Error>),
}

impl ConnectError {
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Http(refusal) => refusal.remedy(),
            Self::Reach(error) => error.remedy(),
            Self::Token(_) => Remedy::Operator,
            Self::Timeout(_) | Self::Handshake(_) => Remedy::Backoff,
        }
    }
}

/// Of an error of the handshake, TLS or WebSocket.
pub(super) fn of_handshake(error: tungstenite::Error) -> ConnectError {
    match error {
        tungstenite::Error::Http(response) => ConnectError::Http(Refusal::of(&response)),
        tungstenite::Error::Io(error) => ReachError::of_handshake(error).into(),
        tungstenite::Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            ReachError::Broken(io::ErrorKind::UnexpectedEof.into()).into()
        }
        other => ConnectError::Handshake(Box::new(other)),
    }
}
