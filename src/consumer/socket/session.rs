//! One live connection: reads messages into the batcher until it is lost or the consumer is to stop.
//!
//! The hot loop takes all frames that are there before it looks at timers again, so a message at full load costs a receive
//! time and a copy. Pings are answered by the library on the next read, which under load is the next frame.

use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_util::sync::CancellationToken;

use super::cause;
use super::connect::Socket;
use super::liveness::{Liveness, Verdict};
use super::settings::Settings;
use crate::consumer::batcher::Batcher;
use crate::record::Timestamp;
use crate::stage::StageError;

/// Most frames taken before timers and the stop are looked at again.
const MAX_BURST: usize = 256;
/// How long a closing handshake may take. What the server sends meanwhile is still received.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a ping may take to be handed to the system; longer, and the peer reads nothing.
const PING_SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// What a server still sends after it was told why it is left is read for so long, so that it gets to read the reason.
const LINGER: Duration = Duration::from_secs(1);
/// The buffer for that.
const LINGER_BUFFER_BYTES: usize = 64 << 10;
/// Data for this long means that the feed is healthy, and the next loss begins with short delays again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The consumer is to stop; the connection is closed in order.
    Stopped,
    /// There is no connection any more.
    Lost(Loss),
}

/// A connection that was lost.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// Since when messages may have been missed: when anything was last received.
    pub(super) since: Timestamp,
    /// Why, in words.
    pub(super) cause: String,
    /// Whether it had given data for long enough to be called healthy.
    pub(super) was_healthy: bool,
}

/// One live connection.
pub(super) struct Session<'a> {
    socket: Socket,
    batcher: &'a mut Batcher,
    stop: &'a CancellationToken,
    liveness: Liveness,
    connected: Instant,
    /// When the last data message came.
    last_data: Option<Instant>,
    /// When anything came, by the clock of the messages.
    last_received: Timestamp,
}

/// Why a session can't go on, and the code to tell the server, if it still listens.
struct Broken {
    cause: String,
    tell: Option<CloseCode>,
}

impl<'a> Session<'a> {
    /// A session on a connection that has just been subscribed.
    pub(super) fn new(
        socket: Socket,
        batcher: &'a mut Batcher,
        stop: &'a CancellationToken,
        settings: &Settings,
    ) -> Self {
        let now = Instant::now();
        Self {
            socket,
            batcher,
            stop,
            liveness: Liveness::new(settings.ping, settings.idle_timeout, now),
            connected: now,
            last_data: None,
            last_received: Timestamp::now(),
        }
    }

    /// Receives until the connection is lost or the consumer is to stop.
    ///
    /// # Errors
    /// When the stage has failed.
    pub(super) async fn run(mut self) -> Result<End, StageError> {
        let stop = self.stop;
        let mut stopped = pin!(stop.cancelled());
        let mut timer = pin!(sleep_until(self.liveness.next_look()));
        let broken = loop {
            tokio::select! {
                biased;
                () = &mut stopped => {
                    self.close_in_order().await?;
                    return Ok(End::Stopped);
                }
                due = self.batcher.due() => {
                    due?;
                    let begun = Instant::now();
                    self.batcher.flush().await?;
                    self.liveness.forgive(begun.elapsed());
                }
                () = &mut timer => {
                    // Whoever was kept from reading finds frames waiting: they are heard before silence is judged.
                    let broken = match self.socket.next().now_or_never() {
                        Some(frame) => self.take(frame).await?,
                        None => self.look().await,
                    };
                    if let Some(broken) = broken {
                        break broken;
                    }
                    timer.as_mut().reset(self.liveness.next_look());
                }
                frame = self.socket.next() => {
                    if let Some(broken) = self.take(frame).await? {
                        break broken;
                    }
                }
            }
        };
        let was_healthy = self
            .last_data
            .is_some_and(|last| last.duration_since(self.connected) >= HEALTHY_AFTER);
        let loss = Loss {
            since: self.last_received,
            cause: broken.cause,
            was_healthy,
        };
        // What is gathered is staged before time is spent on manners.
        self.batcher.flush().await?;
        if let Some(code) = broken.tell {
            leave(&mut self.socket, code).await;
        }
        Ok(End::Lost(loss))
    }

    /// Takes this frame and those that are there behind it.
    async fn take(&mut self, first: Option<Result<Message, Error>>) -> Result<Option<Broken>, StageError> {
        let mut frame = first;
        let mut data = false;
        let mut broken = None;
        for taken in 1.. {
            match frame {
                Some(Ok(Message::Text(text))) => {
                    self.receive(text.as_bytes()).await?;
                    data = true;
                }
                Some(Ok(Message::Binary(bytes))) => {
                    self.receive(&bytes).await?;
                    data = true;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                    self.last_received = Timestamp::now();
                }
                Some(Ok(Message::Close(frame))) => {
                    self.last_received = Timestamp::now();
                    broken = Some(self.closed_by_server(frame.as_ref()).await);
                    break;
                }
                Some(Err(error)) => {
                    let (cause, tell) = cause::of_error(&error);
                    broken = Some(Broken { cause, tell });
                    break;
                }
                None => {
                    broken = Some(Broken {
                        cause: cause::ENDED.to_owned(),
                        tell: None,
                    });
                    break;
                }
            }
            if taken == MAX_BURST {
                break;
            }
            match self.socket.next().now_or_never() {
                Some(next) => frame = next,
                None => break,
            }
        }
        let now = Instant::now();
        if data {
            self.last_data = Some(now);
        }
        self.liveness.heard(now, data);
        Ok(broken)
    }

    async fn receive(&mut self, payload: &[u8]) -> Result<(), StageError> {
        self.last_received = Timestamp::now();
        self.batcher.push(payload, self.last_received).await
    }

    /// Looks for silences, and sends a ping when one is due.
    async fn look(&mut self) -> Option<Broken> {
        match self.liveness.look(Instant::now()) {
            Verdict::Alive => None,
            Verdict::PingNow => {
                let sent = timeout(PING_SEND_TIMEOUT, self.socket.send(Message::Ping(Bytes::new()))).await;
                match sent {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(Broken {
                        cause: cause::of_error(&error).0,
                        tell: None,
                    }),
                    Err(_) => Some(Broken {
                        cause: cause::NOT_READING.to_owned(),
                        tell: None,
                    }),
                }
            }
            Verdict::Gone(silence) => Some(Broken {
                cause: cause::gone(silence),
                tell: None,
            }),
            Verdict::Idle(silence) => Some(Broken {
                cause: cause::idle(silence),
                tell: Some(CloseCode::Away),
            }),
        }
    }

    /// Sends the answer to the server's close frame, which the library has ready.
    async fn closed_by_server(&mut self, frame: Option<&CloseFrame>) -> Broken {
        // A server that does not take it any more has said what it had to say.
        let _ = timeout(CLOSE_TIMEOUT, self.socket.flush()).await;
        Broken {
            cause: cause::closed(frame),
            tell: None,
        }
    }

    /// Asks the server to close, and keeps what it sends until it has.
    async fn close_in_order(&mut self) -> Result<(), StageError> {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let goodbye = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        if !matches!(
            timeout_at(deadline, self.socket.close(Some(goodbye))).await,
            Ok(Ok(()))
        ) {
            return Ok(());
        }
        // Taking a message in must not be cancelled, so only the wait for it is under the deadline.
        while let Ok(Some(Ok(message))) = timeout_at(deadline, self.socket.next()).await {
            match message {
                Message::Text(text) => self.receive(text.as_bytes()).await?,
                Message::Binary(bytes) => self.receive(&bytes).await?,
                // The server has answered: nothing can follow.
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(())
    }
}

/// Tells the server why it is left. It may be in the midst of sending: ending the connection with bytes unread would reset it,
/// and the server might never read the reason; so what still comes is read, for a moment, and thrown away.
async fn leave(socket: &mut Socket, code: CloseCode) {
    let frame = CloseFrame {
        code,
        reason: "".into(),
    };
    if !matches!(timeout(LINGER, socket.close(Some(frame))).await, Ok(Ok(()))) {
        return;
    }
    let mut thrown_away = vec![0; LINGER_BUFFER_BYTES];
    let rest = async { while let Ok(1..) = socket.get_mut().read(&mut thrown_away).await {} };
    let _ = timeout(LINGER, rest).await;
}

/// Closes a connection that was only tried.
pub(super) async fn hang_up(mut socket: Socket) {
    let closing = async {
        let closed = socket.close(None).await;
        while closed.is_ok()
            && let Some(Ok(message)) = socket.next().await
            && !message.is_close()
        {}
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}
