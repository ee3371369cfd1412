//! The batches and outages of a stage, page by page.

use super::database::Database;
use super::generation::{self, tree_of};
use super::state::{Shared, StageState};
use super::walk::{Walk, WalkError};
use crate::record::{Offset, Timestamp};
use crate::stage::StageError;
use crate::stage::envelope::{self, Header, Kind};
use crate::stage::path::{BatchPage, BatchPosition, BatchQuery, BatchSummary, GenerationState, MAX_BATCHES};

/// A page. Blocks.
pub(super) fn page(shared: &Shared, stage: &StageState, query: BatchQuery) -> Result<BatchPage, StageError> {
    let limit = query.limit.min(MAX_BATCHES);
    let mut looking = Looking {
        shared,
        stage,
        query,
        limit,
        at: query.from,
        batches: Vec::new(),
    };
    for (number, outages_before) in looking.generations() {
        let Some(database) = shared.database(number)? else {
            continue;
        };
        looking.look_into(number, &database, outages_before)?;
        if looking.batches.len() >= limit {
            return Ok(BatchPage {
                batches: looking.batches,
                next: Some(looking.at),
            });
        }
    }
    Ok(BatchPage {
        batches: looking.batches,
        next: None,
    })
}

struct Looking<'a> {
    shared: &'a Shared,
    stage: &'a StageState,
    query: BatchQuery,
    limit: usize,
    /// Behind the last batch or outage that was passed.
    at: BatchPosition,
    batches: Vec<BatchSummary>,
}

/// Bytes of a batch, over its parts.
#[derive(Clone, Copy, Default)]
struct Sizes {
    raw: u64,
    stored: u64,
}

impl Looking<'_> {
    /// The generations that can hold what is asked for, in order, with the offset before which their outages count: a sealed one's
    /// outages behind its last message stand in a later one as well.
    fn generations(&self) -> Vec<(u64, Option<Offset>)> {
        let from = self.query.from.offset;
        let since = self.query.since.unwrap_or(Timestamp::from_micros(i64::MIN));
        self.shared
            .catalog()
            .iter()
            .filter(|(_, generation)| generation.entry.state != GenerationState::Dropping)
            .filter(|(_, generation)| generation.entry.sealed_at.is_none_or(|sealed| sealed >= since))
            .filter(|(_, generation)| {
                let extent = generation.extents.get(&self.stage.name);
                // An outage may stand behind the last message.
                extent.is_none_or(|extent| extent.end >= from)
            })
            .map(|(number, generation)| {
                let end = (generation.entry.state == GenerationState::Sealed).then(|| {
                    let extent = generation.extents.get(&self.stage.name);
                    extent.map_or(Offset::ZERO, |extent| extent.end)
                });
                (*number, end)
            })
            .collect()
    }

    /// Takes what a generation holds, up to the limit.
    fn look_into(
        &mut self,
        number: u64,
        database: &Database,
        outages_before: Option<Offset>,
    ) -> Result<(), StageError> {
        let name = &self.stage.name;
        let tree = self.shared.checked(database.tree(&tree_of(name)))?;
        // An earlier version left all outages where they were recorded.
        let is_indexed = self.shared.checked(generation::is_indexed(database))?;
        let outages_before = outages_before.filter(|_| is_indexed);
        let head = self.stage.head();
        let from = self.at.offset;
        let failed = |error| match error {
            WalkError::Store(error) => {
                self.shared.fail(&database.describe("read", &error));
                self.shared.ended()
            }
            WalkError::Newer(error) => StageError::Damaged {
                stage: name.clone(),
                offset: from,
                reason: error.to_string(),
            },
        };
        let until = head.advanced_by(1);
        let mut walk = Walk::new(&tree, name, Some(from), until).map_err(failed)?;
        let mut sizes = Sizes::default();
        while self.batches.len() < self.limit {
            let Some(step) = walk.next().map_err(failed)? else {
                break;
            };
            let header = step.header;
            let counts = match header.kind {
                Kind::Data => header.base < head,
                Kind::Gap => outages_before.is_none_or(|end| header.base < end),
            };
            if self.is_passed(&header) || !counts {
                continue;
            }
            if header.part == 0 {
                sizes = Sizes::default();
            }
            sizes.raw += u64::from(header.raw_len);
            sizes.stored += u64::from(header.stored_len);
            if !header.is_last_part() {
                continue;
            }
            let outage = match header.kind {
                Kind::Data => None,
                Kind::Gap => envelope::open(name, &step.key, &step.value)
                    .and_then(|sealed| envelope::decode_outage(&sealed))
                    .ok(),
            };
            if self.is_wanted(&header) {
                let summary = BatchSummary {
                    generation: number,
                    first: header.base,
                    end: header.end(),
                    received_first: header.received_first,
                    received_last: header.received_last,
                    raw_bytes: sizes.raw,
                    stored_bytes: sizes.stored,
                    outage,
                };
                let place = self.place_of(&summary);
                self.batches.insert(place, summary);
            }
            sizes = Sizes::default();
            self.at = BatchPosition {
                offset: header.base,
                part: header.part + 1,
            };
        }
        Ok(())
    }

    fn is_passed(&self, header: &Header) -> bool {
        let begins_inside = header.kind == Kind::Data && self.at.part == 0;
        if begins_inside {
            header.end() <= self.at.offset
        } else {
            (header.base, header.part) < (self.at.offset, self.at.part)
        }
    }

    /// An outage happened before the batch of its offset, but stands behind it.
    fn place_of(&self, summary: &BatchSummary) -> usize {
        match self.batches.last() {
            Some(last)
                if summary.outage.is_some() && last.outage.is_none() && last.first == summary.first =>
            {
                self.batches.len() - 1
            }
            _ => self.batches.len(),
        }
    }

    fn is_wanted(&self, header: &Header) -> bool {
        let is_recent = self.query.since.is_none_or(|since| header.received_last >= since);
        is_recent && (header.kind == Kind::Gap || !self.query.only_outages)
    }
}
