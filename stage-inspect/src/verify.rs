//! `stage-inspect verify`: reads everything that stages hold and says what of it is damaged or lost.
//!
//! Opening a path already finds what is missing from it and records that; what was recorded, now or at any time before, is
//! reported together with what [`check`] finds. A directory that can't be written to is looked at in a
//! [`copy`](mod@copy), for sled writes when it opens.

mod check;
mod copy;

use clap::Args;
use serde::Serialize;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::record::Timestamp;
use socket_el::stage::StageError;
use socket_el::stage::local::OpenError;
use socket_el::stage::look::LookError;
use socket_el::stage::path::Route;

use crate::chosen::unknown;
use crate::cli::Cli;
use crate::output::{print, print_json};
use crate::place::{Place, close, places, stage_failed};
use crate::stopping::Stopping;
use crate::table::{Align, Table, human_count};
use check::StageReport;

/// Times that a path is opened: sled may fail at damage in the generation that is appended to, and finds it at the next start.
const MAX_ATTEMPTS: u32 = 5;

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect verify                    all stages of config.yml
  stage-inspect verify websocket_1 --json

Exits with 4 when something is damaged or lost, also when that was recorded earlier. To open a damaged path records the loss and moves \
what is damaged aside, whoever opens it. A directory that can't be written to is \
copied to the temporary directory ($TMPDIR) and verified there.")]
pub(crate) struct VerifyArgs {
    /// The stage [default: all]
    pub(crate) stage: Option<String>,
}

/// What was found in one directory.
#[derive(Serialize)]
struct Report {
    path: String,
    /// Whether a copy of it was looked at.
    on_a_copy: bool,
    whole: bool,
    stages: Vec<StageReport>,
    /// Damaged parts that were moved aside in the directory, now or at any time before, as evidence.
    moved_aside: Vec<String>,
}

/// Verifies one stage or all.
pub(crate) async fn verify(cli: &Cli, args: &VerifyArgs) -> Result<(), RunnerError> {
    let mut places = places(&cli.at).map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
    if let Some(stage) = &args.stage
        && places.iter().any(|place| place.may_hold(stage))
    {
        places.retain(|place| place.may_hold(stage));
    }
    let mut stop = Stopping::listen()?;
    let mut reports = Vec::new();
    for place in &places {
        reports.push(verify_place(cli, place, &mut stop).await?);
    }
    if let Some(wanted) = &args.stage {
        let known: Vec<_> = reports
            .iter()
            .flat_map(|report| report.stages.iter().map(|stage| stage.name.clone()))
            .collect();
        if !known.contains(wanted) {
            return Err(RunnerError::new(
                ExitReason::Configuration,
                unknown(wanted, &known),
            ));
        }
        for report in &mut reports {
            report.stages.retain(|stage| stage.name == *wanted);
            report.whole = report.stages.iter().all(StageReport::is_whole);
        }
    }
    // That something is damaged is said by the exit code, whoever reads the report.
    let printed = if cli.json {
        print_json(&reports)
    } else {
        let shown: Vec<_> = reports.iter().map(shown).collect();
        print(shown.join("\n"))
    };
    let damaged: Vec<_> = reports
        .iter()
        .flat_map(|report| report.stages.iter())
        .filter(|stage| !stage.is_whole())
        .map(|stage| stage.name.as_str())
        .collect();
    if damaged.is_empty() {
        return printed;
    }
    Err(RunnerError::new(
        ExitReason::Damaged,
        format!("damaged, or not whole: {}", damaged.join(", ")),
    ))
}

/// Verifies a directory, or a copy if it can't be written to.
async fn verify_place(cli: &Cli, place: &Place, stop: &mut Stopping) -> Result<Report, RunnerError> {
    let began = Timestamp::now();
    match stop.unless_asked(attempts(cli, place, began)).await {
        Err(error) if is_not_writable(&error) => {
            let copy = copy::make(place, stop).await?;
            let stages = stop.unless_asked(attempts(cli, &copy.place, began)).await?;
            Ok(report(place, stages, true, moved_aside(&copy.place)))
        }
        outcome => Ok(report(place, outcome?, false, moved_aside(place))),
    }
}

fn report(place: &Place, stages: Vec<StageReport>, on_a_copy: bool, moved_aside: Vec<String>) -> Report {
    Report {
        path: place.path.display().to_string(),
        on_a_copy,
        whole: stages.iter().all(StageReport::is_whole),
        stages,
        moved_aside,
    }
}

fn is_not_writable(error: &RunnerError) -> bool {
    matches!(
        error.get_ref().downcast_ref::<LookError>(),
        Some(LookError::Open(OpenError::NotWritable { .. }))
    )
}

/// Verifies all stages; when the store fails while it is read, again from a new start, which recovers it.
async fn attempts(cli: &Cli, place: &Place, began: Timestamp) -> Result<Vec<StageReport>, RunnerError> {
    let mut attempt = 1;
    loop {
        let path = place.open(cli).await?;
        match check::stages(path.as_ref(), began).await {
            Ok(reports) => {
                close(path).await?;
                return Ok(reports);
            }
            Err(error @ (StageError::Failed { .. } | StageError::Closed)) => {
                let is_ours = path.route() == Route::Files;
                // What failed says so once more when it is closed.
                drop(path.close().await);
                if !is_ours || attempt == MAX_ATTEMPTS {
                    return Err(stage_failed(error));
                }
                attempt += 1;
            }
            Err(error) => return Err(stage_failed(error)),
        }
    }
}

/// Names of what was moved aside. What can't be listed is left out: it is only evidence.
fn moved_aside(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(&place.path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(socket_el::stage::local::disk::DAMAGED_PREFIX))
        .collect();
    names.sort();
    names
}

fn shown(report: &Report) -> String {
    let mut stages = Table::new([
        ("STAGE", Align::Left),
        ("RECORDS", Align::Right),
        ("MESSAGES", Align::Right),
        ("OUTAGES", Align::Right),
        ("RESULT", Align::Left),
    ]);
    let mut problems = Table::new([
        ("STAGE", Align::Left),
        ("OFFSETS", Align::Left),
        ("MESSAGES", Align::Right),
        ("FOUND", Align::Left),
        ("WHAT", Align::Left),
    ]);
    for stage in &report.stages {
        stages.push([
            stage.name.clone(),
            human_count(stage.records),
            human_count(stage.messages),
            human_count(stage.outages),
            if stage.is_whole() { "whole" } else { "not whole" }.to_owned(),
        ]);
        for problem in &stage.problems {
            problems.push([
                stage.name.clone(),
                format!("{}..{}", problem.from, problem.to),
                problem.messages.map_or_else(|| "?".to_owned(), human_count),
                problem.found_in_words(),
                problem.what.clone(),
            ]);
        }
    }
    let place = if report.on_a_copy {
        "a copy, as the directory can't be written to"
    } else {
        "read to the end"
    };
    let mut text = format!("{}: {place}\n{stages}", report.path);
    if !report.whole {
        text += &format!("\n{problems}");
    }
    if !report.moved_aside.is_empty() {
        text += &format!("moved aside, as evidence: {}\n", report.moved_aside.join(", "));
    }
    text
}
