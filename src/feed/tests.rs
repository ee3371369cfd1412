//! Feeds on real sockets, with a plain client.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::*;

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Running {
    feed: Arc<Feed>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(options: FeedOptions) -> Self {
        let feed = Arc::new(Feed::bind(options).await.unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (feed, stop) = (Arc::clone(&feed), stop.clone());
            async move { feed.run(stop).await }
        });
        Self { feed, stop, task }
    }

    async fn connect(&self, path: &str) -> Client {
        let uri = format!("ws://{}{path}", self.feed.local_addr());
        connect_async(uri).await.unwrap().0
    }

    fn sent(&self, path: &str) -> u64 {
        let stats = self.feed.stats();
        stats.iter().find(|stats| stats.path == path).unwrap().sent
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Data messages up to the close frame, and its code.
async fn until_close(client: &mut Client) -> (Vec<Vec<u8>>, CloseCode) {
    let mut messages = Vec::new();
    let mut code = None;
    while let Some(message) = client.next().await {
        match message.unwrap() {
            Message::Close(frame) => code = frame.map(|frame| frame.code),
            message => messages.push(message.into_data().to_vec()),
        }
    }
    (messages, code.unwrap())
}

fn seq(message: &[u8]) -> u64 {
    let trade: serde_json::Value = serde_json::from_slice(message).unwrap();
    trade["seq"].as_u64().unwrap()
}

#[tokio::test]
async fn the_numbers_go_on_across_connections_and_each_path_has_its_own() {
    let feed = Running::start(FeedOptions {
        drop_after: Some(1_234),
        ..FeedOptions::default()
    })
    .await;
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let mut client = feed.connect("/trades/binance").await;
        let (messages, code) = until_close(&mut client).await;
        assert_eq!(code, CloseCode::Normal);
        numbers.extend(messages.iter().map(|message| seq(message)));
    }
    assert_eq!(numbers, (0..3 * 1_234).collect::<Vec<_>>());
    let (messages, _) = until_close(&mut feed.connect("/trades/kraken").await).await;
    assert_eq!(seq(&messages[0]), 0);
    assert!(messages[0].starts_with(br#"{"exchange":"kraken","#));
    assert_eq!(feed.sent("/trades/binance"), 3 * 1_234);
    assert_eq!(feed.sent("/trades/kraken"), 1_234);
    feed.stop().await;
}

#[tokio::test]
async fn a_file_is_played_byte_for_byte_over_several_connections() {
    let lines: [&[u8]; 6] = [
        b"{\"a\": 1}",
        b"",
        b"two\r",
        b"\xff\xfe",
        "häß".as_bytes(),
        b"no line feed",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("feed.jsonl");
    std::fs::write(&path, lines.join(&b'\n')).unwrap();
    let feed = Running::start(FeedOptions {
        source: Source::File {
            path: path.clone(),
            repeat: true,
        },
        drop_after: Some(4),
        ..FeedOptions::default()
    })
    .await;
    let mut played = Vec::new();
    for _ in 0..3 {
        played.extend(until_close(&mut feed.connect("/").await).await.0);
    }
    assert_eq!(played, [lines, lines].concat());
    feed.stop().await;

    let once = Running::start(FeedOptions {
        source: Source::File { path, repeat: false },
        then: Then::Close,
        ..FeedOptions::default()
    })
    .await;
    let (played, code) = until_close(&mut once.connect("/").await).await;
    assert_eq!(
        (played, code),
        (lines.map(<[u8]>::to_vec).to_vec(), CloseCode::Normal)
    );
    let (nothing_left, _) = until_close(&mut once.connect("/").await).await;
    assert_eq!(nothing_left, Vec::<Vec<u8>>::new());
    once.stop().await;
}

#[tokio::test]
async fn after_the_count_the_connection_stays_and_answers_pings_until_the_feed_stops() {
    let feed = Running::start(FeedOptions {
        source: Source::Generated {
            first: 0,
            count: Some(10),
        },
        ..FeedOptions::default()
    })
    .await;
    let mut client = feed.connect("/").await;
    for number in 0..10 {
        let message = client.next().await.unwrap().unwrap();
        assert_eq!(seq(&message.into_data()), number);
    }
    client.send(Message::Ping("are you there".into())).await.unwrap();
    let answer = client.next().await.unwrap().unwrap();
    assert_eq!(answer, Message::Pong("are you there".into()));
    feed.stop.cancel();
    assert_eq!(until_close(&mut client).await, (vec![], CloseCode::Away));
    feed.stop().await;
}

#[tokio::test]
async fn a_ping_is_answered_in_the_midst_of_messages() {
    let feed = Running::start(FeedOptions::default()).await;
    let mut client = feed.connect("/").await;
    client.send(Message::Ping("now".into())).await.unwrap();
    let mut expected = 0;
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Pong(payload) => break assert_eq!(payload, "now"),
            message => assert_eq!(seq(&message.into_data()), expected),
        }
        expected += 1;
    }
    client.close(None).await.unwrap();
    while let Some(message) = client.next().await {
        if let Message::Text(text) = message.unwrap() {
            assert_eq!(seq(text.as_bytes()), expected);
            expected += 1;
        }
    }
    assert_eq!(feed.sent("/"), expected, "a clean close loses nothing");
    feed.stop().await;
}

#[tokio::test]
async fn a_client_that_is_asked_to_wait_gets_no_more_than_the_rate() {
    let feed = Running::start(FeedOptions {
        rate: Some(500),
        drop_after: Some(100),
        ..FeedOptions::default()
    })
    .await;
    let start = tokio::time::Instant::now();
    let (messages, _) = until_close(&mut feed.connect("/").await).await;
    assert_eq!(messages.len(), 100);
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "100 messages take 200 ms at 500/s"
    );
    feed.stop().await;
}

#[tokio::test]
async fn a_broadcast_gives_every_connection_the_same_messages_from_when_it_connects() {
    let feed = Running::start(FeedOptions {
        broadcast: true,
        rate: Some(2_000),
        ..FeedOptions::default()
    })
    .await;
    let mut first = feed.connect("/trades/binance").await;
    let mut early = Vec::new();
    for _ in 0..100 {
        early.push(first.next().await.unwrap().unwrap().into_data());
    }
    // Whoever comes later begins where the others are by then, not where somebody stopped.
    let mut second = feed.connect("/trades/binance").await;
    let begin = second.next().await.unwrap().unwrap().into_data();
    let begins_with = seq(&begin);
    assert!(begins_with >= 100, "{begins_with}");
    let mut both = vec![begin];
    for _ in 0..99 {
        both.push(second.next().await.unwrap().unwrap().into_data());
    }
    while (early.len() as u64) < begins_with + 100 {
        early.push(first.next().await.unwrap().unwrap().into_data());
    }
    assert_eq!(early[begins_with as usize..], both, "byte for byte");
    for (number, message) in early.iter().enumerate() {
        assert_eq!(seq(message), number as u64, "nothing is left out");
    }
    drop((first, second));
    // It goes on while nobody listens.
    let mut third = feed.connect("/trades/binance").await;
    let message = third.next().await.unwrap().unwrap().into_data();
    assert!(seq(&message) >= begins_with + 100);
    drop(third);
    feed.stop().await;
}

#[tokio::test]
async fn a_subprotocol_that_the_client_offers_is_agreed_to() {
    use tokio_tungstenite::tungstenite::ClientRequestBuilder;
    let feed = Running::start(FeedOptions::default()).await;
    let uri = format!("ws://{}/", feed.feed.local_addr()).parse().unwrap();
    let request = ClientRequestBuilder::new(uri)
        .with_sub_protocol("first")
        .with_sub_protocol("second");
    let (client, response) = connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "first");
    drop(client);
    feed.stop().await;
}

#[tokio::test]
async fn what_is_not_a_handshake_is_refused_and_the_feed_goes_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let feed = Running::start(FeedOptions::default()).await;
    let mut raw = TcpStream::connect(feed.feed.local_addr()).await.unwrap();
    raw.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The feed closes; whether by a reset or not is of no interest.
    let _ = raw.read_to_end(&mut answer).await;
    let mut client = feed.connect("/").await;
    assert_eq!(seq(&client.next().await.unwrap().unwrap().into_data()), 0);
    drop(client);
    feed.stop().await;
}

#[tokio::test]
async fn addresses_that_others_reach_are_refused_unless_they_are_asked_for() {
    let everyone = FeedOptions {
        listen: ([0, 0, 0, 0], 0).into(),
        ..FeedOptions::default()
    };
    let refused = Feed::bind(everyone.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("--public"), "{refused}");
    let asked_for = FeedOptions {
        public: true,
        ..everyone
    };
    assert!(Feed::bind(asked_for).await.is_ok());
}

#[tokio::test]
async fn a_file_that_is_missing_or_empty_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.jsonl");
    std::fs::write(&empty, "").unwrap();
    for path in [empty, folder.path().join("missing.jsonl")] {
        let options = FeedOptions {
            source: Source::File {
                path: path.clone(),
                repeat: false,
            },
            ..FeedOptions::default()
        };
        let refused = Feed::bind(options).await.unwrap_err().to_string();
        assert!(refused.contains(&path.display().to_string()), "{refused}");
    }
}

#[test]
fn the_command_line_becomes_options() {
    use clap::Parser;
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        feed: FeedArgs,
    }
    let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| FeedOptions::from(cli.feed));
    let options =
        parse("feed --listen 127.0.0.1:0 --count 5 --first 7 --rate 10 --drop-after 3 --then close").unwrap();
    assert!(matches!(
        options.source,
        Source::Generated {
            first: 7,
            count: Some(5)
        }
    ));
    assert_eq!(
        (options.rate, options.drop_after, options.then),
        (Some(10), Some(3), Then::Close)
    );
    let options = parse("feed --file x.jsonl --repeat").unwrap();
    assert!(matches!(options.source, Source::File { repeat: true, .. }) && !options.broadcast);
    assert!(parse("feed --broadcast").unwrap().broadcast);
    for wrong in ["feed --repeat", "feed --file x --count 1", "feed --rate 0"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

/// Not a test of the code but of the machine: run by hand with `--ignored --nocapture` and an optimised build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check: cargo test --release --lib measure_messages -- --ignored --nocapture"]
async fn measure_messages_per_second() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let count = 5_000_000;
    let feed = Running::start(FeedOptions {
        source: Source::Generated {
            first: 0,
            count: Some(count),
        },
        ..FeedOptions::default()
    })
    .await;
    let mut raw = TcpStream::connect(feed.feed.local_addr()).await.unwrap();
    let request = b"GET /trades/binance HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    raw.write_all(request).await.unwrap();
    let start = tokio::time::Instant::now();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    while feed.feed.stats().first().is_none_or(|stats| stats.sent < count) {
        bytes += raw.read(&mut buffer).await.unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:.0} messages/s, {:.0} MB/s",
        count as f64 / seconds,
        bytes as f64 / seconds / 1e6
    );
    drop(raw);
    feed.stop().await;
}
