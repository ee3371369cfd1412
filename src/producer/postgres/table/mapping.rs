//! How the messages of a stage become rows of a table: what the mapping's keys in `config.yml` say, parsed.

use super::column_type::ColumnType;
use super::path::Path;

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
