//! The keys of one profile, whether they stand in the file or in its `url`.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use crate::config::problem::{quotable, suggestion};
use crate::config::secret::Secret;
use crate::config::section::Section;
use crate::config::units::Span;

use super::url::ConnectionUrl;

/// What a number without a unit means: libpq's settings have none.
#[derive(Clone, Copy)]
pub(super) enum PlainNumber {
    Seconds,
    Milliseconds,
}

/// Reads keys; each may stand in the file or in the URL, not in both.
pub(super) struct Source<'s, 'f> {
    section: &'s mut Section<'f>,
    url: Option<ConnectionUrl>,
    /// There is a URL that could not be read: nobody knows what it would have set.
    url_is_broken: bool,
}

impl<'s, 'f> Source<'s, 'f> {
    pub(super) fn new(section: &'s mut Section<'f>) -> Self {
        let text: Option<String> = section.optional("url");
        let given = section.contains("url");
        let url = text.and_then(|text| match ConnectionUrl::parse(&text) {
            Ok(url) => Some(url),
            Err(error) => {
                section.problem("url", &error.to_string());
                None
            }
        });
        Self {
            section,
            url_is_broken: given && url.is_none(),
            url,
        }
    }

    /// Reports that the value of `key` is wrong, where it stands.
    pub(super) fn problem(&mut self, key: &str, message: &str) {
        if !self.section.contains(key) && self.in_url(key).is_some() {
            self.section.problem("url", &format!("{key} in it {message}"));
        } else {
            self.section.problem(key, message);
        }
    }

    /// Reports that `key` is missing, unless that is already explained.
    pub(super) fn missing(&mut self, key: &str) {
        if !self.section.contains(key) && !self.url_is_broken {
            self.section.problem(key, "is missing");
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let written: Option<String> = self.section.optional(key);
        self.either(key, written)
    }

    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let written: Option<Secret> = self.section.optional(key);
        let from_url = self.in_url(key).map(Secret::new);
        self.refuse_both(key);
        written.or(from_url).filter(|secret| !secret.expose().is_empty())
    }

    /// A text, or a list of them.
    pub(super) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let written: Option<Texts> = self.section.optional(key);
        let from_url = self.in_url(key).map(|text| vec![text]);
        self.refuse_both(key);
        written.map(|texts| texts.0).or(from_url)
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&mut self, key: &str, known: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = known.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let message = format!("unknown value `{}`{}", quotable(&text), suggestion(&text, &names));
            self.problem(key, &message);
        }
        found.map(|(_, value)| *value)
    }

    /// On or off, as libpq and YAML write it.
    pub(super) fn switch(&mut self, key: &str) -> Option<bool> {
        let known = [
            ("1", true),
            ("0", false),
            ("true", true),
            ("false", false),
            ("on", true),
            ("off", false),
        ];
        self.one_of(key, &known)
    }

    /// A duration; a plain number as libpq means it.
    pub(super) fn span(&mut self, key: &str, plain: PlainNumber) -> Option<Duration> {
        let text = self.text(key)?;
        let unit = match plain {
            PlainNumber::Seconds => "s",
            PlainNumber::Milliseconds => "ms",
        };
        let with_unit = if text.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("{text}{unit}")
        } else {
            text
        };
        match with_unit.parse::<Span>() {
            Ok(span) => Some(span.duration()),
            Err(_) => {
                let message =
                    format!("must be a duration such as 10s or 500ms; a plain number counts as {unit}");
                self.problem(key, &message);
                None
            }
        }
    }

    fn in_url(&self, key: &str) -> Option<String> {
        self.url.as_ref()?.get(key).map(str::to_owned)
    }

    fn either(&mut self, key: &str, written: Option<String>) -> Option<String> {
        self.refuse_both(key);
        written.or_else(|| self.in_url(key))
    }

    fn refuse_both(&mut self, key: &str) {
        if self.section.contains(key) && self.in_url(key).is_some() {
            self.section
                .problem(key, "is set by `url`, too; keep one of the two");
        }
    }
}

/// `a`, `5432` or `[a, b]`.
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Texts;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text, or a list of texts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Texts, E> {
                Ok(Texts(vec![number.to_string()]))
            }

            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Texts, E> {
                Err(E::custom("expected text, or a list of texts, found a number"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element::<String>()? {
                    texts.push(text);
                }
                if texts.is_empty() {
                    return Err(A::Error::custom("the list is empty"));
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
