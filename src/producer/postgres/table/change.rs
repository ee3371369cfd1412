//! Changes of a table: what is wanted, as SQL.
//!
//! The SQL is written against one state of the catalog, and again under the lock against the state found then, so
//! that what another engine has done meanwhile is not done twice. Columns are only ever added, nullable and without
//! default, and `bigint` columns of ours widened.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use super::column_type::ColumnType;
use super::infer::{NewType, Numbers, Wanted};
use super::layout::{Layout, Role, is_needed, own};
use super::mapping::{Mapping, NewKeys, Numbers as Fractions};
use super::name::{self, TableName, literal, quoted};
use crate::record::Offset;

/// A change of a table. Displayed as the SQL that was due when it was found to be wanted.
#[derive(Clone, Debug)]
pub struct SchemaChange {
    table: TableName,
    stage: String,
    /// The first offset that the table will hold, when it is to be made.
    pub(super) create: Option<Offset>,
    /// Keys and the types of their columns.
    keys: Vec<(String, ColumnType)>,
    own: Vec<Role>,
    raw: bool,
    fractions: Fractions,
    widen: Vec<(String, Numbers)>,
    /// Columns that the COPY is to list from now on. No DDL.
    pub(super) list: BTreeSet<String>,
    /// What the rows of a new table have once, as the configuration names it.
    primary_key: Vec<String>,
    /// Whether there are no rows without it, or the configuration names a part of it.
    is_demanded: bool,
    shown: String,
}

/// Most characters of a statement that a message shows.
const MAX_SHOWN: usize = 300;

/// A column that is to be added.
pub(super) struct NewColumn {
    pub(super) name: String,
    /// The key whose values it takes; `None` for a column of our own.
    pub(super) key: Option<String>,
    pub(super) column_type: ColumnType,
}

/// A column that is to be made wider.
pub(super) struct Widening<'a> {
    pub(super) column: &'a str,
    pub(super) numbers: Numbers,
}

impl SchemaChange {
    /// Whether delivery can go on without it, where the table may not be changed: the configuration does not ask for it, and what
    /// has no column of its own stands in `_extra` where that is there. A message that has no place at all is a dead letter;
    /// new keys, which all messages may have from now on, are not for that.
    pub(super) fn is_dispensable(&self, has_extra: bool) -> bool {
        !self.is_demanded && (has_extra || self.keys.is_empty())
    }

    /// What the table's owner would have to run, on one line.
    pub(super) fn for_owner(&self, layout: &Layout) -> String {
        let added = definitions(&self.additions(layout), "ADD COLUMN IF NOT EXISTS ");
        let mut statement = format!("ALTER TABLE {} {}", self.table, added.join(", "));
        if let Some((end, _)) = statement.char_indices().nth(MAX_SHOWN) {
            statement.truncate(end);
            statement.push('…');
        }
        statement
    }

    /// The change that is wanted of a layout; `None` when nothing is.
    pub(super) fn new(
        table: &TableName,
        stage: &str,
        mapping: &Mapping,
        wanted: &Wanted,
        layout: &Layout,
    ) -> Option<Self> {
        if wanted.is_empty() {
            return None;
        }
        let declared = mapping.columns.iter().filter_map(|column| {
            let column_type = column.column_type.filter(|_| wanted.declared)?;
            Some((column.name.clone(), column_type))
        });
        let mut keys: Vec<_> = declared.collect();
        let inferred = wanted.columns(mapping.numbers);
        keys.extend(
            inferred
                .filter(|(key, _)| mapping.declared_type(key).is_none())
                .map(|(key, new_type)| (key, new_type.column_type())),
        );
        let nothing_else = wanted.create.is_some() && keys.is_empty() && !wanted.message && !wanted.metadata;
        let roles = own(mapping.raw).iter().map(|own| own.role);
        let own = roles.filter(|&role| match role {
            Role::Key => false,
            Role::Stage | Role::Offset | Role::ReceivedAt => wanted.metadata && is_needed(role, mapping),
            Role::Message => wanted.message || wanted.metadata && mapping.raw,
            // What does not fit a frozen table is a dead letter.
            Role::Extra if mapping.new_keys == NewKeys::Freeze => wanted.extra || nothing_else,
            Role::Extra => wanted.needs_extra() || nothing_else,
        });
        let mut change = Self {
            table: table.clone(),
            stage: stage.to_owned(),
            create: wanted.create,
            keys,
            own: own.collect(),
            raw: mapping.raw,
            fractions: mapping.numbers,
            widen: wanted
                .widen
                .iter()
                .map(|(column, numbers)| (column.clone(), *numbers))
                .collect(),
            list: wanted.list.clone(),
            primary_key: mapping.conflict_key().to_vec(),
            is_demanded: wanted.create.is_some()
                || wanted.declared
                || wanted.metadata
                || layout.copy.is_empty()
                || !layout.missing_key.is_empty(),
            shown: String::new(),
        };
        let widened: Vec<_> = change
            .widen
            .iter()
            .map(|(column, numbers)| (column.clone(), numbers.column_type(false, mapping.numbers)))
            .collect();
        change.shown = change.sql(layout, &widened);
        Some(change)
    }

    /// The type that a column is to be widened to; `large`: it holds integers that `double precision` would round.
    pub(super) fn widened_type(&self, numbers: Numbers, large: bool) -> NewType {
        numbers.column_type(large, self.fractions)
    }

    /// The columns of a layout that are to be widened and still can be.
    pub(super) fn widenings<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = Widening<'a>> + 'a {
        let can = |column: &str| {
            let mut columns = layout.columns.iter();
            columns.any(|known| known.name == column && known.widenable)
        };
        self.widen
            .iter()
            .filter(move |(column, _)| can(column))
            .map(|(column, numbers)| Widening {
                column,
                numbers: *numbers,
            })
    }

    /// The statements as far as they can be told without any message, with a comment on the rest.
    pub(super) fn foreseen(mut self, layout: &Layout, mapping: &Mapping) -> String {
        let known = |key: &String| {
            self.keys.iter().any(|(known, _)| known == key) || own(self.raw).iter().any(|own| own.name == key)
        };
        let mut rest = String::new();
        if mapping.new_keys == NewKeys::Evolve && !mapping.raw {
            rest.push_str("-- and a column for each other key of the messages\n");
        }
        if !self.primary_key.iter().all(known) {
            let key = std::mem::take(&mut self.primary_key);
            if !layout.exists() {
                let key: Vec<_> = key.iter().map(|name| quoted(name)).collect();
                let _ = writeln!(rest, "-- with PRIMARY KEY ({})", key.join(", "));
            }
        }
        self.sql(layout, &[]) + &rest
    }

    /// The columns that a table of this layout lacks, in the order in which it gets them.
    pub(super) fn additions(&self, layout: &Layout) -> Vec<NewColumn> {
        let new_own = |is_wanted: &dyn Fn(Role) -> bool| -> Vec<NewColumn> {
            own(self.raw)
                .iter()
                .filter(|own| {
                    self.own.contains(&own.role) && is_wanted(own.role) && !layout.has_column(own.name)
                })
                .map(|own| NewColumn {
                    name: own.name.to_owned(),
                    key: None,
                    column_type: own.new_type.column_type(),
                })
                .collect()
        };
        let is_metadata = |role: Role| matches!(role, Role::Stage | Role::Offset | Role::ReceivedAt);
        let mut columns = new_own(&is_metadata);
        for (key, column_type) in &self.keys {
            if layout.column_of_key(key).is_some() {
                continue;
            }
            let is_new = |name: &str| columns.iter().any(|column| column.name == name);
            let name = free_name(key, |name| layout.has_column(name) || is_new(name));
            columns.push(NewColumn {
                name,
                key: Some(key.clone()),
                column_type: *column_type,
            });
        }
        columns.extend(new_own(&|role| !is_metadata(role)));
        columns
    }

    /// The statement that makes the table, if that is part of the change.
    #[must_use]
    pub fn create_table(&self) -> Option<String> {
        self.create?;
        Some(self.create_sql(&self.additions(&Layout::default())))
    }

    /// The columns of the table that is made: their keys, or names where no key goes there, and types in SQL.
    #[must_use]
    pub fn columns(&self) -> Vec<(String, String)> {
        let columns = self.additions(&Layout::default()).into_iter();
        let column = |column: NewColumn| (column.key.unwrap_or(column.name), column.column_type.sql());
        columns.map(column).collect()
    }

    fn create_sql(&self, columns: &[NewColumn]) -> String {
        let mut parts = definitions(columns, "");
        if !self.primary_key.is_empty() {
            let column_of = |key: &String| {
                let found = columns.iter().find(|column| column.key.as_ref() == Some(key));
                quoted(found.map_or(key, |column| &column.name))
            };
            let key: Vec<_> = self.primary_key.iter().map(column_of).collect();
            parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        let parts = parts.join(",\n    ");
        format!("CREATE TABLE IF NOT EXISTS {} (\n    {parts}\n);\n", self.table)
    }

    /// The statements that bring a table of this layout to what is wanted, with these columns widened. Empty when
    /// nothing is left to do.
    pub(super) fn sql(&self, layout: &Layout, widened: &[(String, NewType)]) -> String {
        let mut sql = String::new();
        let columns = self.additions(layout);
        // Writing to a string can't fail.
        if layout.exists() {
            let mut parts = definitions(&columns, "ADD COLUMN IF NOT EXISTS ");
            parts.extend(
                widened
                    .iter()
                    .map(|(column, to)| format!("ALTER COLUMN {} TYPE {}", quoted(column), to.sql())),
            );
            if !parts.is_empty() {
                let _ = writeln!(sql, "ALTER TABLE {}\n    {};", self.table, parts.join(",\n    "));
            }
        } else {
            sql = self.create_sql(&columns);
            let _ = writeln!(
                sql,
                "COMMENT ON TABLE {} IS {};",
                self.table,
                literal(&format!(
                    "socket-el: made for stage {}, holds its rows from offset {} on",
                    self.stage,
                    self.create.unwrap_or_default()
                ))
            );
        }
        for column in &columns {
            let Some(key) = &column.key else { continue };
            let _ = writeln!(
                sql,
                "COMMENT ON COLUMN {}.{} IS {};",
                self.table,
                quoted(&column.name),
                literal(&name::comment(key))
            );
        }
        sql
    }
}

/// Columns as a statement defines them, `add` before each.
fn definitions(columns: &[NewColumn], add: &str) -> Vec<String> {
    let definition = |column: &NewColumn| {
        let name = match column.key {
            Some(_) => quoted(&column.name),
            None => quoted_if_needed(&column.name),
        };
        format!("{add}{name} {}", column.column_type.sql())
    };
    columns.iter().map(definition).collect()
}

/// Names of ours need no quotes, but for one that is a word of SQL.
fn quoted_if_needed(name: &str) -> String {
    if name == "offset" {
        quoted(name)
    } else {
        name.to_owned()
    }
}

/// The first of a key's names that is free.
fn free_name(key: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut attempt = 0;
    loop {
        let name = name::column_name(key, attempt);
        // A table has far fewer columns than there are hashes, so the end is for the compiler.
        if attempt == u32::MAX || !is_taken(&name) {
            return name;
        }
        attempt += 1;
    }
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)?;
        for column in &self.list {
            writeln!(f, "-- no DDL: column {} is filled from now on", quoted(column))?;
        }
        Ok(())
    }
}
