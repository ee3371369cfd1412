//! Random JSON whose meaning the test knows: made as a tree, written as a feed might write it (odd spaces, escapes of every
//! kind, keys that stand twice), and once more plainly, as what must be read back.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Multiplies the random cases of the tests.
const CASES_VARIABLE: &str = "SOCKET_EL_CASES";
/// Repeats the cases of a run that failed: it says which number to give.
const SEED_VARIABLE: &str = "SOCKET_EL_SEED";

/// So many times as many cases as usual.
pub(crate) fn times() -> usize {
    let given = std::env::var(CASES_VARIABLE).ok();
    given.map_or(1, |times| {
        times
            .parse()
            .unwrap_or_else(|_| panic!("{CASES_VARIABLE} is no number"))
    })
}

/// The dice of a test. The seed is printed, which `cargo test` shows when the test fails.
pub(crate) fn dice() -> StdRng {
    let given = std::env::var(SEED_VARIABLE).ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("{SEED_VARIABLE}={seed} repeats these cases");
    StdRng::seed_from_u64(seed)
}

/// One of these.
pub(crate) fn one<'a, T>(dice: &mut StdRng, of: &'a [T]) -> &'a T {
    &of[dice.random_range(0..of.len())]
}

/// Whether something happens that happens once in `times`.
pub(crate) fn once_in(dice: &mut StdRng, times: u32) -> bool {
    dice.random_range(0..times) == 0
}

/// A JSON value.
#[derive(Clone, Debug)]
pub(crate) enum Json {
    /// `null`, `true`, `false`, or a number as it is written.
    Plain(String),
    Text(String),
    List(Vec<Json>),
    /// Of a key that stands twice the last value counts.
    Object(Vec<(String, Json)>),
}

/// What becomes of NUL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NulRule {
    Replaced,
    LeftOut,
}

impl Json {
    pub(crate) fn null() -> Self {
        Self::Plain("null".to_owned())
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Plain(text) if text == "null")
    }

    /// The value that counts of a key.
    pub(crate) fn member(&self, key: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let found = members.iter().rev().find(|(known, _)| known == key);
        found.map(|(_, value)| value)
    }

    /// Whether a NUL stands anywhere, keys included.
    pub(crate) fn has_nul(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Text(text) => text.contains('\0'),
            Self::List(items) => items.iter().any(Self::has_nul),
            Self::Object(members) => members
                .iter()
                .any(|(key, value)| key.contains('\0') || value.has_nul()),
        }
    }

    /// As a feed might write it.
    pub(crate) fn written(&self, dice: &mut StdRng) -> String {
        let mut out = String::new();
        self.write(dice, &mut out);
        out
    }

    fn write(&self, dice: &mut StdRng, out: &mut String) {
        space(dice, out);
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::Text(text) => quote(dice, text, out),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(dice, out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    space(dice, out);
                    quote(dice, key, out);
                    space(dice, out);
                    out.push(':');
                    value.write(dice, out);
                }
                out.push('}');
            }
        }
        space(dice, out);
    }

    /// What it means, with each key once and without NUL.
    pub(crate) fn meant(&self, rule: NulRule) -> Self {
        let text = |text: &str| match rule {
            NulRule::Replaced => text.replace('\0', "\u{FFFD}"),
            NulRule::LeftOut => text.replace('\0', ""),
        };
        match self {
            Self::Plain(text) => Self::Plain(text.clone()),
            Self::Text(inside) => Self::Text(text(inside)),
            Self::List(items) => Self::List(items.iter().map(|item| item.meant(rule)).collect()),
            Self::Object(members) => {
                let mut meant: Vec<(String, Self)> = Vec::new();
                for (key, value) in members {
                    let (key, value) = (text(key), value.meant(rule));
                    match meant.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, known)) => *known = value,
                        None => meant.push((key, value)),
                    }
                }
                Self::Object(meant)
            }
        }
    }

    /// The same of a record: its keys, which must not become those of others, lose nothing.
    pub(crate) fn record_meant(&self, rule: NulRule) -> Self {
        let Self::Object(members) = self else {
            return self.meant(rule);
        };
        let members = members.iter();
        let kept = members.map(|(key, value)| (key.replace('\0', "\u{FFFD}"), value.meant(rule)));
        Self::Object(kept.collect()).meant(NulRule::Replaced)
    }

    /// Plainly.
    pub(crate) fn plain(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Plain(text) => text.clone(),
            Self::Text(text) => quoted(text),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::plain).collect();
                format!("[{}]", items.join(","))
            }
            Self::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{}:{}", quoted(key), value.plain()))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

fn space(dice: &mut StdRng, out: &mut String) {
    if once_in(dice, 8) {
        let spaces = *one(dice, &[" ", "\t", "\r\n", "  "]);
        out.push_str(spaces);
    }
}

/// Writes a string with escapes where they must be, and where they need not.
fn quote(dice: &mut StdRng, text: &str, out: &mut String) {
    let always = once_in(dice, 16);
    out.push('"');
    for character in text.chars() {
        let short = match character {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '/' => Some("\\/"),
            '\u{8}' => Some("\\b"),
            '\u{c}' => Some("\\f"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            _ => None,
        };
        let must = matches!(character, '"' | '\\') || character < ' ';
        let escaped = must || always || once_in(dice, 64);
        match short {
            Some(short) if escaped && dice.random() => out.push_str(short),
            _ if escaped => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let digits = format!("{unit:04x}");
                    out.push_str("\\u");
                    out.push_str(&if dice.random() {
                        digits.to_uppercase()
                    } else {
                        digits
                    });
                }
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// A string of any kind.
pub(crate) fn text(dice: &mut StdRng) -> String {
    let length = *one(dice, &[0, 1, 2, 3, 5, 8, 40]);
    let of: &[char] = match dice.random_range(0..5) {
        0 => &['a', 'b', 'z', '0', '9', ' '],
        1 => &['ä', 'ß', '😀', '\u{FFFD}', '\u{10FFFF}', '\u{E000}', '中'],
        2 => &['"', '\\', '/', '\n', '\t', '\u{1}', '\u{7f}', '\'', '{', '['],
        3 if once_in(dice, 4) => &['\0', 'x', '\\', 'u', '0'],
        _ => &['a', '1', '.', '-', ':', 'T', 'e', '\\', 'u'],
    };
    (0..length).map(|_| *one(dice, of)).collect()
}

/// Digits without a leading 0.
pub(crate) fn digits(dice: &mut StdRng, most: usize) -> String {
    let length = dice.random_range(1..=most);
    let mut digits: String = (0..length)
        .map(|_| char::from(b'0' + dice.random_range(0..10_u8)))
        .collect();
    if length > 1 && digits.starts_with('0') {
        digits.replace_range(..1, "7");
    }
    digits
}

/// A number as JSON writes them, with so many digits at most on both sides.
pub(crate) fn number(dice: &mut StdRng, before: usize, after: usize) -> String {
    let sign = *one(dice, &["", "-"]);
    let integer = digits(dice, before);
    let fraction = if after > 0 && dice.random() {
        let count = dice.random_range(1..=after);
        let digits: String = (0..count)
            .map(|_| char::from(b'0' + dice.random_range(0..10_u8)))
            .collect();
        format!(".{digits}")
    } else {
        String::new()
    };
    format!("{sign}{integer}{fraction}")
}

/// Any value at all, with so many levels below it at most.
pub(crate) fn any(dice: &mut StdRng, levels: u32) -> Json {
    match dice.random_range(0..if levels == 0 { 10 } else { 14 }) {
        0 => Json::null(),
        1 => Json::Plain(dice.random::<bool>().to_string()),
        2 => Json::Plain(dice.random::<i64>().to_string()),
        3 => Json::Plain(dice.random::<i8>().to_string()),
        4 => Json::Plain(number(dice, 6, 9)),
        5 => {
            let number = number(dice, 40, 40);
            let exponent = one(dice, &["e1", "E+30", "e-30", "e0", ""]);
            Json::Plain(format!("{number}{exponent}"))
        }
        6 => Json::Text(number(dice, 12, 8)),
        7 => Json::Plain(
            (*one(
                dice,
                &[
                    "-0",
                    "0.0",
                    "1e308",
                    "-1e-400",
                    "9007199254740993",
                    "9223372036854775808",
                    "-9223372036854775808",
                    "18446744073709551616",
                    "1e131071",
                    "1e-16383",
                ],
            ))
            .to_owned(),
        ),
        8 | 9 => Json::Text(text(dice)),
        10 | 11 => {
            let length = dice.random_range(0..4);
            Json::List((0..length).map(|_| any(dice, levels - 1)).collect())
        }
        _ => {
            let length = dice.random_range(0..4);
            let member = |dice: &mut StdRng| {
                let key = if once_in(dice, 3) {
                    text(dice)
                } else {
                    (*one(dice, &["a", "b", "c"])).to_owned()
                };
                (key, any(dice, levels - 1))
            };
            Json::Object((0..length).map(|_| member(dice)).collect())
        }
    }
}

/// A text with one mistake: a character that is gone, doubled, or another.
pub(crate) fn spoiled(dice: &mut StdRng, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return "x".to_owned();
    }
    let at = dice.random_range(0..characters.len());
    match dice.random_range(0..3) {
        0 => {
            characters.remove(at);
        }
        1 => characters.insert(at, characters[at]),
        _ => {
            characters[at] = *one(
                dice,
                &[
                    '0', '9', '-', '+', '.', ':', 'T', ' ', 'e', '/', '\\', 'ä', '"', '}',
                ],
            );
        }
    }
    characters.into_iter().collect()
}
