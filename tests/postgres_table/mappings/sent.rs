//! Messages for a mapping, and what has to become of each.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::case::{Case, Column, NAMES, NUMBER, NewKeys, Records, Step};
use crate::kinds::ColumnKind;
use crate::random::{Json, any, once_in, one, spoiled, text};

/// A record, and what has to become of it.
pub(super) struct Record {
    pub(super) json: Json,
    /// Names of columns that must hold their value.
    pub(super) must: Vec<String>,
    /// Whether all values fit for certain.
    pub(super) all_fit: bool,
    /// A key on the way of a path stands twice.
    pub(super) twice: bool,
    /// Values of keys that have no column and get none.
    pub(super) new_values: u64,
}

fn record(case: &Case, number: usize, dice: &mut StdRng) -> Record {
    let mut record = Record {
        json: Json::null(),
        must: Vec::new(),
        all_fit: true,
        twice: false,
        new_values: 0,
    };
    let mut members: Vec<(String, Json)> = Vec::new();
    let mut elements = Vec::new();
    for column in &case.columns {
        let (value, fits) = match column.name.as_str() {
            NUMBER => (Json::Text(number.to_string()), true),
            _ => value(column.kind, dice),
        };
        let is_unwritable = column
            .kind
            .is_some_and(|kind| kind.kind.sql == "interval" || kind.kind.sql == "int4range");
        let missing = column.name != NUMBER && once_in(dice, 8);
        if case.positional {
            elements.push(value.clone());
        } else if missing {
            continue;
        }
        let has_home = column.declared || column.exists;
        if fits && has_home && !value.is_null() && !is_unwritable {
            record.must.push(column.name.clone());
        }
        record.all_fit &= fits && !is_unwritable;
        if case.positional {
            continue;
        }
        let (first, whole) = match column.place().as_slice() {
            [Step::Key(first), rest @ ..] => (first.clone(), nested(rest, value, dice)),
            _ => continue,
        };
        let path = column.place();
        if path.len() == 1 && once_in(dice, 20) {
            members.push((first.clone(), any(dice, 1)));
        } else if path.len() == 2 && once_in(dice, 60) {
            record.twice = true;
            members.push((first.clone(), any(dice, 1)));
        }
        members.push((first, whole));
    }
    if case.positional {
        record.json = Json::List(elements);
        return record;
    }
    if !members.iter().any(|(name, _)| name == NUMBER) {
        members.push((NUMBER.to_owned(), Json::Text(number.to_string())));
    }
    let mut unknown = vec!["u0", "u1", "u2", "u3", "E", "_extra", "ctid", "", "k\0", "inc0"];
    unknown.extend(NAMES);
    for _ in 0..dice.random_range(0..4) {
        let name = if once_in(dice, 12) {
            text(dice)
        } else {
            (*one(dice, &unknown)).to_owned()
        };
        let is_known = |column: &Column| column.path.is_none() && column.name == name;
        if !case.columns.iter().any(is_known) && !case.is_entered(&name) {
            members.push((name.clone(), any(dice, 2)));
            // The last one counts, also when it is null.
            if once_in(dice, 6) {
                let last = if dice.random() { Json::null() } else { any(dice, 1) };
                members.push((name, last));
            }
        }
    }
    // The order of equal keys counts, so whole groups of them move.
    let mut groups: Vec<Vec<(String, Json)>> = Vec::new();
    for member in members {
        match groups.iter_mut().find(|group| group[0].0 == member.0) {
            Some(group) => group.push(member),
            None => groups.push(vec![member]),
        }
    }
    groups.shuffle(dice);
    let members = groups.concat();
    for (name, value) in &members {
        let name = name.replace('\0', "\u{FFFD}");
        record.new_values += u64::from(!value.is_null() && case.is_new(&name));
    }
    record.json = Json::Object(members);
    record
}

/// A value for a column, and whether it fits for certain.
fn value(kind: Option<ColumnKind>, dice: &mut StdRng) -> (Json, bool) {
    let Some(kind) = kind else {
        return (any(dice, 2), false);
    };
    let fitting = kind.fitting(dice);
    match dice.random_range(0..10) {
        0 => (Json::null(), true),
        // The server alone knows the labels of an enum.
        1 if kind.kind.sql == "mood" => (Json::Plain("7".to_owned()), false),
        1 => (any(dice, 3), false),
        2 | 3 if kind.kind.sql != "mood" => match fitting {
            Json::Text(text) | Json::Plain(text) => (Json::Text(spoiled(dice, &text)), false),
            nested => (Json::Text(nested.plain()), false),
        },
        _ => {
            let is_null = fitting.is_null();
            (fitting, !is_null)
        }
    }
}

/// The value at the rest of a path.
fn nested(rest: &[Step], value: Json, dice: &mut StdRng) -> Json {
    match rest {
        [] => value,
        [Step::Key(key), rest @ ..] => {
            let mut members = vec![(key.clone(), nested(rest, value, dice))];
            if dice.random() {
                members.insert(0, ("beside".to_owned(), any(dice, 1)));
            }
            Json::Object(members)
        }
        [Step::Index(index), rest @ ..] => {
            let mut items: Vec<_> = (0..*index).map(|_| any(dice, 1)).collect();
            items.push(nested(rest, value, dice));
            Json::List(items)
        }
    }
}

/// What has to become of a message.
pub(super) enum Fate {
    /// These rows; with `new_keys: freeze`, none of its own if a value does not fit.
    Rows {
        records: Vec<Record>,
        may_die: bool,
    },
    /// A row with the whole message.
    Whole,
    Ignored,
    Dead,
    /// Whatever: its bytes are no message of a feed's.
    Any,
}

pub(super) struct Sent {
    pub(super) text: String,
    pub(super) json: Json,
    pub(super) fate: Fate,
}

fn message(case: &Case, dice: &mut StdRng) -> Sent {
    let mut records: Vec<_> = (0..*one(dice, &[1, 1, 1, 2, 3, 0]))
        .map(|number| record(case, number, dice))
        .collect();
    // A list of lists is a list of records, so a single record that is one must not look like that.
    let is_clear = |record: &Record| match &record.json {
        Json::List(items) => items
            .iter()
            .any(|item| matches!(item, Json::Plain(_) | Json::Text(_))),
        _ => true,
    };
    let one_record = records.len() == 1 && dice.random() && is_clear(&records[0]);
    let mut data = if one_record {
        records[0].json.clone()
    } else {
        Json::List(records.iter().map(|record| record.json.clone()).collect())
    };
    let is_whole = once_in(dice, 15);
    if is_whole {
        // No record: a value of another kind, or nothing at all.
        data = match dice.random_range(0..4) {
            0 => Json::Text("hb".to_owned()),
            1 => Json::Plain("1.50".to_owned()),
            // To who asks for elements by number a list is a record.
            2 if !case.positional => Json::List(vec![Json::Plain("1".to_owned()), Json::Object(Vec::new())]),
            _ => Json::null(),
        };
        records.clear();
    }
    let kind = one(dice, &["\"yes\"", "1.0", "null", "false", "\"no\"", "0"]);
    let mut envelope = vec![("kind".to_owned(), Json::Plain((*kind).to_owned()))];
    let outside = Json::Object(
        (0..3)
            .map(|number| (format!("i{number}"), any(dice, 1)))
            .collect(),
    );
    envelope.push(("envelope".to_owned(), outside));
    envelope.push(("beside".to_owned(), any(dice, 2)));
    let json = match case.records {
        Records::Message => match data {
            // What the message is asked for beside its records are keys of the record as well.
            Json::Object(mut members) => {
                envelope.pop();
                let new = envelope
                    .iter()
                    .filter(|(name, value)| case.is_new(name) && !value.is_null());
                records[0].new_values += new.count() as u64;
                members.extend(envelope);
                records[0].json = Json::Object(members.clone());
                Json::Object(members)
            }
            other => other,
        },
        Records::Data => {
            envelope.push(("data".to_owned(), data));
            envelope.shuffle(dice);
            Json::Object(envelope)
        }
        Records::DeepList => {
            let inner = Json::Object(vec![("data".to_owned(), data)]);
            envelope.push(("p".to_owned(), inner));
            envelope.shuffle(dice);
            Json::Object(envelope)
        }
        Records::SecondElement => Json::List(vec![
            Json::Plain("17".to_owned()),
            data,
            any(dice, 1),
            any(dice, 1),
        ]),
    };
    let matches = matches!(json.member("kind"), Some(Json::Plain(kind)) if ["\"yes\"", "1.0", "null", "false"].contains(&kind.as_str()));
    let is_twice = records.iter().any(|record| record.twice);
    let is_new = records.iter().any(|record| record.new_values > 0);
    let fate = if is_twice {
        Fate::Dead
    } else if case.when && !matches {
        Fate::Ignored
    } else if json.has_nul() && case.nul.is_none() {
        Fate::Dead
    } else if is_whole || records.is_empty() && case.records == Records::Message {
        Fate::Whole
    } else if records.is_empty() {
        Fate::Ignored
    } else if case.new_keys == NewKeys::Freeze && is_new {
        Fate::Dead
    } else {
        let may_die = case.new_keys == NewKeys::Freeze
            && (!case.include.is_empty() || records.iter().any(|record| !record.all_fit));
        Fate::Rows { records, may_die }
    };
    let text = json.written(dice);
    Sent { text, json, fate }
}

/// A message, or bytes that are none.
pub(super) fn anything(case: &Case, dice: &mut StdRng) -> Sent {
    let mut sent = message(case, dice);
    match dice.random_range(0..60) {
        0 => {
            sent.text = spoiled(dice, &sent.text);
            sent.fate = Fate::Any;
        }
        1 => {
            let end = dice.random_range(0..sent.text.len());
            let end = (0..=end)
                .rev()
                .find(|&end| sent.text.is_char_boundary(end))
                .unwrap();
            sent.text.truncate(end);
            sent.fate = match sent.text.trim().is_empty() {
                true => Fate::Dead,
                false => Fate::Any,
            };
        }
        2 => {
            let within = |what: &str| format!("[{what}, {}]", sent.text);
            sent.text = match dice.random_range(0..4) {
                0 => within("\"\\ud800\""),
                1 => within("\"\\udc00x\""),
                2 => within(&format!("{}{}", "[".repeat(130), "]".repeat(130))),
                _ => within("1e131072"),
            };
            sent.fate = Fate::Dead;
        }
        _ => {}
    }
    sent
}
