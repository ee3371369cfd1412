//! Rows as a parquet file: typed columns that pandas, polars and DuckDB open.
//!
//! Rows are gathered by column and written as a row group before they take more than [`MAX_HELD_BYTES`], so that memory is
//! bounded whatever the length of the export. How a column's type is stored is [`column`](mod@column)'s.

mod column;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::Type;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::producer::postgres::table::{Datum, TypedColumn};

use super::destination::NewFile;
use super::rows::{Begun, RowWriter};
use column::Column;

/// Rows of a row group at most, as readers like them.
const MAX_ROWS: usize = 100_000;
/// Bytes of values that are gathered before a row group is written (the last row may pass it).
const MAX_HELD_BYTES: usize = 64 << 20;

/// Begins a file; its columns come later.
pub(super) fn begin(path: &Path, may_replace: bool) -> Result<Begun, RunnerError> {
    let file = NewFile::create(path, may_replace)?;
    let shown = path.display().to_string();
    Ok(Box::new(move |columns| {
        let writer = ParquetWriter::new(file, shown, columns)?;
        Ok(Box::new(writer))
    }))
}

/// Writes rows by column.
struct ParquetWriter {
    writer: SerializedFileWriter<NewFile>,
    path: String,
    columns: Vec<Column>,
    rows: usize,
}

impl ParquetWriter {
    fn new(file: NewFile, path: String, columns: &[TypedColumn]) -> Result<Self, RunnerError> {
        let columns: Vec<_> = columns.iter().map(Column::new).collect();
        let begun = columns
            .iter()
            .map(Column::field)
            .collect::<Result<Vec<_>, _>>()
            .and_then(|fields| Type::group_type_builder("rows").with_fields(fields).build())
            .and_then(|schema| {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_created_by(concat!("stage-inspect ", env!("CARGO_PKG_VERSION")).to_owned());
                SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties.build()))
            });
        Ok(Self {
            writer: begun.map_err(|error| failed(&path, &error))?,
            path,
            columns,
            rows: 0,
        })
    }

    /// Writes what is gathered as a row group.
    fn end_group(&mut self) -> Result<(), ParquetError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            // There are as many of them as the schema has leaves.
            let Some(mut writer) = group.next_column()? else {
                break;
            };
            column.write(&mut writer)?;
            writer.close()?;
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}

impl RowWriter for ParquetWriter {
    fn row(&mut self, row: &[Datum<'_>]) -> Result<(), RunnerError> {
        for (column, datum) in self.columns.iter_mut().zip(row) {
            column.push(datum).map_err(|error| failed(&self.path, &error))?;
        }
        self.rows += 1;
        let held: usize = self.columns.iter().map(Column::held_bytes).sum();
        if self.rows >= MAX_ROWS || held >= MAX_HELD_BYTES {
            self.end_group().map_err(|error| failed(&self.path, &error))?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), RunnerError> {
        self.end_group().map_err(|error| failed(&self.path, &error))?;
        let Self { writer, path, .. } = *self;
        let file = writer.into_inner().map_err(|error| failed(&path, &error))?;
        file.finish()
    }
}

fn failed(path: &str, error: &dyn std::fmt::Display) -> RunnerError {
    RunnerError::new(ExitReason::Failed, format!("could not write {path}: {error}"))
}
