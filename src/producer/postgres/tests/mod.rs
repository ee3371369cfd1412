//! The producer against a real PostgreSQL, with a stage in memory.

mod epochs;
mod exactly_once;
mod operator;
mod outage;
mod poison;
mod replay;
mod retry;
mod skip;
mod starting;
mod support;
