//! `stage-inspect adopt`: a stage takes over a cursor. It says beforehand what that comes to, and asks.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use socket_el::config::ProducerRunner;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::producer::{Adoption, AdoptionPlan};

use crate::cli::Cli;
use crate::confirm::confirm;
use crate::output::{print, print_json};
use crate::place::{Place, close};
use crate::producing::{choose, load};

/// Arguments of `adopt`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect adopt websocket_1                        says what comes again, and asks
  stage-inspect adopt websocket_1 --keep-cursor --yes    go on where the cursor stands, without asking

It says from which offset on delivery goes on, how many messages come again or are passed over, in which tables rows can stand \
twice then, and what becomes of dead letters of messages that come again. When the cursor's row is gone, --keep-cursor goes on \
where the stage itself remembers to have been delivered up to.")]
pub(crate) struct AdoptArgs {
    /// The stage: the name of its consumer
    pub(crate) stage: String,
    /// The producer whose cursor it is [default: the only one that delivers the stage]
    #[arg(long, value_name = "NAME")]
    pub(crate) producer: Option<String>,
    /// Go on where the cursor stands, and not at the stage's oldest message
    #[arg(long)]
    pub(crate) keep_cursor: bool,
    /// Do it without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// The file with the database profiles [default: $SOCKET_EL_PROFILES, or ~/.socket_el/profile.yml]
    #[arg(long, value_name = "FILE")]
    pub(crate) profiles: Option<PathBuf>,
}

/// Makes the cursor in the database the stage's.
pub(crate) async fn adopt(cli: &Cli, args: &AdoptArgs) -> Result<(), RunnerError> {
    let wrong = |message: String| RunnerError::new(ExitReason::Configuration, message);
    let config = load(cli, args.profiles.as_deref())?;
    let consumer = config
        .consumer(&args.stage)
        .ok_or_else(|| wrong(format!("the configuration has no consumer {}", args.stage)))?;
    let producer = choose(&config, &args.stage, args.producer.as_deref()).map_err(wrong)?;

    let path = Place::of_stage(&config, consumer).open(cli).await?;
    let outcome = match path.stage(&args.stage) {
        Some(stage) => {
            let adoption = Adoption {
                producer: producer.name.clone(),
                stage,
                keep_cursor: args.keep_cursor,
            };
            agreed(args, producer, &adoption).await
        }
        None => Err(RunnerError::new(
            ExitReason::Failed,
            format!("nothing was ever staged of {}", args.stage),
        )),
    };
    let closed = close(path).await;
    let done = outcome?;
    closed?;
    if cli.json {
        return print_json(&json!({ "stage": args.stage, "producer": producer.name, "adopted": done }));
    }
    print(format_args!("{} by {}: {done}\n", args.stage, producer.name))
}

/// Does it once it is agreed to.
async fn agreed(
    args: &AdoptArgs,
    producer: &ProducerRunner,
    adoption: &Adoption,
) -> Result<AdoptionPlan, RunnerError> {
    let failed = |error: String| RunnerError::new(ExitReason::Failed, error);
    if !args.yes {
        let plan = producer.producer.plan_adoption(adoption).await.map_err(failed)?;
        confirm(&format!(
            "make the cursor of {} stage {}'s: {plan}",
            producer.name, args.stage
        ))?;
    }
    producer.producer.adopt(adoption).await.map_err(failed)
}
