//! Quantities with units as people write them: `200ms`, `1GiB`.

/// A duration, read from `500ms`, `20s`, `5m`, `24h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub std::time::Duration);

/// A number of bytes, read from `64KiB`, `1MiB`, `10GB` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);
