//! The tables of one stage, and which of its messages go where.
//!
//! A message is read once, for all tables together: the paths of all mappings and conditions are one
//! [`plan`](super::plan). The first route that matches decides the table, whose own mapping then makes the rows. Where a
//! single table takes all messages as they come there is no plan, and nothing is looked for.
//!
//! One message, one table: what is decided about a message, to be ignored or a dead letter, is decided for all of it. A key that
//! stands twice on the way of any path makes a dead letter, whichever table the message would be for.

use tokio_postgres::Client;

use super::keys::Keys;
use super::mapping::{RouterOptions, TableOptions};
use super::name;
use super::plan::Plan;
use super::record::Scanned;
use super::rows::CopyRows;
use super::search::Found;
use super::select::{Conditions, Selection};
use super::walk::Rejection;
use super::{Encoded, Table, TableError};
use crate::record::{Message, Offset};

/// The tables of one stage, and which of its messages go where.
#[derive(Debug)]
pub struct Router {
    /// In order of their names, which is the order in which they are locked.
    tables: Vec<Table>,
    reading: Reading,
}

/// How a message is read.
#[derive(Debug)]
enum Reading {
    /// A single table takes all messages as they come.
    Plain(Plain),
    /// Something is looked for.
    Search(Box<Search>),
}

#[derive(Debug, Default)]
struct Plain {
    keys: Keys,
    scanned: Scanned,
}

#[derive(Debug)]
struct Search {
    plan: Plan,
    found: Found,
    /// What all messages must meet that are for any table.
    when: Conditions,
    /// With the place of the table.
    routes: Vec<(Conditions, usize)>,
}

impl Router {
    /// Tables of which nothing is known yet: each is to be [loaded](Table::load) first. A name that is too long for
    /// PostgreSQL is cut by the rule for columns.
    #[must_use]
    pub fn new(options: RouterOptions) -> Self {
        let RouterOptions {
            schema,
            stage,
            when,
            tables,
            routes,
        } = options;
        let names: Vec<_> = tables.iter().map(|table| name::fitting(&table.table)).collect();
        let mut order: Vec<_> = (0..tables.len()).collect();
        order.sort_by(|one, other| names[*one].cmp(&names[*other]));
        let takes_all = when.0.is_empty() && matches!(routes.as_slice(), [(route, _)] if route.0.is_empty());
        let is_plain = |table: &TableOptions| table.mapping.raw || table.mapping.is_plain();
        let is_plain = takes_all && tables.iter().all(is_plain);
        let place = |table| order.iter().position(|index| *index == table).unwrap_or(0);
        let mut plan = Plan::new();
        let when = Conditions::new(&mut plan, &when);
        let routes = routes
            .iter()
            .map(|(when, table)| (Conditions::new(&mut plan, when), place(*table)))
            .collect();
        let tables = order.iter().map(|&index| {
            let mapping = tables[index].mapping.clone();
            let selection = (!is_plain).then(|| Selection::new(&mut plan, &mapping));
            Table::new(&schema, &names[index], &stage, mapping, selection)
        });
        Self {
            tables: tables.collect(),
            reading: if is_plain {
                Reading::Plain(Plain::default())
            } else {
                Reading::Search(Box::new(Search {
                    plan,
                    found: Found::default(),
                    when,
                    routes,
                }))
            },
        }
    }

    /// The tables, in order of their names: the order in which they are to be locked.
    #[must_use]
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The same, to be loaded and changed.
    pub fn tables_mut(&mut self) -> &mut [Table] {
        &mut self.tables
    }

    /// The records of the message that was read last, where messages are taken as they come.
    pub(super) fn plain_records(&self) -> Option<&Scanned> {
        match &self.reading {
            Reading::Plain(plain) => Some(&plain.scanned),
            Reading::Search(_) => None,
        }
    }

    /// Makes the changes that are wanted; where none is, or may be made, reads the layouts of all tables again.
    ///
    /// # Errors
    /// As [`Table::apply`] and [`Table::load`]; what was changed before stays so.
    pub async fn mend(&mut self, client: &mut Client, may_change: bool) -> Result<(), TableError> {
        let mut is_changed = false;
        for table in &mut self.tables {
            if let Some(change) = table.wanted_change().filter(|_| may_change) {
                table.apply(client, change).await?;
                is_changed = true;
            }
        }
        if is_changed {
            return Ok(());
        }
        for table in &mut self.tables {
            table.load(client).await?;
        }
        Ok(())
    }

    /// Encodes a whole message into the rows of its table, or says why not. `rows` holds those of each table, in the tables'
    /// order. Allocates nothing once the keys are known and the buffers have grown.
    pub fn encode(&mut self, offset: Offset, message: Message<'_>, rows: &mut [CopyRows]) -> Encoded {
        let Self { tables, reading } = self;
        let read = match reading {
            Reading::Plain(plain) => plain.read(tables, message.payload),
            Reading::Search(search) => search.pick(tables, message.payload),
        };
        let picked = match read {
            Ok(Some(picked)) => picked,
            Ok(None) => return Encoded::Ignored,
            Err(rejection) => {
                return Encoded::DeadLetter {
                    reason: rejection.to_string(),
                    record_index: None,
                };
            }
        };
        match (tables.get_mut(picked.table), rows.get_mut(picked.table)) {
            (Some(table), Some(rows)) => table.encode(offset, message, picked.text, picked.records, rows),
            _ => Encoded::Ignored,
        }
    }
}

/// A message, and where it goes.
struct Picked<'r, 'm> {
    table: usize,
    text: &'m str,
    records: &'r Scanned,
}

impl Plain {
    /// Reads a message.
    fn read<'r, 'm>(
        &'r mut self,
        tables: &[Table],
        payload: &'m [u8],
    ) -> Result<Option<Picked<'r, 'm>>, Box<Rejection>> {
        let Some(mapping) = tables.first().map(Table::mapping) else {
            return Ok(None);
        };
        let text = if mapping.raw {
            self.scanned.read_whole(payload, mapping.nul)?
        } else {
            self.scanned.read(&mut self.keys, payload, mapping.nul)?
        };
        Ok(Some(Picked {
            table: 0,
            text,
            records: &self.scanned,
        }))
    }
}

impl Search {
    /// Reads a message and picks its table; `None` when it is for none.
    fn pick<'r, 'm>(
        &'r mut self,
        tables: &[Table],
        payload: &'m [u8],
    ) -> Result<Option<Picked<'r, 'm>>, Box<Rejection>> {
        let text = self.found.read(&self.plan, payload)?;
        if !self.when.are_met(&self.found, text) {
            return Ok(None);
        }
        let mut routes = self.routes.iter();
        let route = routes.find(|(conditions, _)| conditions.are_met(&self.found, text));
        let Some((table, selection, mapping)) = route.and_then(|(_, table)| {
            let found = tables.get(*table)?;
            Some((*table, found.selection()?, found.mapping()))
        }) else {
            return Ok(None);
        };
        self.found.check_nul(mapping.nul)?;
        let records = match selection.source {
            Some(source) => self.found.records(source, &selection.include, mapping.nul),
            None => self.found.whole(mapping.nul),
        };
        Ok(Some(Picked { table, text, records }))
    }
}
