//! The keys of the mapping in `config.yml`: how messages become rows.
//!
//! Every path and type is parsed here, so that a mistake in one is reported at its character, with all other mistakes.

use std::collections::BTreeSet;

use crate::config::{Literal, Section};

use super::table::{
    ColumnType, Condition, ConflictAction, DeclaredColumn, Include, Mapping, OnConflict, Path, Scalar,
    ScalarType, When,
};

/// Most columns that `max_columns` may allow: PostgreSQL's own limit is 1,600, dropped columns included.
const MOST_COLUMNS: usize = 1_500;

/// The columns of `metadata: true`.
const METADATA: [&str; 3] = ["_stage", "_offset", "_received_at"];

/// Most columns of a key: as many as an index of PostgreSQL has.
const MOST_KEY_COLUMNS: usize = 32;

/// Reads all keys of a mapping. What is not there is as in `defaults`, and what is listed by name is added to what stands
/// there. What is wrong is reported to the section.
pub(super) fn read_mapping(section: &mut Section<'_>, defaults: &Mapping) -> Mapping {
    #[derive(Clone, Copy, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Columns,
        Raw,
    }
    let kind: Option<Kind> = section.optional("mapping");
    let raw = kind.map_or(defaults.raw, |kind| kind == Kind::Raw);
    let mut mapping = Mapping {
        raw,
        records: read_path(section, "records").unwrap_or_else(|| defaults.records.clone()),
        include: defaults.include.clone(),
        columns: defaults.columns.clone(),
        new_keys: section.or("new_keys", defaults.new_keys),
        numbers: section.or("numbers", defaults.numbers),
        metadata: section.or("metadata", defaults.metadata),
        max_columns: section.or("max_columns", defaults.max_columns),
        nul: section.or("nul", defaults.nul),
        on_conflict: read_on_conflict(section).or_else(|| defaults.on_conflict.clone()),
    };
    for include in read_include(section) {
        put(&mut mapping.include, include, |include| &include.name);
    }
    for column in read_columns(section) {
        put(&mut mapping.columns, column, |column| &column.name);
    }
    if !(1..=MOST_COLUMNS).contains(&mapping.max_columns) {
        section.problem("max_columns", "must be from 1 to 1500");
    }
    if !raw {
        return mapping;
    }
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
    // What it has from the defaults is meant for others.
    Mapping {
        raw,
        metadata: mapping.metadata,
        nul: mapping.nul,
        on_conflict: mapping.on_conflict,
        ..Mapping::default()
    }
}

/// Adds what is listed by name, in place of what has the same one.
fn put<T>(list: &mut Vec<T>, item: T, name: impl Fn(&T) -> &String) {
    match list.iter_mut().find(|known| name(known) == name(&item)) {
        Some(known) => *known = item,
        None => list.push(item),
    }
}

fn read_on_conflict(section: &mut Section<'_>) -> Option<OnConflict> {
    let mut conflict = section.section("on_conflict")?;
    let key: Option<Vec<String>> = conflict.required("key");
    let action: Option<ConflictAction> = conflict.required("action");
    Some(OnConflict {
        key: key?,
        action: action?,
    })
}

/// Checks that messages can have the key of `on_conflict`.
pub(super) fn check_on_conflict(section: &mut Section<'_>, mapping: &Mapping) {
    let Some(OnConflict { key, .. }) = &mapping.on_conflict else {
        return;
    };
    let own: &[(&str, bool)] = if mapping.raw {
        &[
            ("offset", true),
            ("received_at", true),
            ("_stage", mapping.metadata),
        ]
    } else {
        &[
            ("_stage", mapping.metadata),
            ("_offset", mapping.metadata),
            ("_received_at", mapping.metadata),
            ("_message", false),
            ("_extra", false),
        ]
    };
    if key.is_empty() || key.len() > MOST_KEY_COLUMNS {
        section.problem("on_conflict", "needs one to 32 columns in `key`");
    }
    let is_json = |name: &str| {
        let declared = mapping.columns.iter().find(|column| column.name == name);
        let declared = declared.and_then(|column| column.column_type);
        declared.is_some_and(|declared| declared.scalar == ScalarType::Json)
    };
    for (index, name) in key.iter().enumerate() {
        let own = own.iter().find(|(own, _)| own == name);
        let problem = match own {
            _ if name.is_empty() || name.contains('\0') => {
                "must be the name of a column: not empty, and without NUL"
            }
            _ if key[..index].contains(name) => "stands twice",
            Some((_, true)) => continue,
            Some((_, false)) if name.starts_with("_message") || name.starts_with("_extra") => {
                "can't be of a key"
            }
            Some((_, false)) => "is a column only with `metadata: true`",
            None if is_json(name) => "is of type json, whose values can't be compared; jsonb can",
            None if mapping.raw => "is no column with `mapping: raw`, which has offset and received_at",
            None => continue,
        };
        section.problem("on_conflict", &format!("{name:?} in `key` {problem}"));
    }
}

/// Checks that there is room for the columns that the configuration names.
pub(super) fn check_max_columns(section: &mut Section<'_>, mapping: &Mapping) {
    let key = mapping.conflict_key().iter();
    let named: BTreeSet<_> = mapping
        .columns
        .iter()
        .map(|column| &column.name)
        .chain(mapping.include.iter().map(|include| &include.name))
        .chain(key.filter(|name| !METADATA.contains(&name.as_str())))
        .collect();
    let named = named.len() + if mapping.metadata { METADATA.len() } else { 0 };
    if mapping.raw || named <= mapping.max_columns {
        return;
    }
    let at = ["max_columns", "columns", "include"];
    let at = at.into_iter().find(|key| section.contains(key));
    section.problem(
        at.unwrap_or("max_columns"),
        &format!(
            "there are {named} columns that `columns`, `include`, `on_conflict` and `metadata` name, and max_columns: {} counts them all. \
             Raise it, up to {MOST_COLUMNS}, or name fewer",
            mapping.max_columns
        ),
    );
}

/// Reads the conditions of `when`.
pub(super) fn read_when(section: &mut Section<'_>) -> When {
    let Some(mut conditions) = section.section("when") else {
        return When::default();
    };
    let keys: Vec<_> = conditions.keys().collect();
    let read = keys.into_iter().filter_map(|key| {
        let values = conditions.literals(key);
        let path = conditions.path_of_key(key);
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

/// The path at `key`, which may stand for many values.
fn read_path(section: &mut Section<'_>, key: &str) -> Option<Path> {
    let text: String = section.optional(key)?;
    match text.parse::<Path>() {
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
            path: include.single_path(name)?,
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
    let mut cut_off = None;
    for name in keys {
        if cut_off.take() == Some(name) {
            continue;
        }
        let mut names_nothing = !columns.contains(name);
        let (path, column_type) = if columns.contains_mapping(name) {
            let Some(mut column) = columns.section(name) else {
                continue;
            };
            names_nothing = !column.contains("path") && !column.contains("type");
            let path = column.single_path("path");
            let is_cut = report_cut_type(&mut column, "type").is_some();
            (
                path,
                if is_cut {
                    None
                } else {
                    read_type(&mut column, "type")
                },
            )
        } else {
            cut_off = report_cut_type(&mut columns, name);
            (
                None,
                if cut_off.is_some() {
                    None
                } else {
                    read_type(&mut columns, name)
                },
            )
        };
        if names_nothing {
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

/// Reports a type with a comma that stands in `{…}` without quotes: what is behind the comma is a key then, which is returned.
fn report_cut_type<'a>(section: &mut Section<'a>, key: &str) -> Option<&'a str> {
    let mut keys = section.keys().skip_while(|known| *known != key);
    let rest = keys.nth(1).filter(|rest| rest.ends_with(')'))?;
    if section.contains(rest) || section.contains_mapping(key) {
        return None;
    }
    let text: String = section.optional(key)?;
    if !text.contains('(') || text.contains(')') {
        return None;
    }
    // No unknown key: it is known what it was meant for.
    section.optional::<String>(rest);
    section.problem(
        key,
        &format!("is cut at the comma, for in {{…}} a comma begins the next key. Put it into quotes: '{text},{rest}'"),
    );
    Some(rest)
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
