//! A random mapping, as a user writes it, and the table that it meets.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::kinds::{ColumnKind, OTHERS};
use crate::random::{NulRule, once_in, one};

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

pub(super) fn key(key: &str) -> Step {
    Step::Key(key.to_owned())
}

/// A path as the configuration has it, in single quotes.
fn written(path: &[Step]) -> String {
    let steps = path.iter().map(|step| match step {
        Step::Key(key) if key.chars().all(|character| character.is_ascii_alphanumeric()) => {
            format!(".{key}")
        }
        Step::Key(key) => format!("[\"{}\"]", key.replace('\\', "\\\\").replace('"', "\\\"")),
        Step::Index(index) => format!("[{index}]"),
    });
    format!("'${}'", steps.collect::<String>().replace('\'', "''"))
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A column that the mapping or the table names.
pub(super) struct Column {
    /// The key that goes there, and its name where that is free.
    pub(super) name: String,
    /// Its type, unless the values are to suggest one.
    pub(super) kind: Option<ColumnKind>,
    /// Where in the record its value stands, unless under its name.
    pub(super) path: Option<Vec<Step>>,
    pub(super) declared: bool,
    pub(super) exists: bool,
}

impl Column {
    pub(super) fn place(&self) -> Vec<Step> {
        self.path.clone().unwrap_or_else(|| vec![key(&self.name)])
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NewKeys {
    Evolve,
    Freeze,
    Discard,
}

/// Where the records stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Records {
    Message,
    Data,
    DeepList,
    SecondElement,
}

/// A mapping and a table.
pub(super) struct Case {
    pub(super) columns: Vec<Column>,
    pub(super) include: Vec<(String, Vec<Step>)>,
    pub(super) records: Records,
    /// Records are arrays, and the columns their elements.
    pub(super) positional: bool,
    pub(super) when: bool,
    pub(super) new_keys: NewKeys,
    /// `None`: messages with NUL are dead letters.
    pub(super) nul: Option<NulRule>,
    /// `numbers: numeric`.
    pub(super) exact: bool,
    /// How many columns new keys may fill the table up to, if the configuration says so.
    pub(super) max_columns: Option<usize>,
    /// The keys in `config.yml`.
    pub(super) yaml: String,
    /// What makes the table, if it stands there already.
    pub(super) table: String,
}

/// The key of a record's number, by which its row is found.
pub(super) const NUMBER: &str = "number";

pub(super) const NAMES: [&str; 14] = [
    "price", "E", "e", "select", "it's", "größe", "xmin", "a\"b", "", "_extra", "_message", "a b",
    "_offset_", "x\\y",
];

impl Case {
    pub(super) fn any(dice: &mut StdRng) -> Self {
        let records = *one(
            dice,
            &[
                Records::Message,
                Records::Message,
                Records::Data,
                Records::DeepList,
                Records::SecondElement,
            ],
        );
        let positional = records == Records::SecondElement && dice.random();
        let exists = once_in(dice, 3);
        let mut names: Vec<_> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        names.push("n".repeat(70));
        names.shuffle(dice);
        let count = dice.random_range(0..=8);
        let mut columns: Vec<_> = names
            .into_iter()
            .take(count)
            .enumerate()
            .map(|(number, name)| Self::column(dice, number, name, positional, exists))
            .filter(|column| column.declared || column.exists || column.path.is_some())
            .filter(|column| !positional || !column.name.is_empty())
            .collect();
        let positional = positional && !columns.is_empty();
        for (number, column) in columns.iter_mut().enumerate().filter(|_| positional) {
            column.path = Some(vec![Step::Index(number)]);
        }
        let new_keys = *one(
            dice,
            &[
                NewKeys::Evolve,
                NewKeys::Evolve,
                NewKeys::Freeze,
                NewKeys::Discard,
            ],
        );
        if positional || new_keys != NewKeys::Evolve || dice.random() {
            columns.push(Column {
                name: NUMBER.to_owned(),
                kind: Some(ColumnKind::text()),
                path: positional.then(|| vec![Step::Index(columns.len())]),
                declared: true,
                exists: false,
            });
        }
        let include: Vec<_> = (0..dice.random_range(0..3))
            .map(|number| {
                let path = match records {
                    Records::SecondElement => vec![Step::Index(2 + number)],
                    _ => vec![key("envelope"), key(&format!("i{number}"))],
                };
                (format!("inc{number}"), path)
            })
            .collect();
        let mut case = Self {
            records,
            positional,
            when: records != Records::SecondElement && once_in(dice, 3),
            new_keys,
            nul: *one(dice, &[Some(NulRule::Replaced), Some(NulRule::LeftOut), None]),
            exact: dice.random(),
            // Fewer than are named, the three of the metadata among them, are refused.
            max_columns: once_in(dice, 3)
                .then(|| 3 + columns.len() + include.len() + dice.random_range(0..6)),
            yaml: String::new(),
            table: String::new(),
            include,
            columns,
        };
        case.yaml = case.keys();
        if exists {
            let columns = case.columns.iter().filter(|column| column.exists);
            let columns = columns.map(|column| {
                let kind = column.kind.unwrap();
                format!("{} {}, ", quoted(&existing_name(&column.name)), kind.sql())
            });
            case.table = format!(
                "CREATE TABLE feed.t ({}_offset bigint, _extra jsonb, _message jsonb);",
                columns.collect::<String>()
            );
        }
        case
    }

    fn column(dice: &mut StdRng, number: usize, name: String, positional: bool, exists: bool) -> Column {
        let kind = ColumnKind::any(dice);
        let kind = if exists && once_in(dice, 3) {
            ColumnKind {
                kind: one(dice, &OTHERS),
                array: false,
            }
        } else {
            kind
        };
        // Where a type is read in a unit or a coding of its own, the table alone does not say so.
        let needs_declaration = kind.kind.declared != kind.kind.sql && !kind.kind.declared.is_empty();
        let can_be_named = !name.is_empty();
        let kind = if needs_declaration && !can_be_named {
            ColumnKind::text()
        } else {
            kind
        };
        let exists = exists && dice.random() && name.len() < 60;
        let path = if positional {
            Some(vec![Step::Index(number)])
        } else if !can_be_named {
            None
        } else {
            match dice.random_range(0..5) {
                0 => Some(vec![key(&format!("n{number}")), key("x y")]),
                1 => Some(vec![key(&format!("n{number}")), Step::Index(1)]),
                2 => Some(vec![key(&format!("m{number}"))]),
                _ => None,
            }
        };
        let typed = !once_in(dice, 5) || exists;
        let is_other = kind.kind.declared.is_empty();
        Column {
            declared: can_be_named && !is_other && typed && (!exists || needs_declaration || dice.random()),
            kind: (typed && (!is_other || exists)).then_some(kind),
            exists,
            path: path.filter(|_| can_be_named),
            name,
        }
    }

    /// The mapping, as a user writes it.
    fn keys(&self) -> String {
        let mut yaml = "metadata: true\n".to_owned();
        yaml += match self.records {
            Records::Message => "",
            Records::Data => "records: $.data\n",
            Records::DeepList => "records: $.p.data[*]\n",
            Records::SecondElement => "records: $[1]\n",
        };
        if self.when {
            yaml += "when: { $.kind: [yes, 1, null, false] }\n";
        }
        if !self.include.is_empty() {
            yaml += "include:\n";
            for (name, path) in &self.include {
                yaml += &format!("  {name}: {}\n", written(path));
            }
        }
        let mut columns = String::new();
        for column in &self.columns {
            let path = column
                .path
                .as_ref()
                .map(|path| format!("path: {}", written(path)));
            let declared = column.kind.filter(|_| column.declared);
            let column_type = declared.map(|kind| format!("type: '{}'", kind.declared()));
            let parts: Vec<_> = path.into_iter().chain(column_type).collect();
            if !parts.is_empty() {
                let name = serde_json::Value::from(column.name.as_str());
                columns += &format!("  {name}: {{ {} }}\n", parts.join(", "));
            }
        }
        if !columns.is_empty() {
            yaml += &format!("columns:\n{columns}");
        }
        yaml += match self.new_keys {
            NewKeys::Evolve => "",
            NewKeys::Freeze => "new_keys: freeze\n",
            NewKeys::Discard => "new_keys: discard\n",
        };
        yaml += match self.nul {
            Some(NulRule::Replaced) => "",
            Some(NulRule::LeftOut) => "nul: strip\n",
            None => "nul: dead_letter\n",
        };
        if self.exact {
            yaml += "numbers: numeric\n";
        }
        if let Some(most) = self.max_columns {
            yaml += &format!("max_columns: {most}\n");
        }
        yaml
    }

    /// Keys that name a column which is filled from elsewhere: their values never go there.
    fn is_taken(&self, name: &str) -> bool {
        self.columns
            .iter()
            .any(|column| column.path.is_some() && column.name == name)
            || self.include.iter().any(|(include, _)| include == name)
    }

    /// Keys whose whole value a path takes.
    fn is_moved(&self, name: &str) -> bool {
        self.columns
            .iter()
            .any(|column| column.path.as_deref() == Some(&[key(name)]))
    }

    /// Keys that a path goes through.
    pub(super) fn is_entered(&self, name: &str) -> bool {
        self.columns
            .iter()
            .any(|column| column.path.as_ref().is_some_and(|path| path[0] == key(name)))
    }

    /// Keys that have no column, and that the configuration lets get none.
    pub(super) fn is_new(&self, name: &str) -> bool {
        if self.is_moved(name) {
            return false;
        }
        if self.is_taken(name) {
            return true;
        }
        let has_column = self
            .columns
            .iter()
            .any(|column| column.name == name && (column.declared || column.exists));
        !has_column && !self.is_entered(name)
    }
}

/// The name of an existing column that a key goes to.
pub(super) fn existing_name(key: &str) -> String {
    let reserved = ["", "xmin", "_extra", "_message", "_offset"];
    let stem = key.trim_end_matches('_');
    if reserved.contains(&stem) || reserved.contains(&key) {
        format!("{key}_")
    } else {
        key.to_owned()
    }
}
