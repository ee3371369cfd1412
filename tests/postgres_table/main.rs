//! The target table against a real PostgreSQL: what is encoded reads back as it was, and the table follows the messages.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod anything;
mod columns;
mod kinds;
mod mapping;
mod mappings;
mod memory;
mod others;
mod random;
mod rig;
mod routes;
mod values;
