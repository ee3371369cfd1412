//! The producer and the stage of it that a command is about: from the configuration and the profiles to both of them open.

use std::path::Path;

use socket_el::commands::builtin_registry;
use socket_el::config::{Config, LoadOptions, ProducerRunner};
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::producer::dead_letters::DeadLetters;
use socket_el::producer::operate::{Operations, Scope};

use crate::cli::Cli;
use crate::place::{Place, close};

/// Reads the configuration with everything in it, for the producer's database stands there.
pub(crate) fn load(cli: &Cli, profiles: Option<&Path>) -> Result<Config, RunnerError> {
    if cli.at.path.is_some() {
        return Err(RunnerError::new(
            ExitReason::Configuration,
            "this needs the configuration (-c) in place of --path: the producer's database stands there",
        ));
    }
    let options = LoadOptions {
        profiles: profiles.map(Path::to_owned),
        ..LoadOptions::default()
    };
    let loaded = Config::load(&cli.at.config, &builtin_registry(), &options)
        .map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
    Ok(loaded.config)
}

/// The producer that was named, or the only one that delivers the stage.
pub(crate) fn choose<'a>(
    config: &'a Config,
    stage: &'a str,
    named: Option<&str>,
) -> Result<&'a ProducerRunner, String> {
    let delivering: Vec<_> = config.producers_of(stage).collect();
    let names = || {
        delivering
            .iter()
            .map(|producer| producer.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (named, delivering.as_slice()) {
        (Some(name), _) => delivering
            .iter()
            .copied()
            .find(|producer| producer.name == name)
            .ok_or_else(|| {
                format!(
                    "no producer {name} delivers stage {}; those that do: {}",
                    stage,
                    names()
                )
            }),
        (None, [only]) => Ok(only),
        (None, []) => Err(format!("no producer delivers stage {}", stage)),
        (None, _) => Err(format!(
            "several producers deliver stage {}: choose one of {} with --producer",
            stage,
            names()
        )),
    }
}

/// What a producer can be asked to do.
pub(crate) fn operations(producer: &ProducerRunner) -> Result<&dyn Operations, RunnerError> {
    producer.producer.operations().ok_or_else(|| {
        RunnerError::new(
            ExitReason::Configuration,
            format!(
                "producer {} is of a variety that can't be asked to do that",
                producer.name
            ),
        )
    })
}

/// A producer that keeps dead letters.
pub(crate) type Keeper<'a> = (&'a str, &'a dyn DeadLetters);

/// The producers that keep dead letters: the named one, or all that do, for this stage if one is named.
pub(crate) fn keepers<'a>(
    config: &'a Config,
    named: Option<&str>,
    stage: Option<&str>,
) -> Result<Vec<Keeper<'a>>, RunnerError> {
    let wrong = |message: String| RunnerError::new(ExitReason::Configuration, message);
    // A stage that has left the configuration may still have letters with any of them.
    let stage = stage.filter(|stage| config.consumer(stage).is_some());
    let delivers = |runner: &&ProducerRunner| {
        stage.is_none_or(|stage| config.producers_of(stage).any(|other| other.name == runner.name))
    };
    let keepers: Vec<Keeper<'_>> = config
        .producers
        .iter()
        .filter(|runner| named.is_some() || delivers(runner))
        .filter_map(|runner| Some((runner.name.as_str(), runner.producer.dead_letters()?)))
        .collect();
    match named {
        Some(named) => match keepers.iter().find(|(name, _)| *name == named) {
            Some(keeper) => Ok(vec![*keeper]),
            None => {
                let names: Vec<_> = keepers.iter().map(|(name, _)| *name).collect();
                Err(wrong(format!(
                    "no producer {named} keeps dead letters; those that do: {}",
                    names.join(", ")
                )))
            }
        },
        None if keepers.is_empty() => Err(wrong(
            "the configuration has no producer that keeps dead letters".to_owned(),
        )),
        None => Ok(keepers),
    }
}

/// Opens the stage, through the engine that has it open or by its files, lets `work` use it, and closes it again.
pub(crate) async fn with_stage<T>(
    cli: &Cli,
    profiles: Option<&Path>,
    stage: &str,
    producer: Option<&str>,
    work: impl AsyncFnOnce(&dyn Operations, &Scope) -> Result<T, RunnerError>,
) -> Result<T, RunnerError> {
    let wrong = |message: String| RunnerError::new(ExitReason::Configuration, message);
    let config = load(cli, profiles)?;
    let consumer = config
        .consumer(stage)
        .ok_or_else(|| wrong(format!("the configuration has no consumer {stage}")))?;
    let runner = choose(&config, stage, producer).map_err(wrong)?;
    let operations = operations(runner)?;
    let path = Place::of_stage(&config, consumer).open(cli).await?;
    let outcome = match path.stage(stage) {
        Some(open) => {
            let scope = Scope {
                producer: runner.name.clone(),
                path: path.clone(),
                stage: open,
            };
            work(operations, &scope).await
        }
        None => Err(RunnerError::new(
            ExitReason::Failed,
            format!("nothing was ever staged of {stage}"),
        )),
    };
    let closed = close(path).await;
    outcome.and_then(|done| closed.map(|()| done))
}
