//! Servers that can't be reached or don't let the consumer in, and what is said about it.

use std::time::Duration;

use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderMap;

use super::support::{Log, Running, Server, connect, say, settings};
use crate::consumer::memory_stage::Durability;
use crate::stats::ConsumerState;

/// Reads a request.
pub(super) async fn request(tcp: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(tcp.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap()
}

/// Reads a request and answers it with this status line, and headers behind it.
pub(super) async fn answer(tcp: &mut TcpStream, status: &str) {
    request(tcp).await;
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    tcp.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_tried_until_it_is() {
    let server = Server::listen().await;
    let address = server.listener.local_addr().unwrap();
    let uri = server.uri();
    drop(server);
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings(&uri), Durability::Immediate);
    while !log.text().contains("can't reach 127.0.0.1") {
        tokio::task::yield_now().await;
    }
    let server = Server {
        listener: TcpListener::bind(address).await.unwrap(),
    };
    let mut socket = server.accept().await;
    socket.send(Message::Text("here now".into())).await.unwrap();
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop_beside(&mut socket).await;
    assert_eq!(stage.outages(), [], "there was no connection to lose");
    assert!(log.text().contains("feed_under_test"), "the runner is named");
}

#[tokio::test]
async fn a_refusal_names_the_status_and_what_to_look_at_and_is_tried_again() {
    let server = Server::listen().await;
    for (status, advice) in [
        ("401 Unauthorized", "credentials"),
        ("403 Forbidden", "forbids access"),
        ("404 Not Found", "path"),
        ("429 Too Many Requests", "too many"),
        ("301 Moved Permanently", "moved"),
        ("503 Service Unavailable", "trouble of its own"),
        ("200 OK", "no WebSocket"),
    ] {
        let settings = settings(&server.uri());
        let (refused, ()) = tokio::join!(connect(&settings), async {
            answer(&mut server.accept_tcp().await, status).await;
        });
        let said = refused.err().unwrap().to_string();
        assert!(said.contains(&status[..3]) && said.contains(advice), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_an_operator_can_mend_is_an_error_once_and_is_tried_rarely() {
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    let begun = Instant::now();
    for _ in 0..3 {
        answer(&mut server.accept_tcp().await, "403 Forbidden").await;
        let why = consumer.state_is(ConsumerState::Waiting).await;
        assert!(
            why.contains("HTTP 403") && why.contains("the next attempt after"),
            "{why}"
        );
    }
    let mut socket = server.accept().await;
    let took = begun.elapsed().as_secs();
    assert!((180..=361).contains(&took), "one to two minutes each: {took} s");
    socket.send(Message::Text("welcome".into())).await.unwrap();
    consumer.stage.messages_reach(1).await;
    consumer.state_is(ConsumerState::Live).await;
    let (_, stats) = consumer.stop_beside(&mut socket).await;
    assert_eq!((stats.attempts.get(), stats.connects.get()), (4, 1));
    let log = log.text();
    assert_eq!(log.matches("HTTP 403").count(), 3, "one line for each: {log}");
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_patience_gets_it() {
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings(&server.uri()), Durability::Immediate);
    for (status, seconds) in [
        ("429 Too Many Requests\r\nRetry-After: 100", 100),
        ("503 Service Unavailable\r\nretry-after: 7", 7),
        ("429 Too Many Requests\r\nRetry-After: 9999999", 900),
        ("503 Service Unavailable", 0),
    ] {
        answer(&mut server.accept_tcp().await, status).await;
        let asked = Instant::now();
        let next = server.accept_tcp().await;
        let waited = asked.elapsed().as_secs_f32();
        let seconds = seconds as f32;
        assert!(
            waited >= seconds - 0.1 && waited < seconds + 1.0,
            "{waited} s for {status}"
        );
        drop(next);
    }
    consumer.stop().await;
    let log = log.text();
    assert_eq!(log.matches("HTTP ").count(), 4, "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up_after_connect_timeout() {
    let server = Server::listen().await;
    let mut settings = settings(&server.uri());
    settings.connect_timeout = Duration::from_millis(50);
    let (refused, _silent) = tokio::join!(connect(&settings), server.accept_tcp());
    let said = refused.err().unwrap().to_string();
    assert!(said.contains("0.05 s (connect_timeout)"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_no_http_server_is_said_to_be_none() {
    let server = Server::listen().await;
    let settings = settings(&server.uri());
    let (refused, ()) = tokio::join!(connect(&settings), async {
        let mut tcp = server.accept_tcp().await;
        tcp.write_all(b"220 mail.example ESMTP\r\n\r\n").await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let said = refused.err().unwrap().to_string();
    assert!(said.contains("no WebSocket server"), "{said}");
}

#[tokio::test(start_paused = true)]
#[expect(
    clippy::result_large_err,
    reason = "the library's callback has to return its response by value"
)]
async fn credentials_and_headers_reach_the_server_and_no_log() {
    let server = Server::listen().await;
    let uri = server.uri().replace("ws://", "ws://ann:tops%3Aecret@") + "t?key=hiddenkey";
    let mut settings = settings(&uri);
    settings.subscribe = vec![say("subscribe with hiddentoken")];
    settings
        .headers
        .insert("x-api-key", "hiddenheader".try_into().unwrap());
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings, Durability::Immediate);
    answer(&mut server.accept_tcp().await, "403 Forbidden").await;
    let mut seen = (HeaderMap::new(), String::new());
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        seen = (request.headers().clone(), request.uri().to_string());
        Ok(response)
    };
    let mut socket = accept_hdr_async(server.accept_tcp().await, note).await.unwrap();
    socket.send(Message::Text("payload".into())).await.unwrap();
    consumer.stage.messages_reach(1).await;
    drop(socket);
    drop(server.accept().await);
    consumer.stop().await;

    let (headers, path) = seen;
    assert_eq!(headers["authorization"], "Basic YW5uOnRvcHM6ZWNyZXQ=");
    assert_eq!(headers["x-api-key"], "hiddenheader");
    assert!(!headers["host"].to_str().unwrap().contains("ann"));
    assert_eq!(path, "/t?key=hiddenkey");
    let log = log.text();
    assert!(
        log.contains("connected") && log.contains("connection lost"),
        "{log}"
    );
    for secret in ["ann", "tops", "YW5u", "hidden", "payload"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
