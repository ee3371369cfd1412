//! Places for connections that are held at the same time: two for each entry of `connections`, since `rotate` makes the next
//! one before it gives up the old one.

/// Most entries of `connections`.
pub(super) const MAX_CONNECTIONS: usize = 4;
/// Most connections at the same time.
pub(super) const LANES: usize = 2 * MAX_CONNECTIONS;

/// One of the places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane(u8);

impl Lane {
    /// The first place of an entry of `connections`, counted from 0.
    pub(super) const fn first_of(entry: usize) -> Self {
        assert!(entry < MAX_CONNECTIONS, "the configuration has no more entries");
        Self(2 * entry as u8)
    }

    /// All places.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..LANES as u8).map(Self)
    }

    /// The entry's other place.
    pub(super) fn other(self) -> Self {
        Self(self.0 ^ 1)
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The entry, counted from 0.
    pub(super) fn entry(self) -> usize {
        self.index() / 2
    }
}
