//! The variety `socket`: messages of a WebSocket server, ws or wss.
//!
//! [`SocketConsumer::run`] is the life of it: connect, receive until the connection is lost, wait, connect again. Messages are
//! kept byte for byte with their time of receipt. Every stretch from the loss of a connection until the next is subscribed is
//! recorded in the stage, between the messages before and after it. The time before the first connection is none:
//! nobody was promised messages yet.
//!
//! Left to others: batches and backpressure ([`Batcher`]), what the messages mean.

mod cause;
mod connect;
mod endpoint;
mod liveness;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod tls;

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::batcher::Batcher;
use super::{Consumer, ConsumerContext, ConsumerVariety};
use crate::backoff::Backoff;
use crate::config::Section;
use crate::exit::RunnerError;
use crate::record::Timestamp;
use crate::stage::{Outage, StageError};
use connect::Socket;
use session::{End, Loss, Session};
use settings::Settings;

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
        match connect::try_out(&self.settings).await {
            Ok(socket) => {
                let took = start.elapsed();
                session::hang_up(socket).await;
                Ok(format!("{shown}: handshake done in {} ms", took.as_millis()))
            }
            Err(error) => Err(format!("{shown}: {error}")),
        }
    }
}

impl SocketConsumer {
    /// Receives over one connection after the other until the consumer is to stop.
    async fn receive(&self, context: &ConsumerContext, batcher: &mut Batcher) -> Result<(), StageError> {
        let runner = context.name.as_str();
        let mut backoff = self.settings.backoff.clone();
        let mut delay = Duration::ZERO;
        let mut lost: Option<Loss> = None;
        while let Some(socket) = self.connected(context, batcher, &mut backoff, delay).await? {
            if let Some(loss) = lost.take() {
                batcher.append_outage(outage(loss.since, loss.cause)).await?;
            }
            match Session::new(socket, batcher, &context.stop, &self.settings)
                .run()
                .await?
            {
                End::Stopped => {
                    tracing::info!(runner, "connection closed, for the engine stops");
                    return Ok(());
                }
                End::Lost(loss) => {
                    if loss.was_healthy {
                        backoff.reset();
                    }
                    delay = backoff.next_delay();
                    tracing::warn!(runner, cause = %loss.cause, retry_in_ms = delay.as_millis(), "connection lost");
                    lost = Some(loss);
                }
            }
        }
        if let Some(loss) = lost {
            let cause = format!("{}; not connected again before the engine stopped", loss.cause);
            batcher.append_outage(outage(loss.since, cause)).await?;
        }
        Ok(())
    }

    /// Tries to connect after `delay`, and again until it works. `None` when the consumer is to stop.
    async fn connected(
        &self,
        context: &ConsumerContext,
        batcher: &mut Batcher,
        backoff: &mut Backoff,
        delay: Duration,
    ) -> Result<Option<Socket>, StageError> {
        let runner = context.name.as_str();
        let uri = self.settings.endpoint.shown();
        let mut delay = delay;
        loop {
            let attempt = async {
                tokio::time::sleep(delay).await;
                let start = Instant::now();
                (connect::connect(&self.settings).await, start.elapsed())
            };
            let (connected, took) = tokio::select! {
                biased;
                () = context.stop.cancelled() => return Ok(None),
                // Nothing is gathered while there is no connection: this only ever tells of a stage that failed.
                due = batcher.due() => {
                    due?;
                    batcher.flush().await?;
                    continue;
                }
                attempt = attempt => attempt,
            };
            match connected {
                Ok(socket) => {
                    context.stats.connects.add(1);
                    tracing::info!(runner, uri, took_ms = took.as_millis(), "connected");
                    return Ok(Some(socket));
                }
                Err(error) => {
                    delay = backoff.next_delay();
                    tracing::warn!(runner, uri, %error, retry_in_ms = delay.as_millis(), "can't connect");
                }
            }
        }
    }
}

/// The stretch from `since` until now.
fn outage(since: Timestamp, cause: String) -> Outage {
    Outage {
        from: since,
        // The clock may have been set back meanwhile; a stretch does not end before it begins.
        to: Timestamp::now().max(since),
        messages: 0,
        cause,
    }
}

fn stage_failed(name: &str, error: StageError) -> RunnerError {
    let reason = error.exit_reason();
    RunnerError::new(
        reason,
        ConsumerFailed {
            name: name.to_owned(),
            error,
        },
    )
}

/// The stage took nothing more.
#[derive(Debug, thiserror::Error)]
#[error("consumer {name}: {error}")]
struct ConsumerFailed {
    name: String,
    error: StageError,
}
