//! A consumer under test, and servers that answer what the test says.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::super::HttpConsumer;
use super::super::settings::Settings;
use crate::config::{Section, Variables};
use crate::consumer::Consumer;
use crate::consumer::memory_stage::{Durability, MemoryStage, context};
use crate::exit::RunnerError;
use crate::stats::{ConsumerState, ConsumerStats};

/// The longest that a state is waited for, in real time: far beyond what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings with short delays after failures, and these keys of `config.yml` beside `uri`.
pub(super) fn settings(uri: &str, keys: &str) -> Settings {
    let text = format!("uri: {uri}\nreconnect: {{ initial: 1ms, max: 5ms }}\n{keys}");
    let read = Section::read_text(&text, &Variables::default(), Settings::read);
    read.unwrap_or_else(|mistakes| panic!("{mistakes}")).unwrap()
}

/// A consumer that runs.
pub(super) struct Running {
    pub(super) stage: Arc<MemoryStage>,
    pub(super) stats: Arc<ConsumerStats>,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<Result<(), RunnerError>>,
}

impl Running {
    pub(super) fn start(settings: Settings) -> Self {
        Self::start_over(settings, Durability::Immediate)
    }

    pub(super) fn start_over(settings: Settings, durability: Durability) -> Self {
        let stage = MemoryStage::new(durability);
        let context = context(&stage);
        let (stats, stop) = (Arc::clone(&context.stats), context.stop.clone());
        let task = tokio::spawn(Box::new(HttpConsumer { settings }).run(context));
        Self {
            stage,
            stats,
            stop,
            task,
        }
    }

    /// Waits until the consumer is in this state, and gives the reason.
    pub(super) async fn state_is(&self, state: ConsumerState) -> String {
        let begun = Instant::now();
        loop {
            let snapshot = self.stats.state.snapshot();
            if snapshot.state == state {
                return snapshot.why;
            }
            assert!(begun.elapsed() < PATIENCE, "not {state}: {snapshot:?}");
            tokio::task::yield_now().await;
        }
    }

    /// Stops it, and gives what it left.
    pub(super) async fn stop(self) -> (Arc<MemoryStage>, Arc<ConsumerStats>) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        (self.stage, self.stats)
    }
}

/// TLS as `localhost`, with a certificate of its own that is written to the file.
pub(super) fn acceptor(certificate: &Path) -> TlsAcceptor {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(certificate, signed.cert.pem()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// An HTTP server; the test gives each answer.
pub(super) struct Server {
    address: SocketAddr,
    asked: mpsc::Receiver<Asked>,
    task: JoinHandle<()>,
}

/// A request that waits for its answer.
pub(super) struct Asked {
    pub(super) target: Uri,
    pub(super) headers: HeaderMap,
    /// Of the connection that it came over, from 0.
    pub(super) connection: usize,
    answer: oneshot::Sender<Response<Full<Bytes>>>,
}

impl Asked {
    /// Answers with a status, headers and a body.
    pub(super) fn answer(self, status: u16, headers: &[(&str, &str)], body: &str) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(Full::from(body.to_owned())).unwrap();
        // Whoever asked may have gone.
        let _ = self.answer.send(response);
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Server {
    pub(super) async fn listen() -> Self {
        Self::listen_with(None).await
    }

    /// With TLS where there is an acceptor.
    pub(super) async fn listen_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asking, asked) = mpsc::channel(16);
        let task = tokio::spawn(async move {
            // Dropped with the task, which ends the connections.
            let mut connections = JoinSet::new();
            for connection in 0.. {
                let (tcp, _) = listener.accept().await.unwrap();
                let (asking, tls) = (asking.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(tcp, connection, asking).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                serve(stream, connection, asking).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked, task }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn uri(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The next request.
    pub(super) async fn asked(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }

    /// Whether nobody waits for an answer.
    pub(super) fn is_idle(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    connection: usize,
    asking: mpsc::Sender<Asked>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let asking = asking.clone();
        async move {
            assert_eq!(request.method(), "GET");
            let (answer, answered) = oneshot::channel();
            let (head, _) = request.into_parts();
            let asked = Asked {
                target: head.uri,
                headers: head.headers,
                connection,
                answer,
            };
            let _ = asking.send(asked).await;
            answered.await
        }
    });
    // Clients go when they like.
    let _ = Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A server whose every byte the test writes.
pub(super) struct RawServer {
    listener: TcpListener,
}

impl RawServer {
    pub(super) async fn listen() -> Self {
        Self::of(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(super) fn of(listener: TcpListener) -> Self {
        Self { listener }
    }

    pub(super) fn uri(&self) -> String {
        format!("http://{}/", self.listener.local_addr().unwrap())
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// The next connection, after its first request.
    pub(super) async fn asked(&self) -> TcpStream {
        let mut tcp = self.accept().await;
        read_request(&mut tcp).await;
        tcp
    }

    /// Answers the first request of the next connection with these bytes, and closes it.
    pub(super) async fn answer(&self, answer: &str) {
        let mut tcp = self.asked().await;
        // Whoever has read enough of it may have gone.
        let _ = tcp.write_all(answer.as_bytes()).await;
    }

    /// A good answer.
    pub(super) async fn answer_well(&self, body: &str) {
        let length = body.len();
        self.answer(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
        .await;
    }
}

/// Reads the head of a request.
pub(super) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
}
