//! A batch that the stage has called durable is safe. The engine here is this test program itself, started again with a
//! consumer that prints each number as the stage acknowledges it; it is killed at random instants, and every
//! number that was printed must be a row exactly once.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use socket_el::config::{Config, LoadOptions, Section};
use socket_el::consumer::{Consumer, ConsumerContext, ConsumerVariety};
use socket_el::exit::RunnerError;
use socket_el::pipeline::{Pipeline, Scope};
use socket_el::producer::postgres::PostgresVariety;
use socket_el::record::{Batch, Timestamp};
use socket_el::registry::Registry;
use socket_el::stage::{Accepted, Appended};
use tokio_util::sync::CancellationToken;

use crate::kills::{kills, random_life};
use crate::support::checker::{Tally, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::Workspace;

/// Says what the test program is to be when it is started again: the first number of its life, or `drain`.
const ROLE_VARIABLE: &str = "SOCKET_EL_TEST_ROLE";
const DRAIN: &str = "drain";

/// Where acknowledged numbers are written, in the working directory.
const ACKNOWLEDGED: &str = "acknowledged";

/// Numbers of one life: more than it can use, and fewer than the distance to the next one's.
const NUMBERS_PER_LIFE: u64 = 1_000_000_000;

const BATCH: u64 = 20;

/// The pause after each batch: faster than the disk acknowledges, and slow enough to be delivered in the time of a test.
const PAUSE: Duration = Duration::from_millis(1);

/// Batches on their way to the disk at a time, so that kills meet group commits.
const IN_FLIGHT: usize = 8;

/// The variety `numbers`: an endless source that keeps a list of what it was promised.
struct Numbers;

struct NumbersConsumer;

impl ConsumerVariety for Numbers {
    fn name(&self) -> &'static str {
        "numbers"
    }

    fn configure(&self, _name: &str, _section: &mut Section<'_>) -> Option<Box<dyn Consumer>> {
        Some(Box::new(NumbersConsumer))
    }
}

#[async_trait]
impl Consumer for NumbersConsumer {
    async fn run(self: Box<Self>, context: ConsumerContext) -> Result<(), RunnerError> {
        let mut list = OpenOptions::new()
            .create(true)
            .append(true)
            .open(ACKNOWLEDGED)
            .unwrap();
        let mut in_flight: VecDeque<(u64, Accepted)> = VecDeque::new();
        let mut next: u64 = std::env::var(ROLE_VARIABLE).unwrap().parse().unwrap();
        while !context.stop.is_cancelled() {
            let mut batch = Batch::default();
            for number in next..next + BATCH {
                assert!(batch.push(format!("{{\"seq\":{number}}}").as_bytes(), Timestamp::now()));
            }
            in_flight.push_back((next, context.stage.append(batch).await.unwrap()));
            next += BATCH;
            tokio::time::sleep(PAUSE).await;
            if in_flight.len() == IN_FLIGHT {
                let (first, accepted) = in_flight.pop_front().unwrap();
                assert!(matches!(
                    accepted.durable().await.unwrap(),
                    Appended::Staged { .. }
                ));
                // One write of a line to the kernel outlives a kill.
                list.write_all(format!("{first}\n").as_bytes()).unwrap();
            }
        }
        Ok(())
    }
}

/// Not a test of its own: the engine, which the test below starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn engine_that_lists_what_is_acknowledged() {
    let Ok(role) = std::env::var(ROLE_VARIABLE) else {
        return;
    };
    let mut registry = Registry::empty();
    registry.add_consumer(Numbers).add_producer(PostgresVariety);
    let options = LoadOptions {
        profiles: Some("profile.yml".into()),
        ..LoadOptions::default()
    };
    let config = Config::load(Path::new("config.yml"), &registry, &options)
        .unwrap()
        .config;
    let scope = if role == DRAIN { Scope::Drain } else { Scope::All };
    let pipeline = Pipeline::open(config, scope).await.unwrap();
    pipeline.run(CancellationToken::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_stage_has_acknowledged_before_a_kill_is_a_row_exactly_once() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    workspace.write_config(
        "runners:
  - { name: numbers, type: consumer, variety: numbers, stage: { type: local, path: tmp } }
  - { name: postgres, type: producer, variety: postgres, depends_on: [numbers], profile: postgres, metadata: true }
",
    );
    let itself = std::env::current_exe().unwrap();
    let arguments = [
        "--exact",
        "acknowledged::engine_that_lists_what_is_acknowledged",
        "--nocapture",
    ];
    // A kill while a database is being opened makes the next start try it in a child, whose `main` must know of that.
    let trial = ("SOCKET_EL_TRIAL_PROGRAM", env!("CARGO_BIN_EXE_socket-el"));
    let start = |role: &str| workspace.spawn(&itself, &arguments, &[(ROLE_VARIABLE, role), trial]);
    let list = workspace.path().join(ACKNOWLEDGED);
    let listed = || std::fs::metadata(&list).map_or(0, |list| list.len());

    for kill in 0..kills() {
        let before = listed();
        let mut engine = start(&(kill * NUMBERS_PER_LIFE).to_string());
        if kill % 3 != 0 {
            engine.until("it has staged", async || listed() > before).await;
        }
        tokio::time::sleep(random_life()).await;
        engine.kill();
    }
    start(DRAIN).ends_with(0).await;

    let seen = tally_by_offset(&database, "numbers").await;
    assert_eq!(seen, Tally::each_once(seen.rows));
    let firsts = std::fs::read_to_string(&list).unwrap();
    let acknowledged = firsts.lines().count() as u64;
    assert!(acknowledged > 0);
    let values: Vec<_> = firsts.lines().map(|first| format!("({first})")).collect();
    let arrived = database
        .number(&format!(
            "SELECT count(*) FROM (VALUES {}) AS batch (first)
             JOIN numbers ON seq - seq % {BATCH} = first",
            values.join(",")
        ))
        .await;
    assert_eq!(arrived, Some(acknowledged * BATCH));
    println!(
        "{} kills: {} messages acknowledged, {} rows",
        kills(),
        acknowledged * BATCH,
        seen.rows
    );
}
