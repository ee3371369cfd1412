//! The variety `socket`: messages of a WebSocket server, ws or wss.
//!
//! A message's way: a [`Connection`] holds one connection to the server, connects, waits and connects again; a [`Session`] reads
//! what comes over it and tells data from answers and heartbeats; through the [`queue`](mod@queue) it comes to the [`Merge`], which stages each
//! message once, whichever of several connections brings it first. Each connection is a task of its own, and the merge is the
//! consumer's.
//!
//! Data is kept byte for byte with its time of receipt; answers and heartbeats that the configuration names are counted and kept
//! out. Every stretch in which no connection was subscribed is recorded in the stage, between the messages before and after
//! it. The time before the first connection is none: nobody was promised messages yet.
//!
//! Left to others: batches and backpressure ([`Batcher`]), what the messages mean.
//!
//! [`Session`]: session::Session

mod cause;
mod connect;
mod connection;
mod farewell;
mod identity;
mod intake;
mod lane;
mod liveness;
mod merge;
mod paced;
mod pattern;
mod queue;
mod refusal;
mod script;
mod session;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod trial;

pub use trial::{Connected, Handshake, Role, Seen, Trial, TrialEnd, TrialError};

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::batcher::Batcher;
use super::reach::token;
use super::{Consumer, ConsumerContext, ConsumerVariety, stage_failed};
use crate::config::Section;
use crate::exit::RunnerError;
use crate::supervisor::TaskSet;
use connection::Connection;
use identity::Identifier;
use merge::Merge;
use queue::queue;
use settings::{Route, Settings};
use status::Board;

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
        let settings = Arc::new(self.settings);
        let addresses = settings.routes.iter().map(Route::shown);
        let board = Board::new(&context.name, Arc::clone(&context.stats), addresses);
        let identifier = settings
            .merges()
            .then(|| Identifier::new(settings.identity.clone()));
        let (sender, events, shared) = queue(identifier);
        let mut connections = TaskSet::default();
        for entry in 0..settings.routes.len() {
            let (sender, stop) = (sender.clone(), context.stop.clone());
            let connection = Connection::new(&settings, entry, sender, &board, stop);
            connections.spawn(&format!("connection {}", entry + 1), async {
                connection.keep().await;
                Ok(())
            });
        }
        // The merge ends when the last connection has.
        drop(sender);
        let window = settings.merges().then_some(settings.window);
        let seen = context.stage.last_seen();
        let merge = Merge::new(Batcher::new(&context), board, shared, window, seen);
        let mut merged = pin!(merge.run(events));
        let mut is_merged = false;
        loop {
            tokio::select! {
                merged = &mut merged, if !is_merged => {
                    merged.map_err(|error| stage_failed(&context.name, error))?;
                    is_merged = true;
                }
                ended = connections.join_next(), if !connections.is_empty() => {
                    if let Some(ended) = ended {
                        ended.outcome.map_err(|error| error.of_runner(&ended.name))?;
                    }
                }
                else => return Ok(()),
            }
        }
    }

    async fn probe(&self) -> Result<String, String> {
        let mut found = Vec::new();
        for route in &self.settings.routes {
            let found_there = probe(&self.settings, route).await?;
            if !found.contains(&found_there) {
                found.push(found_there);
            }
        }
        Ok(found.join("; "))
    }
}

/// Tries one route and says what it found.
async fn probe(settings: &Settings, route: &Route) -> Result<String, String> {
    let start = Instant::now();
    let shown = route.shown();
    match connect::connect(settings, route).await {
        Ok((socket, _unsaid)) => {
            let took = start.elapsed();
            farewell::hang_up(socket).await;
            Ok(format!("{shown}: handshake done in {} ms", took.as_millis()))
        }
        Err(error) => Err(format!("{shown}: {error}")),
    }
}
