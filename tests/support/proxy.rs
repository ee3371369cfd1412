//! A TCP proxy between engine and PostgreSQL that can break what passes: cut, hold, delay, refuse, and swallow the
//! answer to a COMMIT, after which the client can't know whether its transaction is in. Before a feed it can all but the last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::cluster::Database;

/// What happens to what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Everything passes.
    Flowing,
    /// Everything passes, each piece after this time.
    Delayed(Duration),
    /// Nothing passes, and nobody is told.
    Held,
    /// New connections are closed at once.
    Refused,
}

/// The proxy; dropping it ends it and its connections.
pub(crate) struct Proxy {
    addr: SocketAddr,
    state: Arc<State>,
    listener: JoinHandle<()>,
}

struct State {
    upstream: SocketAddr,
    is_postgres: bool,
    traffic: watch::Sender<Traffic>,
    /// Counts the orders to cut.
    cuts: watch::Sender<u64>,
    /// Answers to COMMIT still to be swallowed.
    to_swallow: AtomicU64,
    swallowed: AtomicU64,
}

impl Proxy {
    /// Listens on a port of its own and passes everything to `port` on this machine.
    pub(crate) async fn to(port: u16) -> Self {
        Self::before(port, true).await
    }

    /// The same before a server of another kind than PostgreSQL.
    pub(crate) async fn to_feed(port: u16) -> Self {
        Self::before(port, false).await
    }

    async fn before(port: u16, is_postgres: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            upstream: SocketAddr::from(([127, 0, 0, 1], port)),
            is_postgres,
            traffic: watch::Sender::new(Traffic::Flowing),
            cuts: watch::Sender::new(0),
            to_swallow: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
        });
        let listener = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self {
            addr,
            state,
            listener,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// From now on, until something else is set.
    pub(crate) fn set(&self, traffic: Traffic) {
        self.state.traffic.send_replace(traffic);
    }

    /// Cuts all connections; new ones are welcome.
    pub(crate) fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Drops the next `count` answers to COMMIT, and cuts each of the connections there.
    pub(crate) fn swallow_commits(&self, count: u64) {
        self.state.to_swallow.store(count, Ordering::Release);
    }

    /// Answers to COMMIT swallowed so far.
    pub(crate) fn swallowed(&self) -> u64 {
        self.state.swallowed.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if *state.traffic.borrow() != Traffic::Refused {
            connections.spawn(relay(client, Arc::clone(&state)));
        }
    }
}

async fn relay(client: TcpStream, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    // A server that is stopped: the client sees its connection close, as it would see it refused.
    let Ok(server) = TcpStream::connect(state.upstream).await else {
        return;
    };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let answers = state.is_postgres.then(Answers::default);
    tokio::select! {
        () = pump(client_read, server_write, &state, None) => {}
        () = pump(server_read, client_write, &state, answers) => {}
        _ = cuts.changed() => {}
    }
}

/// Passes bytes on until an end is reached, or an answer was swallowed.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, mut answers: Option<Answers>) {
    let mut traffic = state.traffic.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if traffic
            .wait_for(|traffic| *traffic != Traffic::Held)
            .await
            .is_err()
        {
            return;
        }
        let delay = match *traffic.borrow() {
            Traffic::Delayed(delay) => delay,
            Traffic::Flowing | Traffic::Held | Traffic::Refused => Duration::ZERO,
        };
        tokio::time::sleep(delay).await;
        let piece = &buffer[..read];
        let passed = match &mut answers {
            None => to.write_all(piece).await,
            Some(answers) => match answers.pass(piece, || state.take_one_to_swallow()) {
                Passed::All(messages) => to.write_all(&messages).await,
                Passed::UpToSwallowed(messages) => {
                    let _ = to.write_all(&messages).await;
                    return;
                }
            },
        };
        if passed.is_err() {
            return;
        }
    }
}

impl State {
    fn take_one_to_swallow(&self) -> bool {
        let taken = self
            .to_swallow
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
            .is_ok();
        self.swallowed.fetch_add(u64::from(taken), Ordering::AcqRel);
        taken
    }
}

/// Cuts the server's side of the protocol into its messages: a type byte and a length that counts itself. Only the
/// answer to a request for encryption, a single byte before anything else, has no length.
#[derive(Default)]
struct Answers {
    pending: Vec<u8>,
    authenticating: bool,
}

enum Passed {
    /// Whole messages, to be passed on.
    All(Vec<u8>),
    /// The messages before the answer that was swallowed.
    UpToSwallowed(Vec<u8>),
}

impl Answers {
    fn pass(&mut self, piece: &[u8], mut swallow: impl FnMut() -> bool) -> Passed {
        self.pending.extend_from_slice(piece);
        let mut done = 0;
        loop {
            let rest = &self.pending[done..];
            let Some(length) = self.message_length(rest) else {
                break;
            };
            if rest.len() < length {
                break;
            }
            if rest[..length] == *b"C\0\0\0\x0bCOMMIT\0" && swallow() {
                self.pending.truncate(done);
                return Passed::UpToSwallowed(std::mem::take(&mut self.pending));
            }
            self.authenticating |= rest[0] == b'R';
            done += length;
        }
        let rest = self.pending.split_off(done);
        Passed::All(std::mem::replace(&mut self.pending, rest))
    }

    fn message_length(&self, bytes: &[u8]) -> Option<usize> {
        if !self.authenticating && matches!(bytes.first(), Some(b'N' | b'S')) {
            return Some(1);
        }
        let length = bytes.get(1..5)?;
        Some(1 + u32::from_be_bytes(length.try_into().unwrap()) as usize)
    }
}

#[test]
fn only_the_answer_to_commit_is_swallowed_however_the_stream_is_cut() {
    let stream = b"NR\0\0\0\x08\0\0\0\0S\0\0\0\x06a\0C\0\0\0\x0aBEGIN\0C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I";
    let before = stream.len() - 18;
    for size in 1..=stream.len() {
        let mut answers = Answers::default();
        let mut passed = Vec::new();
        let cut = stream
            .chunks(size)
            .any(|piece| match answers.pass(piece, || true) {
                Passed::All(messages) => {
                    passed.extend(messages);
                    false
                }
                Passed::UpToSwallowed(messages) => {
                    passed.extend(messages);
                    true
                }
            });
        assert!(cut && passed == stream[..before], "in pieces of {size}");
        let mut answers = Answers::default();
        let all = stream
            .chunks(size)
            .flat_map(|piece| match answers.pass(piece, || false) {
                Passed::All(messages) | Passed::UpToSwallowed(messages) => messages,
            });
        assert_eq!(all.collect::<Vec<_>>(), stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_answer_is_swallowed_sees_a_broken_connection_and_its_rows_are_in() {
    let database = Database::shared().await;
    database.rows("CREATE TABLE t (n bigint)").await;
    let proxy = Proxy::to(database.cluster().port()).await;
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(proxy.port())
        .user(database.cluster().superuser())
        .password(database.cluster().password())
        .dbname(database.name());
    let insert = async |n: u32| {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        let sql = format!("BEGIN; INSERT INTO t VALUES ({n}); COMMIT");
        let statements = async move { client.simple_query(&sql).await };
        tokio::join!(statements, connection).0.map(drop)
    };
    insert(1).await.unwrap();
    proxy.swallow_commits(1);
    assert!(insert(2).await.unwrap_err().is_closed());
    insert(3).await.unwrap();
    assert_eq!(proxy.swallowed(), 1);
    let rows = database
        .rows("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t")
        .await;
    assert_eq!(rows, [[Some("1 2 3".to_owned())]]);
}
