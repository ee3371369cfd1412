//! From a message's records to tuples, and to what the table lacks for them.
//!
//! Of a key that an object has twice the last value counts, as in `jsonb`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use super::encode::{self, Encoder};
use super::infer::Wanted;
use super::keys::{ByKey, Key, Target};
use super::layout::{Column, Layout, Role};
use super::mapping::{Mapping, NewKeys, Nul};
use super::misfit;
use super::record::{FieldName, Name, Scanned, Value};
use super::rows::CopyRows;
use super::select::resolve;
use super::walk::Kind;
use crate::record::{Offset, Timestamp};

/// A place of the tuple for which the record has no field.
const NO_FIELD: usize = usize::MAX;

/// Memory that is used again from record to record.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// For each of the COPY's columns, the field that goes there.
    fields: Vec<usize>,
    /// Fields that have no place in the tuple.
    unlisted: Vec<(usize, Target)>,
    /// Fields that go to `_extra`.
    extras: Vec<usize>,
    /// Values of the record that were dropped.
    discarded: u32,
}

/// The column of a path of the mapping.
#[derive(Clone, Debug)]
pub(super) struct SlotColumn {
    pub(super) name: String,
    pub(super) target: Target,
}

/// Why a record can't be a row.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: String,
    pub(super) record_index: u32,
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
    pub(super) targets: &'a mut ByKey<Target>,
    pub(super) wanted: &'a mut Wanted,
    pub(super) scratch: &'a mut Scratch,
    pub(super) mapping: &'a Mapping,
    /// By slot; `None` for those that are no columns.
    pub(super) slots: &'a [Option<SlotColumn>],
    /// What was warned of already.
    pub(super) warned: &'a mut BTreeSet<String>,
    /// Columns for what has no place in the others can't be added.
    pub(super) closed: bool,
}

impl Writer<'_> {
    /// Appends a row for each record of the message, or one for the whole of it.
    pub(super) fn message(
        &mut self,
        origin: &Origin<'_>,
        scanned: &Scanned,
        rows: &mut CopyRows,
    ) -> Result<(), Refused> {
        for index in 0..scanned.records() {
            self.sort_fields(origin, scanned, scanned.record(index))
                .and_then(|()| self.tuple(origin, scanned, None, index, rows))
                .map_err(|reason| Refused {
                    reason,
                    record_index: u32::try_from(index).unwrap_or(u32::MAX),
                })?;
        }
        let Some(whole) = scanned.whole(origin.text) else {
            return Ok(());
        };
        self.sort_fields(origin, scanned, 0..0)
            .and_then(|()| {
                if let Some(why) = self.why_closed()
                    && !self.layout.has(Role::Message)
                {
                    return Err(format!(
                        "it is neither an object nor a list of objects, or has none at `records`, and the table has no column _message for \
                         it, {why}"
                    ));
                }
                self.note_whole(origin);
                self.tuple(origin, scanned, Some(whole), 0, rows)
            })
            .map_err(|reason| Refused {
                reason,
                record_index: 0,
            })
    }

    /// Why the table gets no columns for what has no place in the others, if it gets none.
    fn why_closed(&self) -> Option<&'static str> {
        if self.mapping.new_keys == NewKeys::Freeze {
            Some("which is not added with new_keys: freeze")
        } else if self.closed {
            Some("which only the table's owner can add")
        } else {
            None
        }
    }

    /// A message is kept whole.
    fn note_whole(&mut self, origin: &Origin<'_>) {
        self.wanted.message |= !self.layout.has(Role::Message);
        if !self.mapping.raw && !self.warned.contains("_message") {
            self.warned.insert("_message".to_owned());
            tracing::warn!(
                table = origin.table,
                stage = origin.stage,
                offset = origin.offset.get(),
                "messages that are neither an object nor a list of objects, or have none at `records`, are kept whole in \
                 column _message; `columns` with paths takes them apart, `when` leaves them out, `mapping: raw` keeps all so"
            );
        }
    }

    /// Finds the place in the tuple of a record's own fields, and of those that all records share.
    fn sort_fields(
        &mut self,
        origin: &Origin<'_>,
        scanned: &Scanned,
        record: Range<usize>,
    ) -> Result<(), String> {
        self.scratch.fields.clear();
        self.scratch.fields.resize(self.layout.copy.len(), NO_FIELD);
        self.scratch.unlisted.clear();
        self.scratch.extras.clear();
        self.scratch.discarded = 0;
        for fields in [record, scanned.shared()] {
            for (field, name) in fields.clone().zip(scanned.names(fields)) {
                let target = match name {
                    Name::Key(key) => match self.targets.get(key.id) {
                        Some(target) => target,
                        None => self.resolve(origin, key),
                    },
                    Name::Slot(slot) => match self.slots.get(*slot as usize) {
                        Some(Some(column)) => column.target,
                        _ => Target::Skip,
                    },
                };
                if let Target::Listed(place) = target {
                    self.scratch.fields[place] = field;
                } else if target != Target::Skip {
                    self.scratch.unlisted.push((field, target));
                }
            }
        }
        // First, so that a record that can't be a row makes no columns.
        if self.layout.ordered {
            self.check_key(origin, scanned)?;
        }
        for index in 0..self.scratch.unlisted.len() {
            let (field, target) = self.scratch.unlisted[index];
            self.unlisted(origin, scanned, field, target)?;
        }
        Ok(())
    }

    /// Finds out where the values of a key go, which is the same until the layout changes.
    #[cold]
    fn resolve(&mut self, origin: &Origin<'_>, key: &Key) -> Target {
        let raw = &origin.text[key.span.start as usize..key.span.end as usize];
        let target = resolve(self.layout, self.mapping, raw);
        self.targets.note(key.id, target);
        target
    }

    /// Refuses a record that lacks a part of the key of `on_conflict`: NULL is never in conflict, so that it could not stand once.
    fn check_key(&self, origin: &Origin<'_>, scanned: &Scanned) -> Result<(), String> {
        let layout = self.layout;
        let has_value = |field: usize| scanned.value(origin.text, field).kind != Kind::Null;
        for &place in &layout.key {
            let column = &layout.columns[layout.copy[place]];
            let field = self.scratch.fields[place];
            if column.role == Role::Key && (field == NO_FIELD || !has_value(field)) {
                return Err(lacks_key(&column.name));
            }
        }
        for name in &layout.missing_key {
            let is_it = |&(field, target): &(usize, Target)| {
                let found = match scanned.name(origin.text, field) {
                    FieldName::Key(raw) => encode::text::unescape(raw, Nul::Replace),
                    FieldName::Slot(slot) => Cow::Borrowed(slot_name(self.slots, slot)),
                };
                target == Target::Unknown && found == name.as_str() && has_value(field)
            };
            if !self.scratch.unlisted.iter().any(is_it) {
                return Err(lacks_key(name));
            }
        }
        Ok(())
    }

    /// Deals with a field that has no place in the tuple.
    fn unlisted(
        &mut self,
        origin: &Origin<'_>,
        scanned: &Scanned,
        field: usize,
        target: Target,
    ) -> Result<(), String> {
        let value = scanned.value(origin.text, field);
        if value.kind == Kind::Null {
            self.take_back(origin, scanned, field);
            return Ok(());
        }
        let (raw, is_key) = match scanned.name(origin.text, field) {
            FieldName::Key(raw) => (raw, true),
            FieldName::Slot(slot) => (slot_name(self.slots, slot), false),
        };
        let declared = || {
            let key = encode::text::unescape(raw, Nul::Replace);
            self.mapping.columns.iter().find(|column| column.name == key)
        };
        // What is declared is not new, even where its column is still missing.
        let new_keys = match declared().filter(|_| target == Target::Unknown) {
            Some(column) if column.column_type.is_some() => return Ok(()),
            Some(_) => NewKeys::Evolve,
            None if is_key => self.mapping.new_keys,
            None => NewKeys::Evolve,
        };
        match target {
            Target::Listed(_) | Target::Skip => {}
            Target::Unlisted(column) => {
                self.wanted.list.insert(self.layout.columns[column].name.clone());
            }
            Target::Taken | Target::Unknown if new_keys == NewKeys::Freeze => {
                return Err(format!(
                    "the key {raw:?} has no column, and the configuration says new_keys: freeze"
                ));
            }
            Target::Taken | Target::Unknown if new_keys == NewKeys::Discard => self.scratch.discarded += 1,
            Target::Extra | Target::Taken => {
                self.scratch.extras.push(field);
                if !self.warned.contains(raw) {
                    self.warned.insert(raw.to_owned());
                    tracing::warn!(
                        table = origin.table,
                        key = raw,
                        "the key's column is generated, of a type that can't be written, or filled by a path: its values stand in _extra"
                    );
                }
            }
            Target::Unknown => {
                let key = if is_key {
                    encode::text::unescape(raw, Nul::Replace)
                } else {
                    Cow::Borrowed(raw)
                };
                if self.closed && self.layout.has(Role::Extra) {
                    self.scratch.extras.push(field);
                    if self.warned.insert("owner".to_owned()) {
                        tracing::warn!(
                            table = origin.table,
                            key = &*key,
                            offset = origin.offset.get(),
                            "only the table's owner can add columns for new keys: their values stand in _extra"
                        );
                    }
                    return Ok(());
                }
                let is_named =
                    self.mapping.names(&key) || self.layout.missing_key.iter().any(|name| *name == key);
                let room = (!is_named).then(|| self.layout.room(self.mapping.max_columns));
                if !self.wanted.key(&key, value, room) {
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
        Ok(())
    }

    /// A null that is the last value of its key: those before it do not count.
    fn take_back(&mut self, origin: &Origin<'_>, scanned: &Scanned, null: usize) {
        let same = |field: usize| match (scanned.name(origin.text, field), scanned.name(origin.text, null)) {
            (FieldName::Key(one), FieldName::Key(other)) => {
                one == other
                    || encode::text::unescape(one, Nul::Replace)
                        == encode::text::unescape(other, Nul::Replace)
            }
            (one, other) => one == other,
        };
        self.scratch.extras.retain(|&field| !same(field));
    }

    /// Appends one row.
    fn tuple(
        &mut self,
        origin: &Origin<'_>,
        scanned: &Scanned,
        whole: Option<Value<'_>>,
        record: usize,
        rows: &mut CopyRows,
    ) -> Result<(), String> {
        let layout = self.layout;
        let order = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let out = &mut rows.bytes;
        let columns = layout.copy.len() + usize::from(layout.ordered);
        let columns = u16::try_from(columns).unwrap_or(u16::MAX);
        out.extend_from_slice(&columns.to_be_bytes());
        for (place, &index) in layout.copy.iter().enumerate() {
            let column = &layout.columns[index];
            match column.role {
                Role::Key => self.field(origin, scanned, place, out)?,
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
                Role::Extra => self.extra(origin, scanned, &column.encoder, out),
            }
        }
        if layout.ordered {
            encode::write_bigint(order, out);
        }
        let extras = &self.scratch.extras;
        if let Some(&field) = extras.first()
            && !self.layout.has(Role::Extra)
        {
            if let Some(why) = self.why_closed() {
                let name = match scanned.name(origin.text, field) {
                    FieldName::Key(raw) => raw,
                    FieldName::Slot(slot) => slot_name(self.slots, slot),
                };
                return Err(format!(
                    "the value of {name:?} has no place in the table's columns, and there is no column _extra for it, {why}"
                ));
            }
            self.wanted.extra = true;
        }
        let extra_values = u32::try_from(extras.len()).unwrap_or(u32::MAX);
        let record = u32::try_from(record).unwrap_or(u32::MAX);
        rows.finish_row(origin.offset, record, extra_values, self.scratch.discarded);
        Ok(())
    }

    /// Appends the value for a key's column, or NULL, and notes it for `_extra` when it does not fit.
    fn field(
        &mut self,
        origin: &Origin<'_>,
        scanned: &Scanned,
        place: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let field = self.scratch.fields[place];
        if field == NO_FIELD {
            encode::write_null(out);
            return Ok(());
        }
        let value = scanned.value(origin.text, field);
        if value.kind == Kind::Null {
            encode::write_null(out);
            return Ok(());
        }
        let column = &self.layout.columns[self.layout.copy[place]];
        // A fraction tells what the column is for, even where this one is a whole number.
        let widens = column.widenable && value.kind == Kind::Fraction && !self.closed;
        if !widens && column.encoder.write(value, out) {
            return Ok(());
        }
        self.misfit(origin, column, field, value, out)
    }

    /// Appends NULL for a value that does not fit, and notes where it goes.
    #[cold]
    fn misfit(
        &mut self,
        origin: &Origin<'_>,
        column: &Column,
        field: usize,
        value: Value<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if self.mapping.new_keys == NewKeys::Freeze {
            return Err(format!(
                "the value for column {:?} does not fit its type {}, and the configuration says new_keys: freeze{}",
                column.name,
                column.type_name,
                misfit::advice(column, value)
            ));
        }
        encode::write_null(out);
        let is_number = matches!(value.kind, Kind::Fraction | Kind::Integer);
        if column.widenable && !self.closed && is_number {
            let numbers = self.wanted.widen.entry(column.name.clone()).or_default();
            numbers.add(value);
            return Ok(());
        }
        if column.is_key {
            return Err(format!(
                "the value for column {:?} does not fit its type {}, and the column is of the key of on_conflict{}",
                column.name,
                column.type_name,
                misfit::advice(column, value)
            ));
        }
        self.scratch.extras.push(field);
        if !self.warned.contains(&column.name) {
            self.warned.insert(column.name.clone());
            tracing::warn!(
                table = origin.table,
                column = column.name,
                column_type = column.type_name,
                offset = origin.offset.get(),
                "values that do not fit their column stand in _extra, and NULL in the column{}",
                misfit::advice(column, value)
            );
        }
        Ok(())
    }

    /// Appends what fitted nowhere, under its keys, or NULL.
    fn extra(&self, origin: &Origin<'_>, scanned: &Scanned, encoder: &Encoder, out: &mut Vec<u8>) {
        if self.scratch.extras.is_empty() {
            encode::write_null(out);
            return;
        }
        let fields = self.scratch.extras.iter();
        let pairs = fields.map(|&field| {
            let name = match scanned.name(origin.text, field) {
                FieldName::Key(raw) => Cow::Borrowed(raw),
                FieldName::Slot(slot) => Cow::Owned(self.extra_name(origin, scanned, slot)),
            };
            (name, scanned.value(origin.text, field))
        });
        encode::write_object(encoder, pairs, out);
    }

    /// A slot's name as a JSON key: the column's, or with underscores behind it when a key of the record has that name.
    fn extra_name(&self, origin: &Origin<'_>, scanned: &Scanned, slot: u32) -> String {
        let mut name = slot_name(self.slots, slot).to_owned();
        let is_taken = |name: &str| {
            self.scratch
                .extras
                .iter()
                .any(|&field| match scanned.name(origin.text, field) {
                    FieldName::Key(raw) => encode::text::unescape(raw, Nul::Replace) == name,
                    FieldName::Slot(_) => false,
                })
        };
        while is_taken(&name) {
            name.push('_');
        }
        let quoted = serde_json::Value::from(name).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    }
}

fn lacks_key(name: &str) -> String {
    format!("the record has no value for {name:?}, which is of the key of on_conflict")
}

/// The name of a slot's column.
fn slot_name(slots: &[Option<SlotColumn>], slot: u32) -> &str {
    let column = slots.get(slot as usize).and_then(Option::as_ref);
    column.map_or("", |column| &column.name)
}
