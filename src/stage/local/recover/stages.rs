//! The stages at a start: what is lost at the tail, what is skipped, and where each goes on.

use std::collections::{BTreeMap, BTreeSet};

use super::{Continuation, Recovered, Recovery};
use crate::record::{Offset, Timestamp};
use crate::stage::GapCause;
use crate::stage::envelope::GAP_PART;
use crate::stage::local::gaps::{self, GapList};
use crate::stage::local::meta::StageEntry;
use crate::stage::local::options::OpenError;
use crate::stage::path::{Extent, GenerationState};

impl Recovery<'_> {
    /// Where each stage goes on, durably in the book.
    pub(super) fn finish(mut self, names: &[&str]) -> Result<Recovered, OpenError> {
        let tools = self.tools;
        let mut stages: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        stages.extend(self.book.stages.keys().cloned());
        stages.extend(self.reserved.keys().cloned());
        let open_number = self.open.as_ref().map(|(number, _)| *number);
        let mut continuations = BTreeMap::new();
        for stage in stages {
            let continuation = self.continue_stage(&stage)?;
            let put = self.meta.put_stage(&stage, &continuation.entry).and_then(|()| {
                let begins = Extent::empty_at(continuation.next);
                match open_number {
                    Some(number) if !self.book.extents.contains_key(&(number, stage.clone())) => {
                        self.meta.put_extent(number, &stage, &begins)
                    }
                    _ => Ok(()),
                }
            });
            put.map_err(|reason| tools.failed(reason))?;
            continuations.insert(stage, continuation);
        }
        if !self.clean {
            self.meta
                .mark_clean(false)
                .map_err(|reason| tools.failed(reason))?;
        }
        self.meta.commit().map_err(|reason| tools.failed(reason))?;
        let open = self
            .open
            .ok_or_else(|| tools.failed("no generation to append to".to_owned()))?;
        Ok(Recovered {
            id: self.id,
            meta: self.meta,
            catalog: self.catalog,
            open,
            stages: continuations,
            clean: self.clean,
        })
    }

    fn continue_stage(&mut self, stage: &str) -> Result<Continuation, OpenError> {
        let entry = self.book.stages.get(stage).copied().unwrap_or_default();
        let in_generations = self.reserved.get(stage).copied().unwrap_or_default();
        let reserved = entry.reserved.max(in_generations);
        let ends = self.ends.get(stage).copied().unwrap_or_default();
        let begins = self.begin_of_open(stage);
        let recovered = ends.extent.map_or(begins, |(_, end)| end);

        let lost = read_dense(&self.gaps, stage, recovered, entry.head);
        if !lost.is_empty() {
            self.clean = false;
            let why = self.open_lost.clone();
            let why = why.as_deref().unwrap_or("the newest generation ends before them");
            self.lose_between(stage, recovered, entry.head, None, why)?;
        }
        let written = recovered.max(entry.head);
        let (staged, mut is_uncounted) = self.staged_before(stage, written);
        let next = if self.clean {
            written
        } else {
            written.max(reserved)
        };
        if written < next {
            let mut skipped = gaps::reservation(written, next);
            if !self.book.clean && (self.open_lost.is_some() || !lost.is_empty()) {
                // What was staged after the book was written last is gone as well, and nobody can know how much.
                skipped.cause = GapCause::Lost;
                skipped.messages = None;
                is_uncounted = true;
                skipped.why.clone_from(&self.open_lost);
            }
            self.add_gap(stage, &skipped)?;
        }
        let gaps = self.gaps.remove(stage).unwrap_or_default();
        let skipped = next
            .get()
            .checked_sub(1)
            .and_then(|last| gaps.at(Offset::new(last)))
            .filter(|gap| gap.cause == GapCause::Reservation && gap.to == next);
        let prev_end = skipped.map_or(next, |gap| gap.from);
        let outage_sequence = match ends.last_outage {
            Some((base, sequence)) if base == next => sequence + 1,
            // Nobody knows which were given before this message.
            _ if self.open_lost.is_some() => sequence_of_now(),
            _ => 0,
        };
        let cursors = self
            .book
            .cursors
            .iter()
            .filter(|((found, _), _)| found == stage)
            .map(|((_, producer), next)| (producer.clone(), *next))
            .collect();
        Ok(Continuation {
            next,
            prev_end,
            entry: StageEntry {
                reserved: reserved.max(next),
                head: next,
                refused: entry.refused,
                staged: Some(staged),
                is_uncounted,
                seen_at: ends.period.map(|period| period.to).or(entry.seen_at),
                stopped_at: entry.stopped_at,
            },
            outage_sequence,
            period: ends.period,
            gaps,
            cursors,
        })
    }

    /// Messages that were staged before `written`, and whether there were more: what the book counted, and what came after it was
    /// written. For a book of an earlier version, which does not count, the offsets tell; for one that was made anew, those of the
    /// generations that are left.
    fn staged_before(&mut self, stage: &str, written: Offset) -> (u64, bool) {
        let entry = self.book.stages.get(stage).copied();
        let oldest = self
            .catalog
            .values()
            .find_map(|generation| Some(generation.extents.get(stage)?.first));
        let gaps = self.gaps.entry(stage.to_owned()).or_default();
        match entry {
            Some(StageEntry {
                staged: Some(staged),
                head,
                is_uncounted,
                ..
            }) => (staged + gaps.given_between(head, written), is_uncounted),
            Some(_) => {
                let is_uncounted = gaps.as_slice().iter().any(|gap| gap.messages.is_none());
                (gaps.given_between(Offset::ZERO, written), is_uncounted)
            }
            None => {
                let from = oldest.unwrap_or(written);
                (gaps.given_between(from, written), written > Offset::ZERO)
            }
        }
    }

    /// The offset of the first message that the open generation may hold: as the book says, or where the others end.
    fn begin_of_open(&self, stage: &str) -> Offset {
        let booked = self.book.generations.iter().find_map(|(number, entry)| {
            let open = entry.state == GenerationState::Open;
            open.then(|| self.book.extents.get(&(*number, stage.to_owned())))?
        });
        let sealed = self
            .catalog
            .values()
            .filter_map(|generation| generation.extents.get(stage))
            .map(|extent| extent.end)
            .max();
        booked
            .map_or(Offset::ZERO, |extent| extent.first)
            .max(sealed.unwrap_or_default())
    }
}

/// A number of an outage that none before it can have had, unless it was given this way within the same second.
fn sequence_of_now() -> u32 {
    /// 2020-01-01T00:00:00Z, so that the numbers last until 2054.
    const BEGIN_S: i64 = 1_577_836_800;
    let seconds = Timestamp::now().micros().div_euclid(1_000_000) - BEGIN_S;
    u32::try_from(seconds.clamp(1, i64::from(GAP_PART - 1) / 2)).unwrap_or(1)
}

fn read_dense(
    gaps: &BTreeMap<String, GapList>,
    stage: &str,
    from: Offset,
    to: Offset,
) -> Vec<(Offset, Offset)> {
    match gaps.get(stage) {
        Some(list) => list.dense_between(from, to),
        None if from < to => vec![(from, to)],
        None => Vec::new(),
    }
}
