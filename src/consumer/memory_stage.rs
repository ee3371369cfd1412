//! A stage in memory for the tests of consumers: keeps what is appended in order, and becomes durable, or fails, when told.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::{BatchLimits, ConsumerContext};
use crate::config::units::{ByteSize, Span};
use crate::record::{Batch, Offset, Timestamp};
use crate::stage::{
    Accepted, Appended, Bounds, Given, Outage, ReadLimit, ReadOutcome, SharedStage, Stage, StageError,
};
use crate::stats::ConsumerStats;

/// What was appended, in order.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Batch(Batch),
    Outage(Outage),
}

/// When an appended batch becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// At once.
    Immediate,
    /// By [`MemoryStage::commit`].
    ByHand,
}

pub(crate) struct MemoryStage {
    durability: Durability,
    inner: Mutex<Inner>,
    /// Messages appended; wakes those who wait for them.
    appended: watch::Sender<u64>,
    outages: watch::Sender<usize>,
}

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    waiting: Vec<(oneshot::Sender<Result<Appended, StageError>>, Appended)>,
    failed: bool,
}

impl MemoryStage {
    pub(crate) fn new(durability: Durability) -> Arc<Self> {
        Arc::new(Self {
            durability,
            inner: Mutex::default(),
            appended: watch::Sender::new(0),
            outages: watch::Sender::new(0),
        })
    }

    /// Makes everything appended so far durable.
    pub(crate) fn commit(&self) {
        for (waiter, appended) in self.inner.lock().unwrap().waiting.drain(..) {
            let _ = waiter.send(Ok(appended));
        }
    }

    /// Reports everything that waits as dropped.
    pub(crate) fn drop_newest(&self) {
        for (waiter, appended) in self.inner.lock().unwrap().waiting.drain(..) {
            let Appended::Staged { first, end } = appended else {
                continue;
            };
            let messages = end.get() - first.get();
            let _ = waiter.send(Ok(Appended::Dropped { messages }));
        }
    }

    /// Fails, now and for ever.
    pub(crate) fn fail(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.failed = true;
        for (waiter, _) in inner.waiting.drain(..) {
            let _ = waiter.send(Err(failure()));
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.inner.lock().unwrap().entries.clone()
    }

    /// How many messages each batch has.
    pub(crate) fn batch_sizes(&self) -> Vec<usize> {
        let entries = self.entries();
        let sizes = entries.iter().filter_map(|entry| match entry {
            Entry::Batch(batch) => Some(batch.len()),
            Entry::Outage(_) => None,
        });
        sizes.collect()
    }

    pub(crate) fn payloads(&self) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        for entry in self.entries() {
            if let Entry::Batch(batch) = entry {
                payloads.extend(batch.iter().map(|message| message.payload.to_vec()));
            }
        }
        payloads
    }

    pub(crate) fn outages(&self) -> Vec<Outage> {
        let entries = self.entries().into_iter();
        let outages = entries.filter_map(|entry| match entry {
            Entry::Outage(outage) => Some(outage),
            Entry::Batch(_) => None,
        });
        outages.collect()
    }

    /// Waits until so many messages are appended.
    pub(crate) async fn messages_reach(&self, count: u64) {
        let mut appended = self.appended.subscribe();
        appended.wait_for(|&messages| messages >= count).await.unwrap();
    }

    /// Waits until so many outages are recorded.
    pub(crate) async fn outages_reach(&self, count: usize) {
        let mut outages = self.outages.subscribe();
        outages.wait_for(|&recorded| recorded >= count).await.unwrap();
    }
}

/// A context over this stage with limits that no test meets by accident.
pub(crate) fn context(stage: &Arc<MemoryStage>) -> ConsumerContext {
    ConsumerContext {
        name: "feed_under_test".to_owned(),
        stage: Arc::clone(stage) as SharedStage,
        batch: BatchLimits {
            messages: 100,
            bytes: ByteSize(1 << 20),
            interval: Span(std::time::Duration::from_millis(20)),
        },
        sequence: None,
        stats: Arc::new(ConsumerStats::default()),
        stop: tokio_util::sync::CancellationToken::new(),
    }
}

fn failure() -> StageError {
    StageError::Failed {
        path: "/nowhere".to_owned(),
        reason: "told to fail".to_owned(),
    }
}

#[async_trait]
impl Stage for MemoryStage {
    fn name(&self) -> &str {
        "feed_under_test"
    }

    fn path_id(&self) -> Uuid {
        Uuid::nil()
    }

    async fn append(&self, batch: Batch) -> Result<Accepted, StageError> {
        let (waiter, outcome) = oneshot::channel();
        let mut inner = self.inner.lock().unwrap();
        if inner.failed {
            return Err(failure());
        }
        let first = Offset::new(*self.appended.borrow());
        let end = first.advanced_by(batch.len() as u64);
        inner.entries.push(Entry::Batch(batch));
        let appended = Appended::Staged { first, end };
        match self.durability {
            Durability::Immediate => drop(waiter.send(Ok(appended))),
            Durability::ByHand => inner.waiting.push((waiter, appended)),
        }
        self.appended.send_replace(end.get());
        Ok(Accepted::new(outcome))
    }

    async fn append_outage(&self, outage: Outage) -> Result<Accepted, StageError> {
        let (waiter, outcome) = oneshot::channel();
        let mut inner = self.inner.lock().unwrap();
        if inner.failed {
            return Err(failure());
        }
        inner.entries.push(Entry::Outage(outage));
        self.outages.send_modify(|recorded| *recorded += 1);
        let at = Offset::new(*self.appended.borrow());
        drop(waiter.send(Ok(Appended::Staged { first: at, end: at })));
        Ok(Accepted::new(outcome))
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
        let head = Offset::new(*self.appended.borrow());
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
        watch::Sender::new(self.bounds().head).subscribe()
    }
}

/// The time of a message in tests that don't care about it.
pub(crate) fn some_time() -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000)
}
