//! `stage-inspect counts`: what became of every message that a stage was offered, by producer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use socket_el::config::{Config, ConsumerRunner, ProducerRunner};
use socket_el::exit::{ExitReason, RunnerError, chain};
use socket_el::producer::operate::Scope;
use socket_el::stage::report::Balance;

use crate::chosen::unknown;
use crate::cli::Cli;
use crate::output::{print, print_json};
use crate::place::{Place, close, stage_failed};
use crate::producing::load;
use crate::table::{Align, Table, human_count};

/// Arguments of `counts`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect counts                           all stages of config.yml
  stage-inspect counts websocket_1 --json

received = delivered + ignored + skipped + dead letters + pending + dropped + lost, since the stage was made. The counts stand in the \
database, in the row of the cursor, and move with it. RECEIVED is what the stage was offered; DELIVERED became rows; IGNORED the mapping \
leaves out; SKIPPED was stepped over (skip, dead-letters drop, a start behind it); DROPPED and LOST are listed by gaps. A replay \
counts nothing again.")]
pub(crate) struct CountsArgs {
    /// The stage [default: all]
    pub(crate) stage: Option<String>,
    /// The file with the database profiles [default: $SOCKET_EL_PROFILES, or ~/.socket_el/profile.yml]
    #[arg(long, value_name = "FILE")]
    pub(crate) profiles: Option<PathBuf>,
}

/// The counts of one producer for one stage.
#[derive(Serialize)]
struct Counted {
    stage: String,
    producer: String,
    /// None when the producer has not begun with the stage, or is held because its cursor is not of the stage's past.
    counts: Option<Balance>,
}

/// Shows the counts.
pub(crate) async fn counts(cli: &Cli, args: &CountsArgs) -> Result<(), RunnerError> {
    let config = load(cli, args.profiles.as_deref())?;
    let wanted: Vec<_> = config
        .consumers
        .iter()
        .filter(|consumer| args.stage.as_ref().is_none_or(|stage| consumer.name == *stage))
        .collect();
    if let (Some(stage), true) = (&args.stage, wanted.is_empty()) {
        let known: Vec<_> = config
            .consumers
            .iter()
            .map(|consumer| consumer.name.clone())
            .collect();
        return Err(RunnerError::new(
            ExitReason::Configuration,
            unknown(stage, &known),
        ));
    }
    let mut by_path: BTreeMap<_, Vec<&ConsumerRunner>> = BTreeMap::new();
    for consumer in wanted {
        by_path.entry(&consumer.stage.path).or_default().push(consumer);
    }
    let mut counted = Vec::new();
    for consumers in by_path.into_values() {
        counted.extend(of_path(cli, &config, &consumers).await?);
    }
    if cli.json {
        print_json(&counted)?;
    } else {
        print(shown(&counted))?;
    }
    check(&counted)
}

/// The counts of stages that share a path.
async fn of_path(
    cli: &Cli,
    config: &Config,
    consumers: &[&ConsumerRunner],
) -> Result<Vec<Counted>, RunnerError> {
    let Some(first) = consumers.first() else {
        return Ok(Vec::new());
    };
    let path = Place::of_stage(config, first).open(cli).await?;
    let mut counted = Vec::new();
    for consumer in consumers {
        let stage = &consumer.name;
        let Some(open) = path.stage(stage) else {
            continue;
        };
        for producer in config.producers_of(stage) {
            let scope = Scope {
                producer: producer.name.clone(),
                path: path.clone(),
                stage: open.clone(),
            };
            counted.push(Counted {
                stage: stage.clone(),
                producer: producer.name.clone(),
                counts: count(producer, &scope).await?,
            });
        }
    }
    close(path).await?;
    Ok(counted)
}

/// The sink is asked first, so that the stage is not behind it. When it can't be asked, what the engine has told is as good.
async fn count(producer: &ProducerRunner, scope: &Scope) -> Result<Option<Balance>, RunnerError> {
    let Some(operations) = producer.producer.operations() else {
        return Ok(None);
    };
    let passed = operations.passed(scope).await;
    let summary = scope.path.summary().await.map_err(stage_failed)?;
    let stage = scope.stage.name();
    let Some(summary) = summary.stage(stage) else {
        return Ok(None);
    };
    let known = summary.producers.get(&scope.producer);
    if let Some(held_at) = known.and_then(|known| known.held_at) {
        eprintln!(
            "stage-inspect: {stage} by {}: delivery is held, as the cursor in the database is beyond offset {held_at}, where the stage had \
             not come to before: what it counts is not of this stage. `stage-inspect adopt {stage}` tells what can be done",
            scope.producer
        );
        return Ok(None);
    }
    match passed {
        Ok(passed) => Ok(passed.map(|passed| summary.balance(passed))),
        Err(error) => {
            let told = known.and_then(|known| known.delivery.as_ref()?.balance);
            let Some(told) = told else {
                return Err(error);
            };
            eprintln!(
                "stage-inspect: {stage} by {}: as the engine has told last, for {}",
                scope.producer,
                chain(&error)
            );
            Ok(Some(told))
        }
    }
}

fn shown(counted: &[Counted]) -> String {
    let mut table = Table::new([
        ("STAGE", Align::Left),
        ("PRODUCER", Align::Left),
        ("RECEIVED", Align::Right),
        ("DELIVERED", Align::Right),
        ("IGNORED", Align::Right),
        ("SKIPPED", Align::Right),
        ("DEAD LETTERS", Align::Right),
        ("PENDING", Align::Right),
        ("DROPPED", Align::Right),
        ("LOST", Align::Right),
    ]);
    for Counted {
        stage,
        producer,
        counts,
    } in counted
    {
        let numbers = match counts {
            None => std::array::from_fn(|_| "-".to_owned()),
            Some(counts) => [
                human_count(counts.received),
                human_count(counts.delivered),
                human_count(counts.ignored),
                human_count(counts.skipped),
                human_count(counts.dead_letters),
                human_count(counts.pending),
                human_count(counts.dropped),
                lost(counts),
            ],
        };
        let [
            received,
            delivered,
            ignored,
            skipped,
            dead_letters,
            pending,
            dropped,
            lost,
        ] = numbers;
        table.push([
            stage.clone(),
            producer.clone(),
            received,
            delivered,
            ignored,
            skipped,
            dead_letters,
            pending,
            dropped,
            lost,
        ]);
    }
    table.to_string()
}

fn lost(counts: &Balance) -> String {
    match (counts.lost, counts.is_uncounted) {
        (lost, false) => human_count(lost),
        (0, true) => "unknown".to_owned(),
        (lost, true) => format!("{} + unknown", human_count(lost)),
    }
}

/// Counts that do not add up are no counts.
fn check(counted: &[Counted]) -> Result<(), RunnerError> {
    let wrong: Vec<_> = counted
        .iter()
        .filter_map(|counted| {
            let counts = counted.counts?;
            let difference = counts.difference();
            (difference != 0 && !counts.is_uncounted)
                .then(|| format!("{} by {}: {difference}", counted.stage, counted.producer))
        })
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(RunnerError::new(
        ExitReason::Failed,
        format!(
            "the counts do not add up to what was received ({}): the cursor was moved by hand? The next start of the engine puts that right",
            wrong.join("; ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(lost: u64, is_uncounted: bool) -> Counted {
        Counted {
            stage: "trades".to_owned(),
            producer: "postgres".to_owned(),
            counts: Some(Balance {
                received: 12_345,
                delivered: 12_340,
                lost,
                is_uncounted,
                ..Balance::default()
            }),
        }
    }

    #[test]
    fn counts_that_do_not_add_up_are_an_error_unless_a_loss_is_of_unknown_size() {
        check(&[counted(5, false)]).unwrap();
        check(&[counted(2, true)]).unwrap();
        let error = check(&[counted(5, false), counted(2, false)]).unwrap_err();
        assert!(error.to_string().contains("trades by postgres: 3"), "{error}");
    }

    #[test]
    fn a_loss_of_unknown_size_is_not_shown_as_none() {
        for (counted, end) in [
            (counted(0, true), "unknown\n"),
            (counted(5, true), "5 + unknown\n"),
            (counted(5, false), " 5\n"),
        ] {
            let text = shown(&[counted]);
            assert!(text.ends_with(end), "{text}");
            assert!(text.contains("12 345"), "{text}");
        }
    }
}
