//! The script of a session: what is said to the server after every connect, which answers are waited for, and which messages are
//! no data at any time.
//!
//! [`Script::prepare`] reads the files that hold tokens, so a script is good for one connection. [`Conversation`] is the
//! place in it. It knows no socket and no clock: the session sends, reads, and tells the time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::Value;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::pattern::Pattern;
use super::settings::Settings;
use super::token::{FILE_KEY, MAX_TOKEN_BYTES, TokenError, read_file};

/// Longest message of a step; also what a connection's write buffer must hold.
pub(super) const MAX_STEP_BYTES: usize = MAX_TOKEN_BYTES;
/// How long an answer may take when its step does not say.
pub(super) const EXPECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One step of `subscribe`. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(super) enum Step {
    Send(Outgoing),
    Expect(Expect),
}

/// An answer that is waited for.
#[derive(Clone)]
pub(super) struct Expect {
    pub(super) answer: Pattern,
    /// What tells that it will not come.
    pub(super) reject: Option<Pattern>,
    pub(super) timeout: Duration,
}

/// A message to send. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(super) enum Outgoing {
    /// The same at every connect.
    Fixed(Message),
    /// JSON in which each `{ file: path }` stands for the text of that file.
    WithFiles(Value),
    /// The text of a file.
    File(PathBuf),
}

impl Outgoing {
    /// The message as it is now.
    async fn message(&self) -> Result<Message, TokenError> {
        match self {
            Self::Fixed(message) => Ok(message.clone()),
            Self::File(path) => Ok(Message::Text(read_file(path).await?.into())),
            Self::WithFiles(value) => {
                let mut value = value.clone();
                let mut last = PathBuf::new();
                let mut unvisited = VecDeque::from([&mut value]);
                while let Some(value) = unvisited.pop_front() {
                    if let Some(path) = file_of(value) {
                        *value = Value::String(read_file(&path).await?);
                        last = path;
                        continue;
                    }
                    match value {
                        Value::Sequence(items) => unvisited.extend(items.iter_mut()),
                        Value::Mapping(entries) => {
                            unvisited.extend(entries.iter_mut().map(|(_, value)| value));
                        }
                        _ => {}
                    }
                }
                let text = serde_json::to_string(&value).map_err(|_| TokenError::NotText(last.clone()))?;
                if text.len() > MAX_STEP_BYTES {
                    return Err(TokenError::Long(last));
                }
                Ok(Message::Text(text.into()))
            }
        }
    }
}

/// The path, when the value is `{ file: path }`.
pub(super) fn file_of(value: &Value) -> Option<PathBuf> {
    match value {
        Value::Mapping(entries) if entries.len() == 1 => entries.get(FILE_KEY)?.as_str().map(PathBuf::from),
        _ => None,
    }
}

/// Whether a file is named anywhere in the value.
pub(super) fn names_files(value: &Value) -> bool {
    let mut unvisited = vec![value];
    while let Some(value) = unvisited.pop() {
        match value {
            value if file_of(value).is_some() => return true,
            Value::Sequence(items) => unvisited.extend(items),
            Value::Mapping(entries) => unvisited.extend(entries.values()),
            _ => {}
        }
    }
    false
}

/// All that one connection will say. Holds secrets, so it has no `Debug`.
pub(super) struct Script<'s> {
    steps: Vec<Ready<'s>>,
    /// What is sent in place of the protocol's ping.
    pub(super) ping: Option<Message>,
}

enum Ready<'s> {
    Send(Message),
    Expect(&'s Expect),
}

impl<'s> Script<'s> {
    /// Reads the files that the script names.
    pub(super) async fn prepare(settings: &'s Settings) -> Result<Self, TokenError> {
        let mut steps = Vec::with_capacity(settings.subscribe.len());
        for step in &settings.subscribe {
            steps.push(match step {
                Step::Send(outgoing) => Ready::Send(outgoing.message().await?),
                Step::Expect(expect) => Ready::Expect(expect),
            });
        }
        let ping = match &settings.ping_message {
            Some(ping) => Some(ping.send.message().await?),
            None => None,
        };
        Ok(Self { steps, ping })
    }
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Data,
    /// A heartbeat, or the answer to a ping.
    Control,
    /// What the script waits for.
    Answer,
    /// What tells that the answer will not come: the step and the values that told it.
    Refusal(String),
}

/// What a script goes on with.
pub(super) enum Next {
    Send(Message),
    /// An answer is to be waited for.
    Await,
    /// Everything is said and answered.
    Done,
}

/// The place in a script, and what the messages of a connection mean there.
pub(super) struct Conversation<'s> {
    steps: std::iter::Enumerate<std::vec::IntoIter<Ready<'s>>>,
    awaited: Option<Awaited<'s>>,
    control: &'s [Pattern],
    pong: Option<&'s Pattern>,
}

struct Awaited<'s> {
    step: usize,
    expect: &'s Expect,
    deadline: Instant,
}

impl<'s> Conversation<'s> {
    /// At the beginning of a script.
    pub(super) fn new(script: Script<'s>, settings: &'s Settings) -> Self {
        Self {
            steps: script.steps.into_iter().enumerate(),
            awaited: None,
            control: &settings.control,
            pong: settings
                .ping_message
                .as_ref()
                .and_then(|ping| ping.expect.as_ref()),
        }
    }

    /// The next step. An answer that it waits for must come within its timeout from `now`.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        match self.steps.next() {
            None => Next::Done,
            Some((_, Ready::Send(message))) => Next::Send(message),
            Some((step, Ready::Expect(expect))) => {
                let deadline = now + expect.timeout;
                self.awaited = Some(Awaited {
                    step,
                    expect,
                    deadline,
                });
                Next::Await
            }
        }
    }

    /// What this message is. The answer that was waited for is then no longer.
    pub(super) fn hear(&mut self, payload: &[u8]) -> Meaning {
        if let Some(Awaited { step, expect, .. }) = &self.awaited {
            // First what is more special: an answer with an error in it is an answer too.
            if let Some(matched) = expect.reject.as_ref().and_then(|reject| reject.matched(payload)) {
                return Meaning::Refusal(format!(
                    "the server refused what subscribe[{step}] waits for: {matched}"
                ));
            }
            if expect.answer.matches(payload) {
                self.awaited = None;
                return Meaning::Answer;
            }
        }
        if self
            .pong
            .into_iter()
            .chain(self.control)
            .any(|pattern| pattern.matches(payload))
        {
            return Meaning::Control;
        }
        Meaning::Data
    }

    /// Until when the awaited answer must have come.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.awaited.as_ref().map(|awaited| awaited.deadline)
    }

    /// Why the session can't go on, when the deadline is over.
    pub(super) fn overdue(&self, now: Instant) -> Option<String> {
        let awaited = self.awaited.as_ref().filter(|awaited| awaited.deadline <= now)?;
        Some(format!(
            "the server did not answer as subscribe[{}] expects within {} s (timeout)",
            awaited.step,
            awaited.expect.timeout.as_secs_f32()
        ))
    }

    /// Nobody listened for this long: the server is not to blame.
    pub(super) fn forgive(&mut self, deaf: Duration) {
        if let Some(awaited) = &mut self.awaited {
            awaited.deadline += deaf;
        }
    }
}
