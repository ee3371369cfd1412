//! Servers that mean no good, or fail in the worst way: what state is shown, how soon it is over, and what is recorded.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::support::{Log, Running, Server, close_code, frame, settings, settings_with};
use crate::consumer::memory_stage::Durability;
use crate::stats::ConsumerState;

#[tokio::test(start_paused = true)]
async fn a_server_that_neither_reads_nor_writes_after_its_data_is_left_after_interval_and_timeout() {
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings_with(&server.uri(), ""), Durability::Immediate);
    let mut deaf = server.accept().await;
    deaf.send(Message::text("last")).await.unwrap();
    consumer.stage.messages_reach(1).await;
    let begun = Instant::now();
    // It stays open: nothing tells that it is dead.
    let next = server.accept().await;
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(29) && took < Duration::from_secs(31),
        "{took:?}"
    );
    consumer.stage.outages_reach(1).await;
    let outage = &consumer.stage.outages()[0];
    assert!(
        outage.cause.contains("not even the answer to a ping"),
        "{}",
        outage.cause
    );
    drop((deaf, next));
    let (_, stats) = consumer.stop().await;
    assert!(stats.attempts.get() <= 3);
    assert_eq!(log.text().matches("not even the answer").count(), 1, "one line");
}

#[tokio::test(start_paused = true)]
async fn a_silence_that_is_only_warned_of_keeps_the_connection_and_is_told_once() {
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let keys = "idle: { timeout: 60s, action: warn }";
    let consumer = Running::start(settings_with(&server.uri(), keys), Durability::Immediate);
    let (mut sink, mut stream) = server.accept().await.split();
    // Reading answers pings.
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
    for round in 1..=2 {
        consumer.state_is(ConsumerState::Live).await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        let why = consumer.state_is(ConsumerState::Silent).await;
        assert!(why.contains("no data message for 60"), "{why}");
        sink.send(Message::text("again")).await.unwrap();
        consumer.stage.messages_reach(round).await;
    }
    consumer.state_is(ConsumerState::Live).await;
    assert_eq!(consumer.stats.attempts.get(), 1);
    let (stage, _) = consumer.stop().await;
    assert_eq!(stage.outages(), []);
    reading.await.unwrap();
    let log = log.text();
    assert_eq!(
        (log.matches(" silent;").count(), log.matches("data again").count()),
        (2, 2),
        "{log}"
    );
}

#[tokio::test]
async fn a_stage_that_takes_nothing_shows_as_paused_until_it_does() {
    const MESSAGES: u64 = 24;
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings(&server.uri()), Durability::ByHand);
    let mut socket = server.accept().await;
    let megabyte = "x".repeat(1 << 20);
    let sending = async {
        for _ in 0..MESSAGES {
            socket.send(Message::text(megabyte.clone())).await.unwrap();
        }
    };
    let watching = async {
        let why = consumer.state_is(ConsumerState::Paused).await;
        assert!(why.contains("full"), "{why}");
        assert!(
            consumer.stage.payloads().len() < 24,
            "what is held in memory is bounded"
        );
        while consumer.stage.payloads().len() < 24 {
            consumer.stage.commit();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(sending, watching);
    consumer.state_is(ConsumerState::Live).await;
    consumer.stage.commit();
    let stage = std::sync::Arc::clone(&consumer.stage);
    let committing = async {
        while consumer.stats.staged.get() < MESSAGES {
            stage.commit();
            tokio::task::yield_now().await;
        }
    };
    committing.await;
    let (stage, _) = consumer.stop_beside(&mut socket).await;
    assert_eq!(stage.outages(), [], "no connection was lost");
    let log = log.text();
    assert_eq!(
        (log.matches(" paused;").count(), log.matches("read again").count()),
        (1, 1),
        "{log}"
    );
}

#[tokio::test]
async fn a_flood_before_the_answer_is_kept_whole_and_the_answer_is_found() {
    const FLOOD: u64 = 20_000;
    let server = Server::listen().await;
    let keys = "subscribe: [{ expect: { $.event: subscribed } }]\ncontrol: [{ $.type: heartbeat }]";
    let consumer = Running::start(settings_with(&server.uri(), keys), Durability::Immediate);
    let mut socket = server.accept().await;
    for number in 0..FLOOD {
        if number == FLOOD / 2 {
            socket
                .feed(Message::text(r#"{"event":"subscribed"}"#))
                .await
                .unwrap();
        }
        socket.feed(Message::text(number.to_string())).await.unwrap();
        socket
            .feed(Message::text(r#"{"type":"heartbeat"}"#))
            .await
            .unwrap();
    }
    socket.flush().await.unwrap();
    consumer.stage.messages_reach(FLOOD).await;
    consumer.state_is(ConsumerState::Live).await;
    let (stage, stats) = consumer.stop_beside(&mut socket).await;
    let numbers = stage
        .payloads()
        .into_iter()
        .map(|payload| String::from_utf8(payload).unwrap());
    assert!(numbers.eq((0..FLOOD).map(|number| number.to_string())));
    assert_eq!(stats.control.get(), FLOOD + 1);
}

#[tokio::test]
async fn every_close_code_is_recorded_with_the_reason_that_the_server_gives() {
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let codes = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4321,
    ];
    for code in codes {
        let mut socket = server.accept().await;
        socket
            .close(frame(CloseCode::from(code), "so it is"))
            .await
            .unwrap();
        assert_eq!(
            close_code(&mut socket).await,
            CloseCode::from(code),
            "the code is answered"
        );
    }
    let mut socket = server.accept().await;
    socket.send(Message::text("after")).await.unwrap();
    consumer.stage.messages_reach(1).await;
    let (stage, stats) = consumer.stop_beside(&mut socket).await;
    let causes: Vec<String> = stage.outages().into_iter().map(|outage| outage.cause).collect();
    assert_eq!(causes.len(), codes.len());
    for (cause, code) in causes.iter().zip(codes) {
        assert!(
            cause.starts_with(&format!("closed by the server ({code}")),
            "{cause}"
        );
        assert!(cause.ends_with(r#": "so it is""#), "{cause}");
    }
    assert_eq!(stats.attempts.get(), codes.len() as u64 + 1);
    assert_eq!(log.text().matches("connection lost").count(), codes.len());
}
