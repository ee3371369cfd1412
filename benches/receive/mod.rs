//! Messages from a WebSocket into batches, through the consumer's own way: a server that sends what is ready made, and a stage that
//! keeps nothing. How much is read at a time depends on the two a little, and so do the instructions: some percent.

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use socket_el::config::units::{ByteSize, Span};
use socket_el::config::{Section, Variables};
use socket_el::consumer::socket::SocketVariety;
use socket_el::consumer::{BatchLimits, ConsumerContext, ConsumerVariety as _};
use socket_el::record::{Batch, Offset};
use socket_el::stage::{
    Accepted, Appended, Bounds, Given, Outage, ReadLimit, ReadOutcome, Stage, StageError,
};
use socket_el::stats::ConsumerStats;
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

/// Patterns of messages that are no data, which every message has to be compared with.
pub(crate) const PATTERNS: &str =
    "control: [{ $.type: heartbeat }, { $.event: [info, pong] }, { regex: '^ping' }]";

/// Receives these messages so many times over, in batches of a thousand. `keys` are further ones of the consumer, as YAML.
pub(crate) fn receive(texts: &[String], keys: &str, rounds: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let configuration = format!("uri: ws://{}\n{keys}", listener.local_addr().unwrap());
    let frames: Vec<u8> = texts.iter().flat_map(|text| frame(text)).collect();
    let server = std::thread::spawn(move || {
        let (connection, _) = listener.accept().unwrap();
        let mut socket = tungstenite::accept(connection).unwrap();
        for _ in 0..rounds {
            socket.get_mut().write_all(&frames).unwrap();
        }
        // Answers the consumer's close frame.
        while socket.read().is_ok() {}
    });
    let configured = Section::read_text(&configuration, &Variables::default(), |section| {
        SocketVariety.configure("feed", section)
    });
    let consumer = configured.unwrap().unwrap();
    let stop = CancellationToken::new();
    let context = ConsumerContext {
        name: "feed".to_owned(),
        stage: Arc::new(Sink {
            awaited: rounds * texts.len() as u64,
            taken: AtomicU64::new(0),
            enough: stop.clone(),
        }),
        batch: BatchLimits {
            messages: 1_000,
            bytes: ByteSize(1 << 20),
            interval: Span(Duration::from_secs(60)),
        },
        sequence: None,
        stats: Arc::new(ConsumerStats::default()),
        stop,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(consumer.run(context)).unwrap();
    server.join().unwrap();
}

/// A text message as a server sends it.
fn frame(text: &str) -> Vec<u8> {
    const FINAL_TEXT: u8 = 0x81;
    const LENGTH_OF_TWO_BYTES: u8 = 126;
    let length = u16::try_from(text.len()).unwrap();
    let mut frame = vec![FINAL_TEXT];
    match u8::try_from(length) {
        Ok(short) if short < LENGTH_OF_TWO_BYTES => frame.push(short),
        _ => {
            frame.push(LENGTH_OF_TWO_BYTES);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A stage that forgets what it is given, and says when that is enough.
struct Sink {
    awaited: u64,
    taken: AtomicU64,
    enough: CancellationToken,
}

impl Sink {
    fn taken(&self) -> Offset {
        Offset::new(self.taken.load(Ordering::Relaxed))
    }

    /// What it has taken is as good as durable.
    fn accept(&self, messages: u64) -> Accepted {
        let first = Offset::new(self.taken.fetch_add(messages, Ordering::Relaxed));
        let end = first.advanced_by(messages);
        if end.get() >= self.awaited {
            self.enough.cancel();
        }
        let (answer, outcome) = oneshot::channel();
        answer.send(Ok(Appended::Staged { first, end })).unwrap();
        Accepted::new(outcome)
    }
}

#[async_trait]
impl Stage for Sink {
    fn name(&self) -> &str {
        "feed"
    }

    fn path_id(&self) -> uuid::Uuid {
        uuid::Uuid::nil()
    }

    async fn append(&self, batch: Batch) -> Result<Accepted, StageError> {
        Ok(self.accept(batch.len() as u64))
    }

    async fn append_outage(&self, _: Outage) -> Result<Accepted, StageError> {
        Ok(self.accept(0))
    }

    async fn read(&self, from: Offset, _: ReadLimit) -> Result<ReadOutcome, StageError> {
        Ok(ReadOutcome {
            batches: Vec::new(),
            gaps: Vec::new(),
            next: from,
        })
    }

    async fn ack(&self, _: &str, _: Offset) -> Result<(), StageError> {
        Ok(())
    }

    fn cursor(&self, _: &str) -> Option<Offset> {
        None
    }

    fn bounds(&self) -> Bounds {
        let head = self.taken();
        Bounds {
            oldest: Offset::ZERO,
            head,
            reserved: head,
            given_from: Offset::ZERO,
            staged: head.get(),
            is_uncounted: false,
        }
    }

    fn count_between(&self, from: Offset, to: Offset) -> u64 {
        to.get().saturating_sub(from.get())
    }

    fn given_before(&self, offset: Offset) -> Given {
        Given {
            messages: offset.get(),
            is_exact: true,
        }
    }

    fn watch_head(&self) -> watch::Receiver<Offset> {
        watch::Sender::new(self.taken()).subscribe()
    }
}
