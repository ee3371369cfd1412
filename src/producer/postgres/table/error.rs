//! Why a target table can't be used or changed.

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

fn pids(blocking: &[i32]) -> String {
    if blocking.is_empty() {
        return "none any more".to_owned();
    }
    let list: Vec<_> = blocking.iter().map(i32::to_string).collect();
    format!("pid {}", list.join(", "))
}
