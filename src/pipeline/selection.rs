//! Which runners of a configuration run, and which stages they use.

use super::Scope;
use crate::config::{Config, ProducerRunner};
use crate::exit::{ExitReason, RunnerError};

/// The names of the runners that run.
pub(super) struct Selection {
    names: Vec<String>,
}

impl Selection {
    pub(super) fn of(config: &Config, scope: &Scope) -> Result<Self, RunnerError> {
        let consumers = || config.consumers.iter().map(|runner| runner.name.clone());
        let producers = || config.producers.iter().map(|runner| runner.name.clone());
        match scope {
            Scope::All => Ok(Self {
                names: consumers().chain(producers()).collect(),
            }),
            Scope::Drain => Ok(Self {
                names: producers().collect(),
            }),
            Scope::Only(names) => {
                let known: Vec<_> = consumers().chain(producers()).collect();
                if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
                    return Err(RunnerError::new(
                        ExitReason::Configuration,
                        format!(
                            "--only {unknown}: no runner of that name; the configuration has {}",
                            known.join(", ")
                        ),
                    ));
                }
                Ok(Self { names: names.clone() })
            }
        }
    }

    /// Whether the runner of this name runs.
    pub(super) fn runs(&self, name: &str) -> bool {
        self.names.iter().any(|running| running == name)
    }

    /// Whether a producer that runs delivers the stage of this name.
    pub(super) fn delivers(&self, config: &Config, stage: &str) -> bool {
        let delivers = |runner: &ProducerRunner| {
            self.runs(&runner.name) && runner.depends_on.iter().any(|name| name == stage)
        };
        config.producers.iter().any(delivers)
    }
}
