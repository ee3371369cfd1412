//! The variety `socket`: messages of a WebSocket server, ws or wss.
//!
//! [`SocketConsumer::run`] is the life of it: connect, subscribe, receive until the connection is lost, wait, connect again. Data
//! is kept byte for byte with its time of receipt; answers and heartbeats that the configuration names are counted and kept out. Every stretch from the loss of a connection until the next is subscribed is
//! recorded in the stage, between the messages before and after it. The time before the first connection is none:
//! nobody was promised messages yet.
//!
//! Left to others: batches and backpressure ([`Batcher`]), what the messages mean.

mod cause;
mod connect;
mod farewell;
mod intake;
mod liveness;
mod pattern;
mod refusal;
mod script;
mod session;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod trial;

pub use trial::{Connected, Handshake, Role, Seen, Trial, TrialEnd, TrialError};

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::batcher::Batcher;
use super::gap::{self, Gap};
use super::reach::{endpoint, proxy, token};
use super::{Consumer, ConsumerContext, ConsumerVariety, stage_failed};
use crate::backoff::Backoff;
use crate::config::Section;
use crate::exit::RunnerError;
use crate::stage::StageError;
use connect::Socket;
use intake::IntoStage;
use script::Script;
use session::{End, Session};
use settings::Settings;
use status::Status;

/// Makes consumers of WebSocket servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketVariety;

impl ConsumerVariety for SocketVariety {
    fn name(&self) -> &'static str {
        "socket"
    }

    fn configure(&self, _name: &str, section: &mut Section<'_>) -> Option<Box<dyn Consumer>> {
        let settings = Settings::read(section)?;
        Some(Box::new(SocketConsumer { settings }))
    }
}

/// Receives from one WebSocket server.
struct SocketConsumer {
    settings: Settings,
}

#[async_trait]
impl Consumer for SocketConsumer {
    async fn run(self: Box<Self>, context: ConsumerContext) -> Result<(), RunnerError> {
        let mut batcher = Batcher::new(&context);
        let received = self.receive(&context, &mut batcher).await;
        let finished = match received {
            Ok(()) => batcher.finish().await,
            Err(error) => Err(error),
        };
        finished.map_err(|error| stage_failed(&context.name, error))
    }

    async fn probe(&self) -> Result<String, String> {
        let start = Instant::now();
        let shown = self.settings.endpoint.shown();
        match connect::connect(&self.settings).await {
            Ok((socket, _unsaid)) => {
                let took = start.elapsed();
                farewell::hang_up(socket).await;
                Ok(format!("{shown}: handshake done in {} ms", took.as_millis()))
            }
            Err(error) => Err(format!("{shown}: {error}")),
        }
    }
}

impl SocketConsumer {
    /// Receives over one connection after the other until the consumer is to stop.
    async fn receive(&self, context: &ConsumerContext, batcher: &mut Batcher) -> Result<(), StageError> {
        let uri = self.settings.endpoint.shown();
        let status = Status::new(&context.name, uri, Arc::clone(&context.stats));
        let mut backoff = self.settings.backoff.clone();
        let mut delay = Duration::ZERO;
        let mut gap = context.stage.last_seen().map(Gap::since_earlier_run);
        while let Some(connection) = self
            .connected(context, &status, batcher, &mut backoff, delay)
            .await?
        {
            let intake = IntoStage::new(batcher, &status);
            let session = Session::new(
                connection,
                intake,
                &context.stop,
                &status,
                &self.settings,
                gap.take(),
            );
            match session.run().await? {
                End::Stopped(unfinished) => {
                    status.stopped();
                    gap = unfinished;
                    break;
                }
                End::Lost(loss) => {
                    if loss.was_healthy {
                        backoff.reset();
                    }
                    delay = backoff.next_delay();
                    status.lost(&loss.cause, delay);
                    gap = loss.gap;
                }
            }
        }
        if let Some(gap) = gap {
            batcher.append_outage(gap.until_stop()).await?;
        }
        Ok(())
    }

    /// Tries to connect after `delay`, and again until it works. `None` when the consumer is to stop.
    async fn connected(
        &self,
        context: &ConsumerContext,
        status: &Status,
        batcher: &mut Batcher,
        backoff: &mut Backoff,
        delay: Duration,
    ) -> Result<Option<(Socket, Script<'_>)>, StageError> {
        let mut due_at = tokio::time::Instant::now() + delay;
        loop {
            let attempt = async {
                tokio::time::sleep_until(due_at).await;
                status.connecting();
                let start = Instant::now();
                (connect::connect(&self.settings).await, start.elapsed())
            };
            let (connected, took) = tokio::select! {
                biased;
                () = context.stop.cancelled() => {
                    status.stopped_waiting();
                    return Ok(None);
                }
                failed = failed(batcher) => return Err(failed),
                attempt = attempt => attempt,
            };
            match connected {
                Ok(connection) => {
                    status.connected(took);
                    return Ok(Some(connection));
                }
                Err(error) => {
                    let delay = error.remedy().delay(backoff);
                    status.refused(&error, delay);
                    due_at = tokio::time::Instant::now() + delay;
                }
            }
        }
    }
}

/// Waits for a failure of the stage. Nothing is gathered while there is no connection, so nothing else can become due.
async fn failed(batcher: &mut Batcher) -> StageError {
    loop {
        if let Err(error) = batcher.due().await {
            return error;
        }
        if let Err(error) = batcher.flush().await {
            return error;
        }
    }
}
