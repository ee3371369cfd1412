//! From a message's bytes to its records: one pass over the JSON that checks it and notes where keys and values lie.
//!
//! No tree is built. Values are kept as raw text, so that numbers stay exact to the digit, and the column's type
//! chooses how they are read. What PostgreSQL could never take is found here or in [`walk`](super::walk), before the
//! server sees it. Which column a key belongs to is left to others.

use std::ops::Range;

use super::keys::{Key, KeyId, Keys};
use super::mapping::Nul;
use super::walk::{Kind, Rejection, Walk};

/// A value's raw text and what is known about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    /// As it stands in the message; strings with their quotes.
    pub(super) raw: &'a str,
    pub(super) kind: Kind,
    /// Whether `\u0000` stands somewhere in it.
    pub(super) nul: bool,
    /// Whether a string has escapes.
    pub(super) escaped: bool,
    /// What becomes of the `\u0000`.
    pub(super) rule: Nul,
}

impl<'a> Value<'a> {
    /// What stands between a string's quotes, escapes as they are; `None` for other kinds.
    pub(super) fn quoted(&self) -> Option<&'a str> {
        (self.kind == Kind::String).then(|| &self.raw[1..self.raw.len() - 1])
    }
}

/// A field of a record, and where its value stands in the message.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: Name,
    pub(super) value: Place,
}

/// What a field is named by.
#[derive(Clone, Debug)]
pub(super) enum Name {
    /// Its key.
    Key(Key),
    /// The slot of a path of the mapping.
    Slot(u32),
}

/// A field's name, as [`Scanned::name`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldName<'m> {
    /// Its key, escapes as they are.
    Key(&'m str),
    /// The slot of a path of the mapping.
    Slot(u32),
}

/// Where a value stands in the message.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) span: Range<u32>,
    pub(super) kind: Kind,
    pub(super) nul: bool,
    pub(super) escaped: bool,
}

/// The fields of a message's records. Reused from message to message, so that reading allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    fields: Vec<Field>,
    /// For each record where its fields end.
    ends: Vec<u32>,
    /// The whole message, when it is neither an object nor a non-empty array of objects.
    whole: Option<Place>,
    rule: Nul,
    /// Of the keys.
    generation: u32,
}

impl Scanned {
    /// Begins with a new message.
    pub(super) fn start(&mut self, rule: Nul) {
        self.fields.clear();
        self.ends.clear();
        self.whole = None;
        self.rule = rule;
    }

    /// Its keys are of this generation.
    pub(super) fn of_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// The generation of its keys.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Has `\u0000` dealt with by this rule from now on.
    pub(super) fn follow(&mut self, rule: Nul) {
        self.rule = rule;
    }

    /// A payload as text, if its length and its bytes can be that.
    pub(super) fn checked_text(payload: &[u8]) -> Result<&str, Box<Rejection>> {
        if payload.is_empty() {
            return Err(Rejection::Empty.into());
        }
        if u32::try_from(payload.len()).is_err() {
            return Err(Rejection::TooLong.into());
        }
        std::str::from_utf8(payload).map_err(|error| {
            let at = error.valid_up_to();
            Rejection::NotUtf8 { at }.into()
        })
    }

    /// Reads a message in place of the one before and returns its text, which the other methods ask for.
    pub(super) fn read<'m>(
        &mut self,
        keys: &mut Keys,
        payload: &'m [u8],
        rule: Nul,
    ) -> Result<&'m str, Box<Rejection>> {
        self.start(rule);
        self.generation = keys.begin();
        let text = Self::checked_text(payload)?;
        let mut walk = Walk::new(payload);
        let first = walk.next();
        let start = walk.at;
        match first {
            Some(b'{') => {
                read_fields(&mut walk, keys, 1, &mut self.fields)?;
                self.end_record();
            }
            Some(b'[') => self.read_array(&mut walk, keys)?,
            _ => {
                walk.value(0)?;
            }
        }
        if self.ends.is_empty() {
            self.fields.clear();
            walk.at = start;
            self.whole = Some(read_place(&mut walk, 0)?);
        }
        walk.finish()?;
        if rule == Nul::DeadLetter && walk.any_nul {
            return Err(Rejection::Nul.into());
        }
        Ok(text)
    }

    /// Reads a message that is kept whole whatever it holds.
    pub(super) fn read_whole<'m>(&mut self, payload: &'m [u8], rule: Nul) -> Result<&'m str, Box<Rejection>> {
        self.start(rule);
        let text = Self::checked_text(payload)?;
        let mut walk = Walk::new(payload);
        walk.next();
        self.whole = Some(read_place(&mut walk, 0)?);
        walk.finish()?;
        if rule == Nul::DeadLetter && walk.any_nul {
            return Err(Rejection::Nul.into());
        }
        Ok(text)
    }

    /// Adds a field to the record that is open.
    pub(super) fn note(&mut self, field: Field) {
        self.fields.push(field);
    }

    /// Adds a field to all records, after all of them.
    pub(super) fn share(&mut self, field: Field) {
        self.fields.push(field);
    }

    /// Keeps the message as one value in place of records.
    pub(super) fn keep_whole(&mut self, message: Place) {
        self.fields.clear();
        self.ends.clear();
        self.whole = Some(message);
    }

    /// Notes an array's records; leaves none when an element is no object, which makes the message one whole value.
    fn read_array(&mut self, walk: &mut Walk<'_>, keys: &mut Keys) -> Result<(), Box<Rejection>> {
        walk.at += 1;
        while walk.next() == Some(b'{') {
            read_fields(walk, keys, 2, &mut self.fields)?;
            self.end_record();
            match walk.next() {
                Some(b',') => walk.at += 1,
                Some(b']') => {
                    walk.at += 1;
                    return Ok(());
                }
                _ => return Err(walk.wrong("expected , or ]")),
            }
        }
        self.ends.clear();
        Ok(())
    }

    /// Ends the record that is open.
    pub(super) fn end_record(&mut self) {
        // There are fewer fields than bytes, and those were checked to fit.
        self.ends
            .push(u32::try_from(self.fields.len()).unwrap_or(u32::MAX));
    }

    /// How many records there are; 0 when the message is one whole value.
    pub(super) fn records(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is neither a record nor a whole message: an empty list of records.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.whole.is_none()
    }

    /// The indexes of a record's fields.
    pub(super) fn record(&self, index: usize) -> Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[index] as usize
    }

    /// The indexes of the fields that all records share.
    pub(super) fn shared(&self) -> Range<usize> {
        self.ends.last().map_or(0, |&end| end as usize)..self.fields.len()
    }

    /// What a field is named by.
    pub(super) fn name<'m>(&self, text: &'m str, field: usize) -> FieldName<'m> {
        match &self.fields[field].name {
            Name::Key(Key { span, .. }) => FieldName::Key(&text[span.start as usize..span.end as usize]),
            Name::Slot(slot) => FieldName::Slot(*slot),
        }
    }

    /// What these fields are named by.
    pub(super) fn names(&self, fields: Range<usize>) -> impl Iterator<Item = &Name> + '_ {
        self.fields[fields].iter().map(|field| &field.name)
    }

    /// A field's value.
    pub(super) fn value<'m>(&self, text: &'m str, field: usize) -> Value<'m> {
        self.fields[field].value.of(text, self.rule)
    }

    /// The message as one value, when it has no records.
    pub(super) fn whole<'m>(&self, text: &'m str) -> Option<Value<'m>> {
        self.whole.as_ref().map(|place| place.of(text, self.rule))
    }
}

impl Place {
    pub(super) fn of<'m>(&self, text: &'m str, rule: Nul) -> Value<'m> {
        Value {
            raw: &text[self.span.start as usize..self.span.end as usize],
            kind: self.kind,
            nul: self.nul,
            escaped: self.escaped,
            rule,
        }
    }
}

/// Reads an object at its brace and adds its fields.
fn read_fields(
    walk: &mut Walk<'_>,
    keys: &mut Keys,
    depth: u32,
    fields: &mut Vec<Field>,
) -> Result<(), Box<Rejection>> {
    let mut previous = KeyId::start(depth);
    walk.members(depth, |walk| {
        let name = Name::Key(keys.read(walk, &mut previous)?);
        walk.next();
        let value = read_place(walk, depth)?;
        fields.push(Field { name, value });
        Ok(())
    })
}

/// Reads a value that lies inside `depth` objects and arrays.
pub(super) fn read_place(walk: &mut Walk<'_>, depth: u32) -> Result<Place, Box<Rejection>> {
    let start = walk.position();
    let kind = walk.flagged_value(depth)?;
    Ok(Place {
        span: start..walk.position(),
        kind,
        nul: walk.nul,
        escaped: walk.escaped,
    })
}
