//! What is said after a connect, what is waited for, and what becomes of other messages meanwhile.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::support::{Log, Running, Server, close_code, frame, settings_with};
use crate::consumer::memory_stage::{Durability, Entry};
use crate::stats::ConsumerState;

type Connection = WebSocketStream<TcpStream>;

const SUBSCRIBE: &str = r#"
subscribe:
  - send: { op: login }
  - expect: { $.event: [login, welcome] }
    reject: { $.event: error }
  - send: { op: subscribe }
  - expect: { regex: '"subscribed"' }
    timeout: 5s
control: [{ $.type: heartbeat }]
"#;

async fn says(socket: &mut Connection, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
}

async fn hears(socket: &mut Connection, text: &str) {
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
}

/// Answers both steps of the script.
async fn answers(socket: &mut Connection) {
    hears(socket, r#"{"op":"login"}"#).await;
    says(socket, r#"{"event":"welcome"}"#).await;
    hears(socket, r#"{"op":"subscribe"}"#).await;
    says(socket, r#"{"event":"subscribed"}"#).await;
}

#[tokio::test]
async fn each_answer_is_waited_for_and_kept_out_of_the_data_which_keeps_its_order() {
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings_with(&server.uri(), SUBSCRIBE), Durability::Immediate);
    let mut socket = server.accept().await;
    hears(&mut socket, r#"{"op":"login"}"#).await;
    says(&mut socket, "data before").await;
    consumer.stage.messages_reach(1).await;
    assert_eq!(consumer.stats.state.snapshot().state, ConsumerState::Subscribing);
    says(&mut socket, r#"{"event":"login"}"#).await;
    // The second answer is there before it is asked for.
    hears(&mut socket, r#"{"op":"subscribe"}"#).await;
    for text in [
        r#"{"type":"heartbeat"}"#,
        "data between",
        r#"{"event":"subscribed"}"#,
        r#"{"type":"heartbeat"}"#,
        "data behind",
        r#"{"event":"login"}"#,
    ] {
        says(&mut socket, text).await;
    }
    consumer.stage.messages_reach(4).await;
    assert_eq!(consumer.state_is(ConsumerState::Live).await, "");
    let (stage, stats) = consumer.stop_beside(&mut socket).await;
    let expected: [&[u8]; 4] = [
        b"data before",
        b"data between",
        b"data behind",
        br#"{"event":"login"}"#,
    ];
    assert_eq!(
        stage.payloads(),
        expected,
        "an answer that nobody waits for is data"
    );
    assert_eq!((stats.received.get(), stats.control.get()), (4, 4));
    assert_eq!(
        stage.outages(),
        [],
        "before the first subscription nothing was promised"
    );
    let log = log.text();
    assert_eq!(log.matches("subscribed").count(), 1, "{log}");
    assert_eq!(log.matches(" connected ").count(), 1, "{log}");
}

#[tokio::test]
async fn answers_that_come_together_are_taken_one_after_the_other() {
    let server = Server::listen().await;
    let keys = "subscribe: [{ expect: { $.id: 1 } }, { expect: { $.id: 2 } }]";
    let consumer = Running::start(settings_with(&server.uri(), keys), Durability::Immediate);
    let mut socket = server.accept().await;
    for text in [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":1}"#] {
        socket.feed(Message::text(text)).await.unwrap();
    }
    socket.flush().await.unwrap();
    consumer.stage.messages_reach(1).await;
    let (stage, stats) = consumer.stop_beside(&mut socket).await;
    assert_eq!(stage.payloads(), [br#"{"id":1}"#]);
    assert_eq!(stats.control.get(), 2);
}

#[tokio::test]
async fn a_refusal_ends_the_session_at_once_with_what_matched_and_is_part_of_the_outage() {
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings_with(&server.uri(), SUBSCRIBE), Durability::Immediate);
    let mut socket = server.accept().await;
    answers(&mut socket).await;
    says(&mut socket, "one").await;
    consumer.stage.messages_reach(1).await;
    socket.close(frame(CloseCode::Restart, "")).await.unwrap();
    drop(socket);
    for _ in 0..3 {
        let mut socket = server.accept().await;
        hears(&mut socket, r#"{"op":"login"}"#).await;
        says(&mut socket, r#"{"event":"error","token":"hidden"}"#).await;
        assert_eq!(close_code(&mut socket).await, CloseCode::Normal);
    }
    let mut socket = server.accept().await;
    answers(&mut socket).await;
    says(&mut socket, "two").await;
    consumer.stage.messages_reach(2).await;
    let (stage, stats) = consumer.stop_beside(&mut socket).await;
    let outages = stage.outages();
    assert_eq!(
        outages.len(),
        1,
        "one stretch, however many attempts: {outages:?}"
    );
    assert_eq!(
        outages[0].cause,
        "closed by the server (1012, it restarts); then: while subscribing: the server refused what subscribe[1] \
         waits for: $.event is \"error\""
    );
    assert_eq!(stats.attempts.get(), 5);
    let log = log.text();
    assert_eq!(log.matches("connection lost").count(), 4, "{log}");
    assert!(!log.contains("hidden"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_ends_the_session_after_its_timeout_ever_more_rarely() {
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let mut settings = settings_with(&server.uri(), SUBSCRIBE);
    settings.backoff = crate::backoff::Backoff::new(
        std::time::Duration::from_millis(500),
        std::time::Duration::from_secs(60),
    );
    let consumer = Running::start(settings, Durability::Immediate);
    let begun = Instant::now();
    for _ in 0..3 {
        let mut socket = server.accept().await;
        hears(&mut socket, r#"{"op":"login"}"#).await;
        says(&mut socket, r#"{"event":"login"}"#).await;
        hears(&mut socket, r#"{"op":"subscribe"}"#).await;
        let asked = Instant::now();
        // Pongs and heartbeats are no answer.
        says(&mut socket, r#"{"type":"heartbeat"}"#).await;
        assert_eq!(close_code(&mut socket).await, CloseCode::Normal);
        assert!(asked.elapsed().as_secs_f32() < 5.1, "{:?}", asked.elapsed());
        drop(socket);
        let why = consumer.state_is(ConsumerState::Waiting).await;
        assert!(why.contains("subscribe[3] expects within 5 s"), "{why}");
    }
    assert!(begun.elapsed().as_secs() >= 15, "three timeouts");
    let (stage, stats) = consumer.stop().await;
    assert!(stats.attempts.get() <= 4);
    assert_eq!(stage.entries().len(), 0, "nothing was ever promised");
    assert_eq!(log.text().matches("connection lost").count(), 3, "one line each");
}

#[tokio::test]
async fn data_before_the_last_answer_stands_between_the_two_parts_of_the_outage() {
    let server = Server::listen().await;
    let consumer = Running::start(settings_with(&server.uri(), SUBSCRIBE), Durability::Immediate);
    let mut socket = server.accept().await;
    answers(&mut socket).await;
    says(&mut socket, "before").await;
    consumer.stage.messages_reach(1).await;
    drop(socket);
    let mut socket = server.accept().await;
    says(&mut socket, "early").await;
    says(&mut socket, "early too").await;
    consumer.stage.messages_reach(3).await;
    answers(&mut socket).await;
    says(&mut socket, "after").await;
    consumer.stage.messages_reach(4).await;
    let (stage, _) = consumer.stop_beside(&mut socket).await;
    let mut seen = Vec::new();
    let mut ends = Vec::new();
    for entry in stage.entries() {
        match entry {
            Entry::Batch(batch) => seen.extend(
                batch
                    .iter()
                    .map(|m| String::from_utf8(m.payload.to_vec()).unwrap()),
            ),
            Entry::Outage(outage) => {
                ends.push((outage.from, outage.to));
                seen.push(format!("outage: {}", outage.cause));
            }
        }
    }
    assert_eq!(
        seen,
        [
            "before",
            "outage: the connection ended without a close frame (1006)",
            "early",
            "early too",
            "outage: the server sent data before all steps of subscribe were done",
            "after"
        ]
    );
    assert_eq!(ends[0].1, ends[1].0, "the parts make one stretch");
}

#[tokio::test]
async fn a_close_while_subscribing_is_told_with_the_servers_reason_though_we_were_speaking() {
    let server = Server::listen().await;
    let consumer = Running::start(
        settings_with(
            &server.uri(),
            "subscribe: [{ send: hello }, { expect: { $.a: 1 } }]",
        ),
        Durability::Immediate,
    );
    let (log, _guard) = Log::capture();
    let mut socket = server.accept().await;
    socket.close(frame(CloseCode::Policy, "bad token")).await.unwrap();
    drop(socket);
    let socket = server.accept().await;
    let log = log.text();
    assert!(
        log.contains(r#"while subscribing: closed by the server (1008, against its policy): \"bad token\""#),
        "{log}"
    );
    drop(socket);
    consumer.stop().await;
}

#[tokio::test]
async fn tokens_in_files_are_read_at_every_connect_and_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let file = path.display();
    let keys = format!(
        r#"
headers: {{ X-Key: {{ file: {file} }} }}
auth: {{ bearer: {{ file: {file} }} }}
subscribe:
  - send: {{ op: auth, args: [{{ token: {{ file: {file} }} }}] }}
  - send: {{ file: {file} }}
ping: {{ interval: 1h, send: {{ file: {file} }} }}
"#
    );
    let server = Server::listen().await;
    let (log, _guard) = Log::capture();
    std::fs::write(&path, "hidden-1\n").unwrap();
    let consumer = Running::start(settings_with(&server.uri(), &keys), Durability::Immediate);
    for number in 1..=2 {
        let token = format!("hidden-{number}");
        let (mut socket, headers) = server.accept_with_headers().await;
        assert_eq!(headers["x-key"], token);
        assert_eq!(headers["authorization"], format!("Bearer {token}"));
        hears(
            &mut socket,
            &format!(r#"{{"op":"auth","args":[{{"token":"{token}"}}]}}"#),
        )
        .await;
        hears(&mut socket, &token).await;
        std::fs::write(&path, "hidden-2").unwrap();
        socket.close(None).await.unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    let why = loop {
        let why = consumer.state_is(ConsumerState::Waiting).await;
        if why.contains("can't read") {
            break why;
        }
        // An attempt may have begun before the file was gone.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(1), server.accept()).await;
    };
    assert!(why.contains(&path.display().to_string()), "{why}");
    consumer.stop().await;
    let log = log.text();
    assert_eq!(log.matches("ERROR").count(), 1, "an operator is needed: {log}");
    assert!(!log.contains("hidden"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_ping_by_message_keeps_the_connection_while_it_is_answered_and_no_longer() {
    let keys =
        "ping: { interval: 20s, timeout: 10s, send: { op: ping }, expect: { $.op: pong } }\nidle_timeout: 0s";
    let server = Server::listen().await;
    let consumer = Running::start(settings_with(&server.uri(), keys), Durability::Immediate);
    let mut socket = server.accept().await;
    for _ in 0..10 {
        hears(&mut socket, r#"{"op":"ping"}"#).await;
        says(&mut socket, r#"{"op":"pong"}"#).await;
    }
    let answered = Instant::now();
    // From now on something between us and the server still speaks the protocol, and the server does not.
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(Message::Ping("x".into())).await.is_err() {
            break;
        }
    }
    assert!(answered.elapsed().as_secs() <= 31, "{:?}", answered.elapsed());
    let next = server.accept().await;
    consumer.stage.outages_reach(1).await;
    assert!(
        consumer.stage.outages()[0]
            .cause
            .contains("not even the answer to a ping")
    );
    drop((socket, next));
    let (stage, stats) = consumer.stop().await;
    assert_eq!(stats.control.get(), 10);
    assert_eq!(stage.payloads().len(), 0);
}
