//! `socket-el run`.

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cli::RunArgs;
use crate::exit::RunnerError;
use crate::pipeline::{Pipeline, Scope};

/// Runs the configured runners until `stop` is cancelled.
pub(super) async fn run(args: &RunArgs, stop: CancellationToken) -> Result<(), RunnerError> {
    let config = super::load(&args.config, &super::builtin_registry())?;
    let scope = if args.only.is_empty() {
        Scope::All
    } else {
        Scope::Only(args.only.clone())
    };
    if let Some(pipeline) = Pipeline::open_unless(config, scope, &stop).await? {
        info!(version = env!("CARGO_PKG_VERSION"), "running");
        pipeline.run(stop).await?;
    }
    info!("stopped");
    Ok(())
}
