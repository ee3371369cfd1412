//! One session that keeps nothing: what a `socket` consumer would go through, shown event by event to who tries a feed.
//!
//! Connecting, talking and judging silences are the consumer's own; only where the messages go differs. There is one
//! connection, the first of `connections`: when it is lost, that is how the trial ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ProtocolVersion;
use tokio::sync::watch;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::http::header::{SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use tokio_util::sync::CancellationToken;

use super::connect::{Socket, connect_with_answer};
use super::intake::{Aside, Intake};
use super::lane::Lane;
use super::merge::Ended;
use super::queue::Closed;
use super::refusal::ConnectError;
use super::script::{Conversation, Meaning, Next, Script};
use super::session::{End, Orders, Session};
use super::settings::{Route, Settings};
use super::status::{Board, Status};
use crate::config::Section;
use crate::record::Timestamp;
use crate::stats::ConsumerStats;

/// The name in logs.
const NAME: &str = "probe";

/// A feed that is to be tried.
pub struct Trial {
    settings: Settings,
}

/// Why a feed can't be tried. Says what to do where that is known, and quotes no secret.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TrialError(#[from] ConnectError);

/// What the server answered when the connection was made.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// From the look-up of the name to the end of the handshake.
    pub took: Duration,
    /// The HTTP status.
    pub status: u16,
    /// The subprotocol that it chose.
    pub subprotocol: Option<String>,
    /// The extensions that it agreed to. None are asked for.
    pub extensions: Option<String>,
    /// The version of TLS and the cipher suite.
    pub tls: Option<String>,
}

/// What a message was to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It would be staged.
    Data,
    /// A heartbeat, or the answer to a ping by message.
    Control,
    /// What `subscribe` waited for.
    Answer,
    /// It told that the answer will not come.
    Refusal,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'m> {
    /// A message came.
    Message(Role, &'m [u8]),
    /// A ping of the server's came, and is answered.
    Ping,
    /// The answer to a ping of ours came.
    Pong,
    /// A ping of ours was sent.
    PingSent,
    /// All steps of `subscribe` are done.
    Subscribed,
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialEnd {
    /// It was stopped, and the connection closed in order.
    Stopped,
    /// The connection was lost, or given up; why, in words.
    Lost(String),
}

/// A feed that has been connected to.
pub struct Connected<'t> {
    /// What it answered.
    pub handshake: Handshake,
    socket: Socket,
    script: Script<'t>,
    settings: &'t Settings,
}

impl Trial {
    /// Reads the keys of a `socket` consumer. `None` when something is wrong; it is then reported.
    #[must_use]
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        Settings::read(section).map(|settings| Self { settings })
    }

    /// Sends pings so often at least, unless it is to send none: who looks for a short time wants to see an answer.
    pub fn ping_within(&mut self, interval: Duration) {
        if let Some(ping) = &mut self.settings.ping {
            ping.interval = ping.interval.min(interval);
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// When the server can't be reached, or refuses.
    pub async fn connect(&self) -> Result<Connected<'_>, TrialError> {
        let start = Instant::now();
        let (socket, script, answer) = connect_with_answer(&self.settings, &self.settings.routes[0]).await?;
        Ok(Connected {
            handshake: handshake(start.elapsed(), &answer, &socket),
            socket,
            script,
            settings: &self.settings,
        })
    }

    /// What these messages, in the order in which they came, would have been to a session.
    ///
    /// # Errors
    /// When a file that the script names can't be read.
    pub async fn rehear<'m>(
        &self,
        messages: impl Iterator<Item = &'m [u8]>,
    ) -> Result<Vec<Role>, TrialError> {
        let script = Script::prepare(&self.settings)
            .await
            .map_err(ConnectError::from)?;
        let mut conversation = Conversation::new(script, &self.settings);
        go_on(&mut conversation);
        let roles = messages.map(|payload| {
            let role = role(&conversation.hear(payload));
            if role == Role::Answer {
                go_on(&mut conversation);
            }
            role
        });
        Ok(roles.collect())
    }
}

impl Connected<'_> {
    /// Says what `subscribe` says, and listens until it is stopped or the connection is lost.
    pub async fn listen(self, stop: &CancellationToken, seen: impl FnMut(Timestamp, Seen<'_>)) -> TrialEnd {
        let address = self.settings.routes.first().map(Route::shown);
        let board = Board::new(NAME, Arc::<ConsumerStats>::default(), address);
        let status = Status::new(&board, Lane::first_of(0));
        let orders = Orders {
            stop: stop.clone(),
            retire: CancellationToken::new(),
            behind: CancellationToken::new(),
        };
        let connection = (self.socket, self.script);
        let intake = Witness { seen };
        let progress = watch::Sender::default();
        let session = Session::new(connection, intake, orders, &status, self.settings, progress);
        match session.run().await {
            Ok(End::Lost { cause, .. }) => TrialEnd::Lost(cause),
            // Nothing takes its place, and the witness never closes.
            Ok(End::Stopped | End::Retired) | Err(Closed) => TrialEnd::Stopped,
        }
    }
}

/// Says all that there is to say up to the next answer.
fn go_on(conversation: &mut Conversation<'_>) {
    while let Next::Send(_) = conversation.next(tokio::time::Instant::now()) {}
}

fn role(meaning: &Meaning) -> Role {
    match meaning {
        Meaning::Data => Role::Data,
        Meaning::Control => Role::Control,
        Meaning::Answer => Role::Answer,
        Meaning::Refusal(_) => Role::Refusal,
    }
}

/// Shows what comes and keeps nothing.
struct Witness<F> {
    seen: F,
}

impl<F: FnMut(Timestamp, Seen<'_>)> Intake for Witness<F> {
    async fn push(&mut self, payload: &[u8], at: Timestamp) -> Result<Duration, Closed> {
        (self.seen)(at, Seen::Message(Role::Data, payload));
        Ok(Duration::ZERO)
    }

    async fn hand_over(&mut self) -> Result<Duration, Closed> {
        Ok(Duration::ZERO)
    }

    async fn live(&mut self, _at: Timestamp) -> Result<Duration, Closed> {
        Ok(Duration::ZERO)
    }

    async fn ended(&mut self, _end: Ended) -> Result<(), Closed> {
        Ok(())
    }

    fn aside(&mut self, aside: Aside<'_>) {
        let seen = match aside {
            Aside::Frame(Message::Ping(_)) => Seen::Ping,
            Aside::Frame(Message::Pong(_)) => Seen::Pong,
            Aside::Frame(_) => return,
            Aside::Control(payload) => Seen::Message(Role::Control, payload),
            Aside::Answer(payload) => Seen::Message(Role::Answer, payload),
            Aside::Refusal(payload) => Seen::Message(Role::Refusal, payload),
            Aside::PingSent => Seen::PingSent,
            Aside::Subscribed => Seen::Subscribed,
        };
        (self.seen)(Timestamp::now(), seen);
    }
}

fn handshake(took: Duration, answer: &Response, socket: &Socket) -> Handshake {
    let header = |name: HeaderName| {
        let value = answer.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    Handshake {
        took,
        status: answer.status().as_u16(),
        subprotocol: header(SEC_WEBSOCKET_PROTOCOL),
        extensions: header(SEC_WEBSOCKET_EXTENSIONS),
        tls: tls(socket),
    }
}

fn tls(socket: &Socket) -> Option<String> {
    let MaybeTlsStream::Rustls(stream) = socket.get_ref() else {
        return None;
    };
    let (_, connection) = stream.get_ref();
    let version = match connection.protocol_version()? {
        ProtocolVersion::TLSv1_3 => "TLS 1.3".to_owned(),
        ProtocolVersion::TLSv1_2 => "TLS 1.2".to_owned(),
        other => format!("{other:?}"),
    };
    let suite = connection.negotiated_cipher_suite();
    Some(match suite {
        Some(suite) => format!("{version}, {:?}", suite.suite()),
        None => version,
    })
}
