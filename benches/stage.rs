//! What the stage takes and gives alone, on the disk that holds the temporary directory: narrow trades in batches of 100 and of
//! 1,000, durable with fdatasync, under each codec; then all of it read from the beginning by a process that has just opened it.
//!
//! `cargo bench --bench stage`; a number behind `--` is how many messages instead of 2,000,000.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails is to stop")]

#[path = "messages/mod.rs"]
#[expect(dead_code, reason = "one kind of them is measured here")]
mod messages;

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use socket_el::record::{Batch, Offset, Timestamp};
use socket_el::stage::envelope::Codec;
use socket_el::stage::local::{LocalOptions, LocalPath, StageRole};
use socket_el::stage::{Accepted, ReadLimit, SharedStage};
use tempfile::TempDir;

const STAGE: &str = "websocket_1";
const PRODUCER: &str = "postgres";
const MESSAGES: u64 = 2_000_000;

/// Batches that wait for the disk at a time, as a consumer has it.
const IN_FLIGHT: usize = 256;

fn main() {
    let messages = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    let messages = messages.unwrap_or(MESSAGES);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    println!(
        "{:<8}{:>8}{:>16}{:>16}{:>14}{:>14}",
        "codec", "batch", "appended/s", "read/s", "bytes/msg", "disk/msg"
    );
    for (name, codec) in [("none", Codec::None), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)] {
        for size in [100, 1_000] {
            let dir = TempDir::with_prefix("socket-el-bench-").unwrap();
            let batches = batches(messages, size);
            let bytes: usize = batches.iter().map(Batch::byte_len).sum();
            let path = LocalPath::open(options(dir.path(), codec), &roles()).unwrap();
            let stage = path.stage(STAGE).unwrap();
            let appended = runtime.block_on(append(&stage, batches));
            drop(stage);
            path.close().unwrap();
            let disk = disk_bytes(dir.path());
            let path = LocalPath::open(options(dir.path(), codec), &roles()).unwrap();
            let stage = path.stage(STAGE).unwrap();
            let read = runtime.block_on(read(&stage, messages));
            drop(stage);
            path.close().unwrap();
            println!(
                "{name:<8}{size:>8}{:>16.0}{:>16.0}{:>14.1}{:>14.1}",
                per_second(messages, appended),
                per_second(messages, read),
                per_message(bytes as u64, messages),
                per_message(disk, messages),
            );
        }
    }
}

fn options(path: &Path, codec: Codec) -> LocalOptions {
    let mut options = LocalOptions::new(path);
    options.tuning.codec = codec;
    // The reserve is given back in need, and does not grow with the messages.
    options.tuning.reserve_bytes = 0;
    options
}

fn roles() -> [StageRole; 1] {
    [StageRole {
        name: STAGE.to_owned(),
        producers: vec![PRODUCER.to_owned()],
    }]
}

fn batches(messages: u64, size: u64) -> Vec<Batch> {
    let first_received = 1_700_000_000_000_000;
    let batch = |first: u64| {
        let mut batch = Batch::with_capacity(usize::try_from(size).unwrap(), 0);
        for n in first..(first + size).min(messages) {
            let received_at = Timestamp::from_micros(first_received + i64::try_from(n).unwrap() * 7);
            assert!(batch.push(messages::narrow(n).as_bytes(), received_at));
        }
        batch
    };
    (0..messages.div_ceil(size))
        .map(|number| batch(number * size))
        .collect()
}

async fn append(stage: &SharedStage, batches: Vec<Batch>) -> Duration {
    let began = Instant::now();
    let mut in_flight: VecDeque<Accepted> = VecDeque::new();
    for batch in batches {
        if in_flight.len() == IN_FLIGHT {
            in_flight.pop_front().unwrap().durable().await.unwrap();
        }
        in_flight.push_back(stage.append(batch).await.unwrap());
    }
    for accepted in in_flight {
        accepted.durable().await.unwrap();
    }
    began.elapsed()
}

async fn read(stage: &SharedStage, messages: u64) -> Duration {
    let limit = ReadLimit {
        messages: 20_000,
        bytes: 8 << 20,
    };
    let began = Instant::now();
    let (mut next, mut found) = (Offset::ZERO, 0);
    while found < messages {
        let outcome = stage.read(next, limit).await.unwrap();
        assert!(outcome.next > next, "the stage ends after {found} messages");
        next = outcome.next;
        found += outcome
            .batches
            .iter()
            .map(|batch| batch.batch.len() as u64)
            .sum::<u64>();
    }
    began.elapsed()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn per_second(messages: u64, took: Duration) -> f64 {
    messages as f64 / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn per_message(bytes: u64, messages: u64) -> f64 {
    bytes as f64 / messages as f64
}

/// The bytes that the files of a directory take on the disk.
fn disk_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                disk_bytes(&entry.path())
            } else {
                metadata.blocks() * 512
            }
        })
        .sum()
}
