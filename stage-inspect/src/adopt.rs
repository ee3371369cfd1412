//! `stage-inspect adopt`: a stage takes over a cursor.

use serde_json::json;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::producer::Adoption;

use crate::cli::{AdoptArgs, Cli};
use crate::output::{print, print_json};
use crate::place::{Place, close};
use crate::producing::{choose, load};

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
            producer.producer.adopt(&adoption).await
        }
        None => Err(format!("nothing was ever staged of {}", args.stage)),
    };
    close(path).await?;
    let done = outcome.map_err(|error| RunnerError::new(ExitReason::Failed, error))?;
    if cli.json {
        return print_json(&json!({ "stage": args.stage, "producer": producer.name, "done": done }));
    }
    print(format_args!("{} by {}: {done}\n", args.stage, producer.name))
}
