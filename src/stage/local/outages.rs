//! Outages: stretches in which messages may be missing, and those that a full path makes itself.
//!
//! An outage is a record of kind gap in its stage's tree, and an entry in the tree beside it that holds the keys of all
//! outages of the generation, so that they are found without going through the messages. (In generations that an earlier version has
//! sealed they are found by going through, and those behind the last message stand where they were recorded.)
//!
//! Invariant: an outage stands in the generation that holds the first message behind it, and as long as there is none in the open
//! one. A roll carries it over (`carried`): whoever has delivered every message of a sealed generation needs nothing of it any more.

use std::iter;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sled::IVec;

use super::database::Database;
use super::generation::{self, outages_tree_of, tree_of};
use super::state::{Shared, StageState};
use super::writer::{WaitingBatch, Writer};
use crate::record::{Offset, Timestamp};
use crate::stage::envelope::{self, EnvelopeError, GAP_PART};
use crate::stage::path::{Extent, GenerationState};
use crate::stage::{Appended, Outage, OutageKind, OutagePage, Period, Place, PlacedOutage, StageError};

/// The most outages of one page.
const MAX_OUTAGES: usize = if cfg!(test) { 4 } else { 500 };

impl Writer {
    /// Inserts the record of an outage, at the present place in the order.
    pub(super) fn append_outage(&mut self, stage: &str, outage: &Outage) -> Result<(), String> {
        self.unmark_clean()?;
        let Some(lane) = self.lanes.get_mut(stage) else {
            return Ok(());
        };
        let record = self
            .encoder
            .encode_outage(stage, lane.next, lane.prev_end, lane.outage_sequence, outage)
            .map_err(|error| error.to_string())?;
        lane.outage_sequence += 1;
        let place = Place {
            offset: lane.next,
            sequence: lane.outage_sequence,
        };
        lane.spans(Period {
            from: outage.from,
            to: outage.to,
        });
        let (state, key) = (Arc::clone(&lane.state), record.key);
        self.insert(stage, record)?;
        self.open
            .database
            .tree(&outages_tree_of(stage))?
            .insert(key, &[])
            .map_err(|error| self.open.database.describe("write to", &error))?;
        self.recorded.push((state, place, outage.to));
        Ok(())
    }

    /// Drops a batch for which there is no room, and counts it.
    pub(super) fn refuse(&mut self, waiting: WaitingBatch) {
        let messages = waiting.batch.len() as u64;
        let now = Timestamp::now();
        waiting.stage.refused.fetch_add(messages, Ordering::Relaxed);
        let refused = Outage {
            from: waiting.batch.received_first().unwrap_or(now),
            to: waiting.batch.received_last().unwrap_or(now),
            messages,
            cause: "stage full".to_owned(),
            kind: OutageKind::DroppedNewest,
        };
        self.add_refused(&waiting.stage.name, refused);
        drop(waiting.answer.send(Ok(Appended::Dropped { messages })));
    }

    /// Adds to the outage that is written down once there is room.
    pub(super) fn add_refused(&mut self, stage: &str, more: Outage) {
        let Some(lane) = self.lanes.get_mut(stage) else {
            return;
        };
        match &mut lane.refused {
            Some(refused) => {
                refused.from = more.from.min(refused.from);
                refused.to = more.to.max(refused.to);
                refused.messages += more.messages;
                if more.kind == OutageKind::DroppedNewest {
                    refused.kind = more.kind;
                }
            }
            None => lane.refused = Some(more),
        }
    }

    /// Writes down what was refused since there was room last.
    pub(super) fn record_refused(&mut self, stage: &str) -> Result<(), String> {
        match self.lanes.get_mut(stage).and_then(|lane| lane.refused.take()) {
            Some(refused) => self.append_outage(stage, &refused),
            None => Ok(()),
        }
    }
}

/// When the first outage of a generation began, if it holds one.
pub(super) fn first_began(database: &Database, stage: &str) -> Result<Option<Timestamp>, String> {
    let first = records(database, stage, ..)?.next().transpose()?;
    Ok(first.and_then(|(key, value)| {
        let sealed = envelope::open(stage, &key, &value).ok()?;
        Some(sealed.header.received_first)
    }))
}

/// Keys and values of records, as they are read.
pub(super) type Records<'d> = Box<dyn Iterator<Item = Result<(IVec, IVec), String>> + 'd>;

/// The records of a stage's outages in a generation with keys in this range, in order. In one without an index all records of the
/// range are looked at.
pub(super) fn records<'d>(
    database: &'d Database,
    stage: &str,
    keys: impl RangeBounds<[u8; 12]>,
) -> Result<Records<'d>, String> {
    let failed = |error| database.describe("read", &error);
    let Some(tree) = database.tree_if_there(&tree_of(stage))? else {
        return Ok(Box::new(iter::empty()));
    };
    if !generation::is_indexed(database)? {
        let is_outage = |key: &[u8]| envelope::parse_key(key).is_some_and(|(_, part)| part & GAP_PART != 0);
        let found = tree
            .range(keys)
            .filter(move |record| record.as_ref().map_or(true, |(key, _)| is_outage(key)));
        return Ok(Box::new(found.map(move |record| record.map_err(failed))));
    }
    let Some(index) = database.tree_if_there(&outages_tree_of(stage))? else {
        return Ok(Box::new(iter::empty()));
    };
    Ok(Box::new(index.range(keys).filter_map(move |entry| {
        let record = entry.and_then(|(key, _)| Ok(tree.get(&key)?.map(|value| (key, value))));
        record.map_err(failed).transpose()
    })))
}

/// The outages from a place on, up to those before the message at `to`. Blocks.
pub(super) fn page(
    shared: &Shared,
    stage: &StageState,
    from: Place,
    to: Offset,
) -> Result<OutagePage, StageError> {
    // What is not durable yet may still come to nothing.
    let known = stage.outages_end();
    let end = known.min(Place {
        offset: to,
        sequence: u32::MAX,
    });
    let mut page = OutagePage {
        outages: Vec::new(),
        next: from,
    };
    if from < end {
        for (number, extent) in holders(shared, stage, from.offset, to) {
            let Some(database) = shared.database(number)? else {
                continue;
            };
            let end = match extent {
                // Those behind its last message stand in a later generation as well; an earlier version left them there.
                Some(extent) if shared.checked(generation::is_indexed(&database))? => {
                    end.min(extent.end.into())
                }
                _ => end,
            };
            look_into(shared, stage, &database, end, &mut page)?;
            if page.outages.len() >= MAX_OUTAGES {
                return Ok(page);
            }
        }
    }
    page.next = page.next.max(to.into());
    if known.offset == to {
        // Also past those that can't be read any more.
        page.next = page.next.max(known);
    }
    Ok(page)
}

/// The generations that can hold outages from `from` up to the message at `to`, in order; sealed ones with their stretch.
fn holders(shared: &Shared, stage: &StageState, from: Offset, to: Offset) -> Vec<(u64, Option<Extent>)> {
    let mut found = Vec::new();
    for (number, generation) in shared.catalog().iter() {
        match (generation.entry.state, generation.extents.get(&stage.name)) {
            (GenerationState::Open, _) => found.push((*number, None)),
            (GenerationState::Sealed, Some(extent)) if extent.end > from => {
                found.push((*number, Some(*extent)));
                if extent.end > to {
                    break;
                }
            }
            (GenerationState::Sealed | GenerationState::Dropping, _) => {}
        }
    }
    found
}

/// Takes what a generation holds before `end`, up to the limit.
fn look_into(
    shared: &Shared,
    stage: &StageState,
    database: &Database,
    end: Place,
    page: &mut OutagePage,
) -> Result<(), StageError> {
    let name = &stage.name;
    if end <= page.next {
        return Ok(());
    }
    for record in shared.checked(records(database, name, key_of(page.next)..key_of(end)))? {
        let (key, value) = shared.checked(record)?;
        match decoded(name, &key, &value) {
            Ok(outage) => {
                page.next = outage.place.next();
                page.outages.push(outage);
            }
            Err(error @ EnvelopeError::Newer { .. }) => {
                return Err(StageError::Damaged {
                    stage: name.clone(),
                    offset: page.next.offset,
                    reason: error.to_string(),
                });
            }
            Err(error) => {
                tracing::warn!(stage = name, %error, "the record of an outage is damaged and left out");
            }
        }
        if page.outages.len() >= MAX_OUTAGES {
            break;
        }
    }
    Ok(())
}

/// The key of the outage at a place.
fn key_of(place: Place) -> [u8; 12] {
    envelope::key(place.offset, GAP_PART | place.sequence.min(!GAP_PART))
}

fn decoded(stage: &str, key: &[u8], value: &[u8]) -> Result<PlacedOutage, EnvelopeError> {
    let sealed = envelope::open(stage, key, value)?;
    let header = sealed.header;
    Ok(PlacedOutage {
        place: Place {
            offset: header.base,
            sequence: header.part & !GAP_PART,
        },
        follows: header.prev_end,
        outage: envelope::decode_outage(&sealed)?,
    })
}
