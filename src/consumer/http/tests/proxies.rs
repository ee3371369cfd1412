//! Polls through proxies. What proxies say, and how it is limited, is tested with the consumers of WebSockets: the way is the same.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Running, settings};
use crate::consumer::captured_log::Log;
use crate::stats::ConsumerState;

/// The head of a request.
async fn head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A proxy, and the keys that lead through it.
async fn proxy(kind: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let keys = format!("interval: 1h\nproxy: {kind}://ann:hid%3Aden@{address}");
    (listener, keys)
}

/// Is asked for `/prices` over what the proxy has opened, without what was for the proxy only.
async fn is_asked(consumer: Running, mut tcp: TcpStream) {
    let asked = head(&mut tcp).await;
    assert!(asked.starts_with("GET /prices HTTP/1.1\r\n"), "{asked}");
    let asked = asked.to_lowercase();
    assert!(asked.contains("host: feed.example:4711\r\n"), "{asked}");
    assert!(!asked.contains("proxy-") && !asked.contains("basic"), "{asked}");
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nthrough";
    tcp.write_all(answer).await.unwrap();
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(stage.payloads(), [b"through"]);
}

#[tokio::test]
async fn an_http_proxy_is_asked_to_connect_and_the_poll_goes_through_it() {
    let (listener, keys) = proxy("http").await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings("http://feed.example:4711/prices", &keys));
    let (mut tcp, _) = listener.accept().await.unwrap();
    assert_eq!(
        head(&mut tcp).await,
        "CONNECT feed.example:4711 HTTP/1.1\r\nHost: feed.example:4711\r\n\
         Proxy-Authorization: Basic YW5uOmhpZDpkZW4=\r\n\r\n"
    );
    tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await
        .unwrap();
    is_asked(consumer, tcp).await;
    let log = log.text();
    assert!(!log.contains("hid:den") && !log.contains("YW5u"), "{log}");
}

#[tokio::test]
async fn a_socks_proxy_is_given_the_name_and_the_poll_goes_through_it() {
    let (listener, keys) = proxy("socks5").await;
    let consumer = Running::start(settings("http://feed.example:4711/prices", &keys));
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut greeting = [0; 2];
    tcp.read_exact(&mut greeting).await.unwrap();
    let mut methods = vec![0; greeting[1].into()];
    tcp.read_exact(&mut methods).await.unwrap();
    tcp.write_all(&[5, 2]).await.unwrap();
    let mut credentials = [0; 13];
    tcp.read_exact(&mut credentials).await.unwrap();
    assert_eq!(&credentials, b"\x01\x03ann\x07hid:den");
    tcp.write_all(&[1, 0]).await.unwrap();
    let mut target = [0; 19];
    tcp.read_exact(&mut target).await.unwrap();
    assert_eq!(&target, b"\x05\x01\x00\x03\x0cfeed.example\x12\x67");
    tcp.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await.unwrap();
    is_asked(consumer, tcp).await;
}

#[tokio::test]
async fn a_proxy_that_refuses_is_a_failed_poll_that_names_the_proxy() {
    let (listener, keys) = proxy("http").await;
    let consumer = Running::start(settings("http://feed.example:4711/prices", &keys));
    let (mut tcp, _) = listener.accept().await.unwrap();
    head(&mut tcp).await;
    tcp.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        .await
        .unwrap();
    let why = consumer.state_is(ConsumerState::Waiting).await;
    assert!(why.contains("proxy") && why.contains("407"), "{why}");
    let (stage, _) = consumer.stop().await;
    assert!(stage.payloads().is_empty());
}
