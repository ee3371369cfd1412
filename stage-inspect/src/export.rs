//! `stage-inspect export`: writes messages out, page by page, to a file that is there only once it is whole.

pub(crate) mod destination;

use std::io::{IsTerminal, stderr};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use socket_el::exit::RunnerError;
use socket_el::stage::{Gap, GapCause};

use crate::chosen::{Chosen, choose};
use crate::cli::Cli;
use crate::message::json_line;
use crate::output::print_json;
use crate::range::{Pages, RangeArgs};
use crate::stopping::Stopping;
use crate::table::human_count;
use destination::{Destination, Target};

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect export websocket_1 -o trades.jsonl
  stage-inspect export websocket_1 --since 2h -o - | jq .message.price

A line of jsonl is {\"offset\": 41, \"received_at\": \"2026-11-24T10:00:00.123456Z\", \"message\": …}; of a message that is not JSON \
the bytes stand in `payload_base64` instead.")]
pub(crate) struct ExportArgs {
    /// The stage
    pub(crate) stage: String,
    /// Which messages
    #[command(flatten)]
    pub(crate) range: RangeArgs,
    /// How they are written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The file to write, or - for the standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Target,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// An object of JSON on a line for each message
    #[default]
    Jsonl,
}

/// What was written.
#[derive(Default, Serialize)]
struct Written {
    messages: u64,
    /// Offsets of the stretch whose messages were lost or dropped.
    missing: u64,
}

impl Written {
    fn add_gap(&mut self, gap: &Gap, pages: &Pages) {
        if matches!(gap.cause, GapCause::Lost | GapCause::DroppedOldest) {
            let to = gap.to.min(pages.to());
            self.missing += to.get().saturating_sub(gap.from.get());
        }
    }
}

/// Writes messages out.
pub(crate) async fn export(cli: &Cli, args: &ExportArgs) -> Result<(), RunnerError> {
    let mut stop = Stopping::listen()?;
    let chosen = choose(cli, &args.stage).await?;
    let mut destination = args.output.open(args.force)?;
    let written = stop.unless_asked(write(args, &chosen, &mut destination)).await?;
    destination.finish()?;
    chosen.close().await?;
    if written.missing > 0 {
        eprintln!(
            "stage-inspect: {} offsets of the stretch hold no message any more; see `stage-inspect gaps {}`",
            human_count(written.missing),
            args.stage
        );
    }
    if cli.json && !args.output.is_stdout() {
        return print_json(&written);
    }
    eprintln!(
        "stage-inspect: exported {} messages of {} to {}",
        human_count(written.messages),
        args.stage,
        args.output
    );
    Ok(())
}

async fn write(
    args: &ExportArgs,
    chosen: &Chosen,
    destination: &mut Destination,
) -> Result<Written, RunnerError> {
    let mut pages = args.range.resolve(chosen).await?;
    let start = pages.at();
    let bar = progress_bar(pages.to().get().saturating_sub(start.get()), &args.output);
    let mut written = Written::default();
    loop {
        let from = pages.at();
        let Some(page) = pages.next().await? else {
            break;
        };
        for gap in &page.gaps {
            written.add_gap(gap, &pages);
        }
        for batch in &page.batches {
            for (offset, message) in batch.messages_from(from) {
                if offset >= pages.to() {
                    break;
                }
                match args.format {
                    Format::Jsonl => destination.line(&json_line(offset, message)?)?,
                }
                written.messages += 1;
            }
        }
        bar.set_position(pages.at().get() - start.get());
    }
    bar.finish_and_clear();
    Ok(written)
}

/// A bar over so many offsets, on a terminal that does not get the messages themselves.
fn progress_bar(offsets: u64, target: &Target) -> ProgressBar {
    if !stderr().is_terminal() || target.is_stdout() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(offsets);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} offsets, {eta} left") {
        bar.set_style(style);
    }
    bar
}
