//! `sequence`: the source's own numbers, checked: what it skipped, sent twice, or sent out of order.
//!
//! A hole becomes an [`Outage`] of its own kind, which stands before the message that showed it. Numbers go on over
//! reconnections and restarts: what a feed sent while nobody was connected shows as a hole behind the outage. (At a start the
//! last numbers are those of the last [`SEED_MESSAGES`] messages of the stage, and of the holes recorded among them.) A lower number after a reconnection, or two
//! low numbers that follow each other, mean that the source counts anew.
//!
//! Bounded: [`MAX_KEYS`] keys with numbers of their own, and [`BURST`] holes recorded one by one; of more than
//! [`PER_SECOND`] a second for long the rest is summed up. A message costs a walk over its JSON, and no allocation.

mod numbers;

use std::borrow::Cow;
use std::collections::HashMap;

use tracing::warn;

use self::numbers::{Run, Verdict};
use crate::config::Section;
use crate::json_path::{Finder, Path, string_of};
use crate::record::{Offset, Timestamp};
use crate::stage::{Outage, OutageKind, Place, PlacedOutage, ReadLimit, Skip, Stage, StageError};
use crate::stats::SequenceStats;

/// Most keys of `per` whose numbers are followed. Messages of further ones count as without a number.
const MAX_KEYS: usize = 10_000;
/// Longest key of `per`, in bytes as it stands in the message.
const MAX_KEY_BYTES: usize = 256;
/// Messages at the stage's end from which the last numbers are taken at a start.
const SEED_MESSAGES: u64 = 10_000;
/// How much of them is read at a time.
const SEED_READ: ReadLimit = ReadLimit {
    messages: 1_000,
    bytes: 4 << 20,
};
/// Holes that are recorded one by one at once.
const BURST: i64 = 1_000;
/// Holes that are recorded one by one in a second, for long.
const PER_SECOND: i64 = 10;
/// Places of the paths among what is found.
const NUMBER: usize = 0;

/// Where the numbers stand.
#[derive(Clone, Debug)]
pub struct Sequence {
    finder: Finder,
    /// The place of `per` among what is found.
    per: Option<usize>,
    /// The place of `previous`.
    previous: Option<usize>,
}

/// What is found in one message.
type Found<'m> = [Option<&'m str>; 3];

impl Sequence {
    /// Numbers at `path`; apart for each value at `per`; each naming the one before it at `previous`.
    #[must_use]
    pub fn new(path: Path, per: Option<Path>, previous: Option<Path>) -> Self {
        let (has_per, has_previous) = (per.is_some(), previous.is_some());
        let paths: Vec<_> = [Some(path), per, previous].into_iter().flatten().collect();
        Self {
            finder: Finder::new(&paths),
            per: has_per.then_some(1),
            previous: has_previous.then_some(1 + usize::from(has_per)),
        }
    }

    /// Reads the key `sequence` of a consumer. `None` when it is absent, or when a problem was reported.
    pub(crate) fn read(section: &mut Section<'_>) -> Option<Self> {
        let mut sequence = section.section("sequence")?;
        let path = sequence.single_path("path");
        if path.is_none() && !sequence.contains("path") {
            sequence.problem("path", "is missing: where a message has its number, as in $.u");
        }
        let per = sequence.single_path("per");
        let previous = sequence.single_path("previous");
        Some(Self::new(path?, per, previous))
    }
}

/// The numbers of one consumer.
pub(super) struct Check {
    sequence: Sequence,
    keys: HashMap<Box<str>, Last>,
    /// Stretches without a connection so far.
    outages: u32,
    /// Holes that may still be recorded one by one, in millionths, and when that was reckoned.
    allowance: i64,
    reckoned: Option<Timestamp>,
    /// The holes beyond that.
    summed: Option<Summed>,
    seeded: bool,
    told_full: bool,
}

/// The last message of a key.
struct Last {
    run: Run,
    at: Timestamp,
    /// Stretches without a connection before it.
    outages: u32,
}

struct Summed {
    outage: Outage,
    holes: u64,
}

/// Tokens of the allowance: one hole.
const HOLE: i64 = 1_000_000;

impl Check {
    pub(super) fn new(sequence: Sequence) -> Self {
        Self {
            sequence,
            keys: HashMap::new(),
            outages: 1,
            allowance: BURST * HOLE,
            reckoned: None,
            summed: None,
            seeded: false,
            told_full: false,
        }
    }

    pub(super) fn is_seeded(&self) -> bool {
        self.seeded
    }

    /// Takes the last numbers from what an earlier process has staged.
    ///
    /// # Errors
    /// When the stage can't be read.
    pub(super) async fn seed(&mut self, stage: &dyn Stage) -> Result<(), StageError> {
        self.seeded = true;
        let head = stage.bounds().head;
        let mut at = seed_from(stage);
        let mut holes = Holes::from(at);
        while at < head {
            let read = stage.read(at, SEED_READ).await?;
            for (offset, message) in read.batches.iter().flat_map(|batch| batch.messages_from(at)) {
                for skip in holes.before(stage, offset).await? {
                    self.told(&skip);
                }
                let mut found = Found::default();
                if let Some((key, number, _)) = self.look_at(message.payload, &mut found) {
                    self.remember(&key, number, message.received_at, 0);
                }
            }
            if read.next <= at {
                break;
            }
            at = read.next;
        }
        // Whoever was killed may have recorded the hole, and not the message that showed it.
        for skip in holes.before(stage, head).await? {
            self.told(&skip);
        }
        Ok(())
    }

    fn told(&mut self, skip: &Skip) {
        if let Some(last) = self.keys.get_mut(skip.key.as_deref().unwrap_or_default()) {
            last.run.told(skip.last);
        }
    }

    /// There was no connection.
    pub(super) fn note_outage(&mut self) {
        self.outages = self.outages.saturating_add(1);
    }

    /// Looks at a message's number. Returns a hole that has to be recorded before the message.
    pub(super) fn observe(&mut self, payload: &[u8], at: Timestamp, stats: &SequenceStats) -> Option<Outage> {
        let mut found = Found::default();
        let Some((key, number, previous)) = self.look_at(payload, &mut found) else {
            stats.unnumbered.add(1);
            return None;
        };
        let outages = self.outages;
        let Some(last) = self.keys.get_mut(key.as_ref()) else {
            if !self.remember(&key, number, at, outages) {
                stats.unnumbered.add(1);
            }
            return None;
        };
        let crossed = last.outages != outages;
        let verdict = last.run.take(number, previous, crossed);
        let since = last.at;
        last.outages = outages;
        match verdict {
            Verdict::Duplicate => {
                stats.duplicates.add(1);
                return None;
            }
            Verdict::Reordered => {
                stats.reordered.add(1);
                return None;
            }
            Verdict::Next | Verdict::Restarted | Verdict::Hole { .. } => last.at = at,
        }
        match verdict {
            Verdict::Restarted => {
                stats.restarts.add(1);
                None
            }
            Verdict::Hole {
                first,
                last,
                messages,
            } => {
                stats.holes.add(1);
                stats.missing.add(messages.unwrap_or(0));
                let name = self.sequence.per.map(|_| key.into_owned());
                let hole = Outage {
                    from: since,
                    to: at.max(since),
                    messages: messages.unwrap_or(0),
                    cause: if crossed { CROSSED } else { SKIPPED }.to_owned(),
                    kind: OutageKind::Sequence(Some(Skip {
                        key: name,
                        first,
                        last,
                    })),
                };
                self.allowed(hole, at)
            }
            Verdict::Next | Verdict::Duplicate | Verdict::Reordered => None,
        }
    }

    /// Whether holes were summed up and are not recorded yet.
    pub(super) fn has_summed(&self) -> bool {
        self.summed.is_some()
    }

    /// The holes that were summed up, when it is time to record them: a new one may be recorded by itself again.
    pub(super) fn take_summed(&mut self, at: Timestamp) -> Option<Outage> {
        self.summed.as_ref()?;
        self.reckon(at);
        if self.allowance < HOLE {
            return None;
        }
        self.allowance -= HOLE;
        self.take_rest()
    }

    /// The holes that were summed up, whatever the time.
    pub(super) fn take_rest(&mut self) -> Option<Outage> {
        let Summed { mut outage, holes } = self.summed.take()?;
        outage.cause = format!("{holes} holes in the numbers, more than are told one by one");
        Some(outage)
    }

    /// The key, the number and the one before it, if the message has them.
    fn look_at<'m>(
        &self,
        payload: &'m [u8],
        found: &mut Found<'m>,
    ) -> Option<(Cow<'m, str>, u64, Option<u64>)> {
        let Sequence {
            finder,
            per,
            previous,
        } = &self.sequence;
        finder.find(payload, &mut found[..finder.paths()])?;
        let number = number_of(found[NUMBER]?)?;
        let key = match per {
            Some(place) => key_of(found[*place].filter(|key| key.len() <= MAX_KEY_BYTES)?),
            None => Cow::Borrowed(""),
        };
        let previous = match previous {
            Some(place) => Some(number_of(found[*place]?)?),
            None => None,
        };
        Some((key, number, previous))
    }

    /// Begins a key's run anew; `false` when there are too many.
    fn remember(&mut self, key: &str, number: u64, at: Timestamp, outages: u32) -> bool {
        let last = Last {
            run: Run::beginning(number),
            at,
            outages,
        };
        if let Some(known) = self.keys.get_mut(key) {
            *known = last;
        } else if self.keys.len() < MAX_KEYS {
            self.keys.insert(key.into(), last);
        } else {
            if !std::mem::replace(&mut self.told_full, true) {
                warn!(
                    "sequence: messages have more than {MAX_KEYS} different keys at `per`; the numbers of further ones are \
                     not checked"
                );
            }
            return false;
        }
        true
    }

    fn reckon(&mut self, now: Timestamp) {
        let since = self.reckoned.replace(now).unwrap_or(now);
        let earned = now.micros().saturating_sub(since.micros()).max(0);
        // A millionth of a hole for each microsecond, times as many as a second has.
        self.allowance = self
            .allowance
            .saturating_add(earned.saturating_mul(PER_SECOND))
            .min(BURST * HOLE);
    }

    /// The hole, or nothing when it is summed up with others.
    fn allowed(&mut self, hole: Outage, now: Timestamp) -> Option<Outage> {
        self.reckon(now);
        if self.allowance >= HOLE && self.summed.is_none() {
            self.allowance -= HOLE;
            return Some(hole);
        }
        match &mut self.summed {
            Some(Summed { outage, holes }) => {
                outage.from = outage.from.min(hole.from);
                outage.to = outage.to.max(hole.to);
                outage.messages = outage.messages.saturating_add(hole.messages);
                *holes += 1;
            }
            None => {
                let outage = Outage {
                    kind: OutageKind::Sequence(None),
                    ..hole
                };
                self.summed = Some(Summed { outage, holes: 1 });
            }
        }
        None
    }
}

const SKIPPED: &str = "the numbers have a hole, within a connection";
const CROSSED: &str = "the numbers have a hole, over an outage";

/// The offset from which on the stage holds the last [`SEED_MESSAGES`] messages.
fn seed_from(stage: &dyn Stage) -> Offset {
    let bounds = stage.bounds();
    let (mut low, mut high) = (bounds.oldest.get(), bounds.head.get());
    while low < high {
        let middle = low + (high - low) / 2;
        if stage.count_between(Offset::new(middle), bounds.head) > SEED_MESSAGES {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Offset::new(low)
}

/// A number as JSON writes it, with or without quotes.
fn number_of(json: &str) -> Option<u64> {
    match json.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?.parse().ok(),
        None => json.parse().ok(),
    }
}

/// A key: a string without its quotes, or any other JSON as it stands.
fn key_of(json: &str) -> Cow<'_, str> {
    string_of(json).unwrap_or(Cow::Borrowed(json))
}

/// The holes that a stage's outages tell of, read in step with its messages.
struct Holes {
    /// What was read and not given yet.
    read: Vec<PlacedOutage>,
    at: Place,
}

impl Holes {
    fn from(offset: Offset) -> Self {
        Self {
            read: Vec::new(),
            at: offset.into(),
        }
    }

    /// Those up to the message at `offset`.
    async fn before(&mut self, stage: &dyn Stage, offset: Offset) -> Result<Vec<Skip>, StageError> {
        let mut skips = Vec::new();
        loop {
            let passed = self.read.partition_point(|placed| placed.place.offset <= offset);
            skips.extend(
                self.read
                    .drain(..passed)
                    .filter_map(|placed| placed.outage.kind.skip().cloned()),
            );
            let behind_all = self.at.offset > offset || *stage.watch_outages().borrow() <= self.at;
            if behind_all || !self.read.is_empty() {
                return Ok(skips);
            }
            let page = stage.outages(self.at, stage.bounds().head).await?;
            if page.next <= self.at {
                return Ok(skips);
            }
            self.at = page.next;
            self.read.extend(page.outages);
        }
    }
}

#[cfg(test)]
mod tests;
