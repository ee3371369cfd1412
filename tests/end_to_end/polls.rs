//! The variety `http` beside the guarantees: a server that is polled, sometimes fails and sometimes has nothing new, and an engine that
//! is killed at random instants.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, ETAG, IF_NONE_MATCH};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::kills::random_life;
use crate::support::checker::{Tally, missing_stretches, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::Workspace;
use crate::support::inspect;

/// Lives of the engine that end by a kill.
const KILLS: u64 = 12;
/// Records released to each life.
const STEP: u64 = 200;
/// Records of one answer.
const ANSWER: u64 = 20;

/// A server with numbered records, each of which is in one good answer.
struct Polled {
    addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    listener: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    released: u64,
    /// The number of the first record of the next answer.
    next: u64,
    /// The numbers of the first records of the answers so far.
    starts: BTreeSet<u64>,
    asked: u64,
    unchanged: u64,
    failures: u64,
}

impl Polled {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::<Mutex<Shared>>::default();
        let serving = Arc::clone(&shared);
        let listener = tokio::spawn(async move {
            // Dropped with the task, which ends the connections.
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                connections.spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let answer = shared.lock().unwrap().answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // Clients are killed.
                    let _ = Builder::new().serve_connection(TokioIo::new(tcp), service).await;
                });
            }
        });
        Self {
            addr,
            shared,
            listener,
        }
    }

    fn release(&self, count: u64) {
        self.shared.lock().unwrap().released += count;
    }

    fn asked(&self) -> u64 {
        self.shared.lock().unwrap().asked
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Shared {
    fn answer(&mut self, request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        self.asked += 1;
        let response = Response::builder();
        if self.asked.is_multiple_of(5) {
            self.failures += 1;
            let begin = Bytes::from("{\"data\":[");
            return if self.asked.is_multiple_of(2) {
                let response = response.status(StatusCode::SERVICE_UNAVAILABLE);
                response.body(Full::from(begin).boxed()).unwrap()
            } else {
                // The connection ends in the midst of this one, when its beginning is sent.
                let end = stream::once(async {
                    tokio::task::yield_now().await;
                    None
                });
                let pieces = stream::iter([Some(begin)]).chain(end);
                let frames = pieces.filter_map(|piece| ready(piece.map(|piece| Ok(Frame::data(piece)))));
                let response = response.header(CONTENT_LENGTH, "1000");
                response.body(BoxBody::new(StreamBody::new(frames))).unwrap()
            };
        }
        let etag = format!("\"{}\"", self.next);
        let known = request.headers().get(IF_NONE_MATCH);
        if self.next == self.released && known.is_some_and(|known| known == etag.as_str()) {
            self.unchanged += 1;
            return response
                .status(StatusCode::NOT_MODIFIED)
                .body(Full::default().boxed())
                .unwrap();
        }
        let end = self.released.min(self.next + ANSWER);
        let records: Vec<String> = (self.next..end)
            .map(|seq| format!("{{\"seq\": {seq}}}"))
            .collect();
        self.starts.insert(self.next);
        self.next = end;
        let body = format!(
            "{{\"count\": {}, \"data\": [{}]}}",
            records.len(),
            records.join(", ")
        );
        response
            .header(ETAG, format!("\"{end}\""))
            .body(Full::from(body).boxed())
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_polled_and_staged_before_a_kill_is_a_row_exactly_once() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let source = Polled::start().await;
    workspace.write_config(&format!(
        "runners:
  - name: prices
    type: consumer
    variety: http
    uri: http://{}/prices?key=secret
    records: $.data[*]
    interval: 100ms
    reconnect: {{ initial: 1ms, max: 10ms }}
    stage: {{ type: local, path: tmp }}
  - name: postgres
    type: producer
    variety: postgres
    depends_on: [prices]
    profile: postgres
    metadata: true
",
        source.addr
    ));
    let mut check = workspace.start(&[
        "check",
        "-c",
        "config.yml",
        "--profiles",
        "profile.yml",
        "--connect",
    ]);
    check.ends_with(0).await;
    let said = check.stdout();
    assert!(
        said.contains(&format!(
            "ok     prices: http://{}/prices?…: answered in ",
            source.addr
        )),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");

    for kill in 0..KILLS {
        source.release(STEP);
        let asked = source.asked();
        let mut engine = workspace.run();
        // Every third life may end while it still opens its stage or recovers.
        if kill % 3 != 0 {
            engine.until("it polls", async || source.asked() > asked).await;
        }
        tokio::time::sleep(random_life()).await;
        engine.kill();
    }
    source.release(STEP);
    let last = source.shared.lock().unwrap().released - 1;
    let mut engine = workspace.run();
    engine
        .until("the last record is a row", async || {
            database.number("SELECT max(seq) FROM prices").await == Some(last)
        })
        .await;
    let before = source.shared.lock().unwrap().unchanged;
    engine
        .until("nothing new is asked for, and some polls fail", async || {
            let shared = source.shared.lock().unwrap();
            shared.unchanged > before + 2 && shared.failures > 2
        })
        .await;
    engine.stops_cleanly().await;
    workspace.drain().await;

    let seen = tally_by_offset(&database, "prices").await;
    assert_eq!(seen, Tally::each_once(seen.rows));
    // A kill loses the answers that are not staged yet, from the beginning of one to the beginning of another.
    let missing = missing_stretches(&database, "prices").await;
    {
        let shared = source.shared.lock().unwrap();
        for (first, count) in &missing {
            assert!(
                shared.starts.contains(first) && shared.starts.contains(&(first + count)),
                "{count} records from {first} on are missing; answers began at {:?}",
                shared.starts
            );
        }
    }
    assert!(missing.len() as u64 <= KILLS, "{missing:?}");
    // The stage still has what was delivered, for it retains a day: each of its messages is a row, and no row is another's.
    let staged = inspect::offsets(&workspace, "prices").await;
    let delivered = inspect::runs(
        database
            .rows("SELECT _offset FROM prices ORDER BY _offset")
            .await
            .iter()
            .map(|row| row[0].as_ref().unwrap().parse().unwrap()),
    );
    assert_eq!(staged, delivered);
    let gaps = workspace
        .inspect(&["--path", "tmp", "gaps", "prices"])
        .await
        .stdout();
    assert!(
        gaps.contains("HTTP 503") && gaps.contains("ended before the whole answer was there"),
        "{gaps}"
    );
    println!(
        "{KILLS} kills: {last} records, {} rows, {missing:?} lost",
        seen.rows
    );
}
