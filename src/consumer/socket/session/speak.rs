//! What a session says: the steps of its script, and pings.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::cause;
use super::super::intake::{Aside, Intake};
use super::super::queue::Closed;
use super::super::script::Next;
use super::{Broken, Session};
use crate::record::Timestamp;

/// How long a message may take to be handed to the system; longer, and the peer reads nothing.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// What a server that takes nothing more has still said is read for so long, for it may say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl<I: Intake> Session<'_, I> {
    /// Says what the script says, up to the next answer that it waits for, or to its end.
    pub(super) async fn speak(&mut self) -> Result<Option<Broken>, Closed> {
        loop {
            match self.conversation.next(Instant::now()) {
                Next::Send(message) => {
                    if let Some(broken) = self.send(Some(message)).await? {
                        return Ok(Some(broken));
                    }
                }
                Next::Await => return self.send(None).await,
                Next::Done => {
                    let broken = self.send(None).await?;
                    if broken.is_none() {
                        self.is_subscribed().await?;
                    }
                    return Ok(broken);
                }
            }
        }
    }

    /// Everything is said and answered: data is expected.
    async fn is_subscribed(&mut self) -> Result<(), Closed> {
        let deaf = self.intake.live(Timestamp::now()).await?;
        self.forgive(deaf);
        let now = Instant::now();
        self.subscribed = Some(now);
        self.liveness.expect_data(now);
        self.status.subscribed(self.steps);
        self.progress.send_modify(|progress| progress.is_live = true);
        self.intake.aside(Aside::Subscribed);
        Ok(())
    }

    pub(super) async fn send_ping(&mut self) -> Result<Option<Broken>, Closed> {
        if let Some(broken) = self.send(Some(self.ping.clone())).await? {
            return Ok(Some(broken));
        }
        self.intake.aside(Aside::PingSent);
        self.send(None).await
    }

    /// Sends a message, or flushes what is sent.
    async fn send(&mut self, message: Option<Message>) -> Result<Option<Broken>, Closed> {
        let sending = async {
            match message {
                Some(message) => self.socket.feed(message).await,
                None => self.socket.flush().await,
            }
        };
        match timeout(SEND_TIMEOUT, sending).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) => self.last_words(&error).await.map(Some),
            Err(_) => Ok(Some(Broken::silently(cause::NOT_READING.to_owned()))),
        }
    }

    /// The server takes nothing more: what it has sent before is kept, and its close frame says more than our error.
    async fn last_words(&mut self, error: &Error) -> Result<Broken, Closed> {
        let ours = Broken::silently(cause::of_error(error).0);
        let deadline = Instant::now() + LAST_WORDS;
        // Taking a message in must not be cancelled, so only the wait for it is under the deadline.
        while let Ok(Some(Ok(frame))) = timeout_at(deadline, self.socket.next()).await {
            if let Message::Close(frame) = frame {
                return Ok(Broken::silently(cause::closed(frame.as_ref())));
            }
            if let Some(cause) = self.overhear(&frame).await? {
                return Ok(Broken::silently(cause));
            }
        }
        Ok(ours)
    }
}
