//! `socket-el drain`: delivers what is staged until nothing is left, and shows how far it is. Beside a running engine, which
//! delivers by itself, it only watches.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::DrainArgs;
use crate::exit::{ExitReason, RunnerError};
use crate::pipeline::{Pipeline, Progress, RunningEngines, Scope};

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How long an engine is waited for that has the lock of a stage path and does not answer yet: after a crash it recovers first.
const ENGINE_PATIENCE: Duration = Duration::from_secs(30);

/// Delivers until every stage is empty, or `stop` is cancelled.
pub(super) async fn drain(args: &DrainArgs, stop: CancellationToken) -> Result<(), RunnerError> {
    let began = Instant::now();
    let pipeline = loop {
        let config = super::load(&args.config, &super::builtin_registry())?;
        if let Some(engines) = RunningEngines::of(&config).await? {
            return watch(args, &engines, stop).await;
        }
        match Pipeline::open_unless(config, Scope::Drain, &stop).await {
            Ok(Some(pipeline)) => break pipeline,
            Ok(None) => {
                return Err(RunnerError::new(
                    ExitReason::Failed,
                    "stopped before the stages were open; run `socket-el drain` again",
                ));
            }
            // An engine that is just being started answers soon.
            Err(error) if error.reason() == ExitReason::StageInUse && began.elapsed() < ENGINE_PATIENCE => {
                tokio::select! {
                    () = stop.cancelled() => return Err(error),
                    () = sleep(PROGRESS_INTERVAL) => {}
                }
            }
            Err(error) => return Err(error),
        }
    };
    let progress = pipeline.progress();
    let stats = pipeline.stats();
    let before = progress.pending();
    let bar = bar_over(before);

    let run = pipeline.run(stop.clone());
    tokio::pin!(run);
    let outcome = loop {
        tokio::select! {
            outcome = &mut run => break outcome,
            () = sleep(PROGRESS_INTERVAL) => show(&bar, &progress, before),
        }
    };
    let pending = progress.pending();
    bar.finish_and_clear();
    outcome?;

    let delivered: u64 = stats.producers.values().map(|stats| stats.delivered.get()).sum();
    let rows: u64 = stats.producers.values().map(|stats| stats.rows.get()).sum();
    let dead_letters: u64 = stats
        .producers
        .values()
        .map(|stats| stats.dead_letters.get())
        .sum();
    let ignored: u64 = stats.producers.values().map(|stats| stats.ignored.get()).sum();
    if args.json {
        let summary = serde_json::json!({
            "delivered": delivered, "rows": rows, "dead_letters": dead_letters, "ignored": ignored,
            "pending": pending,
        });
        println!("{summary}");
    } else {
        println!(
            "delivered {delivered} messages: {rows} rows, {dead_letters} dead letters, {ignored} ignored; {pending} pending"
        );
    }
    all_delivered(pending)
}

/// Watches the engine that delivers, until nothing is pending, or `stop` is cancelled.
async fn watch(
    args: &DrainArgs,
    engines: &RunningEngines,
    stop: CancellationToken,
) -> Result<(), RunnerError> {
    let pids: Vec<_> = engines.pids().iter().map(u32::to_string).collect();
    info!(
        engine = pids.join(", "),
        "an engine has the stages open and delivers them; watching it"
    );
    for (producer, stage) in engines.idle().await? {
        warn!(
            "no process has begun to deliver stage {stage} by {producer} since the engine started: none runs that producer (`socket-el \
             run --only {producer}`), or it can't do so, and says why in its log"
        );
    }
    let progress = engines.progress();
    let (before, cursors) = (progress.pending(), progress.cursors());
    let bar = bar_over(before);
    let outcome = loop {
        if progress.pending() == 0 {
            break Ok(());
        }
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            error = engines.gone() => break Err(error),
            () = sleep(PROGRESS_INTERVAL) => show(&bar, progress, before),
        }
    };
    let (pending, delivered) = (progress.pending(), progress.delivered_since(&cursors));
    bar.finish_and_clear();
    engines.close().await;
    outcome?;
    if args.json {
        let summary =
            serde_json::json!({ "delivered": delivered, "pending": pending, "engines": engines.pids() });
        println!("{summary}");
    } else {
        println!(
            "the engine (process {}) delivered {delivered} messages; {pending} pending",
            pids.join(", ")
        );
    }
    all_delivered(pending)
}

fn all_delivered(pending: u64) -> Result<(), RunnerError> {
    if pending == 0 {
        return Ok(());
    }
    let message = format!("stopped with {pending} messages still pending; run `socket-el drain` again");
    Err(RunnerError::new(ExitReason::Failed, message))
}

fn bar_over(messages: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(messages);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} messages, {per_sec}, {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: &Progress, before: u64) {
    bar.set_position(before.saturating_sub(progress.pending()));
}
