//! The commands that look, with the real binary, on stages that these tests make.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod damage;
mod export;
mod export_rows;
mod forget;
mod lists;
mod manual;
mod messages;
mod rig;
