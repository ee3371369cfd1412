//! How the postgres producer connects: encryption, certificates, passwords, several hosts. Each against real servers, and
//! where `psql` is installed, beside what libpq does with the same settings.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hosts;
mod identity;
mod pooler;
mod rig;
mod sslmodes;
