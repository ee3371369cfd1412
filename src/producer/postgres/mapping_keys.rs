//! The keys of the mapping in `config.yml`: how messages become rows.
//!
//! Every path and type is parsed here, so that a mistake in one is reported at its character, with all other mistakes.

use crate::config::{Literal, Section};

use super::table::{
    ColumnType, Condition, DeclaredColumn, Include, MAX_COLUMNS, Mapping, NewKeys, Nul, Numbers, Path,
    Scalar, When,
};

/// Most columns that `max_columns` may allow: PostgreSQL's own limit is 1,600, dropped columns included.
const MOST_COLUMNS: usize = 1_500;

/// Reads all keys of a mapping. What is wrong is reported to the section.
pub(super) fn read_mapping(section: &mut Section<'_>) -> Mapping {
    #[derive(Clone, Copy, Default, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        #[default]
        Columns,
        Raw,
    }
    let raw = section.or("mapping", Kind::default()) == Kind::Raw;
    let mapping = Mapping {
        raw,
        records: read_path(section, "records", Plural::Allowed).unwrap_or_default(),
        include: read_include(section),
        columns: read_columns(section),
        new_keys: section.or("new_keys", NewKeys::default()),
        numbers: section.or("numbers", Numbers::default()),
        metadata: section.or("metadata", false),
        max_columns: section.or("max_columns", MAX_COLUMNS),
        nul: section.or("nul", Nul::default()),
    };
    if !(1..=MOST_COLUMNS).contains(&mapping.max_columns) {
        section.problem("max_columns", "must be from 1 to 1500");
    }
    if raw {
        for key in [
            "records",
            "include",
            "columns",
            "new_keys",
            "numbers",
            "max_columns",
        ] {
            if section.contains(key) {
                section.problem(
                    key,
                    "has no meaning with `mapping: raw`, which keeps whole messages",
                );
            }
        }
    }
    mapping
}

/// Reads the conditions of `when`.
pub(super) fn read_when(section: &mut Section<'_>) -> When {
    let Some(mut conditions) = section.section("when") else {
        return When::default();
    };
    let keys: Vec<_> = conditions.keys().collect();
    let read = keys.into_iter().filter_map(|key| {
        let values = conditions.literals(key);
        let path = match key.parse::<Path>() {
            Ok(path) if path.is_plural() => {
                conditions.problem_in_key(key, 0, "must name a single value; [*] stands for many");
                None
            }
            Ok(path) => Some(path),
            Err(error) => {
                conditions.problem_in_key(key, error.at, &error.to_string());
                None
            }
        };
        let values = values?.into_iter().map(|literal| match literal {
            Literal::Null => Some(Scalar::Null),
            Literal::Bool(value) => Some(Scalar::Bool(value)),
            Literal::Number(text) => Scalar::number(&text),
            Literal::Text(text) => Some(Scalar::Text(text)),
        });
        let Some(values) = values.collect() else {
            conditions.problem(key, "must be numbers as JSON writes them; put text into quotes");
            return None;
        };
        Some(Condition { path: path?, values })
    });
    When(read.collect())
}

#[derive(Clone, Copy, PartialEq)]
enum Plural {
    Allowed,
    Refused,
}

fn read_path(section: &mut Section<'_>, key: &str, plural: Plural) -> Option<Path> {
    let text: String = section.optional(key)?;
    match text.parse::<Path>() {
        Ok(path) if plural == Plural::Refused && path.is_plural() => {
            section.problem(key, "must name a single value; [*] stands for many");
            None
        }
        Ok(path) => Some(path),
        Err(error) => {
            section.problem_within(key, error.at, &error.to_string());
            None
        }
    }
}

fn read_include(section: &mut Section<'_>) -> Vec<Include> {
    let Some(mut include) = section.section("include") else {
        return Vec::new();
    };
    let keys: Vec<_> = include.keys().collect();
    let read = keys.into_iter().filter_map(|name| {
        if !include.contains(name) {
            include.problem(name, "needs the path of its value, as in $.stream");
        }
        Some(Include {
            path: read_path(&mut include, name, Plural::Refused)?,
            name: column_name(&mut include, name)?,
        })
    });
    read.collect()
}

fn read_columns(section: &mut Section<'_>) -> Vec<DeclaredColumn> {
    let Some(mut columns) = section.section("columns") else {
        return Vec::new();
    };
    let keys: Vec<_> = columns.keys().collect();
    let mut read = Vec::new();
    for name in keys {
        let (path, column_type) = if columns.contains_mapping(name) {
            let Some(mut column) = columns.section(name) else {
                continue;
            };
            (
                read_path(&mut column, "path", Plural::Refused),
                read_type(&mut column, "type"),
            )
        } else {
            (None, read_type(&mut columns, name))
        };
        if !columns.contains(name) {
            columns.problem(name, "needs its type, or { path: …, type: … }");
        }
        if let Some(name) = column_name(&mut columns, name) {
            read.push(DeclaredColumn {
                name,
                path,
                column_type,
            });
        }
    }
    read
}

fn read_type(section: &mut Section<'_>, key: &str) -> Option<ColumnType> {
    let text: String = section.optional(key)?;
    text.parse()
        .map_err(|error: super::table::UnknownType| section.problem(key, &error.to_string()))
        .ok()
}

/// A column's name, if PostgreSQL can have it.
fn column_name(section: &mut Section<'_>, name: &str) -> Option<String> {
    if name.is_empty() || name.contains('\0') {
        section.problem_in_key(
            name,
            0,
            "must be the name of a column: not empty, and without NUL",
        );
        return None;
    }
    Some(name.to_owned())
}
