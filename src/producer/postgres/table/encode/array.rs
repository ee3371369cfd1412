//! Arrays: PostgreSQL's binary form of one dimension.
//!
//! The format, from the server's `array_recv`: count of dimensions, whether there are NULLs, the elements' type, then
//! for each dimension its length and lower bound, then the elements as fields.

use super::super::record::Value;
use super::super::walk::{Kind, Walk};
use super::{Encoder, write_null};

/// Where the count of elements stands, from the beginning of the field.
const LENGTH_AT: usize = 12;
/// PostgreSQL counts elements from 1.
const LOWER_BOUND: i32 = 1;

/// Appends an array whose elements all fit.
pub(super) fn write(element: &Encoder, oid: u32, value: Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    if !value.raw.starts_with('[') {
        return None;
    }
    let start = out.len();
    out.extend_from_slice(&1_i32.to_be_bytes());
    out.extend_from_slice(&0_i32.to_be_bytes());
    out.extend_from_slice(&oid.to_be_bytes());
    out.extend_from_slice(&0_i32.to_be_bytes());
    out.extend_from_slice(&LOWER_BOUND.to_be_bytes());
    let mut length = 0_i32;
    let mut nulls = false;
    let mut fits = true;
    let mut walk = Walk::new(value.raw.as_bytes());
    let walked = walk.elements(1, |walk, _| {
        let from = walk.at;
        let kind = walk.flagged_value(1)?;
        length = length.saturating_add(1);
        if kind == Kind::Null {
            nulls = true;
            write_null(out);
            return Ok(());
        }
        let value = Value {
            raw: &value.raw[from..walk.at],
            kind,
            nul: walk.nul,
            escaped: walk.escaped,
            rule: value.rule,
        };
        fits = fits && element.write(value, out);
        Ok(())
    });
    if walked.is_err() || !fits {
        return None;
    }
    if length == 0 {
        // An empty array has no dimension.
        out[start..start + 4].copy_from_slice(&0_i32.to_be_bytes());
        out.truncate(start + LENGTH_AT);
        return Some(());
    }
    out[start + 4..start + 8].copy_from_slice(&i32::from(nulls).to_be_bytes());
    out[start + LENGTH_AT..start + LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    Some(())
}
