//! A target table that stands in no database: the columns and rows that the sink would make of the same messages, for
//! exports.
//!
//! Messages pass twice. [`MemoryTable::learn`] lets them make and change the table as a delivery does, with the same sample,
//! inference and SQL-free form of the same changes; it also measures the numbers whose columns have no declared size.
//! [`MemoryTable::encode`] then gives their rows for the final layout, and [`MemoryTable::datums`] reads those back.
//!
//! Of a stage that is delivered into several tables it is one; messages for the others are ignored. It differs from a table in
//! PostgreSQL in three things: a `bigint` column that meets fractions is widened however many rows there are, since nothing
//! has to be written anew; with `on_conflict` all rows of a key stand; and what only the server would refuse is not known.

use std::sync::Arc;

use super::super::batching::Batching;
use super::column_type::{ColumnType, ScalarType};
use super::datum::{Datum, DatumError, Digits, Fields};
use super::encode::EXACT_IN_DOUBLE;
use super::layout::Layout;
use super::mapping::RouterOptions;
use super::name;
use super::router::Router;
use super::rows::{CopyRows, Row};
use super::{Encoded, SAMPLE_MESSAGES, Table, TableError, Takes};
use crate::record::{Message, Offset};
use crate::stage::ReadLimit;

/// What a delivery reads at once, whose first messages are the sample that new columns are inferred from.
pub const LEARNED_AT_ONCE: ReadLimit = ReadLimit {
    messages: Batching::DEFAULT.rows,
    bytes: Batching::DEFAULT.bytes,
};

/// How often a message may change the table: for its keys, and for what their types then turn out to lack.
const MAX_CHANGES: u32 = 4;

/// State of a table in memory.
#[derive(Debug)]
pub struct MemoryTable {
    router: Router,
    /// Which of the router's tables it is.
    place: usize,
    /// Those of the layout, in its order.
    columns: Vec<Known>,
    /// Of the message that was encoded last, for each of the router's tables.
    rows: Vec<CopyRows>,
    /// A column became `numeric` after messages had passed: some of their values may fit it only now.
    unmeasured: bool,
}

#[derive(Debug)]
struct Known {
    column_type: ColumnType,
    digits: Digits,
}

/// A column of a [`MemoryTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// What the numbers need that were learned, where it is a `bigint` or `numeric` column.
    pub digits: Digits,
}

impl MemoryTable {
    /// A table that no message has made yet: the one of this name, or the first. The names are in `options.tables`.
    ///
    /// # Errors
    /// When the mapping lets no message make columns, or not those of its key.
    pub fn new(options: RouterOptions, table: &str) -> Result<Self, TableError> {
        let wanted = name::fitting(table);
        let mut router = Router::new(options);
        let tables = router.tables_mut();
        let place = tables.iter().position(|table| table.name.table == wanted);
        let place = place.unwrap_or_default();
        for (index, table) in tables.iter_mut().enumerate() {
            if index == place {
                let absent = Layout::absent(&table.name, &table.choices)?;
                table.take(absent)?;
            } else {
                table.take_only(Takes(Arc::new(|_| false)));
            }
        }
        Ok(Self {
            rows: tables.iter().map(|_| CopyRows::new()).collect(),
            router,
            place,
            columns: Vec::new(),
            unmeasured: false,
        })
    }

    /// Whether the numbers of all columns were measured. If not, learn everything once more.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        !self.unmeasured
    }

    /// Begins to learn once more.
    pub fn learn_again(&mut self) {
        self.unmeasured = false;
    }

    /// Lets messages make and change the table. In order, as many at a time as [`LEARNED_AT_ONCE`] says: what comes
    /// first decides the types.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn learn(&mut self, messages: &[(Offset, Message<'_>)]) -> Result<(), TableError> {
        for (index, &(offset, message)) in messages.iter().enumerate() {
            for _ in 0..MAX_CHANGES {
                if self.encode(offset, message) != Encoded::NeedsSchema {
                    break;
                }
                let following = &messages[index + 1..];
                for &(offset, message) in following.iter().take(SAMPLE_MESSAGES) {
                    let _ = self.router.encode(offset, message, &mut self.rows);
                }
                self.change()?;
            }
            self.measure();
        }
        Ok(())
    }

    /// Ends the learning: a table that no message has made gets the columns that one without values would give it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn settle(&mut self) -> Result<(), TableError> {
        let table = &mut self.router.tables_mut()[self.place];
        if !table.layout.exists() {
            table.wanted.create = Some(Offset::ZERO);
            table.wanted.metadata = table.lacks.own;
            table.wanted.declared = table.lacks.declared;
            self.change()?;
        }
        Ok(())
    }

    /// The columns of the rows, in their order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = TypedColumn> + '_ {
        let layout = &self.table().layout;
        layout.copy.iter().map(|&index| TypedColumn {
            name: layout.columns[index].name.clone(),
            column_type: self.columns[index].column_type,
            digits: self.columns[index].digits,
        })
    }

    /// Makes the [`rows`](Self::rows) of a message, or says why there are none. [`Encoded::NeedsSchema`]: it was not learned.
    pub fn encode(&mut self, offset: Offset, message: Message<'_>) -> Encoded {
        self.rows.iter_mut().for_each(CopyRows::clear);
        self.router.encode(offset, message, &mut self.rows)
    }

    /// The rows of the message that was encoded last.
    #[must_use]
    pub fn rows(&self) -> &CopyRows {
        &self.rows[self.place]
    }

    /// The values of a row, a value or an error for each of the columns.
    pub fn datums<'r>(&self, row: Row<'r>) -> impl Iterator<Item = Result<Datum<'r>, DatumError>> {
        let types = self.table().layout.copy.iter();
        let types = types.map(|&index| self.columns[index].column_type);
        types
            .zip(Fields::of(row.bytes))
            .map(|(column_type, field)| Datum::read(column_type, field))
    }

    fn table(&self) -> &Table {
        &self.router.tables()[self.place]
    }

    /// Makes the change that is wanted.
    fn change(&mut self) -> Result<(), TableError> {
        let table = &mut self.router.tables_mut()[self.place];
        let Some(change) = table.wanted_change() else {
            return Ok(());
        };
        let layout = &table.layout;
        let is_large = |column: &str| {
            let mut known = layout.columns.iter().zip(&self.columns);
            known.any(|(known, learned)| known.name == column && learned.digits.largest > EXACT_IN_DOUBLE)
        };
        let widened: Vec<_> = change
            .widenings(layout)
            .map(|widening| {
                let to = change.widened_type(widening.numbers, is_large(widening.column));
                (widening.column.to_owned(), to)
            })
            .collect();
        for (column, known) in layout.columns.iter().zip(&mut self.columns) {
            if let Some((_, to)) = widened.iter().find(|(name, _)| *name == column.name) {
                known.column_type = to.column_type();
                self.unmeasured |= known.column_type.scalar == ScalarType::Numeric(None);
            }
        }
        let added = change.additions(layout);
        self.columns.extend(added.iter().map(|column| Known {
            column_type: column.column_type,
            digits: Digits::default(),
        }));
        let changed = layout.changed(&table.name, added, &widened, &table.choices)?;
        table.take(changed)
    }

    /// Takes in the sizes of the numbers in the rows.
    fn measure(&mut self) {
        let layout = &self.router.tables()[self.place].layout;
        for row in self.rows[self.place].iter() {
            for (&index, field) in layout.copy.iter().zip(Fields::of(row.bytes)) {
                let known = &mut self.columns[index];
                if matches!(
                    known.column_type.scalar,
                    ScalarType::BigInt | ScalarType::Numeric(None)
                ) && let Ok(datum) = Datum::read(known.column_type, field)
                {
                    known.digits.add(&datum);
                }
            }
        }
    }
}
