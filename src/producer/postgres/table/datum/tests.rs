//! What was encoded reads back as what it was.

use proptest::prelude::*;

use super::super::catalog::encoder_of;
use super::super::encode::Decimal;
use super::super::record::Scanned;
use super::*;
use crate::producer::postgres::table::mapping::Nul;

/// Encodes a JSON value for a declared column of this type, and reads the field back with `check`.
fn read_back<T>(column_type: &str, json: &str, check: impl FnOnce(Result<Datum<'_>, DatumError>) -> T) -> T {
    let column_type: ColumnType = column_type.parse().unwrap();
    let mut scanned = Scanned::default();
    let text = scanned.read_whole(json.as_bytes(), Nul::Replace).unwrap();
    let mut tuple = vec![0, 1];
    let fits = encoder_of(column_type, true).write(scanned.whole(text).unwrap(), &mut tuple);
    assert!(fits, "{json} does not fit {column_type}");
    let mut fields = Fields::of(&tuple);
    let checked = check(Datum::read(column_type, fields.next().unwrap()));
    assert_eq!(fields.next(), None);
    checked
}

fn number_text(json: &str) -> String {
    read_back("numeric", json, |datum| match datum {
        Ok(Datum::Numeric(number)) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

fn unscaled(json: &str, scale: u16) -> Option<i128> {
    read_back("numeric", json, |datum| match datum {
        Ok(Datum::Numeric(number)) => number.unscaled(scale),
        other => panic!("{other:?}"),
    })
}

#[test]
fn every_type_reads_back() {
    let network = |text: &str, prefix| {
        Datum::Network(Network {
            address: text.parse().unwrap(),
            prefix,
        })
    };
    let text = Datum::Text;
    let cases: Vec<(&str, &str, Datum<'_>)> = vec![
        ("boolean", "true", Datum::Boolean(true)),
        ("smallint", "-32768", Datum::Integer(-32_768)),
        ("integer", "7", Datum::Integer(7)),
        ("bigint", "9223372036854775807", Datum::Integer(i64::MAX)),
        ("real", "0.5", Datum::Real(0.5)),
        ("double precision", "0.1", Datum::Double(0.1)),
        ("text", r#""a\n\u00e9""#, text("a\né")),
        ("text", "12", text("12")),
        ("varchar(3)", r#""""#, text("")),
        ("json", r#"{"a": 1.0}"#, Datum::Json(r#"{"a": 1.0}"#)),
        ("jsonb", "[null]", Datum::Json("[null]")),
        (
            "uuid",
            r#""00000000-0000-4000-8000-0000000000ff""#,
            Datum::Uuid(Uuid::from_u128(0x4000_8000_0000_0000_00ff)),
        ),
        (
            "timestamptz",
            r#""1970-01-02T02:00:00.000001+01:00""#,
            Datum::Timestamp(90_000_000_001),
        ),
        (
            "timestamp",
            r#""1969-12-31T23:59:59""#,
            Datum::Timestamp(-1_000_000),
        ),
        (
            "timestamptz(ms)",
            "1618677786614",
            Datum::Timestamp(1_618_677_786_614_000),
        ),
        ("date", r#""1969-12-31""#, Datum::Date(-1)),
        ("date", r#""2000-02-29""#, Datum::Date(11_016)),
        ("time", r#""00:00:01.5""#, Datum::Time(1_500_000)),
        ("inet", r#""10.0.0.1""#, network("10.0.0.1", None)),
        ("inet", r#""10.0.0.1/8""#, network("10.0.0.1", Some(8))),
        ("inet", r#""::1""#, network("::1", None)),
        ("cidr", r#""10.0.0.0/8""#, network("10.0.0.0", Some(8))),
        ("cidr", r#""::1""#, network("::1", Some(128))),
        ("bytea", r#""\\x00ff""#, Datum::Bytes(&[0, 255])),
        ("bytea(base64)", r#""AP8=""#, Datum::Bytes(&[0, 255])),
        (
            "bigint[]",
            "[1, null, -2]",
            Datum::List(vec![Datum::Integer(1), Datum::Null, Datum::Integer(-2)]),
        ),
        ("text[]", r#"["", "x"]"#, Datum::List(vec![text(""), text("x")])),
        ("bigint[]", "[]", Datum::List(vec![])),
    ];
    for (column_type, json, expected) in cases {
        read_back(column_type, json, |datum| {
            assert_eq!(datum, Ok(expected), "{json} as {column_type}");
        });
    }
}

#[test]
fn null_reads_back_and_what_has_no_meaning_is_refused() {
    let bigint: ColumnType = "bigint".parse().unwrap();
    assert_eq!(Datum::read(bigint, None), Ok(Datum::Null));
    for short in [&b""[..], b"1234567"] {
        assert_eq!(Datum::read(bigint, Some(short)), Err(DatumError(bigint)));
    }
}

#[test]
fn networks_are_written_as_postgresql_does() {
    for (column_type, json, text) in [
        ("inet", r#""10.0.0.1""#, "10.0.0.1"),
        ("inet", r#""10.0.0.1/8""#, "10.0.0.1/8"),
        ("cidr", r#""10.0.0.1/32""#, "10.0.0.1/32"),
    ] {
        read_back(column_type, json, |datum| match datum {
            Ok(Datum::Network(network)) => assert_eq!(network.to_string(), text),
            other => panic!("{other:?}"),
        });
    }
}

#[test]
fn numbers_are_counted_in_units_of_a_scale_or_not_at_all() {
    for (json, scale, expected) in [
        ("0", 0, Some(0)),
        ("0.000", 5, Some(0)),
        ("1.40", 2, Some(140)),
        ("1.40", 1, Some(14)),
        ("1.40", 0, None),
        ("-12345.6789", 4, Some(-123_456_789)),
        ("-12345.6789", 3, None),
        ("1e4", 0, Some(10_000)),
        ("0.00001306", 8, Some(1_306)),
        ("1e-9", 8, None),
        ("1e-9", 9, Some(1)),
        (
            "99999999999999999999999999999999999999",
            0,
            Some(10_i128.pow(38) - 1),
        ),
        ("100000000000000000000000000000000000000", 0, None),
        ("1e300", 0, None),
        ("1", 38, None),
        ("0.1", 38, Some(10_i128.pow(37))),
    ] {
        assert_eq!(unscaled(json, scale), expected, "{json} by {scale}");
    }
}

#[test]
fn the_digits_that_a_column_needs_are_those_of_its_largest_and_finest_numbers() {
    let mut digits = Digits::default();
    for json in ["0", "12345.6", "-0.00001306", "10000", "-7e2"] {
        read_back("numeric", json, |datum| {
            digits.add(&datum.unwrap());
        });
    }
    assert_eq!((digits.before, digits.after), (5, 8));
    read_back("numeric[]", "[1, 1234567.123456789]", |datum| {
        digits.add(&datum.unwrap());
    });
    assert_eq!((digits.before, digits.after, digits.largest), (7, 9, 0));
    read_back("bigint", "-9223372036854775808", |datum| {
        digits.add(&datum.unwrap());
    });
    assert_eq!((digits.before, digits.largest), (19, 1 << 63));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_number_reads_back_as_it_was_written(text in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?") {
        let is_zero = !text.contains(|digit: char| ('1'..='9').contains(&digit));
        let expected = if is_zero { text.trim_start_matches('-') } else { &text };
        prop_assert_eq!(number_text(&text), expected);
    }

    #[test]
    fn a_number_with_an_exponent_reads_back_as_the_same_one(text in "-?[1-9][0-9]{0,9}(\\.[0-9]{1,9})?[eE][+-]?[0-9]{1,2}") {
        let shown = number_text(&text);
        let (shown, written) = (Decimal::parse(&shown).unwrap(), Decimal::parse(&text).unwrap());
        prop_assert!(shown.is_same(&written));
    }

    #[test]
    fn a_count_of_units_is_the_number_without_its_point(whole in 0_u64.., fraction in "[0-9]{1,18}", more in 0_u16..2) {
        let scale = u16::try_from(fraction.len()).unwrap();
        let expected: i128 = format!("{whole}{fraction}").parse().unwrap();
        let units = expected.checked_mul(10_i128.pow(more.into()));
        let units = units.filter(|&units| units < 10_i128.pow(38));
        prop_assert_eq!(unscaled(&format!("{whole}.{fraction}"), scale + more), units);
    }

    #[test]
    fn no_bytes_make_the_reading_panic(bytes: Vec<u8>) {
        for column_type in ["boolean", "numeric", "jsonb", "uuid", "timestamptz", "date", "inet", "numeric[]", "text"] {
            let _ = Datum::read(column_type.parse().unwrap(), Some(&bytes)).map(|datum| match datum {
                Datum::Numeric(number) => (number.to_string().len(), number.unscaled(9)),
                _ => (0, None),
            });
        }
        prop_assert!(Fields::of(&bytes).count() <= bytes.len());
    }
}
