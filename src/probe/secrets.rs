//! Secrets among what was given: found, so that they are shown nowhere, and named, so that `${VAR}` can stand for them.
//!
//! Secret is what stands in headers, credentials, passwords and tokens, and what looks like one in a URI or in a message that
//! logs in. Rather too much is hidden than too little: what was hidden without need is put back in an editor.

use serde_yaml::{Mapping, Value};

/// Secrets that are shorter than this are no secrets, and would be found everywhere.
const MIN_HIDDEN_BYTES: usize = 4;
/// A part of a path or a subprotocol that is as long as this, and of letters and digits, looks like a token.
const TOKEN_CHARS: usize = 20;
/// What stands for a secret that came back from the server.
const HIDDEN: &str = "<hidden>";

/// Headers that are no secrets.
const OPEN_HEADERS: [&str; 5] = [
    "origin",
    "user-agent",
    "accept-language",
    "cache-control",
    "pragma",
];

/// Parameters of a URI's query that say what is wanted, not who wants it.
const OPEN_PARAMETERS: [&str; 24] = [
    "stream", "streams", "symbol", "symbols", "channel", "channels", "topic", "topics", "market", "markets",
    "pair", "pairs", "product", "products", "asset", "assets", "depth", "interval", "format", "encoding",
    "compress", "version", "v", "timeunit",
];

/// Words in a key whose value is a secret, and keys that name one alone.
const SECRET_WORDS: [&str; 11] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "apikey",
    "signature",
    "jwt",
    "credential",
    "authorization",
    "accesskey",
    "privatekey",
];
const SECRET_KEYS: [&str; 7] = ["key", "sign", "sig", "auth", "pwd", "pass", "payload"];

/// Keys whose value says what a message is for.
const PURPOSE_KEYS: [&str; 8] = ["op", "event", "method", "type", "action", "cmd", "command", "req"];

/// Secrets that were found.
#[derive(Default)]
pub(super) struct Secrets {
    /// How the names of variables begin.
    prefix: String,
    /// Name of the variable that stands for it, and the secret.
    named: Vec<(String, String)>,
    /// Secrets that came from variables, or as a part of others.
    others: Vec<String>,
}

impl Secrets {
    /// None so far, for a consumer of this name.
    pub(super) fn of(name: &str) -> Self {
        Self {
            prefix: variable_name(name),
            ..Self::default()
        }
    }

    /// The variables that stand for secrets.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(|(name, _)| name.as_str())
    }

    /// The text without any of the secrets.
    pub(super) fn conceal(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.all() {
            text = text.replace(secret, HIDDEN);
        }
        text
    }

    /// The payload without any of the secrets, as they are or as JSON writes them. `None` when it has none.
    pub(super) fn conceal_payload(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut concealed = None;
        for secret in self.all() {
            let quoted = Value::from(secret);
            let escaped = serde_json::to_string(&quoted).unwrap_or_default();
            let inside = escaped.get(1..escaped.len().saturating_sub(1)).unwrap_or(secret);
            for form in [secret, inside] {
                let bytes: &[u8] = concealed.as_deref().unwrap_or(payload);
                if let Some(replaced) = without(bytes, form.as_bytes()) {
                    concealed = Some(replaced);
                }
            }
        }
        concealed
    }

    /// Longer ones first: one may be a part of another.
    fn all(&self) -> Vec<&str> {
        let named = self.named.iter().map(|(_, secret)| secret.as_str());
        let mut all: Vec<_> = named
            .chain(self.others.iter().map(String::as_str))
            .filter(|secret| secret.len() >= MIN_HIDDEN_BYTES)
            .collect();
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all
    }

    /// Notes a secret and returns what stands for it.
    fn hide(&mut self, wanted: &str, secret: &str) -> String {
        if secret.is_empty() {
            return String::new();
        }
        if secret.contains("${") {
            self.note_variables(secret);
            return secret.to_owned();
        }
        // The scheme of an authorization is not the secret, and the server may send back the rest alone.
        if let Some((_, last)) = secret.rsplit_once(' ') {
            self.others.push(last.to_owned());
        }
        if let Some((name, _)) = self.named.iter().find(|(_, known)| known == secret) {
            return format!("${{{name}}}");
        }
        let wanted = variable_name(wanted);
        let mut name = wanted.clone();
        let mut number = 2;
        while self.variables().any(|known| known == name) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        self.named.push((name.clone(), secret.to_owned()));
        format!("${{{name}}}")
    }

    /// Values of the variables in a text that is secret.
    fn note_variables(&mut self, text: &str) {
        for part in text.split("${").skip(1) {
            let name = part.split(['}', ':']).next().unwrap_or_default();
            self.others.extend(std::env::var(name).ok());
        }
    }

    fn hide_own(&mut self, what: &str, secret: &str) -> String {
        let wanted = format!("{}_{what}", self.prefix);
        self.hide(&wanted, secret)
    }

    /// The keys of a consumer with variables in place of all secrets.
    pub(super) fn hide_in(&mut self, keys: &Mapping) -> Mapping {
        let hidden = keys.iter().map(|(key, value)| {
            let value = match (key.as_str().unwrap_or_default(), value) {
                ("uri" | "proxy", Value::String(uri)) => Value::from(self.hide_in_uri(uri)),
                ("headers", Value::Mapping(headers)) => Value::from(self.hide_in_headers(headers)),
                ("auth", value) => self.hide_leaves("AUTH", value),
                ("subprotocols", Value::Sequence(names)) => {
                    let names = names.iter().map(|name| match name.as_str() {
                        Some(text) if looks_like_a_token(text) => {
                            Value::from(self.hide_own("SUBPROTOCOL", text))
                        }
                        _ => name.clone(),
                    });
                    Value::Sequence(names.collect())
                }
                ("subscribe" | "ping", value) => self.hide_in_steps(value),
                (_, value) => value.clone(),
            };
            (key.clone(), value)
        });
        hidden.collect()
    }

    /// `scheme://user:password@host/path?token=…`
    pub(super) fn hide_in_uri(&mut self, uri: &str) -> String {
        let Some((scheme, rest)) = uri.split_once("://") else {
            return uri.to_owned();
        };
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = match place.find('/') {
            Some(at) => place.split_at(at),
            None => (place, ""),
        };
        let mut shown = format!("{scheme}://");
        let host = match authority.rsplit_once('@') {
            Some((credentials, host)) => {
                let (user, password) = match credentials.split_once(':') {
                    Some((user, password)) => (user, Some(password)),
                    None => (credentials, None),
                };
                shown += &self.hide_own("USER", user);
                if let Some(password) = password {
                    shown.push(':');
                    shown += &self.hide_own("PASSWORD", password);
                }
                shown.push('@');
                host
            }
            None => authority,
        };
        shown += host;
        let segments = path.split('/').map(|segment| {
            if looks_like_a_token(segment) {
                self.hide_own("TOKEN", segment)
            } else {
                segment.to_owned()
            }
        });
        shown += &segments.collect::<Vec<_>>().join("/");
        if let Some(query) = query {
            let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
                Some((name, value)) if !OPEN_PARAMETERS.contains(&name.to_lowercase().as_str()) => {
                    format!("{name}={}", self.hide_own(name, value))
                }
                None if looks_like_a_token(parameter) => self.hide_own("TOKEN", parameter),
                _ => parameter.to_owned(),
            });
            let parameters = parameters.collect::<Vec<_>>().join("&");
            shown.push('?');
            shown += &parameters;
        }
        shown
    }

    fn hide_in_headers(&mut self, headers: &Mapping) -> Mapping {
        let hidden = headers.iter().map(|(name, value)| {
            let written = name.as_str().unwrap_or_default();
            let value = match value {
                Value::String(text) if !OPEN_HEADERS.contains(&written.to_lowercase().as_str()) => {
                    Value::from(self.hide(written, text))
                }
                value => value.clone(),
            };
            (name.clone(), value)
        });
        hidden.collect()
    }

    /// Steps, or a ping: only what is sent can hold secrets.
    fn hide_in_steps(&mut self, value: &Value) -> Value {
        match value {
            Value::Sequence(steps) => {
                Value::Sequence(steps.iter().map(|step| self.hide_in_steps(step)).collect())
            }
            Value::Mapping(step) => {
                let hidden = step.iter().map(|(key, value)| {
                    let value = match key.as_str() {
                        Some("send") => self.hide_in_message(value),
                        _ => value.clone(),
                    };
                    (key.clone(), value)
                });
                Value::Mapping(hidden.collect())
            }
            value => value.clone(),
        }
    }

    fn hide_in_message(&mut self, message: &Value) -> Value {
        match message {
            Value::String(text) if logs_in(text) => Value::from(self.hide_own("MESSAGE", text)),
            Value::Mapping(entries) => {
                let is_login = entries.iter().any(|(key, value)| {
                    let is_purpose = key.as_str().is_some_and(|key| PURPOSE_KEYS.contains(&key));
                    is_purpose && value.as_str().is_some_and(logs_in)
                });
                let hidden = entries.iter().map(|(key, value)| {
                    let name = key.as_str().unwrap_or_default();
                    let is_open = PURPOSE_KEYS.contains(&name) && value.is_string();
                    let value = if is_open {
                        value.clone()
                    } else if is_login || is_secret_key(name) {
                        self.hide_leaves(name, value)
                    } else {
                        self.hide_in_message(value)
                    };
                    (key.clone(), value)
                });
                Value::Mapping(hidden.collect())
            }
            Value::Sequence(items) => {
                Value::Sequence(items.iter().map(|item| self.hide_in_message(item)).collect())
            }
            value => value.clone(),
        }
    }

    /// Hides every text of a value, but for the names of files.
    fn hide_leaves(&mut self, name: &str, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::from(self.hide_own(name, text)),
            Value::Sequence(items) => {
                Value::Sequence(items.iter().map(|item| self.hide_leaves(name, item)).collect())
            }
            Value::Mapping(entries) => {
                let hidden = entries.iter().map(|(key, value)| {
                    let value = match key.as_str() {
                        Some("file") if entries.len() == 1 => value.clone(),
                        Some(name) => self.hide_leaves(name, value),
                        None => value.clone(),
                    };
                    (key.clone(), value)
                });
                Value::Mapping(hidden.collect())
            }
            value => value.clone(),
        }
    }
}

/// A name that a shell takes for a variable's.
fn variable_name(text: &str) -> String {
    let mut name: String = text
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() {
                character.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        name.insert_str(0, "FEED_");
    }
    name
}

fn looks_like_a_token(text: &str) -> bool {
    let is_of_one = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    text.chars().count() >= TOKEN_CHARS
        && text.chars().all(is_of_one)
        && text.contains(|character: char| character.is_ascii_digit())
        && text.contains(|character: char| character.is_ascii_alphabetic())
}

fn is_secret_key(key: &str) -> bool {
    let plain: String = key
        .chars()
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    SECRET_WORDS.iter().any(|word| plain.contains(word)) || SECRET_KEYS.contains(&plain.as_str())
}

fn logs_in(text: &str) -> bool {
    let text = text.to_lowercase();
    ["auth", "login", "logon"].iter().any(|word| text.contains(word))
}

/// The bytes with something replaced that stands in them.
fn without(bytes: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let found = |from: &[u8]| from.windows(secret.len()).position(|window| window == secret);
    let mut at = found(bytes)?;
    let mut rest = bytes;
    let mut concealed = Vec::with_capacity(bytes.len());
    loop {
        concealed.extend_from_slice(&rest[..at]);
        concealed.extend_from_slice(HIDDEN.as_bytes());
        rest = &rest[at + secret.len()..];
        match found(rest) {
            Some(next) => at = next,
            None => break,
        }
    }
    concealed.extend_from_slice(rest);
    Some(concealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(keys: &str) -> (String, Vec<String>) {
        let keys: Mapping = serde_yaml::from_str(keys).unwrap();
        let mut secrets = Secrets::of("my-feed");
        let shown = super::super::yaml::flow(&Value::Mapping(secrets.hide_in(&keys)));
        let variables = secrets.variables().map(str::to_owned).collect();
        (shown, variables)
    }

    #[test]
    fn secrets_are_found_wherever_they_can_be_given() {
        for (keys, shown) in [
            (
                "uri: wss://ann:p%40ss@feed.example:444/ws/0123456789abcdef01234567?streams=btc@trade&listenKey=k3y",
                "{ uri: 'wss://${MY_FEED_USER}:${MY_FEED_PASSWORD}@feed.example:444/ws/${MY_FEED_TOKEN}?streams=btc@trade&listenKey=${MY_FEED_LISTENKEY}' }",
            ),
            (
                "headers: { X-Api-Key: hunter2, Origin: https://x.example, Cookie: { file: c } }",
                "{ headers: { X-Api-Key: '${X_API_KEY}', Origin: https://x.example, Cookie: { file: c } } }",
            ),
            (
                "auth: { basic: { user: ann, password: { file: pw } } }",
                "{ auth: { basic: { user: '${MY_FEED_USER}', password: { file: pw } } } }",
            ),
            (
                "auth: { bearer: abcdef }",
                "{ auth: { bearer: '${MY_FEED_BEARER}' } }",
            ),
            (
                "proxy: socks5://u:w@p.example:1080",
                "{ proxy: 'socks5://${MY_FEED_USER}:${MY_FEED_PASSWORD}@p.example:1080' }",
            ),
            (
                "subscribe: [{ send: { op: auth, args: [k, 1700000000000, s] } }, { send: { op: subscribe, args: [trades], token: t0ken } }]",
                "{ subscribe: [{ send: { op: auth, args: ['${MY_FEED_ARGS}', 1700000000000, '${MY_FEED_ARGS_2}'] } }, \
                 { send: { op: subscribe, args: [trades], token: '${MY_FEED_TOKEN}' } }] }",
            ),
            (
                "subscribe: [{ send: 'LOGIN me' }]",
                "{ subscribe: [{ send: '${MY_FEED_MESSAGE}' }] }",
            ),
            (
                "subprotocols: [v2.json, bearer-0123456789abcdef]",
                "{ subprotocols: [v2.json, '${MY_FEED_SUBPROTOCOL}'] }",
            ),
            (
                "headers: { X-Api-Key: 'Bearer ${TOKEN}' }",
                "{ headers: { X-Api-Key: 'Bearer ${TOKEN}' } }",
            ),
        ] {
            assert_eq!(hidden(keys).0, shown);
        }
        assert_eq!(
            hidden("headers: { A: secret, B: secret }").1,
            ["A"],
            "one secret has one name"
        );
    }

    #[test]
    fn a_secret_that_comes_back_is_hidden_however_it_is_written() {
        let keys: Mapping =
            serde_yaml::from_str("headers: { Authorization: 'Bearer to\"ken', X: abc }").unwrap();
        let mut secrets = Secrets::of("feed");
        secrets.hide_in(&keys);
        assert_eq!(secrets.conceal("refused: to\"ken, abc"), "refused: <hidden>, abc");
        let payload = br#"{"you":"to\"ken","twice":"Bearer to\"ken"}"#;
        let concealed = secrets.conceal_payload(payload).unwrap();
        assert_eq!(concealed, br#"{"you":"<hidden>","twice":"<hidden>"}"#);
        assert_eq!(secrets.conceal_payload(b"{}"), None);
    }
}
