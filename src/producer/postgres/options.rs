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
mod tests {
    use super::super::table::{
        Condition, ConflictAction, DeclaredColumn, Include, NewKeys, Nul, Numbers, OnConflict, Path, Scalar,
    };
    use super::*;
    use crate::config::Variables;

    fn read(text: &str) -> Result<Option<PostgresOptions>, String> {
        Section::read_text(text, &Variables::default(), |section| {
            PostgresOptions::read(section, "sink")
        })
        .map_err(|error| error.to_string())
    }

    /// The only table of a stage.
    fn table(options: &PostgresOptions) -> String {
        let mut tables = options.for_stage("public", "binance").unwrap().tables;
        assert_eq!(tables.len(), 1);
        tables.remove(0).table
    }

    #[test]
    fn the_table_is_the_stages_name_unless_the_configuration_names_one() {
        let options = read("metadata: true").unwrap().unwrap();
        assert_eq!(
            (table(&options), options.routes[0].mapping.metadata),
            ("binance".to_owned(), true)
        );
        let options = read("table: raw_{stage}_v2").unwrap().unwrap();
        assert_eq!(table(&options), "raw_binance_v2");
        let options = read("table: \"{producer}_{stage}\"").unwrap().unwrap();
        assert_eq!(table(&options), "sink_binance");
        let options = read("table: trades").unwrap().unwrap();
        assert_eq!(
            (table(&options), options.routes[0].mapping.metadata),
            ("trades".to_owned(), false)
        );
    }

    #[test]
    fn a_table_that_can_not_be_meant_and_a_key_that_there_is_not_are_refused() {
        for (text, complaint) in [
            ("table: \"\"", "name of a table"),
            ("table: \"{consumer}\"", "no other braces"),
            ("table: _socket_el_cursor", "own tables"),
            (
                "table: market.trades",
                "must not hold a dot: all tables stand in the schema that the profile names",
            ),
            ("batches: {}", "unknown key"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn the_share_of_refused_messages_is_read_with_its_sign() {
        let limit = |text| read(text).unwrap().unwrap().poison_limit;
        assert_eq!(limit("metadata: true"), Percent::of(10));
        assert_eq!(limit("poison_limit: 0%"), Percent::of(0));
        assert_eq!(limit("poison_limit: 2.5%").part_of(1_000), 25);
        for text in ["poison_limit: 10", "poison_limit: 101%", "poison_limit: many"] {
            let error = read(text).unwrap_err();
            assert!(
                error.contains("poison_limit: expected a share from 0% to 100%"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn the_size_of_a_transaction_is_read_and_has_limits() {
        let batch = |text| read(text).unwrap().unwrap().batch;
        assert_eq!(batch("metadata: true"), Batching::default());
        let interval = std::time::Duration::from_millis(250);
        assert_eq!(
            batch("batch: { rows: 500, bytes: 1MiB, interval: 250ms }"),
            Batching {
                rows: 500,
                bytes: 1 << 20,
                interval
            }
        );
        for (text, complaint) in [
            ("batch: { rows: 0 }", "batch.rows: must be from 1 to 200000"),
            ("batch: { rows: 200001 }", "batch.rows: must be from 1"),
            (
                "batch: { bytes: 1KiB }",
                "batch.bytes: must be from 64KiB to 256MiB",
            ),
            (
                "batch: { interval: 61s }",
                "config.yml:1:20: batch.interval: must be at most 1m",
            ),
            ("batch: { interval: 5 }", "lacks its unit"),
            ("batch: { row: 5 }", "did you mean `rows`"),
            ("batch: 5", "expected a mapping"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn every_key_of_the_mapping_is_read() {
        let options = read(
            "records: $.data[*]\ninclude: { stream: $.stream }\n\
             when: { $.type: [match, 'ticker'], \"$['x'][0]\": [1.50, true, null, 'null'] }\n\
             columns:\n  price: numeric\n  time: { path: $.T, type: timestamptz(ms) }\n  p: { path: '$[2][3]' }\n\
             new_keys: discard\nnumbers: numeric\nnul: strip\nmax_columns: 20\nmetadata: true\n\
             on_conflict: { key: [time, _offset], action: update }",
        )
        .unwrap()
        .unwrap();
        let path = |text: &str| text.parse::<Path>().unwrap();
        let column = |name: &str, at: Option<&str>, column_type: Option<&str>| DeclaredColumn {
            name: name.to_owned(),
            path: at.map(path),
            column_type: column_type.map(|text| text.parse().unwrap()),
        };
        let text = |text: &str| Scalar::Text(text.to_owned());
        let values = vec![
            Scalar::number("1.50").unwrap(),
            Scalar::Bool(true),
            Scalar::Null,
            text("null"),
        ];
        let condition = |at: &str, values| Condition {
            path: path(at),
            values,
        };
        assert_eq!(
            options.when.0,
            [
                condition("$.type", vec![text("match"), text("ticker")]),
                condition("$.x[0]", values)
            ]
        );
        let expected = Mapping {
            raw: false,
            records: path("$.data[*]"),
            include: vec![Include {
                name: "stream".to_owned(),
                path: path("$.stream"),
            }],
            columns: vec![
                column("price", None, Some("numeric")),
                column("time", Some("$.T"), Some("timestamptz(ms)")),
                column("p", Some("$[2][3]"), None),
            ],
            new_keys: NewKeys::Discard,
            numbers: Numbers::Numeric,
            metadata: true,
            max_columns: 20,
            nul: Nul::Strip,
            on_conflict: Some(OnConflict {
                key: vec!["time".to_owned(), "_offset".to_owned()],
                action: ConflictAction::Update,
            }),
        };
        assert_eq!(options.routes[0].mapping, expected);
    }

    #[test]
    fn a_mistake_in_the_mapping_is_reported_at_its_character() {
        for (text, complaint) in [
            (
                "records: $.data[x]",
                "config.yml:1:17: records: expected a number",
            ),
            (
                "records: '$.data['",
                "config.yml:1:18: records: expected a number",
            ),
            (
                "include: { stream: '$.a[*]' }",
                "config.yml:1:20: include.stream: must name a single value",
            ),
            ("include: { a: null }", "include.a: needs the path"),
            (
                "columns: { price: numerics }",
                "config.yml:1:19: columns.price: unknown type `numerics`",
            ),
            (
                "columns: { p: { path: $., type: text } }",
                "config.yml:1:25: columns.p.path: expected a key",
            ),
            ("columns: { p: { typ: text } }", "did you mean `type`"),
            ("columns: { '': text }", "must be the name of a column"),
            (
                "columns: { b: {} }",
                "config.yml:1:15: columns.b: needs its type, or { path: …, type: … }",
            ),
            ("columns: { b: { path: null } }", "columns.b: needs its type"),
            (
                "columns: { a: text, p: numeric(20,8) }",
                "config.yml:1:24: columns.p: is cut at the comma, for in {…} a comma begins the next key. Put it into quotes: 'numeric(20,8)'",
            ),
            (
                "columns: { p: { path: $.x, type: numeric(20, 8) } }",
                "config.yml:1:34: columns.p.type: is cut at the comma",
            ),
            (
                "columns: { p: numeric(20 }",
                "columns.p: unknown type `numeric(20`",
            ),
            (
                "columns: { p: float }",
                "unknown type `float`; did you mean `double precision`? Known are boolean,",
            ),
            (
                "max_columns: 1\ncolumns: { a: text, b: text }",
                "config.yml:1:14: max_columns: there are 2 columns that",
            ),
            (
                "when: { $.type.: x }",
                "config.yml:1:16: when.$.type.: expected a key",
            ),
            (
                "when: { '$.a b': x }",
                "config.yml:1:13: when.$.a b: expected . or [",
            ),
            (
                "when: { $.type: { a: 1 } }",
                "config.yml:1:17: when.$.type: expected a single value",
            ),
            ("when: { $.type: [] }", "expected a single value, or a list"),
            ("new_keys: keep", "unknown value `keep`"),
            ("max_columns: 0", "must be from 1 to 1500"),
            (
                "mapping: raw\nrecords: $.data",
                "has no meaning with `mapping: raw`",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn a_route_has_the_producers_keys_but_for_its_own_and_adds_to_what_is_listed_by_name() {
        let options = read(
            "when: { $.a: 1 }\ntable: rest\nnumbers: numeric\nrecords: $.data\nnew_keys: discard\nmetadata: true\n\
             include: { at: $.at }\ncolumns: { p: numeric, q: text }\non_conflict: { key: [p], action: ignore }\n\
             routes:\n  - { when: { $.t: x }, table: x, records: $, numbers: double, columns: { q: { path: $.r }, s: jsonb } }\n  \
             - { mapping: raw, on_conflict: { key: [offset], action: ignore } }",
        )
        .unwrap()
        .unwrap();
        let [one, rest] = options.routes.as_slice() else {
            panic!("{options:?}");
        };
        assert_eq!(
            (options.when.0.len(), one.when.0.len(), rest.when.0.len()),
            (1, 1, 0)
        );
        assert_eq!((one.table.as_str(), rest.table.as_str()), ("x", "rest"));
        assert!(one.mapping.records.steps().is_empty() && one.mapping.metadata);
        assert_eq!(
            (one.mapping.numbers, one.mapping.new_keys),
            (Numbers::Double, NewKeys::Discard)
        );
        let columns: Vec<_> = one
            .mapping
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        assert_eq!(columns, ["p", "q", "s"]);
        assert!(one.mapping.columns[1].path.is_some() && one.mapping.columns[1].column_type.is_none());
        assert_eq!(one.mapping.include.len(), 1);
        // What it would have no meaning for is not handed down.
        let raw = Mapping {
            raw: true,
            metadata: true,
            on_conflict: Some(OnConflict {
                key: vec!["offset".to_owned()],
                action: ConflictAction::Ignore,
            }),
            ..Mapping::default()
        };
        assert_eq!(rest.mapping, raw);
    }

    #[test]
    fn routes_and_keys_that_can_not_work_together_are_reported_at_their_place() {
        for (text, complaint) in [
            ("routes: []", "config.yml:1:9: routes: must be from 1 to 64"),
            ("routes: {}", "expected a list"),
            ("routes: [1]", "config.yml:1:10: routes[0]: expected a mapping"),
            (
                "routes: [{ tabel: x }]",
                "routes[0].tabel: unknown key; did you mean `table`",
            ),
            (
                "routes: [{ table: _socket_el_x }]",
                "config.yml:1:19: routes[0].table: must not begin",
            ),
            (
                "routes: [{ columns: { p: numerics } }]",
                "routes[0].columns.p: unknown type",
            ),
            (
                "routes: [{ table: a }, { when: { $.a: 1 }, table: b }]",
                "config.yml:1:10: routes[0].when: is missing",
            ),
            (
                "routes: [{ when: { $.a: 1 }, table: a }, { when: { $.a: 1 }, table: b }]",
                "config.yml:1:50: routes[1].when: gets no message: routes[0] takes all that match it",
            ),
            (
                "routes: [{ when: { $.a: [1, 2], $.b: x }, table: a }, { when: { '$[''b'']': x, $.c: 1, $.a: 1.0 }, table: b }]",
                "routes[1].when: gets no message: routes[0] takes all that match it",
            ),
            (
                "when: { $.a: 1 }\nroutes: [{ when: { $.a: [1, 2] }, table: a }, { table: b }]",
                "routes[1].when: gets no message: routes[0] takes all that match it",
            ),
            (
                "when: { $.a: 1 }\nroutes: [{ when: { $.a: [2, '1'] }, table: a }, { table: b }]",
                "routes[0].when: gets no message: the `when` beside `routes` lets none through that matches it",
            ),
            (
                "routes: [{ when: { $.a: 1 }, table: t }, { table: t, records: $.x }]",
                ": routes[1].table: is that of a route before, which differs in more than `when`",
            ),
            (
                "table: x\nroutes: [{ when: { $.a: 1 }, table: a }, { table: b }]",
                "config.yml:1:8: table: is not used",
            ),
            (
                "mapping: raw\nroutes: [{ columns: { p: numeric } }]",
                "config.yml:2:21: routes[0].columns: has no meaning with `mapping: raw`",
            ),
            ("on_conflict: { key: [a] }", "on_conflict.action: is missing"),
            ("on_conflict: { action: update }", "on_conflict.key: is missing"),
            (
                "on_conflict: { key: a, action: update }",
                "on_conflict.key: expected",
            ),
            (
                "on_conflict: { key: [a], action: merge }",
                "on_conflict.action: unknown value `merge`",
            ),
            (
                "on_conflict: { key: [], action: update }",
                "needs one to 32 columns",
            ),
            (
                "on_conflict: { key: [a, a], action: update }",
                "\"a\" in `key` stands twice",
            ),
            (
                "on_conflict: { key: [''], action: update }",
                "must be the name of a column",
            ),
            (
                "columns: { o: json }\non_conflict: { key: [o], action: update }",
                "\"o\" in `key` is of type json, whose values can't be compared; jsonb can",
            ),
            (
                "on_conflict: { key: [_offset], action: update }",
                "\"_offset\" in `key` is a column only with `metadata: true`",
            ),
            (
                "on_conflict: { key: [_extra], action: update }",
                "can't be of a key",
            ),
            (
                "mapping: raw\non_conflict: { key: [s], action: update }",
                "\"s\" in `key` is no column with `mapping: raw`",
            ),
            (
                "on_conflict: { key: [s], action: update }\nroutes: [{ mapping: raw }]",
                "routes[0].on_conflict: \"s\" in `key` is no column",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
            assert!(
                error.lines().count() == 1 || text == "routes: [1]",
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn columns_that_are_named_count_and_must_have_room() {
        let fits = "max_columns: 4\nmetadata: true\ncolumns: { a: text }";
        assert!(read(fits).is_ok());
        for text in [
            "max_columns: 4\nmetadata: true\ncolumns: { a: text }\ninclude: { b: $.b }",
            "max_columns: 4\nmetadata: true\ncolumns: { a: text }\non_conflict: { key: [k], action: update }",
            "max_columns: 4\nmetadata: true\nroutes: [{ columns: { a: text, b: text } }]",
        ] {
            let error = read(text).unwrap_err();
            assert!(
                error.contains("5 columns that `columns`, `include`, `on_conflict` and `metadata` name"),
                "{text}: {error}"
            );
        }
        let same = "max_columns: 1\ncolumns: { a: text }\ninclude: { a: $.b }\non_conflict: { key: [a], action: update }";
        assert!(read(same).is_ok(), "one column, named three times");
    }

    #[test]
    fn routes_that_may_still_get_messages_are_taken() {
        for text in [
            "routes: [{ when: { $.a: 1 }, table: a }, { when: { $.a: [1, 2] }, table: b }]",
            "routes: [{ when: { $.a: 1, $.b: 1 }, table: a }, { when: { $.a: 1 }, table: b }]",
            "routes: [{ when: { $.a: 1 }, table: a }, { when: { $.a: '1' }, table: b }]",
            "when: { $.a: [1, 2] }\nroutes: [{ when: { $.a: [1, 3] }, table: a }, { table: b }]",
        ] {
            assert!(read(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn other_tables_take_the_names_of_their_own() {
        let one = read("table: \"raw_{stage}\"").unwrap().unwrap();
        assert_eq!(table(&one.into_table("again").unwrap()), "again");
        assert_eq!(table(&one.into_table("{table}_v2").unwrap()), "raw_binance_v2");
        let two = read("routes: [{ when: { $.a: 1 }, table: a }, {}]")
            .unwrap()
            .unwrap();
        let into = two
            .into_table("x_{table}")
            .unwrap()
            .for_stage("public", "s")
            .unwrap();
        let names: Vec<_> = into.tables.iter().map(|table| table.table.as_str()).collect();
        assert_eq!(names, ["x_a", "x_s"]);
        for (options, wrong) in [
            (&two, "again"),
            (&one, "{stage}"),
            (&one, "_socket_el_x"),
            (&one, "a.b"),
            (&one, ""),
        ] {
            assert!(options.into_table(wrong).is_err(), "{wrong}");
        }
    }
}
