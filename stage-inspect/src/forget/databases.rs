//! What the databases of the configured producers hold of what is forgotten. A producer that has left the configuration may well have
//! delivered into one of them. None of them is needed to forget what lies on the disk.

use serde::Serialize;
use socket_el::config::Config;
use socket_el::exit::{ExitReason, RunnerError, chain};
use socket_el::producer::operate::Operations;
use socket_el::producer::remains::{Departed, Remains};
use socket_el::stage::path::replay_cursor;

use super::ForgetArgs;
use crate::cli::Cli;
use crate::producing::load;
use crate::table::human_count;

/// The databases that could be looked into, and why others could not.
pub(super) struct Databases {
    config: Option<Config>,
    departed: Departed,
    /// What they hold.
    pub(super) found: Vec<Found>,
    /// What could not be looked into, and why.
    pub(super) unseen: Vec<String>,
}

/// What one of them holds of one producer.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    #[serde(flatten)]
    remains: Remains,
    /// Why its cursor, which was to go, is still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor_not_removed: Option<String>,
    /// Those that found it, of the producers that can be asked: several may share a database, with rights of their own.
    #[serde(skip)]
    seen_by: Vec<usize>,
}

impl Found {
    fn cursor(&self) -> String {
        format!(
            "the cursor of {} in _socket_el_cursor ({})",
            self.remains.producer, self.remains.database
        )
    }
}

impl Databases {
    /// Looks into the databases; changes nothing.
    pub(super) async fn look(cli: &Cli, args: &ForgetArgs, departed: Departed) -> Self {
        let mut databases = Self {
            config: None,
            departed,
            found: Vec::new(),
            unseen: Vec::new(),
        };
        match load(cli, args.profiles.as_deref()) {
            Ok(config) => databases.config = Some(config),
            Err(_) if cli.at.path.is_some() => {
                databases
                    .unseen
                    .push("with --path no database is known".to_owned());
            }
            Err(error) => databases.unseen.push(chain(&error)),
        }
        for (sink, operations) in databases.config.iter().flat_map(sinks).enumerate() {
            match operations.remains(&databases.departed).await {
                Ok(all) => {
                    for remains in all {
                        let known = databases.found.iter_mut().find(|found| found.remains == remains);
                        match known {
                            Some(found) => found.seen_by.push(sink),
                            None => databases.found.push(Found {
                                remains,
                                cursor_not_removed: None,
                                seen_by: vec![sink],
                            }),
                        }
                    }
                }
                Err(error) => databases.unseen.push(chain(&error)),
            }
        }
        databases.unseen.dedup();
        databases
    }

    /// What goes in them, or went, in words.
    pub(super) fn goes(&self) -> String {
        let goes: Vec<_> = self
            .found
            .iter()
            .filter(|found| found.remains.cursor.is_some() && found.cursor_not_removed.is_none())
            .map(Found::cursor)
            .collect();
        match goes.is_empty() {
            true => String::new(),
            false => format!(", and {}", goes.join(", ")),
        }
    }

    /// What stays in them, or may stay, a line each.
    pub(super) fn stays(&self) -> String {
        let mut lines = String::new();
        for Found { remains, .. } in &self.found {
            for data in &remains.data {
                lines += &format!(
                    "{} {} of {} stay in {}; to remove them: {};\n",
                    human_count(data.rows),
                    data.what,
                    remains.producer,
                    remains.database,
                    data.remove
                );
            }
        }
        for why in &self.unseen {
            let Departed {
                path_id,
                stage,
                producer,
            } = &self.departed;
            let producer = producer
                .as_ref()
                .map_or(String::new(), |name| format!(" AND producer = '{name}'"));
            lines += &format!(
                "not looked into: {why}. What stays there is in the tables _socket_el_cursor, _socket_el_dead_letter and _socket_el_gap WHERE \
                 stage = '{stage}' AND stage_path_id = '{path_id}'{producer}\n"
            );
        }
        lines
    }

    /// Removes the cursors that were found.
    ///
    /// # Errors
    /// Those that could not be removed, and why.
    pub(super) async fn forget_cursors(&mut self) -> Result<(), RunnerError> {
        for (sink, operations) in self.config.iter().flat_map(sinks).enumerate() {
            let mut cursors: Vec<_> = self
                .found
                .iter_mut()
                .filter(|found| found.remains.cursor.is_some() && found.seen_by.contains(&sink))
                .collect();
            if cursors.is_empty() {
                continue;
            }
            let removed = operations.forget_cursors(&self.departed).await;
            let why = removed.err().map(|error| chain(&error));
            for found in &mut cursors {
                found.cursor_not_removed.clone_from(&why);
                if why.is_none() {
                    // It is gone for the others, too.
                    found.seen_by.clear();
                }
            }
        }
        let Departed { path_id, stage, .. } = &self.departed;
        let stay: Vec<_> = self
            .found
            .iter()
            .filter_map(|found| {
                let why = found.cursor_not_removed.as_ref()?;
                let producer = &found.remains.producer;
                Some(format!(
                    "{} could not be removed: {why}. Remove it as a role that may: DELETE FROM _socket_el_cursor WHERE stage = '{stage}' AND \
                     stage_path_id = '{path_id}' AND producer IN ('{producer}', '{}')",
                    found.cursor(),
                    replay_cursor(producer)
                ))
            })
            .collect();
        match stay.is_empty() {
            true => Ok(()),
            false => Err(RunnerError::new(ExitReason::Failed, stay.join("; "))),
        }
    }
}

/// The producers that can be asked.
fn sinks(config: &Config) -> impl Iterator<Item = &dyn Operations> {
    config
        .producers
        .iter()
        .filter_map(|runner| runner.producer.operations())
}
