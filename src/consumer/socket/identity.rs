//! What makes two messages of different connections the same one: the values at paths that the configuration names, or all of
//! their bytes.
//!
//! A message is known by 128 bits of SipHash under a key that is drawn when the consumer starts, so that neither chance
//! nor whoever makes the messages brings two of them together. Nothing is allocated for a message.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::json_path::Finder;

/// Most paths that an identity may have.
pub(super) const MAX_PATHS: usize = 8;

/// What a message is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint(u128);

/// The bit that tells whether a fingerprint is of named values.
const NAMED: u128 = 1;

impl Fingerprint {
    /// Whether it is of the values that the configuration says are the message's identity.
    pub(super) fn is_named(self) -> bool {
        self.0 & NAMED != 0
    }
}

/// Tells what messages are known by.
#[derive(Clone)]
pub(super) struct Identifier {
    /// `None`: messages are known by their bytes.
    named: Option<Finder>,
    hasher: SipHasher13,
}

impl Identifier {
    /// By the values that stand at these paths, at most [`MAX_PATHS`], or by bytes.
    pub(super) fn new(named: Option<Finder>) -> Self {
        Self {
            named,
            hasher: SipHasher13::new_with_keys(rand::random(), rand::random()),
        }
    }

    /// What this message is known by. One that lacks a value at one of the paths is known by its bytes.
    pub(super) fn of(&self, payload: &[u8]) -> Fingerprint {
        self.by_values(payload).unwrap_or_else(|| {
            let mut hasher = self.hasher;
            hasher.write(payload);
            Fingerprint(u128::from(hasher.finish128()) & !NAMED)
        })
    }

    fn by_values(&self, payload: &[u8]) -> Option<Fingerprint> {
        let named = self.named.as_ref()?;
        let mut found = [None; MAX_PATHS];
        let found = found.get_mut(..named.paths())?;
        named.find(payload, found)?;
        let mut hasher = self.hasher;
        for value in found {
            let value = (*value)?;
            // With its length, so that no value goes over into the next one.
            hasher.write_usize(value.len());
            hasher.write(value.as_bytes());
        }
        Some(Fingerprint(u128::from(hasher.finish128()) | NAMED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_path::Path;

    fn by(paths: &[&str]) -> Identifier {
        let paths: Vec<Path> = paths.iter().map(|path| path.parse().unwrap()).collect();
        Identifier::new((!paths.is_empty()).then(|| Finder::new(&paths)))
    }

    #[test]
    fn without_paths_a_message_is_its_bytes() {
        let identifier = by(&[]);
        let of = |text: &str| identifier.of(text.as_bytes());
        assert_eq!(of(r#"{"id":1}"#), of(r#"{"id":1}"#));
        assert_ne!(of(r#"{"id":1}"#), of(r#"{"id": 1}"#));
        assert_ne!(of(""), of("\0"));
        assert!(!of("").is_named());
        assert_ne!(of("x"), by(&[]).of(b"x"), "another start has another key");
    }

    #[test]
    fn with_paths_a_message_is_what_stands_there_and_its_bytes_where_one_is_missing() {
        let identifier = by(&["$.id", "$.of[1]"]);
        let of = |text: &str| identifier.of(text.as_bytes());
        let first = of(r#"{"id":1,"of":["a","b"],"seen":"here"}"#);
        assert!(first.is_named());
        assert_eq!(first, of(r#"{ "seen": "there", "of": [0, "b"], "id": 1 }"#));
        for other in [
            r#"{"id":2,"of":["a","b"]}"#,
            r#"{"id":1,"of":["a","c"]}"#,
            r#"{"id":"1","of":["a","b"]}"#,
            r#"{"id":1,"of":["a",["b"]]}"#,
        ] {
            assert!(of(other).is_named());
            assert_ne!(first, of(other), "{other}");
        }
        for without in [r#"{"id":1,"of":["b"]}"#, r#"{"id":1"#, "[]", "no JSON", "\u{0}"] {
            assert!(!of(without).is_named(), "{without}");
            assert_eq!(of(without), of(without));
        }
        assert!(!identifier.of(&[b'{', 0xff, b'}']).is_named());
        let pair = by(&["$[0]", "$[1]"]);
        assert_ne!(pair.of(br#"[1,23]"#), pair.of(br#"[12,3]"#));
    }
}
