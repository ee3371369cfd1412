//! `socket-el demo`: the whole pipeline on this machine, measured and proved.
//!
//! Two phases over the same configuration: *live*, in which everything runs at once, and *drain*, in which the
//! consumers fill the stage first and `drain` delivers it afterwards. Then the same rows are loaded with
//! `psql \copy … (format binary)` as a yardstick, and the tables are compared with what the feed has sent.

mod proof;
mod setup;

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::cli::DemoArgs;
use crate::exit::{ExitReason, RunnerError};
use crate::pipeline::{Pipeline, PipelineStats, Scope};

use self::proof::Proof;
use self::setup::{Demo, STAGES};

/// How often a phase looks whether it is over, and the terminal shows how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How a phase went.
struct Phase {
    name: &'static str,
    messages: u64,
    took: Duration,
}

impl Phase {
    fn rate(&self) -> f64 {
        per_second(self.messages, self.took)
    }
}

fn per_second(count: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let count = count as f64;
    count / took.as_secs_f64()
}

/// Runs the demonstration and prints its result; an error when the proof fails.
pub(super) async fn demo(args: &DemoArgs, stop: CancellationToken) -> Result<(), RunnerError> {
    say(args, "starting a private PostgreSQL and a feed");
    let mut demo = Demo::set_up(args.messages).await?;
    let outcome = tokio::select! {
        outcome = measure_and_prove(args, &mut demo) => outcome,
        () = stop.cancelled() => Err(RunnerError::new(ExitReason::Failed, "the demonstration was interrupted")),
    };
    demo.tear_down().await;
    outcome
}

async fn measure_and_prove(args: &DemoArgs, demo: &mut Demo) -> Result<(), RunnerError> {
    say(
        args,
        &format!(
            "live: {} messages from each of {} feeds",
            args.messages,
            STAGES.len()
        ),
    );
    let live = live(demo).await?;
    say(
        args,
        &format!(
            "drain: {} more messages from each feed are staged, then delivered",
            args.messages
        ),
    );
    let (staging, drain) = stage_then_drain(demo).await?;
    say(args, "yardstick: the same rows through psql \\copy");
    let yardstick = demo.copy_rows_with_psql().await?;
    let proof = Proof::gather(demo).await?;

    if args.json {
        println!("{}", report_json(&[live, staging, drain], yardstick, &proof));
    } else {
        print_report(&[live, staging, drain], yardstick, &proof);
    }
    if proof.holds() {
        Ok(())
    } else {
        Err(RunnerError::new(
            ExitReason::Failed,
            "a message is missing, doubled or out of order: see the table above",
        ))
    }
}

/// Everything runs at once, until each message that the feed sends is delivered.
async fn live(demo: &mut Demo) -> Result<Phase, RunnerError> {
    demo.start_feed().await?;
    let pipeline = Pipeline::open(demo.config()?, Scope::All).await?;
    let (progress, stats) = (pipeline.progress(), pipeline.stats());
    let expected = demo.messages_per_phase();
    let took = run_until(pipeline, || staged(&stats) >= expected && progress.pending() == 0).await?;
    demo.add_staged(&stats);
    demo.stop_feed().await?;
    Ok(Phase {
        name: "live",
        messages: expected,
        took,
    })
}

/// The consumers alone fill the stage, as they do while a database is away; then it is drained.
async fn stage_then_drain(demo: &mut Demo) -> Result<(Phase, Phase), RunnerError> {
    demo.start_feed().await?;
    let only_consumers = Scope::Only(STAGES.map(str::to_owned).to_vec());
    let pipeline = Pipeline::open(demo.config()?, only_consumers).await?;
    let stats = pipeline.stats();
    let expected = demo.messages_per_phase();
    let took = run_until(pipeline, || staged(&stats) >= expected).await?;
    demo.add_staged(&stats);
    demo.stop_feed().await?;
    let staging = Phase {
        name: "staging",
        messages: expected,
        took,
    };

    let pipeline = Pipeline::open(demo.config()?, Scope::Drain).await?;
    let progress = pipeline.progress();
    let took = run_until(pipeline, || progress.pending() == 0).await?;
    Ok((
        staging,
        Phase {
            name: "drain",
            messages: expected,
            took,
        },
    ))
}

fn staged(stats: &PipelineStats) -> u64 {
    stats.consumers.values().map(|stats| stats.staged.get()).sum()
}

/// Runs a pipeline until `is_over`, then stops it; how long it took until then.
async fn run_until(pipeline: Pipeline, is_over: impl Fn() -> bool) -> Result<Duration, RunnerError> {
    let begin = Instant::now();
    let stop = CancellationToken::new();
    let run = pipeline.run(stop.clone());
    tokio::pin!(run);
    let mut took = None;
    loop {
        tokio::select! {
            outcome = &mut run => {
                outcome?;
                return Ok(took.unwrap_or_else(|| begin.elapsed()));
            }
            () = tokio::time::sleep(LOOK_INTERVAL), if took.is_none() => {
                if is_over() {
                    took = Some(begin.elapsed());
                    stop.cancel();
                }
            }
        }
    }
}

fn say(args: &DemoArgs, what: &str) {
    if !args.json {
        println!("{what}");
    }
}

fn print_report(phases: &[Phase], yardstick: Duration, proof: &Proof) {
    let rows = proof.rows();
    let copy_rate = per_second(rows, yardstick);
    println!();
    println!(
        "{:<28}{:>12}{:>10}{:>14}{:>12}",
        "", "messages", "seconds", "messages/s", "of \\copy"
    );
    for phase in phases {
        let Phase { name, messages, took } = phase;
        println!(
            "{name:<28}{messages:>12}{:>10.2}{:>14.0}{:>12.2}",
            took.as_secs_f64(),
            phase.rate(),
            phase.rate() / copy_rate
        );
    }
    let name = "psql \\copy (format binary)";
    println!(
        "{name:<28}{rows:>12}{:>10.2}{copy_rate:>14.0}{:>12.2}",
        yardstick.as_secs_f64(),
        1.0
    );
    println!();
    println!("{proof}");
}

fn report_json(phases: &[Phase], yardstick: Duration, proof: &Proof) -> serde_json::Value {
    let copy_rate = per_second(proof.rows(), yardstick);
    let of_phase = |phase: &Phase| {
        serde_json::json!({
            "phase": phase.name, "messages": phase.messages, "seconds": phase.took.as_secs_f64(),
            "messages_per_second": phase.rate(), "ratio_to_copy": phase.rate() / copy_rate,
        })
    };
    serde_json::json!({
        "phases": phases.iter().map(of_phase).collect::<Vec<_>>(),
        "copy": { "rows": proof.rows(), "seconds": yardstick.as_secs_f64(), "rows_per_second": copy_rate },
        "stages": proof.stages(),
        "proved": proof.holds(),
    })
}
