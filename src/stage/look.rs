//! Looks into a stage path in the way that works now: through the engine that has it open, or by opening the files.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::local::{Holder, LocalPath, OpenError, StageRole};
use super::path::StagePath;
use super::remote::{ClientError, RemotePath};
use crate::exit::ExitReason;

/// How long an engine that is being started is waited for: after a crash it recovers before it answers.
const ENGINE_PATIENCE: Duration = Duration::from_secs(30);

/// How long another tool is waited for.
const TOOL_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is tried.
const TRY_INTERVAL: Duration = Duration::from_millis(100);

/// Why a path can't be looked into.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The files could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine could not be asked.
    #[error("stage path {path} is open in an engine that can't be asked: {source}")]
    Engine {
        /// The directory.
        path: String,
        /// Why.
        source: ClientError,
    },
    /// The work was ended.
    #[error("opening the stage path was ended")]
    Ended,
}

impl LookError {
    /// The exit code that a command should end with.
    #[must_use]
    pub fn exit_reason(&self) -> ExitReason {
        match self {
            Self::Open(error) => error.exit_reason(),
            Self::Engine { .. } => ExitReason::StageInUse,
            Self::Ended => ExitReason::Failed,
        }
    }
}

/// Opens a path to look at it; `roles` are the stages and producers that the configuration has for it, if there is one. An
/// engine that is just being started, and another tool, are waited for a while; `waits` is told once for whom.
///
/// # Errors
/// See [`LookError`].
pub async fn look_into(
    path: &Path,
    roles: &[StageRole],
    mut waits: impl FnMut(&str),
) -> Result<Arc<dyn StagePath>, LookError> {
    let began = Instant::now();
    let mut told = false;
    loop {
        match RemotePath::connect(path).await {
            Ok(remote) => return Ok(Arc::new(remote)),
            Err(ClientError::NoEngine) => {}
            // It ended, or was started again, under the question.
            Err(ClientError::OtherLife | ClientError::Lost(_) | ClientError::Broken(_))
                if began.elapsed() < TOOL_PATIENCE => {}
            Err(source) => {
                return Err(LookError::Engine {
                    path: path.display().to_string(),
                    source,
                });
            }
        }
        let (directory, own_roles) = (path.to_owned(), roles.to_vec());
        let opened = spawn_blocking(move || LocalPath::inspect(&directory, &own_roles)).await;
        let error = match opened {
            Ok(Ok(local)) => return Ok(Arc::new(local)),
            Ok(Err(error)) => error,
            Err(_) => return Err(LookError::Ended),
        };
        let patience = match &error {
            OpenError::InUse {
                holder: Some(Holder::Tool),
                ..
            } => TOOL_PATIENCE,
            OpenError::InUse { .. } => ENGINE_PATIENCE,
            _ => return Err(error.into()),
        };
        if began.elapsed() >= patience {
            return Err(error.into());
        }
        if !std::mem::replace(&mut told, true) {
            waits(&error.to_string());
        }
        sleep(TRY_INTERVAL).await;
    }
}
