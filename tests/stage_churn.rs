//! A stage to which a source that connects and goes away leaves a message and an outage each time: its memory ends growing once sled's
//! cache is full. A process of its own, so that nobody else's memory is counted.

#![expect(clippy::unwrap_used, reason = "a test that fails is to stop")]

use std::time::Duration;

use socket_el::record::{Batch, Timestamp};
use socket_el::stage::local::{Durability, LocalOptions, LocalPath, StageRole, Tuning};
use socket_el::stage::{Outage, OutageKind, SharedStage};

/// Connections until the cache is full, and as many behind them.
const HALF: u64 = 15_000;
/// What is appended before it is waited for.
const GROUP: u64 = 50;
/// So small that few connections fill it; it is exceeded several times.
const CACHE_BYTES: u64 = 1 << 20;
/// A third of a kilobyte that every connection left would be as much. Before the cache is full each leaves more than one; then sled's
/// table of pages still grows a little, until the next generation.
const MAX_GROWTH_KB: u64 = 5_000;

fn memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    memory
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// Connections come and go; the most memory that was taken meanwhile.
async fn churn(stage: &SharedStage, connections: u64) -> u64 {
    let mut most = 0;
    for first in (0..connections).step_by(GROUP as usize) {
        let mut accepted = Vec::new();
        for number in first..first + GROUP {
            let (mut batch, now) = (Batch::with_capacity(1, 100), Timestamp::now());
            assert!(batch.push(format!("{{\"number\":{number}}}").as_bytes(), now));
            accepted.push(stage.append(batch).await.unwrap());
            let outage = Outage {
                from: now,
                to: now,
                messages: 0,
                cause: "closed by the server (1000, normal end)".to_owned(),
                kind: OutageKind::Disconnected,
            };
            accepted.push(stage.append_outage(outage).await.unwrap());
        }
        for accepted in accepted {
            accepted.durable().await.unwrap();
        }
        stage.ack("postgres", stage.bounds().head).await.unwrap();
        most = most.max(memory_kb());
    }
    most
}

#[tokio::test]
async fn tens_of_thousands_of_outages_leave_no_memory_behind_once_the_cache_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        durability: Durability::Interval(Duration::from_millis(50)),
        tuning: Tuning {
            open_cache_bytes: CACHE_BYTES,
            ring_bytes: 64 << 10,
            min_free: 0,
            reserve_bytes: 0,
            ..Tuning::default()
        },
        ..LocalOptions::new(&dir.path().join("stage"))
    };
    let roles = [StageRole {
        name: "feed".to_owned(),
        producers: vec!["postgres".to_owned()],
    }];
    let path = LocalPath::open(options, &roles).unwrap();
    let stage = path.stage("feed").unwrap();
    let first = churn(&stage, HALF).await;
    let second = churn(&stage, HALF).await;
    println!("{first} kB, then {second} kB");
    assert!(second < first + MAX_GROWTH_KB, "{first} kB, then {second} kB");
    path.close().unwrap();
}
