//! What it costs to make a message's binary COPY tuple: a narrow trade, a wide ticker of 25 columns, a nested order book, a trade with
//! decimals in strings.
//!
//! The tables' layouts come from a private PostgreSQL, as they do in use. Divide a time by the messages for the cost of one.
#![expect(clippy::unwrap_used, reason = "a benchmark that can't be set up ends")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use socket_el::private_postgres::{Options, PrivatePostgres};
use socket_el::producer::postgres::table::{CopyRows, Encoded, Mapping, Router, RouterOptions};
use socket_el::record::{Message, Offset, Timestamp};
use tokio_postgres::NoTls;

#[path = "messages/mod.rs"]
mod messages;

use messages::Make;

/// Messages of one measured call.
const MESSAGES: u64 = 1_000;

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
        ("narrow", messages::narrow as Make),
        ("wide", messages::wide),
        ("nested", messages::nested),
        ("decimals", messages::decimals),
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
