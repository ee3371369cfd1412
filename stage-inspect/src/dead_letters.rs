//! `stage-inspect dead-letters`: looks at the messages that could not become rows, and handles them. They stand in the
//! producer's database, so that no stage is opened.

mod shown;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::producer::dead_letters::{DeadLetters, LetterFilter};
use socket_el::record::Offset;
use socket_el::telemetry::{self, LogFormat};
use tokio_util::sync::CancellationToken;

use crate::cli::Cli;
use crate::confirm::confirm;
use crate::export::destination::Target;
use crate::output::{print, print_json};
use crate::producing::{Keeper, keepers, load};
use crate::stopping::Stopping;
use crate::table::human_count;

/// Dead letters that `list` shows unless told otherwise.
const DEFAULT_LIMIT: u32 = 100;

/// Arguments of `dead-letters`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect dead-letters list                              those of all producers and stages
  stage-inspect dead-letters list --stage websocket_1
  stage-inspect dead-letters show 17
  stage-inspect dead-letters export --sqlstate 23514 -o refused.jsonl
  stage-inspect dead-letters retry --stage websocket_1         after the table or the mapping was mended
  stage-inspect dead-letters drop --reason \"not JSON\" --yes")]
pub(crate) struct DeadLettersArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: Action,
    /// The producer whose dead letters they are [default: all for list, else the only one that has such dead letters]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) producer: Option<String>,
    /// The file with the database profiles [default: $SOCKET_EL_PROFILES, or ~/.socket_el/profile.yml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) profiles: Option<PathBuf>,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List them by producer: how many of each stage, and of each its number, offset, time, SQLSTATE and reason
    List {
        /// Which ones.
        #[command(flatten)]
        which: Which,
        /// Begin behind the one with this number
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
        /// Most to list of each producer
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
        limit: u32,
    },
    /// Show one with its message
    Show {
        /// Its number
        id: i64,
        /// The message's bytes as they came, and nothing else
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// Write them with their messages to a file, an object of JSON on a line for each
    Export {
        /// Which ones.
        #[command(flatten)]
        which: Which,
        /// The file to write, or - for the standard output
        #[arg(short, long, value_name = "FILE")]
        output: Target,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
    },
    /// Deliver them as the configuration has it now; those that still can't be rows stay
    Retry {
        /// Which ones.
        #[command(flatten)]
        which: Which,
        /// Also those whose table was made anew after them; a replay into that table is refused from then on
        #[arg(long)]
        anyway: bool,
    },
    /// Give them up for good
    Drop {
        /// Which ones.
        #[command(flatten)]
        which: Which,
        /// Do it without asking
        #[arg(short, long)]
        yes: bool,
    },
}

impl Action {
    /// The stage that is named.
    fn stage(&self) -> Option<&str> {
        match self {
            Self::List { which, .. }
            | Self::Export { which, .. }
            | Self::Retry { which, .. }
            | Self::Drop { which, .. } => which.stage.as_deref(),
            Self::Show { .. } => None,
        }
    }
}

/// Which dead letters; those that fulfil all that is said.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Of this stage
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
    /// Whose reason holds this text
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Refused by the server with this SQLSTATE
    #[arg(long, value_name = "STATE")]
    sqlstate: Option<String>,
    /// Of messages from this offset on
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// Of messages before this offset
    #[arg(long, value_name = "OFFSET")]
    to: Option<u64>,
    /// With this number; may be given several times
    #[arg(long, value_name = "ID")]
    id: Vec<i64>,
}

impl Which {
    fn filter(&self) -> LetterFilter {
        LetterFilter {
            stage: self.stage.clone(),
            reason: self.reason.clone(),
            sqlstate: self.sqlstate.clone(),
            from: self.from.map(Offset::new),
            to: self.to.map(Offset::new),
            ids: self.id.clone(),
        }
    }
}

/// Does what is asked.
pub(crate) async fn dead_letters(cli: &Cli, args: &DeadLettersArgs) -> Result<(), RunnerError> {
    telemetry::init(LogFormat::Text, tracing::Level::WARN);
    let config = load(cli, args.profiles.as_deref())?;
    let keepers = keepers(&config, args.producer.as_deref(), args.action.stage())?;
    match &args.action {
        Action::List { which, after, limit } => list(cli, &keepers, &which.filter(), *after, *limit).await,
        Action::Show { id, raw } => {
            let filter = LetterFilter {
                ids: vec![*id],
                ..LetterFilter::default()
            };
            let (producer, letters) = only(&keepers, &filter).await?;
            let page = letters.page(producer, &filter, i64::MIN, 1, true).await?;
            let letter = page.first().ok_or_else(|| {
                RunnerError::new(ExitReason::Failed, format!("there is no dead letter {id}"))
            })?;
            shown::show(cli.json, *raw, letter)
        }
        Action::Export { which, output, force } => {
            let filter = which.filter();
            let (producer, letters) = only(&keepers, &filter).await?;
            shown::export(letters, producer, &filter, output, *force).await
        }
        Action::Retry { which, anyway } => {
            let filter = which.filter();
            let (producer, letters) = only(&keepers, &filter).await?;
            retry(cli, letters, producer, &filter, *anyway).await
        }
        Action::Drop { which, yes } => {
            let filter = which.filter();
            let (producer, letters) = only(&keepers, &filter).await?;
            discard(cli, letters, producer, &filter, *yes).await
        }
    }
}

/// Lists those of all keepers that have any.
async fn list(
    cli: &Cli,
    keepers: &[Keeper<'_>],
    filter: &LetterFilter,
    after: i64,
    limit: u32,
) -> Result<(), RunnerError> {
    let mut listed = Vec::new();
    for (producer, letters) in keepers {
        let by_stage = letters.by_stage(producer, filter).await?;
        if by_stage.is_empty() {
            continue;
        }
        let page = letters.page(producer, filter, after, limit, false).await?;
        let more = page.last().filter(|_| page.len() >= limit as usize);
        listed.push(shown::Listed {
            producer,
            by_stage,
            more: more.map(|letter| letter.id),
            page,
        });
    }
    shown::list(cli.json, &listed)
}

/// The only keeper that has such dead letters; the first where none has any, of which it says so.
async fn only<'a>(keepers: &[Keeper<'a>], filter: &LetterFilter) -> Result<Keeper<'a>, RunnerError> {
    let mut having = Vec::new();
    for (producer, letters) in keepers {
        // One alone is asked for what is wanted anyway.
        if keepers.len() > 1 {
            let picked = letters.count(producer, filter).await?;
            if picked.letters == 0 {
                continue;
            }
            having.push((
                (*producer, *letters),
                format!("{producer} ({})", human_count(picked.letters)),
            ));
        }
    }
    match (having.as_slice(), keepers) {
        ([(only, _)], _) | ([], [only, ..]) => Ok(*only),
        _ => {
            let names: Vec<_> = having.iter().map(|(_, name)| name.as_str()).collect();
            Err(RunnerError::new(
                ExitReason::Configuration,
                format!(
                    "several producers keep such dead letters: choose one of {} with --producer",
                    names.join(", ")
                ),
            ))
        }
    }
}

async fn retry(
    cli: &Cli,
    letters: &dyn DeadLetters,
    producer: &str,
    filter: &LetterFilter,
    anyway: bool,
) -> Result<(), RunnerError> {
    let (mut stopping, stop) = (Stopping::listen()?, CancellationToken::new());
    let mut work = letters.retry(producer, filter, anyway, stop.clone());
    let retried = loop {
        tokio::select! {
            retried = &mut work => break retried?,
            () = stopping.asked() => stop.cancel(),
        }
    };
    let printed = if cli.json {
        print_json(&json!({ "producer": producer, "retried": retried }))
    } else {
        print(format_args!(
            "{} dead letters became {} rows; {} still can't be rows{}\n",
            human_count(retried.delivered),
            human_count(retried.rows),
            human_count(retried.failed),
            match retried.busy {
                0 => String::new(),
                busy => format!("; somebody else is at {}", human_count(busy)),
            }
        ))
    };
    if retried.stopped {
        return Err(RunnerError::new(
            ExitReason::Failed,
            "stopped before all were tried; the others stand as they were. Retry again",
        ));
    }
    printed
}

async fn discard(
    cli: &Cli,
    letters: &dyn DeadLetters,
    producer: &str,
    filter: &LetterFilter,
    yes: bool,
) -> Result<(), RunnerError> {
    let picked = letters.count(producer, filter).await?;
    if picked.letters > 0 && !yes {
        let count = human_count(picked.letters);
        confirm(&format!(
            "drop {count} dead letters of {producer} with their messages"
        ))?;
    }
    let gone = letters.discard(producer, filter, picked).await?;
    if cli.json {
        return print_json(&json!({ "producer": producer, "dropped": gone }));
    }
    print(format_args!(
        "dropped {} dead letters of {producer}\n",
        human_count(gone)
    ))
}
