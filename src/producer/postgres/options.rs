//! The keys of a `postgres` producer in `config.yml`, and the variety that reads them.

use crate::config::{Profiles, Section};
use crate::producer::{Producer, ProducerVariety};

use super::mapping_keys::{read_mapping, read_when};
use super::table::{Mapping, When};
use super::{PostgresProducer, Target};

/// What stands for the stage's and the producer's name in `table`.
const STAGE: &str = "{stage}";
const PRODUCER: &str = "{producer}";
/// How the names of our own tables begin.
const OWN_TABLES: &str = "_socket_el_";

/// How messages become rows.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresOptions {
    /// The table's name; `{stage}` stands for the stage's.
    pub table: String,
    /// Which messages become rows.
    pub when: When,
    /// How they do.
    pub mapping: Mapping,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            table: STAGE.to_owned(),
            when: When::default(),
            mapping: Mapping::default(),
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

    /// Reads `table` and the mapping's keys. What is wrong is reported to the section.
    pub fn read(section: &mut Section<'_>, producer: &str) -> Option<Self> {
        let defaults = Self::default();
        let table: String = section.or("table", defaults.table);
        let when = read_when(section);
        let mapping = read_mapping(section);
        let Some(problem) = refused_name(&table) else {
            let table = table.replace(PRODUCER, producer);
            return Some(Self { table, when, mapping });
        };
        section.problem("table", problem);
        None
    }
}

/// Why a table can't have this name.
fn refused_name(table: &str) -> Option<&'static str> {
    let literal = table.replace(STAGE, "").replace(PRODUCER, "");
    if table.is_empty() || table.contains('\0') {
        Some("must be the name of a table, without NUL")
    } else if literal.contains(['{', '}']) {
        Some("may hold {stage} and {producer}, and no other braces")
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
    use super::super::table::{Condition, DeclaredColumn, Include, NewKeys, Nul, Numbers, Path, Scalar};
    use super::*;
    use crate::config::Variables;

    fn read(text: &str) -> Result<Option<PostgresOptions>, String> {
        Section::read_text(text, &Variables::default(), |section| {
            PostgresOptions::read(section, "sink")
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn the_table_is_the_stages_name_unless_the_configuration_names_one() {
        let options = read("metadata: true").unwrap().unwrap();
        assert_eq!(
            (options.table_for("binance").as_str(), options.mapping.metadata),
            ("binance", true)
        );
        let options = read("table: raw_{stage}_v2").unwrap().unwrap();
        assert_eq!(options.table_for("binance"), "raw_binance_v2");
        let options = read("table: \"{producer}_{stage}\"").unwrap().unwrap();
        assert_eq!(options.table_for("binance"), "sink_binance");
        let options = read("table: trades").unwrap().unwrap();
        assert_eq!(
            (options.table_for("binance").as_str(), options.mapping.metadata),
            ("trades", false)
        );
    }

    #[test]
    fn a_table_that_can_not_be_meant_and_a_key_that_does_not_work_yet_are_refused() {
        for (text, complaint) in [
            ("table: \"\"", "name of a table"),
            ("table: \"{consumer}\"", "no other braces"),
            ("table: _socket_el_cursor", "own tables"),
            ("routes: []", "unknown key"),
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
             new_keys: discard\nnumbers: numeric\nnul: strip\nmax_columns: 20\nmetadata: true",
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
        };
        assert_eq!(options.mapping, expected);
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
}
