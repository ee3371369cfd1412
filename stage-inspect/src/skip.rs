//! `stage-inspect skip`: steps over messages that block a producer.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use socket_el::exit::RunnerError;
use socket_el::producer::operate::Skipping;
use socket_el::record::{Offset, Timestamp};

use crate::cli::Cli;
use crate::confirm::confirm;
use crate::output::{print, print_json};
use crate::producing::with_stage;
use crate::table::human_count;
use crate::time::{Time, utc};

/// Arguments of `skip`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect skip websocket_1 --to 41                        everything before offset 41, after asking
  stage-inspect skip websocket_1 --producer postgres --to 41 --yes

The messages are kept as dead letters with the reason \"skipped by an operator\". An engine that delivers the stage goes on \
behind them by itself, after at most half a minute.")]
pub(crate) struct SkipArgs {
    /// The stage: the name of its consumer
    pub(crate) stage: String,
    /// The producer that delivers it [default: the only one that does]
    #[arg(long, value_name = "NAME")]
    pub(crate) producer: Option<String>,
    /// The first offset that is not skipped
    #[arg(long, value_name = "OFFSET")]
    pub(crate) to: u64,
    /// Do it without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// The file with the database profiles [default: $SOCKET_EL_PROFILES, or ~/.socket_el/profile.yml]
    #[arg(long, value_name = "FILE")]
    pub(crate) profiles: Option<PathBuf>,
}

/// Skips messages.
pub(crate) async fn skip(cli: &Cli, args: &SkipArgs) -> Result<(), RunnerError> {
    let (profiles, producer) = (args.profiles.as_deref(), args.producer.as_deref());
    let to = Offset::new(args.to);
    with_stage(cli, profiles, &args.stage, producer, async |operations, scope| {
        let plan = operations.plan_skip(scope, to).await?;
        if !args.yes {
            confirm(&describe(&plan, &args.stage, &scope.producer))?;
        }
        let done = operations.skip(scope, to).await?;
        if cli.json {
            return print_json(&Skipped {
                stage: &args.stage,
                producer: &scope.producer,
                from: done.from,
                to: done.to,
                messages: done.messages,
                received_first: done.received_first.map(Time),
                received_last: done.received_last.map(Time),
            });
        }
        print(format_args!(
            "{} by {}: {} messages became dead letters; delivery goes on at offset {}\n",
            args.stage,
            scope.producer,
            human_count(done.messages),
            done.to
        ))
    })
    .await
}

/// What would be skipped.
fn describe(plan: &Skipping, stage: &str, producer: &str) -> String {
    let time = |time: Option<Timestamp>| time.map_or("an unknown time".to_owned(), utc);
    format!(
        "make dead letters, and no rows, of offsets {}..{} of {stage} by {producer}: {} messages from {} to {}",
        plan.from,
        plan.to,
        human_count(plan.messages),
        time(plan.received_first),
        time(plan.received_last)
    )
}

/// What was skipped, as JSON.
#[derive(Serialize)]
struct Skipped<'a> {
    stage: &'a str,
    producer: &'a str,
    from: Offset,
    to: Offset,
    messages: u64,
    received_first: Option<Time>,
    received_last: Option<Time>,
}
