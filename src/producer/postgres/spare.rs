//! Buffers of rows that are used again, so that steady delivery allocates nothing.

use super::table::CopyRows;

/// Bytes that the buffers kept may hold together. With many tables each may have been large once.
const KEPT_BYTES: usize = 64 << 20;

/// Emptied buffers.
#[derive(Debug, Default)]
pub(super) struct Spare {
    kept: Vec<CopyRows>,
    bytes: usize,
}

impl Spare {
    /// A buffer, empty.
    pub(super) fn take(&mut self) -> CopyRows {
        let rows = self.kept.pop().unwrap_or_default();
        self.bytes -= rows.capacity();
        rows
    }

    /// Takes a buffer back, and keeps it if there is room.
    pub(super) fn give(&mut self, mut rows: CopyRows) {
        rows.clear();
        if self.bytes + rows.capacity() <= KEPT_BYTES {
            self.bytes += rows.capacity();
            self.kept.push(rows);
        }
    }
}
