//! The keys of a `postgres` producer in `config.yml`, and the variety that reads them.

use crate::config::percent::Percent;
use crate::config::{Profiles, Section};
use crate::producer::{Producer, ProducerVariety};

use super::batching::Batching;
use super::mapping_keys::{check_max_columns, check_on_conflict, read_mapping, read_when};
use super::table::{Mapping, RouterOptions, TableOptions, When};
use super::{PostgresProducer, Target};

/// What stands for the stage's and the producer's name in `table`.
const STAGE: &str = "{stage}";
const PRODUCER: &str = "{producer}";
/// What stands for a table's own name where all of them are to be named.
const TABLE: &str = "{table}";
/// How the names of our own tables begin.
const OWN_TABLES: &str = "_socket_el_";
/// Most routes of one producer.
const MAX_ROUTES: usize = 64;

/// How messages become rows.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresOptions {
    /// Which messages become rows.
    pub when: When,
    /// Into which tables: the first that matches. At least one; without `routes` it takes all messages.
    pub routes: Vec<Route>,
    /// How much one transaction holds.
    pub batch: Batching,
    /// When more of the last 10,000 messages are refused by the server, the table is wrong, and the stage is held.
    pub poison_limit: Percent,
}

/// The default of `poison_limit`.
const POISON_LIMIT: Percent = Percent::of(10);

/// Messages that go into one table.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which of those that no route before takes.
    pub when: When,
    /// The table's name; `{stage}` stands for the stage's.
    pub table: String,
    /// How they become rows.
    pub mapping: Mapping,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self::mapped(Mapping::default())
    }
}

impl PostgresOptions {
    /// All messages of a stage into the table of its name.
    #[must_use]
    pub fn mapped(mapping: Mapping) -> Self {
        let route = Route {
            when: When::default(),
            table: STAGE.to_owned(),
            mapping,
        };
        Self {
            when: When::default(),
            routes: vec![route],
            batch: Batching::default(),
            poison_limit: POISON_LIMIT,
        }
    }

    /// The tables of a stage, and which messages go into which.
    ///
    /// # Errors
    /// In words, when two routes go into one table by different mappings.
    pub fn for_stage(&self, schema: &str, stage: &str) -> Result<RouterOptions, String> {
        let mut tables: Vec<TableOptions> = Vec::new();
        let mut routes = Vec::new();
        for route in &self.routes {
            let wanted = TableOptions {
                table: route.table.replace(STAGE, stage),
                mapping: route.mapping.clone(),
            };
            let known = tables.iter().position(|known| known.table == wanted.table);
            if known.is_some_and(|known| tables[known].mapping != wanted.mapping) {
                return Err(format!(
                    "two routes go into table {:?} of stage {stage}, and differ in more than `when`: {ONE_MAPPING}",
                    wanted.table
                ));
            }
            routes.push((route.when.clone(), known.unwrap_or(tables.len())));
            if known.is_none() {
                tables.push(wanted);
            }
        }
        Ok(RouterOptions {
            schema: schema.to_owned(),
            stage: stage.to_owned(),
            when: self.when.clone(),
            tables,
            routes,
        })
    }

    /// The same, into other tables: `{table}` stands for the name of each.
    ///
    /// # Errors
    /// In words, when that can't be the name of one, or would be that of several.
    pub fn into_table(&self, into: &str) -> Result<Self, String> {
        let first = self.routes.first().map(|route| &route.table);
        if !into.contains(TABLE) && self.routes.iter().any(|route| Some(&route.table) != first) {
            return Err(format!(
                "table {into:?} would take the rows of several tables: {TABLE} must stand in the name for that of each, as in \"{TABLE}_again\""
            ));
        }
        let literal = into.replace(TABLE, "");
        match refused_name(into) {
            _ if literal.contains(['{', '}']) => {
                Err(format!("table {into:?} must not hold braces other than {TABLE}"))
            }
            Some(problem) if !into.contains(TABLE) => Err(format!("table {into:?} {problem}")),
            _ => {
                let mut options = self.clone();
                for route in &mut options.routes {
                    route.table = into.replace(TABLE, &route.table);
                }
                Ok(options)
            }
        }
    }

    /// Reads `table`, `routes` and the mapping's keys. What is wrong is reported to the section.
    pub fn read(section: &mut Section<'_>, producer: &str) -> Option<Self> {
        let table = read_table(section, producer, STAGE);
        let when = read_when(section);
        let mapping = read_mapping(section, &Mapping::default());
        let batch = Batching::read(section);
        let poison_limit = section.or("poison_limit", POISON_LIMIT);
        let Some(sections) = section.sequence("routes") else {
            check_on_conflict(section, &mapping);
            check_max_columns(section, &mapping);
            let route = Route {
                when: When::default(),
                table: table?,
                mapping,
            };
            return Some(Self {
                when,
                routes: vec![route],
                batch,
                poison_limit,
            });
        };
        let count = sections.len();
        if !(1..=MAX_ROUTES).contains(&count) {
            section.problem("routes", "must be from 1 to 64; leave the key out to have none");
        }
        let default = table.as_deref().unwrap_or(STAGE);
        let mut routes: Vec<Route> = Vec::new();
        let (mut is_sound, mut is_used) = (table.is_some(), false);
        for (index, mut section) in sections.into_iter().enumerate() {
            is_used |= !section.contains("table");
            let table = read_table(&mut section, producer, default);
            is_sound &= table.is_some();
            let route = Route {
                when: read_when(&mut section),
                mapping: read_mapping(&mut section, &mapping),
                table: table.unwrap_or_default(),
            };
            check_on_conflict(&mut section, &route.mapping);
            check_max_columns(&mut section, &route.mapping);
            check_route(&mut section, &when, &routes, &route, index + 1 == count);
            routes.push(route);
        }
        if section.contains("table") && !is_used {
            section.problem(
                "table",
                "is not used, for each route names its own. A last route without `when` takes the messages that match no other",
            );
        }
        is_sound.then_some(Self {
            when,
            routes,
            batch,
            poison_limit,
        })
    }
}

/// What has to be true of two routes into one table.
const ONE_MAPPING: &str =
    "rows of one table are made in one way. Give one of the routes another table, or both the same keys";

/// Reads the name of a table; `default` is sound already.
fn read_table(section: &mut Section<'_>, producer: &str, default: &str) -> Option<String> {
    let table: String = section.or("table", default.to_owned());
    if let Some(problem) = refused_name(&table) {
        section.problem("table", problem);
        return None;
    }
    Some(table.replace(PRODUCER, producer))
}

/// Reports a route that gets no message, or goes into a table of another in its own way. `all`: what is asked first of every message.
fn check_route(section: &mut Section<'_>, all: &When, before: &[Route], route: &Route, is_last: bool) {
    let asked = When(all.0.iter().chain(&route.when.0).cloned().collect());
    let taken_by = before
        .iter()
        .position(|other| !other.when.0.is_empty() && other.when.covers(&asked));
    if route.when.0.is_empty() && !is_last {
        section.problem(
            "when",
            "is missing: the route takes every message, and those after it get none. Make it the last one",
        );
    } else if all.excludes(&route.when) {
        section.problem(
            "when",
            "gets no message: the `when` beside `routes` lets none through that matches it",
        );
    } else if let Some(index) = taken_by {
        section.problem(
            "when",
            &format!(
                "gets no message: routes[{index}] takes all that match it, for the first route that matches counts. Put this one before \
                 it, or leave it out"
            ),
        );
    }
    let other = before.iter().find(|other| other.table == route.table);
    if other.is_some_and(|other| other.mapping != route.mapping) {
        section.problem(
            "table",
            &format!("is that of a route before, which differs in more than `when`: {ONE_MAPPING}"),
        );
    }
}

/// Why a table can't have this name.
fn refused_name(table: &str) -> Option<&'static str> {
    let literal = table.replace(STAGE, "").replace(PRODUCER, "");
    if table.is_empty() || table.contains('\0') {
        Some("must be the name of a table, without NUL")
    } else if literal.contains(['{', '}']) {
        Some("may hold {stage} and {producer}, and no other braces")
    } else if literal.contains('.') {
        Some(
            "must not hold a dot: all tables stand in the schema that the profile names (`schema`). For another schema use another profile, \
             and name only the table here",
        )
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
        let options = PostgresOptions::read(section, name);
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
mod tests;
