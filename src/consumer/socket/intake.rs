//! Where a session's messages go: into the batcher, or to who only looks.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use super::status::Status;
use crate::consumer::batcher::Batcher;
use crate::consumer::patience::patiently;
use crate::record::Timestamp;
use crate::stage::{Outage, StageError};

/// Where a session's messages go. The durations are how long it waited, deaf to the socket.
pub(super) trait Intake {
    /// Takes a message in. Must not be cancelled.
    async fn push(&mut self, payload: &[u8], at: Timestamp) -> Result<Duration, StageError>;

    /// Appends what is open. Must not be cancelled.
    async fn flush(&mut self) -> Result<Duration, StageError>;

    /// Records a stretch. Must not be cancelled.
    async fn append_outage(&mut self, outage: Outage) -> Result<Duration, StageError>;

    /// Resolves when [`flush`](Self::flush) is due.
    async fn due(&mut self) -> Result<(), StageError>;

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

/// One consumer's way into its batcher.
pub(super) struct IntoStage<'a> {
    batcher: &'a mut Batcher,
    status: &'a Status,
}

impl<'a> IntoStage<'a> {
    pub(super) fn new(batcher: &'a mut Batcher, status: &'a Status) -> Self {
        Self { batcher, status }
    }
}

impl Intake for IntoStage<'_> {
    async fn push(&mut self, payload: &[u8], at: Timestamp) -> Result<Duration, StageError> {
        patiently(self.status, self.batcher.push(payload, at)).await
    }

    async fn flush(&mut self) -> Result<Duration, StageError> {
        patiently(self.status, self.batcher.flush()).await
    }

    async fn append_outage(&mut self, outage: Outage) -> Result<Duration, StageError> {
        patiently(self.status, self.batcher.append_outage(outage)).await
    }

    async fn due(&mut self) -> Result<(), StageError> {
        self.batcher.due().await
    }
}
