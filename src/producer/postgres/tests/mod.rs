//! The producer against a real PostgreSQL, with a stage in memory.

mod epochs;
mod exactly_once;
mod outage;
mod poison;
mod starting;
mod support;
