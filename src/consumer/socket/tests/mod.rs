//! Consumers over a stage in memory, against servers on the loopback address. In most tests the test itself is the server:
//! it says what goes over the wire, and looks at what arrived in the stage.

mod broken_servers;
mod churn;
mod connections;
mod hostile;
mod hostile_servers;
mod liveness;
mod proxies;
mod receipt;
mod refusals;
mod rotation;
mod script;
mod settings;
mod support;
mod tls;
mod trial;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use crate::consumer::Consumer;
use crate::consumer::memory_stage::{Durability, Entry};
use crate::exit::ExitReason;
use crate::feed::{Feed, FeedOptions, Source};
use support::{Running, Server, close_code, say, settings};

#[tokio::test]
async fn every_message_of_a_feed_that_keeps_closing_is_staged_once_and_in_order() {
    const COUNT: u64 = 10_000;
    let feed = Feed::bind(FeedOptions {
        source: Source::Generated {
            first: 0,
            count: Some(COUNT),
        },
        drop_after: Some(777),
        ..FeedOptions::default()
    })
    .await
    .unwrap();
    let stop_feed = CancellationToken::new();
    let uri = format!("ws://{}/trades/binance", feed.local_addr());
    let playing = tokio::spawn({
        let stop = stop_feed.clone();
        async move { feed.run(stop).await }
    });
    let consumer = Running::start(settings(&uri), Durability::Immediate);
    consumer.stage.messages_reach(COUNT).await;
    let (stage, stats) = consumer.stop().await;

    let numbers = stage.payloads().into_iter().map(|payload| {
        let trade: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        trade["seq"].as_u64().unwrap()
    });
    assert!(numbers.eq(0..COUNT));
    assert_eq!((stats.received.get(), stats.staged.get()), (COUNT, COUNT));
    let outages = stage.outages();
    assert_eq!(
        outages.len() as u64,
        COUNT / 777,
        "one between any two connections"
    );
    assert_eq!(stats.gaps.get(), COUNT / 777);
    assert_eq!(stats.connects.get(), COUNT / 777 + 1);
    for outage in outages {
        assert!(outage.cause.contains("1000"), "{}", outage.cause);
        assert!(outage.from <= outage.to);
    }
    stop_feed.cancel();
    playing.await.unwrap();
}

#[tokio::test]
async fn the_only_message_of_a_slow_feed_is_staged_without_waiting_for_more() {
    let server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let mut socket = server.accept().await;
    socket.send(Message::Text("alone".into())).await.unwrap();
    consumer.stage.messages_reach(1).await;
    assert_eq!(consumer.stage.payloads(), [b"alone"]);
    consumer.stop_beside(&mut socket).await;
}

#[tokio::test]
async fn messages_are_kept_byte_for_byte_whatever_they_hold() {
    let server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let mut socket = server.accept().await;
    let megabyte: String = "häß".chars().cycle().take(1 << 20).collect();
    let not_utf8 = vec![0xff, 0xfe, 0x00, 0x80];
    let messages = [
        Message::Text("".into()),
        Message::Binary(not_utf8.clone().into()),
        Message::Binary(Vec::new().into()),
        Message::Text(megabyte.clone().into()),
        Message::Text(" {\"a\" : 1}\n".into()),
    ];
    for message in &messages {
        socket.send(message.clone()).await.unwrap();
    }
    consumer.stage.messages_reach(5).await;
    let expected = messages.map(|message| message.into_data().to_vec());
    assert_eq!(consumer.stage.payloads(), expected);
    let (stage, _) = consumer.stop_beside(&mut socket).await;
    assert_eq!(stage.outages(), []);
}

#[tokio::test]
async fn pings_are_answered_in_the_midst_of_messages() {
    let server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let (mut sending, mut receiving) = server.accept().await.split();
    let pong = tokio::spawn(async move {
        loop {
            if let Message::Pong(payload) = receiving.next().await.unwrap().unwrap() {
                return payload;
            }
        }
    });
    sending.send(Message::Ping("now".into())).await.unwrap();
    let mut sent = 0;
    while !pong.is_finished() {
        sending.send(Message::Text("load".into())).await.unwrap();
        sent += 1;
    }
    assert_eq!(pong.await.unwrap(), "now");
    consumer.stage.messages_reach(sent).await;
    consumer.stop.cancel();
    drop(sending);
    consumer.stop().await;
}

#[tokio::test]
async fn a_stop_closes_in_order_and_stages_what_the_server_still_sends() {
    let server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let mut socket = server.accept().await;
    socket.send(Message::Text("before".into())).await.unwrap();
    consumer.stage.messages_reach(1).await;
    // Messages that are on their way when the stop comes.
    for _ in 0..100 {
        socket.feed(Message::Text("on its way".into())).await.unwrap();
    }
    consumer.stop.cancel();
    socket.flush().await.unwrap();
    assert_eq!(close_code(&mut socket).await, CloseCode::Normal);
    let (stage, stats) = consumer.stop_beside(&mut socket).await;
    assert_eq!(stage.payloads().len(), 101);
    assert_eq!(stats.staged.get(), 101);
    assert_eq!(stage.outages(), [], "a stop is no outage");
}

#[tokio::test]
async fn the_steps_of_subscribe_are_sent_in_order_after_every_connect() {
    let server = Server::listen().await;
    let mut settings = settings(&server.uri());
    settings.subscribe = vec![say("first"), say(r#"{"second":2}"#)];
    let consumer = Running::start(settings, Durability::Immediate);
    for _ in 0..2 {
        let mut socket = server.accept().await;
        for expected in ["first", r#"{"second":2}"#] {
            assert_eq!(
                socket.next().await.unwrap().unwrap(),
                Message::Text(expected.into())
            );
        }
        socket.close(None).await.unwrap();
    }
    consumer.stop().await;
}

#[tokio::test]
async fn an_outage_stands_between_the_messages_of_two_connections_with_the_servers_reason() {
    let server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let mut socket = server.accept().await;
    socket.send(Message::Text("before".into())).await.unwrap();
    socket
        .close(support::frame(CloseCode::Restart, "back \"soon\"\n"))
        .await
        .unwrap();
    drop(socket);
    let mut socket = server.accept().await;
    socket.send(Message::Text("after".into())).await.unwrap();
    consumer.stage.messages_reach(2).await;
    let (stage, _) = consumer.stop_beside(&mut socket).await;
    let entries = stage.entries();
    assert!(matches!(&entries[0], Entry::Batch(batch) if batch.payload_bytes() == b"before"));
    assert!(
        matches!(&entries[1], Entry::Outage(outage) if outage.cause
            == r#"closed by the server (1012, it restarts): "back \"soon\"\n""#),
        "{entries:?}"
    );
    assert!(matches!(&entries[2], Entry::Batch(batch) if batch.payload_bytes() == b"after"));
}

#[tokio::test]
async fn a_stop_without_a_connection_records_the_outage_up_to_the_stop() {
    let server = Server::listen().await;
    let mut settings = settings(&server.uri());
    settings.backoff = crate::backoff::Backoff::new(Duration::from_secs(3_600), Duration::from_secs(3_600));
    let consumer = Running::start(settings, Durability::Immediate);
    let mut socket = server.accept().await;
    socket.send(Message::Text("last".into())).await.unwrap();
    drop(socket);
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop().await;
    // The stop may come before the loss is noticed: then the connection is closed in order, and nothing is missed.
    for outage in stage.outages() {
        assert!(outage.cause.contains("not connected again"), "{}", outage.cause);
    }
}

#[tokio::test]
async fn a_stage_that_fails_ends_the_consumer_even_while_the_feed_is_silent() {
    let server = Server::listen().await;
    let mut consumer = Running::start(settings(&server.uri()), Durability::ByHand);
    let mut socket = server.accept().await;
    socket.send(Message::Text("one".into())).await.unwrap();
    consumer.stage.messages_reach(1).await;
    consumer.stage.fail();
    let error = (&mut consumer.task).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), ExitReason::Failed);
    let text = error.to_string();
    assert!(
        text.contains("feed_under_test") && text.contains("told to fail"),
        "{text}"
    );
}

#[tokio::test]
async fn a_trial_says_that_the_handshake_was_done_and_closes() {
    let server = Server::listen().await;
    let consumer = super::SocketConsumer {
        settings: settings(&server.uri().replace("ws://", "ws://ann:secret@")),
    };
    let (said, code) = tokio::join!(consumer.probe(), async {
        let mut socket = server.accept().await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                return true;
            }
        }
        false
    });
    let said = said.unwrap();
    assert!(
        said.contains("handshake done") && !said.contains("secret"),
        "{said}"
    );
    assert!(code, "the server saw a close frame");

    let address = server.uri();
    drop(server);
    let refused = super::SocketConsumer {
        settings: settings(&address),
    };
    let said = refused.probe().await.unwrap_err();
    assert!(said.contains("can't reach 127.0.0.1:"), "{said}");
}
