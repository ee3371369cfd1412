//! Rows as CSV (RFC 4180), in the form that `COPY … (FORMAT csv, HEADER)` of PostgreSQL writes and reads: NULL is nothing
//! between the commas, an empty text is `""`.
//!
//! That difference is why the quotes are set here: the writers at hand decide about them without knowing of NULL.

use std::borrow::Cow;
use std::fmt::Write as _;

use socket_el::exit::RunnerError;
use socket_el::producer::postgres::table::{ColumnType, Datum, ScalarType, TypedColumn};

use super::destination::Destination;
use super::rows::{Begun, RowWriter};
use crate::time::{day, time_of_day, timestamp};

/// Text that `COPY` takes for the end of the data when it stands alone on a line.
const END_OF_COPY: &str = "\\.";

/// Begins at a destination.
pub(super) fn begin(destination: Destination) -> Begun {
    Box::new(move |columns| {
        let writer = CsvWriter::new(destination, columns)?;
        Ok(Box::new(writer))
    })
}

/// Writes rows as lines of text.
struct CsvWriter {
    destination: Destination,
    types: Vec<ColumnType>,
    line: String,
}

impl CsvWriter {
    /// Writes the header.
    fn new(mut destination: Destination, columns: &[TypedColumn]) -> Result<Self, RunnerError> {
        let mut line = String::new();
        for (index, column) in columns.iter().enumerate() {
            add_field(&mut line, index, Some(&column.name));
        }
        destination.line(&line)?;
        Ok(Self {
            destination,
            types: columns.iter().map(|column| column.column_type).collect(),
            line,
        })
    }
}

impl RowWriter for CsvWriter {
    fn row(&mut self, row: &[Datum<'_>]) -> Result<(), RunnerError> {
        self.line.clear();
        for (index, (datum, column_type)) in row.iter().zip(&self.types).enumerate() {
            add_field(&mut self.line, index, text(datum, *column_type).as_deref());
        }
        self.destination.line(&self.line)
    }

    fn finish(self: Box<Self>) -> Result<(), RunnerError> {
        self.destination.finish()
    }
}

/// Appends the field at this place of the line.
fn add_field(line: &mut String, index: usize, text: Option<&str>) {
    if index > 0 {
        line.push(',');
    }
    match text {
        None => {}
        Some(text) if text.is_empty() || text == END_OF_COPY || text.contains([',', '"', '\n', '\r']) => {
            line.push('"');
            line.push_str(&text.replace('"', "\"\""));
            line.push('"');
        }
        Some(text) => line.push_str(text),
    }
}

/// A value as PostgreSQL reads it for a column of its type; `None` for NULL.
fn text<'d>(datum: &'d Datum<'_>, column_type: ColumnType) -> Option<Cow<'d, str>> {
    Some(match datum {
        Datum::Null => return None,
        Datum::Text(text) | Datum::Json(text) => Cow::Borrowed(text),
        Datum::Boolean(truth) => Cow::Borrowed(if *truth { "true" } else { "false" }),
        Datum::Integer(number) => Cow::Owned(number.to_string()),
        // With a point or an exponent, so that whoever guesses types sees what it is.
        Datum::Real(number) => Cow::Owned(format!("{number:?}")),
        Datum::Double(number) => Cow::Owned(format!("{number:?}")),
        Datum::Numeric(number) => Cow::Owned(number.to_string()),
        Datum::Uuid(uuid) => Cow::Owned(uuid.to_string()),
        Datum::Timestamp(micros) => {
            let zone = match column_type.scalar {
                ScalarType::Timestamptz(_) => "Z",
                _ => "",
            };
            Cow::Owned(timestamp(*micros, zone))
        }
        Datum::Date(days) => Cow::Owned(day(*days)),
        Datum::Time(micros) => Cow::Owned(time_of_day(*micros)),
        Datum::Network(network) => Cow::Owned(network.to_string()),
        Datum::Bytes(bytes) => Cow::Owned(hex(bytes)),
        Datum::List(elements) => Cow::Owned(list(elements, column_type)),
    })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An array as PostgreSQL reads it: `{1,NULL,"a b"}`.
fn list(elements: &[Datum<'_>], column_type: ColumnType) -> String {
    let element = ColumnType {
        array: false,
        ..column_type
    };
    let elements: Vec<_> = elements
        .iter()
        .map(|datum| match text(datum, element) {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        })
        .collect();
    format!("{{{}}}", elements.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(datum: &Datum<'_>, column_type: &str) -> String {
        let mut line = String::new();
        add_field(&mut line, 0, text(datum, column_type.parse().unwrap()).as_deref());
        line
    }

    #[test]
    fn null_is_nothing_and_an_empty_text_is_quoted_as_is_what_needs_it() {
        for (datum, line) in [
            (Datum::Null, ""),
            (Datum::Text(""), "\"\""),
            (Datum::Text("a b"), "a b"),
            (Datum::Text("a,b"), "\"a,b\""),
            (Datum::Text("say \"a\""), "\"say \"\"a\"\"\""),
            (Datum::Text("a\nb"), "\"a\nb\""),
            (Datum::Text("a\rb"), "\"a\rb\""),
            (Datum::Text("\\."), "\"\\.\""),
        ] {
            assert_eq!(written(&datum, "text"), line);
        }
    }

    #[test]
    fn numbers_and_times_are_written_in_full() {
        assert_eq!(written(&Datum::Double(3.0), "double precision"), "3.0");
        assert_eq!(written(&Datum::Double(1e300), "double precision"), "1e300");
        assert_eq!(written(&Datum::Real(0.1), "real"), "0.1");
        assert_eq!(
            written(&Datum::Timestamp(-1), "timestamptz"),
            "1969-12-31T23:59:59.999999Z"
        );
        assert_eq!(
            written(&Datum::Timestamp(0), "timestamp"),
            "1970-01-01T00:00:00.000000"
        );
        assert_eq!(written(&Datum::Bytes(&[0, 255]), "bytea"), "\\x00ff");
    }

    #[test]
    fn lists_are_written_as_postgresql_reads_them() {
        let texts = Datum::List(vec![Datum::Text("a\"\\"), Datum::Null, Datum::Text("")]);
        assert_eq!(written(&texts, "text[]"), r#""{""a\""\\"",NULL,""""}""#);
        assert_eq!(written(&Datum::List(vec![]), "bigint[]"), "{}");
    }
}
