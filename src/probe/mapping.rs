//! What the producer's mapping could say, as comments: where most of each message stands, types that all values fit, and a
//! table for each kind.
//!
//! They are comments, for what is meant can't be seen: the table that is shown is that of a mapping without them.

use std::collections::BTreeSet;

use serde_yaml::{Mapping, Value};

use super::advice::pattern_of;
use super::heard::Kept;
use super::kinds::{Kind, Label};
use super::shape::Level;
use super::yaml::flow;
use super::{message, offset, sample};
use crate::consumer::socket::Role;
use crate::producer::postgres::table::ColumnType;
use crate::record::Message;

/// A member is where records stand when it has them in so many of ten messages.
const MOST_OF_TEN: usize = 8;
/// Most tables that are suggested.
const MAX_ROUTES: usize = 16;
/// The end of the name of the table for what matches no other.
const OTHER: &str = "other";
/// How much of a value becomes part of a table's name.
const MAX_TABLE_CHARS: usize = 30;
/// Most keys beside it.
const MAX_BESIDE: usize = 6;

/// Lines for the producer, of the messages that are data, as `roles` says.
pub(super) fn hints(kinds: &[Kind], roles: &[Role], kept: &[Kept]) -> String {
    let is_data = |index: &usize| roles.get(*index) == Some(&Role::Data);
    let data: Vec<_> = (0..kept.len()).filter(is_data).collect();
    let messages = || data.iter().map(|&index| &kept[index]);
    let place = place_of_records(messages());
    let all = Reading::of(place.as_ref(), messages());
    let mut lines = String::new();
    if let Some(place) = &place {
        let path = super::yaml::scalar(&member_path(&place.key));
        lines += &format!("    #records: {path}   # most of each message stands there\n");
        if !place.beside.is_empty() {
            let beside = place.beside.iter();
            let include = beside.map(|key| (all.name_beside(key).into(), member_path(key).into()));
            lines += &format!("    #include: {}\n", flow(&Value::Mapping(include.collect())));
        }
    } else if messages().any(|kept| matches!(Level::of(&kept.payload), Some(Level::List(_)))) {
        lines += "    # lists without keys are kept whole in _message; `columns` with paths takes them apart: docs/recipes.md, Bitfinex\n";
    }
    if all.has_fractions {
        lines += "    #numbers: numeric   # new columns keep fractions to the digit\n";
    }
    let routes = routes(place.as_ref(), kinds, &data, kept);
    if !routes.is_empty() {
        return lines + &routes;
    }
    if let Some(columns) = all.columns() {
        lines += &format!("    #columns: {columns}   # all values seen read so\n");
    }
    lines
}

/// What the records of some messages look like.
struct Reading {
    /// Keys of the records that would be columns.
    keys: Vec<String>,
    has_fractions: bool,
    /// Types that all values fit, of keys of the records.
    inside: Vec<(String, ColumnType)>,
    /// The same of keys beside the records.
    beside: Vec<(String, ColumnType)>,
}

impl Reading {
    fn of<'k>(place: Option<&Place>, messages: impl Iterator<Item = &'k Kept>) -> Self {
        let (mut records, mut outside) = (sample("records"), sample("outside"));
        for (index, kept) in messages.enumerate() {
            let Some(place) = place else {
                records.add(offset(index), message(kept));
                continue;
            };
            outside.add(offset(index), message(kept));
            if let Some(found) = Level::of(&kept.payload).and_then(|level| level.member(&place.key)) {
                let found = Message {
                    payload: found.get().as_bytes(),
                    received_at: kept.at,
                };
                records.add(offset(index), found);
            }
        }
        let columns = records
            .change()
            .map(|change| change.columns())
            .unwrap_or_default();
        let is_beside = |key: &String| place.is_some_and(|place| place.beside.contains(key));
        let beside = outside.suggestions().into_iter();
        Self {
            has_fractions: columns
                .iter()
                .any(|(_, column_type)| column_type == "double precision"),
            keys: columns.into_iter().map(|(key, _)| key).collect(),
            inside: records.suggestions(),
            beside: beside.filter(|(key, _)| is_beside(key)).collect(),
        }
    }

    /// The column of a key beside the records: a column has one place that it is filled from.
    fn name_beside(&self, key: &str) -> String {
        if self.keys.iter().any(|known| known == key) {
            return format!("message_{key}");
        }
        key.to_owned()
    }

    /// What `columns` could say, if anything.
    fn columns(&self) -> Option<String> {
        let beside = self.beside.iter();
        let beside = beside.map(|(key, column_type)| (self.name_beside(key), column_type));
        let inside = self.inside.iter();
        let inside = inside.map(|(key, column_type)| (key.clone(), column_type));
        let columns: Mapping = beside
            .chain(inside)
            // A column without a name can't be declared.
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, column_type)| (Value::from(key), Value::from(column_type.to_string())))
            .collect();
        (!columns.is_empty()).then(|| flow(&Value::Mapping(columns)))
    }
}

/// A table for each kind that a value tells, if there are several, and one for the rest. `data` are the places of the messages
/// that are data.
fn routes(place: Option<&Place>, kinds: &[Kind], data: &[usize], kept: &[Kept]) -> String {
    let mut names = BTreeSet::from([OTHER.to_owned()]);
    let mut rest: BTreeSet<_> = data.iter().copied().collect();
    let mut routes = Vec::new();
    for kind in kinds {
        let Label::Value { value, .. } = &kind.label else {
            continue;
        };
        let is_data = kind.members.first().is_some_and(|first| data.contains(first));
        let name = table_name(value);
        if !is_data || routes.len() == MAX_ROUTES {
            continue;
        }
        let Some(pattern) = pattern_of(kind, kept) else {
            continue;
        };
        // Two values that differ in signs only can't have two tables of one name.
        if names.insert(name.clone()) {
            let reading = Reading::of(place, kind.members.iter().map(|&index| &kept[index]));
            routes.push(route(Some(&flow(&pattern)), &name, &reading));
            for index in &kind.members {
                rest.remove(index);
            }
        }
    }
    if routes.len() < 2 {
        return String::new();
    }
    let reading = Reading::of(place, rest.iter().map(|&index| &kept[index]));
    routes.push(route(None, OTHER, &reading));
    format!(
        "    #routes:   # a table for each kind; the last one takes the rest\n{}",
        routes.concat()
    )
}

fn route(when: Option<&str>, name: &str, reading: &Reading) -> String {
    let mut keys: Vec<_> = when.map(|when| format!("when: {when}")).into_iter().collect();
    keys.push(format!("table: '{{stage}}_{name}'"));
    if let Some(columns) = reading.columns() {
        keys.push(format!("columns: {columns}   # all values seen read so"));
    }
    let lines = keys.iter().enumerate().map(|(number, key)| {
        let dash = if number == 0 { '-' } else { ' ' };
        format!("    #  {dash} {key}\n")
    });
    lines.collect()
}

/// A value as the end of a table's name that needs no quotes.
fn table_name(value: &str) -> String {
    let plain = |character: char| match character {
        character if character.is_ascii_alphanumeric() => character.to_ascii_lowercase(),
        _ => '_',
    };
    value.chars().take(MAX_TABLE_CHARS).map(plain).collect()
}

/// A member that holds the records.
struct Place {
    key: String,
    /// Keys beside it that hold a single value.
    beside: Vec<String>,
}

fn member_path(key: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-');
    if !key.is_empty() && key.chars().all(is_plain) {
        return format!("$.{key}");
    }
    format!("$['{}']", key.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Where the records stand, when it is in one member of most messages.
fn place_of_records<'k>(messages: impl Iterator<Item = &'k Kept>) -> Option<Place> {
    let mut places: Vec<(String, usize)> = Vec::new();
    // Whether any of the key's values is an object or a list.
    let mut beside: Vec<(String, bool)> = Vec::new();
    let mut count = 0;
    for kept in messages {
        count += 1;
        let Some(Level::Object(members)) = Level::of(&kept.payload) else {
            continue;
        };
        for (key, value) in &members {
            // One more than is of use, so that it is seen that there are too many.
            if let Some(is_nested) = entry(&mut beside, key, MAX_BESIDE + 2) {
                *is_nested |= value.get().starts_with(['{', '[']);
            }
            if holds_records(value.get())
                && let Some(found) = entry(&mut places, key, MAX_BESIDE)
            {
                *found += 1;
            }
        }
    }
    let most: Vec<_> = places
        .iter()
        .filter(|(_, found)| found * 10 >= count * MOST_OF_TEN)
        .collect();
    // Two of them: neither is all of the message.
    let [(key, _)] = most.as_slice() else {
        return None;
    };
    if beside.len() > MAX_BESIDE + 1 {
        return None;
    }
    let single = beside.into_iter().filter(|(_, is_nested)| !is_nested);
    Some(Place {
        key: key.clone(),
        beside: single.map(|(key, _)| key).filter(|key| !key.is_empty()).collect(),
    })
}

/// What is noted about a key; `None` when it is new, and there are `most` of them.
fn entry<'l, T: Default>(list: &'l mut Vec<(String, T)>, key: &str, most: usize) -> Option<&'l mut T> {
    let known = list.iter().position(|(known, _)| known == key);
    let place = match known {
        Some(place) => place,
        None if list.len() >= most => return None,
        None => {
            list.push((key.to_owned(), T::default()));
            list.len() - 1
        }
    };
    list.get_mut(place).map(|(_, noted)| noted)
}

/// Whether a value is an object, or a list of objects.
fn holds_records(value: &str) -> bool {
    let rest = match value.strip_prefix('[') {
        Some(items) => items.trim_start(),
        None => value,
    };
    // An empty one says nothing against it.
    rest.starts_with('{') || rest.starts_with(']')
}

#[cfg(test)]
mod tests {
    use super::super::kinds::kinds;
    use super::*;
    use crate::record::Timestamp;

    fn of(messages: &[&str]) -> String {
        let kept: Vec<_> = messages
            .iter()
            .map(|message| Kept {
                at: Timestamp::default(),
                role: Role::Data,
                payload: message.as_bytes().into(),
            })
            .collect();
        let roles = vec![Role::Data; kept.len()];
        hints(&kinds(&kept), &roles, &kept)
    }

    #[test]
    fn records_in_an_envelope_are_found_with_what_stands_beside_them() {
        let hints = of(&[
            r#"{"stream":"a","data":{"E":1633998512068,"p":"0.35"}}"#,
            r#"{"stream":"a","data":[{"E":1633998512069,"p":"0.36"}],"odd key":1}"#,
        ]);
        assert_eq!(
            hints,
            "    #records: $.data   # most of each message stands there\n    \
             #include: { stream: $.stream, 'odd key': '$[''odd key'']' }\n    \
             #columns: { E: 'timestamptz(ms)', p: numeric }   # all values seen read so\n"
        );
    }

    #[test]
    fn messages_that_are_records_themselves_get_types_and_lists_are_pointed_out() {
        assert_eq!(
            of(&[
                r#"{"price":"0.1","book":[[1,2]]}"#,
                r#"{"price":"0.2","book":[]}"#
            ]),
            "    #columns: { price: numeric }   # all values seen read so\n"
        );
        assert!(of(&["[1,2]"]).contains("Bitfinex"));
        assert_eq!(of(&[r#"{"a":1}"#]), "");
        assert_eq!(of(&[r#"{"a":{"x":1},"b":{"y":2}}"#]), "", "two places are none");
    }

    #[test]
    fn a_key_beside_the_records_has_its_type_and_gets_another_name_where_the_records_have_it_too() {
        let hints = of(&[
            r#"{"ts":1633998512068,"data":{"price":0.1,"type":"a"},"type":"b"}"#,
            r#"{"ts":1633998512069,"data":{"price":2,"type":"a"},"type":"b"}"#,
        ]);
        assert_eq!(
            hints,
            "    #records: $.data   # most of each message stands there\n    \
             #include: { ts: $.ts, message_type: $.type }\n    \
             #numbers: numeric   # new columns keep fractions to the digit\n    \
             #columns: { ts: 'timestamptz(ms)' }   # all values seen read so\n"
        );
    }

    #[test]
    fn kinds_that_a_value_tells_get_a_table_each_with_their_own_columns_and_the_rest_gets_one() {
        let hints = of(&[
            r#"{"type":"l2-Update","p":"0.1"}"#,
            r#"{"type":"l2-Update","p":"0.2"}"#,
            r#"{"type":"match","p":"x","maker":1}"#,
            r#"{"p":"1.5","q":true}"#,
            r#"{"p":"1.6","q":true}"#,
        ]);
        assert_eq!(
            hints,
            "    #routes:   # a table for each kind; the last one takes the rest\n    \
             #  - when: { $.type: l2-Update }\n    \
             #    table: '{stage}_l2_update'\n    \
             #    columns: { p: numeric }   # all values seen read so\n    \
             #  - when: { $.type: match }\n    \
             #    table: '{stage}_match'\n    \
             #  - table: '{stage}_other'\n    \
             #    columns: { p: numeric }   # all values seen read so\n"
        );
    }
}
