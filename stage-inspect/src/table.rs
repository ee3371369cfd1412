//! Tables for people: columns aligned, quantities in units one can read.

use std::fmt;

/// Blanks between two columns.
const GAP: &str = "  ";

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Names.
    Left,
    /// Numbers.
    Right,
}

/// Rows of equally many cells below their headings.
pub(crate) struct Table<const COLUMNS: usize> {
    headings: [(&'static str, Align); COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(headings: [(&'static str, Align); COLUMNS]) -> Self {
        Self {
            headings,
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: [String; COLUMNS]) {
        self.rows.push(row);
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = self.headings.map(|(heading, _)| heading.to_owned());
        let mut widths = [0; COLUMNS];
        for row in std::iter::once(&headings).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(widths).zip(self.headings) {
                match align {
                    Align::Left => line += &format!("{cell:<width$}{GAP}"),
                    Align::Right => line += &format!("{cell:>width$}{GAP}"),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number of bytes with three digits or so: `917 B`, `1.5 MiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

    match UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => {
            // Tenths of the unit, by whole numbers; cut off, so that nothing looks larger than it is.
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// A count with its thousands apart: `1 234 567`.
pub(crate) fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_left_and_numbers_right_below_their_headings() {
        let mut table = Table::new([
            ("STAGE", Align::Left),
            ("PENDING", Align::Right),
            ("STATE", Align::Left),
        ]);
        table.push(["websocket_1".to_owned(), "7".to_owned(), "größer".to_owned()]);
        table.push(["b".to_owned(), human_count(123_456_789), String::new()]);
        assert_eq!(
            table.to_string(),
            "STAGE            PENDING  STATE\n\
             websocket_1            7  größer\n\
             b            123 456 789\n"
        );
    }

    #[test]
    fn quantities_are_readable() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            ((10 << 30) - 1, "9.9 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(human_count(count), text);
        }
    }
}
