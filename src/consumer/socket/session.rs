//! One live connection: says what the script says, and reads messages into the queue until the connection is lost or is to be
//! closed.
//!
//! The hot loop takes all frames that are there before it looks at timers again. They count as received when they were read from
//! the connection, at full load hundreds at a time, so a message costs hardly more than a copy. Pings are answered by the library
//! on the next read, which under load is the next frame.

mod speak;

use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::cause;
use super::connect::{Socket, take_has_read};
use super::connection::Progress;
use super::farewell::{CLOSE_TIMEOUT, leave};
use super::intake::{Aside, Intake};
use super::liveness::{Heard, IdleAction, Liveness, Verdict};
use super::merge::{BEHIND, Ended};
use super::queue::Closed;
use super::script::{Conversation, Meaning, Script};
use super::settings::Settings;
use super::status::Status;
use crate::record::Timestamp;

/// Most frames taken before timers and orders are looked at again.
const MAX_BURST: usize = 256;
/// Data for this long means that the feed is healthy, and the next loss begins with short delays again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How long the closing handshake of a connection may take whose place another one has taken. Nobody waits for it, and its
/// answer is what tells that nothing is missing before the other one.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The consumer is to stop; the connection is closed in order.
    Stopped,
    /// Another connection has taken its place; it is closed in order.
    Retired,
    /// There is no connection any more.
    Lost {
        /// Why, in words.
        cause: String,
        /// Whether it had given data for long enough to be called healthy.
        was_healthy: bool,
    },
}

/// What a session may be told while it runs.
pub(super) struct Orders {
    /// The consumer is to stop.
    pub(super) stop: CancellationToken,
    /// Another connection has taken its place.
    pub(super) retire: CancellationToken,
    /// The merge can't use what it brings.
    pub(super) behind: CancellationToken,
}

/// One live connection.
pub(super) struct Session<'a, I> {
    socket: Socket,
    intake: I,
    orders: Orders,
    status: &'a Status,
    progress: watch::Sender<Progress>,
    liveness: Liveness,
    conversation: Conversation<'a>,
    steps: usize,
    ping: Message,
    /// When everything was subscribed.
    subscribed: Option<Instant>,
    /// When the last data message came.
    last_data: Option<Instant>,
    /// When anything came, by the clock of the messages.
    last_received: Timestamp,
}

/// What a session is to do next.
enum Turn {
    GoOn,
    Leave(Broken),
    Close(End),
}

/// Why a session can't go on, and the code to tell the server, if it still listens.
struct Broken {
    cause: String,
    tell: Option<CloseCode>,
}

impl Broken {
    /// The connection is of no use any more, or too bad to say anything.
    fn silently(cause: String) -> Self {
        Self { cause, tell: None }
    }

    fn of_error(error: &Error) -> Self {
        let (cause, tell) = cause::of_error(error);
        Self { cause, tell }
    }
}

impl<'a, I: Intake> Session<'a, I> {
    /// A session on a connection that has just been made.
    pub(super) fn new(
        (socket, mut script): (Socket, Script<'a>),
        intake: I,
        orders: Orders,
        status: &'a Status,
        settings: &'a Settings,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let now = Instant::now();
        let must_answer = settings
            .ping_message
            .as_ref()
            .is_some_and(|ping| ping.expect.is_some());
        let sign_of_life = if must_answer { Heard::Control } else { Heard::Frame };
        Self {
            socket,
            intake,
            orders,
            status,
            progress,
            liveness: Liveness::new(settings.ping, sign_of_life, settings.idle, now),
            ping: script
                .ping
                .take()
                .unwrap_or_else(|| Message::Ping(Default::default())),
            conversation: Conversation::new(script, settings),
            steps: settings.subscribe.len(),
            subscribed: None,
            last_data: None,
            last_received: Timestamp::now(),
        }
    }

    /// Receives until the connection is lost or is to be closed, and tells the queue so.
    ///
    /// # Errors
    /// When nobody takes what is received any more.
    pub(super) async fn run(mut self) -> Result<End, Closed> {
        let end = self.receive_until_the_end().await?;
        let (cause, is_stop) = match &end {
            End::Stopped => (String::new(), true),
            End::Retired => (cause::UNANSWERED.to_owned(), false),
            End::Lost { cause, .. } => (cause.clone(), false),
        };
        let ended = Ended {
            cause,
            last_received: self.last_received,
            had_data: self.last_data.is_some(),
            is_stop,
        };
        self.intake.ended(ended).await?;
        Ok(end)
    }

    async fn receive_until_the_end(&mut self) -> Result<End, Closed> {
        let Orders { stop, retire, behind } = &self.orders;
        let (stop, retire, behind) = (stop.clone(), retire.clone(), behind.clone());
        let mut stopped = pin!(stop.cancelled());
        let mut retired = pin!(retire.cancelled());
        let mut is_behind = pin!(behind.cancelled());
        let mut turn = Turn::of(self.speak().await?);
        let mut next_look = self.next_look();
        let mut timer = pin!(sleep_until(next_look));
        let broken = loop {
            match turn {
                Turn::GoOn => {}
                Turn::Leave(broken) => break broken,
                Turn::Close(end) => {
                    let patience = match end {
                        End::Retired => RETIRE_TIMEOUT,
                        End::Stopped | End::Lost { .. } => CLOSE_TIMEOUT,
                    };
                    self.close_in_order(patience).await?;
                    return Ok(end);
                }
            }
            // Looks mostly become due later than was thought, which is found out when the timer fires; a new step may bring one
            // forward.
            let due_sooner = self.next_look();
            if due_sooner < next_look {
                next_look = due_sooner;
                timer.as_mut().reset(next_look);
            }
            turn = tokio::select! {
                biased;
                () = &mut stopped => Turn::Close(End::Stopped),
                () = &mut retired => Turn::Close(End::Retired),
                () = &mut is_behind => Turn::Leave(Broken {
                    cause: BEHIND.to_owned(),
                    tell: Some(CloseCode::Normal),
                }),
                () = &mut timer => {
                    // Whoever was kept from reading finds frames waiting: they are heard before silence is judged.
                    let broken = match self.socket.next().now_or_never() {
                        Some(frame) => self.take(frame).await?,
                        None => self.look().await?,
                    };
                    next_look = self.next_look();
                    timer.as_mut().reset(next_look);
                    Turn::of(broken)
                }
                frame = self.socket.next() => Turn::of(self.take(frame).await?),
            };
        };
        // What is gathered is staged before time is spent on manners.
        self.intake.hand_over().await?;
        if let Some(code) = broken.tell {
            leave(&mut self.socket, code).await;
        }
        Ok(self.lost(broken.cause))
    }

    fn next_look(&self) -> Instant {
        let look = self.liveness.next_look();
        self.conversation
            .deadline()
            .map_or(look, |deadline| look.min(deadline))
    }

    fn forgive(&mut self, deaf: Duration) {
        self.liveness.forgive(deaf);
        self.conversation.forgive(deaf);
    }

    fn lost(&self, cause: String) -> End {
        let was_healthy = match (self.subscribed, self.last_data) {
            (Some(since), Some(last)) => last.saturating_duration_since(since) >= HEALTHY_AFTER,
            _ => false,
        };
        let cause = match self.subscribed {
            Some(_) => cause,
            None => cause::while_subscribing(&cause),
        };
        End::Lost { cause, was_healthy }
    }

    /// Takes this frame and those that are there behind it.
    async fn take(&mut self, first: Option<Result<Message, Error>>) -> Result<Option<Broken>, Closed> {
        let mut frame = first;
        let mut heard = Heard::Frame;
        let mut broken = None;
        for taken in 1.. {
            let message = match frame {
                Some(Ok(Message::Close(frame))) => {
                    self.last_received = Timestamp::now();
                    broken = Some(self.closed_by_server(frame.as_ref()).await);
                    break;
                }
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    broken = Some(Broken::of_error(&error));
                    break;
                }
                None => {
                    broken = Some(Broken::silently(cause::ENDED.to_owned()));
                    break;
                }
            };
            match self.receive(&message).await? {
                Ok(what) => heard = heard.max(what),
                Err(refused) => {
                    broken = Some(refused);
                    break;
                }
            }
            // It lies in the library's read buffer, which is only used again, and as large as it is, when nobody holds any of it.
            drop(message);
            if taken == MAX_BURST {
                break;
            }
            match self.socket.next().now_or_never() {
                Some(next) => frame = next,
                None => break,
            }
        }
        let deaf = self.intake.hand_over().await?;
        self.forgive(deaf);
        let now = Instant::now();
        if heard == Heard::Data {
            self.last_data = Some(now);
        }
        if self.liveness.heard(now, heard) {
            self.status.data_again();
        }
        Ok(broken)
    }

    /// Takes one message of a connection on which nothing more is said. Returns the cause when it is a refusal.
    async fn overhear(&mut self, message: &Message) -> Result<Option<String>, Closed> {
        self.last_received = Timestamp::now();
        let Some(payload) = payload(message) else {
            self.intake.aside(Aside::Frame(message));
            return Ok(None);
        };
        let meaning = self.conversation.hear(payload);
        self.tell(&meaning, payload);
        let refusal = match meaning {
            Meaning::Data => {
                self.keep(payload).await?;
                return Ok(None);
            }
            Meaning::Control | Meaning::Answer => None,
            Meaning::Refusal(cause) => Some(cause),
        };
        self.status.control();
        Ok(refusal)
    }

    /// Takes one message; an answer that was waited for lets the script go on.
    async fn receive(&mut self, message: &Message) -> Result<Result<Heard, Broken>, Closed> {
        if take_has_read(&mut self.socket) {
            self.last_received = Timestamp::now();
        }
        let Some(payload) = payload(message) else {
            self.intake.aside(Aside::Frame(message));
            return Ok(Ok(Heard::Frame));
        };
        let meaning = self.conversation.hear(payload);
        self.tell(&meaning, payload);
        match meaning {
            Meaning::Data => {
                self.keep(payload).await?;
                Ok(Ok(Heard::Data))
            }
            Meaning::Control => {
                self.status.control();
                Ok(Ok(Heard::Control))
            }
            Meaning::Answer => {
                self.status.control();
                let broken = self.speak().await?;
                // What was read with the answer is not to stand before what came of it.
                self.last_received = Timestamp::now();
                Ok(broken.map_or(Ok(Heard::Control), Err))
            }
            Meaning::Refusal(cause) => {
                self.status.control();
                Ok(Err(Broken {
                    cause,
                    tell: Some(CloseCode::Normal),
                }))
            }
        }
    }

    /// Tells of a message that is no data.
    fn tell(&mut self, meaning: &Meaning, payload: &[u8]) {
        let aside = match meaning {
            Meaning::Data => return,
            Meaning::Control => Aside::Control(payload),
            Meaning::Answer => Aside::Answer(payload),
            Meaning::Refusal(_) => Aside::Refusal(payload),
        };
        self.intake.aside(aside);
    }

    /// Hands a data message over.
    async fn keep(&mut self, payload: &[u8]) -> Result<(), Closed> {
        let deaf = self.intake.push(payload, self.last_received).await?;
        if !deaf.is_zero() {
            self.forgive(deaf);
        }
        Ok(())
    }

    /// Looks for silences, and sends a ping when one is due.
    async fn look(&mut self) -> Result<Option<Broken>, Closed> {
        let now = Instant::now();
        if let Some(cause) = self.conversation.overdue(now) {
            return Ok(Some(Broken {
                cause,
                tell: Some(CloseCode::Normal),
            }));
        }
        Ok(match self.liveness.look(now) {
            Verdict::Alive => None,
            Verdict::PingNow => return self.send_ping().await,
            Verdict::Gone(silence) => Some(Broken::silently(cause::gone(silence))),
            Verdict::Idle(silence, IdleAction::Reconnect) => Some(Broken {
                cause: cause::idle(silence),
                tell: Some(CloseCode::Away),
            }),
            Verdict::Idle(silence, IdleAction::Warn) => {
                self.status.silent(&cause::idle(silence));
                None
            }
        })
    }

    /// Sends the answer to the server's close frame, which the library has ready.
    async fn closed_by_server(&mut self, frame: Option<&CloseFrame>) -> Broken {
        // A server that does not take it any more has said what it had to say.
        let _ = timeout(CLOSE_TIMEOUT, self.socket.flush()).await;
        Broken::silently(cause::closed(frame))
    }

    /// Asks the server to close, and keeps what it sends until it has.
    async fn close_in_order(&mut self, patience: Duration) -> Result<(), Closed> {
        let deadline = Instant::now() + patience;
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
        loop {
            // Taking a message in must not be cancelled, so only the wait for it is under the deadline.
            match timeout_at(deadline, self.socket.next()).await {
                Ok(Some(Ok(message))) => {
                    self.overhear(&message).await?;
                    // The other connection brings what comes after it, which is not to stand before it.
                    self.intake.hand_over().await?;
                    // The server has answered: nothing can follow.
                    if message.is_close() {
                        return Ok(());
                    }
                }
                // That is an answer too, though no polite one.
                Ok(None | Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)))) => {
                    self.last_received = Timestamp::now();
                    return Ok(());
                }
                Ok(Some(Err(_))) | Err(_) => return Ok(()),
            }
        }
    }
}

impl Turn {
    fn of(broken: Option<Broken>) -> Self {
        broken.map_or(Self::GoOn, Self::Leave)
    }
}

/// What a message holds, if it is one and no frame of the protocol itself.
fn payload(message: &Message) -> Option<&[u8]> {
    match message {
        Message::Text(text) => Some(text.as_bytes()),
        Message::Binary(bytes) => Some(bytes),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
    }
}
