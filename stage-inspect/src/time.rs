//! Times for people: UTC, to the millisecond.

use socket_el::record::Timestamp;

const MILLIS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

/// The time as `2026-11-24 00:05:09.123Z`.
pub(crate) fn utc(time: Timestamp) -> String {
    let millis = time.micros().div_euclid(1000);
    let (year, month, day) = date(millis.div_euclid(MILLIS_PER_DAY));
    let of_day = millis.rem_euclid(MILLIS_PER_DAY);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03}Z")
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

    #[test]
    fn times_are_printed_in_utc_before_and_after_the_epoch_and_on_leap_days() {
        for (micros, text) in [
            (0, "1970-01-01 00:00:00.000Z"),
            (-1, "1969-12-31 23:59:59.999Z"),
            (951_782_400_000_000, "2000-02-29 00:00:00.000Z"),
            (1_795_478_709_123_456, "2026-11-24 00:05:09.123Z"),
        ] {
            assert_eq!(utc(Timestamp::from_micros(micros)), text);
        }
    }
}
