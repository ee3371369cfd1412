//! Bytes in strings: hexadecimal digits behind `\x`, or base64 where that is declared.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `\x00ff`.
pub(super) fn hex(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let digits = text.strip_prefix("\\x")?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    for pair in digits.as_bytes().chunks_exact(2) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        let byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        out.push(u8::try_from(byte).ok()?);
    }
    Some(())
}

/// Base64 of the usual alphabet, with its padding.
pub(super) fn base64(text: &str, out: &mut Vec<u8>) -> Option<()> {
    STANDARD.decode_vec(text, out).ok()
}
