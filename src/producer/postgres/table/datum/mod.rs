//! Fields of binary COPY read back as what they mean: the other direction of [`encode`], for exports.
//!
//! The forms are those that PostgreSQL sends too; `postgres-protocol` knows all of them but `numeric`, which is here.

mod number;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use postgres_protocol::types;
use uuid::Uuid;

pub use number::{Digits, Number};

use super::column_type::{ColumnType, ScalarType};
use super::encode;

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum<'r> {
    /// NULL, of any type.
    Null,
    /// `boolean`.
    Boolean(bool),
    /// `smallint`, `integer`, `bigint`.
    Integer(i64),
    /// `real`.
    Real(f32),
    /// `double precision`.
    Double(f64),
    /// `numeric`.
    Numeric(Number<'r>),
    /// `text`, `varchar(n)`.
    Text(&'r str),
    /// `json`, `jsonb`: the text as it came.
    Json(&'r str),
    /// `uuid`.
    Uuid(Uuid),
    /// `timestamptz`, `timestamp`: microseconds since 1970-01-01, of UTC.
    Timestamp(i64),
    /// `date`: days since 1970-01-01.
    Date(i32),
    /// `time`: microseconds since midnight, which is as many as a day has for 24:00.
    Time(i64),
    /// `inet`, `cidr`.
    Network(Network),
    /// `bytea`.
    Bytes(&'r [u8]),
    /// An array.
    List(Vec<Datum<'r>>),
}

/// An address, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: IpAddr,
    /// The length of its network part; `None` for the address of a host in an `inet` column.
    pub prefix: Option<u8>,
}

/// As PostgreSQL writes it.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// A field is not of the form that its column's type has: none of those that were encoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are no {0}")]
pub struct DatumError(ColumnType);

impl<'r> Datum<'r> {
    /// Reads a field of a column of this type; `None` is NULL.
    ///
    /// # Errors
    /// When it has no meaning.
    pub(super) fn read(column_type: ColumnType, field: Option<&'r [u8]>) -> Result<Self, DatumError> {
        let Some(body) = field else {
            return Ok(Self::Null);
        };
        if !column_type.array {
            return scalar(column_type, body);
        }
        let element = ColumnType {
            array: false,
            ..column_type
        };
        let elements = Fields::of_array(body).map(|value| Self::read(element, value));
        elements.collect::<Result<_, _>>().map(Self::List)
    }
}

fn scalar(column_type: ColumnType, body: &[u8]) -> Result<Datum<'_>, DatumError> {
    let read = match column_type.scalar {
        ScalarType::Boolean => types::bool_from_sql(body).map(Datum::Boolean),
        ScalarType::SmallInt => types::int2_from_sql(body).map(|number| Datum::Integer(number.into())),
        ScalarType::Integer => types::int4_from_sql(body).map(|number| Datum::Integer(number.into())),
        ScalarType::BigInt => types::int8_from_sql(body).map(Datum::Integer),
        ScalarType::Numeric(_) => {
            return Number::read(body)
                .map(Datum::Numeric)
                .ok_or(DatumError(column_type));
        }
        ScalarType::Real => types::float4_from_sql(body).map(Datum::Real),
        ScalarType::DoublePrecision => types::float8_from_sql(body).map(Datum::Double),
        ScalarType::Text | ScalarType::Varchar(_) => types::text_from_sql(body).map(Datum::Text),
        ScalarType::Json => types::text_from_sql(body).map(Datum::Json),
        // The first byte is the version of the form.
        ScalarType::Jsonb => types::text_from_sql(body.get(1..).unwrap_or_default()).map(Datum::Json),
        ScalarType::Uuid => types::uuid_from_sql(body).map(|bytes| Datum::Uuid(Uuid::from_bytes(bytes))),
        ScalarType::Timestamptz(_) | ScalarType::Timestamp(_) => {
            types::timestamp_from_sql(body).map(|micros| Datum::Timestamp(encode::to_unix_micros(micros)))
        }
        ScalarType::Date => types::date_from_sql(body).map(|days| Datum::Date(encode::to_unix_days(days))),
        ScalarType::Time => types::time_from_sql(body).map(Datum::Time),
        ScalarType::Inet | ScalarType::Cidr => types::inet_from_sql(body).map(|inet| {
            let (address, prefix) = (inet.addr(), inet.netmask());
            let is_host = prefix == if address.is_ipv4() { 32 } else { 128 };
            let shown = column_type.scalar == ScalarType::Cidr || !is_host;
            Datum::Network(Network {
                address,
                prefix: shown.then_some(prefix),
            })
        }),
        ScalarType::Bytea { .. } => Ok(Datum::Bytes(body)),
    };
    read.map_err(|_| DatumError(column_type))
}

/// Bytes in front of an array's elements: three numbers about the whole, two about its dimension.
const ARRAY_HEADER: usize = 5 * 4;

/// The fields of a tuple of binary COPY, or of an array; `None` is NULL. Ends where the bytes are no such thing any more.
#[derive(Clone, Debug)]
pub(super) struct Fields<'r> {
    rest: &'r [u8],
}

impl<'r> Fields<'r> {
    /// Those of a whole tuple, which begins with their count.
    pub(super) fn of(tuple: &'r [u8]) -> Self {
        Self {
            rest: tuple.get(2..).unwrap_or_default(),
        }
    }

    /// The elements of an array of one dimension, or of none: that has no elements, and a shorter header.
    fn of_array(body: &'r [u8]) -> Self {
        Self {
            rest: body.get(ARRAY_HEADER..).unwrap_or_default(),
        }
    }
}

impl<'r> Iterator for Fields<'r> {
    type Item = Option<&'r [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.rest = rest;
            return Some(None);
        };
        let (field, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Some(field))
    }
}
