//! Why what an operator asked for was not done.

use super::super::classify::{Action, action_for};
use super::super::session::describe;
use crate::exit::{ExitReason, RunnerError};
use crate::stage::StageError;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperateError {
    /// There is no session to be had.
    #[error("can't use the database {target}: {reason}")]
    Connect { target: String, reason: String },
    /// The database refused.
    #[error("the database refused: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// The stage can't be read, or did not take a cursor.
    #[error("{0}")]
    Stage(#[from] StageError),
    /// What was asked for can't be done as things are.
    #[error("{0}")]
    Refused(String),
    /// What was asked for can't be meant.
    #[error("{0}")]
    Usage(String),
    /// Delivery ended.
    #[error("{0}")]
    Delivery(RunnerError),
}

impl OperateError {
    /// Whether it may be over soon: the connection was lost, or somebody held a lock.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Database(error) => matches!(
                action_for(error),
                Action::Reconnect | Action::ReconnectAlarm | Action::Retry | Action::Halve
            ),
            Self::Stage(_) | Self::Refused(_) | Self::Usage(_) | Self::Delivery(_) => false,
        }
    }
}

impl From<OperateError> for RunnerError {
    fn from(error: OperateError) -> Self {
        match error {
            OperateError::Delivery(error) => error,
            OperateError::Stage(error) => Self::new(error.exit_reason(), error),
            OperateError::Usage(_) => Self::new(ExitReason::Configuration, error),
            OperateError::Connect { .. } | OperateError::Database(_) | OperateError::Refused(_) => {
                Self::new(ExitReason::Failed, error)
            }
        }
    }
}
