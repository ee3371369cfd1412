//! `socket-el check`: validates a configuration, and says what would be made or, with `--connect`, tries everything that it
//! names.

use serde::Serialize;

use crate::cli::CheckArgs;
use crate::exit::{ExitReason, RunnerError};
use crate::pipeline::try_paths;

/// What was tried, and what came of it.
#[derive(Debug, Serialize)]
struct Finding {
    /// The runner or the stage path.
    subject: String,
    /// Whether it works.
    ok: bool,
    /// What was found, or what failed and what to do.
    detail: String,
}

/// Validates, tries, and prints a line per finding.
pub(super) async fn check(args: &CheckArgs) -> Result<(), RunnerError> {
    let config = super::load(&args.config, &super::builtin_registry())?;
    let mut findings = Vec::new();
    let mut worst = None;
    if args.connect {
        for (path, outcome) in try_paths(&config).await {
            if let Err(error) = &outcome {
                worst.get_or_insert(error.reason());
            }
            findings.push(finding(path, outcome.map_err(|error| error.to_string())));
        }
        for runner in &config.consumers {
            findings.push(finding(runner.name.clone(), runner.consumer.probe().await));
        }
        for runner in &config.producers {
            let outcome = runner.producer.probe(&runner.depends_on).await;
            findings.push(finding(
                runner.name.clone(),
                outcome.map(|lines| lines.join("\n")),
            ));
        }
    } else {
        for runner in &config.producers {
            let outcome = runner.producer.foresee(&runner.depends_on);
            if outcome.is_err() {
                worst.get_or_insert(ExitReason::Configuration);
            }
            let outcome = outcome.map(|lines| lines.join("\n"));
            if outcome.as_deref() != Ok("") {
                findings.push(finding(runner.name.clone(), outcome));
            }
        }
    }
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    let (consumers, producers) = (config.consumers.len(), config.producers.len());
    if args.json {
        let report =
            serde_json::json!({ "consumers": consumers, "producers": producers, "findings": findings });
        println!("{report}");
    } else {
        for finding in &findings {
            let mark = if finding.ok { "ok" } else { "FAILED" };
            println!(
                "{mark:6} {}: {}",
                finding.subject,
                finding.detail.replace('\n', "\n         ")
            );
        }
        if failed == 0 {
            println!(
                "{}: no mistake found (consumers: {consumers}, producers: {producers})",
                args.config.config.display()
            );
        }
    }
    if failed == 0 {
        return Ok(());
    }
    let reason = worst.unwrap_or(ExitReason::Failed);
    Err(RunnerError::new(
        reason,
        format!("{failed} of {} trials failed", findings.len()),
    ))
}

fn finding(subject: String, outcome: Result<String, String>) -> Finding {
    match outcome {
        Ok(detail) => Finding {
            subject,
            ok: true,
            detail,
        },
        Err(detail) => Finding {
            subject,
            ok: false,
            detail,
        },
    }
}
