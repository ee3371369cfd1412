//! `rotate`: the next connection is live before the present one ends. Days pass on a clock that only the tests move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::task::AbortOnDropHandle;

use super::super::merge::MAX_HELD_FOR;
use super::super::settings::Settings;
use super::refusals::answer;
use super::support::{HeldClock, Log, Running, Server, frame, settings, until};
use crate::stats::ConsumerState;

const HOUR: Duration = Duration::from_secs(3_600);
/// After so long the server ends every connection.
const LIFE_SPAN: Duration = Duration::from_secs(24 * 3_600);
/// Between two numbers.
const PACE: Duration = Duration::from_secs(300);

/// What the server of these tests does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// It answers close frames.
    Polite,
    /// At a close frame it ends the connection without a word.
    Rude,
}

/// What has happened at the server.
#[derive(Default)]
struct Tally {
    /// Numbers sent, to each connection.
    sent: AtomicU64,
    open: AtomicU64,
    /// Connections that it ended, for they were a day old.
    ended: AtomicU64,
}

/// A server that sends the same numbers to all connections, and ends each when it is a day old.
struct Exchange {
    numbers: broadcast::Sender<u64>,
    tally: Arc<Tally>,
    uri: String,
    _server: AbortOnDropHandle<()>,
}

impl Exchange {
    async fn open(manners: Manners) -> Self {
        let server = Server::listen().await;
        let uri = server.uri();
        let (numbers, _) = broadcast::channel(16);
        let tally = Arc::<Tally>::default();
        let accepting = {
            let (numbers, tally) = (numbers.clone(), Arc::clone(&tally));
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let tcp = server.accept_tcp().await;
                    let (numbers, tally) = (numbers.subscribe(), Arc::clone(&tally));
                    connections.spawn(async move {
                        tally.open.fetch_add(1, Ordering::Relaxed);
                        serve(tcp, numbers, &tally, manners).await;
                        tally.open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
        };
        Self {
            numbers,
            tally,
            uri,
            _server: AbortOnDropHandle::new(tokio::spawn(accepting)),
        }
    }

    /// Sends a number every [`PACE`] for so long, each when what was due before is done, and returns how many.
    async fn plays(&self, clock: &HeldClock, consumer: &Running, time: Duration) -> u64 {
        let end = Instant::now() + time;
        let mut number = 0;
        while Instant::now() < end {
            self.numbers.send(number).unwrap();
            number += 1;
            consumer.stage.messages_reach(number).await;
            let stats = &consumer.stats;
            let connections = stats.connections();
            let rotations = || {
                connections
                    .iter()
                    .map(|connection| connection.rotations.get())
                    .sum::<u64>()
            };
            let held = connections.len() as u64;
            until(|| {
                consumer.brought() == self.tally.sent.load(Ordering::Relaxed)
                    && self.tally.open.load(Ordering::Relaxed) == held
                    && stats.attempts.get() == stats.connects.get()
                    && stats.connects.get() == rotations() + stats.gaps.get() + held
            })
            .await;
            clock.pass(PACE).await;
        }
        number
    }
}

async fn serve(tcp: TcpStream, mut numbers: broadcast::Receiver<u64>, tally: &Tally, manners: Manners) {
    let over = Instant::now() + LIFE_SPAN;
    let mut socket = accept_async(tcp).await.unwrap();
    loop {
        tokio::select! {
            number = numbers.recv() => {
                let Ok(number) = number else { return };
                if socket.send(Message::text(number.to_string())).await.is_err() {
                    return;
                }
                tally.sent.fetch_add(1, Ordering::Relaxed);
            }
            frame = socket.next() => match frame {
                Some(Ok(Message::Close(_))) if manners == Manners::Polite => {
                    let _ = socket.flush().await;
                    return;
                }
                Some(Ok(message)) if !message.is_close() => {}
                _ => return,
            },
            () = sleep_until(over) => {
                tally.ended.fetch_add(1, Ordering::Relaxed);
                let _ = socket.close(frame(CloseCode::Away, "a day is over")).await;
                return;
            }
        }
    }
}

fn rotating(uri: &str, rotate: Option<Duration>) -> Settings {
    let mut settings = settings(uri);
    settings.rotate = rotate;
    settings.idle = None;
    // The clock jumps by hours, which would be silences.
    settings.ping = None;
    settings
}

/// Plays for ten days, and demands that every number is staged once and nothing recorded.
async fn ten_days_without_a_gap(clock: &HeldClock, settings: Settings, exchange: &Exchange) -> Running {
    let connections = settings.routes.len();
    let consumer = Running::start_unbatched(settings);
    consumer.all_live(connections).await;
    let count = exchange.plays(clock, &consumer, 10 * LIFE_SPAN).await;
    let payloads = consumer.stage.payloads();
    assert_eq!(payloads.len() as u64, count, "none is doubled");
    let numbers: BTreeSet<u64> = payloads
        .iter()
        .map(|payload| std::str::from_utf8(payload).unwrap().parse().unwrap())
        .collect();
    assert!(numbers.into_iter().eq(0..count), "none is missing");
    assert_eq!(consumer.stage.outages(), []);
    assert_eq!(
        exchange.tally.ended.load(Ordering::Relaxed),
        0,
        "the server never had to"
    );
    consumer
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_connection_after_a_day_costs_nothing() {
    let clock = HeldClock::hold();
    for manners in [Manners::Polite, Manners::Rude] {
        let exchange = Exchange::open(manners).await;
        let (log, _guard) = Log::capture();
        let settings = rotating(&exchange.uri, Some(23 * HOUR));
        let consumer = ten_days_without_a_gap(&clock, settings, &exchange).await;
        let connection = &consumer.stats.connections()[0];
        assert_eq!((connection.rotations.get(), connection.connects.get()), (10, 11));
        let (_, stats) = consumer.stop().await;
        assert_eq!(stats.received.get(), stats.staged.get());
        let log = log.text();
        assert_eq!(log.matches("replaced by the next connection").count(), 10);
        assert_eq!(log.matches("connection lost").count(), 0, "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_connections_are_never_replaced_together() {
    let clock = HeldClock::hold();
    let exchange = Exchange::open(Manners::Polite).await;
    let mut settings = rotating(&exchange.uri, Some(23 * HOUR));
    settings.routes = vec![settings.routes[0].clone(); 2];
    settings.apart = Duration::ZERO;
    let consumer = ten_days_without_a_gap(&clock, settings, &exchange).await;
    // The second one first after 11.5 hours, and both every 23.
    let connections = consumer.stats.connections().iter();
    let rotations = connections.map(|connection| connection.rotations.get());
    assert_eq!(rotations.collect::<Vec<_>>(), [10, 10]);
    assert_eq!(consumer.stats.duplicates.get(), consumer.stats.received.get());
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_rotation_each_day_leaves_an_outage() {
    let clock = HeldClock::hold();
    let exchange = Exchange::open(Manners::Polite).await;
    let consumer = Running::start_unbatched(rotating(&exchange.uri, None));
    consumer.all_live(1).await;
    for day in 1..=3 {
        clock.pass(LIFE_SPAN - HOUR).await;
        exchange.numbers.send(day).unwrap();
        consumer.stage.messages_reach(day).await;
        clock.pass(HOUR).await;
        until(|| exchange.tally.ended.load(Ordering::Relaxed) == day).await;
        // The delay before the next attempt.
        while consumer.stats.gaps.get() < day {
            clock.pass(Duration::from_millis(5)).await;
        }
        consumer.all_live(1).await;
    }
    assert_eq!(consumer.stage.outages().len(), 3);
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_next_one_can_not_be_had_stays() {
    let clock = HeldClock::hold();
    let server = Server::listen().await;
    let mut settings = rotating(&server.uri(), Some(HOUR));
    settings.connect_timeout = Duration::from_secs(1);
    let consumer = Running::start_unbatched(settings);
    let (mut sink, mut stream) = server.accept().await.split();
    consumer.all_live(1).await;
    let reading = tokio::spawn(async move {
        let mut was_asked_to_close = false;
        while let Some(Ok(message)) = stream.next().await {
            was_asked_to_close |= message.is_close();
        }
        was_asked_to_close
    });
    clock.pass(HOUR).await;
    // Handshakes that nobody answers.
    for attempt in 1..=5 {
        let unanswered = server.accept_tcp().await;
        sink.send(Message::text(format!("during attempt {attempt}")))
            .await
            .unwrap();
        consumer.stage.messages_reach(attempt).await;
        assert_eq!(consumer.stats.state.snapshot().state, ConsumerState::Live);
        assert_eq!(consumer.stats.attempts.get(), 1 + attempt);
        clock.pass(Duration::from_secs(1)).await;
        drop(unanswered);
        clock.pass(Duration::from_millis(5)).await;
    }
    // Then one is answered.
    let mut next = server.accept().await;
    assert!(reading.await.unwrap(), "the old one is closed in order");
    next.send(Message::text("over the next one")).await.unwrap();
    consumer.stage.messages_reach(6).await;
    until(|| consumer.stats.connections()[0].rotations.get() == 1).await;
    let (stage, _) = consumer.stop_beside(&mut next).await;
    assert_eq!(stage.outages(), []);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_while_the_next_one_is_made_is_an_outage_until_that_is_live() {
    let clock = HeldClock::hold();
    let server = Server::listen().await;
    let consumer = Running::start_unbatched(rotating(&server.uri(), Some(HOUR)));
    let mut present = server.accept().await;
    present.send(Message::text("1")).await.unwrap();
    consumer.stage.messages_reach(1).await;
    clock.pass(HOUR).await;
    let tcp = server.accept_tcp().await;
    drop(present);
    until(|| consumer.stats.state.snapshot().state == ConsumerState::Connecting).await;
    let mut next = accept_async(tcp).await.unwrap();
    next.send(Message::text("2")).await.unwrap();
    consumer.stage.messages_reach(2).await;
    let (stage, stats) = consumer.stop_beside(&mut next).await;
    assert_eq!(stage.outages().len(), 1);
    assert_eq!(
        (stats.connects.get(), stats.connections()[0].rotations.get()),
        (2, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_turns_out_to_be_dead_when_it_is_replaced_was_an_outage_until_the_next_one() {
    let clock = HeldClock::hold();
    let server = Server::listen().await;
    let consumer = Running::start_unbatched(rotating(&server.uri(), Some(HOUR)));
    let mut dead = server.accept().await;
    dead.send(Message::text("1")).await.unwrap();
    consumer.stage.messages_reach(1).await;
    // From here on nobody reads it; and without pings nobody knows.
    clock.pass(HOUR).await;
    let mut next = server.accept().await;
    next.send(Message::text("2")).await.unwrap();
    // It waits a moment for the other one to bring the same.
    while consumer.stage.payloads().len() < 2 {
        clock.pass(MAX_HELD_FOR / 10).await;
    }
    while consumer.stage.outages().is_empty() {
        clock.pass(Duration::from_secs(1)).await;
    }
    let outage = &consumer.stage.outages()[0];
    assert!(
        outage.cause.contains("(rotate) did not answer"),
        "{}",
        outage.cause
    );
    assert!(dead.next().now_or_never().is_some(), "it was asked to close");
    let (stage, stats) = consumer.stop_beside(&mut next).await;
    assert_eq!(stage.payloads(), [b"1", b"2"]);
    assert_eq!((stats.gaps.get(), stats.connections()[0].rotations.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_while_the_next_one_waits_is_made_again_without_that_wait() {
    let clock = HeldClock::hold();
    for (refusal, asks_for) in [
        // The server lets nobody have two connections.
        ("403 Forbidden", Duration::ZERO),
        (
            "429 Too Many Requests\r\nRetry-After: 100",
            Duration::from_secs(100),
        ),
    ] {
        let server = Server::listen().await;
        let (log, _guard) = Log::capture();
        let consumer = Running::start_unbatched(rotating(&server.uri(), Some(HOUR)));
        let present = server.accept().await;
        consumer.all_live(1).await;
        clock.pass(HOUR).await;
        answer(&mut server.accept_tcp().await, refusal).await;
        let asked_at = Instant::now();
        until(|| log.text().contains("can't connect")).await;
        drop(present);
        let state = || consumer.stats.state.snapshot().state;
        until(|| state() != ConsumerState::Live).await;
        let tcp = server.accept_tcp_after(&clock, Duration::from_millis(100)).await;
        let waited = asked_at.elapsed();
        assert!(
            waited >= asks_for && waited < asks_for + Duration::from_secs(5),
            "{waited:?} after {refusal}"
        );
        let mut again = accept_async(tcp).await.unwrap();
        consumer.all_live(1).await;
        let (stage, _) = consumer.stop_beside(&mut again).await;
        assert_eq!(stage.outages().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_over_a_connection_that_is_slow_to_close_is_staged_before_what_follows_it() {
    let clock = HeldClock::hold();
    let server = Server::listen().await;
    let consumer = Running::start_unbatched(rotating(&server.uri(), Some(HOUR)));
    let mut present = server.accept().await;
    consumer.all_live(1).await;
    clock.pass(HOUR).await;
    let mut next = server.accept().await;
    // The close frame is there, and is not answered.
    present.get_ref().peek(&mut [0]).await.unwrap();
    present.send(Message::text("1")).await.unwrap();
    consumer.stage.messages_reach(1).await;
    next.send(Message::text("2")).await.unwrap();
    while consumer.stage.payloads().len() < 2 {
        clock.pass(MAX_HELD_FOR / 10).await;
    }
    assert_eq!(consumer.stage.payloads(), [b"1", b"2"]);
    // It is answered now.
    while let Some(Ok(_)) = present.next().await {}
    until(|| consumer.stats.connections()[0].rotations.get() == 1).await;
    let (stage, _) = consumer.stop_beside(&mut next).await;
    assert_eq!(stage.outages(), []);
}
