//! Types that could be declared for what was seen: where all values of a key read as decimals, times or identifiers, which
//! the table by itself would keep as text or as whole numbers.
//!
//! Nothing is decided here. The encoders say what reads as what, so what is suggested is what would fit; that it is also
//! meant, nobody can tell from values alone, so a type needs more than a fit: decimals a point and more than one value, counts
//! of an epoch a name that speaks of time, or a time near that of receipt.

use std::collections::BTreeMap;

use super::column_type::{ColumnType, EpochUnit, ScalarType};
use super::encode::{Decimal, Encoder, text};
use super::mapping::Nul;
use super::record::{FieldName, Scanned, Value};
use super::walk::Kind;
use crate::record::Timestamp;

/// Keys that are looked at. Feeds that use identifiers as keys have no end of them.
const MAX_KEYS: usize = 500;
/// Values under a key before anything is suggested for it.
const MIN_VALUES: u64 = 2;
/// Longest value that is kept, to be compared.
const MAX_FIRST_BYTES: usize = 64;
/// How far from the time of receipt a time may be to be taken for one whatever its key: clocks differ, feeds lag.
const NEAR_MICROS: i64 = 3_600 * 1_000_000;
/// Times from 2001-09-09 to 2128-06-11, in seconds since the epoch.
const PLAUSIBLE_SECONDS: std::ops::Range<i64> = 1_000_000_000..5_000_000_000;

/// What was seen under the keys of records.
#[derive(Debug, Default)]
pub(super) struct Suggestions {
    /// In order of appearance.
    keys: Vec<(String, Seen)>,
    by_raw: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Seen {
    values: u64,
    /// The first value, if it is short.
    first: Option<String>,
    /// Whether another came.
    varies: bool,
    /// Candidates that all values have fitted, by their place in [`CANDIDATES`].
    fits: [bool; CANDIDATES.len()],
    /// Whether a number in a string had a point.
    has_point: bool,
    /// Whether all counts of an epoch were near the time of receipt, by unit.
    is_near: [bool; UNITS.len()],
}

const UNITS: [EpochUnit; 4] = [
    EpochUnit::Seconds,
    EpochUnit::Millis,
    EpochUnit::Micros,
    EpochUnit::Nanos,
];

/// What is tried, the first that fits is suggested.
const CANDIDATES: [ScalarType; 7] = [
    ScalarType::Uuid,
    ScalarType::Timestamptz(None),
    ScalarType::Timestamptz(Some(UNITS[0])),
    ScalarType::Timestamptz(Some(UNITS[1])),
    ScalarType::Timestamptz(Some(UNITS[2])),
    ScalarType::Timestamptz(Some(UNITS[3])),
    ScalarType::Numeric(None),
];

impl Suggestions {
    /// Looks at the records of a message.
    pub(super) fn add(&mut self, scanned: &Scanned, message: &str, received_at: Timestamp) {
        for record in 0..scanned.records() {
            for field in scanned.record(record) {
                let FieldName::Key(raw) = scanned.name(message, field) else {
                    continue;
                };
                let value = scanned.value(message, field);
                if value.kind == Kind::Null {
                    continue;
                }
                if let Some(seen) = self.seen(raw) {
                    seen.add(value, received_at);
                }
            }
        }
    }

    fn seen(&mut self, raw: &str) -> Option<&mut Seen> {
        let index = match self.by_raw.get(raw) {
            Some(&index) => index,
            None if self.keys.len() >= MAX_KEYS => return None,
            None => {
                let key = text::unescape(raw, Nul::Replace).into_owned();
                self.by_raw.insert(raw.to_owned(), self.keys.len());
                self.keys.push((key, Seen::new()));
                self.keys.len() - 1
            }
        };
        self.keys.get_mut(index).map(|(_, seen)| seen)
    }

    /// The keys for which a type can be suggested.
    pub(super) fn types(&self) -> Vec<(String, ColumnType)> {
        let suggested = self.keys.iter().filter_map(|(key, seen)| {
            let scalar = seen.suggestion(key)?;
            Some((key.clone(), ColumnType { scalar, array: false }))
        });
        suggested.collect()
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            values: 0,
            first: None,
            varies: false,
            fits: [true; CANDIDATES.len()],
            has_point: false,
            is_near: [true; UNITS.len()],
        }
    }

    fn add(&mut self, value: Value<'_>, received_at: Timestamp) {
        self.values += 1;
        if self.values == 1 {
            self.first = (value.raw.len() <= MAX_FIRST_BYTES).then(|| value.raw.to_owned());
        }
        self.varies |= self.first.as_deref() != Some(value.raw);
        let number = match value.kind {
            Kind::Integer => value.raw.parse().ok(),
            Kind::String => value.quoted().and_then(|quoted| quoted.parse::<i64>().ok()),
            _ => None,
        };
        if value.kind == Kind::String && number.is_none() {
            let quoted = value.quoted().unwrap_or_default();
            self.has_point |= quoted.contains('.') && Decimal::parse(quoted).is_some();
        }
        for (candidate, fits) in CANDIDATES.iter().zip(&mut self.fits) {
            *fits = *fits
                && match candidate {
                    ScalarType::Timestamptz(Some(unit)) => {
                        number.is_some_and(|number| is_plausible(number, *unit))
                    }
                    candidate => value.kind == Kind::String && reads_as(*candidate, value),
                };
        }
        for (unit, is_near) in UNITS.iter().zip(&mut self.is_near) {
            *is_near = *is_near && number.is_some_and(|number| is_near_to(number, *unit, received_at));
        }
    }

    fn suggestion(&self, key: &str) -> Option<ScalarType> {
        if self.values < MIN_VALUES {
            return None;
        }
        let fitting = CANDIDATES.iter().zip(&self.fits).filter(|(_, fits)| **fits);
        let mut meant = fitting
            .map(|(candidate, _)| *candidate)
            .filter(|candidate| match candidate {
                ScalarType::Timestamptz(Some(unit)) => {
                    let near = UNITS
                        .iter()
                        .zip(&self.is_near)
                        .any(|(known, near)| known == unit && *near);
                    // Ten digits are as often a number of something.
                    near && *unit != EpochUnit::Seconds || speaks_of_time(key)
                }
                // A constant is a version more often than a price.
                ScalarType::Numeric(_) => self.has_point && self.varies,
                _ => true,
            });
        meant.next()
    }
}

/// Whether a column of the type holds the value.
fn reads_as(scalar: ScalarType, value: Value<'_>) -> bool {
    let encoder = match scalar {
        ScalarType::Uuid => Encoder::Uuid,
        ScalarType::Timestamptz(unit) => Encoder::Timestamptz { unit },
        ScalarType::Numeric(_) => Encoder::Numeric { limit: None },
        _ => return false,
    };
    encoder.write(value, &mut Vec::new())
}

/// A count in this unit as microseconds.
fn micros(number: i64, unit: EpochUnit) -> Option<i64> {
    match unit {
        EpochUnit::Seconds => number.checked_mul(1_000_000),
        EpochUnit::Millis => number.checked_mul(1_000),
        EpochUnit::Micros => Some(number),
        EpochUnit::Nanos => Some(number / 1_000),
    }
}

fn is_plausible(number: i64, unit: EpochUnit) -> bool {
    micros(number, unit).is_some_and(|micros| PLAUSIBLE_SECONDS.contains(&micros.div_euclid(1_000_000)))
}

fn is_near_to(number: i64, unit: EpochUnit, received_at: Timestamp) -> bool {
    micros(number, unit)
        .is_some_and(|micros| micros.abs_diff(received_at.micros()) < NEAR_MICROS.unsigned_abs())
}

/// Whether a key names a time, as far as keys tell.
fn speaks_of_time(key: &str) -> bool {
    // An update is no date.
    let lower = key.to_lowercase().replace("update", "");
    let is_short = matches!(key, "t" | "T" | "E" | "ts");
    is_short
        || ["time", "date", "stamp"].iter().any(|word| lower.contains(word))
        || lower.split(['_', '-']).any(|word| word == "ts" || word == "at")
}

#[cfg(test)]
mod tests {
    use super::super::keys::Keys;
    use super::*;

    const NOW: i64 = 1_795_481_611_649_000;

    /// What is suggested for the only key of these messages.
    fn suggestion(messages: &[&str]) -> Option<String> {
        let mut suggestions = Suggestions::default();
        let mut scanned = Scanned::default();
        for message in messages {
            let text = scanned
                .read(&mut Keys::default(), message.as_bytes(), Nul::Replace)
                .unwrap();
            suggestions.add(&scanned, text, Timestamp::from_micros(NOW));
        }
        let types = suggestions.types();
        types.first().map(|(_, column_type)| column_type.to_string())
    }

    #[test]
    fn what_all_values_read_as_is_suggested() {
        for (messages, expected) in [
            ([r#"{"p":"0.10"}"#, r#"{"p":"985"}"#], Some("numeric")),
            ([r#"{"p":"985"}"#, r#"{"p":"7"}"#], None),
            ([r#"{"p":"0.10"}"#, r#"{"p":"n/a"}"#], None),
            ([r#"{"jsonrpc":"2.0"}"#, r#"{"jsonrpc":"2.0"}"#], None),
            ([r#"{"p":0.10}"#, r#"{"p":1.5}"#], None),
            (
                [
                    r#"{"t":"2021-04-17T16:43:30.244075Z"}"#,
                    r#"{"t":"2021-04-17T16:43:30Z"}"#,
                ],
                Some("timestamptz"),
            ),
            (
                [r#"{"t":"2021-04-17T16:43:30"}"#, r#"{"t":"2021-04-17T16:43:30"}"#],
                None,
            ),
            (
                [
                    r#"{"id":"5ffb8b77-900c-507d-97a2-0922557ffe54"}"#,
                    r#"{"id":"00000000-0000-4000-8000-000000000001"}"#,
                ],
                Some("uuid"),
            ),
            (
                [r#"{"E":1633998512068}"#, r#"{"E":1633998512069}"#],
                Some("timestamptz(ms)"),
            ),
            ([r#"{"E":1633998512068}"#, r#"{"E":7}"#], None),
            ([r#"{"id":1633998512068}"#, r#"{"id":1633998512069}"#], None),
            (
                [r#"{"x":1795481611649}"#, r#"{"x":1795481611650}"#],
                Some("timestamptz(ms)"),
            ),
            (
                [
                    r#"{"microtimestamp":"1641343692159263"}"#,
                    r#"{"microtimestamp":"1641343692159264"}"#,
                ],
                Some("timestamptz(us)"),
            ),
            (
                [r#"{"timestamp":"1641343692"}"#, r#"{"timestamp":"1641343693"}"#],
                Some("timestamptz(s)"),
            ),
            (
                [r#"{"lastUpdateId":1633998512}"#, r#"{"lastUpdateId":1633998513}"#],
                None,
            ),
            ([r#"{"id":1795481611}"#, r#"{"id":1795481612}"#], None),
            ([r#"{"p":"0.10"}"#, r#"{"p":null}"#], None),
            ([r#"{"p":{"a":1}}"#, r#"{"p":[1]}"#], None),
        ] {
            assert_eq!(suggestion(&messages).as_deref(), expected, "{messages:?}");
        }
    }

    #[test]
    fn keys_without_end_are_not_all_remembered() {
        let mut suggestions = Suggestions::default();
        let mut scanned = Scanned::default();
        for number in 0..2 * MAX_KEYS {
            let message = format!("{{\"k{number}\":1}}");
            let text = scanned
                .read(&mut Keys::default(), message.as_bytes(), Nul::Replace)
                .unwrap();
            suggestions.add(&scanned, text, Timestamp::from_micros(NOW));
        }
        assert_eq!(suggestions.keys.len(), MAX_KEYS);
    }
}
