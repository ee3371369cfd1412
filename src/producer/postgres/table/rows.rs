//! Encoded rows, ready to be sent: one growing buffer and the bounds of each row in it.
//!
//! Invariant: the rows lie back to back in the buffer, each a whole tuple of binary COPY, all of one layout of the
//! table. The header and the trailer of the COPY are left to who sends it.

use crate::record::Offset;

/// Capacity that an emptied buffer keeps. One huge message must not hold its memory for ever.
const RETAINED_BYTES: usize = 32 << 20;
/// The same for the bounds of rows, beyond those of a usual transaction.
const RETAINED_ROWS: usize = 1 << 17;

/// Binary COPY tuples of one table, in order of offset, without the COPY's header and trailer.
#[derive(Debug, Default)]
pub struct CopyRows {
    pub(super) bytes: Vec<u8>,
    rows: Vec<Bounds>,
    extra_values: u64,
    discarded_values: u64,
    /// Version of the layout that the rows are encoded for; meaningless when there is none.
    layout: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    end: usize,
    offset: Offset,
    record_index: u32,
    extra_values: u32,
    discarded_values: u32,
}

/// One row of [`CopyRows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The message that it comes from.
    pub offset: Offset,
    /// Which record of that message it is, counted from 0.
    pub record_index: u32,
    /// Where it starts in [`CopyRows::bytes`].
    pub start: usize,
    /// The tuple.
    pub bytes: &'a [u8],
}

impl CopyRows {
    /// No rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The tuples back to back.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes that it holds on to, full or empty.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.rows.capacity() * size_of::<Bounds>()
    }

    /// How many values of these rows did not fit their column and stand in `_extra`.
    #[must_use]
    pub fn extra_values(&self) -> u64 {
        self.extra_values
    }

    /// How many values of these rows were dropped, for their keys are new (`new_keys: discard`).
    #[must_use]
    pub fn discarded_values(&self) -> u64 {
        self.discarded_values
    }

    /// The row at `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Row<'_>> {
        let bounds = self.rows.get(index)?;
        let start = self.end_of(index);
        Some(Row {
            offset: bounds.offset,
            record_index: bounds.record_index,
            start,
            bytes: &self.bytes[start..bounds.end],
        })
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> + '_ {
        let mut start = 0;
        self.rows.iter().map(move |bounds| {
            let row = Row {
                offset: bounds.offset,
                record_index: bounds.record_index,
                start,
                bytes: &self.bytes[start..bounds.end],
            };
            start = bounds.end;
            row
        })
    }

    /// Removes all rows, keeping a bounded part of the memory for the next ones.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.rows.shrink_to(RETAINED_ROWS);
        self.bytes.clear();
        self.bytes.shrink_to(RETAINED_BYTES);
        self.extra_values = 0;
        self.discarded_values = 0;
    }

    /// Keeps the first `rows` rows. Nothing happens when there are no more than that.
    pub fn truncate(&mut self, rows: usize) {
        for dropped in self.rows.drain(rows.min(self.rows.len())..) {
            self.extra_values -= u64::from(dropped.extra_values);
            self.discarded_values -= u64::from(dropped.discarded_values);
        }
        self.bytes.truncate(self.rows.last().map_or(0, |row| row.end));
    }

    /// Ends the row whose tuple was just appended to `bytes`.
    pub(super) fn finish_row(
        &mut self,
        offset: Offset,
        record_index: u32,
        extra_values: u32,
        discarded_values: u32,
    ) {
        self.rows.push(Bounds {
            end: self.bytes.len(),
            offset,
            record_index,
            extra_values,
            discarded_values,
        });
        self.extra_values += u64::from(extra_values);
        self.discarded_values += u64::from(discarded_values);
    }

    /// Whether rows of this version of the layout may be added. An empty buffer takes on any version.
    pub(super) fn accepts(&mut self, layout: u64) -> bool {
        if self.rows.is_empty() {
            self.layout = layout;
        }
        self.layout == layout
    }

    /// Where the row before `index` ends.
    fn end_of(&self, index: usize) -> usize {
        index
            .checked_sub(1)
            .and_then(|before| self.rows.get(before))
            .map_or(0, |row| row.end)
    }
}
