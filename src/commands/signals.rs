//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::exit::{ExitReason, RunnerError};

/// `timeout` of coreutils and some supervisors signal a process and then its group: what comes so soon after the first signal is
/// the same wish. A person who asks twice takes longer.
const ECHO: Duration = Duration::from_millis(200);

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
        // Not inside of the macros: they evaluate nothing for a line that is filtered out.
        let first = next().await;
        info!("{first} received");
        stop.cancel();
        let echoes = async {
            loop {
                next().await;
            }
        };
        let Err(_) = timeout(ECHO, echoes).await;
        let second = next().await;
        warn!("{second} received again: ending at once; what was staged is safe");
        std::process::exit(i32::from(ExitReason::Failed as u8));
    });
    Ok(())
}
