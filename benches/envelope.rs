//! What a batch of 100 trades costs on its way through the stage's record format: gathered, encoded, opened and decoded.
//!
//! `cargo bench --bench envelope`

#![expect(clippy::unwrap_used, reason = "a benchmark that fails is to stop")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use socket_el::record::{Batch, Offset, Timestamp};
use socket_el::stage::envelope::{Assembler, Codec, Encoder, Record, open};

const STAGE: &str = "websocket_1";
const MESSAGES: usize = 100;
const MESSAGE_BYTES: usize = 165;

/// Trades of the shape that feeds have: keys that repeat, numbers that don't.
fn trades() -> Vec<String> {
    let pairs = ["bitcoin", "ethereum", "monero", "solana"];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    (0..MESSAGES as u64)
        .map(|seq| {
            let base = pairs[random(4) as usize];
            let direction = ["buy", "sell"][random(2) as usize];
            let price = 20_000_000 + random(100_000_000);
            let mut trade = format!(
                r#"{{"exchange":"binance","base":"{base}","quote":"tether","direction":"{direction}","price":{}.{:04},"volume":0.{:06},"timestamp":{},"priceUsd":{}.{:04}}}"#,
                price / 10_000,
                price % 10_000,
                random(1_000_000),
                1_700_000_000_000 + seq * 7,
                price / 10_007,
                price % 10_000,
            );
            // JSON allows spaces around it: all trades get the same length.
            while trade.len() < MESSAGE_BYTES {
                trade.push(' ');
            }
            trade
        })
        .collect()
}

fn gather(trades: &[String]) -> Batch {
    let mut batch = Batch::with_capacity(MESSAGES, MESSAGES * MESSAGE_BYTES);
    for (trade, micros) in trades.iter().zip(1_700_000_000_000_000..) {
        assert!(batch.push(trade.as_bytes(), Timestamp::from_micros(micros)));
    }
    batch
}

fn encode(encoder: &mut Encoder, batch: &Batch, out: &mut Vec<Record>) {
    out.clear();
    encoder
        .encode(STAGE, Offset::ZERO, Offset::ZERO, batch, out)
        .unwrap();
}

fn benchmarks(criterion: &mut Criterion) {
    let trades = trades();
    let batch = gather(&trades);
    let mut group = criterion.benchmark_group("100_trades");
    group.throughput(Throughput::Bytes(batch.byte_len() as u64));
    group.bench_function("push", |bencher| {
        bencher.iter(|| black_box(gather(black_box(&trades))));
    });
    for (name, codec) in [("none", Codec::None), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)] {
        let mut encoder = Encoder::new(codec);
        let mut records = Vec::new();
        encode(&mut encoder, &batch, &mut records);
        let record = records.pop().unwrap();
        assert!(records.is_empty());
        println!(
            "{name}: {} bytes of messages, {} stored",
            batch.byte_len(),
            record.value.len()
        );
        group.bench_function(format!("encode/{name}"), |bencher| {
            bencher.iter(|| encode(&mut encoder, black_box(&batch), &mut records));
        });
        group.bench_function(format!("open/{name}"), |bencher| {
            bencher.iter(|| open(STAGE, &record.key, black_box(&record.value)).unwrap());
        });
        let mut assembler = Assembler::new();
        group.bench_function(format!("open_and_decode/{name}"), |bencher| {
            bencher.iter_batched(
                || (),
                |()| {
                    let sealed = open(STAGE, &record.key, black_box(&record.value)).unwrap();
                    assembler.push(&sealed).unwrap().unwrap()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(envelope, benchmarks);
criterion_main!(envelope);
