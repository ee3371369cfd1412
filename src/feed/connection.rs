//! One client of the feed: handshake, messages at the client's pace or the configured one, pings answered, a clean close.
//!
//! Data frames are written past the WebSocket library straight to the TCP stream, so the library's own output (pongs, close
//! frames) must be flushed before each such write: a frame begun must be ended before another begins.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::streams::{Seat, Stream, Streams, locked};
use super::{FeedOptions, Then};

/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to answer the feed's close frame, or on a stop to take what is being written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames are written in pieces of about this size: few system calls, and a ping waits no longer than one piece.
const CHUNK_BYTES: usize = 128 << 10;
/// Longest message that a client may send: subscriptions are small, and are not looked at.
const MAX_CLIENT_MESSAGE_BYTES: usize = 1 << 20;
/// Most client frames handled between two pieces, so that a chatty client still gets its messages.
const MAX_CLIENT_FRAMES: usize = 64;

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    HandshakeTimeout,
    #[error("the handshake failed: {0}")]
    Handshake(#[source] tungstenite::Error),
    #[error("the client broke the connection: {0}")]
    Client(#[source] tungstenite::Error),
    #[error("the client went away: {0}")]
    Write(#[source] io::Error),
    #[error("the client did not close within {} s", CLOSE_TIMEOUT.as_secs())]
    CloseTimeout,
}

type Socket = WebSocketStream<TcpStream>;

/// Serves one client until it leaves, its share is sent, or `stop` is cancelled.
pub(super) async fn serve(
    tcp: TcpStream,
    streams: Arc<Streams>,
    options: Arc<FeedOptions>,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    // Small messages at a slow rate are to leave at once.
    tcp.set_nodelay(true).map_err(ConnectionError::Write)?;
    let (socket, seat) = timeout(HANDSHAKE_TIMEOUT, handshake(tcp, &streams))
        .await
        .map_err(|_| ConnectionError::HandshakeTimeout)?
        .map_err(ConnectionError::Handshake)?;
    let connection = Connection {
        socket,
        stream: seat.stream,
        pace: seat
            .pace
            .or_else(|| options.rate.map(|rate| Pace::new(rate, Instant::now()))),
        left: options.drop_after.unwrap_or(u64::MAX),
        then: options.then,
        stop,
    };
    connection.play().await
}

/// Accepts the request, finds the path's stream, and agrees to the first subprotocol that the client offers.
#[expect(
    clippy::result_large_err,
    reason = "the library's callback has to return its response by value"
)]
async fn handshake(tcp: TcpStream, streams: &Streams) -> Result<(Socket, Seat), tungstenite::Error> {
    let mut found = None;
    let callback = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        found = streams.connect(request.uri().path(), Instant::now());
        if found.is_none() {
            let mut refusal = ErrorResponse::new(Some("too many request paths\n".to_owned()));
            *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Err(refusal);
        }
        let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL);
        if let Some(first) = offered.and_then(|offered| offered.to_str().ok()?.split(',').next())
            && let Ok(first) = HeaderValue::from_str(first.trim())
        {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, first);
        }
        Ok(response)
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_CLIENT_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_CLIENT_MESSAGE_BYTES));
    let socket = accept_hdr_async_with_config(tcp, callback, Some(config)).await?;
    found
        .map(|seat| (socket, seat))
        .ok_or(tungstenite::Error::ConnectionClosed)
}

struct Connection {
    socket: Socket,
    stream: Arc<Mutex<Stream>>,
    pace: Option<Pace>,
    /// Messages until `--drop-after` closes it.
    left: u64,
    then: Then,
    stop: CancellationToken,
}

/// What the client's side of the connection is like.
#[derive(PartialEq, Eq)]
enum Client {
    Open,
    Closed,
}

impl Connection {
    async fn play(mut self) -> Result<(), ConnectionError> {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES * 2);
        loop {
            if self.answer()? == Client::Closed {
                return self.finish_close().await;
            }
            if self.stop.is_cancelled() {
                return self.close(CloseCode::Away, "the feed stops").await;
            }
            if self.left == 0 {
                return self.close(CloseCode::Normal, "drop-after reached").await;
            }
            if self.is_too_late() {
                return self.close(CloseCode::Policy, "too slow for a broadcast").await;
            }
            let allowance = self
                .pace
                .as_mut()
                .map_or(u64::MAX, |pace| pace.allowance(Instant::now()));
            chunk.clear();
            let (messages, exhausted) = {
                let mut stream = locked(&self.stream);
                let messages = stream.render(&mut chunk, allowance.min(self.left), CHUNK_BYTES);
                (messages, stream.is_exhausted())
            };
            if messages == 0 {
                if exhausted && self.then == Then::Close {
                    return self.close(CloseCode::Normal, "everything is sent").await;
                }
                if self.rest(exhausted).await? == Client::Closed {
                    return self.finish_close().await;
                }
                continue;
            }
            self.left -= messages;
            if let Some(pace) = &mut self.pace {
                pace.spend(messages);
            }
            if !self.write(&chunk).await? {
                return Ok(());
            }
        }
    }

    /// Whether a broadcast waits for this client no longer.
    fn is_too_late(&self) -> bool {
        let pace = self.pace.as_ref();
        pace.is_some_and(|pace| pace.is_too_late(Instant::now())) && !locked(&self.stream).is_exhausted()
    }

    /// Reads what the client has sent by now, without waiting; the library answers pings on the way.
    fn answer(&mut self) -> Result<Client, ConnectionError> {
        for _ in 0..MAX_CLIENT_FRAMES {
            match self.socket.next().now_or_never() {
                None => break,
                Some(frame) => {
                    if heard(frame)? == Client::Closed {
                        return Ok(Client::Closed);
                    }
                }
            }
        }
        Ok(Client::Open)
    }

    /// Waits until there may be something to do.
    async fn rest(&mut self, exhausted: bool) -> Result<Client, ConnectionError> {
        let next = match &self.pace {
            Some(pace) if !exhausted => Some(pace.next(Instant::now())),
            _ => None,
        };
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => Ok(Client::Open),
            () = due => Ok(Client::Open),
            frame = self.socket.next() => heard(frame),
        }
    }

    /// Writes frames. `false` when the feed was stopped and the client did not take them.
    async fn write(&mut self, frames: &[u8]) -> Result<bool, ConnectionError> {
        let Self { socket, stop, .. } = self;
        let write = async {
            socket.flush().await.map_err(ConnectionError::Client)?;
            socket
                .get_mut()
                .write_all(frames)
                .await
                .map_err(ConnectionError::Write)
        };
        let stopped = async {
            stop.cancelled().await;
            sleep(CLOSE_TIMEOUT).await;
        };
        tokio::select! {
            written = write => written.map(|()| true),
            () = stopped => Ok(false),
        }
    }

    /// Sends a close frame and waits for the client's, so that it gets everything that was sent before.
    async fn close(mut self, code: CloseCode, reason: &'static str) -> Result<(), ConnectionError> {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        let closing = async {
            match self.socket.close(Some(frame)).await {
                Ok(()) => drain(&mut self.socket).await,
                Err(error) => Err(ConnectionError::Client(error)),
            }
        };
        timeout(CLOSE_TIMEOUT, closing)
            .await
            .map_err(|_| ConnectionError::CloseTimeout)?
    }

    /// Answers the client's close frame.
    async fn finish_close(mut self) -> Result<(), ConnectionError> {
        timeout(CLOSE_TIMEOUT, drain(&mut self.socket))
            .await
            .map_err(|_| ConnectionError::CloseTimeout)?
    }
}

/// What one result of reading says about the client. The content of its messages is of no interest.
fn heard(frame: Option<Result<Message, tungstenite::Error>>) -> Result<Client, ConnectionError> {
    match frame {
        None | Some(Ok(Message::Close(_))) => Ok(Client::Closed),
        Some(Ok(_)) => Ok(Client::Open),
        Some(Err(error)) => Err(ConnectionError::Client(error)),
    }
}

/// Reads until the closing handshake is done.
async fn drain(socket: &mut Socket) -> Result<(), ConnectionError> {
    while let Some(frame) = socket.next().await {
        frame.map_err(ConnectionError::Client)?;
    }
    Ok(())
}
