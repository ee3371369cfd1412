//! Where a session's messages go: into the queue before the merge, or to who only looks.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use super::merge::Ended;
use super::queue::Closed;
use crate::record::Timestamp;

/// Where a session's messages go. The durations are how long it waited, deaf to the socket.
pub(super) trait Intake {
    /// Takes a message in. Must not be cancelled.
    async fn push(&mut self, payload: &[u8], at: Timestamp) -> Result<Duration, Closed>;

    /// Hands over what has gathered. Must not be cancelled.
    async fn hand_over(&mut self) -> Result<Duration, Closed>;

    /// The connection is subscribed. Must not be cancelled.
    async fn live(&mut self, at: Timestamp) -> Result<Duration, Closed>;

    /// The connection is no more. Must not be cancelled.
    async fn ended(&mut self, end: Ended) -> Result<(), Closed>;

    /// What happens beside the data, for who wants to know.
    fn aside(&mut self, aside: Aside<'_>) {
        let _ = aside;
    }
}

/// What happens in a session beside its data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aside<'m> {
    /// A frame of the protocol itself.
    Frame(&'m Message),
    /// A message that is no data.
    Control(&'m [u8]),
    /// What the script waited for.
    Answer(&'m [u8]),
    /// What told that the answer will not come.
    Refusal(&'m [u8]),
    /// A ping was sent.
    PingSent,
    /// Everything is said and answered.
    Subscribed,
}
