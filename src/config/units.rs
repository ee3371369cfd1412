//! Quantities with units as people write them: `200ms`, `1GiB`.
//!
//! What is printed reads back as the same quantity. A duration without a unit is refused, for nobody can tell
//! seconds from milliseconds; a plain number of bytes is fine.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// No duration is longer: a hundred years. It keeps sums of instants and durations from overflowing.
pub const MAX_SPAN: Span = Span(Duration::from_secs(36_500 * 24 * 60 * 60));

/// Units of a duration with their microseconds, the largest first.
const SPAN_UNITS: [(&str, u64); 8] = [
    ("d", 24 * 60 * 60 * 1_000_000),
    ("h", 60 * 60 * 1_000_000),
    ("m", 60 * 1_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
    // Keyboards type either of two characters for micro.
    ("\u{b5}s", 1),
    ("\u{3bc}s", 1),
];

/// Units of a number of bytes, the largest first. Read without regard to case.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// A duration, read from `500ms`, `20s`, `5m`, `24h`, `7d` (and `us`, `µs`). Printed to the microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes, read from `64KiB`, `1MiB`, `10GB` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration at all.
    #[error("expected a duration such as 200ms, 20s, 5m or 24h, found `{0}`")]
    NotADuration(String),
    /// A duration of nobody knows what.
    #[error("`{0}` lacks its unit: one of ms, s, m, h or d, as in 200ms or 20s")]
    NoUnit(String),
    /// Longer than [`MAX_SPAN`].
    #[error("`{0}` is too long: at most {MAX_SPAN}")]
    TooLong(String),
    /// Not a number of bytes at all.
    #[error("expected a number of bytes such as 65536, 64KiB, 1MiB or 10GB, found `{0}`")]
    NotASize(String),
    /// More than 64 bits hold.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

impl Span {
    /// The duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// A text as its leading digits and what follows them, without the blanks between and around.
fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text);
        if number.is_empty() {
            return Err(UnitError::NotADuration(text.to_owned()));
        }
        if unit.is_empty() {
            return Err(UnitError::NoUnit(text.trim().to_owned()));
        }
        let (_, micros) = SPAN_UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| UnitError::NotADuration(text.to_owned()))?;
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(micros))
            .map(|micros| Self(Duration::from_micros(micros)))
            .filter(|span| *span <= MAX_SPAN)
            .ok_or_else(|| UnitError::TooLong(text.to_owned()))
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text);
        let factor = match unit {
            "" => Some(1),
            _ => SIZE_UNITS
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, factor)| factor),
        };
        let (Some(factor), false) = (factor, number.is_empty()) else {
            return Err(UnitError::NotASize(text.to_owned()));
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| UnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros == 0 {
            return f.write_str("0s");
        }
        let (unit, factor) = SPAN_UNITS
            .into_iter()
            .find(|(_, factor)| micros.is_multiple_of(u128::from(*factor)))
            .unwrap_or(("us", 1));
        f.pad(&format!("{}{unit}", micros / u128::from(factor)))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SIZE_UNITS
            .into_iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        f.pad(&format!("{}{unit}", self.0 / factor))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;

        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 200ms, 20s, 5m or 24h")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Span, E> {
                Err(E::custom(UnitError::NoUnit(number.to_string())))
            }
        }

        deserializer.deserialize_any(SpanVisitor)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes such as 65536, 64KiB, 1MiB or 10GB")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(number))
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, micros) in [
            ("0s", 0),
            ("7us", 7),
            ("7µs", 7),
            ("7\u{3bc}s", 7),
            ("500ms", 500_000),
            ("20s", 20_000_000),
            (" 20 s ", 20_000_000),
            ("5m", 300_000_000),
            ("24h", 86_400_000_000),
            ("7d", 604_800_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_micros(micros))), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_in_words() {
        for (text, message) in [
            (
                "fast",
                "expected a duration such as 200ms, 20s, 5m or 24h, found `fast`",
            ),
            ("", "expected a duration such as 200ms, 20s, 5m or 24h, found ``"),
            (
                "-1s",
                "expected a duration such as 200ms, 20s, 5m or 24h, found `-1s`",
            ),
            (
                "1.5s",
                "expected a duration such as 200ms, 20s, 5m or 24h, found `1.5s`",
            ),
            (
                "20",
                "`20` lacks its unit: one of ms, s, m, h or d, as in 200ms or 20s",
            ),
            ("36501d", "`36501d` is too long: at most 36500d"),
            (
                "99999999999999999999s",
                "`99999999999999999999s` is too long: at most 36500d",
            ),
        ] {
            assert_eq!(text.parse::<Span>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn sizes_are_read_in_every_unit_and_without() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("12B", 12),
            ("64KiB", 65536),
            ("1kb", 1000),
            ("1 MiB", 1 << 20),
            ("10GB", 10_000_000_000),
            ("10GiB", 10 << 30),
            ("2TB", 2_000_000_000_000),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_in_words() {
        for (text, message) in [
            (
                "big",
                "expected a number of bytes such as 65536, 64KiB, 1MiB or 10GB, found `big`",
            ),
            (
                "1Gi",
                "expected a number of bytes such as 65536, 64KiB, 1MiB or 10GB, found `1Gi`",
            ),
            ("99999999999TiB", "`99999999999TiB` is too large"),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn printed_quantities_use_the_largest_unit_that_is_exact() {
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "90s");
        assert_eq!(Span(Duration::from_secs(86_400)).to_string(), "1d");
        assert_eq!(Span(Duration::ZERO).to_string(), "0s");
        assert_eq!(ByteSize(10_000_000_000).to_string(), "10GB");
        assert_eq!(ByteSize(10 << 30).to_string(), "10GiB");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    #[test]
    fn a_plain_number_is_a_size_and_no_duration_in_json_too() {
        assert_eq!(serde_json::from_str::<ByteSize>("4096").unwrap(), ByteSize(4096));
        let error = serde_json::from_str::<Span>("20").unwrap_err().to_string();
        assert!(error.contains("`20` lacks its unit"), "{error}");
    }

    proptest! {
        #[test]
        fn every_duration_reads_back_as_it_was_printed(micros in 0..=MAX_SPAN.0.as_micros() as u64) {
            let span = Span(Duration::from_micros(micros));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn every_size_reads_back_as_it_was_printed(bytes: u64) {
            let size = ByteSize(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text: String) {
            let _ = text.parse::<Span>();
            let _ = text.parse::<ByteSize>();
        }
    }
}
