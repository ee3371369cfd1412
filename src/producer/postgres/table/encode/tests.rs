//! The encoders against known bytes. Everything else about them is proved by reading back from a real PostgreSQL
//! (`tests/postgres_table.rs`).

use proptest::prelude::*;

use super::super::mapping::Nul;
use super::super::record::Value;
use super::super::walk::Kind;
use super::short::Short;
use super::{Decimal, Encoder, datetime, json};

fn value(raw: &str, kind: Kind) -> Value<'_> {
    Value {
        raw,
        kind,
        nul: raw.contains("\\u0000"),
        escaped: raw.contains('\\'),
        rule: Nul::Replace,
    }
}

fn numeric(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(Decimal::parse(text).unwrap().write(&mut out), "{text}");
    out
}

#[test]
fn numeric_has_the_servers_binary_form() {
    // Count, weight, sign, scale, digits.
    assert_eq!(numeric("0.00"), [0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(
        numeric("-12345.670"),
        [0, 3, 0, 1, 0x40, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1A, 0x2C]
    );
    assert_eq!(numeric("1e-5"), [0, 1, 0xFF, 0xFE, 0, 0, 0, 5, 0x03, 0xE8]);
    assert_eq!(numeric("12e7"), [0, 2, 0, 2, 0, 0, 0, 0, 0, 1, 0x07, 0xD0]);
}

#[test]
fn only_the_grammar_of_json_makes_a_number() {
    for text in [
        "", "-", "+1", "01", "1.", ".1", "1e", "1e+", " 1", "1 ", "0x1", "1_000", "NaN", "1.2.3", "1e1e1",
        "١",
    ] {
        assert!(Decimal::parse(text).is_none(), "{text}");
    }
}

#[test]
fn whole_numbers_are_whole_however_they_are_written() {
    for (text, number) in [
        ("1e3", Some(1_000)),
        ("1200e-2", Some(12)),
        ("-0.0", Some(0)),
        ("2.50", None),
        ("9223372036854775807.0", Some(i64::MAX)),
        ("-9223372036854775808e0", Some(i64::MIN)),
        ("9223372036854775808.0", None),
        ("1e19", None),
        ("1e999999999999", None),
    ] {
        assert_eq!(Decimal::parse(text).unwrap().to_i64(), number, "{text}");
    }
}

#[test]
fn days_follow_each_other_through_two_cycles_of_leap_years() {
    let mut expected = datetime::date("0001-01-01").unwrap();
    for year in 1..=801 {
        for month in 1..=12 {
            for day in 1..=31 {
                if let Some(days) = datetime::date(&format!("{year:04}-{month:02}-{day:02}")) {
                    assert_eq!(days, expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }
    assert_eq!(
        expected - datetime::date("0001-01-01").unwrap(),
        2 * 146_097 + 365
    );
    assert_eq!(datetime::date("2000-01-01"), Some(0));
    assert_eq!(datetime::date("1970-01-01"), Some(-10_957));
}

#[test]
fn times_are_read_strictly() {
    for (text, micros) in [
        ("2000-01-01T00:00:00Z", Some(0)),
        ("2000-01-01 00:00Z", Some(0)),
        ("2000-01-01T00:00:00.1234567Z", Some(123_457)),
        ("2000-01-01T00:00:00.123456499z", Some(123_456)),
        ("2000-01-01T02:30:00+02:30", Some(0)),
        ("1999-12-31T22:00:00-0200", Some(0)),
        ("2000-01-01T01:00:00+01", Some(0)),
        ("2000-01-01T00:00:00", None),
        ("2000-01-01T24:00:00Z", None),
        ("2000-01-01T00:00:61Z", None),
        ("2000-01-01T00:00:00.Z", None),
        ("2000-01-01T00:00:00.1234567890Z", None),
        ("2000-01-01T00:00:00+1", None),
        ("2000-01-01T00:00:00+01:", None),
        ("2000-01-01T00:00:00+16:00", None),
        ("2000-01-01", None),
        ("0000-01-01T00:00:00Z", None),
        ("+2000-01-01T00:00:00Z", None),
    ] {
        assert_eq!(datetime::timestamptz(text), micros, "{text}");
    }
    assert_eq!(datetime::timestamp("2000-01-01T00:00:01"), Some(1_000_000));
    assert_eq!(datetime::timestamp("2000-01-01T00:00:01+01:00"), None);
}

#[test]
fn only_a_true_nul_escape_is_replaced() {
    let mut out = Vec::new();
    json::without_nul(r#"["\\u0000","\u0000\\","\\\u0000\n"]"#, Nul::Replace, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"["\\u0000","\ufffd\\","\\\ufffd\n"]"#
    );
}

#[test]
fn a_value_that_does_not_fit_leaves_nothing_behind() {
    for (encoder, raw, kind) in [
        (
            Encoder::Text {
                most: Some(1),
                any: false,
            },
            "\"ab\"",
            Kind::String,
        ),
        (Encoder::Bytea { base64: false }, "\"\\\\x00zz\"", Kind::String),
        (Encoder::Numeric { limit: Some((3, 1)) }, "1.25", Kind::Fraction),
        (Encoder::Unsupported, "1", Kind::Integer),
    ] {
        let mut out = vec![9];
        assert!(!encoder.write(value(raw, kind), &mut out), "{raw}");
        assert_eq!(out, [9]);
    }
}

#[test]
fn counts_since_the_epoch_become_microseconds_to_the_digit() {
    use super::super::column_type::EpochUnit::{Micros, Millis, Nanos, Seconds};
    /// Microseconds from 1970 to 2000.
    const TO_2000: i64 = 946_684_800_000_000;
    for (text, unit, micros) in [
        ("1626992741.012345678", Seconds, Some(1_626_992_741_012_346)),
        ("1626992741012", Millis, Some(1_626_992_741_012_000)),
        ("1.626992741012e12", Millis, Some(1_626_992_741_012_000)),
        ("-1", Micros, Some(-1)),
        ("1499", Nanos, Some(1)),
        ("1500", Nanos, Some(2)),
        ("-1500", Nanos, Some(-2)),
        ("0.4", Nanos, Some(0)),
        ("1e400", Seconds, None),
        ("9999999999999", Seconds, None),
    ] {
        let expected = micros.map(|micros| micros - TO_2000);
        assert_eq!(datetime::from_epoch(text, unit), Some(expected), "{text}");
    }
}

#[test]
fn a_short_number_is_one_of_at_most_19_digits_without_exponent() {
    for text in [
        "0",
        "-0",
        "-12.50",
        "0.000",
        "9999999999999999999",
        "1.234567890123456789",
    ] {
        assert!(Short::parse(text).is_some(), "{text}");
    }
    for text in [
        "12345678901234567890",
        "0.1234567890123456789",
        "1e3",
        "--1",
        "1-",
        "1.2.3",
        "١",
    ] {
        assert!(Short::parse(text).is_none(), "{text}");
    }
}

#[test]
fn a_limit_of_three_digits_ends_before_a_thousand() {
    for (text, fits) in [
        ("999", true),
        ("-999.00", true),
        ("1000", false),
        ("-1000", false),
        ("99.5", false),
    ] {
        assert_eq!(Short::parse(text).unwrap().fits(3, 0), Some(fits), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn short_numbers_mean_what_decimals_and_the_standard_library_read(
        text in prop_oneof![
            4 => "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?",
            2 => "-?(0|[1-9][0-9]{0,7}0{0,8})(\\.0{0,6}[0-9]{0,4}0{0,4}[1-9])?",
            1 => "[-+.e0-9 ]{0,6}",
        ],
        exponent in -3_i64..=6,
        (precision, scale) in (1_u16..=40, -3_i16..=40),
    ) {
        let Some(short) = Short::parse(&text) else {
            return Ok(());
        };
        let decimal = Decimal::parse(&text).expect("it follows the grammar");
        // What is easily told of a short number is right, and what is not is left to the other.
        if let Some(integer) = short.to_i64() {
            prop_assert_eq!(Some(integer), decimal.to_i64());
        }
        if let Some(double) = short.to_f64() {
            prop_assert_eq!(double.to_bits(), text.parse::<f64>().unwrap().to_bits());
        }
        if let Some(shifted) = short.shifted(exponent) {
            prop_assert_eq!(Some(shifted), decimal.shifted(exponent));
        }
        if let Some(fits) = short.fits(precision, scale) {
            prop_assert_eq!(fits, decimal.fits(precision.into(), scale.into()));
        }
        let (mut one, mut other) = (Vec::new(), Vec::new());
        if short.write_numeric(&mut one) {
            prop_assert!(decimal.write(&mut other));
        }
        prop_assert_eq!(one, other);
        // Usual numbers are easy.
        if text.len() <= 15 {
            prop_assert!(short.to_f64().is_some());
            prop_assert!(short.to_i64().is_some() || text.contains('.'));
            prop_assert!(short.write_numeric(&mut Vec::new()));
        }
    }
}
