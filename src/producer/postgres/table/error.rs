//! Why a target table can't be used or changed.

use tokio_postgres::error::SqlState;

/// Why reading a table's layout or changing the table failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Its rows would not survive what the cursor survives.
    #[error(
        "table {table} is {what}: its rows could be lost while the cursor stays. Name another table, or make it an ordinary, logged one"
    )]
    NotDurable {
        /// The table, quoted.
        table: String,
        /// What it is: `an UNLOGGED table`, `a foreign table`.
        what: &'static str,
    },
    /// There is something else of this name.
    #[error("{table} is {what}, not a table. Name another table with `table`")]
    NotATable {
        /// The name, quoted.
        table: String,
        /// What it is: `a view`.
        what: &'static str,
    },
    /// A column that has one of our own names can't hold what we put there.
    #[error(
        "column {column} of table {table} has the type {found}; socket-el keeps {purpose} there and needs {wanted}. Rename the column"
    )]
    ReservedColumn {
        /// The table, quoted.
        table: String,
        /// The column.
        column: &'static str,
        /// Its type.
        found: String,
        /// The type that it must have.
        wanted: &'static str,
        /// What we keep there.
        purpose: &'static str,
    },
    /// There is nothing to make the table of.
    #[error(
        "table {table} does not exist, and new_keys lets no message make columns. Make the table, or declare its columns with `columns`"
    )]
    NothingDeclared {
        /// The table, quoted.
        table: String,
    },
    /// A column of the key of `on_conflict` can't be filled by us.
    #[error(
        "column {column} of table {table} is of the key of on_conflict, but generated, or of a type that can't be written: the key must \
         come from the messages. Take another column"
    )]
    KeyNotOurs {
        /// The table, quoted.
        table: String,
        /// The column, as the configuration names it.
        column: String,
    },
    /// A column of the key of `on_conflict` is not there, and may not be made.
    #[error(
        "table {table} has no column for {column}, which is of the key of on_conflict, and new_keys lets no message make one. Declare \
         it with `columns`, or add it to the table"
    )]
    KeyNotDeclared {
        /// The table, quoted.
        table: String,
        /// The column, as the configuration names it.
        column: String,
    },
    /// Rows of one key can't be found.
    #[error("table {table} has no unique index on the key of on_conflict. {}", index_advice(.ddl, .partitioned_by))]
    NoUniqueIndex {
        /// The table, quoted.
        table: String,
        /// The statement that makes it.
        ddl: String,
        /// The columns of the table's partitioning that the key lacks.
        partitioned_by: Option<String>,
    },
    /// The server would refuse to look rows up by their key.
    #[error(
        "table {table} has {constraint} on the key of on_conflict, which is deferrable: the server refuses that. Make it one that is \
         not deferrable"
    )]
    Deferrable {
        /// The table, quoted.
        table: String,
        /// The constraint.
        constraint: String,
    },
    /// A table of somebody else lacks columns, and nothing can stand in for them.
    #[error(
        "table {table} lacks columns, and only the table's owner can add them, which the role of the profile is not. The owner can run: \
         {statement}; or, to have the values of new keys in one column: ALTER TABLE {table} ADD COLUMN _extra jsonb. Or make the role the \
         owner, or set new_keys to freeze or discard"
    )]
    NotOurs {
        /// The table, quoted.
        table: String,
        /// The statement that adds the columns.
        statement: String,
    },
    /// Others held locks on the table for longer than we tried.
    #[error(
        "table {table} can't be changed: {attempts} attempts ended in its lock_timeout; sessions that hold locks on it now: {}", pids(.blocking)
    )]
    Locked {
        /// The table, quoted.
        table: String,
        /// How often the change was tried.
        attempts: u32,
        /// Process ids of the sessions that held locks on the table when we gave up.
        blocking: Vec<i32>,
    },
    /// The catalog answered with something that is not understood.
    #[error("the catalog's answer about table {table} is not understood: {what}")]
    Catalog {
        /// The table, quoted.
        table: String,
        /// What.
        what: String,
    },
    /// The database refused, or the connection failed.
    #[error("could not read or change table {table}")]
    Database {
        /// The table, quoted.
        table: String,
        /// What it said.
        #[source]
        source: tokio_postgres::Error,
    },
}

impl TableError {
    /// Whether the role has not the rights for it.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Database { source, .. } if source.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
    }
}

fn index_advice(ddl: &str, partitioned_by: &Option<String>) -> String {
    match partitioned_by {
        None => format!("Make it: {ddl}"),
        Some(columns) => format!(
            "It is partitioned by {columns}, which a unique index has to contain: add that to `key`, and then make the index"
        ),
    }
}

fn pids(blocking: &[i32]) -> String {
    if blocking.is_empty() {
        return "none any more".to_owned();
    }
    let list: Vec<_> = blocking.iter().map(i32::to_string).collect();
    format!("pid {}", list.join(", "))
}
