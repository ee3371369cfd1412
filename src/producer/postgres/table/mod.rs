//! The target tables of a stage: from a message's bytes to binary COPY tuples, and the tables' own making.
//!
//! The way of a message: [`router`] has it read and picks its table; [`record`] walks its JSON once, [`write`](mod@write) finds each key's column ([`keys`], [`layout`]) and
//! lets the column's type choose how the raw text is written ([`encode`]) into [`rows`]. What the table lacks is
//! gathered by [`infer`], becomes SQL in [`change`] and is done by [`alter`]; [`loading`] has the statements that take the rows.
//!
//! What the configuration asks for beyond that is a [`Mapping`] for each table: the [paths](crate::json_path) of all are gathered into
//! one [`plan`], which [`search`] follows in the same single walk; [`select`] says which messages are meant ([`when`]) and
//! which columns the values found belong to; [`column_type`] knows the types that can be declared,
//! [`unknown_type`] and [`misfit`] what to say of others, and of values that do not fit.
//!
//! A table in [`memory`] has the same columns and rows without a database, for exports; [`datum`] reads the rows back. A
//! [`sample`] only tells what messages would make of a table, and which types could be declared for them ([`suggest`]).
//!
//! Without a mapping: an object is a row; a non-empty array of objects is a row for each; other JSON is one row with the
//! message in `_message`; what is not JSON is a dead letter. A key's column is found by the rule of [`name`]. Null and
//! a missing key are NULL, in `jsonb` columns too. `\u0000` becomes U+FFFD.
//!
//! Invariants: the catalog decides how a column is encoded, for binary COPY checks no types; no value is changed to
//! make it fit (it stands in `_extra` as it came); rows of two layouts never stand in one [`CopyRows`]. Transactions,
//! the lock, the fingerprint's check and the COPY itself are left to the session.

mod alter;
mod catalog;
mod change;
mod column_type;
mod datum;
mod encode;
mod error;
mod infer;
mod keys;
mod layout;
mod loading;
mod mapping;
mod memory;
mod misfit;
mod name;
mod plan;
mod record;
mod router;
mod rows;
mod sample;
mod search;
mod select;
mod suggest;
#[cfg(test)]
mod tests;
mod unknown_type;
mod walk;
mod when;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tokio_postgres::Client;

pub use change::SchemaChange;
pub use column_type::{ColumnType, EpochUnit, ScalarType};
pub use datum::{Datum, DatumError, Digits, Network, Number};
pub use error::TableError;
pub use loading::{Loading, Upsert};
pub use mapping::{
    ConflictAction, DeclaredColumn, Include, MAX_COLUMNS, Mapping, NewKeys, Nul, Numbers, OnConflict,
    RouterOptions, TableOptions,
};
pub use memory::{LEARNED_AT_ONCE, MemoryTable, TypedColumn};
pub use router::Router;
pub use rows::{CopyRows, Row};
pub use sample::{Sample, Sampled};
pub use unknown_type::UnknownType;
pub use when::{Condition, Scalar, When};

pub use crate::json_path::{Path, PathError, Step};
use crate::record::{Message, Offset};
use infer::Wanted;
use keys::{ByKey, Target};
use layout::{Choices, Layout};
use name::TableName;
use record::Scanned;
use select::Selection;
use write::{Origin, Scratch, Writer};

/// After [`Encoded::NeedsSchema`], offer this many messages before asking for the change: it then covers them all.
pub const SAMPLE_MESSAGES: usize = 1_000;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// It is these many rows now.
    Rows(u32),
    /// It is not for any table (`when`), or an empty list of records.
    Ignored,
    /// It can never become a row.
    DeadLetter {
        /// Why; never holds the payload.
        reason: String,
        /// The record of the message that is at fault, if it is one.
        record_index: Option<u32>,
    },
    /// Nothing was added to the rows. Its table must be changed first ([`Table::wanted_change`], [`Table::apply`]), or,
    /// when no change is wanted, the rows given belong to an earlier layout. From now on every message that could be
    /// a row of it gets this answer and is only looked at, until `apply` or `load` has succeeded.
    NeedsSchema,
}

/// One target table of a stage.
#[derive(Debug)]
pub struct Table {
    name: TableName,
    /// The name as it is logged.
    shown: String,
    stage: String,
    choices: Choices,
    layout: Layout,
    /// Counts the layouts, so that rows of two never mix.
    version: u64,
    targets: ByKey<Target>,
    /// What the layout lacks whatever comes.
    lacks: Lacks,
    wanted: Wanted,
    /// What is asked of a message beyond its keys.
    selection: Option<Selection>,
    scratch: Scratch,
    warned: BTreeSet<String>,
    when_made: String,
    /// Which offsets it takes; all of them when nobody has said.
    takes: Option<Takes>,
}

/// Says of an offset whether its message is to become rows.
#[derive(Clone)]
pub struct Takes(pub Arc<dyn Fn(Offset) -> bool + Send + Sync>);

impl fmt::Debug for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Takes")
    }
}

impl Table {
    fn new(schema: &str, table: &str, stage: &str, mapping: Mapping, selection: Option<Selection>) -> Self {
        let name = TableName {
            schema: schema.to_owned(),
            table: table.to_owned(),
        };
        let layout = Layout::default();
        Self {
            shown: name.to_string(),
            name,
            stage: stage.to_owned(),
            selection,
            lacks: Lacks::of(&layout, &mapping),
            choices: Choices {
                mapping: Arc::new(mapping),
                ..Choices::default()
            },
            layout,
            version: 0,
            targets: ByKey::default(),
            wanted: Wanted::default(),
            scratch: Scratch::default(),
            warned: BTreeSet::new(),
            when_made: String::new(),
            takes: None,
        }
    }

    /// How messages become its rows.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        &self.choices.mapping
    }

    fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    /// Ignores the messages of other offsets from now on.
    pub fn take_only(&mut self, takes: Takes) {
        self.takes = Some(takes);
    }

    /// Statements to be run in the transaction that makes the table, after it is made.
    pub fn when_made(&mut self, sql: String) {
        self.when_made = sql;
    }

    /// Whether it has the column `_extra`.
    #[must_use]
    pub fn has_extra(&self) -> bool {
        self.layout.has(layout::Role::Extra)
    }

    /// The table's name in SQL, with its schema.
    #[must_use]
    pub fn name_sql(&self) -> &str {
        &self.shown
    }

    /// Reads the layout and its fingerprint from the catalog. A table that is absent is fine: it is made from the
    /// first messages. Rows that were encoded for another layout can't be added to any more ([`Encoded::NeedsSchema`])
    /// and must not be sent.
    ///
    /// # Errors
    /// When there is something else of that name, a table whose rows do not last, one without the unique index that
    /// `on_conflict` needs, or one of our own columns has another type; when the database refuses.
    pub async fn load(&mut self, client: &Client) -> Result<(), TableError> {
        // It may have been opened since.
        self.choices.closed = false;
        let layout = Layout::read(client, &self.name, &self.choices).await?;
        self.demand_unique_index(client, &layout).await?;
        if self.layout.exists() && !layout.exists() {
            tracing::warn!(
                table = self.shown,
                stage = self.stage,
                "the table was dropped or renamed: it is made again, and _socket_el_table says from which offset on it holds rows"
            );
        }
        self.take(layout)
    }

    /// Goes on with a layout.
    fn take(&mut self, layout: Layout) -> Result<(), TableError> {
        let same =
            self.layout.fingerprint == layout.fingerprint && self.layout.copy_names().eq(layout.copy_names());
        if !same {
            self.version += 1;
        }
        let mapping = &self.choices.mapping;
        let declares_nothing = mapping.columns.is_empty() && mapping.include.is_empty() && !mapping.raw;
        if !layout.exists() && mapping.new_keys != NewKeys::Evolve && declares_nothing {
            return Err(TableError::NothingDeclared {
                table: self.shown.clone(),
            });
        }
        self.lacks = Lacks::of(&layout, mapping);
        self.layout = layout;
        if let Some(selection) = &mut self.selection {
            selection.resolve(&self.layout);
        }
        self.wanted = Wanted::default();
        self.targets.clear();
        Ok(())
    }

    /// Encodes the records of a message.
    fn encode(
        &mut self,
        offset: Offset,
        message: Message<'_>,
        text: &str,
        scanned: &Scanned,
        rows: &mut CopyRows,
    ) -> Encoded {
        if self.takes.as_ref().is_some_and(|takes| !takes.0(offset)) {
            return Encoded::Ignored;
        }
        let mapping = &*self.choices.mapping;
        let selection = self.selection.as_ref();
        let slots: &[_] = selection.map_or(&[], |selection| &selection.slots);
        if scanned.is_empty() {
            return Encoded::Ignored;
        }
        if !self.layout.exists() {
            self.wanted.create.get_or_insert(offset);
        } else if self.layout.copy.is_empty() {
            self.wanted.extra = true;
        }
        self.wanted.metadata |= self.lacks.own;
        self.wanted.declared |= self.lacks.declared;
        let before = rows.len();
        let accepted = rows.accepts(self.version);
        self.targets.follow(scanned.generation());
        let mut writer = Writer {
            layout: &self.layout,
            targets: &mut self.targets,
            wanted: &mut self.wanted,
            scratch: &mut self.scratch,
            mapping,
            slots,
            warned: &mut self.warned,
            closed: self.choices.closed,
        };
        let origin = Origin {
            table: &self.shown,
            stage: &self.stage,
            offset,
            received_at: message.received_at,
            text,
        };
        if let Err(refused) = writer.message(&origin, scanned, rows) {
            rows.truncate(before);
            return Encoded::DeadLetter {
                reason: refused.reason,
                record_index: Some(refused.record_index),
            };
        }
        if !accepted || !self.wanted.is_empty() {
            rows.truncate(before);
            return Encoded::NeedsSchema;
        }
        Encoded::Rows(u32::try_from(rows.len() - before).unwrap_or(u32::MAX))
    }

    /// Rows of one key can be found only by a unique index on it.
    async fn demand_unique_index(&self, client: &Client, layout: &Layout) -> Result<(), TableError> {
        let wanted = self.mapping().conflict_key().len();
        if wanted == 0 || !layout.exists() || layout.key.len() < wanted {
            return Ok(());
        }
        let names: Vec<_> = layout.copy_names().collect();
        let key: Vec<_> = layout.key.iter().map(|&place| names[place]).collect();
        let answer = catalog::unique_index(client, &self.name, &key).await?;
        let table = self.shown.clone();
        match answer.deferrable {
            Some(constraint) => Err(TableError::Deferrable { table, constraint }),
            None if answer.is_there => Ok(()),
            None => Err(TableError::NoUniqueIndex {
                table,
                ddl: catalog::make_unique_index(&self.name, &key, answer.is_partitioned),
                partitioned_by: answer.missing,
            }),
        }
    }

    /// What [`Router::encode`] has found to be missing since the layout was loaded: the table itself, new columns,
    /// wider ones. `None` after [`Encoded::NeedsSchema`] means that the rows given to it were of an earlier layout.
    #[must_use]
    pub fn wanted_change(&self) -> Option<SchemaChange> {
        SchemaChange::new(
            &self.name,
            &self.stage,
            &self.choices.mapping,
            &self.wanted,
            &self.layout,
        )
    }

    /// Makes the change in a short transaction of its own and loads the layout again. What another engine has done
    /// meanwhile is not done twice; what can't be widened any more stays as it is. Messages that got
    /// [`Encoded::NeedsSchema`], and all rows not sent yet, are to be encoded again. A table of somebody else, which may not be
    /// changed, is done with as it is: new keys stand in `_extra`, and messages that have no place are dead letters from now on.
    ///
    /// # Errors
    /// [`TableError::NotOurs`] when a table of somebody else lacks what the configuration names, or new keys have no `_extra`;
    /// [`TableError::Locked`] when others hold locks on the table for too long; otherwise as [`Table::load`].
    pub async fn apply(&mut self, client: &mut Client, change: SchemaChange) -> Result<(), TableError> {
        self.choices.named.extend(change.list.iter().cloned());
        let altered = alter::alter(client, &self.name, &change, &mut self.choices, &self.when_made).await;
        let is_denied = self.layout.exists() && altered.as_ref().is_err_and(TableError::is_denied);
        if !is_denied {
            altered?;
        }
        // Its owner may have added what stands in for it.
        self.load(client).await?;
        if is_denied && !change.is_dispensable(self.has_extra()) {
            return Err(TableError::NotOurs {
                table: self.shown.clone(),
                statement: change.for_owner(&self.layout),
            });
        }
        self.choices.closed = is_denied;
        Ok(())
    }

    /// Query for [`Table::fingerprint_matches`], to be sent after its lock is taken: always one row with one column of
    /// text, NULL when there is no table.
    #[must_use]
    pub fn fingerprint_sql(&self) -> String {
        catalog::fingerprint_sql(&self.name)
    }

    /// Whether the answer to [`Table::fingerprint_sql`] says that the table is as it was loaded. If not, roll back,
    /// [`Table::load`] and encode again.
    #[must_use]
    pub fn fingerprint_matches(&self, fingerprint: Option<&str>) -> bool {
        self.layout.fingerprint.as_deref() == fingerprint
    }

    /// How the rows get into the table.
    #[must_use]
    pub fn loading(&self) -> Loading {
        Loading::new(&self.name, &self.layout, self.mapping().on_conflict.as_ref())
    }

    /// The DDL of a change as SQL, to be shown.
    #[must_use]
    pub fn describe(&self, change: &SchemaChange) -> String {
        change.to_string()
    }

    /// What would be made of the table by the configuration alone, as SQL; `None` when that is nothing. To the layout as
    /// it was loaded, or else to no table at all.
    #[must_use]
    pub fn foreseen(&self) -> Option<String> {
        let mapping = self.mapping();
        let mut wanted = Wanted::default();
        wanted.create = (!self.layout.exists()).then_some(Offset::ZERO);
        wanted.metadata = self.lacks.own;
        wanted.declared = self.lacks.declared;
        if !(wanted.metadata || wanted.declared) {
            return None;
        }
        let change = SchemaChange::new(&self.name, &self.stage, mapping, &wanted, &self.layout)?;
        Some(change.foreseen(&self.layout, mapping))
    }
}

/// What a layout lacks by the configuration alone.
#[derive(Clone, Copy, Debug)]
struct Lacks {
    /// A column of ours that every row must have.
    own: bool,
    /// A column with a declared type.
    declared: bool,
}

impl Lacks {
    fn of(layout: &Layout, mapping: &Mapping) -> Self {
        let mut needed = layout::own(mapping.raw)
            .iter()
            .filter(|own| layout::is_needed(own.role, mapping));
        let mut declared = mapping
            .columns
            .iter()
            .filter(|column| column.column_type.is_some());
        Self {
            own: needed.any(|own| !layout.has(own.role)),
            declared: declared.any(|column| layout.column_of_key(&column.name).is_none()),
        }
    }
}
