//! Every kind of hostile server in the same trial: it is met after a good connection, three times in a row, and a good one comes
//! behind. What is shown meanwhile, how often it is tried, what the log says, what is recorded, and whether another
//! consumer is disturbed.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async};
use tokio_util::task::AbortOnDropHandle;

use super::refusals::request;
use super::support::{HeldClock, Log, Running, Server, frame, settings, settings_with, until};
use crate::consumer::memory_stage::Entry;
use crate::stats::ConsumerState;

/// Times that a hostile server is met.
const ROUNDS: u64 = 3;
const SUBSCRIBE: &str = "
subscribe: [{ send: hello }, { expect: { $.event: welcome }, reject: { $.event: denied } }]
ping: { interval: 20s, timeout: 10s }
max_message_size: 1KiB
";
/// Data of one flood.
const FLOOD: usize = 5_000;

/// What a hostile server does.
#[derive(Clone, Copy, Debug)]
enum Hostility {
    AnswersHttpError,
    ForbidsAccess,
    ClosesBeforeTheHandshake,
    HangsInTheHandshake,
    IsNoHttpServer,
    ClosesAfterTheHandshake,
    DeniesTheSubscription,
    DoesNotAnswerTheSubscription,
    IsSilentWithPongs,
    IsSilentWithoutPongs,
    IsDeadAfterData,
    Closes(u16),
    Sends(&'static [u8]),
    SendsTooMuch,
    BreaksOffInAFragment,
    Floods,
}

/// What is expected of the consumer.
struct Expected {
    /// A part of what is recorded and said.
    cause: &'static str,
    /// Whether it was live meanwhile, so that each loss begins a stretch of its own.
    is_live: bool,
    /// Data that is kept.
    data: usize,
    /// What is shown until it notices; `None` where it notices at once.
    meanwhile: Option<ConsumerState>,
    /// How long until it notices.
    patience: Duration,
    /// The delay before the next attempt is at most this.
    delay: Duration,
}

impl Hostility {
    fn expected(self) -> Expected {
        let at_once = |cause, is_live| Expected {
            cause,
            is_live,
            data: 0,
            meanwhile: None,
            patience: Duration::ZERO,
            delay: Duration::from_millis(5),
        };
        let after = |cause, meanwhile, seconds| Expected {
            meanwhile: Some(meanwhile),
            patience: Duration::from_secs(seconds),
            ..at_once(cause, meanwhile == ConsumerState::Live)
        };
        match self {
            Self::AnswersHttpError => at_once("HTTP 500", false),
            Self::ForbidsAccess => Expected {
                delay: Duration::from_secs(125),
                ..at_once("HTTP 403", false)
            },
            Self::ClosesBeforeTheHandshake => at_once("ended the connection during the handshake", false),
            Self::IsNoHttpServer => at_once("no WebSocket server", false),
            Self::HangsInTheHandshake => after("(connect_timeout)", ConsumerState::Connecting, 30),
            Self::ClosesAfterTheHandshake => at_once("while subscribing: the connection ended", false),
            Self::DeniesTheSubscription => at_once("the server refused what subscribe[1]", false),
            Self::DoesNotAnswerTheSubscription => after(
                "did not answer as subscribe[1] expects",
                ConsumerState::Subscribing,
                10,
            ),
            Self::IsSilentWithPongs => after("(idle)", ConsumerState::Live, 61),
            Self::IsSilentWithoutPongs => after("not even the answer to a ping", ConsumerState::Live, 31),
            Self::IsDeadAfterData => Expected {
                data: 1,
                ..after("not even the answer to a ping", ConsumerState::Live, 31)
            },
            Self::Closes(_) => at_once("\"so it is\"", true),
            Self::Sends(_) => at_once("(100", true),
            Self::SendsTooMuch => at_once("max_message_size is 1024 (1009)", true),
            Self::BreaksOffInAFragment => at_once("1006", true),
            Self::Floods => Expected {
                data: FLOOD,
                ..at_once("1006", true)
            },
        }
    }

    /// Keys that the trial needs besides.
    fn keys(self) -> &'static str {
        match self {
            // So late that it is the idle timeout that counts, whenever the pong is seen.
            Self::IsSilentWithPongs => "ping: { interval: 20s, timeout: 60s }",
            _ => "ping: { interval: 20s, timeout: 10s }",
        }
    }

    /// Meets a consumer that has just connected. What it returns is to be kept until the consumer has noticed.
    async fn meets(self, mut tcp: TcpStream) -> Option<Kept> {
        match self {
            Self::AnswersHttpError => answers(&mut tcp, "500 Internal Server Error").await,
            Self::ForbidsAccess => answers(&mut tcp, "403 Forbidden").await,
            Self::ClosesBeforeTheHandshake => {}
            Self::HangsInTheHandshake => return Some(Kept::Tcp(tcp)),
            Self::IsNoHttpServer => {
                tcp.write_all(b"220 mail.example ESMTP\r\n\r\n").await.unwrap();
                let _ = tcp.read_to_end(&mut Vec::new()).await;
            }
            Self::ClosesAfterTheHandshake => drop(accept_async(tcp).await.unwrap()),
            Self::DeniesTheSubscription => {
                let mut socket = hears_hello(tcp).await;
                socket.send(Message::text(r#"{"event":"denied"}"#)).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {}
            }
            // It answers the close frame, though, so that nobody waits for that.
            Self::DoesNotAnswerTheSubscription => return Some(Kept::reader(hears_hello(tcp).await)),
            Self::IsSilentWithPongs => return Some(Kept::reader(welcomes(tcp).await)),
            Self::IsSilentWithoutPongs => return Some(Kept::Socket(Box::new(welcomes(tcp).await))),
            Self::IsDeadAfterData => {
                let mut socket = welcomes(tcp).await;
                socket.send(Message::text("data")).await.unwrap();
                return Some(Kept::Socket(Box::new(socket)));
            }
            Self::Closes(code) => {
                let mut socket = welcomes(tcp).await;
                socket
                    .close(frame(CloseCode::from(code), "so it is"))
                    .await
                    .unwrap();
                while let Some(Ok(_)) = socket.next().await {}
            }
            Self::Sends(wire) => sends(tcp, wire).await,
            Self::SendsTooMuch => sends(tcp, &[&[0x82, 126, 0x08, 0][..], &[0; 2_048]].concat()).await,
            Self::BreaksOffInAFragment => {
                let mut socket = welcomes(tcp).await;
                socket.get_mut().write_all(&[0x01, 2, b'a', b'b']).await.unwrap();
            }
            Self::Floods => {
                let mut socket = welcomes(tcp).await;
                for _ in 0..FLOOD {
                    socket.feed(Message::text("data")).await.unwrap();
                }
                socket.flush().await.unwrap();
            }
        }
        None
    }
}

/// What a hostile server keeps open.
#[expect(dead_code, reason = "they are only kept")]
enum Kept {
    Tcp(TcpStream),
    Socket(Box<WebSocketStream<TcpStream>>),
    Reader(AbortOnDropHandle<()>),
}

impl Kept {
    /// Reads what comes, and so answers pings and close frames.
    fn reader(mut socket: WebSocketStream<TcpStream>) -> Self {
        let reading = async move { while let Some(Ok(_)) = socket.next().await {} };
        Self::Reader(AbortOnDropHandle::new(tokio::spawn(reading)))
    }
}

async fn answers(tcp: &mut TcpStream, status: &str) {
    request(tcp).await;
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    tcp.write_all(answer.as_bytes()).await.unwrap();
}

async fn hears_hello(tcp: TcpStream) -> WebSocketStream<TcpStream> {
    let mut socket = accept_async(tcp).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    socket
}

async fn welcomes(tcp: TcpStream) -> WebSocketStream<TcpStream> {
    let mut socket = hears_hello(tcp).await;
    socket
        .send(Message::text(r#"{"event":"welcome"}"#))
        .await
        .unwrap();
    socket
}

/// Puts bytes on the wire, and reads until the consumer has gone.
async fn sends(tcp: TcpStream, wire: &[u8]) {
    let mut socket = welcomes(tcp).await;
    socket.get_mut().write_all(wire).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

async fn is_met_thrice(hostility: Hostility, clock: &HeldClock) {
    println!("{hostility:?}");
    let expected = hostility.expected();
    let (log, _guard) = Log::capture();
    let (server, other_server) = (Server::listen().await, Server::listen().await);
    let keys = SUBSCRIBE.replace("ping: { interval: 20s, timeout: 10s }", hostility.keys());
    let consumer = Running::start_unbatched(settings_with(&server.uri(), &keys));
    let mut other_settings = settings(&other_server.uri());
    (other_settings.ping, other_settings.idle) = (None, None);
    let other = Running::start_unbatched(other_settings);
    let mut undisturbed = other_server.accept().await;

    let mut good = welcomes(server.accept_tcp().await).await;
    good.send(Message::text("before")).await.unwrap();
    consumer.stage.messages_reach(1).await;
    drop(good);
    let told = || log.text().matches("retry_in_ms").count() as u64;
    until(|| told() == 1).await;
    let mut delay = Duration::from_millis(5);
    for round in 1..=ROUNDS {
        let kept = hostility.meets(server.accept_tcp_after(clock, delay).await).await;
        if let Some(meanwhile) = expected.meanwhile {
            let data = 1 + round * expected.data as u64;
            consumer.stage.messages_reach(data).await;
            consumer.state_is(meanwhile).await;
            assert_eq!(told(), round, "nothing to tell yet");
            clock.pass(expected.patience).await;
        }
        let why = consumer.state_is(ConsumerState::Waiting).await;
        until(|| told() == 1 + round).await;
        assert!(
            why.contains(expected.cause) && why.contains("the next attempt after"),
            "{why}"
        );
        drop(kept);
        assert_eq!(
            consumer.stats.attempts.get(),
            1 + round,
            "no attempt before its time"
        );
        undisturbed.send(Message::text("data")).await.unwrap();
        other.stage.messages_reach(round).await;
        delay = expected.delay;
    }
    let mut good = welcomes(server.accept_tcp_after(clock, delay).await).await;
    good.send(Message::text("after")).await.unwrap();
    consumer
        .stage
        .messages_reach(2 + ROUNDS * expected.data as u64)
        .await;
    consumer.state_is(ConsumerState::Live).await;

    let (stage, stats) = consumer.stop_beside(&mut good).await;
    assert_eq!(stats.attempts.get(), 2 + ROUNDS);
    let outages = stage.outages();
    let stretches = if expected.is_live { 1 + ROUNDS } else { 1 };
    assert_eq!(outages.len() as u64, stretches, "{outages:?}");
    let last = &outages[outages.len() - 1];
    // What can't be connected to is told by the log alone; the stretch has its first cause and the last of a session.
    let is_refusal = log.text().contains("can't connect");
    assert!(
        last.cause.contains(expected.cause) || is_refusal,
        "{}",
        last.cause
    );
    assert_eq!(stats.gaps.get(), stretches);
    let entries = stage.entries();
    let [
        Entry::Batch(first),
        Entry::Outage(_),
        ..,
        Entry::Outage(_),
        Entry::Batch(end),
    ] = &entries[..]
    else {
        let [Entry::Batch(_), Entry::Outage(_), Entry::Batch(_)] = &entries[..] else {
            panic!("{entries:?}");
        };
        return other_is_undisturbed(other, &mut undisturbed).await;
    };
    assert_eq!(
        (first.payload_bytes(), end.payload_bytes()),
        (&b"before"[..], &b"after"[..])
    );
    other_is_undisturbed(other, &mut undisturbed).await;
}

async fn other_is_undisturbed(other: Running, undisturbed: &mut WebSocketStream<TcpStream>) {
    assert_eq!(other.stats.attempts.get(), 1);
    let (stage, _) = other.stop_beside(undisturbed).await;
    assert_eq!(
        (stage.outages().len(), stage.payloads().len() as u64),
        (0, ROUNDS)
    );
}

#[tokio::test(start_paused = true)]
async fn servers_that_let_nobody_in() {
    let clock = HeldClock::hold();
    for hostility in [
        Hostility::AnswersHttpError,
        Hostility::ForbidsAccess,
        Hostility::ClosesBeforeTheHandshake,
        Hostility::HangsInTheHandshake,
        Hostility::IsNoHttpServer,
    ] {
        is_met_thrice(hostility, &clock).await;
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_let_nobody_subscribe() {
    let clock = HeldClock::hold();
    for hostility in [
        Hostility::ClosesAfterTheHandshake,
        Hostility::DeniesTheSubscription,
        Hostility::DoesNotAnswerTheSubscription,
    ] {
        is_met_thrice(hostility, &clock).await;
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_fall_silent() {
    let clock = HeldClock::hold();
    for hostility in [
        Hostility::IsSilentWithPongs,
        Hostility::IsSilentWithoutPongs,
        Hostility::IsDeadAfterData,
    ] {
        is_met_thrice(hostility, &clock).await;
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_close_or_break_the_protocol() {
    let clock = HeldClock::hold();
    for hostility in [
        Hostility::Closes(1001),
        Hostility::Closes(1008),
        Hostility::Closes(1013),
        Hostility::Closes(4000),
        // Not UTF-8; compressed, though nobody agreed to it; unknown opcodes; an end of no message; a masked frame.
        Hostility::Sends(&[0x81, 2, 0xc3, 0x28]),
        Hostility::Sends(&[0xc1, 2, 0x4a, 0x04]),
        Hostility::Sends(&[0x83, 0]),
        Hostility::Sends(&[0x8b, 0]),
        Hostility::Sends(&[0x80, 0]),
        Hostility::Sends(&[0x81, 0x81, 1, 2, 3, 4, b'x']),
        Hostility::SendsTooMuch,
        Hostility::BreaksOffInAFragment,
        Hostility::Floods,
    ] {
        is_met_thrice(hostility, &clock).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_where_nobody_listens() {
    let clock = HeldClock::hold();
    let (log, _guard) = Log::capture();
    let server = Server::listen().await;
    let (address, uri) = (server.listener.local_addr().unwrap(), server.uri());
    let consumer = Running::start_unbatched(settings(&uri));
    let mut good = server.accept().await;
    good.send(Message::text("before")).await.unwrap();
    consumer.stage.messages_reach(1).await;
    drop(server);
    drop(good);
    for attempt in 1..=ROUNDS {
        until(|| log.text().matches("retry_in_ms").count() as u64 == attempt).await;
        assert_eq!(consumer.stats.attempts.get(), attempt);
        let why = consumer.state_is(ConsumerState::Waiting).await;
        assert!(why.contains("the next attempt after"), "{why}");
        clock.pass(Duration::from_millis(5)).await;
    }
    until(|| log.text().matches("can't reach 127.0.0.1").count() as u64 == ROUNDS).await;
    let server = Server {
        listener: tokio::net::TcpListener::bind(address).await.unwrap(),
    };
    let tcp = server.accept_tcp_after(&clock, Duration::from_millis(5)).await;
    let mut good = accept_async(tcp).await.unwrap();
    good.send(Message::text("after")).await.unwrap();
    consumer.stage.messages_reach(2).await;
    let (stage, stats) = consumer.stop_beside(&mut good).await;
    assert_eq!(stage.outages().len(), 1);
    assert!(stats.attempts.get() <= 3 + ROUNDS);
}
