//! `socket-el drain`: delivers what is staged until nothing is left, and shows how far it is.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::cli::DrainArgs;
use crate::exit::{ExitReason, RunnerError};
use crate::pipeline::{Pipeline, Progress, Scope};

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Delivers until every stage is empty, or `stop` is cancelled.
pub(super) async fn drain(args: &DrainArgs, stop: CancellationToken) -> Result<(), RunnerError> {
    let config = super::load(&args.config, &super::builtin_registry())?;
    let pipeline = Pipeline::open(config, Scope::Drain).await?;
    let progress = pipeline.progress();
    let stats = pipeline.stats();
    let before = progress.pending();
    let bar = bar_over(before);

    let run = pipeline.run(stop.clone());
    tokio::pin!(run);
    let outcome = loop {
        tokio::select! {
            outcome = &mut run => break outcome,
            () = tokio::time::sleep(PROGRESS_INTERVAL) => show(&bar, &progress, before),
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
    if args.json {
        let summary = serde_json::json!({
            "delivered": delivered, "rows": rows, "dead_letters": dead_letters, "pending": pending,
        });
        println!("{summary}");
    } else {
        println!(
            "delivered {delivered} messages: {rows} rows, {dead_letters} dead letters; {pending} pending"
        );
    }
    if pending > 0 {
        let message = format!("stopped with {pending} messages still pending; run `socket-el drain` again");
        return Err(RunnerError::new(ExitReason::Failed, message));
    }
    Ok(())
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
