//! The rule for the names of runners, which are also those of stages and the first part of cursors' names.

/// Longest name of a runner: PostgreSQL's longest name of a table.
pub(crate) const MAX_BYTES: usize = 63;

/// Whether a runner can have this name.
pub(crate) fn is_well_formed(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=MAX_BYTES).contains(&name.len()) && name.bytes().all(is_allowed)
}
