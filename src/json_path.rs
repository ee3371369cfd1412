//! Paths into JSON, as the configuration names them: `$`, `$.data`, `$['odd key']`, `$[2][3]`, `$.data[*]`.
//!
//! A small part of JSONPath (RFC 9535): members, elements counted from 0, and all elements. Parsed once, and displayed as
//! it would be written, so that what is displayed parses to the same path. [`Finder`] looks for what stands at single
//! values' paths, [`RecordsPath`] for the records of a document; a mapping has a search of its own.

mod find;
mod records;

use std::fmt;
use std::str::FromStr;

pub use find::{Finder, string_of};
pub use records::{RecordsError, RecordsPath};

/// Steps of one path. Messages are at most 128 levels deep; nobody writes a path of half that.
const MAX_STEPS: usize = 32;

/// One step down into a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The member of an object with this key.
    Key(String),
    /// The element of an array, counted from 0.
    Index(u32),
    /// Each element of an array.
    Each,
}

/// Where in a value something stands. Without steps: the value itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Vec<Step>);

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (a path is written $, $.key, $['odd key'], $[0] or $.list[*])")]
pub struct PathError {
    /// The character of the text at which it ceases to be one, counted from 0.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl Path {
    /// The steps from the value down.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether it can mean several values.
    #[must_use]
    pub fn is_plural(&self) -> bool {
        self.0.contains(&Step::Each)
    }

    /// Without an `[*]` at its end.
    pub(crate) fn without_last_each(mut self) -> Self {
        if self.0.last() == Some(&Step::Each) {
            self.0.pop();
        }
        self
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let mut reader = Reader {
            rest: text.chars().collect::<Vec<_>>().into_iter().peekable(),
            at: 0,
        };
        if reader.next() != Some('$') {
            return Err(PathError {
                at: 0,
                what: "a path begins with $",
            });
        }
        let mut steps = Vec::new();
        while let Some(begin) = reader.next() {
            let at = reader.at - 1;
            steps.push(match begin {
                '.' => Step::Key(reader.plain_key()?),
                '[' => reader.bracket()?,
                _ => {
                    return Err(PathError {
                        at,
                        what: "expected . or [ or the end",
                    });
                }
            });
            if steps.len() > MAX_STEPS {
                return Err(PathError {
                    at,
                    what: "a path has at most 32 steps",
                });
            }
        }
        Ok(Self(steps))
    }
}

struct Reader {
    rest: std::iter::Peekable<std::vec::IntoIter<char>>,
    /// Characters read.
    at: usize,
}

impl Reader {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.at += usize::from(next.is_some());
        next
    }

    fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let next = self.rest.next_if(|&character| wanted(character));
        self.at += usize::from(next.is_some());
        next
    }

    fn wrong<T>(&self, what: &'static str) -> Result<T, PathError> {
        Err(PathError { at: self.at, what })
    }

    fn plain_key(&mut self) -> Result<String, PathError> {
        let mut key = String::new();
        while let Some(character) = self.next_if(is_plain) {
            key.push(character);
        }
        if key.is_empty() {
            return self
                .wrong("expected a key after the point; a key of other characters is written ['odd key']");
        }
        Ok(key)
    }

    fn bracket(&mut self) -> Result<Step, PathError> {
        let step = match self.rest.peek().copied() {
            Some('*') => {
                self.next();
                Step::Each
            }
            Some(quote @ ('\'' | '"')) => {
                self.next();
                Step::Key(self.quoted_key(quote)?)
            }
            Some('0'..='9') => self.index()?,
            _ => return self.wrong("expected a number, * or a key in quotes after ["),
        };
        match self.next_if(|character| character == ']') {
            Some(_) => Ok(step),
            None => self.wrong("expected ]"),
        }
    }

    fn index(&mut self) -> Result<Step, PathError> {
        let begin = self.at;
        let mut index: u32 = 0;
        while let Some(digit) = self.next_if(|character| character.is_ascii_digit()) {
            let digit = digit.to_digit(10).unwrap_or_default();
            match index.checked_mul(10).and_then(|index| index.checked_add(digit)) {
                Some(larger) => index = larger,
                None => {
                    return Err(PathError {
                        at: begin,
                        what: "the number is too large",
                    });
                }
            }
        }
        Ok(Step::Index(index))
    }

    fn quoted_key(&mut self, quote: char) -> Result<String, PathError> {
        let mut key = String::new();
        loop {
            match self.next() {
                Some('\\') => match self.next_if(|next| matches!(next, '\\' | '\'' | '"')) {
                    Some(escaped) => key.push(escaped),
                    None => return self.wrong("a backslash stands before a quote or a backslash"),
                },
                Some(character) if character == quote => return Ok(key),
                Some(character) => key.push(character),
                None => return self.wrong("the key in quotes has no end"),
            }
        }
    }
}

/// Whether a character can stand in a key without quotes.
fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-')
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for step in &self.0 {
            match step {
                Step::Key(key) if !key.is_empty() && key.chars().all(is_plain) => write!(f, ".{key}")?,
                Step::Key(key) => {
                    let key = key.replace('\\', "\\\\").replace('\'', "\\'");
                    write!(f, "['{key}']")?;
                }
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Each => f.write_str("[*]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(key: &str) -> Step {
        Step::Key(key.to_owned())
    }

    #[test]
    fn every_form_of_a_path_is_read() {
        for (text, steps) in [
            ("$", vec![]),
            ("$.a.b-c", vec![key("a"), key("b-c")]),
            ("$['odd key'].x", vec![key("odd key"), key("x")]),
            (r#"$["it's"]['\'\\']"#, vec![key("it's"), key("'\\")]),
            ("$['']", vec![key("")]),
            ("$[2][03]", vec![Step::Index(2), Step::Index(3)]),
            ("$.data[*].größe", vec![key("data"), Step::Each, key("größe")]),
        ] {
            assert_eq!(text.parse(), Ok(Path(steps)), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_found_at_its_character() {
        for (text, at, what) in [
            ("", 0, "begins with $"),
            ("a.b", 0, "begins with $"),
            ("$a", 1, "expected . or ["),
            ("$.", 2, "expected a key"),
            ("$.größe..b", 8, "expected a key"),
            ("$.a b", 3, "expected . or ["),
            ("$[", 2, "expected a number"),
            ("$[-1]", 2, "expected a number"),
            ("$[1", 3, "expected ]"),
            ("$[4294967296]", 2, "too large"),
            ("$['a", 4, "no end"),
            ("$['\\a']", 4, "backslash"),
            (&format!("${}", ".a".repeat(33)), 65, "at most 32"),
        ] {
            let error = text.parse::<Path>().unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.what.contains(what), "{text}: {error}");
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<String>().prop_map(Step::Key),
            "[a-z_'\"\\\\ .\\[\\]]{0,6}".prop_map(Step::Key),
            any::<u32>().prop_map(Step::Index),
            Just(Step::Each),
        ]
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_the_same_path(steps in proptest::collection::vec(step(), 0..8)) {
            let path = Path(steps);
            prop_assert_eq!(path.to_string().parse(), Ok(path));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String, near in "\\$[.\\[\\]'\"\\\\*a0-9 ]{0,12}") {
            for text in [text, near] {
                if let Err(error) = text.parse::<Path>() {
                    prop_assert!(error.at <= text.chars().count());
                }
            }
        }
    }
}
