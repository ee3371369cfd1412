//! What it costs to receive a message: from the socket into a batch, by the consumer's own way, and with patterns of control messages
//! that each has to be compared with. The server that sends is a thread of the same process.
//!
//! `cargo bench --bench receive`

#![expect(clippy::unwrap_used, reason = "a benchmark that fails is to stop")]

use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "messages/mod.rs"]
mod messages;
#[path = "receive/mod.rs"]
mod receive;

/// Messages of a round.
const MESSAGES: u64 = 1_000;

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receive");
    group.throughput(Throughput::Elements(MESSAGES));
    for (name, make) in [
        ("narrow", messages::narrow as messages::Make),
        ("wide", messages::wide),
        ("nested", messages::nested),
        ("decimals", messages::decimals),
    ] {
        let texts: Vec<_> = (0..MESSAGES).map(make).collect();
        for (what, keys) in [("", ""), (", patterns", receive::PATTERNS)] {
            group.bench_function(format!("{name}{what}"), |bencher| {
                // The connection is made once for all rounds.
                bencher.iter_custom(|rounds| {
                    let began = Instant::now();
                    receive::receive(&texts, keys, rounds);
                    began.elapsed()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
