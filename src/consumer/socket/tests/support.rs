//! A consumer under test, and a server whose every word the test says.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async};
use tokio_util::sync::CancellationToken;

use super::super::SocketConsumer;
use super::super::endpoint::Endpoint;
use super::super::settings::Settings;
use crate::backoff::Backoff;
use crate::consumer::Consumer;
use crate::consumer::memory_stage::{Durability, MemoryStage, context};
use crate::exit::RunnerError;
use crate::stats::ConsumerStats;

/// Settings that differ from the defaults only in short delays between attempts.
pub(super) fn settings(uri: &str) -> Settings {
    let mut settings = Settings::defaults(Endpoint::parse(uri).unwrap());
    settings.backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
    settings
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

/// Everything that is logged on this thread, at all levels, while the guard lives.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
