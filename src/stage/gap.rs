//! What a stage lacks: offsets that hold no message, and stretches of time in which messages were missed.
//!
//! A [`Gap`] takes offsets. An [`Outage`] takes none: it has a [`Place`] in the order, before the message at an offset, and behind
//! the outages that were recorded there earlier. Both are facts that are never taken back, so that whoever passes one may
//! write it down for good.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::{Offset, Timestamp};

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// When it began.
    pub from: Timestamp,
    /// When it ended.
    pub to: Timestamp,
}

impl Period {
    /// The least stretch that holds both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            from: self.from.min(other.from),
            to: self.to.max(other.to),
        }
    }

    /// The least stretch that holds both, where each may be unknown.
    #[must_use]
    pub fn joined(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.with(other)),
            (one, other) => one.or(other),
        }
    }
}

/// Offsets `from..to` that will never (again) be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First offset that is missing.
    pub from: Offset,
    /// First offset after the gap.
    pub to: Offset,
    /// How many messages are missing. 0 for a reservation; `None` when nobody can know.
    pub messages: Option<u64>,
    /// Why.
    pub cause: GapCause,
    /// What was found where messages are lost, in words, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it was noticed.
    pub noticed_at: Timestamp,
    /// When what is missing was received, where that is known: from the first to the last of it, at the least. Outages among
    /// it lie within.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
}

impl Gap {
    /// The part `from..to` of it.
    #[must_use]
    pub fn part(&self, from: Offset, to: Offset) -> Self {
        let messages = match self.messages {
            Some(0) => Some(0),
            Some(_) => Some(to.get().saturating_sub(from.get())),
            None => None,
        };
        Self {
            from,
            to,
            messages,
            ..self.clone()
        }
    }
}

/// Why offsets hold no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// Reserved before an unclean stop and skipped, so that no offset is given twice. No message was there.
    Reservation,
    /// Messages that the disk no longer holds, or holds damaged.
    Lost,
    /// A generation dropped because the stage was full (`on_full: drop_oldest`) before everything in it was delivered.
    DroppedOldest,
    /// Delivered by every producer and past its retention: the cursor that asks is older than the stage's beginning.
    Expired,
}

impl GapCause {
    /// The word for it, as tables and JSON have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reservation => "reservation",
            Self::Lost => "lost",
            Self::DroppedOldest => "dropped_oldest",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for GapCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reservation => "offsets reserved before an unclean stop",
            Self::Lost => "lost from the disk",
            Self::DroppedOldest => "dropped because the stage was full",
            Self::Expired => "past the retention",
        })
    }
}

/// A stretch of time in which the source may have sent messages that nobody received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// When it began.
    pub from: Timestamp,
    /// When it ended.
    pub to: Timestamp,
    /// How many messages are known to be missing; 0 when nobody can know.
    pub messages: u64,
    /// Why, in words, without secrets and payloads: `connection closed by the server (1006)`, `stage full`.
    pub cause: String,
    /// What kind of stretch it is.
    #[serde(default)]
    pub kind: OutageKind,
}

/// What kinds of outages there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageKind {
    /// There was no connection.
    #[default]
    Disconnected,
    /// The stage was full, and refused messages (`on_full: drop_newest`).
    DroppedNewest,
    /// A message was larger than what can be staged.
    TooLarge,
    /// The source's own numbers have a hole; or several holes are summed up, of which nothing more is told.
    Sequence(Option<Skip>),
}

impl OutageKind {
    /// The word for it, as tables and JSON have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disconnected => "outage",
            Self::DroppedNewest => "dropped_newest",
            Self::TooLarge => "too_large",
            Self::Sequence(_) => "sequence",
        }
    }

    /// The hole in the source's numbers, if that is what it is.
    #[must_use]
    pub fn skip(&self) -> Option<&Skip> {
        match self {
            Self::Sequence(skip) => skip.as_ref(),
            Self::Disconnected | Self::DroppedNewest | Self::TooLarge => None,
        }
    }
}

/// Numbers of the source that did not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// What the numbers belong to (`sequence.per`), where each has its own.
    pub key: Option<String>,
    /// The first number that is missing.
    pub first: u64,
    /// The last number that is missing.
    pub last: u64,
}

/// A place in the order of a stage: before the message at `offset`, and behind the outages there whose numbers are below
/// `sequence`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The offset of the next message.
    pub offset: Offset,
    /// The number of the next outage before that message.
    #[serde(default)]
    pub sequence: u32,
}

impl Place {
    /// The place right behind this one, at the same offset.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            sequence: self.sequence.saturating_add(1),
            ..self
        }
    }
}

/// Before everything that stands at the offset.
impl From<Offset> for Place {
    fn from(offset: Offset) -> Self {
        Self { offset, sequence: 0 }
    }
}

/// An outage and where it stands. No two of a stage have the same place, ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedOutage {
    /// Its place.
    pub place: Place,
    /// The offset after the last message before it. Below the place's offset only where offsets were skipped.
    pub follows: Offset,
    /// The outage.
    pub outage: Outage,
}

/// The outages up to a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutagePage {
    /// In order.
    pub outages: Vec<PlacedOutage>,
    /// All that stand before it, from the place that was asked for on, are there.
    pub next: Place,
}

/// When a stage's source was heard last, by an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSeen {
    /// When.
    pub at: Timestamp,
    /// Whether the consumer stopped in order then. Otherwise it was killed, or crashed, some time after.
    pub stopped: bool,
}
