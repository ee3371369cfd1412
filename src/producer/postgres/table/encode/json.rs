//! JSON columns: the raw text as the message has it, but for `\u0000`, which `jsonb` refuses.

use super::super::mapping::Nul;
use super::super::record::Value;

/// Appends a value's text.
pub(in super::super) fn write_text(value: Value<'_>, out: &mut Vec<u8>) {
    if value.nul {
        without_nul(value.raw, value.rule, out);
    } else {
        out.extend_from_slice(value.raw.as_bytes());
    }
}

/// Appends text that is JSON, or a part of it, with every `\u0000` made `\ufffd` or left out.
pub(in super::super) fn without_nul(raw: &str, rule: Nul, out: &mut Vec<u8>) {
    let mut rest = raw.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let (before, escape) = rest.split_at(at);
        out.extend_from_slice(before);
        rest = if let Some(after) = escape.strip_prefix(b"\\u0000") {
            if rule != Nul::Strip {
                out.extend_from_slice(b"\\ufffd");
            }
            after
        } else {
            // The escaped character goes with its backslash: it may be a backslash itself.
            let (escape, after) = escape.split_at(escape.len().min(2));
            out.extend_from_slice(escape);
            after
        };
    }
    out.extend_from_slice(rest);
}
