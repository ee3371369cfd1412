//! Text: the escapes of JSON strings resolved, and NUL, which PostgreSQL's text can't hold, replaced or left out.

use std::borrow::Cow;

use super::super::mapping::Nul;

/// What stands for `\u0000`.
const REPLACEMENT: &str = "\u{FFFD}";

/// Appends what a string that was checked means: `escaped` is what stands between its quotes.
pub(super) fn unescape_into(escaped: &str, rule: Nul, out: &mut Vec<u8>) {
    let mut rest = escaped;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let sequence = &rest.as_bytes()[at + 1..];
        let (letter, mut length) = (sequence.first().copied(), 2);
        match letter {
            Some(b'u') => {
                let (character, taken) = unicode(&rest.as_bytes()[at..]);
                length = taken;
                match character {
                    '\0' if rule == Nul::Strip => {}
                    '\0' => out.extend_from_slice(REPLACEMENT.as_bytes()),
                    character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(other) => out.push(other),
            None => {}
        }
        rest = rest.get(at + length..).unwrap_or_default();
    }
    out.extend_from_slice(rest.as_bytes());
}

/// What a string that was checked means.
pub(in super::super) fn unescape(escaped: &str, rule: Nul) -> Cow<'_, str> {
    if !escaped.contains('\\') {
        return Cow::Borrowed(escaped);
    }
    let mut out = Vec::with_capacity(escaped.len());
    unescape_into(escaped, rule, &mut out);
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The character of a `\uXXXX`, or of two that are a surrogate pair, and how many bytes it takes.
fn unicode(text: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(text.get(at + 2..at + 6)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let high = unit(0).unwrap_or_default();
    let (code, length) = match high {
        0xD800..=0xDBFF => {
            let low = unit(6).unwrap_or_default();
            (
                0x1_0000 + ((high - 0xD800) << 10) + (low.wrapping_sub(0xDC00) & 0x3FF),
                12,
            )
        }
        code => (code, 6),
    };
    (
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
        length,
    )
}

/// Whether there are at most `most` characters.
pub(super) fn is_within(text: &[u8], most: usize) -> bool {
    // Bytes that go on with a character begin with the bits 10.
    text.len() <= most || text.iter().filter(|&&byte| byte & 0xC0 != 0x80).count() <= most
}
