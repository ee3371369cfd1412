//! Thousands of connections of one consumer leave nothing behind in its process. A process of its own, so that nobody else's memory,
//! tasks and descriptors are among those that are counted; and a stage that keeps nothing.

#![expect(clippy::unwrap_used, reason = "a test that fails is to stop")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::SinkExt as _;
use socket_el::config::units::{ByteSize, Span};
use socket_el::config::{Section, Variables};
use socket_el::consumer::socket::SocketVariety;
use socket_el::consumer::{BatchLimits, ConsumerContext, ConsumerVariety as _};
use socket_el::record::{Batch, Offset};
use socket_el::stage::{
    Accepted, Appended, Bounds, Given, Outage, ReadLimit, ReadOutcome, Stage, StageError,
};
use socket_el::stats::ConsumerStats;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// Connections after which everything that is made once has been made, and the window is full.
const WARM: u64 = 2_000;
/// Connections behind them.
const RECONNECTS: u64 = 4_000;
/// A quarter of a kilobyte that every connection left would be more.
const MAX_GROWTH_KB: u64 = 1_000;
/// Sockets that are on their way out, and threads' own.
const MAX_MORE_DESCRIPTORS: usize = 10;

/// Takes everything and keeps nothing.
struct Nowhere;

fn taken() -> Accepted {
    let (sender, outcome) = oneshot::channel();
    let (first, end) = (Offset::ZERO, Offset::ZERO);
    let _ = sender.send(Ok(Appended::Staged { first, end }));
    Accepted::new(outcome)
}

#[async_trait]
impl Stage for Nowhere {
    fn name(&self) -> &str {
        "nowhere"
    }

    fn path_id(&self) -> Uuid {
        Uuid::nil()
    }

    async fn append(&self, _batch: Batch) -> Result<Accepted, StageError> {
        Ok(taken())
    }

    async fn append_outage(&self, _outage: Outage) -> Result<Accepted, StageError> {
        Ok(taken())
    }

    async fn read(&self, from: Offset, _limit: ReadLimit) -> Result<ReadOutcome, StageError> {
        Ok(ReadOutcome {
            batches: Vec::new(),
            gaps: Vec::new(),
            next: from,
        })
    }

    async fn ack(&self, _producer: &str, _next: Offset) -> Result<(), StageError> {
        Ok(())
    }

    fn cursor(&self, _producer: &str) -> Option<Offset> {
        None
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            oldest: Offset::ZERO,
            head: Offset::ZERO,
            reserved: Offset::ZERO,
            given_from: Offset::ZERO,
            staged: 0,
            is_uncounted: false,
        }
    }

    fn count_between(&self, _from: Offset, _to: Offset) -> u64 {
        0
    }

    fn given_before(&self, _offset: Offset) -> Given {
        Given {
            messages: 0,
            is_exact: true,
        }
    }

    fn watch_head(&self) -> watch::Receiver<Offset> {
        watch::Sender::new(Offset::ZERO).subscribe()
    }
}

/// Greets everyone with a message of their own, and goes away in every way there is.
async fn greet_and_leave(listener: TcpListener) {
    for number in 0_u64.. {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(mut socket) = accept_async(tcp).await else {
            continue;
        };
        let _ = socket.send(Message::text(number.to_string())).await;
        match number % 3 {
            0 => drop(socket.close(None).await),
            1 => drop(socket.send(Message::Ping("x".into())).await),
            _ => {}
        }
    }
}

/// What this process holds.
#[derive(Debug)]
struct Held {
    memory_kb: u64,
    descriptors: usize,
    tasks: usize,
}

fn held() -> Held {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = memory.unwrap().split_whitespace().next().unwrap();
    Held {
        memory_kb: memory.parse().unwrap(),
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
    }
}

async fn connects_reach(stats: &ConsumerStats, connects: u64) -> Held {
    while stats.connects.get() < connects {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    held()
}

#[tokio::test]
async fn thousands_of_connections_two_at_a_time_leave_no_memory_no_task_and_no_descriptor_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _serving = AbortOnDropHandle::new(tokio::spawn(greet_and_leave(listener)));
    let text = format!(
        "uri: ws://{address}/\nconnections: 2\nrotate: 1h\nwindow: {{ messages: 1000 }}\n\
         reconnect: {{ initial: 1ms, max: 1ms }}"
    );
    let configured = Section::read_text(&text, &Variables::default(), |section| {
        SocketVariety.configure("feed", section)
    });
    let consumer = configured.unwrap().unwrap();
    let (stats, stop) = (Arc::<ConsumerStats>::default(), CancellationToken::new());
    let context = ConsumerContext {
        name: "feed".to_owned(),
        stage: Arc::new(Nowhere),
        batch: BatchLimits {
            messages: 100,
            bytes: ByteSize(1 << 20),
            interval: Span(Duration::from_millis(20)),
        },
        sequence: None,
        stats: Arc::clone(&stats),
        stop: stop.clone(),
    };
    let running = tokio::spawn(consumer.run(context));
    // The second one begins after the first.
    while stats
        .connections()
        .get(1)
        .is_none_or(|second| second.connects.get() == 0)
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = stats.connects.get();
    let warm = connects_reach(&stats, begun + WARM).await;
    let end = connects_reach(&stats, begun + WARM + RECONNECTS).await;
    println!("{warm:?}, then {end:?}");
    assert!(
        end.memory_kb < warm.memory_kb + MAX_GROWTH_KB,
        "{warm:?}, then {end:?}"
    );
    assert!(
        end.descriptors < warm.descriptors + MAX_MORE_DESCRIPTORS,
        "{warm:?}, then {end:?}"
    );
    assert_eq!(end.tasks, warm.tasks);
    let [one, two] = stats.connections() else {
        panic!("two connections");
    };
    assert!(one.connects.get() > RECONNECTS / 4 && two.connects.get() > RECONNECTS / 4);
    stop.cancel();
    running.await.unwrap().unwrap();
}
