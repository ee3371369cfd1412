//! What is said of a type that can't be declared: which can, and which was probably meant.

use super::column_type::{MAX_CHARACTERS, MAX_PRECISION};
use crate::config::nearest;

/// The types by their names in SQL, as they are advertised.
const KNOWN: &str = "boolean, smallint, integer, bigint, numeric, numeric(p,s), real, double precision, text, varchar(n), \
                     json, jsonb, uuid, timestamptz, timestamptz(s|ms|us|ns), timestamp, timestamp(s|ms|us|ns), date, time, \
                     inet, cidr, bytea, bytea(base64), or one of them with []";

/// What is no type that can be declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown type `{text}`; {}nown are {KNOWN}", introduced(.advice))]
pub struct UnknownType {
    text: String,
    /// What to do, if that can be told.
    advice: String,
}

impl UnknownType {
    /// Of a text that was taken apart: a name, what stands in parentheses behind it, and whether `[]` does.
    pub(super) fn new(text: &str, name: &str, argument: Option<&str>, array: bool) -> Self {
        Self {
            text: text.to_owned(),
            advice: advice(name, argument, array),
        }
    }
}

/// Types under names that other systems give them, or that can't be declared, and what is nearest to them.
const NEAREST: [(&str, &str); 41] = [
    ("string", "text"),
    ("str", "text"),
    ("varchar", "text"),
    ("char", "text"),
    ("character", "text"),
    ("bpchar", "text"),
    ("citext", "text"),
    ("enum", "text"),
    ("xml", "text"),
    ("interval", "text"),
    ("float", "double precision"),
    ("float64", "double precision"),
    ("float32", "real"),
    ("number", "numeric"),
    ("money", "numeric"),
    ("uint64", "numeric"),
    ("uint256", "numeric"),
    ("bignumeric", "numeric"),
    ("long", "bigint"),
    ("int64", "bigint"),
    ("uint32", "bigint"),
    ("bigserial", "bigint"),
    ("serial", "integer"),
    ("int32", "integer"),
    ("int16", "smallint"),
    ("datetime", "timestamptz"),
    ("datetime64", "timestamptz"),
    ("timestampz", "timestamptz"),
    ("epoch", "timestamptz(s)"),
    ("timetz", "time"),
    ("object", "jsonb"),
    ("map", "jsonb"),
    ("struct", "jsonb"),
    ("array", "jsonb"),
    ("list", "jsonb"),
    ("hstore", "jsonb"),
    ("blob", "bytea"),
    ("binary", "bytea"),
    ("bytes", "bytea"),
    ("guid", "uuid"),
    ("ip", "inet"),
];

/// What stands before the list of those that are known, up to its first letter.
fn introduced(advice: &str) -> String {
    if advice.is_empty() {
        "k".to_owned()
    } else {
        format!("{advice} K")
    }
}

/// What to do about a type that is not known.
fn advice(name: &str, argument: Option<&str>, array: bool) -> String {
    match (name, argument) {
        (
            "timestamptz" | "timestamp" | "timestamp with time zone" | "timestamp without time zone",
            Some(_),
        ) => {
            return "what stands in the parentheses is the unit of epoch numbers: s, ms, us or ns."
                .to_owned();
        }
        ("numeric" | "decimal", Some(_)) => {
            return format!("p is from 1 to {MAX_PRECISION}, and s from 0 to p.");
        }
        ("varchar" | "character varying", Some(_)) => {
            return format!("n is from 1 to {MAX_CHARACTERS}.");
        }
        ("bytea", Some(_)) => return "bytes are written as hex or base64.".to_owned(),
        _ => {}
    }
    let meant = match (name, argument) {
        ("char" | "character" | "bpchar", Some(most)) => Some(format!("varchar({most})")),
        ("" | "[]", _) => None,
        _ => NEAREST
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, nearest)| *nearest)
            .or_else(|| {
                nearest(
                    name,
                    KNOWN
                        .split(", ")
                        .filter(|known| !known.contains([' ', '(']))
                        .chain(["double precision"]),
                )
            })
            .map(str::to_owned),
    };
    let array = if array { "[]" } else { "" };
    meant.map_or(String::new(), |meant| format!("did you mean `{meant}{array}`?"))
}
