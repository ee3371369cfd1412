//! A table as the catalog describes it, and what follows for the COPY.
//!
//! Listed in the COPY is every column that takes values from us and has no default: a key that is missing is NULL there.
//! A column with a default is listed only once a key has named it; until then the default applies, from then on a
//! missing key is NULL there as well. `_extra` is last, since only after the other columns it is known what goes there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::catalog::{Answer, catalog_sql, database, encoder, encoder_of, refuse_unfit};
use super::change::NewColumn;
use super::encode::Encoder;
use super::error::TableError;
use super::infer::NewType;
use super::mapping::{Mapping, NewKeys};
use super::name::{self, TableName};

/// Columns that PostgreSQL gives numbers to in one table's life, dropped ones included.
const MAX_COLUMN_NUMBER: usize = 1_600;
/// Column numbers kept free for our own columns.
const OWN_COLUMNS: usize = 5;

/// What is decided about a table's columns beside what the catalog says.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    /// How messages become rows.
    pub(super) mapping: Arc<Mapping>,
    /// Columns with a default that a key has named.
    pub(super) named: BTreeSet<String>,
    /// Columns that are not to be widened (any more).
    pub(super) settled: BTreeSet<String>,
    /// The table is somebody else's: what has no place in its columns has none at all.
    pub(super) closed: bool,
}

/// What a column is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The values of a key.
    Key,
    Stage,
    Offset,
    ReceivedAt,
    Message,
    Extra,
}

/// A column of the table.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) encoder: Encoder,
    pub(super) type_name: String,
    /// Whether it is a bigint that we made and may still widen.
    pub(super) widenable: bool,
    /// Whether it takes values from a COPY, and of a type that we can write.
    pub(super) writable: bool,
    /// Whether it is of the key of `on_conflict`, so that no row is without it.
    pub(super) is_key: bool,
    /// Its collation in SQL, where that is not the type's own.
    pub(super) collation: Option<String>,
    has_default: bool,
    /// The key that goes here.
    pub(super) key: Option<String>,
}

/// A table's columns.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// `None`: there is no such table.
    pub(super) fingerprint: Option<String>,
    pub(super) columns: Vec<Column>,
    /// Indexes of the columns in the COPY, in its order.
    pub(super) copy: Vec<usize>,
    /// Whether the rows are numbered behind their columns, for those of one key are told apart by their order.
    pub(super) ordered: bool,
    /// Places in the COPY of the key of `on_conflict`, in the configuration's order.
    pub(super) key: Vec<usize>,
    /// Its columns that the table lacks.
    pub(super) missing_key: Vec<String>,
    by_key: HashMap<String, usize>,
    highest_number: usize,
    /// Columns for what fits nowhere else, which `max_columns` does not count.
    keeping: usize,
    /// Columns that the configuration names and that are not there yet: their places are kept.
    reserved: usize,
}

impl Layout {
    /// Reads a table's layout.
    pub(super) async fn read(
        client: &Client,
        table: &TableName,
        choices: &Choices,
    ) -> Result<Self, TableError> {
        let answer = client
            .simple_query(&catalog_sql(table))
            .await
            .map_err(|source| database(table, source))?;
        let mut layout = Self::default();
        for message in &answer {
            if let SimpleQueryMessage::Row(row) = message {
                layout.add(row, table, choices)?;
            }
        }
        layout.list(table, choices)?;
        Ok(layout)
    }

    /// What the catalog says where there is no table.
    pub(super) fn absent(table: &TableName, choices: &Choices) -> Result<Self, TableError> {
        let mut layout = Self::default();
        layout.list(table, choices)?;
        Ok(layout)
    }

    /// What the catalog would say once these columns are added and those widened, for a table that stands in no database.
    pub(super) fn changed(
        &self,
        table: &TableName,
        added: Vec<NewColumn>,
        widened: &[(String, NewType)],
        choices: &Choices,
    ) -> Result<Self, TableError> {
        let mut layout = Self {
            fingerprint: Some(String::new()),
            columns: self.columns.clone(),
            by_key: self.by_key.clone(),
            highest_number: self.columns.len() + added.len(),
            ..Self::default()
        };
        for column in &mut layout.columns {
            if let Some((_, to)) = widened.iter().find(|(name, _)| *name == column.name) {
                column.encoder = encoder_of(to.column_type(), false);
                column.type_name = to.sql().to_owned();
                column.widenable = false;
            }
        }
        let mapping = &choices.mapping;
        for column in added {
            let declared = column.key.as_deref().and_then(|key| mapping.declared_type(key));
            let encoder = encoder_of(column.column_type, declared.is_some());
            if let Some(key) = &column.key {
                layout.by_key.insert(key.clone(), layout.columns.len());
            }
            layout.columns.push(Column {
                role: role(&column.name, mapping.raw),
                type_name: column.column_type.sql(),
                widenable: column.key.is_some() && is_widenable(&encoder, declared.is_some(), mapping),
                writable: true,
                is_key: false,
                collation: None,
                has_default: false,
                key: column.key,
                name: column.name,
                encoder,
            });
        }
        layout.list(table, choices)?;
        Ok(layout)
    }

    /// Finds out which columns the COPY lists, and where its key stands among them.
    fn list(&mut self, table: &TableName, choices: &Choices) -> Result<(), TableError> {
        self.ordered = choices.mapping.on_conflict.is_some();
        let key = self.find_key(table, &choices.mapping)?;
        let listed = |column: &Column| {
            let named = || !column.has_default || column.is_key || choices.named.contains(&column.name);
            column.writable
                && match column.role {
                    Role::Key => named(),
                    role @ (Role::Stage | Role::Offset | Role::ReceivedAt) => {
                        is_needed(role, &choices.mapping)
                    }
                    Role::Message | Role::Extra => true,
                }
        };
        let (columns, copy) = (&self.columns, &mut self.copy);
        copy.extend((0..columns.len()).filter(|&index| listed(&columns[index])));
        copy.sort_by_key(|&index| columns[index].role == Role::Extra);
        let place = |index: &usize| self.copy.iter().position(|listed| listed == index);
        self.key = key.iter().filter_map(place).collect();
        self.reserved = self.reserved(&choices.mapping);
        let keeps = |column: &&Column| matches!(column.role, Role::Message | Role::Extra);
        self.keeping = self.columns.iter().filter(keeps).count();
        Ok(())
    }

    /// How many columns that the configuration names are not there.
    fn reserved(&self, mapping: &Mapping) -> usize {
        let named: BTreeSet<_> = mapping
            .columns
            .iter()
            .map(|column| &column.name)
            .chain(mapping.include.iter().map(|include| &include.name))
            .filter(|name| self.column_of_key(name).is_none())
            .chain(&self.missing_key)
            .collect();
        let own = own(mapping.raw).iter();
        let own = own.filter(|own| is_needed(own.role, mapping) && !self.has_column(own.name));
        named.len() + own.count()
    }

    /// A table that others made with these columns, for tests without a database.
    #[cfg(test)]
    pub(super) fn of(columns: &[(&str, Encoder)]) -> Self {
        let mut layout = Self {
            fingerprint: Some(String::new()),
            copy: (0..columns.len()).collect(),
            ..Self::default()
        };
        for (index, (name, encoder)) in columns.iter().enumerate() {
            let key = name::key_of_column(name).map(str::to_owned);
            layout.by_key.extend(key.clone().map(|key| (key, index)));
            layout.columns.push(Column {
                name: (*name).to_owned(),
                role: role(name, false),
                encoder: encoder.clone(),
                type_name: String::new(),
                widenable: false,
                writable: true,
                is_key: false,
                collation: None,
                has_default: false,
                key,
            });
        }
        layout
    }

    /// Takes in one row of [`catalog_sql`]: a column, or a table without any.
    fn add(&mut self, row: &SimpleQueryRow, table: &TableName, choices: &Choices) -> Result<(), TableError> {
        let answer = Answer { row, table };
        if self.fingerprint.is_none() {
            refuse_unfit(&answer)?;
            self.fingerprint = Some(answer.text("fingerprint")?.to_owned());
        }
        let Some(name) = answer.optional("name") else {
            return Ok(());
        };
        let comment = answer.optional("comment");
        let made_for = comment.and_then(name::key_of_comment);
        let made = made_for.is_some();
        let key = made_for.or_else(|| name::key_of_column(name).map(str::to_owned));
        let mapping = &choices.mapping;
        let declared = key.as_deref().and_then(|key| mapping.declared_type(key));
        let encoder = encoder(&answer, made, declared)?;
        let widenable = made && is_widenable(&encoder, declared.is_some(), mapping);
        let column = Column {
            name: name.to_owned(),
            role: role(name, mapping.raw),
            type_name: answer.text("type_name")?.to_owned(),
            widenable: widenable && !choices.settled.contains(name),
            writable: answer.flag("writable")? && encoder != Encoder::Unsupported,
            is_key: false,
            collation: answer.optional("collation").map(str::to_owned),
            has_default: answer.flag("has_default")?,
            key,
            encoder,
        };
        check_reserved(&column, table, mapping)?;
        if let Some(key) = &column.key
            && (made || !self.by_key.contains_key(key))
        {
            self.by_key.insert(key.clone(), self.columns.len());
        }
        self.highest_number = self.highest_number.max(answer.number("number")?);
        self.columns.push(column);
        Ok(())
    }

    /// The columns of the key of `on_conflict` that are there.
    fn find_key(&mut self, table: &TableName, mapping: &Mapping) -> Result<Vec<usize>, TableError> {
        let mut key = Vec::new();
        for name in mapping.conflict_key() {
            let own = own(mapping.raw)
                .iter()
                .any(|own| own.name == name && is_needed(own.role, mapping));
            let index = if own {
                self.columns.iter().position(|column| column.name == *name)
            } else {
                self.column_of_key(name)
            };
            match index {
                None if own => {}
                None => self.missing_key.push(name.clone()),
                Some(index) if !self.columns[index].writable => {
                    return Err(TableError::KeyNotOurs {
                        table: table.to_string(),
                        column: name.clone(),
                    });
                }
                Some(index) => {
                    self.columns[index].is_key = true;
                    key.push(index);
                }
            }
        }
        let is_declared = |name: &String| mapping.names(name);
        match self.missing_key.iter().find(|name| !is_declared(name)) {
            Some(name) if mapping.new_keys != NewKeys::Evolve => Err(TableError::KeyNotDeclared {
                table: table.to_string(),
                column: name.clone(),
            }),
            _ => Ok(key),
        }
    }

    /// Whether the table exists.
    pub(super) fn exists(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// The column that takes a key's values.
    pub(super) fn column_of_key(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// Whether there is a column of this name.
    pub(super) fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
    }

    /// Whether the COPY has a column for this.
    pub(super) fn has(&self, role: Role) -> bool {
        self.copy.iter().any(|&index| self.columns[index].role == role)
    }

    /// How many columns keys that the configuration does not name may still get.
    pub(super) fn room(&self, max_columns: usize) -> usize {
        let by_number = MAX_COLUMN_NUMBER - OWN_COLUMNS;
        max_columns
            .saturating_sub(self.columns.len() - self.keeping)
            .min(by_number.saturating_sub(self.highest_number))
            .saturating_sub(self.reserved)
    }

    /// The names of the COPY's columns.
    pub(super) fn copy_names(&self) -> impl Iterator<Item = &str> + '_ {
        self.copy.iter().map(|&index| self.columns[index].name.as_str())
    }
}

/// Whether a column that we made may become wider: its values' type was inferred, and nothing says that it is final.
fn is_widenable(encoder: &Encoder, is_declared: bool, mapping: &Mapping) -> bool {
    *encoder == Encoder::Int8 && !is_declared && mapping.new_keys != NewKeys::Freeze
}

fn role(name: &str, raw: bool) -> Role {
    own(raw)
        .iter()
        .find(|own| own.name == name)
        .map_or(Role::Key, |own| own.role)
}

/// Whether every row must have this column of ours.
pub(super) fn is_needed(role: Role, mapping: &Mapping) -> bool {
    match role {
        Role::Stage => mapping.metadata,
        Role::Offset | Role::ReceivedAt => mapping.metadata || mapping.raw,
        Role::Message => mapping.raw,
        Role::Key | Role::Extra => false,
    }
}

/// A column of ours.
pub(super) struct Own {
    pub(super) name: &'static str,
    pub(super) new_type: NewType,
    pub(super) role: Role,
    purpose: &'static str,
}

const fn own_column(name: &'static str, new_type: NewType, role: Role, purpose: &'static str) -> Own {
    Own {
        name,
        new_type,
        role,
        purpose,
    }
}

const STAGE: Own = own_column(name::STAGE, NewType::Text, Role::Stage, "the name of the stage");
const EXTRA: Own = own_column(
    name::EXTRA,
    NewType::Jsonb,
    Role::Extra,
    "values that fit no column",
);
const OFFSET_PURPOSE: &str = "the message's offset";
const TIME_PURPOSE: &str = "the time of receipt";

/// Our own columns, in the order in which a new table gets them.
static OWN: [Own; 5] = [
    STAGE,
    own_column(name::OFFSET, NewType::BigInt, Role::Offset, OFFSET_PURPOSE),
    own_column(
        name::RECEIVED_AT,
        NewType::Timestamptz,
        Role::ReceivedAt,
        TIME_PURPOSE,
    ),
    own_column(
        name::MESSAGE,
        NewType::Jsonb,
        Role::Message,
        "messages without records",
    ),
    EXTRA,
];

/// The same with `mapping: raw`.
static RAW_OWN: [Own; 5] = [
    STAGE,
    own_column("offset", NewType::BigInt, Role::Offset, OFFSET_PURPOSE),
    own_column(
        "received_at",
        NewType::Timestamptz,
        Role::ReceivedAt,
        TIME_PURPOSE,
    ),
    own_column("message", NewType::Jsonb, Role::Message, "the whole message"),
    EXTRA,
];

/// Our own columns, in the order in which a new table gets them.
pub(super) fn own(raw: bool) -> &'static [Own] {
    if raw { &RAW_OWN } else { &OWN }
}

/// Refuses a column of one of our names that can't hold what we put there.
fn check_reserved(column: &Column, table: &TableName, mapping: &Mapping) -> Result<(), TableError> {
    let Some(own) = own(mapping.raw).iter().find(|own| own.name == column.name) else {
        return Ok(());
    };
    let is_json = matches!(own.role, Role::Message | Role::Extra);
    let is_fit = column.type_name == own.new_type.sql() || is_json && column.encoder == Encoder::Json;
    if column.writable && is_fit || !is_json && !is_needed(own.role, mapping) {
        return Ok(());
    }
    Err(TableError::ReservedColumn {
        table: table.to_string(),
        column: own.name,
        found: column.type_name.clone(),
        wanted: own.new_type.sql(),
        purpose: own.purpose,
    })
}
