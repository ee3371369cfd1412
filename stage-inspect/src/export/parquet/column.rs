//! A column of a parquet file: how its type is stored, and the values of the row group that is gathered.
//!
//! | PostgreSQL | parquet |
//! |---|---|
//! | boolean, real, double precision | BOOLEAN, FLOAT, DOUBLE |
//! | smallint, integer, bigint | INT32 with a width of 16 or 32, INT64 |
//! | numeric(p,s) up to 38 digits | DECIMAL(p,s) |
//! | numeric | DECIMAL(18,s) or (38,s) with as many digits after the point as the values have, if that holds them all; else text |
//! | text, varchar, json, jsonb, uuid, inet, cidr | STRING |
//! | timestamptz, timestamp | TIMESTAMP in microseconds, of UTC or local |
//! | date, time | DATE, TIME in microseconds |
//! | bytea | BYTE_ARRAY |
//! | arrays | LIST |
//!
//! Parquet has types JSON and UUID too. Not all readers know them: polars 2.1 gives bytes for both. All of them know text.

use std::sync::Arc;

use ::parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, FloatType,
    Int32Type, Int64Type,
};
use ::parquet::errors::ParquetError;
use ::parquet::file::writer::SerializedColumnWriter;
use ::parquet::schema::types::{Type, TypePtr};
use socket_el::producer::postgres::table::{Datum, Number, ScalarType, TypedColumn};

/// Digits that 64 and 128 bits hold.
const DIGITS_OF_64: u32 = 18;
const DIGITS_OF_128: u32 = 38;
/// Bytes of a DECIMAL beyond 64 bits.
const WIDE: i32 = 16;

/// How values are stored.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    physical: Physical,
    logical: Option<LogicalType>,
    /// Digits in all and after the point, of decimals.
    decimal: Option<(u32, u32)>,
}

impl Shape {
    fn of(column: &TypedColumn) -> Self {
        let plain = |physical, logical| Self {
            physical,
            logical,
            decimal: None,
        };
        match column.column_type.scalar {
            ScalarType::Boolean => plain(Physical::BOOLEAN, None),
            ScalarType::SmallInt => plain(Physical::INT32, Some(LogicalType::integer(16, true))),
            ScalarType::Integer => plain(Physical::INT32, None),
            ScalarType::BigInt => plain(Physical::INT64, None),
            ScalarType::Numeric(limit) => match decimal(column, limit) {
                Some(digits) => Self::decimal(digits),
                None => plain(Physical::BYTE_ARRAY, Some(LogicalType::String)),
            },
            ScalarType::Real => plain(Physical::FLOAT, None),
            ScalarType::DoublePrecision => plain(Physical::DOUBLE, None),
            ScalarType::Text
            | ScalarType::Varchar(_)
            | ScalarType::Json
            | ScalarType::Jsonb
            | ScalarType::Uuid
            | ScalarType::Inet
            | ScalarType::Cidr => plain(Physical::BYTE_ARRAY, Some(LogicalType::String)),
            ScalarType::Timestamptz(_) => plain(
                Physical::INT64,
                Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
            ),
            ScalarType::Timestamp(_) => plain(
                Physical::INT64,
                Some(LogicalType::timestamp(false, TimeUnit::MICROS)),
            ),
            ScalarType::Date => plain(Physical::INT32, Some(LogicalType::Date)),
            ScalarType::Time => plain(Physical::INT64, Some(LogicalType::time(false, TimeUnit::MICROS))),
            ScalarType::Bytea { .. } => plain(Physical::BYTE_ARRAY, None),
        }
    }

    fn decimal((precision, scale): (u32, u32)) -> Self {
        Self {
            physical: if precision <= DIGITS_OF_64 {
                Physical::INT64
            } else {
                Physical::FIXED_LEN_BYTE_ARRAY
            },
            // Neither is over 38.
            logical: Some(LogicalType::decimal(scale.cast_signed(), precision.cast_signed())),
            decimal: Some((precision, scale)),
        }
    }

    fn build(&self, name: &str, repetition: Repetition) -> Result<TypePtr, ParquetError> {
        let (precision, scale) = self.decimal.unwrap_or_default();
        let builder = Type::primitive_type_builder(name, self.physical)
            .with_repetition(repetition)
            .with_logical_type(self.logical.clone())
            .with_length(if self.physical == Physical::FIXED_LEN_BYTE_ARRAY {
                WIDE
            } else {
                -1
            });
        let builder = match self.decimal {
            Some(_) => builder
                .with_precision(precision.cast_signed())
                .with_scale(scale.cast_signed()),
            None => builder,
        };
        builder.build().map(Arc::new)
    }
}

/// Digits in all and after the point of a `numeric` column's decimals; `None` when they are too many.
fn decimal(column: &TypedColumn, limit: Option<(u16, u16)>) -> Option<(u32, u32)> {
    if let Some((precision, scale)) = limit
        && u32::from(precision) <= DIGITS_OF_128
    {
        return Some((precision.into(), scale.into()));
    }
    let digits = column.digits;
    [DIGITS_OF_64, DIGITS_OF_128]
        .into_iter()
        .find(|&most| digits.before.saturating_add(digits.after) <= most)
        .map(|precision| (precision, digits.after))
}

/// Values of one physical type.
#[derive(Debug)]
enum Values {
    Boolean(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

/// A column, and the values of its rows so far.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    shape: Shape,
    is_list: bool,
    values: Values,
    /// For each value, and for what stands in place of one: how much of it is there.
    definitions: Vec<i16>,
    /// Whether it goes on with a list; empty where there are none.
    repetitions: Vec<i16>,
    held_bytes: usize,
}

/// Definition levels of a list: none, empty, an element that is NULL, an element. Other values are there (1) or not (0).
const EMPTY_LIST: i16 = 1;
const NULL_ELEMENT: i16 = 2;
const ELEMENT: i16 = 3;

impl Column {
    pub(super) fn new(column: &TypedColumn) -> Self {
        let shape = Shape::of(column);
        let values = match shape.physical {
            Physical::BOOLEAN => Values::Boolean(Vec::new()),
            Physical::INT32 => Values::Int32(Vec::new()),
            Physical::FLOAT => Values::Float(Vec::new()),
            Physical::DOUBLE => Values::Double(Vec::new()),
            Physical::BYTE_ARRAY => Values::Bytes(Vec::new()),
            Physical::FIXED_LEN_BYTE_ARRAY => Values::Fixed(Vec::new()),
            // INT96 is never used.
            Physical::INT64 | Physical::INT96 => Values::Int64(Vec::new()),
        };
        Self {
            name: column.name.clone(),
            shape,
            is_list: column.column_type.array,
            values,
            definitions: Vec::new(),
            repetitions: Vec::new(),
            held_bytes: 0,
        }
    }

    /// Memory that the gathered values take, about.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The column in the file's schema.
    pub(super) fn field(&self) -> Result<TypePtr, ParquetError> {
        if !self.is_list {
            return self.shape.build(&self.name, Repetition::OPTIONAL);
        }
        let element = self.shape.build("element", Repetition::OPTIONAL)?;
        let list = Type::group_type_builder("list")
            .with_repetition(Repetition::REPEATED)
            .with_fields(vec![element])
            .build()?;
        Type::group_type_builder(&self.name)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::List))
            .with_fields(vec![Arc::new(list)])
            .build()
            .map(Arc::new)
    }

    /// Adds the value of a row. An error: a value that the column was not made for.
    pub(super) fn push(&mut self, datum: &Datum<'_>) -> Result<(), ParquetError> {
        match datum {
            Datum::Null => self.level(0, false),
            Datum::List(elements) if elements.is_empty() => self.level(EMPTY_LIST, false),
            Datum::List(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    if *element == Datum::Null {
                        self.level(NULL_ELEMENT, index > 0);
                    } else {
                        self.level(ELEMENT, index > 0);
                        self.value(element)?;
                    }
                }
            }
            datum => {
                self.level(1, false);
                self.value(datum)?;
            }
        }
        Ok(())
    }

    fn level(&mut self, definition: i16, goes_on: bool) {
        self.definitions.push(definition);
        if self.is_list {
            self.repetitions.push(goes_on.into());
        }
        self.held_bytes += size_of_val(&definition) * if self.is_list { 2 } else { 1 };
    }

    fn value(&mut self, datum: &Datum<'_>) -> Result<(), ParquetError> {
        let scale = self.shape.decimal.map(|(_, scale)| scale);
        let unscaled = |number: &Number<'_>| {
            let scale = u16::try_from(scale?).ok()?;
            number.unscaled(scale)
        };
        let name = &self.name;
        let unfit =
            || ParquetError::General(format!("a value that does not fit the type of column {name:?}"));
        let size = match (&mut self.values, datum) {
            (Values::Boolean(values), Datum::Boolean(truth)) => add(values, *truth),
            (Values::Int32(values), Datum::Integer(number)) => {
                add(values, i32::try_from(*number).map_err(|_| unfit())?)
            }
            (Values::Int32(values), Datum::Date(days)) => add(values, *days),
            (
                Values::Int64(values),
                Datum::Integer(number) | Datum::Timestamp(number) | Datum::Time(number),
            ) => add(values, *number),
            (Values::Int64(values), Datum::Numeric(number)) => {
                let count = unscaled(number).and_then(|count| i64::try_from(count).ok());
                add(values, count.ok_or_else(unfit)?)
            }
            (Values::Float(values), Datum::Real(number)) => add(values, *number),
            (Values::Double(values), Datum::Double(number)) => add(values, *number),
            (Values::Fixed(values), Datum::Numeric(number)) => {
                add_bytes(values, &unscaled(number).ok_or_else(unfit)?.to_be_bytes())
            }
            (Values::Bytes(values), Datum::Text(text) | Datum::Json(text)) => {
                add_bytes(values, text.as_bytes())
            }
            (Values::Bytes(values), Datum::Bytes(bytes)) => add_bytes(values, bytes),
            (Values::Bytes(values), Datum::Numeric(number)) => {
                add_bytes(values, number.to_string().as_bytes())
            }
            (Values::Bytes(values), Datum::Uuid(uuid)) => add_bytes(values, uuid.to_string().as_bytes()),
            (Values::Bytes(values), Datum::Network(network)) => {
                add_bytes(values, network.to_string().as_bytes())
            }
            _ => return Err(unfit()),
        };
        self.held_bytes += size;
        Ok(())
    }

    /// Writes the gathered values as the column's part of a row group, and forgets them.
    pub(super) fn write(&mut self, writer: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let definitions = Some(&self.definitions[..]);
        let repetitions = self.is_list.then_some(&self.repetitions[..]);
        match &self.values {
            Values::Boolean(values) => {
                writer
                    .typed::<BoolType>()
                    .write_batch(values, definitions, repetitions)
            }
            Values::Int32(values) => {
                writer
                    .typed::<Int32Type>()
                    .write_batch(values, definitions, repetitions)
            }
            Values::Int64(values) => {
                writer
                    .typed::<Int64Type>()
                    .write_batch(values, definitions, repetitions)
            }
            Values::Float(values) => {
                writer
                    .typed::<FloatType>()
                    .write_batch(values, definitions, repetitions)
            }
            Values::Double(values) => {
                writer
                    .typed::<DoubleType>()
                    .write_batch(values, definitions, repetitions)
            }
            Values::Bytes(values) => {
                writer
                    .typed::<ByteArrayType>()
                    .write_batch(values, definitions, repetitions)
            }
            Values::Fixed(values) => {
                writer
                    .typed::<FixedLenByteArrayType>()
                    .write_batch(values, definitions, repetitions)
            }
        }?;
        self.definitions.clear();
        self.repetitions.clear();
        match &mut self.values {
            Values::Boolean(values) => values.clear(),
            Values::Int32(values) => values.clear(),
            Values::Int64(values) => values.clear(),
            Values::Float(values) => values.clear(),
            Values::Double(values) => values.clear(),
            Values::Bytes(values) => values.clear(),
            Values::Fixed(values) => values.clear(),
        }
        self.held_bytes = 0;
        Ok(())
    }
}

/// Adds a value; how many bytes it takes.
fn add<T>(values: &mut Vec<T>, value: T) -> usize {
    values.push(value);
    size_of::<T>()
}

/// Adds bytes; how many they take.
fn add_bytes<T: From<Vec<u8>>>(values: &mut Vec<T>, bytes: &[u8]) -> usize {
    add(values, T::from(bytes.to_vec())) + bytes.len()
}
