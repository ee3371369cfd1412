//! From a JSON value to the bytes that binary COPY wants for a column's type.
//!
//! Binary COPY checks little (eight bytes of an integer are a valid timestamp), so each encoder writes only what it
//! has understood whole: a value that a type can't hold exactly does not fit, and stands in `_extra` then. Two
//! exceptions are meant: fractions are rounded to `real` and `double precision`, and times to microseconds.

mod array;
mod bytes;
mod datetime;
pub(super) mod json;
mod network;
mod numeric;
mod short;
#[cfg(test)]
mod tests;
pub(super) mod text;

use std::borrow::Cow;

pub(super) use datetime::{to_unix_days, to_unix_micros};
pub(super) use numeric::Decimal;
use short::Short;
use uuid::Uuid;

use super::column_type::EpochUnit;
use super::mapping::Nul;
use super::record::Value;
use super::walk::Kind;
use crate::record::Timestamp;

/// Integers up to this size are exact in `double precision`.
pub(super) const EXACT_IN_DOUBLE: u64 = 1 << 53;
/// Integers up to this size are exact in `real`.
const EXACT_IN_REAL: u64 = 1 << 24;
/// How a field says that it is NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// The only version of the binary form of `jsonb`.
const JSONB_VERSION: u8 = 1;

/// How values are written for a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encoder {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric {
        /// Precision and scale, if the column is limited to them.
        limit: Option<(u16, i16)>,
    },
    Text {
        /// Most characters.
        most: Option<u32>,
        /// Whether what is no string is taken as its JSON text: in columns that others made.
        any: bool,
    },
    /// A label of an enum: text that the server checks.
    Label,
    Json,
    Jsonb,
    Timestamptz {
        /// What numbers count; without it none fits.
        unit: Option<EpochUnit>,
    },
    Timestamp {
        unit: Option<EpochUnit>,
    },
    Date,
    Time,
    Uuid,
    Inet,
    Cidr,
    Bytea {
        /// Whether strings are base64, not hexadecimal digits.
        base64: bool,
    },
    /// An array of one dimension.
    Array {
        element: Box<Encoder>,
        /// The object identifier of the elements' type.
        oid: u32,
    },
    /// A type that we can't write: nothing fits.
    Unsupported,
}

impl Encoder {
    /// Appends the field; `false`, and nothing appended, when the value does not fit. A JSON null is not a value: use
    /// [`write_null`].
    pub(super) fn write(&self, value: Value<'_>, out: &mut Vec<u8>) -> bool {
        match *self {
            Self::Text { most: None, .. } if value.kind == Kind::String && !value.escaped => {
                value.quoted().is_some_and(|quoted| plain(quoted.as_bytes(), out))
            }
            Self::Bool => fixed(boolean(value).map(|truth| [truth.into()]), out),
            Self::Int2 => fixed(small_integer(value).map(i16::to_be_bytes), out),
            Self::Int4 => fixed(small_integer(value).map(i32::to_be_bytes), out),
            Self::Int8 => fixed(integer(value).map(i64::to_be_bytes), out),
            Self::Float4 => fixed(real(value).map(f32::to_be_bytes), out),
            Self::Float8 => fixed(double(value).map(f64::to_be_bytes), out),
            Self::Timestamptz { unit } => fixed(
                time(value, unit, datetime::timestamptz).map(i64::to_be_bytes),
                out,
            ),
            Self::Timestamp { unit } => {
                fixed(time(value, unit, datetime::timestamp).map(i64::to_be_bytes), out)
            }
            Self::Time => fixed(parsed(value, datetime::time).map(i64::to_be_bytes), out),
            Self::Date => fixed(parsed(value, datetime::date).map(i32::to_be_bytes), out),
            Self::Uuid => fixed(parsed(value, uuid).map(Uuid::into_bytes), out),
            _ => write_field(out, |out| self.write_body(value, out).is_some()),
        }
    }

    /// Appends what is of no fixed length.
    fn write_body(&self, value: Value<'_>, out: &mut Vec<u8>) -> Option<()> {
        match *self {
            Self::Numeric { limit } => {
                numeric::write(&number_text(value)?, limit, out)?;
            }
            Self::Text { most, any } => {
                let start = out.len();
                match value.quoted() {
                    Some(quoted) if value.escaped => text::unescape_into(quoted, value.rule, out),
                    Some(quoted) => out.extend_from_slice(quoted.as_bytes()),
                    None if any => json::write_text(value, out),
                    None => return None,
                }
                let most = most.map_or(usize::MAX, |most| most as usize);
                text::is_within(&out[start..], most).then_some(())?;
            }
            Self::Label => out.extend_from_slice(string(value)?.as_bytes()),
            Self::Json => json::write_text(value, out),
            Self::Jsonb => {
                out.push(JSONB_VERSION);
                json::write_text(value, out);
            }
            Self::Inet => network::inet(&string(value)?, out)?,
            Self::Cidr => network::cidr(&string(value)?, out)?,
            Self::Bytea { base64: false } => bytes::hex(&string(value)?, out)?,
            Self::Bytea { base64: true } => bytes::base64(&string(value)?, out)?,
            Self::Array { ref element, oid } => array::write(element, oid, value, out)?,
            // Nothing fits.
            Self::Unsupported => return None,
            // Of a fixed length, and written without coming here.
            Self::Bool
            | Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Float4
            | Self::Float8
            | Self::Timestamptz { .. }
            | Self::Timestamp { .. }
            | Self::Date
            | Self::Time
            | Self::Uuid => return None,
        }
        Some(())
    }
}

/// Appends a field that has the same length for every value; `false`, and nothing appended, when there is none.
fn fixed<const LENGTH: usize>(body: Option<[u8; LENGTH]>, out: &mut Vec<u8>) -> bool {
    let Some(body) = body else {
        return false;
    };
    out.extend_from_slice(&i32::try_from(LENGTH).unwrap_or(i32::MAX).to_be_bytes());
    out.extend_from_slice(&body);
    true
}

/// Appends a field that is there already; `false`, and nothing appended, when it is beyond 2 GiB.
fn plain(body: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(length) = i32::try_from(body.len()) else {
        return false;
    };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    true
}

/// Appends a NULL.
pub(super) fn write_null(out: &mut Vec<u8>) {
    out.extend_from_slice(&NULL);
}

/// Appends text for a `text` column.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    plain(text.as_bytes(), out);
}

/// Appends a number for a `bigint` column.
pub(super) fn write_bigint(number: i64, out: &mut Vec<u8>) {
    fixed(Some(number.to_be_bytes()), out);
}

/// Appends a time for a `timestamptz` column.
pub(super) fn write_time(time: Timestamp, out: &mut Vec<u8>) {
    write_bigint(datetime::from_unix_micros(time.micros()), out);
}

/// Appends a `json` or `jsonb` object of pairs of a raw key and a value.
pub(super) fn write_object<'m>(
    encoder: &Encoder,
    pairs: impl Iterator<Item = (Cow<'m, str>, Value<'m>)>,
    out: &mut Vec<u8>,
) {
    write_field(out, |out| {
        if *encoder == Encoder::Jsonb {
            out.push(JSONB_VERSION);
        }
        out.push(b'{');
        for (index, (key, value)) in pairs.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.push(b'"');
            json::without_nul(&key, Nul::Replace, out);
            out.extend_from_slice(b"\":");
            json::write_text(value, out);
        }
        out.push(b'}');
        true
    });
}

/// Appends a field's length and what `body` appends; nothing when `body` says no, or the field is beyond 2 GiB.
fn write_field(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    let start = out.len();
    out.extend_from_slice(&NULL);
    let fits = body(out);
    match i32::try_from(out.len() - start - NULL.len()) {
        Ok(length) if fits => {
            out[start..start + NULL.len()].copy_from_slice(&length.to_be_bytes());
            true
        }
        _ => {
            out.truncate(start);
            false
        }
    }
}

/// What a string means.
fn string(value: Value<'_>) -> Option<Cow<'_, str>> {
    value.quoted().map(|quoted| text::unescape(quoted, value.rule))
}

/// What a string means to this reader.
fn parsed<T>(value: Value<'_>, read: fn(&str) -> Option<T>) -> Option<T> {
    read(&string(value)?)
}

/// A time as text, or as the number that a declared unit makes of one.
fn time(value: Value<'_>, unit: Option<EpochUnit>, read: fn(&str) -> Option<i64>) -> Option<i64> {
    let Some(unit) = unit else {
        return parsed(value, read);
    };
    let text = number_text(value)?;
    datetime::from_epoch(&text, unit).unwrap_or_else(|| read(&text))
}

/// The text of a number, or of a string that may be one.
fn number_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value.kind {
        Kind::Integer | Kind::Fraction => Some(Cow::Borrowed(value.raw)),
        Kind::String => string(value),
        Kind::Null | Kind::Bool | Kind::Nested => None,
    }
}

fn boolean(value: Value<'_>) -> Option<bool> {
    let text = match value.kind {
        Kind::Bool => Cow::Borrowed(value.raw),
        _ => string(value)?,
    };
    match &*text {
        "true" | "t" => Some(true),
        "false" | "f" => Some(false),
        _ => None,
    }
}

fn integer(value: Value<'_>) -> Option<i64> {
    let text = number_text(value)?;
    match Short::parse(&text).and_then(Short::to_i64) {
        Some(integer) => Some(integer),
        None => Decimal::parse(&text)?.to_i64(),
    }
}

/// An integer that may be too large.
fn small_integer<T: TryFrom<i64>>(value: Value<'_>) -> Option<T> {
    T::try_from(integer(value)?).ok()
}

fn double(value: Value<'_>) -> Option<f64> {
    if value.kind == Kind::Fraction
        && let Some(double) = Short::parse(value.raw).and_then(Short::to_f64)
    {
        return Some(double);
    }
    let text = float_text(value)?;
    is_exact_below(&text, EXACT_IN_DOUBLE)?;
    let double: f64 = text.parse().ok()?;
    (double.is_finite() && (double != 0.0 || is_zero(&text))).then_some(double)
}

fn real(value: Value<'_>) -> Option<f32> {
    let text = float_text(value)?;
    is_exact_below(&text, EXACT_IN_REAL)?;
    let real: f32 = text.parse().ok()?;
    (real.is_finite() && (real != 0.0 || is_zero(&text))).then_some(real)
}

/// A number's text as `f64` and `f32` parse it. They take more than JSON does, which only a string can hold.
fn float_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    let text = number_text(value)?;
    (value.kind != Kind::String || Decimal::parse(&text).is_some()).then_some(text)
}

/// Whether a number is zero, not just too small.
fn is_zero(text: &str) -> bool {
    Decimal::parse(text).is_some_and(|decimal| decimal.is_zero())
}

/// `None` for an integer that is larger than `limit`; what is no integer passes.
fn is_exact_below(text: &str, limit: u64) -> Option<()> {
    if text.contains(['.', 'e', 'E']) {
        return Some(());
    }
    let number: i64 = text.parse().ok()?;
    (number.unsigned_abs() <= limit).then_some(())
}

/// Of the forms that the server takes, those with hyphens in their places or without any.
fn uuid(text: &str) -> Option<Uuid> {
    matches!(text.len(), 32 | 36)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
}
