//! Named tasks that are always joined: a task that panics or returns an error is a failure of the whole.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinSet};

use crate::exit::{ExitReason, RunnerError};

/// Tasks that are watched together. Dropping it aborts those that still run.
#[derive(Default)]
pub struct TaskSet {
    tasks: JoinSet<Result<(), RunnerError>>,
    names: HashMap<Id, String>,
}

/// A task that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The name it was spawned with.
    pub name: String,
    /// How it ended; a panic is an error.
    pub outcome: Result<(), RunnerError>,
}

impl TaskSet {
    /// Starts a task.
    pub fn spawn(
        &mut self,
        name: &str,
        task: impl Future<Output = Result<(), RunnerError>> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name.to_owned());
    }

    /// Waits for the next task to end; `None` when none is left.
    pub async fn join_next(&mut self) -> Option<Ended> {
        let (id, outcome) = match self.tasks.join_next_with_id().await? {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(died(&error))),
        };
        let name = self
            .names
            .remove(&id)
            .unwrap_or_else(|| "unnamed task".to_owned());
        Some(Ended { name, outcome })
    }

    /// Whether no task is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The names of the tasks that still run, in order.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let mut names: Vec<_> = self.names.values().cloned().collect();
        names.sort();
        names
    }
}

fn died(error: &tokio::task::JoinError) -> RunnerError {
    let how = if error.is_panic() {
        "panicked; please report this with the log"
    } else {
        "was aborted"
    };
    RunnerError::new(ExitReason::Failed, how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_with_the_name_of_its_task() {
        let mut tasks = TaskSet::default();
        tasks.spawn("sound", async { Ok(()) });
        let ended = tasks.join_next().await.unwrap();
        assert_eq!((ended.name.as_str(), ended.outcome.is_ok()), ("sound", true));

        tasks.spawn("broken", async { panic!("for the test") });
        let ended = tasks.join_next().await.unwrap();
        assert_eq!(ended.name, "broken");
        assert_eq!(ended.outcome.unwrap_err().reason(), ExitReason::Failed);
        assert!(tasks.is_empty());
        assert!(tasks.join_next().await.is_none());
    }
}
