//! How a command ends: the exit codes, and the error that carries one from a runner to `main`.

use std::fmt;

/// Why a command did not end well; the number is the process's exit code (0 is success).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitReason {
    /// Something failed.
    Failed = 1,
    /// Wrong usage or configuration.
    Configuration = 2,
    /// The stage is in use by another process, or not reachable.
    StageInUse = 3,
    /// Data is damaged.
    Damaged = 4,
    /// Another engine took over this stage and producer name.
    Fenced = 5,
}

/// Ends a runner, and with it the process: what happened, and the exit code it asks for.
#[derive(Debug)]
pub struct RunnerError {
    reason: ExitReason,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl RunnerError {
    /// An error with the exit code of `reason`. `source` should say what happened, to which thing, and what to do.
    pub fn new(reason: ExitReason, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            reason,
            source: source.into(),
        }
    }

    /// The same error, saying which runner it ended.
    #[must_use]
    pub fn of_runner(self, name: &str) -> Self {
        Self {
            reason: self.reason,
            source: format!("{name}: {}", chain(self.source.as_ref())).into(),
        }
    }

    /// What happened, for who asks of which kind it is.
    #[must_use]
    pub fn get_ref(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self.source.as_ref()
    }

    /// The exit code it asks for.
    #[must_use]
    pub fn reason(&self) -> ExitReason {
        self.reason
    }
}

impl fmt::Display for RunnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for RunnerError {
    /// `Display` already prints the inner error, so the chain goes on behind it.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

/// An error and its sources in one line. A source that its error already quotes is not said twice.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = source.source();
    }
    line
}
