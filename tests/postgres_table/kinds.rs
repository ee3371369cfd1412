//! The types that a column can have: values that such a column holds for certain, and how to tell in SQL that it holds what
//! the message said.
//!
//! The server is the judge: what we have written in binary is compared with what its own reading of the message's text gives.

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::random::{Json, any, digits, number, once_in, one, text};

/// A type.
pub(crate) struct Kind {
    /// As `columns` declares it.
    pub(crate) declared: &'static str,
    /// As `CREATE TABLE` names it.
    pub(crate) sql: &'static str,
    /// Whether `v`, a value of the column, is what `j`, a `json` whose text is `s`, says.
    is_same: &'static str,
    /// A value that fits.
    fitting: fn(&mut StdRng) -> Json,
}

const NUMBER: &str = r"s ~ '^-?[0-9.]+([eE][-+]?[0-9]+)?$'";

/// All of them.
pub(crate) const KINDS: [Kind; 27] = [
    kind("boolean", "boolean", "v = s::boolean", |dice| {
        let word = *one(dice, &["true", "false", "t", "f"]);
        if word.len() > 1 && dice.random() {
            Json::Plain(word.to_owned())
        } else {
            Json::Text(word.to_owned())
        }
    }),
    kind("smallint", "smallint", "v = s::numeric", |dice| {
        let whole: i16 = dice.random();
        integer(dice, whole.into())
    }),
    kind("integer", "integer", "v = s::numeric", |dice| {
        let whole = *one(dice, &[i32::MIN, i32::MAX, 0, 7, -1_000_000]);
        integer(dice, whole.into())
    }),
    kind("bigint", "bigint", "v = s::numeric", |dice| {
        let random = dice.random();
        let whole = *one(dice, &[i64::MIN, i64::MAX, 9_007_199_254_740_993, random]);
        integer(dice, whole)
    }),
    kind("numeric", "numeric", "v::text = s::numeric::text", |dice| {
        let exponent = *one(dice, &["", "", "e7", "E-9", "e+120", "e-300"]);
        let number = number(dice, 50, 50);
        quoted_or_not(dice, format!("{number}{exponent}"))
    }),
    kind("numeric(20,8)", "numeric(20,8)", "v = s::numeric", |dice| {
        let number = number(dice, 12, 8);
        quoted_or_not(dice, number)
    }),
    kind("numeric(4,4)", "numeric(4,4)", "v = s::numeric", |dice| {
        let fraction = digits(dice, 4);
        quoted_or_not(dice, format!("-0.{fraction}00"))
    }),
    kind("real", "real", "v = s::float4", |dice| {
        let exponent = *one(dice, &["", "e30", "e-30"]);
        let number = format!("-{}.{}{exponent}", digits(dice, 3), digits(dice, 9));
        quoted_or_not(dice, number)
    }),
    kind("double precision", "double precision", "v = s::float8", |dice| {
        let small = dice.random_range(-(1_i64 << 53)..=1 << 53).to_string();
        let large = format!("{}.5e290", digits(dice, 9));
        let fraction = format!("{}.{}", digits(dice, 12), digits(dice, 20));
        let number = one(dice, &[small, large, fraction]).clone();
        quoted_or_not(dice, number)
    }),
    kind("text", "text", TEXT, |dice| match dice.random_range(0..4) {
        0 => any_value(dice),
        _ => Json::Text(text(dice)),
    }),
    kind("varchar(5)", "varchar(5)", TEXT, |dice| {
        Json::Text(text(dice).chars().take(5).collect())
    }),
    kind("json", "json", "v::jsonb = j::jsonb", any_value),
    kind("jsonb", "jsonb", "v = j::jsonb", any_value),
    kind("uuid", "uuid", "v = s::uuid", |dice| {
        let id = uuid(dice);
        Json::Text(match dice.random_range(0..3) {
            0 => id.replace('-', ""),
            1 => id.to_uppercase(),
            _ => id,
        })
    }),
    kind("timestamptz", "timestamptz", "v = s::timestamptz", |dice| {
        let offset = offset(dice);
        Json::Text(format!("{}{offset}", moment(dice)))
    }),
    kind("timestamptz(s)", "timestamptz", EPOCH_S, |dice| epoch(dice, 9, 9)),
    kind("timestamptz(ms)", "timestamptz", EPOCH_MS, |dice| {
        epoch(dice, 12, 6)
    }),
    kind("timestamptz(us)", "timestamptz", EPOCH_US, |dice| {
        epoch(dice, 15, 3)
    }),
    kind("timestamptz(ns)", "timestamptz", EPOCH_NS, |dice| {
        epoch(dice, 18, 0)
    }),
    kind("timestamp", "timestamp", "v = s::timestamp", |dice| {
        let end = *one(dice, &["", "Z", "+00:00"]);
        Json::Text(format!("{}{end}", moment(dice)))
    }),
    kind("timestamp(ms)", "timestamp", TIMESTAMP_MS, |dice| {
        epoch(dice, 12, 6)
    }),
    kind("date", "date", "v = s::date", |dice| Json::Text(day(dice))),
    kind("time", "time", "v = s::time", |dice| {
        Json::Text(time_of_day(dice))
    }),
    kind("inet", "inet", "v = s::inet", |dice| {
        let bits = dice.random_range(0..=32);
        Json::Text(address(dice, bits, true))
    }),
    kind("cidr", "cidr", "v = s::cidr", |dice| {
        let bits = dice.random_range(0..=32);
        Json::Text(address(dice, bits, false))
    }),
    kind("bytea", "bytea", "v = s::bytea", |dice| {
        let bytes: Vec<_> = (0..dice.random_range(0..20))
            .map(|_| format!("{:02x}", dice.random::<u8>()))
            .collect();
        Json::Text(format!("\\x{}", bytes.concat()))
    }),
    kind("bytea(base64)", "bytea", "v = decode(s, 'base64')", |dice| {
        let text = *one(dice, &["", "AA==", "AP8=", "////", "AAECAwQFBgc="]);
        Json::Text(text.to_owned())
    }),
];

/// What is no string stands there as JSON.
const TEXT: &str =
    "CASE WHEN json_typeof(j) IN ('object', 'array') THEN v::text::jsonb = j::jsonb ELSE v::text = s END";
const EPOCH_S: &str = "CASE WHEN isnumber THEN extract(epoch FROM v) * 1e6 = round(s::numeric * 1e6) ELSE v = s::timestamptz END";
const EPOCH_MS: &str = "CASE WHEN isnumber THEN extract(epoch FROM v) * 1e6 = round(s::numeric * 1e3) ELSE v = s::timestamptz END";
const EPOCH_US: &str =
    "CASE WHEN isnumber THEN extract(epoch FROM v) * 1e6 = round(s::numeric) ELSE v = s::timestamptz END";
const EPOCH_NS: &str = "CASE WHEN isnumber THEN extract(epoch FROM v) * 1e6 = round(s::numeric / 1e3) ELSE v = s::timestamptz END";
const TIMESTAMP_MS: &str =
    "CASE WHEN isnumber THEN extract(epoch FROM v) * 1e6 = round(s::numeric * 1e3) ELSE v = s::timestamp END";

/// Types that only others give to columns. What can't be written stands in `_extra`.
pub(crate) const OTHERS: [Kind; 7] = [
    kind(
        "",
        "char(4)",
        "CASE WHEN json_typeof(j) IN ('object', 'array') THEN v::jsonb = j::jsonb ELSE v::text = rtrim(s, ' ') END",
        |dice| Json::Text((*one(dice, &["", "a", "äöüß", "1234"])).to_owned()),
    ),
    kind("", "percent", "v = s::numeric", |dice| {
        let number = number(dice, 3, 2);
        quoted_or_not(dice, number)
    }),
    kind("", "mood", "v::text = s", |dice| {
        Json::Text((*one(dice, &["sad", "it's ok", "\u{1F600}"])).to_owned())
    }),
    kind("", "citext", TEXT, |dice| Json::Text(text(dice))),
    kind(
        "",
        "timestamptz(3)",
        "abs(extract(epoch FROM v - s::timestamptz)) <= 0.0005",
        |dice| Json::Text(format!("{}Z", moment(dice))),
    ),
    kind("", "interval", "false", |_| Json::null()),
    kind("", "int4range", "false", |_| Json::null()),
];

const fn kind(
    declared: &'static str,
    sql: &'static str,
    is_same: &'static str,
    fitting: fn(&mut StdRng) -> Json,
) -> Kind {
    Kind {
        declared,
        sql,
        is_same,
        fitting,
    }
}

/// A type that a column has, or the elements of its array.
#[derive(Clone, Copy)]
pub(crate) struct ColumnKind {
    pub(crate) kind: &'static Kind,
    pub(crate) array: bool,
}

impl ColumnKind {
    pub(crate) fn any(dice: &mut StdRng) -> Self {
        Self {
            kind: &KINDS[dice.random_range(0..KINDS.len())],
            array: once_in(dice, 5),
        }
    }

    pub(crate) fn text() -> Self {
        let kind = KINDS.iter().find(|kind| kind.declared == "text").unwrap();
        Self { kind, array: false }
    }

    pub(crate) fn declared(self) -> String {
        format!("{}{}", self.kind.declared, self.brackets())
    }

    pub(crate) fn sql(self) -> String {
        format!("{}{}", self.kind.sql, self.brackets())
    }

    fn brackets(self) -> &'static str {
        if self.array { "[]" } else { "" }
    }

    /// A value that such a column holds.
    pub(crate) fn fitting(self, dice: &mut StdRng) -> Json {
        if !self.array {
            return (self.kind.fitting)(dice);
        }
        let item = |dice: &mut StdRng| {
            if once_in(dice, 6) {
                Json::null()
            } else {
                (self.kind.fitting)(dice)
            }
        };
        let length = dice.random_range(0..4);
        Json::List((0..length).map(|_| item(dice)).collect())
    }

    /// In SQL, whether the column's value is what the `json` says.
    pub(crate) fn is_same(self, column: &str, json: &str) -> String {
        is_same(self.kind.is_same, self.array, column, json)
    }
}

/// The same for a type that the values have suggested.
pub(crate) fn is_same_inferred(column_type: &str, column: &str, json: &str) -> String {
    let is_same_value = match column_type {
        "boolean" => "v = s::boolean",
        "bigint" | "numeric" => "v = s::numeric",
        "double precision" => "v = s::float8",
        "text" => "v = s",
        "jsonb" => "v = j::jsonb",
        other => panic!("{other} is not inferred"),
    };
    is_same(is_same_value, false, column, json)
}

fn is_same(is_same: &str, array: bool, column: &str, json: &str) -> String {
    let one = |column: &str, json: &str| {
        format!(
            "(SELECT {} FROM (SELECT {column} AS v, {json} AS j, {json} #>> '{{}}' AS s) x)",
            is_same.replace("isnumber", NUMBER)
        )
    };
    if !array {
        return one(column, json);
    }
    format!(
        "(json_typeof({json}) = 'array' AND coalesce(array_ndims({column}), 1) = 1 \
         AND (SELECT coalesce(bool_and(CASE WHEN e.json IS NULL OR a.n IS NULL THEN false \
         WHEN e.json::text = 'null' THEN a.value IS NULL ELSE coalesce({}, false) END), true) \
         FROM unnest({column}) WITH ORDINALITY AS a(value, n) \
         FULL JOIN json_array_elements({json}) WITH ORDINALITY AS e(json, n) USING (n)))",
        one("a.value", "e.json")
    )
}

fn any_value(dice: &mut StdRng) -> Json {
    loop {
        let value = any(dice, 3);
        if !value.is_null() {
            return value;
        }
    }
}

fn quoted_or_not(dice: &mut StdRng, number: String) -> Json {
    if once_in(dice, 3) {
        Json::Text(number)
    } else {
        Json::Plain(number)
    }
}

/// A whole number, in one of the ways to write it.
fn integer(dice: &mut StdRng, whole: i64) -> Json {
    let text = match dice.random_range(0..4) {
        0 => format!("{whole}.00"),
        1 if whole % 10 == 0 && whole != 0 => format!("{}e1", whole / 10),
        _ => whole.to_string(),
    };
    quoted_or_not(dice, text)
}

fn day(dice: &mut StdRng) -> String {
    let year = *one(dice, &[1, 4, 100, 1600, 1899, 1970, 1999, 2000, 2024, 2100, 9999]);
    let month = dice.random_range(1..=12);
    let last = match month {
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let day = if dice.random() {
        last
    } else {
        dice.random_range(1..=last)
    };
    format!("{year:04}-{month:02}-{day:02}")
}

fn time_of_day(dice: &mut StdRng) -> String {
    let (hour, minute) = (dice.random_range(0..24), dice.random_range(0..60));
    if once_in(dice, 6) {
        return format!("{hour:02}:{minute:02}");
    }
    let second = dice.random_range(0..60);
    let fraction = match dice.random_range(0..4) {
        0 => String::new(),
        1 => format!(".{:03}", dice.random_range(0..1_000)),
        2 => format!(".{:06}", dice.random_range(0..1_000_000)),
        _ => {
            let count = dice.random_range(1..=9);
            let digits: String = (0..count)
                .map(|_| char::from(b'0' + *one(dice, &[0, 4, 5, 9])))
                .collect();
            format!(".{digits}")
        }
    };
    format!("{hour:02}:{minute:02}:{second:02}{fraction}")
}

fn moment(dice: &mut StdRng) -> String {
    let between = *one(dice, &["T", " "]);
    format!("{}{between}{}", day(dice), time_of_day(dice))
}

fn offset(dice: &mut StdRng) -> String {
    let sign = *one(dice, &["+", "-"]);
    let (hours, minutes) = (dice.random_range(0..16), dice.random_range(0..60));
    match dice.random_range(0..4) {
        0 => "Z".to_owned(),
        1 => format!("{sign}{hours:02}"),
        2 => format!("{sign}{hours:02}{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}"),
    }
}

/// A count since the epoch, or a time as text.
fn epoch(dice: &mut StdRng, before: usize, after: usize) -> Json {
    if once_in(dice, 5) {
        return Json::Text(format!("{}Z", moment(dice)));
    }
    let count = number(dice, before, after);
    quoted_or_not(dice, count)
}

fn uuid(dice: &mut StdRng) -> String {
    let digits = format!("{:032x}", dice.random::<u128>());
    let parts = [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ];
    parts.join("-")
}

/// An address with a network part of so many bits; behind it nothing is set unless `host` allows it.
fn address(dice: &mut StdRng, bits: u32, host: bool) -> String {
    let mask = |width: u32, bits: u32| -> u128 {
        if host {
            u128::MAX
        } else {
            u128::MAX.checked_shl(width - bits).unwrap_or_default()
        }
    };
    if dice.random() {
        let masked = dice.random::<u32>() & u32::try_from(mask(32, bits) & u128::from(u32::MAX)).unwrap();
        return format!("{}/{bits}", std::net::Ipv4Addr::from_bits(masked));
    }
    let bits = bits * 4;
    let masked = dice.random::<u128>() & mask(128, bits);
    format!("{}/{bits}", std::net::Ipv6Addr::from_bits(masked))
}
