//! `${VAR}` and `${VAR:-default}` in the texts of a file.
//!
//! Variables are replaced after the YAML is parsed, in values only and not in keys, so that no value of a variable
//! can add keys or change the shape of the file. As in a shell, `${VAR:-default}` stands for `default` when `VAR` is
//! unset or empty; `$${` is a literal `${`; any other `$` is itself. What was replaced is not read again, and
//! a default ends at the first `}`: nesting is refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// No value grows longer by its variables.
const MAX_EXPANDED_BYTES: usize = 64 * 1024;

/// Where the values of variables come from.
#[derive(Clone, Default)]
pub enum Variables {
    /// The environment of the process.
    #[default]
    Process,
    /// These and no others.
    Fixed(BTreeMap<String, String>),
}

/// Names only: values may be secrets.
impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("Process"),
            Self::Fixed(values) => f.debug_set().entries(values.keys()).finish(),
        }
    }
}

impl Variables {
    /// Exactly these variables.
    pub fn fixed<'v>(values: impl IntoIterator<Item = (&'v str, &'v str)>) -> Self {
        Self::Fixed(
            values
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// The value of a variable as the system holds it, for paths.
    pub(super) fn get(&self, name: &str) -> Option<OsString> {
        match self {
            Self::Process => std::env::var_os(name),
            Self::Fixed(values) => values.get(name).map(OsString::from),
        }
    }
}

/// Why the variables of a text can't be replaced. Never with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum VariableError {
    #[error(
        "the environment variable {0} is not set; set it, or write ${{{0}:-default}} (or $${{ for a literal ${{)"
    )]
    Unset(String),
    #[error("the environment variable {0} is not UTF-8")]
    NotUnicode(String),
    #[error("`${{` without its `}}`; write $${{ for a literal ${{")]
    Unclosed,
    #[error(
        "`${{…}}` takes the name of a variable, as in ${{NAME}} or ${{NAME:-default}}; write $${{ for a literal ${{"
    )]
    BadName,
    #[error("variables can't be nested in a default")]
    Nested,
    #[error("the text is longer than {MAX_EXPANDED_BYTES} bytes with its variables replaced")]
    TooLong,
}

/// Replaces the variables of a text. `None` when there was nothing to replace.
pub(super) fn expand(text: &str, variables: &Variables) -> Result<Option<Expanded>, VariableError> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = Expanded {
        text: String::with_capacity(text.len()),
        from_variables: false,
    };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from_dollar) = rest.split_at(at);
        let inside = &from_dollar[2..];
        if let Some(literal) = before.strip_suffix('$') {
            expanded.text.push_str(literal);
            expanded.text.push_str("${");
            rest = inside;
            continue;
        }
        expanded.text.push_str(before);
        let end = inside.find('}').ok_or(VariableError::Unclosed)?;
        expanded.text.push_str(&value_of(&inside[..end], variables)?);
        expanded.from_variables = true;
        if expanded.text.len() > MAX_EXPANDED_BYTES {
            return Err(VariableError::TooLong);
        }
        rest = &inside[end + 1..];
    }
    expanded.text.push_str(rest);
    Ok(Some(expanded))
}

/// A text with its variables replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// Whether it holds the value of a variable, and not only a literal `${`.
    pub(super) from_variables: bool,
}

/// What `NAME` or `NAME:-default` stands for.
fn value_of(expression: &str, variables: &Variables) -> Result<String, VariableError> {
    let (name, default) = match expression.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (expression, None),
    };
    let mut characters = name.chars();
    let begins_well = characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    if !begins_well || !characters.all(|one| one.is_ascii_alphanumeric() || one == '_') {
        return Err(VariableError::BadName);
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err(VariableError::Nested);
    }
    let value = match variables.get(name) {
        Some(value) => Some(
            value
                .into_string()
                .map_err(|_| VariableError::NotUnicode(name.to_owned()))?,
        ),
        None => None,
    };
    match (value, default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(VariableError::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, VariableError> {
        let variables = Variables::fixed([("HOST", "db"), ("EMPTY", ""), ("TRICKY", "${HOST} }: [")]);
        Ok(expand(text, &variables)?.map_or_else(|| text.to_owned(), |expanded| expanded.text))
    }

    #[test]
    fn variables_and_defaults_are_replaced() {
        for (text, result) in [
            ("plain $5 and $ and {}", "plain $5 and $ and {}"),
            ("${HOST}", "db"),
            ("wss://${HOST}:${PORT:-443}/x", "wss://db:443/x"),
            ("${EMPTY}", ""),
            ("${EMPTY:-full}", "full"),
            ("${NONE:-}", ""),
            ("$${HOST}", "${HOST}"),
            ("$$${HOST}", "$${HOST}"),
            ("a$${b}${HOST}c", "a${b}dbc"),
            ("${NONE:-a:-b}", "a:-b"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(result), "{text}");
        }
    }

    #[test]
    fn what_a_variable_holds_is_not_read_again() {
        assert_eq!(expanded("<${TRICKY}>").as_deref(), Ok("<${HOST} }: [>"));
    }

    #[test]
    fn bad_variables_are_refused() {
        for (text, error) in [
            ("${NONE}", VariableError::Unset("NONE".to_owned())),
            ("${HOST", VariableError::Unclosed),
            ("${}", VariableError::BadName),
            ("${1A}", VariableError::BadName),
            ("${HOST-x}", VariableError::BadName),
            ("${NONE:-${HOST}}", VariableError::Nested),
        ] {
            assert_eq!(expanded(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_value_of_absurd_length_is_refused() {
        let variables = Variables::fixed([("LONG", "x".repeat(MAX_EXPANDED_BYTES).as_str())]);
        assert_eq!(expand("${LONG}y", &variables).map(|_| ()), Ok(()));
        assert_eq!(expand("${LONG}${LONG}", &variables), Err(VariableError::TooLong));
    }

    #[test]
    fn an_unset_variable_says_what_to_do() {
        assert_eq!(
            expanded("${NONE}").unwrap_err().to_string(),
            "the environment variable NONE is not set; set it, or write ${NONE:-default} (or $${ for a literal ${)"
        );
    }
}
