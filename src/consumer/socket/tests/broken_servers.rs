//! Servers that send what they may not: the connection is left with the fitting code, recorded, and made again.

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::support::{Running, Server, close_code, settings};
use crate::consumer::memory_stage::{Durability, Entry};

/// Bytes that a server puts on the wire, the code that it is then told, and a word of the recorded cause.
async fn is_left_with(wire: &[u8], code: CloseCode, cause: &str) {
    let server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let mut socket = server.accept().await;
    socket.send(Message::Text("before".into())).await.unwrap();
    socket.get_mut().write_all(wire).await.unwrap();
    assert_eq!(close_code(&mut socket).await, code);
    drop(socket);

    let mut socket = server.accept().await;
    socket.send(Message::Text("after".into())).await.unwrap();
    consumer.stage.messages_reach(2).await;
    let (stage, stats) = consumer.stop_beside(&mut socket).await;
    let entries = stage.entries();
    assert!(matches!(&entries[0], Entry::Batch(batch) if batch.payload_bytes() == b"before"));
    assert!(
        matches!(&entries[1], Entry::Outage(outage) if outage.cause.contains(cause)),
        "{entries:?}"
    );
    assert!(matches!(&entries[2], Entry::Batch(batch) if batch.payload_bytes() == b"after"));
    assert_eq!((stats.received.get(), stats.gaps.get()), (2, 1));
}

#[tokio::test]
async fn a_text_message_that_is_not_utf8_ends_the_connection_with_1007() {
    is_left_with(&[0x81, 2, 0xc3, 0x28], CloseCode::Invalid, "not UTF-8").await;
}

#[tokio::test]
async fn reserved_bits_end_the_connection_with_1002() {
    is_left_with(&[0xf1, 0], CloseCode::Protocol, "protocol").await;
    // What permessage-deflate makes of an empty message.
    is_left_with(&[0xc1, 1, 0], CloseCode::Protocol, "it sent a compressed frame").await;
}

#[tokio::test]
async fn frames_that_nobody_agreed_to_or_that_break_the_order_end_the_connection_with_1002() {
    let long_ping = [&[0x89, 126, 0, 126][..], &[b'x'; 126]].concat();
    let wires: [(&str, &[u8]); 7] = [
        ("compressed without negotiation", &[0xc1, 2, 0x4a, 0x04]),
        ("an unknown kind of data", &[0x83, 0]),
        ("an unknown kind of control", &[0x8b, 0]),
        ("a ping in fragments", &[0x09, 0]),
        ("a ping that is too long", &long_ping),
        ("the end of no message", &[0x80, 0]),
        ("a message inside another", &[0x01, 1, b'a', 0x81, 1, b'b']),
    ];
    for (what, wire) in wires {
        println!("{what}");
        is_left_with(wire, CloseCode::Protocol, "1002").await;
    }
}

#[tokio::test]
async fn a_frame_that_a_server_may_not_mask_ends_the_connection_with_1002() {
    is_left_with(&[0x81, 0x81, 1, 2, 3, 4, b'x'], CloseCode::Protocol, "masked").await;
}

#[tokio::test]
async fn a_fragmented_message_that_grows_too_large_ends_the_connection_with_1009() {
    // Ten fragments of 2 MiB: none of them is too large, but all together are.
    let mut wire = Vec::new();
    for fragment in 0..10 {
        wire.push(if fragment == 0 { 0x02 } else { 0x00 });
        wire.push(127);
        wire.extend_from_slice(&(2_u64 << 20).to_be_bytes());
        wire.resize(wire.len() + (2 << 20), 0);
    }
    is_left_with_beside_sending(&wire).await;
}

#[tokio::test]
async fn a_message_of_20_mb_ends_the_connection_with_1009() {
    let mut wire = vec![0x82, 127];
    wire.extend_from_slice(&20_000_000_u64.to_be_bytes());
    wire.resize(wire.len() + 20_000_000, 0);
    is_left_with_beside_sending(&wire).await;
}

/// The server is told while it is still sending, so it has to read and write at the same time.
async fn is_left_with_beside_sending(wire: &[u8]) {
    use tokio::io::AsyncReadExt;
    let server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let (mut reading, mut writing) = server.accept().await.into_inner().into_split();
    let sending = async { writing.write_all(wire).await };
    let hearing = async {
        // A client's close frame with a code: masked, two bytes.
        let mut frame = [0; 8];
        reading.read_exact(&mut frame).await.unwrap();
        frame
    };
    let (_, frame) = tokio::join!(sending, hearing);
    assert_eq!(frame[..2], [0x88, 0x82]);
    let code = u16::from_be_bytes([frame[6] ^ frame[2], frame[7] ^ frame[3]]);
    assert_eq!(code, 1009);
    drop((reading, writing));

    let mut socket = server.accept().await;
    socket.send(Message::Text("after".into())).await.unwrap();
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop_beside(&mut socket).await;
    assert_eq!(stage.payloads(), [b"after"]);
    let outages = stage.outages();
    assert_eq!(outages.len(), 1);
    assert!(
        outages[0].cause.contains("max_message_size is 16777216"),
        "{}",
        outages[0].cause
    );
}

#[tokio::test]
async fn a_connection_that_breaks_off_in_the_midst_of_a_message_is_made_again() {
    let server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let mut socket = server.accept().await;
    socket
        .get_mut()
        .write_all(&[0x81, 100, b'h', b'a', b'l', b'f'])
        .await
        .unwrap();
    drop(socket);
    let mut socket = server.accept().await;
    socket.send(Message::Text("whole".into())).await.unwrap();
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop_beside(&mut socket).await;
    assert_eq!(stage.payloads(), [b"whole"]);
    assert!(stage.outages()[0].cause.contains("1006"), "{:?}", stage.outages());
}

#[tokio::test]
async fn a_message_in_fragments_with_a_ping_between_them_is_one_message() {
    let server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let mut socket = server.accept().await;
    let wire = [&[0x01, 2, b'a', b'b'][..], &[0x89, 0], &[0x80, 1, b'c']].concat();
    socket.get_mut().write_all(&wire).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_pong());
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop_beside(&mut socket).await;
    assert_eq!(stage.payloads(), [b"abc"]);
}
