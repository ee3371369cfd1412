//! Text that is never shown: passwords, tokens.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands in place of a secret wherever it would be shown.
const HIDDEN: &str = "<hidden>";

/// A text that `Debug`, `Display` and `Serialize` never show; [`expose`](Self::expose) is the only way to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever must send it to the one it is meant for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The inner error may quote the value, so it goes no further.
        String::deserialize(deserializer)
            .map(Self)
            .map_err(|_| D::Error::custom("expected text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_nowhere_and_exposed_on_demand() {
        let secret = Secret::new("swordfish");
        assert_eq!(secret.expose(), "swordfish");
        assert_eq!(
            format!("{secret} {secret:?} {:#?}", Some(&secret))
                .matches("swordfish")
                .count(),
            0
        );
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"<hidden>\"");
    }

    #[test]
    fn a_secret_of_a_wrong_type_is_not_quoted_in_the_error() {
        let error = serde_json::from_str::<Secret>("123456789")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("expected text"), "{error}");
        assert!(!error.contains("123456789"), "{error}");
    }
}
