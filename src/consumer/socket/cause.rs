//! Why a connection was lost, in words for logs and recorded outages, and what to tell the server about it.
//! Nothing in here quotes a payload.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The connection ended, and nobody said why.
pub(super) const ENDED: &str = "the connection ended";
/// A ping could not be sent for too long.
pub(super) const NOT_READING: &str = "the server does not read what it is sent";

/// A connection did not answer when it was closed, for another one had taken its place.
pub(super) const UNANSWERED: &str = "the connection that was replaced (rotate) did not answer when it was closed, so it may have been dead before";

/// The cause, and the code to tell the server if the fault is its own.
pub(super) fn of_error(error: &Error) -> (String, Option<CloseCode>) {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => (
            format!(
                "the server sent a message of {size} bytes or more; max_message_size is {max_size} (1009)"
            ),
            Some(CloseCode::Size),
        ),
        Error::Utf8(_) => (
            "the server sent a text message that is not UTF-8 (1007)".to_owned(),
            Some(CloseCode::Invalid),
        ),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => (
            "the connection ended without a close frame (1006)".to_owned(),
            None,
        ),
        Error::Protocol(ProtocolError::NonZeroReservedBits) => (
            "the server broke the WebSocket protocol: it sent a compressed frame, or one of another extension, though none was agreed to (1002)".to_owned(),
            Some(CloseCode::Protocol),
        ),
        Error::Protocol(error) => (
            format!("the server broke the WebSocket protocol: {error} (1002)"),
            Some(CloseCode::Protocol),
        ),
        Error::Io(error) => (format!("the connection failed: {error} (1006)"), None),
        Error::ConnectionClosed | Error::AlreadyClosed => (ENDED.to_owned(), None),
        other => (other.to_string(), Some(CloseCode::Error)),
    }
}

/// The server closed the connection. Its reason is text of its own making, so it is quoted with everything unprintable escaped.
pub(super) fn closed(frame: Option<&CloseFrame>) -> String {
    match frame {
        None => "closed by the server without a code (1005)".to_owned(),
        Some(frame) if frame.reason.is_empty() => {
            format!(
                "closed by the server ({}{})",
                u16::from(frame.code),
                meaning(frame.code)
            )
        }
        Some(frame) => format!(
            "closed by the server ({}{}): {:?}",
            u16::from(frame.code),
            meaning(frame.code),
            frame.reason.as_str()
        ),
    }
}

/// It happened before everything was subscribed.
pub(super) fn while_subscribing(cause: &str) -> String {
    format!("while subscribing: {cause}")
}

/// Nothing came at all.
pub(super) fn gone(silence: Duration) -> String {
    format!(
        "nothing received for {} s, not even the answer to a ping",
        silence.as_secs_f32()
    )
}

/// No data came.
pub(super) fn idle(silence: Duration) -> String {
    format!("no data message for {} s (idle)", silence.as_secs_f32())
}

fn meaning(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Normal => ", normal end",
        CloseCode::Away => ", it goes away",
        CloseCode::Protocol => ", protocol error",
        CloseCode::Unsupported => ", it can't take what it was sent",
        CloseCode::Invalid => ", invalid data",
        CloseCode::Policy => ", against its policy",
        CloseCode::Size => ", message too big",
        CloseCode::Error => ", its own error",
        CloseCode::Restart => ", it restarts",
        CloseCode::Again => ", try again later",
        _ => "",
    }
}
