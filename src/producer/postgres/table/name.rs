//! Names: which column a key gets, and how names are written in SQL.
//!
//! Two keys never share a column. What makes a short key's name is injective: a key that is one of the reserved names
//! (the empty one included) with any number of underscores behind it gets one underscore more. Names that are too long
//! are cut and carry a hash of the whole key; if such a name is taken by another key, the next attempt has another
//! hash. Each column that we make records its key in its comment (see [`comment`]): this is how we know that we made
//! it, and so a restart, or a user who renames the column, changes nothing about where the key goes.

use std::fmt;

/// Bytes that a name in PostgreSQL may have.
const MAX_NAME_BYTES: usize = 63;
/// Hexadecimal digits of the hash in a name that was cut.
const HASH_DIGITS: usize = 8;
/// Begins the comment of a column that we made.
const COMMENT_PREFIX: &str = "socket-el key: ";

/// Column for what fits nowhere else.
pub(super) const EXTRA: &str = "_extra";
/// Column for messages without records.
pub(super) const MESSAGE: &str = "_message";
/// Columns of `metadata: true`.
pub(super) const STAGE: &str = "_stage";
pub(super) const OFFSET: &str = "_offset";
pub(super) const RECEIVED_AT: &str = "_received_at";

/// Names that no key may have: PostgreSQL's own columns, ours, and none at all.
const RESERVED: [&str; 12] = [
    "",
    "tableoid",
    "xmin",
    "cmin",
    "xmax",
    "cmax",
    "ctid",
    EXTRA,
    MESSAGE,
    STAGE,
    OFFSET,
    RECEIVED_AT,
];

/// A table's name and schema; displayed quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: String,
    pub(super) table: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// The name of a key's column. `attempt` 0 is the usual one, the following ones are for when it is taken.
pub(super) fn column_name(key: &str, attempt: u32) -> String {
    let mut name = key.to_owned();
    if is_reserved_stem(key) {
        name.push('_');
    }
    if attempt > 0 {
        return cut(name, crc32c::crc32c_append(attempt, key.as_bytes()));
    }
    fitting(&name)
}

/// A name that PostgreSQL takes whole: one that is too long is cut.
pub(super) fn fitting(name: &str) -> String {
    if name.len() <= MAX_NAME_BYTES {
        return name.to_owned();
    }
    cut(name.to_owned(), crc32c::crc32c(name.as_bytes()))
}

/// Cuts a name at a character, so that it fits with the hash.
fn cut(mut name: String, hash: u32) -> String {
    let mut end = name.len().min(MAX_NAME_BYTES - HASH_DIGITS);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name.push_str(&format!("{hash:08x}"));
    name
}

/// The key whose values a column takes that carries no comment of ours; `None` when no key can.
pub(super) fn key_of_column(name: &str) -> Option<&str> {
    if RESERVED.contains(&name) {
        return None;
    }
    if is_reserved_stem(name) {
        return name.strip_suffix('_');
    }
    Some(name)
}

/// Whether a name is a reserved one with any number of underscores behind it, none included.
fn is_reserved_stem(name: &str) -> bool {
    RESERVED.iter().any(|reserved| {
        name.strip_prefix(reserved)
            .is_some_and(|rest| rest.bytes().all(|byte| byte == b'_'))
    })
}

/// The comment of a column that we made for a key.
pub(super) fn comment(key: &str) -> String {
    format!("{COMMENT_PREFIX}{}", serde_json::Value::from(key))
}

/// The key that a column's comment records, if we wrote it.
pub(super) fn key_of_comment(comment: &str) -> Option<String> {
    serde_json::from_str(comment.strip_prefix(COMMENT_PREFIX)?).ok()
}

/// A name in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\"").replace('\0', "\u{FFFD}"))
}

/// A string constant in SQL, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let text = text.replace('\'', "''").replace('\0', "\u{FFFD}");
    if text.contains('\\') {
        return format!("E'{}'", text.replace('\\', "\\\\"));
    }
    format!("'{text}'")
}
