//! Several connections to one feed: each message once, and an outage only when nobody is connected.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::super::merge::{MAX_HELD_FOR, WindowLimits};
use super::super::settings::Settings;
use super::support::{HeldClock, Log, Running, Server, close_code, frame, route, settings, until};
use crate::consumer::memory_stage::{Durability, Entry};
use crate::json_path::{Finder, Path};
use crate::stats::ConsumerState;

type Socket = WebSocketStream<TcpStream>;

/// Two servers that send the same, and a consumer with a connection to each.
struct Two {
    a: Server,
    b: Server,
    settings: Settings,
}

impl Two {
    async fn listen() -> Self {
        let (a, b) = (Server::listen().await, Server::listen().await);
        let mut settings = settings(&a.uri());
        settings.routes.push(route(&b.uri()));
        settings.apart = Duration::ZERO;
        Self { a, b, settings }
    }

    async fn connect(&self) -> (Running, Socket, Socket) {
        let consumer = Running::start(self.settings.clone(), Durability::Immediate);
        let (a, b) = tokio::join!(self.a.accept(), self.b.accept());
        consumer.all_live(2).await;
        (consumer, a, b)
    }
}

async fn say(socket: &mut Socket, messages: &str) {
    for message in messages.split(' ') {
        socket.send(Message::text(message)).await.unwrap();
    }
}

/// Says messages of which so many are new, and waits until they are staged.
async fn says(consumer: &Running, socket: &mut Socket, messages: &str, new: u64) {
    let (staged, seen) = (consumer.stage.payloads().len() as u64, consumer.brought());
    say(socket, messages).await;
    let said = messages.split(' ').count() as u64;
    until(|| consumer.brought() >= seen + said).await;
    consumer.stage.messages_reach(staged + new).await;
    assert_eq!(consumer.stage.payloads().len() as u64, staged + new, "{messages}");
}

/// Says a message that the other connection, which seems to live, does not bring: it is staged after a moment.
async fn says_alone(consumer: &Running, clock: &HeldClock, socket: &mut Socket, message: &str) {
    let staged = consumer.stage.payloads().len();
    say(socket, message).await;
    while consumer.stage.payloads().len() == staged {
        clock.pass(MAX_HELD_FOR / 10).await;
    }
}

fn texts(consumer: &Running) -> String {
    let texts = consumer.stage.payloads().into_iter();
    let texts: Vec<String> = texts.map(|text| String::from_utf8(text).unwrap()).collect();
    texts.join(" ")
}

/// Stops it while both servers answer.
async fn stop(consumer: Running, mut a: Socket, b: &mut Socket) {
    let answering = async move { while let Some(Ok(_)) = a.next().await {} };
    tokio::join!(consumer.stop_beside(b), answering);
}

#[tokio::test]
async fn each_message_is_staged_once_in_the_order_of_first_arrival() {
    let two = Two::listen().await;
    let (consumer, mut a, mut b) = two.connect().await;
    says(&consumer, &mut a, "1 2 3", 3).await;
    says(&consumer, &mut b, "1 2 3 4", 1).await;
    says(&consumer, &mut a, "4 5 beat beat", 3).await;
    says(&consumer, &mut b, "5 beat beat beat", 1).await;
    assert_eq!(texts(&consumer), "1 2 3 4 5 beat beat beat");
    let stats = std::sync::Arc::clone(&consumer.stats);
    stop(consumer, a, &mut b).await;
    assert_eq!(
        (stats.received.get(), stats.staged.get(), stats.duplicates.get()),
        (8, 8, 7)
    );
    let contributed = stats.connections().iter();
    let contributed: Vec<_> = contributed
        .map(|connection| (connection.first.get(), connection.duplicates.get()))
        .collect();
    assert_eq!(contributed, [(6, 1), (2, 6)]);
}

#[tokio::test]
async fn a_connection_that_begins_ahead_of_the_other_changes_no_order_and_makes_no_hole() {
    let mut two = Two::listen().await;
    two.settings.ping = None;
    let consumer = Running::start_numbered(two.settings.clone());
    let (mut a, b) = tokio::join!(two.a.accept(), two.b.accept());
    consumer.all_live(2).await;
    says(&consumer, &mut a, "1 2 3", 3).await;
    drop(b);
    let mut b = two.b.accept().await;
    consumer.all_live(2).await;
    // Before what is still on its way over the other one; 0 comes over this one alone.
    say(&mut b, "0 6 7 8").await;
    says(&consumer, &mut a, "4 5", 2).await;
    assert_eq!(texts(&consumer), "1 2 3 4 5");
    say(&mut a, "6").await;
    consumer.stage.messages_reach(9).await;
    assert_eq!(texts(&consumer), "1 2 3 4 5 6 0 7 8");
    // Now it has met the other one.
    says(&consumer, &mut b, "9", 1).await;
    let sequence = &consumer.stats.sequence;
    assert_eq!((sequence.holes.get(), sequence.reordered.get()), (0, 1));
    // What neither brings is a hole, at the message that shows it.
    says(&consumer, &mut b, "11", 1).await;
    assert_eq!((sequence.holes.get(), sequence.missing.get()), (1, 1));
    let [.., Entry::Outage(hole), Entry::Batch(last)] = &consumer.stage.entries()[..] else {
        panic!("{:?}", consumer.stage.entries());
    };
    assert_eq!(last.payload_bytes(), b"11");
    assert_eq!(
        hole.kind.skip().map(|skip| (skip.first, skip.last)),
        Some((10, 10))
    );
    stop(consumer, a, &mut b).await;
}

#[tokio::test]
async fn what_a_new_connection_brings_alone_is_staged_when_the_other_one_ends() {
    let two = Two::listen().await;
    let (consumer, mut a, b) = two.connect().await;
    says(&consumer, &mut a, "1 2 3", 3).await;
    drop(b);
    let mut b = two.b.accept().await;
    consumer.all_live(2).await;
    say(&mut b, "5 6").await;
    says(&consumer, &mut a, "4", 1).await;
    drop(a);
    consumer.stage.messages_reach(6).await;
    assert_eq!(texts(&consumer), "1 2 3 4 5 6");
    assert_eq!(consumer.stage.outages(), []);
    let a = two.a.accept().await;
    stop(consumer, a, &mut b).await;
}

#[tokio::test]
async fn the_loss_of_one_connection_is_no_outage_and_that_of_both_is_one() {
    let two = Two::listen().await;
    let (log, _guard) = Log::capture();
    let (consumer, mut a, mut b) = two.connect().await;
    says(&consumer, &mut a, "1", 1).await;
    says(&consumer, &mut b, "1 2", 1).await;
    for round in 0..3 {
        a.close(frame(CloseCode::Restart, "")).await.unwrap();
        drop(a);
        says(&consumer, &mut b, &format!("without-a{round}"), 1).await;
        let why = consumer.state_is(ConsumerState::Live).await;
        assert!(why.is_empty() || why == "1 of 2 connections", "{why}");
        a = two.a.accept().await;
        consumer.all_live(2).await;
        says(&consumer, &mut b, &format!("with-a{round}"), 1).await;
        drop(b);
        says(&consumer, &mut a, &format!("with-a{round} without-b{round}"), 1).await;
        b = two.b.accept().await;
        consumer.all_live(2).await;
        says(&consumer, &mut a, &format!("with-both{round}"), 1).await;
    }
    assert_eq!(consumer.stage.outages(), []);
    // Now both.
    drop(b);
    until(|| consumer.stats.connections()[1].state.snapshot().state != ConsumerState::Live).await;
    a.close(frame(CloseCode::Away, "over")).await.unwrap();
    drop(a);
    let mut b = two.b.accept().await;
    says(&consumer, &mut b, "after", 1).await;
    let entries = consumer.stage.entries();
    let [.., Entry::Outage(outage), Entry::Batch(last)] = &entries[..] else {
        panic!("{entries:?}");
    };
    assert_eq!(last.payload_bytes(), b"after");
    assert!(
        outage.cause.contains("1001") || outage.cause.contains("1006"),
        "{}",
        outage.cause
    );
    assert_eq!(consumer.stage.outages().len(), 1);
    let a = two.a.accept().await;
    stop(consumer, a, &mut b).await;
    let log = log.text();
    assert_eq!(log.matches("connection lost").count(), 8, "{log}");
    assert!(
        log.contains("connection=1") && log.contains("connection=2"),
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_only_a_dead_connection_could_have_covered_is_recorded_once_it_is_known_to_be_dead() {
    let clock = HeldClock::hold();
    let two = Two::listen().await;
    let consumer = Running::start_unbatched(two.settings.clone());
    // From here on nobody reads or writes on A, and nothing tells.
    let (dead, mut b) = tokio::join!(two.a.accept(), two.b.accept());
    consumer.all_live(2).await;
    says_alone(&consumer, &clock, &mut b, "1").await;
    drop(b);
    let tcp = two.b.accept_tcp_after(&clock, Duration::from_millis(5)).await;
    let mut b = accept_async(tcp).await.unwrap();
    consumer.all_live(2).await;
    clock.pass(Duration::from_secs(25)).await;
    says_alone(&consumer, &clock, &mut b, "2").await;
    assert_eq!(consumer.stage.outages(), [], "A still looks alive");
    clock.pass(Duration::from_secs(6)).await;
    consumer.stage.outages_reach(1).await;
    let outage = &consumer.stage.outages()[0];
    assert!(
        outage.cause.contains("not even the answer to a ping") && outage.cause.contains("noticed after"),
        "{}",
        outage.cause
    );
    drop(dead);
    consumer.stop_beside(&mut b).await;
}

#[tokio::test]
async fn messages_are_the_same_by_the_identity_that_is_configured() {
    let mut two = Two::listen().await;
    let paths: [Path; 2] = ["$.id", "$.part"].map(|path| path.parse().unwrap());
    two.settings.identity = Some(Finder::new(&paths));
    let (consumer, mut a, mut b) = two.connect().await;
    says(
        &consumer,
        &mut a,
        r#"{"id":7,"part":"x","by":"a"} {"id":7,"part":"y"} {"of":"a"}"#,
        3,
    )
    .await;
    says(
        &consumer,
        &mut b,
        r#"{"by":"b","part":"x","id":7} {"part":"y","id":8} {"of":"b"}"#,
        2,
    )
    .await;
    assert_eq!(
        texts(&consumer),
        r#"{"id":7,"part":"x","by":"a"} {"id":7,"part":"y"} {"of":"a"} {"part":"y","id":8} {"of":"b"}"#
    );
    // A new connection on which the server repeats what it sent last.
    drop(a);
    let mut a = two.a.accept().await;
    says(&consumer, &mut a, r#"{"id":7,"part":"y"} {"id":9,"part":""}"#, 1).await;
    stop(consumer, a, &mut b).await;
}

#[tokio::test]
async fn a_connection_that_falls_behind_by_more_than_the_window_is_made_again_and_nothing_is_doubled() {
    let mut two = Two::listen().await;
    two.settings.window = WindowLimits {
        messages: 3,
        age: Duration::from_secs(60),
    };
    let (log, _guard) = Log::capture();
    let (consumer, mut a, mut b) = two.connect().await;
    says(&consumer, &mut a, "1 2 3 4 5 6", 6).await;
    // It brings what is forgotten, and more: nobody can tell.
    say(&mut b, "1 2 3").await;
    assert_eq!(close_code(&mut b).await, CloseCode::Normal);
    drop(b);
    let mut b = two.b.accept().await;
    consumer.all_live(2).await;
    says(&consumer, &mut a, "7", 1).await;
    says(&consumer, &mut b, "7 8", 1).await;
    assert_eq!(texts(&consumer), "1 2 3 4 5 6 7 8");
    assert_eq!(consumer.stage.outages(), []);
    stop(consumer, a, &mut b).await;
    let log = log.text();
    assert_eq!(log.matches("fell behind").count(), 1, "{log}");
}

#[tokio::test(start_paused = true)]
async fn connections_begin_one_after_the_other() {
    let clock = HeldClock::hold();
    let mut two = Two::listen().await;
    two.settings.apart = Settings::defaults(Vec::new()).apart;
    let consumer = Running::start(two.settings.clone(), Durability::Immediate);
    let a = two.a.accept().await;
    let why = consumer.state_is(ConsumerState::Live).await;
    assert_eq!(why, "1 of 2 connections");
    clock.pass(Duration::from_millis(4_990)).await;
    let second = &consumer.stats.connections()[1];
    assert_eq!(second.state.snapshot().why, "it begins 5 s after the first one");
    assert_eq!(second.attempts.get(), 0);
    clock.pass(Duration::from_millis(20)).await;
    let mut b = two.b.accept().await;
    consumer.all_live(2).await;
    assert_eq!(consumer.state_is(ConsumerState::Live).await, "");
    stop(consumer, a, &mut b).await;
}

#[tokio::test]
async fn a_stop_closes_all_connections_in_order_and_stages_what_they_still_bring() {
    let two = Two::listen().await;
    let (consumer, mut a, mut b) = two.connect().await;
    says(&consumer, &mut a, "1", 1).await;
    for socket in [&mut a, &mut b] {
        socket.feed(Message::text("on its way")).await.unwrap();
    }
    consumer.stop.cancel();
    for socket in [&mut a, &mut b] {
        socket.flush().await.unwrap();
        assert_eq!(close_code(socket).await, CloseCode::Normal);
    }
    let stage = std::sync::Arc::clone(&consumer.stage);
    stop(consumer, a, &mut b).await;
    assert_eq!(stage.payloads(), [&b"1"[..], b"on its way"]);
    assert_eq!(stage.outages(), []);
}
