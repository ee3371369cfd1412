//! How another crate adds its own varieties of runners and uses them from `config.yml`: a consumer `counter` that
//! makes messages by itself, and a producer `lines` that appends them to a file. Everything between the two
//! (batches, the durable stage, offsets, cursors, supervision, clean stop) is the library's.
//!
//! ```text
//! cargo run --example custom_variety -- config.yml
//! ```
//!
//! with a `config.yml` such as
//!
//! ```yaml
//! runners:
//!   - { name: numbers, type: consumer, variety: counter, count: 1000, stage: { type: local, path: tmp } }
//!   - { name: file, type: producer, variety: lines, depends_on: [numbers], file: numbers.txt }
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use async_trait::async_trait;
use socket_el::config::{Config, LoadOptions, Profiles, Section};
use socket_el::consumer::batcher::Batcher;
use socket_el::consumer::{Consumer, ConsumerContext, ConsumerVariety};
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::pipeline::{Pipeline, Scope};
use socket_el::producer::{Producer, ProducerContext, ProducerVariety, RunUntil};
use socket_el::record::{Offset, Timestamp};
use socket_el::registry::Registry;
use socket_el::stage::{ReadLimit, SharedStage};
use tokio_util::sync::CancellationToken;

/// The consumer variety `counter`: messages `1`, `2`, … up to `count`.
struct CounterVariety;

impl ConsumerVariety for CounterVariety {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn configure(&self, _name: &str, section: &mut Section<'_>) -> Option<Box<dyn Consumer>> {
        let count: u64 = section.required("count")?;
        if count == 0 {
            section.problem("count", "must be at least 1");
            return None;
        }
        Some(Box::new(CounterConsumer { count }))
    }
}

struct CounterConsumer {
    count: u64,
}

#[async_trait]
impl Consumer for CounterConsumer {
    async fn run(self: Box<Self>, context: ConsumerContext) -> Result<(), RunnerError> {
        let failed = |error| RunnerError::new(ExitReason::Failed, error);
        let mut batcher = Batcher::new(&context);
        for number in 1..=self.count {
            batcher
                .push(number.to_string().as_bytes(), Timestamp::now())
                .await
                .map_err(failed)?;
            context.stats.received.add(1);
        }
        batcher.finish().await.map_err(failed)
    }
}

/// The producer variety `lines`: a line per message. At least once: a crash between writing and the ack
/// writes some lines again.
struct LinesVariety;

impl ProducerVariety for LinesVariety {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn configure(
        &self,
        _name: &str,
        section: &mut Section<'_>,
        _profiles: &Profiles,
    ) -> Option<Box<dyn Producer>> {
        let file: PathBuf = section.required("file")?;
        Some(Box::new(LinesProducer { file }))
    }
}

struct LinesProducer {
    file: PathBuf,
}

#[async_trait]
impl Producer for LinesProducer {
    async fn run(self: Box<Self>, context: ProducerContext) -> Result<(), RunnerError> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.file)
            .map_err(failed)?;
        let mut heads: Vec<_> = context.stages.iter().map(|stage| stage.watch_head()).collect();
        loop {
            let mut delivered = 0;
            for stage in &context.stages {
                delivered += deliver_some(stage, &context.name, &mut file).await?;
            }
            context.stats.delivered.add(delivered);
            if delivered > 0 {
                continue;
            }
            if context.until == RunUntil::Drained || context.stop.is_cancelled() {
                return Ok(());
            }
            let moved = heads.iter_mut().map(|head| Box::pin(head.changed()));
            tokio::select! {
                _ = futures_util::future::select_all(moved) => {}
                () = context.stop.cancelled() => {}
            }
        }
    }
}

/// Reads from the cursor, writes, makes it durable, and only then acks.
async fn deliver_some(stage: &SharedStage, producer: &str, file: &mut File) -> Result<u64, RunnerError> {
    const LIMIT: ReadLimit = ReadLimit {
        messages: 10_000,
        bytes: 1 << 20,
    };
    let cursor = stage.cursor(producer).unwrap_or(Offset::ZERO);
    let found = stage.read(cursor, LIMIT).await.map_err(failed)?;
    let mut count = 0;
    for (_, message) in found.batches.iter().flat_map(|batch| batch.messages_from(cursor)) {
        file.write_all(message.payload)
            .and_then(|()| file.write_all(b"\n"))
            .map_err(failed)?;
        count += 1;
    }
    if found.next > cursor {
        file.sync_data().map_err(failed)?;
        stage.ack(producer, found.next).await.map_err(failed)?;
    }
    Ok(count)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> RunnerError {
    RunnerError::new(ExitReason::Failed, error)
}

/// Runs a configuration with these two varieties until `stop` is cancelled.
async fn run(config: &Path, stop: CancellationToken) -> Result<(), RunnerError> {
    let mut registry = Registry::empty();
    registry.add_consumer(CounterVariety).add_producer(LinesVariety);
    let loaded = Config::load(config, &registry, &LoadOptions::default())
        .map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
    match Pipeline::open_unless(loaded.config, Scope::All, &stop).await? {
        Some(pipeline) => pipeline.run(stop).await,
        None => Ok(()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(config) = std::env::args_os().nth(1) else {
        eprintln!("usage: custom_variety CONFIG");
        return ExitCode::from(ExitReason::Configuration as u8);
    };
    let stop = CancellationToken::new();
    let on_interrupt = stop.clone();
    let interrupt = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_interrupt.cancel();
        }
    });
    let outcome = run(Path::new(&config), stop).await;
    interrupt.abort();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.reason() as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn varieties_of_another_crate_run_from_config_yml_and_go_on_where_they_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let (config, lines) = (dir.path().join("config.yml"), dir.path().join("numbers.txt"));
        let text = format!(
            "runners:\n\
             - {{ name: numbers, type: consumer, variety: counter, count: 1000, stage: {{ type: local, path: {stage} }} }}\n\
             - {{ name: file, type: producer, variety: lines, depends_on: [numbers], file: {lines} }}\n",
            stage = dir.path().join("stage").display(),
            lines = lines.display(),
        );
        std::fs::write(&config, text).unwrap();

        for round in 1..=2 {
            let stop = CancellationToken::new();
            let running = run(&config, stop.clone());
            let expected = 1000 * round;
            let watch = async {
                while std::fs::read_to_string(&lines)
                    .unwrap_or_default()
                    .lines()
                    .count()
                    < expected
                {
                    tokio::task::yield_now().await;
                }
                stop.cancel();
            };
            let (outcome, ()) = tokio::join!(running, watch);
            outcome.unwrap();
            let text = std::fs::read_to_string(&lines).unwrap();
            let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
            let wanted: Vec<u64> = (1..=1000).cycle().take(expected).collect();
            assert_eq!(
                numbers, wanted,
                "each message once, in order, also after a restart"
            );
        }
    }
}
