//! A share as people write it: `10%`, `0.5%`.
//!
//! What is printed reads back as the same share. A number without the sign is refused, for nobody can tell 10 from 1,000 percent.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// Parts that the whole has.
const WHOLE: u32 = 10_000;

/// A share from 0% to 100%, to the hundredth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    /// Hundredths of a percent.
    parts: u32,
}

/// Why a text is no share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a share from 0% to 100% such as 10% or 0.5%, found `{0}`")]
pub struct NotAPercent(String);

impl Percent {
    /// Of whole percents; what is beyond 100 is 100.
    #[must_use]
    pub const fn of(percents: u32) -> Self {
        let parts = percents.saturating_mul(WHOLE / 100);
        Self {
            parts: if parts > WHOLE { WHOLE } else { parts },
        }
    }

    /// The share of a number, rounded down.
    #[must_use]
    pub fn part_of(self, number: u64) -> u64 {
        let part = u128::from(number) * u128::from(self.parts) / u128::from(WHOLE);
        u64::try_from(part).unwrap_or(number)
    }
}

impl FromStr for Percent {
    type Err = NotAPercent;

    fn from_str(text: &str) -> Result<Self, NotAPercent> {
        let wrong = || NotAPercent(text.trim().to_owned());
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 2 {
            return Err(wrong());
        }
        let hundredths: u32 = format!("{fraction:0<2}").parse().map_err(|_| wrong())?;
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let parts = whole
            .checked_mul(WHOLE / 100)
            .and_then(|parts| parts.checked_add(hundredths));
        match parts {
            Some(parts) if parts <= WHOLE => Ok(Self { parts }),
            Some(_) | None => Err(wrong()),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.parts / 100, self.parts % 100);
        let text = match hundredths {
            0 => format!("{whole}%"),
            _ if hundredths % 10 == 0 => format!("{whole}.{}%", hundredths / 10),
            _ => format!("{whole}.{hundredths:02}%"),
        };
        f.pad(&text)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PercentVisitor;

        impl Visitor<'_> for PercentVisitor {
            type Value = Percent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share from 0% to 100% such as 10% or 0.5%")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Percent, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Percent, E> {
                Err(E::custom(NotAPercent(number.to_string())))
            }
        }

        deserializer.deserialize_any(PercentVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_read_to_the_hundredth_of_a_percent_and_what_is_none_is_refused() {
        for (text, of_million) in [
            ("0%", 0),
            ("10%", 100_000),
            (" 0.5 %", 5_000),
            ("0.05%", 500),
            ("99.99%", 999_900),
            ("100%", 1_000_000),
        ] {
            assert_eq!(
                text.parse::<Percent>().unwrap().part_of(1_000_000),
                of_million,
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "%",
            "-1%",
            "100.01%",
            "101%",
            "1.%",
            ".5%",
            "0.001%",
            "1e1%",
            "99999999999%",
        ] {
            let error = text.parse::<Percent>().unwrap_err().to_string();
            assert!(error.contains("from 0% to 100%"), "{text}: {error}");
        }
        assert_eq!(Percent::of(10).part_of(9), 0, "rounded down");
        assert_eq!(Percent::of(u32::MAX), Percent::of(100));
        assert_eq!(Percent::of(100).part_of(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn every_share_reads_back_as_it_was_printed(parts in 0..=WHOLE) {
            let percent = Percent { parts };
            prop_assert_eq!(percent.to_string().parse(), Ok(percent));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _ = text.parse::<Percent>();
        }
    }
}
