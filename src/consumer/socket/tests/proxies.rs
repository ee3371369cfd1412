//! Through proxies, good and bad ones.

use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use super::super::refusal::{ConnectError, Remedy};
use super::refusals::request;
use super::support::{Log, Running, Server, connect, settings};
use crate::consumer::memory_stage::Durability;
use crate::consumer::reach::proxy::Proxy;

fn through(proxy: &Server, kind: &str) -> super::super::settings::Settings {
    let mut settings = settings("ws://feed.example:4711/");
    let address = proxy.listener.local_addr().unwrap();
    settings.routes[0].proxy = Some(Proxy::parse(&format!("{kind}://ann:hid%3Aden@{address}")).unwrap());
    settings
}

/// The proxy's side of a SOCKS5 greeting with a password, up to the request's target.
async fn socks(tcp: &mut TcpStream, accept: bool) -> Vec<u8> {
    let mut greeting = [0; 2];
    tcp.read_exact(&mut greeting).await.unwrap();
    let mut methods = vec![0; greeting[1].into()];
    tcp.read_exact(&mut methods).await.unwrap();
    assert!(methods.contains(&2));
    tcp.write_all(&[5, 2]).await.unwrap();
    let mut credentials = [0; 2 + 3 + 1 + 7];
    tcp.read_exact(&mut credentials).await.unwrap();
    assert_eq!(&credentials, b"\x01\x03ann\x07hid:den");
    tcp.write_all(&[1, u8::from(!accept)]).await.unwrap();
    if !accept {
        return Vec::new();
    }
    let mut target = vec![0; 4 + 1 + "feed.example".len() + 2];
    tcp.read_exact(&mut target).await.unwrap();
    tcp.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await.unwrap();
    target
}

async fn receives_one(consumer: Running, tcp: TcpStream) {
    let mut socket = accept_async(tcp).await.unwrap();
    socket.send(Message::text("through")).await.unwrap();
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop_beside(&mut socket).await;
    assert_eq!(stage.payloads(), [b"through"]);
}

#[tokio::test]
async fn an_http_proxy_is_asked_to_connect_with_its_credentials() {
    let proxy = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(through(&proxy, "http"), Durability::Immediate);
    let mut tcp = proxy.accept_tcp().await;
    let asked = request(&mut tcp).await;
    assert_eq!(
        asked,
        "CONNECT feed.example:4711 HTTP/1.1\r\nHost: feed.example:4711\r\n\
         Proxy-Authorization: Basic YW5uOmhpZDpkZW4=\r\n\r\n"
    );
    tcp.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
        .await
        .unwrap();
    receives_one(consumer, tcp).await;
    let log = log.text();
    assert!(!log.contains("hid:den") && !log.contains("YW5u"), "{log}");
}

#[tokio::test]
async fn a_socks_proxy_is_given_the_name_and_its_credentials() {
    let proxy = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(through(&proxy, "socks5"), Durability::Immediate);
    let mut tcp = proxy.accept_tcp().await;
    let target = socks(&mut tcp, true).await;
    assert_eq!(target, b"\x05\x01\x00\x03\x0cfeed.example\x12\x67");
    receives_one(consumer, tcp).await;
    assert!(!log.text().contains("hid:den"));
}

#[tokio::test]
async fn what_a_bad_proxy_answers_is_told_as_the_proxys_with_limits() {
    let proxy = Server::listen().await;
    let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 20_000]].concat();
    for (answer, said, remedy) in [
        (
            &b"HTTP/1.1 407 No\r\n\r\n"[..],
            "wants credentials",
            Remedy::Operator,
        ),
        (
            b"HTTP/1.0 502 Bad Gateway\r\n\r\n",
            "refused with HTTP 502",
            Remedy::Backoff,
        ),
        (b"SSH-2.0-x\r\n\r\n", "is no HTTP proxy", Remedy::Backoff),
        (b"HTTP/1.1 abc\r\n\r\n", "is no HTTP proxy", Remedy::Backoff),
        (&endless, "is no HTTP proxy", Remedy::Backoff),
        (b"HTTP/1.1 200", "broke off", Remedy::Backoff),
    ] {
        let settings = through(&proxy, "http");
        let (refused, ()) = tokio::join!(connect(&settings), async {
            let mut tcp = proxy.accept_tcp().await;
            request(&mut tcp).await;
            // It may be left in the midst of what it says.
            let _ = tcp.write_all(answer).await;
        });
        is_told(refused.err().unwrap(), said, remedy);
    }
    let settings = through(&proxy, "socks5");
    let (refused, _) = tokio::join!(connect(&settings), async {
        socks(&mut proxy.accept_tcp().await, false).await
    });
    is_told(refused.err().unwrap(), "auth failure", Remedy::Operator);
    drop(proxy.listener);
    is_told(
        connect(&settings).await.err().unwrap(),
        "can't reach the proxy socks5://127.0.0.1:",
        Remedy::Backoff,
    );
}

fn is_told(error: ConnectError, said: &str, remedy: Remedy) {
    let text = error.to_string();
    assert!(text.contains(said), "{text}");
    assert!(
        text.contains("the proxy") || text.contains("HTTP proxy"),
        "{text}"
    );
    assert!(!text.contains("hid"), "{text}");
    assert_eq!(error.remedy(), remedy, "{text}");
}
