//! A consumer under test, and a server whose every word the test says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async, accept_hdr_async};
use tokio_util::sync::CancellationToken;

use super::super::SocketConsumer;
use super::super::endpoint::Endpoint;
use super::super::script::{Outgoing, Step};
use super::super::settings::Settings;
use crate::backoff::Backoff;
use crate::config::{Section, Variables};
use crate::consumer::Consumer;
pub(super) use crate::consumer::captured_log::Log;
use crate::consumer::memory_stage::{Durability, MemoryStage, context};
use crate::exit::RunnerError;
use crate::stats::{ConsumerState, ConsumerStats};

/// Settings that differ from the defaults only in short delays between attempts.
pub(super) fn settings(uri: &str) -> Settings {
    let mut settings = Settings::defaults(Endpoint::parse(uri).unwrap());
    settings.backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
    settings
}

/// The same, with these keys of `config.yml` beside `uri`.
pub(super) fn settings_with(uri: &str, keys: &str) -> Settings {
    let text = format!("uri: {uri}\n{keys}");
    let read = Section::read_text(&text, &Variables::default(), Settings::read);
    let given = read.unwrap_or_else(|mistakes| panic!("{mistakes}")).unwrap();
    Settings {
        backoff: settings(uri).backoff,
        ..given
    }
}

/// A step that sends a text.
pub(super) fn say(text: &str) -> Step {
    Step::Send(Outgoing::Fixed(Message::Text(text.into())))
}

/// A consumer that runs.
pub(super) struct Running {
    pub(super) stage: Arc<MemoryStage>,
    pub(super) stats: Arc<ConsumerStats>,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<Result<(), RunnerError>>,
}

impl Running {
    pub(super) fn start(settings: Settings, durability: Durability) -> Self {
        let stage = MemoryStage::new(durability);
        let context = context(&stage);
        let (stats, stop) = (Arc::clone(&context.stats), context.stop.clone());
        let task = tokio::spawn(Box::new(SocketConsumer { settings }).run(context));
        Self {
            stage,
            stats,
            stop,
            task,
        }
    }

    /// Waits until the consumer is in this state, and gives the reason.
    pub(super) async fn state_is(&self, state: ConsumerState) -> String {
        loop {
            let snapshot = self.stats.state.snapshot();
            if snapshot.state == state {
                return snapshot.why;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Stops it, and gives what it left.
    pub(super) async fn stop(self) -> (Arc<MemoryStage>, Arc<ConsumerStats>) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        (self.stage, self.stats)
    }

    /// Stops it while the server answers on this connection.
    pub(super) async fn stop_beside(
        self,
        socket: &mut WebSocketStream<TcpStream>,
    ) -> (Arc<MemoryStage>, Arc<ConsumerStats>) {
        self.stop.cancel();
        let answering = async { while let Some(Ok(_)) = socket.next().await {} };
        let (left, ()) = tokio::join!(self.stop(), answering);
        left
    }
}

/// A listening server; the test accepts and speaks for it.
pub(super) struct Server {
    pub(super) listener: TcpListener,
}

impl Server {
    pub(super) async fn listen() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    pub(super) fn uri(&self) -> String {
        format!("ws://{}/", self.listener.local_addr().unwrap())
    }

    /// The next connection, before its handshake.
    pub(super) async fn accept_tcp(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// The next connection after its handshake, and the headers of that.
    #[expect(
        clippy::result_large_err,
        reason = "the library's callback has to return its response by value"
    )]
    pub(super) async fn accept_with_headers(&self) -> (WebSocketStream<TcpStream>, HeaderMap) {
        let mut headers = HeaderMap::new();
        let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            headers = request.headers().clone();
            Ok(response)
        };
        let socket = accept_hdr_async(self.accept_tcp().await, note).await.unwrap();
        (socket, headers)
    }

    /// The next connection, after its handshake.
    pub(super) async fn accept(&self) -> WebSocketStream<TcpStream> {
        accept_async(self.accept_tcp().await).await.unwrap()
    }
}

/// A close frame.
pub(super) fn frame(code: CloseCode, reason: &'static str) -> Option<CloseFrame> {
    Some(CloseFrame {
        code,
        reason: reason.into(),
    })
}

/// Reads up to the client's close frame.
pub(super) async fn close_code(socket: &mut WebSocketStream<TcpStream>) -> CloseCode {
    loop {
        if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
            return frame.unwrap().code;
        }
    }
}
