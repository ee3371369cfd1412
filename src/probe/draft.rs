//! The consumer that is tried: the keys of `config.yml` that the command line gives, in the order in which they are printed.
//!
//! They are read by the same reader as a configuration's, so what is printed is what was tried.

use serde_yaml::{Mapping, Value};

use super::args::ProbeArgs;
use super::secrets::Secrets;
use super::yaml::flow;
use crate::config::{ConfigError, Section, Variables};
use crate::consumer::socket::Trial;

/// Longest name of a runner.
const MAX_NAME: usize = 63;
/// Where the stage of the printed consumer lies.
const STAGE_PATH: &str = "tmp";

/// The keys of a consumer.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) name: String,
    keys: Mapping,
}

impl Draft {
    /// What the command line says. The error says what is wrong with it, and quotes no secret.
    pub(super) fn of(args: &ProbeArgs) -> Result<Self, String> {
        let uri = args.uri.expose();
        let name = match &args.name {
            Some(name) => checked_name(name)?,
            None => name_of(uri),
        };
        let mut keys = Mapping::new();
        keys.insert("uri".into(), uri.into());
        for given in &args.set {
            let read = serde_yaml::from_str(given.expose());
            let Ok(Value::Mapping(given)) = read else {
                return Err(
                    "--set takes keys as in config.yml: 'idle_timeout: 5m', or '{ key: value, … }'"
                        .to_owned(),
                );
            };
            for (key, value) in given {
                if keys.contains_key(&key) {
                    let key = key.as_str().unwrap_or_default();
                    return Err(format!("the key {key} is given twice"));
                }
                keys.insert(key, value);
            }
        }
        let mut headers = Vec::new();
        for given in &args.header {
            let Some((name, value)) = given.expose().split_once(':') else {
                return Err("--header takes 'Name: value'".to_owned());
            };
            headers.push((Value::from(name.trim()), Value::from(value.trim())));
        }
        add(&mut keys, "headers", Mapping::from_iter(headers).into())?;
        let subprotocols: Vec<_> = args.subprotocol.iter().map(|name| name.expose()).collect();
        add(&mut keys, "subprotocols", subprotocols.into())?;
        let steps: Vec<_> = args.subscribe.iter().map(|step| step_of(step.expose())).collect();
        add(&mut keys, "subscribe", steps.into())?;
        Ok(Self { name, keys })
    }

    /// The same without secrets, which are noted.
    pub(super) fn without_secrets(&self, secrets: &mut Secrets) -> Self {
        Self {
            name: self.name.clone(),
            keys: secrets.hide_in(&self.keys),
        }
    }

    /// What there is to try.
    ///
    /// # Errors
    /// In words, with all mistakes.
    pub(super) fn trial(&self) -> Result<Trial, String> {
        let lines: Vec<_> = self
            .keys
            .iter()
            .map(|(key, value)| format!("{}: {}\n", flow(key), flow(value)))
            .collect();
        match Section::read_text(&lines.concat(), &Variables::Process, Trial::read) {
            Ok(Some(trial)) => Ok(trial),
            Ok(None) => Err("something of what was given is wrong".to_owned()),
            // The places are those of a text that nobody has written.
            Err(ConfigError::Mistakes { problems }) => {
                let said = problems.iter().map(|problem| match problem.path.as_str() {
                    "" => problem.message.clone(),
                    path => format!("{path} {}", problem.message),
                });
                Err(said.collect::<Vec<_>>().join("; "))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The URI, to be shown.
    pub(super) fn uri(&self) -> &str {
        self.keys.get("uri").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// The steps of `subscribe`.
    pub(super) fn steps(&self) -> &[Value] {
        self.list("subscribe")
    }

    /// Whether an answer is waited for already.
    pub(super) fn expects(&self) -> bool {
        self.steps().iter().any(|step| step.get("expect").is_some())
    }

    /// Waits for an answer after everything is sent.
    pub(super) fn add_expect(&mut self, pattern: Value) {
        let mut steps = self.steps().to_vec();
        steps.push(Mapping::from_iter([(Value::from("expect"), pattern)]).into());
        self.keys.insert("subscribe".into(), steps.into());
    }

    /// Takes messages for no data.
    pub(super) fn add_control(&mut self, pattern: Value) {
        let mut control = self.list("control").to_vec();
        control.push(pattern);
        self.keys.insert("control".into(), control.into());
    }

    fn list(&self, key: &str) -> &[Value] {
        match self.keys.get(key) {
            Some(Value::Sequence(items)) => items,
            _ => &[],
        }
    }

    /// The consumer as an entry of `runners`, with these comments behind the keys that they are about. Comments about keys that
    /// are not there name the default.
    pub(super) fn runner(&self, remarks: &[Remark]) -> String {
        let mut text = format!(
            "  - name: {}\n    type: consumer\n    variety: socket\n    uri: {}\n    stage: {{ type: local, path: {STAGE_PATH} }}\n",
            self.name,
            uri_scalar(self.uri())
        );
        let comment = |key: &str| {
            let remark = remarks.iter().find(|remark| remark.key == key);
            remark.map_or_else(String::new, |remark| format!("   # {}", remark.text))
        };
        for (key, value) in &self.keys {
            let key = key.as_str().unwrap_or_default();
            match value {
                _ if key == "uri" => {}
                Value::Sequence(items) if items.iter().any(Value::is_mapping) => {
                    text += &format!("    {key}:{}\n", comment(key));
                    for item in items {
                        text += &item_lines(item);
                    }
                }
                value => text += &format!("    {key}: {}{}\n", flow(value), comment(key)),
            }
        }
        for remark in remarks {
            if let Some(default) = &remark.default
                && !self.has(remark.key)
            {
                text += &format!("    #{}: {default}   # {}\n", remark.key, remark.text);
            }
        }
        text
    }
}

/// What was seen about a key.
pub(super) struct Remark {
    pub(super) key: &'static str,
    /// What stands there, in a comment, when the key is not given.
    pub(super) default: Option<String>,
    pub(super) text: String,
}

/// A list's mapping, a line for each of its keys.
fn item_lines(item: &Value) -> String {
    let Value::Mapping(entries) = item else {
        return format!("      - {}\n", flow(item));
    };
    let is_step = entries
        .keys()
        .any(|key| matches!(key.as_str(), Some("send" | "expect")));
    if !is_step {
        return format!("      - {}\n", flow(item));
    }
    let lines = entries.iter().enumerate().map(|(number, (key, value))| {
        let dash = if number == 0 { '-' } else { ' ' };
        format!("      {dash} {}: {}\n", flow(key), flow(value))
    });
    lines.collect()
}

/// A URI needs no quotes where it stands alone in its line, unless it is odd.
fn uri_scalar(uri: &str) -> String {
    let is_usual = |character: char| character.is_ascii_graphic() && !matches!(character, '#' | '"' | '\'');
    if uri.starts_with("ws") && uri.chars().all(is_usual) && !uri.ends_with(':') {
        return uri.to_owned();
    }
    super::yaml::scalar(uri)
}

fn add(keys: &mut Mapping, key: &str, value: Value) -> Result<(), String> {
    let is_empty = match &value {
        Value::Mapping(entries) => entries.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        _ => false,
    };
    if is_empty {
        return Ok(());
    }
    if keys.contains_key(key) {
        return Err(format!(
            "the key {key} is given twice: by --set, and by an option of its own"
        ));
    }
    keys.insert(key.into(), value);
    Ok(())
}

/// A step of `subscribe`: one as in config.yml, or a message.
fn step_of(text: &str) -> Value {
    let message = match structured(text) {
        Some(Value::Mapping(step)) if is_step(&step) => return step.into(),
        Some(message) => message,
        None => Value::from(text),
    };
    Mapping::from_iter([(Value::from("send"), message)]).into()
}

fn is_step(entries: &Mapping) -> bool {
    let is_known = |key: &Value| matches!(key.as_str(), Some("send" | "expect" | "reject" | "timeout"));
    entries.keys().all(is_known) && (entries.contains_key("send") || entries.contains_key("expect"))
}

/// What a text says as JSON, or in the flow style of YAML. `None` when it is better sent as it is.
fn structured(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    let value: Value = serde_yaml::from_str(text).ok()?;
    // Numbers of JSON that YAML does not keep to the digit.
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(text)
        && serde_json::to_value(&value).ok()? != json
    {
        return None;
    }
    Some(value)
}

fn checked_name(name: &str) -> Result<String, String> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(name.to_owned());
    }
    Err("--name takes 1 to 63 letters, digits, - and _".to_owned())
}

/// A name from the host of a URI.
fn name_of(uri: &str) -> String {
    let place = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = place.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let is_name = host.contains(|character: char| character.is_ascii_alphabetic()) && !host.contains("${");
    if !is_name || host == "localhost" || host.contains('[') {
        return "feed".to_owned();
    }
    let mut name: String = host
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() {
                character
            } else {
                '_'
            }
        })
        .collect();
    name.truncate(MAX_NAME);
    name.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn args(uri: &str) -> ProbeArgs {
        ProbeArgs {
            uri: Secret::new(uri),
            subscribe: Vec::new(),
            header: Vec::new(),
            subprotocol: Vec::new(),
            set: Vec::new(),
            seconds: 1,
            messages: None,
            name: None,
            json: false,
        }
    }

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(*text)).collect()
    }

    #[test]
    fn what_is_given_becomes_keys_of_a_consumer_in_its_order() {
        let draft = Draft::of(&ProbeArgs {
            subscribe: secrets(&[
                r#"{"op":"subscribe","args":["trades"],"id":1}"#,
                "{ expect: { $.event: subscribed }, timeout: 5s }",
                "hello: world",
                r#"{"id":123456789012345678901234567890}"#,
            ]),
            header: secrets(&["X-Trace: on: off"]),
            subprotocol: secrets(&["v2.json"]),
            set: secrets(&["idle_timeout: 5m", "{ ping: { interval: 30s } }"]),
            ..args("ws://feed.example:81/trades")
        })
        .unwrap();
        assert!(draft.trial().is_ok());
        assert_eq!(
            draft.runner(&[]),
            "  - name: feed_example\n    type: consumer\n    variety: socket\n    uri: ws://feed.example:81/trades\n    \
             stage: { type: local, path: tmp }\n    idle_timeout: 5m\n    ping: { interval: 30s }\n    \
             headers: { X-Trace: 'on: off' }\n    subprotocols: [v2.json]\n    subscribe:\n      \
             - send: { op: subscribe, args: [trades], id: 1 }\n      - expect: { $.event: subscribed }\n        \
             timeout: 5s\n      - send: 'hello: world'\n      - send: '{\"id\":123456789012345678901234567890}'\n"
        );
    }

    #[test]
    fn mistakes_are_told_without_what_was_given() {
        let with = |change: fn(&mut ProbeArgs)| {
            let mut args = args("ws://feed.example/");
            change(&mut args);
            args
        };
        for (args, complaint) in [
            (
                with(|args| args.uri = Secret::new("http://u:hidden@x/")),
                "uri must begin with ws://",
            ),
            (with(|args| args.header = secrets(&["hidden"])), "--header takes"),
            (with(|args| args.set = secrets(&["hidden"])), "--set takes keys"),
            (
                with(|args| args.set = secrets(&["idle_timeuot: 5m"])),
                "did you mean `idle_timeout`",
            ),
            (
                with(|args| args.set = secrets(&["uri: ws://hidden"])),
                "uri is given twice",
            ),
            (
                with(|args| {
                    args.set = secrets(&["headers: { A: b }"]);
                    args.header = secrets(&["A: hidden"]);
                }),
                "headers is given twice",
            ),
            (with(|args| args.name = Some("a b".to_owned())), "--name takes"),
            (
                with(|args| args.subscribe = secrets(&["{ expect: {} }"])),
                "names nothing to look for",
            ),
        ] {
            let refused = Draft::of(&args)
                .and_then(|draft| draft.trial().map(drop))
                .unwrap_err();
            assert!(
                refused.contains(complaint) && !refused.contains("hidden"),
                "{refused}"
            );
        }
    }

    #[test]
    fn the_name_comes_from_the_host() {
        for (uri, name) in [
            (
                "wss://stream.binance.com:9443/stream?streams=a",
                "stream_binance_com",
            ),
            ("wss://ann:secret@API.example/", "api_example"),
            ("ws://127.0.0.1:9001/", "feed"),
            ("ws://[::1]:81", "feed"),
            ("wss://${HOST}/", "feed"),
        ] {
            assert_eq!(name_of(uri), name);
        }
    }
}
