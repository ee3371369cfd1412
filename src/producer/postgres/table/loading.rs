//! The statements by which encoded rows get into their table.
//!
//! Without `on_conflict` that is one COPY. With it the COPY goes into a temporary table, and from there one statement takes
//! the row of each key that counts: of several in a transaction the last for `update`, the first for `ignore`. The
//! temporary table has the target's columns and the rows' numbers, lives as long as the session and is empty at each
//! commit. Its name tells the layout, so that none is ever used for another one.

use std::fmt::Write as _;

use super::layout::Layout;
use super::mapping::{ConflictAction, OnConflict};
use super::name::{TableName, quoted};

/// How rows of one layout get into their table.
#[derive(Clone, Debug)]
pub struct Loading {
    table: String,
    copy: String,
    upsert: Option<Upsert>,
}

/// What is done beside the COPY when rows have a key.
#[derive(Clone, Debug)]
pub struct Upsert {
    /// The statement that makes the temporary table, if it is not there.
    pub prepare: String,
    /// The statement that takes the rows over. It answers how many rows there are of different keys, and how many of them
    /// were written.
    pub merge: String,
    /// What becomes of a row whose key stands in the table already.
    pub action: ConflictAction,
}

impl Loading {
    pub(super) fn new(table: &TableName, layout: &Layout, conflict: Option<&OnConflict>) -> Self {
        let names: Vec<_> = layout.copy_names().map(quoted).collect();
        let columns = names.join(", ");
        let shown = table.to_string();
        let Some(conflict) = conflict else {
            return Self {
                copy: format!("COPY {shown} ({columns}) FROM STDIN (FORMAT binary)"),
                table: shown,
                upsert: None,
            };
        };
        let order = free_name(layout);
        let definition = definition(layout, &order);
        let key: Vec<_> = layout.key.iter().map(|&place| names[place].as_str()).collect();
        let key = key.join(", ");
        let (direction, resolved) = match conflict.action {
            ConflictAction::Ignore => ("ASC", "NOTHING".to_owned()),
            ConflictAction::Update => ("DESC", format!("UPDATE SET {}", assignments(layout, &names))),
        };
        let from = temporary_name(table, &definition);
        Self {
            copy: format!("COPY {from} ({columns}, {order}) FROM STDIN (FORMAT binary)"),
            upsert: Some(Upsert {
                prepare: format!(
                    "CREATE TEMPORARY TABLE IF NOT EXISTS {from} ({definition}) ON COMMIT DELETE ROWS"
                ),
                // In the order of the keys, so that two sessions that write the same rows do not wait for each other in a ring.
                merge: format!(
                    "WITH wanted AS MATERIALIZED (SELECT DISTINCT ON ({key}) {columns} FROM {from} ORDER BY {key}, {order} {direction}), \
                     written AS (INSERT INTO {shown} ({columns}) SELECT {columns} FROM wanted \
                     ON CONFLICT ({key}) DO {resolved} RETURNING 1) \
                     SELECT (SELECT count(*) FROM wanted), (SELECT count(*) FROM written)"
                ),
                action: conflict.action,
            }),
            table: shown,
        }
    }

    /// The table, quoted.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The COPY statement for the rows.
    #[must_use]
    pub fn copy_sql(&self) -> &str {
        &self.copy
    }

    /// What is done beside the COPY when rows have a key.
    #[must_use]
    pub fn upsert(&self) -> Option<&Upsert> {
        self.upsert.as_ref()
    }
}

/// A name for the rows' numbers that no column has, quoted.
fn free_name(layout: &Layout) -> String {
    let mut name = "_order".to_owned();
    while layout.has_column(&name) {
        name.push('_');
    }
    quoted(&name)
}

/// The columns of the temporary table.
fn definition(layout: &Layout, order: &str) -> String {
    let mut definition = String::new();
    for &index in &layout.copy {
        let column = &layout.columns[index];
        // Writing to a string can't fail.
        let _ = write!(definition, "{} {}", quoted(&column.name), column.type_name);
        if let Some(collation) = &column.collation {
            let _ = write!(definition, " COLLATE {collation}");
        }
        definition.push_str(", ");
    }
    definition + order + " bigint"
}

/// What an update sets: all that came from the message, or something that changes nothing when the key is all.
fn assignments(layout: &Layout, names: &[String]) -> String {
    let others = (0..names.len()).filter(|place| !layout.key.contains(place));
    let mut set: Vec<_> = others.collect();
    if set.is_empty() {
        set.extend(layout.key.first());
    }
    let set: Vec<_> = set
        .into_iter()
        .map(|place| format!("{name} = EXCLUDED.{name}", name = names[place]))
        .collect();
    set.join(", ")
}

fn temporary_name(table: &TableName, definition: &str) -> String {
    let table = crc32c::crc32c(table.to_string().as_bytes());
    let layout = crc32c::crc32c_append(table, definition.as_bytes());
    format!("pg_temp.\"_socket_el_{table:08x}{layout:08x}\"")
}
