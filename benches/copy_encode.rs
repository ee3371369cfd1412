//! What it costs to make a message's binary COPY tuple: a narrow trade, a wide ticker of 25 columns, a nested order book.
//!
//! The tables' layouts come from a private PostgreSQL, as they do in use. Divide a time by the messages for the cost of one.
#![expect(clippy::unwrap_used, reason = "a benchmark that can't be set up ends")]

use std::fmt::Write as _;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use socket_el::private_postgres::{Options, PrivatePostgres};
use socket_el::producer::postgres::table::{CopyRows, Encoded, Mapping, Router, RouterOptions};
use socket_el::record::{Message, Offset, Timestamp};
use tokio_postgres::NoTls;

/// Messages of one measured call.
const MESSAGES: u64 = 1_000;

fn trade(n: u64) -> String {
    format!(
        r#"{{"exchange":"binance","base":"bitcoin","quote":"tether","direction":"buy","price":{}.{:02},"volume":0.00{},"timestamp":{},"priceUsd":{}.15,"seq":{n}}}"#,
        27_000 + n % 100,
        n % 97,
        100 + n % 900,
        1_695_000_000_000 + n,
        27_000 + n % 90,
    )
}

fn wide(n: u64) -> String {
    let mut message = format!(
        r#"{{"e":"24hrTicker","E":{},"s":"BTCUSDT""#,
        1_695_000_000_000 + n
    );
    for key in 'f'..='p' {
        write!(
            message,
            r#","{key}":"{}.{:08}""#,
            27_000 + n % 50,
            n * 37 % 99_999_999
        )
        .unwrap();
    }
    for key in 'A'..='K' {
        if key != 'E' {
            write!(message, r#","{key}":{}"#, n * 1_000).unwrap();
        }
    }
    message.push_str(r#","open":true}"#);
    message
}

fn nested(n: u64) -> String {
    let levels: Vec<_> = (0..20)
        .map(|level| format!(r#"["{}.{level:02}","0.{:05}"]"#, 27_000 + n % 9, n % 99_999))
        .collect();
    let levels = levels.join(",");
    format!(r#"{{"lastUpdateId":{n},"bids":[{levels}],"asks":[{levels}],"meta":{{"depth":20}}}}"#)
}

fn benchmark(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = PrivatePostgres::start(&Options {
        fsync: false,
        ..Options::default()
    })
    .unwrap();
    let mut client = runtime.block_on(async {
        let (client, connection) = cluster.connection("postgres").connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    });
    let mut group = criterion.benchmark_group("copy_encode");
    for (name, make) in [
        ("narrow", trade as fn(u64) -> String),
        ("wide", wide),
        ("nested", nested),
    ] {
        let messages: Vec<_> = (0..MESSAGES).map(make).collect();
        let options = RouterOptions::single("public", "bench", name, Mapping::default());
        let mut router = Router::new(options);
        let mut rows = [CopyRows::new()];
        let encode = |router: &mut Router, rows: &mut [CopyRows]| {
            rows[0].clear();
            let mut last = Encoded::NeedsSchema;
            for (index, message) in messages.iter().enumerate() {
                let message = Message {
                    payload: message.as_bytes(),
                    received_at: Timestamp::from_micros(0),
                };
                last = router.encode(Offset::new(index as u64), message, rows);
            }
            last
        };
        encode(&mut router, &mut rows);
        runtime.block_on(router.mend(&mut client, true)).unwrap();
        assert_eq!(encode(&mut router, &mut rows), Encoded::Rows(1));
        let bytes: usize = messages.iter().map(String::len).sum();
        println!(
            "{name}: {} bytes a message, {} bytes a tuple",
            bytes as u64 / MESSAGES,
            rows[0].bytes().len() as u64 / MESSAGES
        );
        group.throughput(Throughput::Elements(MESSAGES));
        group.bench_function(name, |bencher| bencher.iter(|| encode(&mut router, &mut rows)));
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
