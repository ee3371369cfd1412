//! `stage-inspect skip`: steps over messages that block a producer.

use std::io::{IsTerminal as _, Write as _, stderr, stdin};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::producer::operate::Skipping;
use socket_el::record::{Offset, Timestamp};

use crate::cli::Cli;
use crate::producing::with_stage;
use crate::table::human_count;
use crate::time::utc;

/// Arguments of `skip`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect skip websocket_1 --to 41                        everything before offset 41, after asking
  stage-inspect skip websocket_1 --producer postgres --to 41 --yes

The messages are kept as dead letters with the reason \"skipped by an operator\". An engine that delivers the stage goes on \
behind them by itself, after at most half a minute.")]
pub(crate) struct SkipArgs {
    /// The stage
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
            agree(&plan, &args.stage, &scope.producer)?;
        }
        let done = operations.skip(scope, to).await?;
        if cli.json {
            println!(
                "{}",
                json!({ "stage": args.stage, "producer": scope.producer, "skipped": done })
            );
        } else {
            println!(
                "{} by {}: {} messages became dead letters; delivery goes on at offset {}",
                args.stage,
                scope.producer,
                human_count(done.messages),
                done.to
            );
        }
        Ok(())
    })
    .await
}

/// Shows what would be skipped, and asks.
fn agree(plan: &Skipping, stage: &str, producer: &str) -> Result<(), RunnerError> {
    let time = |time: Option<Timestamp>| time.map_or("an unknown time".to_owned(), utc);
    eprintln!(
        "{stage} by {producer}: offsets {}..{}, {} messages from {} to {} become dead letters and not rows",
        plan.from,
        plan.to,
        human_count(plan.messages),
        time(plan.received_first),
        time(plan.received_last)
    );
    let refused = |message: &str| Err(RunnerError::new(ExitReason::Configuration, message));
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return refused("nothing was skipped: say --yes to do it without being asked");
    }
    eprint!("Skip them? [y/N] ");
    let mut answer = String::new();
    let _ = stderr().flush();
    match stdin().read_line(&mut answer) {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        Ok(_) | Err(_) => refused("nothing was skipped"),
    }
}
