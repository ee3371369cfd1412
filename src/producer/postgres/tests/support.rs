//! What these tests share: a server, a stage in memory, an engine, and a proxy that swallows an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::session::Timing;
use super::super::{PostgresOptions, PostgresProducer, Target};
use crate::config::{Section, Variables};
use crate::exit::RunnerError;
use crate::private_postgres::{Options, PrivatePostgres};
use crate::producer::{Producer as _, ProducerContext, RunUntil, Start};
use crate::record::{Batch, Offset, Timestamp};
use crate::stage::path::{StageSummary, held_cursor};
use crate::stage::report::Report;
use crate::stage::{
    Accepted, Appended, Bounds, Gap, GapCause, Given, Outage, OutageKind, OutagePage, Place, PlacedOutage,
    ReadLimit, ReadOutcome, Stage, StageError, StagedBatch,
};
use crate::stats::ProducerStats;

/// Nothing here should ever take this long; a test that waits longer fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The producer of all these tests.
pub(super) const PRODUCER: &str = "postgres";

/// Short waits, so that what holds or retries is tried again soon.
pub(super) const QUICK: Timing = Timing {
    lock: Duration::from_millis(300),
    answer: Duration::from_secs(5),
    epoch: Duration::from_millis(300),
    hold: Duration::from_millis(100),
    retry_initial: Duration::from_millis(10),
    retry_max: Duration::from_millis(100),
    idle_check: Duration::from_millis(50),
};

/// A cluster of one's own, for those who stop it.
pub(super) fn cluster() -> PrivatePostgres {
    PrivatePostgres::start(&Options {
        fsync: false,
        ..Options::default()
    })
    .unwrap()
}

/// A database of one's own in a cluster.
pub(super) struct Database<'a> {
    pub(super) cluster: &'a PrivatePostgres,
    pub(super) name: String,
}

impl<'a> Database<'a> {
    pub(super) async fn on(cluster: &'a PrivatePostgres) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sink_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        cluster.create_database(&name).await.unwrap();
        Self { cluster, name }
    }

    /// In the cluster that all tests of this process share; its watcher removes it when the process ends.
    pub(super) async fn shared() -> Database<'static> {
        static CLUSTER: OnceLock<PrivatePostgres> = OnceLock::new();
        Database::on(CLUSTER.get_or_init(cluster)).await
    }

    pub(super) fn config(&self) -> Config {
        self.cluster.connection(&self.name)
    }

    pub(super) fn target(&self) -> Target {
        Target::new(self.config(), "public", PRODUCER)
    }

    /// The same database behind another port.
    pub(super) fn target_at(&self, port: u16) -> Target {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(port)
            .user(self.cluster.superuser())
            .password(self.cluster.password())
            .dbname(&self.name);
        Target::new(config, "public", PRODUCER)
    }

    /// Terminates the sessions of the engines.
    pub(super) async fn end_sessions(&self) {
        self.sql(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'socket-el/{PRODUCER}'"
        ))
        .await;
    }

    /// Runs SQL; the rows as text, `|` between columns.
    pub(super) async fn sql(&self, sql: &str) -> Vec<String> {
        let rows = self.cluster.query(&self.name, sql).await.unwrap();
        rows.into_iter()
            .map(|row| {
                let fields: Vec<_> = row.into_iter().map(Option::unwrap_or_default).collect();
                fields.join("|")
            })
            .collect()
    }

    /// Waits until a query answers with one row of this text.
    pub(super) async fn until(&self, sql: &str, expected: &str) {
        let mut last = Vec::new();
        let reached = timeout(PATIENCE, async {
            loop {
                if let Ok(rows) = self.cluster.query(&self.name, sql).await {
                    last = rows.into_iter().flatten().flatten().collect();
                    if last == [expected] {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let reached = reached.await.is_ok();
        assert!(
            reached,
            "{sql}: waited for {expected}, the last answer is {last:?}"
        );
    }

    /// Every `n` from 0 on is a row of the table exactly once.
    pub(super) async fn holds_exactly(&self, table: &str, messages: u64) {
        let found = self
            .sql(&format!(
                "SELECT count(*), count(DISTINCT n), min(n), max(n) FROM \"{table}\""
            ))
            .await;
        assert_eq!(found, [format!("{messages}|{messages}|0|{}", messages - 1)]);
    }

    /// The cursor of a stage.
    pub(super) async fn cursor(&self, stage: &str) -> Vec<String> {
        self.sql(&format!(
            "SELECT next_offset FROM _socket_el_cursor WHERE stage = '{stage}' AND producer = '{PRODUCER}'"
        ))
        .await
    }

    /// The row of a stage, as it would be after deliveries by some engine.
    pub(super) async fn set_cursor(&self, stage: &MemoryStage, next: u64) {
        self.sql(&format!(
            "UPDATE _socket_el_cursor SET next_offset = {next} WHERE stage = '{}'",
            stage.name()
        ))
        .await;
    }
}

/// A stage in memory.
pub(super) struct MemoryStage {
    name: String,
    path_id: Uuid,
    state: Mutex<State>,
    head: watch::Sender<Offset>,
    outages_end: watch::Sender<Place>,
}

/// The most outages that this stage gives at once.
const OUTAGES_OF_A_PAGE: usize = 3;

#[derive(Default)]
struct State {
    batches: Vec<Arc<StagedBatch>>,
    outages: Vec<PlacedOutage>,
    oldest: Offset,
    reserved: Offset,
    given_from: Offset,
    cursors: BTreeMap<String, Offset>,
    /// Offsets that were never given.
    holes: Vec<std::ops::Range<u64>>,
    reports: BTreeMap<String, Report>,
}

impl MemoryStage {
    pub(super) fn new(name: &str) -> Arc<Self> {
        Self::at_path(name, Uuid::new_v4())
    }

    pub(super) fn at_path(name: &str, path_id: Uuid) -> Arc<Self> {
        let state = State {
            reserved: Offset::new(1 << 20),
            given_from: Offset::new(1 << 20),
            ..State::default()
        };
        Arc::new(Self {
            name: name.to_owned(),
            path_id,
            state: Mutex::new(state),
            head: watch::Sender::new(Offset::ZERO),
            outages_end: watch::Sender::default(),
        })
    }

    /// Records an outage at the present place.
    pub(super) fn put_outage(&self, outage: Outage) {
        let mut state = self.state.lock().unwrap();
        let offset = *self.head.borrow();
        let before = state
            .outages
            .iter()
            .filter(|placed| placed.place.offset == offset);
        let place = Place {
            offset,
            sequence: u32::try_from(before.count()).unwrap(),
        };
        let follows = state.batches.last().map_or(Offset::ZERO, |batch| batch.end());
        state.outages.push(PlacedOutage {
            place,
            follows,
            outage,
        });
        self.outages_end.send_replace(place.next());
    }

    /// Records outages without a connection, one after another, that say these causes.
    pub(super) fn put_outages<'c>(&self, causes: impl IntoIterator<Item = &'c str>) {
        for cause in causes {
            self.put_outage(Outage {
                from: Timestamp::from_micros(1_700_000_001_000_000),
                to: Timestamp::from_micros(1_700_000_002_500_000),
                messages: 0,
                cause: cause.to_owned(),
                kind: OutageKind::Disconnected,
            });
        }
    }

    /// Appends one batch.
    pub(super) fn put<P: AsRef<[u8]>>(&self, payloads: impl IntoIterator<Item = P>) {
        let mut batch = Batch::default();
        for payload in payloads {
            assert!(batch.push(payload.as_ref(), Timestamp::from_micros(1_700_000_000_123_456)));
        }
        let mut state = self.state.lock().unwrap();
        let first = *self.head.borrow();
        let batch = StagedBatch { first, batch };
        let end = batch.end();
        state.batches.push(Arc::new(batch));
        self.head.send_replace(end);
    }

    /// Appends `{"n": …}` for each number, in batches of a hundred.
    pub(super) fn put_numbers(&self, numbers: std::ops::Range<u64>) {
        let numbers: Vec<_> = numbers.map(|n| format!("{{\"n\": {n}}}")).collect();
        for batch in numbers.chunks(100) {
            self.put(batch);
        }
    }

    /// The next batch begins `offsets` further on, as after an unclean stop.
    pub(super) fn skip(&self, offsets: u64) {
        let mut state = self.state.lock().unwrap();
        let head = self.head.borrow().get();
        state.holes.push(head..head + offsets);
        self.head.send_replace(Offset::new(head + offsets));
    }

    /// As when the stage is opened again after a clean stop.
    pub(super) fn open_again(&self) {
        self.state.lock().unwrap().given_from = *self.head.borrow();
    }

    /// The next reservation.
    pub(super) fn reserve(&self, end: u64) {
        self.state.lock().unwrap().reserved = Offset::new(end);
    }

    /// Removes what is before `oldest`.
    pub(super) fn expire(&self, oldest: u64) {
        let mut state = self.state.lock().unwrap();
        state.oldest = Offset::new(oldest);
        state.batches.retain(|batch| batch.end().get() > oldest);
    }

    /// What a producer has told last.
    pub(super) fn told(&self, producer: &str) -> Option<Report> {
        self.state.lock().unwrap().reports.get(producer).cloned()
    }

    /// What it says of itself, without its cursors.
    pub(super) fn summary(&self) -> StageSummary {
        let bounds = self.bounds();
        StageSummary {
            name: self.name.clone(),
            bounds,
            messages: bounds.head.get() - bounds.oldest.get(),
            refused: 0,
            producers: BTreeMap::new(),
            begun: BTreeSet::new(),
            gaps: Vec::new(),
            generations: vec![0],
        }
    }

    /// Whether there was such a cursor.
    pub(super) fn forget_cursor(&self, producer: &str) -> bool {
        self.state.lock().unwrap().cursors.remove(producer).is_some()
    }

    pub(super) fn set_local_cursor(&self, next: Option<u64>) {
        let mut state = self.state.lock().unwrap();
        state.cursors.clear();
        if let Some(next) = next {
            state.cursors.insert(PRODUCER.to_owned(), Offset::new(next));
        }
    }
}

#[async_trait]
impl Stage for MemoryStage {
    fn name(&self) -> &str {
        &self.name
    }

    fn path_id(&self) -> Uuid {
        self.path_id
    }

    async fn append(&self, batch: Batch) -> Result<Accepted, StageError> {
        let first = *self.head.borrow();
        self.put(batch.iter().map(|message| message.payload));
        let (sender, receiver) = oneshot::channel();
        let end = first.advanced_by(batch.len() as u64);
        let _ = sender.send(Ok(Appended::Staged { first, end }));
        Ok(Accepted::new(receiver))
    }

    async fn append_outage(&self, outage: Outage) -> Result<Accepted, StageError> {
        self.put_outage(outage);
        let (sender, receiver) = oneshot::channel();
        let at = *self.head.borrow();
        let _ = sender.send(Ok(Appended::Staged { first: at, end: at }));
        Ok(Accepted::new(receiver))
    }

    async fn outages(&self, from: Place, to: Offset) -> Result<OutagePage, StageError> {
        let state = self.state.lock().unwrap();
        let wanted = |placed: &&PlacedOutage| placed.place >= from && placed.place.offset <= to;
        let outages: Vec<_> = state.outages.iter().filter(wanted).cloned().collect();
        let cut = outages.len() > OUTAGES_OF_A_PAGE;
        let outages: Vec<_> = outages.into_iter().take(OUTAGES_OF_A_PAGE).collect();
        let last = outages.last().map_or(from, |last| last.place.next());
        let next = if cut { last } else { last.max(to.into()) };
        Ok(OutagePage { outages, next })
    }

    fn watch_outages(&self) -> watch::Receiver<Place> {
        self.outages_end.subscribe()
    }

    async fn read(&self, from: Offset, limit: ReadLimit) -> Result<ReadOutcome, StageError> {
        let state = self.state.lock().unwrap();
        let mut outcome = ReadOutcome {
            batches: Vec::new(),
            gaps: Vec::new(),
            next: from,
        };
        let (mut messages, mut bytes) = (0, 0);
        for batch in state.batches.iter().filter(|batch| batch.end() > from) {
            if messages >= limit.messages || bytes >= limit.bytes {
                break;
            }
            if batch.first > outcome.next {
                let (cause, messages) = if batch.first <= state.oldest {
                    (GapCause::Expired, batch.first.get() - outcome.next.get())
                } else {
                    (GapCause::Reservation, 0)
                };
                outcome.gaps.push(Gap {
                    from: outcome.next,
                    to: batch.first,
                    messages: Some(messages),
                    cause,
                    why: None,
                    noticed_at: Timestamp::now(),
                    period: None,
                });
            }
            messages += batch.batch.len();
            bytes += batch.batch.byte_len();
            outcome.next = batch.end();
            outcome.batches.push(batch.clone());
        }
        Ok(outcome)
    }

    async fn ack(&self, producer: &str, next: Offset) -> Result<(), StageError> {
        let mut state = self.state.lock().unwrap();
        state.cursors.insert(producer.to_owned(), next);
        Ok(())
    }

    fn cursor(&self, producer: &str) -> Option<Offset> {
        self.state.lock().unwrap().cursors.get(producer).copied()
    }

    async fn begun(&self, producer: &str) -> Result<(), StageError> {
        self.forget_cursor(&held_cursor(producer));
        Ok(())
    }

    fn bounds(&self) -> Bounds {
        let staged = self.given_before(Offset::new(u64::MAX)).messages;
        let state = self.state.lock().unwrap();
        Bounds {
            oldest: state.oldest,
            head: *self.head.borrow(),
            reserved: state.reserved,
            given_from: state.given_from,
            staged,
            is_uncounted: false,
        }
    }

    fn given_before(&self, offset: Offset) -> Given {
        let state = self.state.lock().unwrap();
        let end = offset.min(*self.head.borrow()).get();
        let holes: u64 = state
            .holes
            .iter()
            .map(|hole| hole.end.min(end).saturating_sub(hole.start))
            .sum();
        Given {
            messages: end - holes,
            is_exact: (state.oldest..=*self.head.borrow()).contains(&offset),
        }
    }

    async fn report(&self, producer: &str, report: &Report) -> bool {
        let mut state = self.state.lock().unwrap();
        state.reports.insert(producer.to_owned(), report.clone());
        true
    }

    fn count_between(&self, from: Offset, to: Offset) -> u64 {
        to.get() - from.get()
    }

    fn watch_head(&self) -> watch::Receiver<Offset> {
        self.head.subscribe()
    }
}

/// A running producer.
pub(super) struct Engine {
    task: JoinHandle<Result<(), RunnerError>>,
    stop: CancellationToken,
    pub(super) stats: Arc<ProducerStats>,
}

impl Engine {
    /// Runs until it is stopped.
    pub(super) fn start(target: Target, stages: &[&Arc<MemoryStage>]) -> Self {
        Self::with(target, stages, RunUntil::Stopped, QUICK)
    }

    pub(super) fn with(
        target: Target,
        stages: &[&Arc<MemoryStage>],
        until: RunUntil,
        timing: Timing,
    ) -> Self {
        Self::mapped(target, stages, PostgresOptions::default(), until, timing)
    }

    /// With other keys than none.
    pub(super) fn mapped(
        target: Target,
        stages: &[&Arc<MemoryStage>],
        options: PostgresOptions,
        until: RunUntil,
        timing: Timing,
    ) -> Self {
        let stop = CancellationToken::new();
        let stats = Arc::new(ProducerStats::default());
        let context = ProducerContext {
            name: PRODUCER.to_owned(),
            stages: stages.iter().map(|stage| (*stage).clone() as _).collect(),
            start: Start::Oldest,
            until,
            stats: stats.clone(),
            stop: stop.clone(),
        };
        let mut producer = PostgresProducer::new(target, options);
        producer.timing = timing;
        let task = tokio::spawn(Box::new(producer).run(context));
        Self { task, stop, stats }
    }

    /// Stops it in order.
    pub(super) async fn stop(self) -> Result<(), RunnerError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(self) -> Result<(), RunnerError> {
        timeout(PATIENCE, self.task).await.unwrap().unwrap()
    }

    /// As `kill -9` does.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(super) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

/// Delivers everything and returns.
pub(super) async fn drain(target: Target, stages: &[&Arc<MemoryStage>]) -> Result<(), RunnerError> {
    Engine::with(target, stages, RunUntil::Drained, QUICK)
        .ended()
        .await
}

/// Waits until a condition holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(reached.await.is_ok(), "waited in vain until {what}");
}

/// The options that these keys of `config.yml` make.
pub(super) fn options(keys: &str) -> PostgresOptions {
    let read = Section::read_text(keys, &Variables::default(), |section| {
        PostgresOptions::read(section, PRODUCER)
    });
    read.unwrap_or_else(|error| panic!("{error}")).unwrap()
}

/// A TCP proxy in front of a server, which can swallow the answer to a COMMIT and cut the connection.
pub(super) struct Proxy {
    pub(super) port: u16,
    swallow: Arc<AtomicBool>,
    listener: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn before(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(AtomicBool::new(false));
        let armed = swallow.clone();
        let listener = tokio::spawn(async move {
            let mut relays = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
                relays.spawn(relay(client, server, armed.clone()));
            }
        });
        Self {
            port,
            swallow,
            listener,
        }
    }

    /// Swallows the answer to the next COMMIT, and cuts that connection.
    pub(super) fn swallow_next_commit(&self) {
        self.swallow.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_swallowed(&self) -> bool {
        !self.swallow.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, swallow: Arc<AtomicBool>) {
    let (mut from_client, mut from_server) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                let sent = &from_client[..count];
                if server.write_all(sent).await.is_err() { return; }
                let commits = sent.windows(7).any(|bytes| bytes == b"COMMIT\0");
                if commits && swallow.load(Ordering::SeqCst) {
                    // The server has answered, so it has committed.
                    let _ = server.read(&mut from_server).await;
                    swallow.store(false, Ordering::SeqCst);
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&from_server[..count]).await.is_err() { return; }
            }
        }
    }
}
