//! Decimal numbers as text, exact to the digit, and PostgreSQL's binary `numeric`.
//!
//! The format, from the server's `numeric_recv`: four 16-bit words (count of digits, weight of the first, sign, scale
//! for display), then the digits to the base of 10,000.

use super::short::Short;

/// Digits that `numeric` can hold before the point.
const MAX_INTEGER_DIGITS: i64 = 131_072;
/// Digits that `numeric` can hold after the point.
const MAX_SCALE: i64 = 16_383;
/// Exponents beyond this are all the same: too large or too small. Keeps the sums far from overflow.
const EXPONENT_LIMIT: i64 = 1 << 40;
const NEGATIVE: u16 = 0x4000;
/// Decimal digits in one digit of the base 10,000.
const GROUP: i64 = 4;

/// Appends a number's binary form; `None` when the text is no number, or one that the column would round or can't hold. `limit` is
/// the column's precision and scale, if it has them.
pub(super) fn write(text: &str, limit: Option<(u16, i16)>, out: &mut Vec<u8>) -> Option<()> {
    if let Some(short) = Short::parse(text)
        && let Some(fits) = limit.map_or(Some(true), |(precision, scale)| short.fits(precision, scale))
    {
        if !fits {
            return None;
        }
        if short.write_numeric(out) {
            return Some(());
        }
    }
    let decimal = Decimal::parse(text)?;
    let fits = limit.is_none_or(|(precision, scale)| decimal.fits(precision.into(), scale.into()));
    (fits && decimal.write(out)).then_some(())
}

/// A number in JSON's grammar, taken apart.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Decimal<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
    /// Powers of ten of the first and the last digit that is not 0; `None` for zero.
    span: Option<(i64, i64)>,
}

impl<'a> Decimal<'a> {
    /// Takes a number apart; `None` unless the text follows JSON's grammar for numbers to the letter.
    pub(in super::super) fn parse(text: &'a str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (integer, fraction) = match mantissa.split_once('.') {
            Some((integer, fraction)) if !fraction.is_empty() => (integer, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        let leading_zero = integer.len() > 1 && integer.starts_with('0');
        if integer.is_empty() || leading_zero || !all_digits(integer) || !all_digits(fraction) {
            return None;
        }
        let mut decimal = Self {
            negative,
            integer: integer.as_bytes(),
            fraction: fraction.as_bytes(),
            exponent,
            span: None,
        };
        let length = integer.len() + fraction.len();
        let digit = |index: &usize| decimal.digit_at(*index) != 0;
        if let (Some(first), Some(last)) = ((0..length).find(digit), (0..length).rev().find(digit)) {
            decimal.span = Some((decimal.power(first), decimal.power(last)));
        }
        Some(decimal)
    }

    /// Whether `numeric` can hold it.
    pub(in super::super) fn is_storable(&self) -> bool {
        let highest = self.span.map_or(self.exponent, |(highest, _)| highest);
        self.scale() <= MAX_SCALE && highest < MAX_INTEGER_DIGITS
    }

    /// Whether it is zero.
    pub(in super::super) fn is_zero(&self) -> bool {
        self.span.is_none()
    }

    /// Whether `numeric(precision, scale)` holds it without rounding.
    pub(super) fn fits(&self, precision: i64, scale: i64) -> bool {
        self.span
            .is_none_or(|(highest, lowest)| highest < precision - scale && lowest >= -scale)
    }

    /// The same number as an integer, if it is one: `1e3` and `2.0` are.
    pub(super) fn to_i64(self) -> Option<i64> {
        let Some((highest, lowest)) = self.span else {
            return Some(0);
        };
        if lowest < 0 || highest > 18 {
            return None;
        }
        let magnitude = (0..=highest)
            .rev()
            .fold(0_i128, |sum, power| sum * 10 + i128::from(self.digit(power)));
        i64::try_from(if self.negative { -magnitude } else { magnitude }).ok()
    }

    /// The number times ten to the `exponent`, rounded to an integer; halves away from zero.
    pub(super) fn shifted(self, exponent: i64) -> Option<i64> {
        let Some((highest, _)) = self.span else {
            return Some(0);
        };
        if highest + exponent > 18 {
            return None;
        }
        let whole = (-exponent..=highest)
            .rev()
            .fold(0_i128, |sum, power| sum * 10 + i128::from(self.digit(power)));
        let magnitude = whole + i128::from(self.digit(-exponent - 1) >= 5);
        i64::try_from(if self.negative { -magnitude } else { magnitude }).ok()
    }

    /// Whether both are the same number, however they are written.
    pub(in super::super) fn is_same(&self, other: &Self) -> bool {
        match (self.span, other.span) {
            (None, None) => true,
            (Some(one), Some(two)) => {
                one == two
                    && self.negative == other.negative
                    && (one.1..=one.0).all(|power| self.digit(power) == other.digit(power))
            }
            _ => false,
        }
    }

    /// Appends the binary form; `false`, and nothing appended, when `numeric` can't hold it.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> bool {
        let Some((highest, lowest)) = self.span else {
            let Ok(scale) = u16::try_from(self.scale().min(MAX_SCALE)) else {
                return false;
            };
            header(out, 0, 0, false, scale);
            return true;
        };
        let (weight, last) = (highest.div_euclid(GROUP), lowest.div_euclid(GROUP));
        let (Ok(count), Ok(short_weight), Ok(scale), true) = (
            u16::try_from(weight - last + 1),
            i16::try_from(weight),
            u16::try_from(self.scale()),
            self.is_storable(),
        ) else {
            return false;
        };
        header(out, count, short_weight, self.negative, scale);
        for group in (last..=weight).rev() {
            let digits = (0..GROUP)
                .rev()
                .fold(0_u16, |sum, place| sum * 10 + self.digit(group * GROUP + place));
            out.extend_from_slice(&digits.to_be_bytes());
        }
        true
    }

    /// Digits after the point, as written.
    fn scale(&self) -> i64 {
        (length(self.fraction) - self.exponent).max(0)
    }

    /// The power of ten that the digit at an index of the mantissa counts.
    fn power(&self, index: usize) -> i64 {
        let index = i64::try_from(index).unwrap_or(EXPONENT_LIMIT);
        length(self.integer) + self.exponent - 1 - index
    }

    /// The digit that counts a power of ten; 0 outside of the mantissa.
    fn digit(&self, power: i64) -> u16 {
        let index = length(self.integer) + self.exponent - 1 - power;
        usize::try_from(index).map_or(0, |index| self.digit_at(index))
    }

    fn digit_at(&self, index: usize) -> u16 {
        let digit = match index.checked_sub(self.integer.len()) {
            None => self.integer.get(index),
            Some(index) => self.fraction.get(index),
        };
        digit.map_or(0, |digit| u16::from(digit - b'0'))
    }
}

/// Appends what stands before the digits.
pub(super) fn header(out: &mut Vec<u8>, count: u16, weight: i16, negative: bool, scale: u16) {
    let sign = if negative { NEGATIVE } else { 0 };
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&scale.to_be_bytes());
}

fn length(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).unwrap_or(EXPONENT_LIMIT)
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An exponent with its sign, held within [`EXPONENT_LIMIT`].
fn parse_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !all_digits(digits) {
        return None;
    }
    let size = digits
        .bytes()
        .fold(0, |sum: i64, digit| {
            sum.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
        })
        .min(EXPONENT_LIMIT);
    Some(if negative { -size } else { size })
}
