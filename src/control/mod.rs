//! The engine's stages for others on this machine: HTTP/1.1 and JSON over the Unix socket `control.sock` in each stage path
//! that this process has open. ARCHITECTURE.md lists the routes; [`RemotePath`](crate::stage::remote::RemotePath) is the
//! client, and `curl --unix-socket` is another.
//!
//! Invariants:
//! * Nobody who asks slows the stage down: what blocks is done on threads for it, who follows is woken with a watch channel and
//!   gets fewer lines when slow, and everything has a limit.
//! * Whatever is asked gets an answer, errors as JSON with a fitting status; no request ends the engine.
//! * No secrets: what is served is the stage and the runners' counters.
//!
//! What it leaves to others: the protocol's types and framing ([`stage::remote`](crate::stage::remote)), and when to serve
//! (`pipeline`).

mod answer;
mod request;
mod stall;
mod status;
mod streams;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::record::Timestamp;
use crate::stage::local::LocalPath;
use crate::stage::remote::{Identity, ListenError, PROTOCOL, SocketFile};

use stall::Impatient;
pub use status::{
    ConnectionStatus, ConsumerStatus, ProducerStatus, RunnerState, SequenceStatus, Status, StatusSource,
};

/// Connections at a time; further ones wait to be accepted. Those that watch are not among them.
const MAX_CONNECTIONS: usize = 64;

/// Connections that watch, at a time; further ones are refused. A process that delivers watches each of its stages.
const MAX_WATCHERS: usize = 512;

/// How long a client may take to send a request's head, counted from the connection or the request before.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The longest head of a request.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How long answers that are under way have to end when the engine stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How long to wait after a connection could not be accepted: descriptors are short, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves one stage path. Dropping it ends that at once.
pub struct Control {
    stop: CancellationToken,
    server: AbortOnDropHandle<()>,
}

/// What is served.
struct Served {
    path: Arc<LocalPath>,
    identity: Identity,
    status: StatusSource,
    watchers: Arc<Semaphore>,
    stop: CancellationToken,
}

/// A connection's place among the [`MAX_CONNECTIONS`], given back when it begins to watch: who waits for changes, for as long as it
/// likes, keeps nobody from asking.
struct Place(Mutex<Option<OwnedSemaphorePermit>>);

impl Place {
    fn give_back(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Control {
    /// Makes the socket of an open path and serves it. Must be called within a runtime.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn start(path: Arc<LocalPath>, status: StatusSource) -> Result<Self, ListenError> {
        let (socket, listener) = SocketFile::listen(path.directory())?;
        let stop = CancellationToken::new();
        let identity = Identity {
            program: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            pid: std::process::id(),
            path: path.directory().display().to_string(),
            id: path.id(),
            life: Uuid::new_v4(),
            started_at: Timestamp::now(),
        };
        let served = Arc::new(Served {
            path,
            identity,
            status,
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
            stop: stop.clone(),
        });
        let server = tokio::spawn(serve(socket, listener, served));
        Ok(Self {
            stop,
            server: AbortOnDropHandle::new(server),
        })
    }

    /// Ends what is under way and removes the socket. To be done before the path is closed.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.server.await {
            warn!(%error, "the control socket's task did not end well");
        }
    }
}

/// Accepts until it is stopped; then waits for the connections.
async fn serve(socket: SocketFile, listener: UnixListener, served: Arc<Served>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Those that have ended are let go of.
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = served.stop.cancelled() => break,
            accepted = accepted => match accepted {
                (Ok(permit), Ok((stream, _))) => {
                    let served = Arc::clone(&served);
                    connections.spawn(connection(stream, Place(Mutex::new(Some(permit))), served));
                }
                (_, Err(error)) => {
                    warn!(%error, "a connection to the control socket could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
                (Err(_), _) => break,
            },
        }
    }
    drop(socket);
    while connections.join_next().await.is_some() {}
}

/// One client.
async fn connection(stream: UnixStream, place: Place, served: Arc<Served>) {
    let (stop, place) = (served.stop.clone(), Arc::new(place));
    let service = service_fn(move |request| {
        let (served, place) = (Arc::clone(&served), Arc::clone(&place));
        async move { Ok::<_, Infallible>(answer::answer(&served, &place, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Impatient::new(stream)), service);
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            timeout(STOP_GRACE, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        debug!(%error, "a connection to the control socket broke");
    }
}
