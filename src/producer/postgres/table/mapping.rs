//! How the messages of a stage become rows, and of which table: what the mapping's keys in `config.yml` say, parsed.

use super::column_type::ColumnType;
use super::when::When;
use crate::json_path::{Path, Step};

/// Columns that a table may have before new keys go to `_extra`, unless `max_columns` says otherwise.
pub const MAX_COLUMNS: usize = 500;

/// The mapping of one table. Its default is that of a configuration without any of the keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// `mapping: raw`: one row per message, kept whole.
    pub raw: bool,
    /// Where the records stand: an object, or an array whose elements are records.
    pub records: Path,
    /// Columns from outside of the records.
    pub include: Vec<Include>,
    /// Columns whose type or place is declared.
    pub columns: Vec<DeclaredColumn>,
    /// What becomes of a key without column.
    pub new_keys: NewKeys,
    /// The type of new columns for fractions.
    pub numbers: Numbers,
    /// Whether rows get `_stage`, `_offset` and `_received_at`.
    pub metadata: bool,
    /// Columns that the table may have before new keys go to `_extra`.
    pub max_columns: usize,
    /// What becomes of `\u0000`.
    pub nul: Nul,
    /// What becomes of a row whose key stands in the table already. Without it rows are only ever added.
    pub on_conflict: Option<OnConflict>,
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            raw: false,
            records: Path::default(),
            include: Vec::new(),
            columns: Vec::new(),
            new_keys: NewKeys::default(),
            numbers: Numbers::default(),
            metadata: false,
            max_columns: MAX_COLUMNS,
            nul: Nul::default(),
            on_conflict: None,
        }
    }
}

impl Mapping {
    /// The declared type of a key's column.
    pub(super) fn declared_type(&self, key: &str) -> Option<&ColumnType> {
        let column = self.columns.iter().find(|column| column.name == key)?;
        column.column_type.as_ref()
    }

    /// The columns that take their values by path from the record, with their paths.
    pub(super) fn by_path(&self) -> impl Iterator<Item = (&str, &Path)> {
        let columns = self.columns.iter();
        columns.filter_map(|column| Some((column.name.as_str(), column.path.as_ref()?)))
    }

    /// Whether a column of this name is declared, or comes from outside of the records.
    pub(super) fn names(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
            || self.include.iter().any(|include| include.name == name)
    }

    /// Whether elements of a record are asked for by their numbers, so that arrays are records as well.
    pub(super) fn is_positional(&self) -> bool {
        self.by_path()
            .any(|(_, path)| matches!(path.steps().first(), Some(Step::Index(_))))
    }

    /// Whether messages are taken as they come: no path is asked for.
    pub(super) fn is_plain(&self) -> bool {
        self.include.is_empty() && self.records.steps().is_empty() && self.by_path().next().is_none()
    }

    /// The columns of the key of `on_conflict`.
    pub(in super::super) fn conflict_key(&self) -> &[String] {
        self.on_conflict.as_ref().map_or(&[], |conflict| &conflict.key)
    }
}

/// What becomes of a row whose key stands in the table already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnConflict {
    /// The columns that make the key, named as keys are, or our own.
    pub key: Vec<String>,
    /// What becomes of the row.
    pub action: ConflictAction,
}

/// What becomes of a row whose key stands in the table already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictAction {
    /// It is left out: the first row of a key stays.
    Ignore,
    /// It takes the place of the one that stands: the last row of a key stays.
    Update,
}

/// A table of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct TableOptions {
    /// The table, made if it is missing.
    pub table: String,
    /// How messages become its rows.
    pub mapping: Mapping,
}

/// What is to be known about the tables of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterOptions {
    /// The schema, made if it is missing.
    pub schema: String,
    /// The stage that the messages come from.
    pub stage: String,
    /// Which of them are for any table.
    pub when: When,
    /// The tables; their names differ.
    pub tables: Vec<TableOptions>,
    /// Which message goes into which of the tables, by its place: the first that matches counts.
    pub routes: Vec<(When, usize)>,
}

impl RouterOptions {
    /// A single table, which takes all messages.
    #[must_use]
    pub fn single(schema: &str, stage: &str, table: &str, mapping: Mapping) -> Self {
        Self {
            schema: schema.to_owned(),
            stage: stage.to_owned(),
            when: When::default(),
            tables: vec![TableOptions {
                table: table.to_owned(),
                mapping,
            }],
            routes: vec![(When::default(), 0)],
        }
    }
}

/// A column that is filled from outside of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// The column, named as a key is.
    pub name: String,
    /// Where its value stands in the message.
    pub path: Path,
}

/// A column whose type or place is declared; at least one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredColumn {
    /// The column, named as a key is.
    pub name: String,
    /// Where its value stands in the record; by default under its name.
    pub path: Option<Path>,
    /// Its type; by default that which its values suggest.
    pub column_type: Option<ColumnType>,
}

/// What a key without column does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewKeys {
    /// It gets one.
    #[default]
    Evolve,
    /// The message becomes a dead letter, as with a value that does not fit its column.
    Freeze,
    /// It is dropped and counted.
    Discard,
}

/// The type of new columns for fractions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// `double precision`.
    #[default]
    Double,
    /// `numeric`, exact to the digit.
    Numeric,
}

/// What becomes of `\u0000`, which PostgreSQL can't keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nul {
    /// U+FFFD takes its place.
    #[default]
    Replace,
    /// It is left out; in the keys of records, which must not become those of others, it is replaced all the same.
    Strip,
    /// The message becomes a dead letter.
    DeadLetter,
}
