//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::exit::{ExitReason, RunnerError};

/// Cancels `stop` on the first SIGINT or SIGTERM; a second one ends the process with code 1.
///
/// This task lives as long as the process and is the one that isn't joined: a second signal must work whatever
/// the rest of the program is doing.
pub(super) fn cancel_on_signal(stop: CancellationToken) -> Result<(), RunnerError> {
    let listen = |kind| signal(kind).map_err(|error| RunnerError::new(ExitReason::Failed, error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            }
        };
        info!("{} received", next().await);
        stop.cancel();
        warn!(
            "{} received again: ending at once; what was staged is safe",
            next().await
        );
        std::process::exit(i32::from(ExitReason::Failed as u8));
    });
    Ok(())
}
