//! What to do about a value that does not fit its column, where that can be told.

use super::column_type::EpochUnit;
use super::encode::{Decimal, Encoder};
use super::layout::Column;
use super::record::Value;
use super::walk::Kind;

/// Times from 2001-09-09 to 2128-06-11, in seconds since the epoch: what a count is of is told by its size.
const PLAUSIBLE_SECONDS: std::ops::Range<f64> = 1e9..5e9;

/// What to do, as the end of a sentence; empty where nothing is known.
pub(super) fn advice(column: &Column, value: Value<'_>) -> String {
    let name = match column.encoder {
        Encoder::Timestamptz { unit: None } => "timestamptz",
        Encoder::Timestamp { unit: None } => "timestamp",
        _ => return String::new(),
    };
    let number = match value.kind {
        Kind::Integer | Kind::Fraction => value.raw,
        Kind::String => value.quoted().unwrap_or_default(),
        _ => return String::new(),
    };
    // By JSON's grammar, for others read words such as "infinity" as numbers too.
    let number = match number.parse::<f64>() {
        Ok(parsed) if Decimal::parse(number).is_some() => parsed,
        _ => return String::new(),
    };
    let units = [
        (EpochUnit::Seconds, 1.0),
        (EpochUnit::Millis, 1e3),
        (EpochUnit::Micros, 1e6),
        (EpochUnit::Nanos, 1e9),
    ];
    let likely = units
        .iter()
        .find(|(_, of_second)| PLAUSIBLE_SECONDS.contains(&(number / of_second)));
    let declared = match (likely, &column.key) {
        (Some((unit, _)), Some(key)) => format!(", most likely `{key}: {name}({})`", unit.name()),
        _ => format!(": {name}(s), (ms), (us) or (ns)"),
    };
    format!("; a number of an epoch needs its unit: declare it in `columns`{declared}")
}
