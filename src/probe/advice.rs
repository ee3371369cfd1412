//! What the keys of a consumer should say, as far as what was heard supports it: which messages are no data, which answer
//! to wait for, how long a silence may be.
//!
//! A suggestion is made only of what was seen, and is proved on it: the consumer with it hears the same messages again.

use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::draft::{Draft, Remark};
use super::heard::{Heard, Kept};
use super::kinds::{Kind, Label};
use super::shape::{Level, Shape, telling};

/// Silences that the default of `idle_timeout` bears with room to spare.
const USUAL_SILENCE: Duration = Duration::from_secs(20);
/// Messages before less than the default is suggested.
const MIN_MESSAGES: u64 = 100;
/// The shortest `idle_timeout` that is suggested, in seconds.
const MIN_IDLE_SECONDS: u64 = 10;
/// The default of `idle_timeout`, in seconds.
const IDLE_SECONDS: u64 = 60;
/// How many times the longest silence that was seen is still no reason to connect again.
const PATIENCE: u32 = 100;
/// Times that are written as they are: seconds.
const ROUND_SECONDS: [u64; 9] = [10, 15, 30, 60, 120, 300, 600, 1_800, 3_600];
/// Messages of a greeting or of an answer: there are not many.
const FEW: usize = 100;

/// What a value says that tells kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Data,
    /// It only shows that the server is there.
    Heartbeat,
    /// The answer to a subscription.
    Answer,
    /// Sent on connecting, or as a state of the server's.
    Greeting,
    /// It may want an answer.
    Ping,
    /// Something was refused.
    Error,
}

/// What a kind of messages is for, as far as its name tells.
pub(super) fn meaning(kind: &Kind, messages: &[Kept]) -> Meaning {
    let few = kind.members.len() <= FEW;
    let first = kind.members.first().and_then(|&index| messages.get(index));
    match &kind.label {
        Label::Value { value, .. } => of_word(value, few),
        Label::Shape(Shape::List(_)) => {
            let word = first.and_then(|kept| heartbeat_place(&kept.payload));
            if word.is_some() {
                Meaning::Heartbeat
            } else {
                Meaning::Data
            }
        }
        Label::Shape(Shape::Object(paths)) => {
            let has = |key: &str| paths.contains(key);
            if few && acknowledgement(first).is_some() {
                Meaning::Answer
            } else if has("ping") && paths.len() <= 2 {
                Meaning::Ping
            } else if few && has("error") {
                Meaning::Error
            } else {
                Meaning::Data
            }
        }
        Label::Shape(_) | Label::Others => Meaning::Data,
    }
}

fn of_word(value: &str, few: bool) -> Meaning {
    let word: String = value
        .chars()
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    match word.as_str() {
        "hb" | "keepalive" | "pong" => Meaning::Heartbeat,
        "ping" => Meaning::Ping,
        "info" | "conf" | "welcome" | "hello" | "connected" | "systemstatus" if few => Meaning::Greeting,
        word if word.ends_with("heartbeat") => Meaning::Heartbeat,
        word if few && word.contains("subscri") && !word.contains("unsub") => Meaning::Answer,
        word if few && (word.contains("error") || word.contains("reject")) => Meaning::Error,
        _ => Meaning::Data,
    }
}

/// Where in a list the word of a heartbeat stands.
fn heartbeat_place(payload: &[u8]) -> Option<(usize, String)> {
    let Some(Level::List(items)) = Level::of(payload) else {
        return None;
    };
    items.iter().enumerate().find_map(|(index, item)| {
        let word = telling(item).filter(|_| item.get().starts_with('"'))?;
        (of_word(&word, false) == Meaning::Heartbeat).then_some((index, word))
    })
}

/// What all of an answer without a name have in common: `{ $.result: null }`, `{ $.success: true }`.
fn acknowledgement(message: Option<&Kept>) -> Option<Value> {
    let level = Level::of(&message?.payload)?;
    if let (Some(result), Some(_)) = (level.member("result"), level.member("id")) {
        return match result.get() {
            "null" => Some(pattern("$.result", Value::Null)),
            "true" => Some(pattern("$.result", Value::from(true))),
            _ => None,
        };
    }
    let success = level.member("success")?;
    (success.get() == "true").then(|| pattern("$.success", Value::from(true)))
}

fn pattern(path: &str, value: Value) -> Value {
    Mapping::from_iter([(Value::from(path), value)]).into()
}

/// A pattern that messages of a kind match, and no others that were seen.
pub(super) fn pattern_of(kind: &Kind, messages: &[Kept]) -> Option<Value> {
    let first = kind.members.first().and_then(|&index| messages.get(index))?;
    match &kind.label {
        Label::Value { key, value } => {
            let level = Level::of(&first.payload)?;
            let raw = match key.split_once('.') {
                None => level.member(key)?.get().to_owned(),
                Some((outer, inner)) => {
                    let outer = Level::of_part(level.member(outer)?)?;
                    outer.member(inner)?.get().to_owned()
                }
            };
            let is_text = raw.starts_with('"');
            let value = if is_text {
                Value::from(value.as_str())
            } else {
                Value::from(value.parse::<i64>().ok()?)
            };
            Some(pattern(&format!("$.{key}"), value))
        }
        Label::Shape(Shape::List(_)) => {
            let (index, word) = heartbeat_place(&first.payload)?;
            Some(pattern(&format!("$[{index}]"), Value::from(word)))
        }
        Label::Shape(Shape::Object(_)) => acknowledgement(Some(first)),
        Label::Shape(_) | Label::Others => None,
    }
}

/// What was suggested, and why.
pub(super) struct Advice {
    pub(super) draft: Draft,
    pub(super) remarks: Vec<Remark>,
}

/// Adds to a consumer what the messages suggest. `kinds` are those of messages that were data to it, or answers.
pub(super) fn advise(draft: &Draft, kinds: &[Kind], heard: &Heard, silence: Duration) -> Advice {
    let mut draft = draft.clone();
    let mut remarks = Vec::new();
    let messages = &heard.kept;
    let said_something = !draft.steps().is_empty();
    let mut answers = 0;
    // What lists are about often stands nowhere but in the answer: a number there is the channel's.
    let answers_name_lists = kinds.iter().any(|kind| {
        matches!(kind.label, Label::Shape(Shape::List(_))) && meaning(kind, messages) == Meaning::Data
    });
    for kind in kinds {
        let meaning = meaning(kind, messages);
        let Some(pattern) = pattern_of(kind, messages) else {
            continue;
        };
        match meaning {
            Meaning::Answer if answers_name_lists => {}
            Meaning::Answer if said_something && !draft.expects() => {
                answers = kind.members.len();
                draft.add_expect(pattern.clone());
                if answers > 1 {
                    draft.add_control(pattern);
                }
            }
            Meaning::Heartbeat | Meaning::Greeting | Meaning::Answer => draft.add_control(pattern),
            Meaning::Data | Meaning::Ping | Meaning::Error => {}
        }
    }
    if answers > 0 {
        remarks.push(Remark {
            key: "subscribe",
            default: None,
            text: format!(
                "{} of the answer came; what a refusal looks like was not seen: add reject",
                times(answers)
            ),
        });
    }
    if draft.has("control") {
        remarks.push(Remark {
            key: "control",
            default: None,
            text: "heartbeats, answers and greetings that were seen, which are no data".to_owned(),
        });
    }
    remarks.push(ping(heard));
    remarks.push(idle(heard, silence));
    Advice { draft, remarks }
}

fn times(count: usize) -> String {
    if count == 1 {
        "one".to_owned()
    } else {
        count.to_string()
    }
}

fn ping(heard: &Heard) -> Remark {
    let text = match (heard.pong_after, heard.pings_sent) {
        (Some(after), _) => format!("a ping was answered after {:.1} ms", after.as_secs_f64() * 1e3),
        (None, 0) => "no ping was sent while it listened".to_owned(),
        (None, _) => "a ping got no answer, which does no harm while messages come".to_owned(),
    };
    let server = match heard.pings {
        0 => String::new(),
        count => format!("; the server sent {count} of its own, which are always answered"),
    };
    Remark {
        key: "ping",
        default: Some("{ interval: 20s, timeout: 10s }".to_owned()),
        text: text + &server,
    }
}

fn idle(heard: &Heard, silence: Duration) -> Remark {
    let seen = format!("the longest silence was {:.1} s", silence.as_secs_f64());
    let round = |seconds: u64| {
        let enough = ROUND_SECONDS.into_iter().find(|&round| round >= seconds);
        enough.unwrap_or(ROUND_SECONDS[ROUND_SECONDS.len() - 1])
    };
    let patient = (silence * PATIENCE).as_secs().max(MIN_IDLE_SECONDS);
    let (seconds, text) = if heard.data == 0 {
        (IDLE_SECONDS, "no data came".to_owned())
    } else if silence > USUAL_SILENCE {
        (round(3 * silence.as_secs()).max(IDLE_SECONDS), seen)
    } else if heard.data >= MIN_MESSAGES && round(patient) < IDLE_SECONDS {
        (round(patient), format!("{seen}; quiet hours may be quieter"))
    } else {
        (IDLE_SECONDS, seen)
    };
    Remark {
        key: "idle_timeout",
        default: Some(format!("{seconds}s")),
        text,
    }
}
