//! The wish of the user to stop: SIGINT or SIGTERM, for commands that have something to put away first.

use socket_el::exit::{ExitReason, RunnerError};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens to both signals from when it is made on; until then they end the process at once.
pub(crate) struct Stopping {
    interrupt: Signal,
    terminate: Signal,
}

impl Stopping {
    pub(crate) fn listen() -> Result<Self, RunnerError> {
        let listen = |kind| signal(kind).map_err(|error| RunnerError::new(ExitReason::Failed, error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The outcome of `work`, or the error that it was stopped. What is under way is dropped then.
    pub(crate) async fn unless_asked<T>(
        &mut self,
        work: impl Future<Output = Result<T, RunnerError>>,
    ) -> Result<T, RunnerError> {
        tokio::select! {
            outcome = work => outcome,
            () = self.asked() => Err(stopped()),
        }
    }
}

/// That the command was stopped before it was done.
pub(crate) fn stopped() -> RunnerError {
    RunnerError::new(ExitReason::Failed, "stopped before it was done")
}
