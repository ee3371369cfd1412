//! A consumer under test, and a server whose every word the test says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async, accept_hdr_async};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::super::connect::{self, Socket};
use super::super::lane::Lane;
use super::super::merge::Merge;
use super::super::queue::queue;
use super::super::refusal::ConnectError;
use super::super::script::{Outgoing, Script, Step};
use super::super::session::{End, Orders, Session};
use super::super::settings::{Route, Settings};
use super::super::status::{Board, Status};
use super::super::{Batcher, SocketConsumer};
use crate::backoff::Backoff;
use crate::config::{Section, Variables};
pub(super) use crate::consumer::captured_log::Log;
use crate::consumer::memory_stage::{Durability, MemoryStage, context};
use crate::consumer::reach::endpoint::Endpoint;
use crate::consumer::sequence::Sequence;
use crate::consumer::{Consumer, ConsumerContext};
use crate::exit::RunnerError;
use crate::json_path::Path;
use crate::stats::{ConnectionStats, ConsumerState, ConsumerStats};

/// Settings that differ from the defaults only in short delays between attempts.
pub(super) fn settings(uri: &str) -> Settings {
    let mut settings = Settings::defaults(vec![route(uri)]);
    settings.backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
    settings
}

/// A straight route without TLS.
pub(super) fn route(uri: &str) -> Route {
    Route {
        endpoint: Endpoint::parse(uri).unwrap(),
        proxy: None,
        tls: None,
    }
}

/// Settings with these keys of `config.yml` beside `uri`, and short delays between attempts.
pub(super) fn settings_with(uri: &str, keys: &str) -> Settings {
    let text = format!("uri: {uri}\n{keys}");
    let read = Section::read_text(&text, &Variables::default(), Settings::read);
    let given = read.unwrap_or_else(|mistakes| panic!("{mistakes}")).unwrap();
    Settings {
        backoff: settings(uri).backoff,
        ..given
    }
}

/// Connects by the first route.
pub(super) async fn connect(settings: &Settings) -> Result<(Socket, Script<'_>), ConnectError> {
    connect::connect(settings, &settings.routes[0]).await
}

/// One session, with what the server does in it, up to its end.
pub(super) async fn session(
    settings: &Settings,
    stage: &Arc<MemoryStage>,
    server: &Server,
    speaking: impl AsyncFnOnce(WebSocketStream<TcpStream>),
) -> End {
    let (connected, socket) = tokio::join!(connect(settings), server.accept());
    let context = context(stage);
    let board = Board::new("feed", Arc::clone(&context.stats), [String::new()]);
    let lane = Lane::first_of(0);
    let status = Status::new(&board, lane);
    let (sender, events, shared) = queue(None);
    let intake = sender.join(lane, 0, CancellationToken::new()).await.unwrap();
    drop(sender);
    let orders = Orders {
        stop: CancellationToken::new(),
        retire: CancellationToken::new(),
        behind: CancellationToken::new(),
    };
    let progress = tokio::sync::watch::Sender::default();
    let session = Session::new(
        connected.ok().unwrap(),
        intake,
        orders,
        &status,
        settings,
        progress,
    );
    let merge = Merge::new(Batcher::new(&context), Arc::clone(&board), shared, None, None);
    let (end, (), merged) = tokio::join!(session.run(), speaking(socket), merge.run(events));
    merged.unwrap();
    end.unwrap()
}

/// A clock that stands still but for [`pass`](Self::pass). A clock that is only paused runs on whenever nobody has anything to do,
/// also while the kernel still has bytes on their way from one socket to the other; so somebody always has something to do.
pub(super) struct HeldClock(AbortOnDropHandle<()>);

impl HeldClock {
    /// In a test whose clock is paused from the start.
    pub(super) fn hold() -> Self {
        let busy = tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        Self(AbortOnDropHandle::new(busy))
    }

    /// Lets time pass, and everybody begin what is due.
    pub(super) async fn pass(&self, time: Duration) {
        assert!(!self.0.is_finished());
        tokio::time::advance(time).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

/// Waits until it is so, on the clock of the machine's work and not of the test.
pub(super) async fn until(mut it_is_so: impl FnMut() -> bool) {
    while !it_is_so() {
        tokio::task::yield_now().await;
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
        Self::start_in(context(&stage), stage, settings)
    }

    /// A consumer that waits for no other message before it stages one: under a [`HeldClock`] no batch ever gets old.
    pub(super) fn start_unbatched(settings: Settings) -> Self {
        let stage = MemoryStage::new(Durability::Immediate);
        let mut context = context(&stage);
        context.batch.messages = 1;
        Self::start_in(context, stage, settings)
    }

    /// A consumer of messages that are numbers, which are checked.
    pub(super) fn start_numbered(settings: Settings) -> Self {
        let stage = MemoryStage::new(Durability::Immediate);
        let mut context = context(&stage);
        context.sequence = Some(Sequence::new(Path::default(), None, None));
        Self::start_in(context, stage, settings)
    }

    fn start_in(context: ConsumerContext, stage: Arc<MemoryStage>, settings: Settings) -> Self {
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

    /// Waits until it holds so many connections, and all of them are live.
    pub(super) async fn all_live(&self, connections: usize) {
        let is_live = |connection: &ConnectionStats| connection.state.snapshot().state == ConsumerState::Live;
        let held = || self.stats.connections();
        until(|| held().len() == connections && held().iter().all(is_live)).await;
    }

    /// Messages that its connections have brought to the merge.
    pub(super) fn brought(&self) -> u64 {
        let connections = self.stats.connections().iter();
        connections
            .map(|connection| connection.first.get() + connection.duplicates.get())
            .sum()
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

    /// The next connection, before its handshake, which comes after a delay of at most this.
    pub(super) async fn accept_tcp_after(&self, clock: &HeldClock, delay: Duration) -> TcpStream {
        loop {
            clock.pass(delay).await;
            if let Some(accepted) = self.listener.accept().now_or_never() {
                return accepted.unwrap().0;
            }
        }
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
