//! Times for people and programs: UTC, printed and read; and how long ago something was.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use socket_el::config::units::Span;
use socket_el::record::Timestamp;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 24 * 60 * 60 * MICROS_PER_SECOND;

/// The time as `2026-11-24 00:05:09.123Z`.
pub(crate) fn utc(time: Timestamp) -> String {
    let (days, of_day) = split(time.micros());
    let (date, era) = calendar(days);
    let clock = time_of_day(of_day / 1000 * 1000);
    format!("{date} {}Z{era}", &clock[..clock.len() - 3])
}

/// The time as RFC 3339 has it, to the microsecond: `2026-11-24T00:05:09.123456Z`.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    timestamp(time.micros(), "Z")
}

/// A time of any year as PostgreSQL reads it: as [`rfc3339`] has it, with `zone` in place of its `Z`, and ` BC` behind it before
/// the year 1.
pub(crate) fn timestamp(micros: i64, zone: &str) -> String {
    let (days, of_day) = split(micros);
    let (date, era) = calendar(days);
    format!("{date}T{}{zone}{era}", time_of_day(of_day))
}

/// A day, counted from 1970-01-01, as PostgreSQL reads it.
pub(crate) fn day(days: i32) -> String {
    let (date, era) = calendar(days.into());
    date + era
}

/// A time of day in microseconds: `00:05:09.123456`.
pub(crate) fn time_of_day(micros: i64) -> String {
    let (seconds, micros) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
    let (hour, minute) = (seconds / 3_600, seconds / 60 % 60);
    format!("{hour:02}:{minute:02}:{:02}.{micros:06}", seconds % 60)
}

/// The day, and the microseconds since it began.
fn split(micros: i64) -> (i64, i64) {
    (
        micros.div_euclid(MICROS_PER_DAY),
        micros.rem_euclid(MICROS_PER_DAY),
    )
}

/// A day with the year of its era, and what stands behind it for the era.
fn calendar(days: i64) -> (String, &'static str) {
    let (year, month, day) = date(days);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

/// A time in JSON: as RFC 3339 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Timestamp);

/// An engine tells it as a number.
impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Timestamp::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&rfc3339(self.0))
    }
}

/// How long before `now` something was, in the largest unit and the next: `3 s`, `5 h 10 m`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.micros().saturating_sub(since.micros()).max(0) / MICROS_PER_SECOND;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} m {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} m", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A point in time as it is given on the command line: `2026-11-24T10:00:00Z`, or a duration back from now: `90m`.
pub(crate) fn parse_since(text: &str) -> Result<Timestamp, String> {
    since(text, Timestamp::now())
}

fn since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(Span(back)) = text.parse::<Span>() {
        // No span is longer than a hundred years.
        let micros = i64::try_from(back.as_micros()).unwrap_or(i64::MAX);
        return Ok(Timestamp::from_micros(now.micros().saturating_sub(micros)));
    }
    parse_rfc3339(text).ok_or_else(|| {
        "expected a time such as 2026-11-24T10:00:00Z or 2026-11-24T10:00:00+01:00, or a duration back from now such \
         as 90m or 2h"
            .to_owned()
    })
}

/// Reads a time as RFC 3339 has it; a blank may stand for the `T`, as [`utc`] prints it.
fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let clock = rest.strip_prefix(['T', 't', ' '])?;
    let mut fields = date.split('-');
    let (year, month, day) = (
        number(fields.next()?, 4)?,
        number(fields.next()?, 2)?,
        number(fields.next()?, 2)?,
    );
    let (clock, zone) = clock.split_at_checked(8)?;
    let mut fields = clock.split(':');
    let (hour, minute, second) = (
        number(fields.next()?, 2)?,
        number(fields.next()?, 2)?,
        number(fields.next()?, 2)?,
    );
    let is_valid = (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        // A leap second.
        && second <= 60;
    if !is_valid {
        return None;
    }
    let (micros, zone) = match zone.strip_prefix('.') {
        None => (0, zone),
        Some(rest) => {
            let digits = rest.len()
                - rest
                    .trim_start_matches(|digit: char| digit.is_ascii_digit())
                    .len();
            let (fraction, zone) = rest.split_at(digits);
            // Digits beyond the microsecond are cut off.
            let known = fraction.get(..digits.min(6))?;
            (number(&format!("{known:0<6}"), 6).filter(|_| digits > 0)?, zone)
        }
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - zone_seconds(zone)?;
    Some(Timestamp::from_micros(seconds * MICROS_PER_SECOND + micros))
}

/// Seconds that a time zone is ahead of UTC: `Z`, `+01:00`.
fn zone_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// A number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let next = if month == 12 {
        days(year + 1, 1, 1)
    } else {
        days(year, month + 1, 1)
    };
    next - days(year, month, 1)
}

/// Days from 1970-01-01 to a date: the `days_from_civil` of the algorithms that [`date`] names.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar: the `civil_from_days` of
/// Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(i64, &str); 4] = [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
        (1_795_478_709_123_456, "2026-11-24T00:05:09.123456Z"),
    ];

    #[test]
    fn times_are_printed_in_utc_before_and_after_the_epoch_and_on_leap_days() {
        for (micros, text) in KNOWN {
            let time = Timestamp::from_micros(micros);
            assert_eq!(rfc3339(time), text);
            assert_eq!(utc(time), format!("{} {}Z", &text[..10], &text[11..23]));
        }
    }

    #[test]
    fn times_of_any_year_are_written_as_postgresql_writes_them() {
        assert_eq!(
            timestamp(-62_135_596_800_000_000, ""),
            "0001-01-01T00:00:00.000000"
        );
        assert_eq!(
            timestamp(-62_135_596_800_000_001, "Z"),
            "0001-12-31T23:59:59.999999Z BC"
        );
        assert_eq!(
            timestamp(1_000_000_000_000_000_000, "Z"),
            "33658-09-27T01:46:40.000000Z"
        );
        assert_eq!(
            (day(-719_162), day(-719_163)),
            ("0001-01-01".to_owned(), "0001-12-31 BC".to_owned())
        );
        assert_eq!(time_of_day(MICROS_PER_DAY), "24:00:00.000000");
    }

    #[test]
    fn a_time_is_read_as_it_is_printed_and_in_other_zones_and_with_fewer_digits() {
        let now = Timestamp::from_micros(1_795_478_709_123_456);
        for (micros, text) in KNOWN {
            assert_eq!(since(text, now), Ok(Timestamp::from_micros(micros)));
        }
        assert_eq!(since(&utc(now), now).unwrap().micros(), 1_795_478_709_123_000);
        for text in [
            "2026-11-24T00:05:09Z",
            "2026-11-24t01:35:09+01:30",
            "2026-11-23 23:05:09.0000009-01:00",
        ] {
            assert_eq!(
                since(text, now).unwrap().micros(),
                1_795_478_709_000_000,
                "{text}"
            );
        }
    }

    #[test]
    fn a_duration_counts_back_from_now() {
        let now = Timestamp::from_micros(10_000_000_000);
        assert_eq!(since("90m", now), Ok(Timestamp::from_micros(4_600_000_000)));
        assert_eq!(since("1us", now), Ok(Timestamp::from_micros(9_999_999_999)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "90",
            "2026-11-24",
            "2026-11-24T10:00:00",
            "2026-02-29T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T10:00:00.Z",
            "2026-11-24T10:00:00+1:00",
            "2026-11-24T10:00:00Ä",
            "+026-11-24T10:00:00Z",
        ] {
            let error = since(text, Timestamp::from_micros(0)).unwrap_err();
            assert!(error.contains("2026-11-24T10:00:00Z"), "{text}: {error}");
        }
    }

    #[test]
    fn ages_are_told_in_two_units_and_never_negative() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * MICROS_PER_SECOND);
        for (seconds, text) in [
            (-5, "0 s"),
            (59, "59 s"),
            (61, "1 m 1 s"),
            (18_600, "5 h 10 m"),
            (3 * 86_400 + 7_200, "3 d 2 h"),
        ] {
            assert_eq!(age(at(0), at(seconds)), text);
        }
    }
}
