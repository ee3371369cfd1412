//! Short numbers, which nearly all are: read in one pass into an integer and a scale, instead of digit by digit each time that
//! something is asked of them. All others are a [`Decimal`](super::Decimal).

use super::{EXACT_IN_DOUBLE, numeric};

/// Digits that fit a `u64`, whatever they are.
const MOST_DIGITS: usize = 19;
/// Decimal digits in one digit of `numeric`, whose base is 10,000.
const GROUP: usize = 4;
const BASE: u64 = 10_000;
/// Digits of `numeric` that so many digits are at most, before the point and behind it.
const BEFORE_POINT: usize = MOST_DIGITS.div_ceil(GROUP);
const BEHIND_POINT: usize = MOST_DIGITS.div_ceil(GROUP);
/// The powers of ten that are exact in `f64`.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// A number of at most 19 digits, without an exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short {
    negative: bool,
    /// All digits, without the point.
    digits: u64,
    /// How many of them stand behind the point.
    scale: usize,
}

impl Short {
    /// Reads a number; `None` when it is longer or has an exponent, and unless the text follows JSON's grammar to the letter.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let unsigned = text.as_bytes();
        let (negative, unsigned) = match unsigned.split_first()? {
            (b'-', rest) => (true, rest),
            _ => (false, unsigned),
        };
        if unsigned.len() > MOST_DIGITS + 1 {
            return None;
        }
        let (integer, rest) = digits(unsigned, 0);
        let (digits, behind) = match rest.split_first() {
            None => (integer, 0),
            Some((b'.', fraction)) => match digits(fraction, integer) {
                (digits, []) if !fraction.is_empty() => (digits, fraction.len()),
                _ => return None,
            },
            Some(_) => return None,
        };
        let before = unsigned.len() - rest.len();
        let leading_zero = before > 1 && unsigned[0] == b'0';
        (before > 0 && before + behind <= MOST_DIGITS && !leading_zero).then_some(Self {
            negative,
            digits,
            scale: behind,
        })
    }

    /// As an integer, if no digit stands behind the point.
    pub(super) fn to_i64(self) -> Option<i64> {
        if self.scale > 0 {
            return None;
        }
        if self.negative {
            0_i64.checked_sub_unsigned(self.digits)
        } else {
            i64::try_from(self.digits).ok()
        }
    }

    /// The nearest `f64`, where one division of two exact numbers gives it, which IEEE 754 rounds correctly.
    ///
    /// The fast path of W. Clinger, "How to Read Floating Point Numbers Accurately" (1990).
    #[expect(clippy::cast_precision_loss, reason = "at most 2^53")]
    pub(super) fn to_f64(self) -> Option<f64> {
        let power = POWERS.get(self.scale)?;
        if self.digits > EXACT_IN_DOUBLE {
            return None;
        }
        let magnitude = self.digits as f64 / power;
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The number times ten to the `exponent`, rounded to an integer; halves away from zero. `None` when that is too large, and
    /// sometimes when it is not.
    pub(super) fn shifted(self, exponent: i64) -> Option<i64> {
        let exponent = exponent - i64::try_from(self.scale).ok()?;
        let power = 10_u64.checked_pow(u32::try_from(exponent.abs()).ok()?)?;
        let digits = if exponent >= 0 {
            self.digits.checked_mul(power)?
        } else {
            self.digits.checked_add(power / 2)? / power
        };
        Self {
            digits,
            scale: 0,
            ..self
        }
        .to_i64()
    }

    /// Whether `numeric(precision, scale)` holds it without rounding; `None` when that is not easily told.
    pub(super) fn fits(self, precision: u16, scale: i16) -> Option<bool> {
        let scale = usize::try_from(scale).ok()?;
        let before_point = usize::from(precision).checked_sub(scale)?;
        let (integer, _) = self.parts()?;
        let is_rounded = match self.scale.checked_sub(scale) {
            None | Some(0) => false,
            Some(beyond) => !self.digits.is_multiple_of(power_of_ten(beyond)?),
        };
        let is_within = power_of_ten(before_point).is_none_or(|limit| integer < limit);
        Some(is_within && !is_rounded)
    }

    /// Appends PostgreSQL's binary `numeric`; `false`, and nothing appended, when that is left to [`Decimal`](super::Decimal).
    pub(super) fn write_numeric(self, out: &mut Vec<u8>) -> bool {
        let scale = self.scale;
        let (Some((mut integer, fraction)), Some(pad)) =
            (self.parts(), power_of_ten(scale.wrapping_neg() % GROUP))
        else {
            return false;
        };
        let Some(mut fraction) = fraction.checked_mul(pad) else {
            return false;
        };
        // Those before the point, and those behind it, each filled from its end.
        let mut groups = [0_u16; BEFORE_POINT + BEHIND_POINT];
        let behind = scale.div_ceil(GROUP);
        for group in groups[..BEFORE_POINT].iter_mut().rev() {
            *group = (integer % BASE) as u16;
            integer /= BASE;
        }
        for group in groups[BEFORE_POINT..BEFORE_POINT + behind].iter_mut().rev() {
            *group = (fraction % BASE) as u16;
            fraction /= BASE;
        }
        let Some(first) = groups.iter().position(|&group| group != 0) else {
            numeric::header(out, 0, 0, false, scale as u16);
            return true;
        };
        let end = groups
            .iter()
            .rposition(|&group| group != 0)
            .map_or(first, |last| last + 1);
        let weight = BEFORE_POINT as i16 - 1 - first as i16;
        numeric::header(out, (end - first) as u16, weight, self.negative, scale as u16);
        for group in &groups[first..end] {
            out.extend_from_slice(&group.to_be_bytes());
        }
        true
    }

    /// What stands before the point and what behind it.
    fn parts(self) -> Option<(u64, u64)> {
        let power = power_of_ten(self.scale)?;
        Some((self.digits / power, self.digits % power))
    }
}

/// Goes on with `number` by the digits that the text begins with, and returns what stands behind them. Wraps around.
fn digits(text: &[u8], number: u64) -> (u64, &[u8]) {
    let mut number = number;
    let mut left = text;
    while let Some((digit @ b'0'..=b'9', rest)) = left.split_first() {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        left = rest;
    }
    (number, left)
}

/// A power of ten that fits.
fn power_of_ten(exponent: usize) -> Option<u64> {
    10_u64.checked_pow(u32::try_from(exponent).ok()?)
}
