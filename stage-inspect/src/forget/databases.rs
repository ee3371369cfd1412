//! What the databases of the configured producers hold of what is forgotten. A producer that has left the configuration may well have
//! delivered into one of them. None of them is needed to forget what lies on the disk.

use socket_el::config::Config;
use socket_el::exit::chain;
use socket_el::producer::operate::Operations;
use socket_el::producer::remains::{Departed, Remains};

use super::ForgetArgs;
use crate::cli::Cli;
use crate::producing::load;
use crate::table::human_count;

/// The databases that could be looked into, and why others could not.
pub(super) struct Databases {
    config: Option<Config>,
    departed: Departed,
    /// What they hold.
    pub(super) remains: Vec<Remains>,
    /// What could not be looked into, and why.
    pub(super) unseen: Vec<String>,
}

impl Databases {
    /// Looks into the databases; changes nothing.
    pub(super) async fn look(cli: &Cli, args: &ForgetArgs, departed: Departed) -> Self {
        let mut databases = Self {
            config: None,
            departed,
            remains: Vec::new(),
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
        for operations in databases.config.iter().flat_map(sinks) {
            match operations.remains(&databases.departed).await {
                Ok(found) => {
                    for remains in found {
                        // Several producers may share a database.
                        if !databases.remains.contains(&remains) {
                            databases.remains.push(remains);
                        }
                    }
                }
                Err(error) => databases.unseen.push(chain(&error)),
            }
        }
        databases.unseen.dedup();
        databases
    }

    /// What goes in them, in words.
    pub(super) fn goes(&self) -> String {
        let cursors = self.remains.iter().filter(|remains| remains.cursor.is_some());
        let goes: Vec<_> = cursors
            .map(|remains| {
                format!(
                    "the cursor of {} in _socket_el_cursor ({})",
                    remains.producer, remains.database
                )
            })
            .collect();
        match goes.is_empty() {
            true => String::new(),
            false => format!(", and {}", goes.join(", ")),
        }
    }

    /// What stays in them, or may stay, a line each.
    pub(super) fn stays(&self) -> String {
        let mut lines = String::new();
        for remains in &self.remains {
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
    pub(super) async fn forget_cursors(&mut self) {
        if self.remains.iter().all(|remains| remains.cursor.is_none()) {
            return;
        }
        for operations in self.config.iter().flat_map(sinks) {
            if let Err(error) = operations.forget_cursors(&self.departed).await {
                self.unseen.push(chain(&error));
            }
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
