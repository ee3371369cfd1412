//! Servers that fall silent, and how often they are tried again.

use std::time::Duration;

use futures_util::SinkExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::super::liveness::{Idle, IdleAction, Ping};
use super::super::session::End;
use super::super::settings::Settings;
use super::support::{Running, Server, close_code, session, settings};
use crate::backoff::Backoff;
use crate::consumer::memory_stage::{Durability, MemoryStage};

/// Nothing but what the server sends or does not send ends a connection.
fn without_timers(uri: &str) -> Settings {
    let mut settings = settings(uri);
    settings.ping = None;
    settings.idle = None;
    settings
}

fn idle(timeout: Duration) -> Option<Idle> {
    Some(Idle {
        timeout,
        action: IdleAction::Reconnect,
    })
}

#[tokio::test]
async fn a_server_that_sends_no_data_is_left_after_idle_timeout_though_it_answers_pings() {
    let server = Server::listen().await;
    let mut settings = without_timers(&server.uri());
    settings.idle = idle(Duration::from_millis(50));
    settings.ping = Some(Ping {
        interval: Duration::from_millis(5),
        timeout: Duration::from_secs(60),
    });
    let consumer = Running::start(settings, Durability::Immediate);
    let mut socket = server.accept().await;
    assert_eq!(close_code(&mut socket).await, CloseCode::Away);
    drop(socket);
    let socket = server.accept().await;
    consumer.stage.outages_reach(1).await;
    let cause = consumer.stage.outages()[0].cause.clone();
    assert!(cause.contains("(idle)"), "{cause}");
    drop(socket);
    consumer.stop().await;
}

#[tokio::test]
async fn a_server_that_does_not_even_answer_pings_is_left_after_interval_and_timeout() {
    let server = Server::listen().await;
    let mut settings = without_timers(&server.uri());
    settings.ping = Some(Ping {
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(20),
    });
    let consumer = Running::start(settings, Durability::Immediate);
    // Nobody reads this connection, so no ping is answered.
    let deaf = server.accept().await;
    let socket = server.accept().await;
    consumer.stage.outages_reach(1).await;
    let cause = consumer.stage.outages()[0].cause.clone();
    assert!(cause.contains("not even the answer to a ping"), "{cause}");
    drop((deaf, socket));
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_closes_at_once_is_tried_ever_more_rarely() {
    let server = Server::listen().await;
    let mut settings = without_timers(&server.uri());
    settings.backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
    let consumer = Running::start(settings, Durability::Immediate);
    let ten_minutes = Instant::now() + Duration::from_secs(600);
    let mut connections = 0;
    while let Ok(accepted) = timeout_at(ten_minutes, server.listener.accept()).await {
        connections += 1;
        assert!(
            connections < 120,
            "delays that began anew each time would give some 2400"
        );
        if let Ok(mut socket) = accept_async(accepted.unwrap().0).await {
            // A little data does not make it healthy.
            let _ = socket.send(Message::Text("hello".into())).await;
            let _ = socket.close(None).await;
        }
    }
    assert!(connections >= 5, "{connections}");
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_a_minute_of_data_makes_a_connection_healthy() {
    for (seconds, healthy) in [(59, false), (61, true)] {
        let server = Server::listen().await;
        let settings = without_timers(&server.uri());
        let speaking = async |mut socket: WebSocketStream<TcpStream>| {
            socket.send(Message::Text("first".into())).await.unwrap();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            socket.send(Message::Text("last".into())).await.unwrap();
            tokio::time::sleep(Duration::from_secs(600)).await;
            drop(socket);
        };
        let stage = MemoryStage::new(Durability::Immediate);
        let end = session(&settings, &stage, &server, speaking).await;
        let End::Lost { was_healthy, .. } = end else {
            panic!("nobody stopped it");
        };
        assert_eq!(was_healthy, healthy, "{seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_to_be_read_are_heard_before_silence_is_judged() {
    let server = Server::listen().await;
    let mut settings = without_timers(&server.uri());
    settings.idle = idle(Duration::from_secs(60));
    let stage = MemoryStage::new(Durability::Immediate);
    let speaking = async |mut socket: WebSocketStream<TcpStream>| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        socket.send(Message::Text("waiting".into())).await.unwrap();
        // The process stood still for ten minutes, as with SIGSTOP.
        tokio::time::advance(Duration::from_secs(600)).await;
        stage.messages_reach(1).await;
        drop(socket);
    };
    let End::Lost { cause, .. } = session(&settings, &stage, &server, speaking).await else {
        panic!("nobody stopped it");
    };
    assert!(cause.contains("1006"), "{cause}");
    assert_eq!(stage.payloads(), [b"waiting"]);
}
