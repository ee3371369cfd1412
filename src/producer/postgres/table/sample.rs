//! What messages would make of a table, without a database: the statement that makes it, and its columns.
//!
//! It is the sink's own table, never loaded: to that every message looks like the first one of a table that is yet to be
//! made, so what it wants is the whole table. Rows are left to [`memory`](super::memory).

use super::column_type::ColumnType;
use super::mapping::RouterOptions;
use super::router::Router;
use super::suggest::Suggestions;
use super::{CopyRows, Encoded, SchemaChange};
use crate::record::{Message, Offset};

/// What messages would make of the first table of a stage.
#[derive(Debug)]
pub struct Sample {
    router: Router,
    rows: Vec<CopyRows>,
    suggestions: Suggestions,
}

/// What would become of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// One row or several.
    Rows,
    /// It is not for the table.
    Ignored,
    /// It can never become a row; why.
    DeadLetter(String),
}

impl Sample {
    /// Of a table for which no message was seen yet.
    #[must_use]
    pub fn new(options: RouterOptions) -> Self {
        let mut router = Router::new(options);
        for table in router.tables_mut() {
            // Nothing is delivered, so there is nothing to warn of.
            table.warned.extend(["_message", "columns"].map(str::to_owned));
        }
        Self {
            rows: router.tables().iter().map(|_| CopyRows::new()).collect(),
            router,
            suggestions: Suggestions::default(),
        }
    }

    /// Takes in a message. The memory that this takes is bounded by the mapping's `max_columns`.
    pub fn add(&mut self, offset: Offset, message: Message<'_>) -> Sampled {
        match self.router.encode(offset, message, &mut self.rows) {
            Encoded::Rows(_) | Encoded::NeedsSchema => {
                if let (Some(records), Ok(text)) =
                    (self.router.plain_records(), std::str::from_utf8(message.payload))
                {
                    self.suggestions.add(records, text, message.received_at);
                }
                Sampled::Rows
            }
            Encoded::Ignored => Sampled::Ignored,
            Encoded::DeadLetter { reason, .. } => Sampled::DeadLetter(reason),
        }
    }

    /// The making of the table that holds the messages; `None` before the first that would be a row.
    #[must_use]
    pub fn change(&self) -> Option<SchemaChange> {
        self.router.tables().first()?.wanted_change()
    }

    /// Types narrower than those that the table would get, which all values seen under a key have; only where the mapping
    /// takes messages as they are.
    #[must_use]
    pub fn suggestions(&self) -> Vec<(String, ColumnType)> {
        self.suggestions.types()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mapping;
    use super::*;
    use crate::record::Timestamp;

    fn add(sample: &mut Sample, payload: &str) -> Sampled {
        let message = Message {
            payload: payload.as_bytes(),
            received_at: Timestamp::from_micros(1_618_677_786_598_877),
        };
        sample.add(Offset::ZERO, message)
    }

    #[test]
    fn the_table_is_that_of_all_messages_together() {
        let options = RouterOptions::single("feed", "websocket_1", "t", Mapping::default());
        let mut sample = Sample::new(options);
        assert!(sample.change().is_none());
        assert_eq!(add(&mut sample, r#"{"p":1,"s":"x"}"#), Sampled::Rows);
        assert_eq!(add(&mut sample, r#"[{"p":1.5,"ctid":{"a":1}}]"#), Sampled::Rows);
        assert_eq!(add(&mut sample, r#"{"s":7}"#), Sampled::Rows);
        assert!(matches!(add(&mut sample, "{"), Sampled::DeadLetter(reason) if reason.contains("not JSON")));
        let change = sample.change().unwrap();
        assert_eq!(
            change.create_table().unwrap(),
            "CREATE TABLE IF NOT EXISTS \"feed\".\"t\" (\n    \"p\" double precision,\n    \"s\" text,\n    \
             \"ctid_\" jsonb,\n    _extra jsonb\n);\n"
        );
        let column = |key: &str, column_type: &str| (key.to_owned(), column_type.to_owned());
        assert_eq!(
            change.columns(),
            [
                column("p", "double precision"),
                column("s", "text"),
                column("ctid", "jsonb"),
                column("_extra", "jsonb")
            ]
        );
        assert!(change.to_string().contains("COMMENT ON COLUMN"));
    }
}
