//! A WebSocket server inside the test: sends trades with a running `seq` that goes on over connections, as many as the
//! test has released, so that the test knows what was sent and holds the load in its hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Sink, SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

/// Messages that are written before they are flushed together.
const BURST: u64 = 50;

/// The pause after each burst: at most 25,000 messages a second, so that a load lasts long enough to be disturbed.
const PAUSE: Duration = Duration::from_millis(2);

/// A feed of numbered trades.
pub(crate) struct Source {
    addr: SocketAddr,
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
}

struct Shared {
    /// The number of the first message that may not be sent yet.
    released: watch::Sender<u64>,
    /// The number of the next message. A message that a broken connection swallowed is not sent again.
    next: Mutex<u64>,
    sent: AtomicU64,
    /// The number of the first message of each connection.
    starts: Mutex<Vec<u64>>,
    /// Messages sent in place of trades, each once, to whoever is connected.
    extra: Mutex<Vec<Message>>,
}

impl Source {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            released: watch::Sender::new(0),
            next: Mutex::new(0),
            sent: AtomicU64::new(0),
            starts: Mutex::new(Vec::new()),
            extra: Mutex::new(Vec::new()),
        });
        let listener = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            addr,
            shared,
            listener,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.addr)
    }

    /// Lets `count` more messages go.
    pub(crate) fn release(&self, count: u64) {
        self.shared.released.send_modify(|released| *released += count);
    }

    /// Sends these messages as they are, once, before any trade that is still to go.
    pub(crate) async fn send(&self, messages: impl IntoIterator<Item = Message>) {
        self.shared.extra.lock().await.extend(messages);
        self.release(0);
    }

    /// Messages with a `seq` written to connections so far; the last ones may have been lost with theirs.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Acquire)
    }

    /// Messages with a `seq` that may have been sent by now.
    pub(crate) fn released(&self) -> u64 {
        *self.shared.released.borrow()
    }

    /// The number of the first message of each connection so far.
    pub(crate) async fn starts(&self) -> Vec<u64> {
        self.shared.starts.lock().await.clone()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with the task, which ends the connections.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&shared)));
    }
}

/// Sends until the client has gone.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let Ok(socket) = accept_async(stream).await else {
        return;
    };
    let first = *shared.next.lock().await;
    shared.starts.lock().await.push(first);
    let (mut sink, mut incoming) = socket.split();
    let sending = async {
        let mut released = shared.released.subscribe();
        loop {
            let limit = *released.borrow_and_update();
            if send_released(&shared, limit, &mut sink).await.is_err() {
                return;
            }
            if released.changed().await.is_err() {
                return;
            }
        }
    };
    // Reading answers pings and notices the end.
    let reading = async { while let Some(Ok(_)) = incoming.next().await {} };
    tokio::select! {
        () = sending => {}
        () = reading => {}
    }
}

async fn send_released<S>(
    shared: &Shared,
    limit: u64,
    sink: &mut S,
) -> Result<(), tokio_tungstenite::tungstenite::Error>
where
    S: Sink<Message, Error = tokio_tungstenite::tungstenite::Error> + Unpin,
{
    for message in std::mem::take(&mut *shared.extra.lock().await) {
        sink.send(message).await?;
    }
    loop {
        let mut next = shared.next.lock().await;
        let burst = *next..limit.min(*next + BURST);
        if burst.is_empty() {
            return Ok(());
        }
        for seq in burst {
            *next = seq + 1;
            sink.feed(Message::text(trade(seq))).await?;
        }
        let sent = *next;
        sink.flush().await?;
        drop(next);
        shared.sent.fetch_max(sent, Ordering::AcqRel);
        tokio::time::sleep(PAUSE).await;
    }
}

/// A trade of the shape that the engine was first made for; those with an odd number are sales.
fn trade(seq: u64) -> String {
    let cents = seq % 10_000;
    let direction = if seq.is_multiple_of(2) { "buy" } else { "sell" };
    format!(
        r#"{{"exchange":"test","base":"bitcoin","quote":"tether","direction":"{direction}","price":{cents}.25,"volume":0.5,"timestamp":{},"priceUsd":{cents}.5,"seq":{seq}}}"#,
        1_600_000_000_000_u64 + seq,
    )
}
