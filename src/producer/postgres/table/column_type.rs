//! The types that `columns` can declare, and how they are written.
//!
//! What a declared type adds to SQL's own: the unit of epoch numbers (`timestamptz(ms)`) and the coding of bytes
//! (`bytea(base64)`). Neither can be told from the values, so neither is guessed.

use std::fmt;
use std::str::FromStr;

use super::unknown_type::UnknownType;

/// Largest precision of `numeric(precision, scale)`.
pub(super) const MAX_PRECISION: u16 = 1_000;
/// Most characters of `varchar(n)`.
pub(super) const MAX_CHARACTERS: u32 = 10_485_760;

/// What epoch numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds, rounded to microseconds.
    Nanos,
}

impl EpochUnit {
    /// The power of ten by which a count becomes microseconds.
    pub(super) fn exponent(self) -> i64 {
        match self {
            Self::Seconds => 6,
            Self::Millis => 3,
            Self::Micros => 0,
            Self::Nanos => -3,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Micros => "us",
            Self::Nanos => "ns",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Seconds, Self::Millis, Self::Micros, Self::Nanos]
            .into_iter()
            .find(|unit| unit.name() == name)
    }
}

/// A type of single values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarType {
    /// `boolean`.
    Boolean,
    /// `smallint`.
    SmallInt,
    /// `integer`.
    Integer,
    /// `bigint`.
    BigInt,
    /// `numeric`, or `numeric(precision, scale)`.
    Numeric(Option<(u16, u16)>),
    /// `real`.
    Real,
    /// `double precision`.
    DoublePrecision,
    /// `text`.
    Text,
    /// `varchar(n)`.
    Varchar(u32),
    /// `json`.
    Json,
    /// `jsonb`.
    Jsonb,
    /// `uuid`.
    Uuid,
    /// `timestamptz`; with a unit, of epoch numbers too.
    Timestamptz(Option<EpochUnit>),
    /// `timestamp`, in UTC; with a unit, of epoch numbers too.
    Timestamp(Option<EpochUnit>),
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `inet`.
    Inet,
    /// `cidr`.
    Cidr,
    /// `bytea`: `\x` and hexadecimal digits, or else base64.
    Bytea {
        /// Whether strings are base64.
        base64: bool,
    },
}

/// The type of a declared column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// Of a value, or of an array's elements.
    pub scalar: ScalarType,
    /// Whether it is an array of them.
    pub array: bool,
}

impl ColumnType {
    /// The type in SQL, as `format_type` names it.
    #[must_use]
    pub fn sql(&self) -> String {
        let scalar = match self.scalar {
            ScalarType::Boolean => "boolean".to_owned(),
            ScalarType::SmallInt => "smallint".to_owned(),
            ScalarType::Integer => "integer".to_owned(),
            ScalarType::BigInt => "bigint".to_owned(),
            ScalarType::Numeric(None) => "numeric".to_owned(),
            ScalarType::Numeric(Some((precision, scale))) => format!("numeric({precision},{scale})"),
            ScalarType::Real => "real".to_owned(),
            ScalarType::DoublePrecision => "double precision".to_owned(),
            ScalarType::Text => "text".to_owned(),
            ScalarType::Varchar(most) => format!("character varying({most})"),
            ScalarType::Json => "json".to_owned(),
            ScalarType::Jsonb => "jsonb".to_owned(),
            ScalarType::Uuid => "uuid".to_owned(),
            ScalarType::Timestamptz(_) => "timestamp with time zone".to_owned(),
            ScalarType::Timestamp(_) => "timestamp without time zone".to_owned(),
            ScalarType::Date => "date".to_owned(),
            ScalarType::Time => "time without time zone".to_owned(),
            ScalarType::Inet => "inet".to_owned(),
            ScalarType::Cidr => "cidr".to_owned(),
            ScalarType::Bytea { .. } => "bytea".to_owned(),
        };
        format!("{scalar}{}", if self.array { "[]" } else { "" })
    }

    /// The declared unit of epoch numbers.
    pub(super) fn unit(&self) -> Option<EpochUnit> {
        match self.scalar {
            ScalarType::Timestamptz(unit) | ScalarType::Timestamp(unit) => unit,
            _ => None,
        }
    }
}

impl FromStr for ColumnType {
    type Err = UnknownType;

    /// Reads a type without regard to case, as SQL does.
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        let lower = text.to_lowercase();
        let (scalar, array) = match lower.trim().strip_suffix("[]") {
            Some(scalar) => (scalar, true),
            None => (lower.trim(), false),
        };
        let (name, argument) = match scalar.strip_suffix(')').and_then(|text| text.split_once('(')) {
            Some((name, argument)) => (name, Some(argument)),
            None => (scalar, None),
        };
        let words: Vec<_> = name.split_whitespace().collect();
        let name = words.join(" ");
        scalar_type(&name, argument)
            .map(|scalar| Self { scalar, array })
            .ok_or_else(|| UnknownType::new(text, &name, argument, array))
    }
}

fn scalar_type(name: &str, argument: Option<&str>) -> Option<ScalarType> {
    let unit = |make: fn(Option<EpochUnit>) -> ScalarType| match argument {
        Some(unit) => EpochUnit::of(unit.trim()).map(|unit| make(Some(unit))),
        None => Some(make(None)),
    };
    match (name, argument) {
        ("numeric" | "decimal", Some(limit)) => {
            let (precision, scale) = limit.split_once(',').unwrap_or((limit, "0"));
            let (precision, scale): (u16, u16) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            let sound = (1..=MAX_PRECISION).contains(&precision) && scale <= precision;
            sound.then_some(ScalarType::Numeric(Some((precision, scale))))
        }
        ("varchar" | "character varying", Some(most)) => {
            let most = most.trim().parse().ok()?;
            (1..=MAX_CHARACTERS)
                .contains(&most)
                .then_some(ScalarType::Varchar(most))
        }
        ("timestamptz" | "timestamp with time zone", _) => unit(ScalarType::Timestamptz),
        ("timestamp" | "timestamp without time zone", _) => unit(ScalarType::Timestamp),
        ("bytea", Some(coding)) => match coding.trim() {
            "hex" => Some(ScalarType::Bytea { base64: false }),
            "base64" => Some(ScalarType::Bytea { base64: true }),
            _ => None,
        },
        (_, Some(_)) => None,
        ("boolean" | "bool", None) => Some(ScalarType::Boolean),
        ("smallint" | "int2", None) => Some(ScalarType::SmallInt),
        ("integer" | "int" | "int4", None) => Some(ScalarType::Integer),
        ("bigint" | "int8", None) => Some(ScalarType::BigInt),
        ("numeric" | "decimal", None) => Some(ScalarType::Numeric(None)),
        ("real" | "float4", None) => Some(ScalarType::Real),
        ("double precision" | "double" | "float8", None) => Some(ScalarType::DoublePrecision),
        ("text", None) => Some(ScalarType::Text),
        ("json", None) => Some(ScalarType::Json),
        ("jsonb", None) => Some(ScalarType::Jsonb),
        ("uuid", None) => Some(ScalarType::Uuid),
        ("date", None) => Some(ScalarType::Date),
        ("time" | "time without time zone", None) => Some(ScalarType::Time),
        ("inet", None) => Some(ScalarType::Inet),
        ("cidr", None) => Some(ScalarType::Cidr),
        ("bytea", None) => Some(ScalarType::Bytea { base64: false }),
        _ => None,
    }
}

/// As it would be declared.
impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let array = if self.array { "[]" } else { "" };
        match self.scalar {
            ScalarType::Timestamptz(unit) | ScalarType::Timestamp(unit) => {
                let zone = matches!(self.scalar, ScalarType::Timestamptz(_));
                f.write_str(if zone { "timestamptz" } else { "timestamp" })?;
                if let Some(unit) = unit {
                    write!(f, "({})", unit.name())?;
                }
                f.write_str(array)
            }
            ScalarType::Bytea { base64: true } => write!(f, "bytea(base64){array}"),
            _ => f.write_str(&self.sql()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_as_it_is_displayed() {
        for (text, sql) in [
            ("boolean", "boolean"),
            ("smallint", "smallint"),
            ("integer", "integer"),
            ("bigint", "bigint"),
            ("numeric", "numeric"),
            ("numeric(20,8)", "numeric(20,8)"),
            ("real", "real"),
            ("double precision", "double precision"),
            ("text", "text"),
            ("character varying(3)", "character varying(3)"),
            ("json", "json"),
            ("jsonb", "jsonb"),
            ("uuid", "uuid"),
            ("timestamptz", "timestamp with time zone"),
            ("timestamptz(ms)", "timestamp with time zone"),
            ("timestamp(ns)", "timestamp without time zone"),
            ("timestamp", "timestamp without time zone"),
            ("date", "date"),
            ("time without time zone", "time without time zone"),
            ("inet", "inet"),
            ("cidr", "cidr"),
            ("bytea", "bytea"),
            ("bytea(base64)", "bytea"),
            ("numeric[]", "numeric[]"),
            ("timestamptz(us)[]", "timestamp with time zone[]"),
        ] {
            let column: ColumnType = text.parse().unwrap();
            assert_eq!((column.to_string().as_str(), column.sql().as_str()), (text, sql));
        }
    }

    #[test]
    fn other_spellings_are_the_same_types() {
        for (text, same) in [
            ("BOOL", "boolean"),
            (" int ", "integer"),
            ("Decimal( 5 , 2 )", "numeric(5,2)"),
            ("numeric(5)", "numeric(5,0)"),
            ("double  precision[]", "float8[]"),
            ("timestamp with time zone(ms)", "timestamptz(ms)"),
            ("bytea(hex)", "bytea"),
            ("varchar(3)", "character varying(3)"),
        ] {
            assert_eq!(text.parse::<ColumnType>(), same.parse(), "{text}");
        }
    }

    #[test]
    fn what_is_no_type_is_refused_with_the_known_ones() {
        for text in [
            "",
            "[]",
            "money",
            "numeric()",
            "numeric(0)",
            "numeric(1001)",
            "numeric(2,3)",
            "timestamptz(m)",
            "text(3)",
            "varchar",
            "varchar(0)",
            "numeric[][]",
            "bytea(utf8)",
            "timestamptz(3)",
        ] {
            let error = text.parse::<ColumnType>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("unknown type `{text}`")), "{error}");
            assert!(error.contains("nown are boolean, smallint"), "{error}");
        }
    }

    #[test]
    fn the_type_that_was_probably_meant_is_named() {
        for (text, meant) in [
            ("numerics", "did you mean `numeric`?"),
            ("Timestamptzz", "did you mean `timestamptz`?"),
            ("string", "did you mean `text`?"),
            ("STRING[]", "did you mean `text[]`?"),
            ("char(3)", "did you mean `varchar(3)`?"),
            ("varchar", "did you mean `text`?"),
            ("float", "did you mean `double precision`?"),
            ("datetime", "did you mean `timestamptz`?"),
            ("uint64", "did you mean `numeric`?"),
            ("object", "did you mean `jsonb`?"),
            (
                "timestamptz(3)",
                "what stands in the parentheses is the unit of epoch numbers: s, ms, us or ns.",
            ),
            ("numeric(2,3)", "p is from 1 to 1000, and s from 0 to p."),
        ] {
            let error = text.parse::<ColumnType>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("unknown type `{text}`; {meant} Known are")),
                "{error}"
            );
        }
        let error = "qqq".parse::<ColumnType>().unwrap_err().to_string();
        assert!(
            error.starts_with("unknown type `qqq`; known are boolean"),
            "{error}"
        );
    }
}
