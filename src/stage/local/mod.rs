//! The stage on this machine's disk: `type: local`.
//!
//! # Constraints
//! A batch that was answered as staged survives kill -9, a crash of the system and a power cut. Memory and disk are
//! bounded whatever the backlog. Damage is noticed and recorded, never a silently shorter queue. The store is sled
//! 0.34.7, whose `flush` is no fsync, whose files never shrink, which writes when it opens, and which takes
//! what it can't read for a torn tail.
//!
//! # Format
//! ```text
//! path/
//!   lock            who has it                                      lock
//!   meta/           the book: generations, heads, cursors, gaps     meta
//!   g-<n>/          a generation: one tree per stage                generation, sealed
//!   reserve         blocks to give back when the disk is full       disk::reserve
//!   opening-<name>  a database is being opened                      database
//!   tmp-* trash-*   being made, being removed                       disk
//!   damaged-*       moved aside, untouched
//! ```
//! All stages of a path are appended to the same *open* generation by one thread (`writer`), which commits what has gathered
//! with one `fdatasync`, and only then moves the durable heads. A full generation is *sealed* and verified by
//! checksums from then on; it is dropped whole once every producer has delivered it and retention is over (`space`).
//!
//! # Recovery
//! A clean stop leaves a mark in the book, and exact heads. After any other stop each stage goes on behind its reservation
//! and the skipped offsets are recorded as a gap (`recover`). What the book says was there and is not is recorded as lost. A
//! lost book is made anew from the generations.
//!
//! # Reading
//! Producers that have caught up read from a bounded ring in memory (`ring`), all others from the disk (`reader`), where
//! every record is verified and every step over missing offsets is told (`walk`).
//!
//! # Failure
//! Any error of sled while running, and any panic of the path's threads, ends the path for good ([`LocalPath::failed`]):
//! nothing is written or synced any more, and the next start recovers.

pub mod disk;
pub mod trial;

mod batches;
mod carried;
mod commit;
mod cursors;
mod database;
pub(super) mod gaps;
mod generation;
mod handle;
mod heard;
mod inspect;
mod keeper;
mod lock;
mod meta;
mod options;
mod outages;
mod path;
mod reader;
mod recover;
mod ring;
mod room;
mod sealed;
mod space;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

pub use lock::{Holder, is_in_use};
pub use options::{
    Durability, LEAST_MAX_BYTES, LocalOptions, MAX_SEALED_OPEN, OnFull, OpenError, RESERVATION, Retention,
    StageRole, Tuning,
};
pub use path::LocalPath;
