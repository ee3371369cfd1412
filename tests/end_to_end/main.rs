//! The guarantees of the README, each shown on the real binaries against a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod acknowledged;
mod backpressure;
mod bad_input;
mod bad_setup;
mod connections;
mod counts;
mod dead_letters;
mod delivery;
mod exports;
mod failover;
mod followed;
mod forgotten;
mod full_database;
mod kills;
mod ledger;
mod losses;
mod outages;
mod owners;
mod polls;
mod probe;
mod readme;
mod recipes;
mod recorded_feeds;
mod replays;
mod restored;
mod two_processes;
