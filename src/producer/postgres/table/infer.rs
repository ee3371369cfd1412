//! What the messages want of the table: the types of new columns from the values seen, and the other changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::column_type::{ColumnType, ScalarType};
use super::encode::Decimal;
use super::mapping::Numbers as Fractions;
use super::record::Value;
use super::walk::Kind;
use crate::record::Offset;

/// Integers up to this size are exact in `double precision`.
const EXACT_IN_DOUBLE: u64 = 1 << 53;

/// Types of the columns that we make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewType {
    Boolean,
    BigInt,
    DoublePrecision,
    Numeric,
    Text,
    Jsonb,
    Timestamptz,
}

impl NewType {
    /// The type in SQL, as `format_type` names it.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::BigInt => "bigint",
            Self::DoublePrecision => "double precision",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Jsonb => "jsonb",
            Self::Timestamptz => "timestamp with time zone",
        }
    }

    /// The same type as `columns` declares it.
    pub(super) fn column_type(self) -> ColumnType {
        let scalar = match self {
            Self::Boolean => ScalarType::Boolean,
            Self::BigInt => ScalarType::BigInt,
            Self::DoublePrecision => ScalarType::DoublePrecision,
            Self::Numeric => ScalarType::Numeric(None),
            Self::Text => ScalarType::Text,
            Self::Jsonb => ScalarType::Jsonb,
            Self::Timestamptz => ScalarType::Timestamptz(None),
        };
        ColumnType { scalar, array: false }
    }
}

/// Families of types. Values of one can share a column; values of two can't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Boolean,
    Number,
    Text,
    Nested,
}

/// How large and how fine the numbers of a column are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    fractions: bool,
    /// Integers that `double precision` would round.
    beyond_double: bool,
    /// Numbers that neither `bigint` nor `double precision` holds.
    beyond_both: bool,
}

impl Numbers {
    pub(super) fn add(&mut self, value: Value<'_>) {
        if value.kind == Kind::Fraction {
            self.fractions = true;
            let double = value.raw.parse::<f64>().unwrap_or(f64::INFINITY);
            let lost = double == 0.0 && Decimal::parse(value.raw).is_some_and(|number| !number.is_zero());
            self.beyond_both |= lost || !double.is_finite();
            return;
        }
        match value.raw.parse::<i64>() {
            Ok(number) => self.beyond_double |= number.unsigned_abs() > EXACT_IN_DOUBLE,
            Err(_) => self.beyond_both = true,
        }
    }

    /// The narrowest type that holds them all; `exact_integers` says that integers beyond 2^53 are there already.
    pub(super) fn column_type(self, exact_integers: bool, fractions: Fractions) -> NewType {
        match self {
            Self {
                beyond_both: true, ..
            } => NewType::Numeric,
            Self { fractions: false, .. } => NewType::BigInt,
            Self { beyond_double, .. }
                if beyond_double || exact_integers || fractions == Fractions::Numeric =>
            {
                NewType::Numeric
            }
            Self { .. } => NewType::DoublePrecision,
        }
    }
}

/// The values seen under one key.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    /// In order of first appearance.
    families: Vec<(Family, u32)>,
    numbers: Numbers,
}

impl Values {
    /// Adds a value; a null says nothing.
    fn add(&mut self, value: Value<'_>) {
        let family = match value.kind {
            Kind::Null => return,
            Kind::Bool => Family::Boolean,
            Kind::Integer | Kind::Fraction => {
                self.numbers.add(value);
                Family::Number
            }
            Kind::String => Family::Text,
            Kind::Nested => Family::Nested,
        };
        match self.families.iter_mut().find(|(seen, _)| *seen == family) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.families.push((family, 1)),
        }
    }

    /// The type of the most frequent family, the first one of equals.
    fn column_type(&self, fractions: Fractions) -> NewType {
        let most = self.families.iter().map(|(_, count)| *count).max();
        let family = self.families.iter().find(|(_, count)| Some(*count) == most);
        match family.map(|(family, _)| *family) {
            Some(Family::Boolean) => NewType::Boolean,
            Some(Family::Number) => self.numbers.column_type(false, fractions),
            Some(Family::Text) => NewType::Text,
            Some(Family::Nested) | None => NewType::Jsonb,
        }
    }

    /// Whether some of the values will not fit the column.
    fn has_conflict(&self) -> bool {
        self.families.len() > 1 && self.column_type(Fractions::default()) != NewType::Jsonb
    }
}

/// What was found to be missing since the layout was loaded.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The offset from which on the table itself is missing.
    pub(super) create: Option<Offset>,
    /// New keys in order of appearance, with their values.
    keys: Vec<(String, Values)>,
    by_key: HashMap<String, usize>,
    /// How many of them the configuration does not name.
    unnamed: usize,
    /// Columns of type bigint that meet other numbers.
    pub(super) widen: BTreeMap<String, Numbers>,
    /// Columns with a default, which a key names for the first time.
    pub(super) list: BTreeSet<String>,
    pub(super) extra: bool,
    pub(super) message: bool,
    pub(super) metadata: bool,
    /// Columns with a declared type are missing.
    pub(super) declared: bool,
}

impl Wanted {
    /// Whether nothing is missing.
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_none()
            && self.keys.is_empty()
            && self.widen.is_empty()
            && self.list.is_empty()
            && !(self.extra || self.message || self.metadata || self.declared)
    }

    /// Notes a value of a key without column; `false` when there is no room for one more. A key without `room` has its place for
    /// sure: the configuration names it.
    pub(super) fn key(&mut self, key: &str, value: Value<'_>, room: Option<usize>) -> bool {
        let index = match self.by_key.get(key) {
            Some(&index) => index,
            None if room.is_some_and(|room| self.unnamed >= room) => return false,
            None => {
                self.unnamed += usize::from(room.is_some());
                self.by_key.insert(key.to_owned(), self.keys.len());
                self.keys.push((key.to_owned(), Values::default()));
                self.keys.len() - 1
            }
        };
        self.keys[index].1.add(value);
        true
    }

    /// The new keys with the types of their columns.
    pub(super) fn columns(&self, fractions: Fractions) -> impl Iterator<Item = (String, NewType)> + '_ {
        self.keys
            .iter()
            .map(move |(key, values)| (key.clone(), values.column_type(fractions)))
    }

    /// Whether `_extra` will be needed.
    pub(super) fn needs_extra(&self) -> bool {
        self.extra || self.keys.iter().any(|(_, values)| values.has_conflict())
    }
}
