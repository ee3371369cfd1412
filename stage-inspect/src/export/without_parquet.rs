//! Stands for the writer of parquet files in a build without it.

use std::path::Path;

use socket_el::exit::RunnerError;

use super::rows::Begun;
use super::usage;

/// Says how to get what is missing here.
pub(super) fn begin(_: &Path, _: bool) -> Result<Begun, RunnerError> {
    Err(usage(
        "this stage-inspect was built without parquet. Build it with `cargo build --release --workspace --features \
         stage-inspect/parquet`, or export csv",
    ))
}
