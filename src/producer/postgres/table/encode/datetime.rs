//! Strict reading of dates and times, as ISO 8601 and RFC 3339 write them, into PostgreSQL's binary counts from
//! 2000-01-01.
//!
//! Nothing is guessed: what the text leaves open (a missing offset, for one) makes it unfit. Digits after the
//! microseconds, up to nine in all, are rounded as the server rounds them.

use super::super::column_type::EpochUnit;
use super::numeric::Decimal;
use super::short::Short;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Days from 1970-01-01 to 2000-01-01.
const DAYS_TO_2000: i32 = 10_957;
/// Microseconds from 1970-01-01 to 2000-01-01.
const MICROS_TO_2000: i64 = DAYS_TO_2000 as i64 * MICROS_PER_DAY;
/// Digits after a second's point that a microsecond has.
const MICROS_DIGITS: usize = 6;
/// Most digits after a second's point.
const MAX_FRACTION_DIGITS: usize = 9;

/// Microseconds since 2000-01-01 UTC of a time that is given since 1970.
pub(super) fn from_unix_micros(micros: i64) -> i64 {
    micros.saturating_sub(MICROS_TO_2000)
}

/// Microseconds since 1970 of a time that is given since 2000: of one that was encoded here, which 64 bits count from 1970 too.
pub(in super::super) fn to_unix_micros(micros: i64) -> i64 {
    micros.saturating_add(MICROS_TO_2000)
}

/// Days since 1970-01-01 of a day that is given since 2000-01-01.
pub(in super::super) fn to_unix_days(days: i32) -> i32 {
    days.saturating_add(DAYS_TO_2000)
}

/// The first microsecond that PostgreSQL's timestamps hold (4714-11-24 BC), and the first that they don't (294277-01-01).
const FIRST_TIMESTAMP: i64 = -211_813_488_000_000_000;
const END_TIMESTAMP: i64 = 9_223_371_331_200_000_000;

/// Microseconds since 2000-01-01 UTC of a count since 1970; what is finer than a microsecond is rounded. The inner `None`: the time is
/// beyond what PostgreSQL holds; the outer one: the text is no number.
pub(super) fn from_epoch(count: &str, unit: EpochUnit) -> Option<Option<i64>> {
    let exponent = unit.exponent();
    let short = Short::parse(count).and_then(|short| short.shifted(exponent));
    let micros = match short {
        Some(micros) => Some(micros),
        None => Decimal::parse(count)?.shifted(exponent),
    };
    Some(micros.and_then(since_2000))
}

/// A time that PostgreSQL can hold, given in microseconds since 1970.
fn since_2000(micros: i64) -> Option<i64> {
    let micros = micros.checked_sub(MICROS_TO_2000)?;
    (FIRST_TIMESTAMP..END_TIMESTAMP)
        .contains(&micros)
        .then_some(micros)
}

/// Microseconds since midnight of `12:34:56.789`.
pub(super) fn time(text: &str) -> Option<i64> {
    let (micros, rest) = time_of_day(text.as_bytes())?;
    (rest.is_empty() && micros <= MICROS_PER_DAY).then_some(micros)
}

/// `2024-02-29T12:34:56.789Z`; the offset must be there.
pub(super) fn timestamptz(text: &str) -> Option<i64> {
    let (local, rest) = local(text)?;
    Some(local - offset(rest)?)
}

/// `2024-02-29T12:34:56.789`, with `Z` or without; another offset would be lost.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    let (local, rest) = local(text)?;
    (rest.is_empty() || offset(rest) == Some(0)).then_some(local)
}

/// Days since 2000-01-01 of `2024-02-29`.
pub(super) fn date(text: &str) -> Option<i32> {
    let (days, rest) = day(text.as_bytes())?;
    let days = i32::try_from(days).ok()?;
    rest.is_empty().then_some(days)
}

/// Date and time of day, and what stands after them.
fn local(text: &str) -> Option<(i64, &[u8])> {
    let (days, rest) = day(text.as_bytes())?;
    let (b'T' | b't' | b' ', rest) = rest.split_first()? else {
        return None;
    };
    let (micros, rest) = time_of_day(rest)?;
    Some((days * MICROS_PER_DAY + micros, rest))
}

/// Microseconds since midnight, and what stands after them.
fn time_of_day(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hour, rest) = two_digits(text, 23)?;
    let (minute, rest) = two_digits(rest.strip_prefix(b":")?, 59)?;
    let (second, micros, rest) = match rest.strip_prefix(b":") {
        // The server takes a leap second for the first one of the next minute, and so do we.
        Some(rest) => {
            let (second, rest) = two_digits(rest, 60)?;
            let (micros, rest) = match rest.strip_prefix(b".") {
                Some(rest) => fraction(rest)?,
                None => (0, rest),
            };
            (second, micros, rest)
        }
        // Two numbers and a fraction are minutes and seconds to the server, and hours and minutes to others.
        None if rest.starts_with(b".") => return None,
        None => (0, 0, rest),
    };
    let seconds = (hour * 60 + minute) * 60 + second;
    Some((seconds * MICROS_PER_SECOND + micros, rest))
}

/// A date as days since 2000-01-01, and what stands after it.
fn day(text: &[u8]) -> Option<(i64, &[u8])> {
    let (century, rest) = two_digits(text, 99)?;
    let (in_century, rest) = two_digits(rest, 99)?;
    let (month, rest) = two_digits(rest.strip_prefix(b"-")?, 12)?;
    let (day, rest) = two_digits(rest.strip_prefix(b"-")?, 31)?;
    let year = century * 100 + in_century;
    if year < 1 || month < 1 || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    // Years are counted from March, so that the leap day is the last of its year.
    let years = if month <= 2 { year - 1 } else { year };
    let days_before_month = (153 * ((month + 9) % 12) + 2) / 5;
    let days_from_year_0 = years * 365 + years / 4 - years / 100 + years / 400 + days_before_month + day - 1;
    /// Days from 0000-03-01 to 2000-01-01.
    const DAYS_FROM_YEAR_0: i64 = 719_468 + DAYS_TO_2000 as i64;
    Some((days_from_year_0 - DAYS_FROM_YEAR_0, rest))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn two_digits(text: &[u8], most: i64) -> Option<(i64, &[u8])> {
    let [tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] = text else {
        return None;
    };
    let number = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    (number <= most).then_some((number, rest))
}

/// The digits after a second's point as microseconds, and what stands after them.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=MAX_FRACTION_DIGITS).contains(&count) {
        return None;
    }
    let (digits, rest) = text.split_at(count);
    let sum = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
    };
    if count <= MICROS_DIGITS {
        let scale = (count..MICROS_DIGITS).fold(1, |scale, _| scale * 10);
        return Some((sum(digits) * scale, rest));
    }
    Some((rounded(sum(digits), count), rest))
}

/// So many digits after the point as microseconds. The server multiplies in floating point and rounds halves to even, so
/// the same text gives the same time whoever reads it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "at most nine digits, which a double holds exactly, and the result is at most a million"
)]
fn rounded(digits: i64, count: usize) -> i64 {
    let scale = (0..count).fold(1.0, |scale, _| scale * 10.0);
    ((digits as f64 / scale) * MICROS_PER_SECOND as f64).round_ties_even() as i64
}

/// An offset from UTC in microseconds: `Z`, `+02`, `+0200`, `-02:30`.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text.split_first()? {
        (b'Z' | b'z', []) => return Some(0),
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    // The server's own limit: offsets of less than 16 hours.
    let (hours, rest) = two_digits(rest, 15)?;
    let minutes = match rest.strip_prefix(b":").unwrap_or(rest) {
        [] if rest.is_empty() => 0,
        minutes => match two_digits(minutes, 59)? {
            (minutes, []) => minutes,
            _ => return None,
        },
    };
    Some(sign * (hours * 60 + minutes) * 60 * MICROS_PER_SECOND)
}
