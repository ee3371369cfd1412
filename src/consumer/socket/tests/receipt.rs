//! When messages count as received: when they were read from the connection, however many at a time.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::support::{Running, Server, frame, session, settings, settings_with};
use crate::consumer::memory_stage::{Durability, Entry, MemoryStage};
use crate::record::Timestamp;

/// When each message was received.
fn received(stage: &MemoryStage) -> Vec<Timestamp> {
    let entries = stage.entries().into_iter();
    let batches = entries.filter_map(|entry| match entry {
        Entry::Batch(batch) => Some(batch),
        Entry::Outage(_) => None,
    });
    batches
        .flat_map(|batch| {
            batch
                .iter()
                .map(|message| message.received_at)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test]
async fn messages_of_one_read_are_received_together_and_those_of_the_next_later() {
    let server = Server::listen().await;
    let stage = MemoryStage::new(Durability::Immediate);
    let settings = settings(&server.uri());
    session(&settings, &stage, &server, async |mut socket| {
        for _ in 0..50 {
            socket.feed(Message::text("one")).await.unwrap();
        }
        socket.flush().await.unwrap();
        // The answer tells that everything before it was read.
        socket.send(Message::Ping("read?".into())).await.unwrap();
        while !socket.next().await.unwrap().unwrap().is_pong() {}
        socket.send(Message::text("two")).await.unwrap();
        socket.close(frame(CloseCode::Normal, "")).await.unwrap();
        while socket.next().await.is_some_and(|frame| frame.is_ok()) {}
    })
    .await;
    let times = received(&stage);
    assert_eq!(times.len(), 51);
    assert!(times[..50].iter().all(|time| *time == times[0]), "{times:?}");
    assert!(times[50] > times[0], "{times:?}");
}

#[tokio::test]
async fn at_full_load_hundreds_of_messages_are_read_at_once() {
    let server = Server::listen().await;
    let stage = MemoryStage::new(Durability::Immediate);
    let settings = settings(&server.uri());
    let message = "a".repeat(165);
    session(&settings, &stage, &server, async |mut socket| {
        for _ in 0..4_000 {
            socket.feed(Message::text(message.as_str())).await.unwrap();
        }
        socket.close(frame(CloseCode::Normal, "")).await.unwrap();
        while socket.next().await.is_some_and(|frame| frame.is_ok()) {}
    })
    .await;
    let mut times = received(&stage);
    assert_eq!(times.len(), 4_000);
    times.dedup();
    // They are eleven times what is read at once; with a buffer of 4 KiB it would be two hundred reads.
    assert!(times.len() < 100, "{} reads", times.len());
}

#[tokio::test]
async fn what_comes_together_with_the_last_answer_is_not_received_before_the_outage_ends() {
    let server = Server::listen().await;
    let subscribe = "subscribe:\n  - expect: { regex: subscribed }";
    let consumer = Running::start(settings_with(&server.uri(), subscribe), Durability::Immediate);
    for round in 1..=2 {
        let mut socket = server.accept().await;
        for text in ["subscribed", "data"] {
            socket.feed(Message::text(text)).await.unwrap();
        }
        socket.flush().await.unwrap();
        consumer.stage.messages_reach(round).await;
        socket.close(frame(CloseCode::Restart, "")).await.unwrap();
    }
    consumer.stage.outages_reach(1).await;
    let outage_end = consumer.stage.outages()[0].to;
    assert!(received(&consumer.stage)[1] >= outage_end);
    consumer.stop.cancel();
}
