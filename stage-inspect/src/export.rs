//! `stage-inspect export`: writes messages out, page by page, to a file that is there only once it is whole.
//!
//! As they came ([`lines`]), or as rows of the columns that the sink would give them ([`rows`]).

mod csv;
pub(crate) mod destination;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(not(feature = "parquet"))]
#[path = "export/without_parquet.rs"]
mod parquet;
mod rows;

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::record::Offset;
use socket_el::stage::{Gap, GapCause};

use crate::chosen::choose;
use crate::cli::Cli;
use crate::output::print_json;
use crate::range::{Pages, RangeArgs};
use crate::stopping::Stopping;
use crate::table::human_count;
use destination::Target;
use rows::Rows;

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect export websocket_1 -o trades.jsonl
  stage-inspect export websocket_1 --since 2h -o - | jq .message.price
  stage-inspect export websocket_1 --format parquet -o trades.parquet
  stage-inspect export websocket_1 --format csv --metadata -o - | head

A line of jsonl is {\"offset\": 41, \"received_at\": \"2026-11-24T10:00:00.123456Z\", \"message\": …}; of a message that is not JSON \
the bytes stand in `payload_base64` instead.

csv and parquet have the rows and columns that the producer would make in a new table, by its mapping in the configuration; with \
--path, or for a stage that no producer delivers, those that it makes without a mapping. What does not fit its column stands in \
_extra. Messages that the producer would keep as dead letters are no rows: they are counted, and the first is shown. In csv, NULL is \
nothing, and an empty text is \"\".")]
pub(crate) struct ExportArgs {
    /// The stage: the name of its consumer
    pub(crate) stage: String,
    /// Which messages
    #[command(flatten)]
    pub(crate) range: RangeArgs,
    /// How they are written
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The file to write, or - for the standard output (not with parquet)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Target,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
    /// csv, parquet: the producer whose mapping makes the rows [default: the only one that delivers the stage]
    #[arg(long, value_name = "NAME")]
    pub(crate) producer: Option<String>,
    /// csv, parquet: the table whose rows they are, where the producer delivers into several
    #[arg(long, value_name = "NAME")]
    pub(crate) table: Option<String>,
    /// csv, parquet: add the columns _stage, _offset and _received_at
    #[arg(long)]
    pub(crate) metadata: bool,
    /// csv, parquet: the file with the database profiles [default: $SOCKET_EL_PROFILES, or ~/.socket_el/profile.yml]
    #[arg(long, value_name = "FILE")]
    pub(crate) profiles: Option<PathBuf>,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// An object of JSON on a line for each message
    #[default]
    Jsonl,
    /// A line for each row, as COPY of PostgreSQL reads them with a header
    Csv,
    /// Typed columns, for pandas, polars, DuckDB and their like
    Parquet,
}

/// What was written.
#[derive(Default, Serialize)]
struct Written {
    messages: u64,
    /// Offsets of the stretch whose messages were lost or dropped.
    missing: u64,
    /// What became of the messages, where they become rows.
    #[serde(flatten)]
    rows: Option<RowCounts>,
}

/// What became of messages that become rows: each has rows, is ignored, or is left out.
#[derive(Default, Serialize)]
struct RowCounts {
    rows: u64,
    /// Messages that are not for the table.
    ignored: u64,
    /// Messages that would be dead letters.
    left_out: u64,
    first_left_out: Option<LeftOut>,
    /// Values that fit no column and stand in `_extra`.
    extra_values: u64,
    /// Values of keys that the mapping gives no column.
    discarded_values: u64,
}

/// A message that is no row.
#[derive(Serialize)]
struct LeftOut {
    offset: Offset,
    reason: String,
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
    let rows = match args.format {
        Format::Jsonl => {
            refuse_mapping(args)?;
            None
        }
        Format::Csv | Format::Parquet => Some(Rows::of(cli, args)?),
    };
    let chosen = choose(cli, &args.stage).await?;
    let pages = args.range.resolve(&chosen).await?;
    let written = match rows {
        None => lines::export(args, pages, &mut stop).await?,
        Some(rows) => rows.export(args, pages, &mut stop).await?,
    };
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
    eprint!("{}", told(&written, args));
    Ok(())
}

/// Refuses what has no meaning for messages that stay as they came.
fn refuse_mapping(args: &ExportArgs) -> Result<(), RunnerError> {
    if args.producer.is_none() && args.table.is_none() && args.profiles.is_none() && !args.metadata {
        return Ok(());
    }
    Err(usage(
        "--producer, --table, --profiles and --metadata are for rows: with --format csv or parquet. A line of jsonl is a message as it came, \
         with its offset and time",
    ))
}

/// What was written, in lines.
fn told(written: &Written, args: &ExportArgs) -> String {
    let (messages, stage, output) = (human_count(written.messages), &args.stage, &args.output);
    let Some(counts) = &written.rows else {
        return format!("stage-inspect: exported {messages} messages of {stage} to {output}\n");
    };
    let mut lines = format!(
        "stage-inspect: exported {messages} messages of {stage} as {} rows to {output}\n",
        human_count(counts.rows)
    );
    let mut tell = |count: u64, what: &str| {
        if count > 0 {
            lines += &format!("stage-inspect: {} {what}\n", human_count(count));
        }
    };
    tell(counts.ignored, "of the messages are not for this table");
    if let Some(first) = &counts.first_left_out {
        let what = format!(
            "of the messages are left out, for they would be dead letters; the first, offset {}: {}",
            first.offset, first.reason
        );
        tell(counts.left_out, &what);
    }
    tell(counts.extra_values, "values fit no column and stand in _extra");
    tell(
        counts.discarded_values,
        "values of keys without a column are left out, as the mapping says",
    );
    lines
}

fn usage(message: impl Into<String>) -> RunnerError {
    RunnerError::new(ExitReason::Configuration, message.into())
}

/// A bar over the offsets of a stretch, on a terminal that does not get the messages themselves.
fn progress_bar(pages: &Pages, target: &Target, doing: &'static str) -> ProgressBar {
    if !stderr().is_terminal() || target.is_stdout() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(pages.to().get().saturating_sub(pages.at().get()));
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} offsets, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar
}
