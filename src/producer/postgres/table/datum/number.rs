//! PostgreSQL's binary `numeric` read back: its text, and the same number as a whole one of a fixed scale.
//!
//! The format is described where it is written, in [`encode`](super::super::encode).

use std::fmt::{self, Write as _};

use super::Datum;

/// Decimal digits in one digit of the base 10,000.
const GROUP: i64 = 4;
const BASE: i128 = 10_000;
const NEGATIVE: u16 = 0x4000;

/// A `numeric`, exact to the digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'r> {
    negative: bool,
    /// Power of the base that the first digit counts.
    weight: i64,
    /// Digits after the point, as the number was written.
    scale: u16,
    /// Digits of the base 10,000, two bytes each.
    digits: &'r [u8],
}

impl<'r> Number<'r> {
    pub(super) fn read(body: &'r [u8]) -> Option<Self> {
        let (header, digits) = body.split_first_chunk::<8>()?;
        let word = |index: usize| u16::from_be_bytes([header[2 * index], header[2 * index + 1]]);
        let sign = word(2);
        let is_whole = digits.len() == usize::from(word(0)) * 2 && matches!(sign, 0 | NEGATIVE);
        is_whole.then_some(Self {
            negative: sign == NEGATIVE,
            weight: i16::from_be_bytes([header[2], header[3]]).into(),
            scale: word(3),
            digits,
        })
    }

    /// Digits after the point, as the number was written: 2 of `1.40`.
    #[must_use]
    pub fn scale(&self) -> u16 {
        self.scale
    }

    /// Digits before the point, without zeros in front.
    #[must_use]
    pub fn integer_digits(&self) -> u32 {
        match self.digits.is_empty() || self.weight < 0 {
            true => 0,
            false => {
                let below = u32::try_from(self.weight * GROUP).unwrap_or(u32::MAX);
                below
                    + self
                        .group(self.weight)
                        .checked_ilog10()
                        .map_or(0, |power| power + 1)
            }
        }
    }

    /// The number times ten to the `scale`; `None` when that is no whole number, or has more than 38 digits.
    #[must_use]
    pub fn unscaled(&self, scale: u16) -> Option<i128> {
        let lowest = self.weight - i64::try_from(self.digits.len() / 2).ok()? + 1;
        let mut sum = 0_i128;
        for power in (lowest..=self.weight).rev() {
            let group = i128::from(self.group(power));
            // The power of ten that the group's last digit counts, in units of the result.
            let exponent = power * GROUP + i64::from(scale);
            let part = match u32::try_from(exponent) {
                Ok(_) if group == 0 => 0,
                Ok(exponent) => group.checked_mul(10_i128.checked_pow(exponent)?)?,
                Err(_) => {
                    let divisor = match u32::try_from(-exponent).ok().filter(|&digits| digits < 4) {
                        Some(digits) => 10_i128.pow(digits),
                        None => BASE,
                    };
                    if group % divisor != 0 {
                        return None;
                    }
                    group / divisor
                }
            };
            sum = sum.checked_add(part)?;
        }
        const LIMIT: i128 = 10_i128.pow(38);
        (sum < LIMIT).then_some(if self.negative { -sum } else { sum })
    }

    /// The digit of the base 10,000 that counts a power of it.
    fn group(&self, power: i64) -> u16 {
        let index = usize::try_from(self.weight - power).ok();
        let digit = index.and_then(|index| self.digits.chunks_exact(2).nth(index));
        digit.map_or(0, |digit| u16::from_be_bytes([digit[0], digit[1]]))
    }
}

/// In full, with as many digits after the point as it was written with: `1.40`, `-0.00001`.
impl fmt::Display for Number<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_char('-')?;
        }
        match self.weight {
            weight if weight < 0 || self.digits.is_empty() => f.write_char('0')?,
            weight => {
                write!(f, "{}", self.group(weight))?;
                for power in (0..weight).rev() {
                    write!(f, "{:04}", self.group(power))?;
                }
            }
        }
        let mut left = usize::from(self.scale);
        if left > 0 {
            f.write_char('.')?;
        }
        let mut power = -1;
        while left > 0 {
            let group = format!("{:04}", self.group(power));
            let shown = left.min(group.len());
            f.write_str(&group[..shown])?;
            left -= shown;
            power -= 1;
        }
        Ok(())
    }
}

/// What the numbers of a column need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digits {
    /// Most digits before the point.
    pub before: u32,
    /// Most digits after the point.
    pub after: u32,
    /// Of whole numbers within 64 bits, the largest size.
    pub largest: u64,
}

impl Digits {
    /// Takes in a number, or those of a list.
    pub(in super::super) fn add(&mut self, datum: &Datum<'_>) {
        match datum {
            Datum::Integer(number) => {
                self.largest = self.largest.max(number.unsigned_abs());
                let digits = self.largest.checked_ilog10().map_or(0, |power| power + 1);
                self.before = self.before.max(digits);
            }
            Datum::Numeric(number) => {
                self.before = self.before.max(number.integer_digits());
                self.after = self.after.max(number.scale().into());
            }
            Datum::List(elements) => elements.iter().for_each(|element| self.add(element)),
            _ => {}
        }
    }
}
