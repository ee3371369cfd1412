//! `stage-inspect forget`: gives up what a stage or a producer that has left the configuration still holds, so that it no longer
//! keeps generations from being dropped. Nothing is given up that was not shown and agreed to. Its cursors in the databases go with it;
//! what is data there stays, and is named.

mod databases;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use socket_el::config::{ConfiguredStage, Variables, load_stages, nearest};
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::producer::remains::Departed;
use socket_el::record::Offset;
use socket_el::stage::StageError;
use socket_el::stage::path::{GenerationSummary, Route, replay_cursor};

use self::databases::{Databases, Found};

use crate::chosen::{Chosen, choose};
use crate::cli::{Cli, Location};
use crate::confirm::confirm;
use crate::facts::{ProducerFacts, StageFacts};
use crate::output::{print, print_json};
use crate::place::stage_failed;
use crate::table::{human_bytes, human_count};

/// Arguments of `forget`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect forget websocket_3                        a stage whose consumer is gone: all its messages and cursors
  stage-inspect forget websocket_1 --producer old --yes   the cursor of a producer that is gone

What still stands in the configuration is not forgotten (exit code 2), nor what a running engine was started with: start it again \
first. The cursors in the databases of the configured producers are removed; rows, dead letters and recorded gaps there stay, and are \
named with the statements that remove them. With --path, which also finds a directory that the configuration no longer names, no \
database is looked into, and only an engine that runs knows what is configured.")]
pub(crate) struct ForgetArgs {
    /// The stage: the name of its consumer
    pub(crate) stage: String,
    /// Forget only the cursor of this producer
    #[arg(long, value_name = "NAME")]
    pub(crate) producer: Option<String>,
    /// Do it without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// The file with the database profiles [default: $SOCKET_EL_PROFILES, or ~/.socket_el/profile.yml]
    #[arg(long, value_name = "FILE")]
    pub(crate) profiles: Option<PathBuf>,
}

/// What would be, or was, forgotten.
#[derive(Serialize)]
struct Forgotten<'a> {
    stage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<&'a str>,
    /// Messages that are given up; none of a producer that leaves.
    messages: u64,
    /// About how many bytes on disk are held for it, though perhaps for others as well.
    pinned_bytes: u64,
    /// The cursors that go.
    cursors: Vec<&'a ProducerFacts>,
}

/// The same, with what the databases hold of it.
#[derive(Serialize)]
struct ForgottenAll<'a> {
    #[serde(flatten)]
    forgotten: &'a Forgotten<'a>,
    /// Their cursors are gone where nothing else is said, and their data stays.
    databases: &'a [Found],
    /// What could not be looked into, and why.
    not_looked_into: &'a [String],
}

/// Forgets a stage or a producer.
pub(crate) async fn forget(cli: &Cli, args: &ForgetArgs) -> Result<(), RunnerError> {
    refuse_configured(&cli.at, args)?;
    let chosen = choose(cli, &args.stage).await?;
    let facts = StageFacts::from(chosen.summary.clone());
    let forgotten = look(args, &facts, &chosen.generations)?;
    let departed = Departed {
        path_id: chosen.path.id(),
        stage: args.stage.clone(),
        producer: args.producer.clone(),
    };
    let mut databases = Databases::look(cli, args, departed).await;
    if !args.yes {
        eprint!("{}", databases.stays());
        confirm(&format!("forget {}{}", describe(&forgotten), databases.goes()))?;
    }
    carry_out(&chosen, args).await?;
    chosen.close().await?;
    let removed = databases.forget_cursors().await;
    tell(cli, &forgotten, &databases)?;
    removed
}

/// Tells what was forgotten.
fn tell(cli: &Cli, forgotten: &Forgotten<'_>, databases: &Databases) -> Result<(), RunnerError> {
    if cli.json {
        return print_json(&ForgottenAll {
            forgotten,
            databases: &databases.found,
            not_looked_into: &databases.unseen,
        });
    }
    let what = match forgotten.producer {
        Some(producer) => format!("the cursor of {producer} at stage {}", forgotten.stage),
        None => format!(
            "stage {} with {} messages",
            forgotten.stage,
            human_count(forgotten.messages)
        ),
    };
    print(format_args!(
        "forgot {what}{}; what it held goes with the engine's next housekeeping, once retention is over\n{}",
        databases.goes(),
        databases.stays()
    ))
}

fn usage(message: String) -> RunnerError {
    RunnerError::new(ExitReason::Configuration, message)
}

/// Refuses what the configuration names.
fn refuse_configured(at: &Location, args: &ForgetArgs) -> Result<(), RunnerError> {
    if at.path.is_some() {
        return Ok(());
    }
    let stages = load_stages(&at.config, &Variables::Process)
        .map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
    let configured = stages.iter().find(|stage| stage.name == args.stage);
    let what = match (configured, &args.producer) {
        (Some(ConfiguredStage { producers, .. }), Some(producer)) if producers.contains(producer) => {
            format!("producer {producer} of stage {}", args.stage)
        }
        (Some(_), None) => format!("stage {}", args.stage),
        _ => return Ok(()),
    };
    Err(stage_failed(StageError::StillConfigured { what }))
}

/// What there is to be forgotten.
fn look<'a>(
    args: &'a ForgetArgs,
    facts: &'a StageFacts,
    generations: &[GenerationSummary],
) -> Result<Forgotten<'a>, RunnerError> {
    let Some(name) = &args.producer else {
        return Ok(Forgotten {
            stage: &facts.name,
            producer: None,
            messages: facts.messages,
            pinned_bytes: bytes_from(facts, Offset::ZERO, generations),
            cursors: facts.producers.iter().collect(),
        });
    };
    let Some(producer) = facts
        .producers
        .iter()
        .find(|producer| producer.name == *name)
        .filter(|producer| producer.cursor.is_some())
    else {
        let names: Vec<_> = facts
            .producers
            .iter()
            .map(|producer| producer.name.as_str())
            .collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(near) => format!("; did you mean {near}?"),
            None if names.is_empty() => "; it has none at all".to_owned(),
            None => format!("; it has those of {}", names.join(", ")),
        };
        return Err(usage(format!(
            "stage {} has no cursor of a producer {name}{hint}",
            facts.name
        )));
    };
    // A replay that was not finished can't be without its producer.
    let replay = facts
        .producers
        .iter()
        .find(|other| other.replay_of.as_ref() == Some(name));
    let cursors: Vec<_> = std::iter::once(producer).chain(replay).collect();
    let first = cursors.iter().filter_map(|producer| producer.cursor).min();
    Ok(Forgotten {
        stage: &facts.name,
        producer: Some(&producer.name),
        messages: 0,
        pinned_bytes: bytes_from(facts, first.unwrap_or(Offset::ZERO), generations),
        cursors,
    })
}

/// About how many bytes on disk the stage takes in generations that reach beyond an offset: its share by messages.
fn bytes_from(facts: &StageFacts, from: Offset, generations: &[GenerationSummary]) -> u64 {
    let share = |generation: &GenerationSummary| {
        let own = generation
            .extents
            .get(&facts.name)
            .filter(|extent| extent.end > from)?;
        let all: u64 = generation.extents.values().map(|extent| extent.messages).sum();
        let bytes = u128::from(generation.bytes) * u128::from(own.messages) / u128::from(all.max(1));
        u64::try_from(bytes).ok()
    };
    generations.iter().filter_map(share).sum()
}

fn describe(forgotten: &Forgotten<'_>) -> String {
    let bytes = human_bytes(forgotten.pinned_bytes);
    let cursors: Vec<_> = forgotten
        .cursors
        .iter()
        .map(|producer| {
            let at = producer
                .cursor
                .map_or_else(|| "not begun".to_owned(), |cursor| format!("at {cursor}"));
            format!(
                "{} {at}, {} pending",
                producer.name,
                human_count(producer.pending)
            )
        })
        .collect();
    let cursors = cursors.join("; ");
    match forgotten.producer {
        Some(_) => format!(
            "at stage {} the cursor of {cursors}, which holds about {bytes} on disk; no message is given up",
            forgotten.stage
        ),
        None if cursors.is_empty() => format!(
            "all {} messages of stage {}, about {bytes} on disk",
            human_count(forgotten.messages),
            forgotten.stage
        ),
        None => format!(
            "all {} messages of stage {}, about {bytes} on disk, and its cursors ({cursors})",
            human_count(forgotten.messages),
            forgotten.stage
        ),
    }
}

async fn carry_out(chosen: &Chosen, args: &ForgetArgs) -> Result<(), RunnerError> {
    let is_done = match &args.producer {
        Some(producer) => {
            let replay = chosen
                .path
                .forget_producer(&args.stage, &replay_cursor(producer))
                .await;
            match replay {
                Ok(_) => chosen.path.forget_producer(&args.stage, producer).await,
                Err(error) => Err(error),
            }
        }
        None => chosen
            .path
            .forget_stage(&args.stage)
            .await
            .map(|messages| messages.is_some()),
    };
    if is_done.map_err(|error| still_configured(chosen, error))? {
        Ok(())
    } else {
        Err(RunnerError::new(
            ExitReason::Failed,
            "it was gone before it could be forgotten",
        ))
    }
}

/// An engine knows the configuration that it was started with.
fn still_configured(chosen: &Chosen, error: StageError) -> RunnerError {
    match (&error, chosen.path.route()) {
        (StageError::StillConfigured { what }, Route::Engine { pid, .. }) => usage(format!(
            "the running engine (process {pid}) was started with {what}, and keeps it. Start the engine again with the configuration as \
             it is now, or stop it, and forget then"
        )),
        _ => stage_failed(error),
    }
}
