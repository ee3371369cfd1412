//! Messages as the rows that the sink would make of them.
//!
//! The stretch is read twice: once to find the columns, and once to write the rows, so that memory is bounded whatever its
//! length. (A third time, for parquet only, when a column of whole numbers became `numeric` on the way: its digits are
//! counted anew.) What makes columns and rows is the sink's own code, [`MemoryTable`]; a format is a [`RowWriter`].

use socket_el::exit::{ExitReason, RunnerError};
use socket_el::producer::postgres::table::{
    Datum, Encoded, LEARNED_AT_ONCE, Mapping, MemoryTable, RouterOptions, TableError, TypedColumn,
};
use socket_el::record::{Message, Offset};

use super::destination::Target;
use super::{ExportArgs, Format, LeftOut, RowCounts, Written, csv, parquet, progress_bar, usage};
use crate::cli::Cli;
use crate::producing;
use crate::range::Pages;
use crate::stopping::Stopping;

/// Writes rows in a format.
pub(super) trait RowWriter {
    /// Writes a row: a value for each column.
    fn row(&mut self, row: &[Datum<'_>]) -> Result<(), RunnerError>;

    /// Ends what is written, and gives a file its name.
    fn finish(self: Box<Self>) -> Result<(), RunnerError>;
}

/// Something to write to that waits for its columns.
pub(super) type Begun = Box<dyn FnOnce(&[TypedColumn]) -> Result<Box<dyn RowWriter>, RunnerError>>;

/// An export of rows.
pub(super) struct Rows {
    table: MemoryTable,
    to: Begun,
}

impl Rows {
    /// Checks what was asked for, and begins the file.
    pub(super) fn of(cli: &Cli, args: &ExportArgs) -> Result<Self, RunnerError> {
        let to = match (args.format, &args.output) {
            (Format::Parquet, Target::Stdout) => {
                return Err(usage(
                    "parquet can't go to the standard output: its readers begin at the end. Name a file with -o",
                ));
            }
            (Format::Parquet, Target::File(path)) => parquet::begin(path, args.force)?,
            (Format::Jsonl | Format::Csv, target) => csv::begin(target.open(args.force)?),
        };
        let mut options = options(cli, args)?;
        let name = table_name(&options, args.table.as_deref())?;
        for table in &mut options.tables {
            table.mapping.metadata |= args.metadata;
        }
        let table = MemoryTable::new(options, &name).map_err(|error| table_failed(&error))?;
        Ok(Self { table, to })
    }

    /// Writes the rows of a stretch.
    pub(super) async fn export(
        self,
        args: &ExportArgs,
        pages: Pages,
        stop: &mut Stopping,
    ) -> Result<Written, RunnerError> {
        let Self { mut table, to } = self;
        let pages = pages.limited(LEARNED_AT_ONCE);
        let writing = async {
            learn(args, &mut table, pages.clone(), "columns").await?;
            if args.format == Format::Parquet && !table.is_measured() {
                table.learn_again();
                learn(args, &mut table, pages.clone(), "digits").await?;
            }
            table.settle().map_err(|error| table_failed(&error))?;
            let columns: Vec<_> = table.columns().collect();
            let mut writer = to(&columns)?;
            let written = write(args, &mut table, pages, &columns, writer.as_mut()).await?;
            Ok((written, writer))
        };
        let (written, writer) = stop.unless_asked(writing).await?;
        writer.finish()?;
        Ok(written)
    }
}

/// How the rows are made: as the stage's producer makes them, or without a mapping where there is none.
fn options(cli: &Cli, args: &ExportArgs) -> Result<RouterOptions, RunnerError> {
    let stage = args.stage.as_str();
    let unmapped = || RouterOptions::single("public", stage, stage, Mapping::default());
    if cli.at.path.is_some() && args.producer.is_none() {
        return Ok(unmapped());
    }
    let config = producing::load(cli, args.profiles.as_deref())?;
    if args.producer.is_none() && config.producers_of(stage).next().is_none() {
        return Ok(unmapped());
    }
    let runner = producing::choose(&config, stage, args.producer.as_deref()).map_err(usage)?;
    let options = runner.producer.tables_of(stage);
    options.map_err(|problem| usage(format!("producer {}: {problem}", runner.name)))
}

/// The table that was named, or the only one.
fn table_name(options: &RouterOptions, named: Option<&str>) -> Result<String, RunnerError> {
    let names: Vec<_> = options.tables.iter().map(|table| table.table.as_str()).collect();
    match (named, names.as_slice()) {
        (Some(named), names) if names.contains(&named) => Ok(named.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (Some(named), _) => Err(usage(format!(
            "no message goes into a table {named}; there are {}",
            names.join(", ")
        ))),
        (None, _) => Err(usage(format!(
            "the messages go into several tables: choose one of {} with --table",
            names.join(", ")
        ))),
    }
}

fn table_failed(error: &TableError) -> RunnerError {
    usage(error.to_string())
}

/// Lets all messages make the columns.
async fn learn(
    args: &ExportArgs,
    table: &mut MemoryTable,
    mut pages: Pages,
    doing: &'static str,
) -> Result<(), RunnerError> {
    let start = pages.at();
    let bar = progress_bar(&pages, &args.output, doing);
    loop {
        let from = pages.at();
        let Some(page) = pages.next().await? else {
            break;
        };
        let messages: Vec<_> = pages.messages(&page, from).collect();
        table.learn(&messages).map_err(|error| table_failed(&error))?;
        bar.set_position(pages.at().get() - start.get());
    }
    bar.finish_and_clear();
    Ok(())
}

/// Writes the rows of all messages.
async fn write(
    args: &ExportArgs,
    table: &mut MemoryTable,
    mut pages: Pages,
    columns: &[TypedColumn],
    writer: &mut dyn RowWriter,
) -> Result<Written, RunnerError> {
    let start = pages.at();
    let bar = progress_bar(&pages, &args.output, "rows");
    let mut written = Written::default();
    let mut counts = RowCounts::default();
    loop {
        let from = pages.at();
        let Some(page) = pages.next().await? else {
            break;
        };
        for gap in &page.gaps {
            written.add_gap(gap, &pages);
        }
        for (offset, message) in pages.messages(&page, from) {
            written.messages += 1;
            encode(table, offset, message, &mut counts)?;
            for row in table.rows().iter() {
                let mut datums = Vec::with_capacity(columns.len());
                for (datum, column) in table.datums(row).zip(columns) {
                    datums.push(datum.map_err(|error| {
                        failed(format!("offset {offset}, column {:?}: {error}", column.name))
                    })?);
                }
                writer.row(&datums)?;
            }
        }
        bar.set_position(pages.at().get() - start.get());
    }
    bar.finish_and_clear();
    written.rows = Some(counts);
    Ok(written)
}

/// Makes the rows of a message, and counts what becomes of it.
fn encode(
    table: &mut MemoryTable,
    offset: Offset,
    message: Message<'_>,
    counts: &mut RowCounts,
) -> Result<(), RunnerError> {
    match table.encode(offset, message) {
        Encoded::Rows(made) => counts.rows += u64::from(made),
        Encoded::Ignored => counts.ignored += 1,
        Encoded::DeadLetter { reason, .. } => {
            counts.left_out += 1;
            counts.first_left_out.get_or_insert(LeftOut { offset, reason });
        }
        Encoded::NeedsSchema => {
            return Err(failed(format!(
                "offset {offset}: the message needs columns that were not there when it was read first; export again"
            )));
        }
    }
    counts.extra_values += table.rows().extra_values();
    counts.discarded_values += table.rows().discarded_values();
    Ok(())
}

fn failed(message: String) -> RunnerError {
    RunnerError::new(ExitReason::Failed, message)
}
