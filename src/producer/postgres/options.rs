//! The keys of a `postgres` producer in `config.yml`, and the variety that reads them.

use crate::config::{Profiles, Section};
use crate::producer::{Producer, ProducerVariety};

use super::{PostgresProducer, Target};

/// What stands for the stage's name in `table`.
const STAGE: &str = "{stage}";
/// How the names of our own tables begin.
const OWN_TABLES: &str = "_socket_el_";

/// How messages become rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    /// The table's name; `{stage}` stands for the stage's.
    pub table: String,
    /// Whether rows get `_stage`, `_offset` and `_received_at`.
    pub metadata: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            table: STAGE.to_owned(),
            metadata: false,
        }
    }
}

impl PostgresOptions {
    /// The table for a stage.
    #[must_use]
    pub fn table_for(&self, stage: &str) -> String {
        self.table.replace(STAGE, stage)
    }

    /// The same, into another table.
    ///
    /// # Errors
    /// In words, when that can't be the name of one.
    pub fn into_table(&self, table: &str) -> Result<Self, String> {
        match refused_name(table) {
            _ if table.contains(['{', '}']) => Err(format!("table {table:?} must not hold braces")),
            Some(problem) => Err(format!("table {table:?} {problem}")),
            None => Ok(Self {
                table: table.to_owned(),
                ..self.clone()
            }),
        }
    }

    /// Whether a message that is delivered twice stands once.
    #[must_use]
    pub fn replays_are_idempotent(&self) -> bool {
        false
    }

    /// Reads the keys `table` and `metadata`.
    fn read(section: &mut Section<'_>) -> Option<Self> {
        let defaults = Self::default();
        let table: String = section.or("table", defaults.table);
        let metadata = section.or("metadata", defaults.metadata);
        let Some(problem) = refused_name(&table) else {
            return Some(Self { table, metadata });
        };
        section.problem("table", problem);
        None
    }
}

/// Why a table can't have this name.
fn refused_name(table: &str) -> Option<&'static str> {
    let literal = table.replace(STAGE, "");
    if table.is_empty() || table.contains('\0') {
        Some("must be the name of a table, without NUL")
    } else if literal.contains(['{', '}']) {
        Some("may hold {stage}, and no other braces")
    } else if table.starts_with(OWN_TABLES) {
        Some("must not begin with _socket_el_, as socket-el's own tables do")
    } else {
        None
    }
}

/// `variety: postgres`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresVariety;

impl ProducerVariety for PostgresVariety {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn configure(
        &self,
        name: &str,
        section: &mut Section<'_>,
        profiles: &Profiles,
    ) -> Option<Box<dyn Producer>> {
        let profile: Option<String> = section.required("profile");
        let options = PostgresOptions::read(section);
        let target = match profiles.get(&profile?) {
            Ok(profile) => Target::of_profile(profile, name),
            Err(error) => {
                section.problem("profile", &error.to_string());
                return None;
            }
        };
        Some(Box::new(PostgresProducer::new(target, options?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Variables;

    fn read(text: &str) -> Result<Option<PostgresOptions>, String> {
        Section::read_text(text, &Variables::default(), PostgresOptions::read).map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn the_table_is_the_stages_name_unless_the_configuration_names_one() {
        let options = read("metadata: true").unwrap().unwrap();
        assert_eq!(
            (options.table_for("binance").as_str(), options.metadata),
            ("binance", true)
        );
        let options = read("table: raw_{stage}_v2").unwrap().unwrap();
        assert_eq!(options.table_for("binance"), "raw_binance_v2");
        let options = read("table: trades").unwrap().unwrap();
        assert_eq!(
            (options.table_for("binance").as_str(), options.metadata),
            ("trades", false)
        );
    }

    #[test]
    fn a_table_that_can_not_be_meant_and_a_key_that_does_not_work_yet_are_refused() {
        for (text, complaint) in [
            ("table: \"\"", "name of a table"),
            ("table: \"{consumer}\"", "no other braces"),
            ("table: _socket_el_cursor", "own tables"),
            ("mapping: raw", "mapping"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
