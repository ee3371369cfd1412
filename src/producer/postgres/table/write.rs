//! From a message's records to tuples, and to what the table lacks for them.
//!
//! Of a key that an object has twice the last value counts, as in `jsonb`.

use std::collections::BTreeSet;

use super::encode::{self, Encoder};
use super::infer::Wanted;
use super::keys::{self, Keys, Target};
use super::layout::{Layout, Role};
use super::record::{Scanned, Value};
use super::rows::CopyRows;
use super::walk::Kind;
use crate::record::{Offset, Timestamp};

/// A place of the tuple for which the record has no field.
const NO_FIELD: usize = usize::MAX;

/// Memory that is used again from record to record.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// For each of the COPY's columns, the field that goes there.
    fields: Vec<usize>,
    /// Fields that go to `_extra`.
    extras: Vec<usize>,
}

/// What every row of a message shares.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) table: &'a str,
    pub(super) stage: &'a str,
    pub(super) offset: Offset,
    pub(super) received_at: Timestamp,
    pub(super) text: &'a str,
}

/// Writes the rows of messages for one layout. When `wanted` is no longer empty, the rows are worthless.
pub(super) struct Writer<'a> {
    pub(super) layout: &'a Layout,
    pub(super) keys: &'a mut Keys,
    pub(super) wanted: &'a mut Wanted,
    pub(super) scratch: &'a mut Scratch,
    /// What was warned of already.
    pub(super) warned: &'a mut BTreeSet<String>,
}

impl Writer<'_> {
    /// Appends a row for each record of the message, or one for the whole of it.
    pub(super) fn message(&mut self, origin: Origin<'_>, scanned: &Scanned, rows: &mut CopyRows) {
        for index in 0..scanned.records() {
            self.sort_fields(origin, scanned, index);
            self.tuple(origin, scanned, None, index, rows);
        }
        if let Some(whole) = scanned.whole(origin.text) {
            self.scratch.extras.clear();
            self.empty_fields();
            self.wanted.message |= !self.layout.has(Role::Message);
            if !self.warned.contains("_message") {
                self.warned.insert("_message".to_owned());
                tracing::warn!(
                    table = origin.table,
                    stage = origin.stage,
                    offset = origin.offset.get(),
                    "messages that are neither an object nor a list of objects are kept whole in column _message"
                );
            }
            self.tuple(origin, scanned, Some(whole), 0, rows);
        }
    }

    fn empty_fields(&mut self) {
        self.scratch.fields.clear();
        self.scratch.fields.resize(self.layout.copy.len(), NO_FIELD);
    }

    /// Finds each field's place in the tuple.
    fn sort_fields(&mut self, origin: Origin<'_>, scanned: &Scanned, record: usize) {
        self.empty_fields();
        self.scratch.extras.clear();
        let mut previous = keys::START;
        for field in scanned.record(record) {
            let raw = scanned.key(origin.text, field);
            let layout = self.layout;
            let target = self.keys.target(&mut previous, raw, |raw| resolve(layout, raw));
            if let Target::Listed(place) = target {
                self.scratch.fields[place] = field;
                continue;
            }
            let value = scanned.value(origin.text, field);
            if value.kind == Kind::Null {
                continue;
            }
            match target {
                Target::Listed(_) => {}
                Target::Unlisted(column) => {
                    self.wanted.list.insert(layout.columns[column].name.clone());
                }
                Target::Extra => {
                    self.scratch.extras.push(field);
                    if !self.warned.contains(raw) {
                        self.warned.insert(raw.to_owned());
                        tracing::warn!(
                            table = origin.table,
                            key = raw,
                            "the key's column is generated, or of a type that can't be written: its values stand in _extra"
                        );
                    }
                }
                Target::Unknown => {
                    let key = encode::text::unescape(raw);
                    if !self.wanted.key(&key, value, layout.room()) {
                        self.scratch.extras.push(field);
                        if !self.warned.contains("columns") {
                            self.warned.insert("columns".to_owned());
                            tracing::warn!(
                                table = origin.table,
                                "the table has as many columns as it may have: values of new keys go to _extra"
                            );
                        }
                    }
                }
            }
        }
    }

    /// Appends one row.
    fn tuple(
        &mut self,
        origin: Origin<'_>,
        scanned: &Scanned,
        whole: Option<Value<'_>>,
        record: usize,
        rows: &mut CopyRows,
    ) {
        let layout = self.layout;
        let out = &mut rows.bytes;
        let columns = u16::try_from(layout.copy.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&columns.to_be_bytes());
        for (place, &index) in layout.copy.iter().enumerate() {
            let column = &layout.columns[index];
            match column.role {
                Role::Key => self.field(origin, scanned, place, out),
                Role::Stage => encode::write_text(origin.stage, out),
                Role::Offset => {
                    encode::write_bigint(i64::try_from(origin.offset.get()).unwrap_or(i64::MAX), out);
                }
                Role::ReceivedAt => encode::write_time(origin.received_at, out),
                Role::Message => {
                    if !whole.is_some_and(|whole| column.encoder.write(whole, out)) {
                        encode::write_null(out);
                    }
                }
                Role::Extra => self.extra(origin, scanned, column.encoder, out),
            }
        }
        let extras = &self.scratch.extras;
        self.wanted.extra |= !extras.is_empty() && !self.layout.has(Role::Extra);
        let extra_values = u32::try_from(extras.len()).unwrap_or(u32::MAX);
        let record = u32::try_from(record).unwrap_or(u32::MAX);
        rows.finish_row(origin.offset, record, extra_values);
    }

    /// Appends the value for a key's column, or NULL, and notes it for `_extra` when it does not fit.
    fn field(&mut self, origin: Origin<'_>, scanned: &Scanned, place: usize, out: &mut Vec<u8>) {
        let field = self.scratch.fields[place];
        if field == NO_FIELD {
            encode::write_null(out);
            return;
        }
        let value = scanned.value(origin.text, field);
        if value.kind == Kind::Null {
            encode::write_null(out);
            return;
        }
        let layout = self.layout;
        let column = &layout.columns[layout.copy[place]];
        // A fraction tells what the column is for, even where this one is a whole number.
        let widens = column.widenable && value.kind == Kind::Fraction;
        if !widens && column.encoder.write(value, out) {
            return;
        }
        encode::write_null(out);
        if column.widenable && matches!(value.kind, Kind::Fraction | Kind::Integer) {
            let numbers = self.wanted.widen.entry(column.name.clone()).or_default();
            numbers.add(value);
            return;
        }
        self.scratch.extras.push(field);
        if !self.warned.contains(&column.name) {
            self.warned.insert(column.name.clone());
            tracing::warn!(
                table = origin.table,
                column = column.name,
                column_type = column.type_name,
                offset = origin.offset.get(),
                "values that do not fit their column stand in _extra, and NULL in the column"
            );
        }
    }

    /// Appends what fitted nowhere, under its keys, or NULL.
    fn extra(&self, origin: Origin<'_>, scanned: &Scanned, encoder: Encoder, out: &mut Vec<u8>) {
        if self.scratch.extras.is_empty() {
            encode::write_null(out);
            return;
        }
        let fields = self.scratch.extras.iter();
        let pairs = fields.map(|&field| (scanned.key(origin.text, field), scanned.value(origin.text, field)));
        encode::write_object(encoder, pairs, out);
    }
}

/// Where the values of a key go.
fn resolve(layout: &Layout, raw: &str) -> Target {
    let Some(index) = layout.column_of_key(&encode::text::unescape(raw)) else {
        return Target::Unknown;
    };
    if !layout.columns[index].writable {
        return Target::Extra;
    }
    match layout.copy.iter().position(|&listed| listed == index) {
        Some(place) => Target::Listed(place),
        None => Target::Unlisted(index),
    }
}
