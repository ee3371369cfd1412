//! `stage-inspect adopt`: a stage takes over a cursor.

use socket_el::commands::builtin_registry;
use socket_el::config::{Config, LoadOptions, ProducerRunner};
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::producer::Adoption;

use crate::cli::{AdoptArgs, Cli};
use crate::place::{Place, close};

/// Makes the cursor in the database the stage's.
pub(crate) async fn adopt(cli: &Cli, args: &AdoptArgs) -> Result<(), RunnerError> {
    let wrong = |message: String| RunnerError::new(ExitReason::Configuration, message);
    if cli.at.path.is_some() {
        return Err(wrong(
            "adopt needs the configuration (-c): the producer's database stands there".to_owned(),
        ));
    }
    let options = LoadOptions {
        profiles: args.profiles.clone(),
        ..LoadOptions::default()
    };
    let loaded = Config::load(&cli.at.config, &builtin_registry(), &options)
        .map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
    let config = loaded.config;
    let consumer = config
        .consumer(&args.stage)
        .ok_or_else(|| wrong(format!("the configuration has no consumer {}", args.stage)))?;
    let producer = choose(&config, args).map_err(wrong)?;

    let path = Place::of_stage(&config, consumer).open(cli).await?;
    let outcome = match path.stage(&args.stage) {
        Some(stage) => {
            let adoption = Adoption {
                producer: producer.name.clone(),
                stage,
                keep_cursor: args.keep_cursor,
            };
            producer.producer.adopt(&adoption).await
        }
        None => Err(format!("nothing was ever staged of {}", args.stage)),
    };
    close(path).await?;
    let done = outcome.map_err(|error| RunnerError::new(ExitReason::Failed, error))?;
    if cli.json {
        println!(
            "{}",
            serde_json::json!({ "stage": args.stage, "producer": producer.name, "done": done })
        );
    } else {
        println!("{} by {}: {done}", args.stage, producer.name);
    }
    Ok(())
}

/// The producer that was named, or the only one that delivers the stage.
fn choose<'a>(config: &'a Config, args: &'a AdoptArgs) -> Result<&'a ProducerRunner, String> {
    let delivering: Vec<_> = config.producers_of(&args.stage).collect();
    let names = || {
        delivering
            .iter()
            .map(|producer| producer.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (&args.producer, delivering.as_slice()) {
        (Some(name), _) => delivering
            .iter()
            .copied()
            .find(|producer| producer.name == *name)
            .ok_or_else(|| {
                format!(
                    "no producer {name} delivers stage {}; those that do: {}",
                    args.stage,
                    names()
                )
            }),
        (None, [only]) => Ok(only),
        (None, []) => Err(format!("no producer delivers stage {}", args.stage)),
        (None, _) => Err(format!(
            "several producers deliver stage {}: choose one of {} with --producer",
            args.stage,
            names()
        )),
    }
}
