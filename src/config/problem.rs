//! What is wrong with a file, and where: one line each, `file:line:column: path of the key: what is wrong`.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::FileError;

/// No more problems of a file are kept: who has made so many wants to read the first ones.
const MAX_PROBLEMS: usize = 100;

/// Longest part of a text from the file that a message repeats.
const MAX_QUOTED_CHARACTERS: usize = 64;

/// Least similarity (Jaro-Winkler, 0 to 1) at which a word is suggested in place of an unknown one.
const LEAST_SIMILARITY: f64 = 0.8;

/// A place in a file; both numbers begin with 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// So many characters further in the line.
    pub(super) fn behind(self, characters: usize) -> Self {
        Self {
            column: self.column + characters,
            ..self
        }
    }

    pub(super) fn of(marker: &saphyr_parser::Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// Where in it.
    pub at: Position,
    /// Path of the key: `runners[0] (websocket_1).stage.path`; empty when the file as a whole is meant.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.at.line, self.at.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The problems of one file, gathered while it is read. Sections of it share one collection, so adding needs no
/// exclusive reference.
pub(super) struct Problems {
    file: String,
    list: RefCell<Vec<Problem>>,
}

impl Problems {
    pub(super) fn of(file: &Path) -> Self {
        Self {
            file: file.display().to_string(),
            list: RefCell::default(),
        }
    }

    /// The file, as it was named.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn add(&self, at: Position, path: impl Into<String>, message: impl Into<String>) {
        let mut list = self.list.borrow_mut();
        if list.len() < MAX_PROBLEMS {
            list.push(Problem {
                file: self.file.clone(),
                at,
                path: path.into(),
                message: message.into(),
            });
        }
    }

    pub(super) fn count(&self) -> usize {
        self.list.borrow().len()
    }

    /// The problems in the order of their places.
    pub(super) fn into_sorted(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|problem| problem.at);
        // A mapping that several aliases name is read several times, and so are its mistakes.
        list.dedup();
        list
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {cause}. Name another file with -c, or write one with `socket-el init`", file.display())]
    Unreadable {
        /// The file, as it was named.
        file: PathBuf,
        /// Why. It is part of what `Display` prints, and so no `source`.
        cause: FileError,
    },
    /// There are mistakes in it: all of them, a line each, in the order in which they stand.
    #[error("{}", lines(problems))]
    Mistakes {
        /// The mistakes; at least one.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The mistakes with their places; empty when the file could not be read at all.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Mistakes { problems } => problems,
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The known word that is nearest to an unknown one, if any is near.
#[must_use]
pub fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// "; did you mean `size`?", or else the list of what is known.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known here: {}", known.join(", ")),
    }
}

/// A text from the file as a message may repeat it: on one line, and not too long.
pub(super) fn quotable(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(MAX_QUOTED_CHARACTERS) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(MAX_QUOTED_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}
