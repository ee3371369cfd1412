//! Outages that a roll carries into the next generation: those behind the last message of a stage.
//!
//! Invariant: at most [`MAX_CARRIED`] of them stand one by one. A source that accepts and closes for months, and never sends anything,
//! leaves an outage at each attempt and no message behind which they could be left: each roll would copy ever more. So the
//! oldest are summed up, one sum of each kind, at the place of the last one in it: whoever has passed that has passed
//! everything in the sum, and whoever has not is told the whole stretch.

use std::collections::{BTreeMap, VecDeque};

use sled::IVec;

use super::database::Database;
use super::generation::{outages_tree_of, tree_of};
use super::outages::records;
use super::state::describe;
use crate::record::Offset;
use crate::stage::envelope::{self, Codec, Encoder, GAP_PART, Header};
use crate::stage::{Outage, OutageKind, Period};

/// Outages that are carried over one by one.
pub(super) const MAX_CARRIED: usize = if cfg!(test) { 8 } else { 10_000 };

/// What the cause of a sum begins with; behind it stands that of the last outage in it.
const SUMMED: &str = "several stretches summed up; the last: ";

/// Outages of one stage as they are stored, to be inserted into the next generation.
pub(super) struct Carried {
    pub(super) stage: String,
    /// Keys and values.
    pub(super) records: VecDeque<(IVec, IVec)>,
    /// The time that they span.
    pub(super) period: Option<Period>,
}

impl Carried {
    /// Puts them into a generation that is being made.
    pub(super) fn insert_into(&self, db: &sled::Db) -> sled::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let tree = db.open_tree(tree_of(&self.stage))?;
        let index = db.open_tree(outages_tree_of(&self.stage))?;
        for (key, value) in &self.records {
            tree.insert(key, value)?;
            index.insert(key, &[])?;
        }
        Ok(())
    }
}

/// The outages of a generation behind its last message of the stage, which ends at `end` if there is one.
pub(super) fn trailing(database: &Database, stage: &str, end: Option<Offset>) -> Result<Carried, String> {
    let mut carried = Carried {
        stage: stage.to_owned(),
        records: VecDeque::new(),
        period: None,
    };
    let mut sums = Sums::default();
    for record in records(database, stage, envelope::key(end.unwrap_or(Offset::ZERO), 0)..)? {
        let (key, value) = record?;
        // What does not open is left out: it would be so wherever it stands.
        let Ok(sealed) = envelope::open(stage, &key, &value) else {
            continue;
        };
        carried.period = Period::joined(carried.period, Some(sealed.header.period()));
        carried.records.push_back((key, value));
        if carried.records.len() > MAX_CARRIED
            && let Some((key, value)) = carried.records.pop_front()
        {
            sums.add(stage, &key, &value);
        }
    }
    for record in sums.into_records(stage)? {
        carried.records.push_front(record);
    }
    Ok(carried)
}

/// Outages that are told together, by the names of their kinds.
#[derive(Default)]
struct Sums(BTreeMap<&'static str, (Header, Outage)>);

impl Sums {
    /// Adds the next outage to the sum of its kind.
    fn add(&mut self, stage: &str, key: &[u8], value: &[u8]) {
        let opened = envelope::open(stage, key, value);
        let Some((header, next)) = opened
            .ok()
            .and_then(|sealed| Some((sealed.header, envelope::decode_outage(&sealed).ok()?)))
        else {
            return;
        };
        let sum = match self.0.remove(next.kind.name()) {
            None => next,
            Some((_, sum)) => joined(sum, next),
        };
        self.0.insert(sum.kind.name(), (header, sum));
    }

    fn into_records(self, stage: &str) -> Result<Vec<(IVec, IVec)>, String> {
        // A sum is too small for compression to be worth it.
        let mut encoder = Encoder::new(Codec::None);
        let encoded = self.0.into_values().map(|(header, outage)| {
            let sequence = header.part & !GAP_PART;
            let record = encoder.encode_outage(stage, header.base, header.prev_end, sequence, &outage);
            let record = record.map_err(|error| describe(&error))?;
            Ok((IVec::from(&record.key), IVec::from(record.value)))
        });
        encoded.collect()
    }
}

/// Two outages of one kind as one.
fn joined(sum: Outage, next: Outage) -> Outage {
    let last = next.cause.strip_prefix(SUMMED).unwrap_or(&next.cause);
    Outage {
        from: sum.from.min(next.from),
        to: sum.to.max(next.to),
        messages: sum.messages.saturating_add(next.messages),
        cause: format!("{SUMMED}{last}"),
        kind: match next.kind {
            OutageKind::Sequence(_) => OutageKind::Sequence(None),
            other => other,
        },
    }
}
