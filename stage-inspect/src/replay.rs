//! `stage-inspect replay`: delivers once more what a stage still holds.

use std::io::{IsTerminal as _, stderr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use socket_el::exit::{ExitReason, RunnerError, chain};
use socket_el::producer::operate::{Operations, ReplayEnd, ReplayPlan, ReplayWish, Scope, TablePlan};
use socket_el::record::{Offset, Timestamp};
use socket_el::stats::ProducerStats;
use socket_el::telemetry::{self, LogFormat};
use tokio_util::sync::CancellationToken;

use crate::cli::Cli;
use crate::output::{print, print_json};
use crate::producing::with_stage;
use crate::range::first_since;
use crate::stopping::Stopping;
use crate::table::human_count;
use crate::time::{Time, parse_since, utc};

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true).args(["from", "since", "all", "resume", "abandon"]),
    after_help = "\
Examples:
  stage-inspect replay websocket_1 --all                 after the table was dropped: everything that is retained
  stage-inspect replay websocket_1 --since 2h --dry-run  only say what would be delivered
  stage-inspect replay websocket_1 --from 5000 --to 9000 --into trades_again
  stage-inspect replay websocket_1 --resume              go on after an interruption

The producer's own cursor is not moved, and an engine goes on meanwhile. A replay ends at the latest where the producer had \
delivered up to when it began. No row stands twice, or the replay is refused (exit code 1): the table must be empty or missing, \
or made anew later, or have the columns of `metadata: true`."
)]
pub(crate) struct ReplayArgs {
    /// The stage: the name of its consumer
    pub(crate) stage: String,
    /// The producer that delivers it [default: the only one that does]
    #[arg(long, value_name = "NAME")]
    pub(crate) producer: Option<String>,
    /// Begin with this offset
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// Begin with what was received at this time: 2026-11-24T10:00:00Z, or a duration back such as 90m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Begin with the oldest message that is retained
    #[arg(long)]
    pub(crate) all: bool,
    /// Go on with the replay that was interrupted
    #[arg(long, conflicts_with_all = ["to", "into", "allow_duplicates"])]
    pub(crate) resume: bool,
    /// End the replay that was interrupted where it stands
    #[arg(long, conflicts_with_all = ["to", "into", "allow_duplicates", "dry_run"])]
    pub(crate) abandon: bool,
    /// End before this offset
    #[arg(long, value_name = "OFFSET")]
    pub(crate) to: Option<u64>,
    /// Deliver into this table of the producer's schema
    #[arg(long, value_name = "TABLE")]
    pub(crate) into: Option<String>,
    /// Deliver although rows may stand twice then
    #[arg(long)]
    pub(crate) allow_duplicates: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The file with the database profiles [default: $SOCKET_EL_PROFILES, or ~/.socket_el/profile.yml]
    #[arg(long, value_name = "FILE")]
    pub(crate) profiles: Option<PathBuf>,
}

/// Delivers a stretch of a stage once more.
pub(crate) async fn replay(cli: &Cli, args: &ReplayArgs) -> Result<(), RunnerError> {
    telemetry::init(LogFormat::Text, tracing::Level::WARN);
    let since = args.since.as_deref().map(parse_since).transpose();
    let since =
        since.map_err(|error| RunnerError::new(ExitReason::Configuration, format!("--since: {error}")))?;
    let stopping = Stopping::listen()?;
    let (profiles, producer) = (args.profiles.as_deref(), args.producer.as_deref());
    with_stage(cli, profiles, &args.stage, producer, async |operations, scope| {
        if args.abandon {
            return abandon(cli, operations, scope).await;
        }
        let plan = plan(args, since, operations, scope).await?;
        if !cli.json {
            eprint!("{}", describe(&plan, scope, args.from));
        }
        if args.dry_run {
            let planned =
                json!({ "stage": args.stage, "producer": scope.producer, "plan": PlanFacts::from(&plan) });
            return if cli.json { print_json(&planned) } else { Ok(()) };
        }
        deliver(cli, &plan, operations, scope, stopping).await
    })
    .await
}

/// Begins the replay, or finds the one that is to be gone on with.
async fn plan(
    args: &ReplayArgs,
    since: Option<Timestamp>,
    operations: &dyn Operations,
    scope: &Scope,
) -> Result<ReplayPlan, RunnerError> {
    if args.resume {
        let unfinished = operations.unfinished_replay(scope).await?;
        return unfinished.ok_or_else(|| {
            RunnerError::new(
                ExitReason::Failed,
                format!(
                    "no replay of stage {} by {} is unfinished",
                    args.stage, scope.producer
                ),
            )
        });
    }
    let from = match (args.from, since) {
        (Some(from), _) => Offset::new(from),
        (None, Some(since)) => first_since(scope.path.as_ref(), &scope.stage, Offset::ZERO, since).await?,
        (None, None) => Offset::ZERO,
    };
    let wish = ReplayWish {
        asked: asked(args),
        from,
        to: args.to.map(Offset::new),
        into_table: args.into.clone(),
        allow_duplicates: args.allow_duplicates,
    };
    if args.dry_run {
        operations.plan_replay(scope, &wish).await
    } else {
        operations.begin_replay(scope, &wish).await
    }
}

/// The command, by which the same one is known again.
fn asked(args: &ReplayArgs) -> String {
    let mut words = match (args.from, &args.since) {
        (Some(from), _) => format!("--from {from}"),
        (None, Some(since)) => format!("--since {since}"),
        (None, None) => "--all".to_owned(),
    };
    if let Some(to) = args.to {
        words += &format!(" --to {to}");
    }
    if let Some(into) = &args.into {
        words += &format!(" --into {into}");
    }
    if args.allow_duplicates {
        words += " --allow-duplicates";
    }
    words
}

/// What is going to be delivered, in lines.
fn describe(plan: &ReplayPlan, scope: &Scope, asked_from: Option<u64>) -> String {
    let time = |time: Option<Timestamp>| time.map_or("an unknown time".to_owned(), utc);
    let mut lines = format!(
        "{} by {} into {}: offsets {}..{}, {} messages from {} to {}\n{plan}\n",
        scope.stage.name(),
        scope.producer,
        plan.tables
            .iter()
            .map(|table| table.table.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        plan.next,
        plan.to,
        human_count(plan.messages),
        time(plan.received_first),
        time(plan.received_last)
    );
    if plan.next > plan.from {
        lines += &format!("resumed: begun at offset {}\n", plan.from);
    }
    if asked_from.is_some_and(|from| from < plan.from.get()) {
        lines += &format!("what is before offset {} is no longer retained\n", plan.from);
    }
    if plan.dead_letters > 0 {
        lines += &format!(
            "{} messages stand as dead letters and are left out\n",
            human_count(plan.dead_letters)
        );
    }
    lines
}

async fn deliver(
    cli: &Cli,
    plan: &ReplayPlan,
    operations: &dyn Operations,
    scope: &Scope,
    mut stopping: Stopping,
) -> Result<(), RunnerError> {
    let (stats, stop) = (Arc::new(ProducerStats::default()), CancellationToken::new());
    let bar = bar_over(plan.messages.saturating_sub(plan.standing()));
    let mut work = operations.replay(scope, Arc::clone(&stats), stop.clone());
    let ended = loop {
        tokio::select! {
            ended = &mut work => break ended,
            () = stopping.asked() => stop.cancel(),
            () = tokio::time::sleep(PROGRESS_INTERVAL) => bar.set_position(stats.delivered.get()),
        }
    };
    bar.finish_and_clear();
    let (delivered, rows, dead_letters) = (stats.delivered.get(), stats.rows.get(), stats.dead_letters.get());
    let (stage, producer) = (scope.stage.name(), &scope.producer);
    let resume = format!("go on with `stage-inspect replay {stage} --producer {producer} --resume`");
    let ended = ended.map_err(|error| {
        let message = format!("{}. What is delivered stays; {resume}", chain(&error));
        RunnerError::new(error.reason(), message)
    })?;
    let printed = if cli.json {
        let (done, next) = match ended {
            ReplayEnd::Done => (true, plan.to),
            ReplayEnd::Stopped(next) => (false, next),
        };
        print_json(
            &json!({ "stage": stage, "producer": producer, "plan": PlanFacts::from(plan), "done": done, "next": next,
                "delivered": delivered, "rows": rows, "dead_letters": dead_letters }),
        )
    } else {
        print(format_args!(
            "delivered {delivered} messages: {rows} rows, {dead_letters} dead letters\n"
        ))
    };
    match ended {
        ReplayEnd::Done => printed,
        ReplayEnd::Stopped(next) => Err(RunnerError::new(
            ExitReason::Failed,
            format!("stopped at offset {next} of {}; {resume}", plan.to),
        )),
    }
}

/// What a replay is going to do, as JSON.
#[derive(Serialize)]
struct PlanFacts<'a> {
    tables: &'a [TablePlan],
    from: Offset,
    next: Offset,
    to: Offset,
    messages: u64,
    received_first: Option<Time>,
    received_last: Option<Time>,
    dead_letters: u64,
}

impl<'a> From<&'a ReplayPlan> for PlanFacts<'a> {
    fn from(plan: &'a ReplayPlan) -> Self {
        Self {
            tables: &plan.tables,
            from: plan.from,
            next: plan.next,
            to: plan.to,
            messages: plan.messages,
            received_first: plan.received_first.map(Time),
            received_last: plan.received_last.map(Time),
            dead_letters: plan.dead_letters,
        }
    }
}

async fn abandon(cli: &Cli, operations: &dyn Operations, scope: &Scope) -> Result<(), RunnerError> {
    let (stage, producer) = (scope.stage.name(), &scope.producer);
    let Some(next) = operations.abandon_replay(scope).await? else {
        return Err(RunnerError::new(
            ExitReason::Failed,
            format!("no replay of stage {stage} by {producer} is unfinished"),
        ));
    };
    if cli.json {
        return print_json(&json!({ "stage": stage, "producer": producer, "abandoned_at": next }));
    }
    print(format_args!(
        "{stage} by {producer}: the replay is ended at offset {next}; what it delivered stays\n"
    ))
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
