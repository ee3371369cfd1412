//! `socket-el feed`: a WebSocket server on this machine that plays a file or generated trades, for trying and testing
//! without a network.
//!
//! Each request path is one stream with a place of its own: a client that comes back goes on where the path's stream stopped.
//! The place moves when messages are handed to a connection. A connection that the feed closes (`drop_after`, the end, a
//! stop) is closed with a closing handshake, so its client has received everything before; a client that breaks
//! off loses what was on its way, as with a real feed. In a broadcast the place moves with the clock instead, and all connections
//! of a path get the same messages from the moment on which they connect.
//!
//! It is made to be faster than what it feeds: frames are rendered many at a time and written in large pieces. It knows nothing
//! of stages and consumers.

mod args;
mod connection;
mod frame;
mod pace;
mod streams;
#[cfg(test)]
mod tests;
mod trades;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exit::{ExitReason, RunnerError};
pub use args::FeedArgs;
pub use streams::PathStats;
use streams::{Material, Streams};

/// Most clients at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;
/// Longest file that is played: it is held in memory.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Messages a second of a broadcast that is given no rate: it can't be as fast as its clients take them, for they differ.
pub const BROADCAST_RATE: u64 = 1_000;
/// Pause after a failed accept: it fails for want of descriptors, which others must first give back.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What to play, and how.
#[derive(Clone, Debug)]
pub struct FeedOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether `listen` may be an address that other machines reach.
    pub public: bool,
    /// What is played on every path.
    pub source: Source,
    /// Messages a second to each connection; `None` for as fast as it takes them.
    pub rate: Option<u64>,
    /// Whether all connections of a path get the same messages, as from an exchange; without a `rate`, [`BROADCAST_RATE`]
    /// a second.
    pub broadcast: bool,
    /// Close each connection after so many messages.
    pub drop_after: Option<u64>,
    /// What becomes of a connection when everything is sent.
    pub then: Then,
}

impl Default for FeedOptions {
    /// Endless trades, as fast as they are taken, on a free port of the loopback address.
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            public: false,
            source: Source::Generated {
                first: 0,
                count: None,
            },
            rate: None,
            broadcast: false,
            drop_after: None,
            then: Then::Stay,
        }
    }
}

/// What is played on every path.
#[derive(Clone, Debug)]
pub enum Source {
    /// Generated trades with a running number.
    Generated {
        /// The number of the first trade of each path.
        first: u64,
        /// So many per path; `None` for no end.
        count: Option<u64>,
    },
    /// The lines of a file, a message each without its line feed. Lines that are not UTF-8 go as binary messages.
    File {
        /// The file, at most 1 GiB.
        path: PathBuf,
        /// Whether to begin again at its end.
        repeat: bool,
    },
}

/// What becomes of a connection when everything is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Then {
    /// It is closed.
    Close,
    /// It stays open and its pings are answered.
    #[default]
    Stay,
}

/// Why a feed can't play.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Other machines could reach it.
    #[error("{0} can be reached from other machines; listen on 127.0.0.1, or add --public if that is meant")]
    NotLoopback(SocketAddr),
    /// The address can't be had.
    #[error("can't listen on {address}: {source}; choose another port with --listen, 0 for a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file can't be read.
    #[error("can't read {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has nothing to play.
    #[error("{} is empty; a file to play has a message on each line", .0.display())]
    EmptyFile(PathBuf),
    /// The file is too long.
    #[error("{} has {bytes} bytes; a file to play may have up to {MAX_FILE_BYTES}", .path.display())]
    LongFile {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Standard output is closed.
    #[error("can't write to standard output: {0}")]
    Output(#[source] io::Error),
}

impl From<FeedError> for RunnerError {
    fn from(error: FeedError) -> Self {
        let reason = match error {
            FeedError::NotLoopback(_)
            | FeedError::File { .. }
            | FeedError::EmptyFile(_)
            | FeedError::LongFile { .. } => ExitReason::Configuration,
            FeedError::Listen { .. } | FeedError::Output(_) => ExitReason::Failed,
        };
        Self::new(reason, error)
    }
}

/// A server that listens, and plays while [`Feed::run`] runs.
#[derive(Debug)]
pub struct Feed {
    listener: TcpListener,
    address: SocketAddr,
    options: Arc<FeedOptions>,
    streams: Arc<Streams>,
}

impl Feed {
    /// Reads the file, if one is to be played, and listens.
    ///
    /// # Errors
    /// When the address may not or can't be listened on, or the file can't be played.
    pub async fn bind(options: FeedOptions) -> Result<Self, FeedError> {
        let listen = options.listen;
        if !options.public && !listen.ip().is_loopback() {
            return Err(FeedError::NotLoopback(listen));
        }
        let material = material(&options.source).await?;
        let unavailable = |source| FeedError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(unavailable)?;
        let address = listener.local_addr().map_err(unavailable)?;
        Ok(Self {
            listener,
            address,
            streams: Arc::new(Streams::new(
                material,
                options.broadcast.then(|| options.rate.unwrap_or(BROADCAST_RATE)),
            )),
            options: Arc::new(options),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What was sent so far, per path.
    #[must_use]
    pub fn stats(&self) -> Vec<PathStats> {
        self.streams.stats()
    }

    /// Serves clients until `stop` is cancelled; then closes their connections in order and returns.
    pub async fn run(&self, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((tcp, client)) => {
                        let serving = connection::serve(
                            tcp,
                            Arc::clone(&self.streams),
                            Arc::clone(&self.options),
                            stop.clone(),
                        );
                        connections.spawn(async move {
                            match serving.await {
                                Ok(()) => tracing::debug!(%client, "connection closed"),
                                Err(error) => tracing::info!(%client, %error, "connection ended"),
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "can't accept a connection; trying again");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        }
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    }
}

/// A connection's panic ends that connection only: the others are other people's tests.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection of the feed failed");
    }
}

async fn material(source: &Source) -> Result<Material, FeedError> {
    match source {
        Source::Generated { first, count } => Ok(Material::Trades {
            first: *first,
            count: *count,
        }),
        Source::File { path, repeat } => {
            let unreadable = |source| FeedError::File {
                path: path.clone(),
                source,
            };
            let bytes = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
            if bytes > MAX_FILE_BYTES {
                return Err(FeedError::LongFile {
                    path: path.clone(),
                    bytes,
                });
            }
            let content = tokio::fs::read(path).await.map_err(unreadable)?;
            if content.is_empty() {
                return Err(FeedError::EmptyFile(path.clone()));
            }
            Ok(Material::Lines {
                content: content.into(),
                repeat: *repeat,
            })
        }
    }
}

/// The command: prints `listening on ws://ADDRESS/` as its first line, plays until `stop` is cancelled, and then prints
/// what it has sent, a line per path.
///
/// # Errors
/// As [`Feed::bind`]; and when standard output is closed.
pub async fn run(args: FeedArgs, stop: CancellationToken) -> Result<(), RunnerError> {
    let feed = Feed::bind(args.into()).await?;
    print(&format!("listening on ws://{}/\n", feed.local_addr()))?;
    feed.run(stop).await;
    let mut summary = String::new();
    for PathStats {
        path,
        sent,
        connections,
    } in feed.stats()
    {
        summary.push_str(&format!("{path}: {sent} messages to {connections} connections\n"));
    }
    print(&summary)?;
    Ok(())
}

/// Prints at once: whoever started the command may be waiting for the line.
fn print(text: &str) -> Result<(), FeedError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(FeedError::Output)
}
