//! Reading from the disk: across generations, stepping over what is missing and saying so.
//!
//! Invariants: nothing past the durable head; whatever lies between two batches comes out as a gap, and what nobody knew to
//! be missing is recorded before it is returned.

use std::sync::Arc;

use super::database::Database;
use super::gaps;
use super::generation::tree_of;
use super::ring::Room;
use super::state::{Shared, StageState, lock, read};
use super::walk::{Step, Walk, WalkError};
use crate::record::Offset;
use crate::stage::envelope::{self, Assembler, EnvelopeError, Kind};
use crate::stage::path::{GenerationState, RecordPage, StoredRecord};
use crate::stage::{Gap, GapCause, ReadLimit, ReadOutcome, StageError, StagedBatch};

/// The most gaps that one read returns.
const MAX_GAPS: usize = 64;

/// Who holds an offset.
enum Holder {
    /// This generation, up to this offset.
    Generation(u64, Offset),
    /// Nobody; the next message is at this offset.
    Nobody(Offset),
}

/// Reads from memory if the stage's last batches are asked for; `None` when the disk has to be asked.
pub(super) fn read_recent(
    stage: &StageState,
    from: Offset,
    head: Offset,
    limit: ReadLimit,
) -> Option<ReadOutcome> {
    lock(&stage.ring).read(from, head, limit)
}

/// Reads batches from the disk. Blocks.
pub(super) fn read_disk(
    shared: &Shared,
    stage: &StageState,
    from: Offset,
    limit: ReadLimit,
) -> Result<ReadOutcome, StageError> {
    let reading = Reading::<Decoded>::run(shared, stage, from, limit)?;
    Ok(ReadOutcome {
        batches: reading.found.batches,
        gaps: reading.gaps,
        next: reading.next,
    })
}

/// Reads records from the disk as they are stored. Blocks.
pub(super) fn read_records(
    shared: &Shared,
    stage: &StageState,
    from: Offset,
    limit: ReadLimit,
) -> Result<RecordPage, StageError> {
    let reading = Reading::<Stored>::run(shared, stage, from, limit)?;
    Ok(RecordPage {
        records: reading.found.records,
        gaps: reading.gaps,
        next: reading.next,
    })
}

/// What a read makes of the records that it comes by.
trait Found: Default {
    /// A batch begins; what came before without an end never gets one.
    fn begin(&mut self);

    /// Takes the next record of the batch. Returns the offset after the batch if it is whole with this record.
    fn take(&mut self, stage: &str, step: &Step) -> Result<Option<Offset>, EnvelopeError>;
}

/// Batches, decoded.
#[derive(Default)]
struct Decoded {
    assembler: Assembler,
    batches: Vec<Arc<StagedBatch>>,
}

impl Found for Decoded {
    fn begin(&mut self) {
        self.assembler.clear();
    }

    fn take(&mut self, stage: &str, step: &Step) -> Result<Option<Offset>, EnvelopeError> {
        let sealed = envelope::open(stage, &step.key, &step.value)?;
        let Some(batch) = self.assembler.push(&sealed)? else {
            return Ok(None);
        };
        let end = batch.end();
        self.batches.push(Arc::new(batch));
        Ok(Some(end))
    }
}

/// Records of whole batches, as they are stored.
#[derive(Default)]
struct Stored {
    records: Vec<StoredRecord>,
    /// How many of them belong to whole batches.
    whole: usize,
}

impl Found for Stored {
    fn begin(&mut self) {
        self.records.truncate(self.whole);
    }

    fn take(&mut self, _stage: &str, step: &Step) -> Result<Option<Offset>, EnvelopeError> {
        self.records.push(StoredRecord {
            key: step.key.to_vec(),
            value: step.value.to_vec(),
        });
        if !step.header.is_last_part() {
            return Ok(None);
        }
        self.whole = self.records.len();
        Ok(Some(step.header.end()))
    }
}

struct Reading<'a, F> {
    shared: &'a Shared,
    stage: &'a StageState,
    head: Offset,
    room: Room,
    found: F,
    gaps: Vec<Gap>,
    next: Offset,
}

impl<'a, F: Found> Reading<'a, F> {
    fn run(
        shared: &'a Shared,
        stage: &'a StageState,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Self, StageError> {
        let head = stage.head();
        let mut reading = Self {
            shared,
            stage,
            head,
            room: Room::new(limit),
            found: F::default(),
            gaps: Vec::new(),
            next: from,
        };
        while reading.next < head
            && !reading.room.is_used_up()
            && reading.gaps.len() < MAX_GAPS
            && reading.step()?
        {}
        reading.found.begin();
        Ok(reading)
    }

    /// One gap or a run of batches; `false` when the next batch does not fit.
    fn step(&mut self) -> Result<bool, StageError> {
        let at = self.next;
        if let Some(gap) = read(&self.stage.gaps).at(at).cloned() {
            self.pass(&gap);
            return Ok(true);
        }
        match self.holder(at) {
            Holder::Nobody(next) => {
                let expired = self
                    .shared
                    .oldest(&self.stage.name)
                    .is_none_or(|oldest| at < oldest);
                if expired {
                    self.pass(&gaps::of_messages(at, next, GapCause::Expired));
                } else {
                    self.lost(vec![gaps::lost(at, next, "no generation holds them")])?;
                }
                Ok(true)
            }
            Holder::Generation(number, until) => match self.shared.database(number)? {
                None => Ok(true),
                Some(database) => self.walk(&database, until),
            },
        }
    }

    /// Goes on behind a gap, or behind the part of it before the head and the next one.
    fn pass(&mut self, gap: &Gap) {
        let from = self.next;
        let known = read(&self.stage.gaps);
        let next_known = known
            .as_slice()
            .iter()
            .map(|known| known.from)
            .find(|begin| *begin > from && *begin > gap.from);
        let to = gap
            .to
            .min(self.head)
            .min(next_known.unwrap_or(gap.to).max(from.advanced_by(1)));
        self.gaps.push(gap.part(from, to));
        self.next = to;
    }

    /// Records what is missing; the next step passes over it.
    fn lost(&self, missing: Vec<Gap>) -> Result<(), StageError> {
        self.shared.checked(self.shared.record_gaps(self.stage, missing))
    }

    fn holder(&self, at: Offset) -> Holder {
        let catalog = self.shared.catalog();
        let extents = catalog
            .iter()
            .filter(|(_, generation)| generation.entry.state != GenerationState::Dropping)
            .filter_map(|(number, generation)| {
                let extent = generation.extents.get(&self.stage.name)?;
                (extent.end > at).then_some((*number, *extent))
            });
        match extents.min_by_key(|(_, extent)| extent.first) {
            Some((number, extent)) if extent.first <= at => {
                Holder::Generation(number, extent.end.min(self.head))
            }
            Some((_, extent)) => Holder::Nobody(extent.first.min(self.head)),
            None => Holder::Nobody(self.head),
        }
    }

    /// Reads batches up to `until`.
    fn walk(&mut self, database: &Database, until: Offset) -> Result<bool, StageError> {
        let name = &self.stage.name;
        let from = self.next;
        let tree = self.shared.checked(database.tree(&tree_of(name)))?;
        let mut walk =
            Walk::new(&tree, name, Some(from), until).map_err(|error| self.failed(database, error))?;
        while let Some(step) = walk.next().map_err(|error| self.failed(database, error))? {
            let header = step.header;
            if header.kind == Kind::Gap || header.end() <= from {
                continue;
            }
            if !step.missing.is_empty() {
                self.lost(step.missing)?;
                // What is missing comes before this record, which is read again after it.
                return Ok(true);
            }
            if header.part == 0 {
                self.found.begin();
                if !self.room.takes(header.count as usize, estimated_bytes(&header)) {
                    return Ok(false);
                }
            }
            match self.found.take(name, &step) {
                Ok(Some(end)) => self.next = end,
                Ok(None) => {}
                Err(error) => return self.undecodable(header.base, header.end(), &error),
            }
            if self.room.is_used_up() {
                return Ok(true);
            }
        }
        if let Some(missing) = walk.missing_up_to(until) {
            self.lost(vec![missing])?;
        }
        Ok(true)
    }

    /// A record with a right checksum that does not decode: nobody will ever read it.
    fn undecodable(&self, base: Offset, end: Offset, error: &EnvelopeError) -> Result<bool, StageError> {
        tracing::error!(stage = self.stage.name, offset = base.get(), %error, "a batch can't be decoded");
        let from = base.max(self.next);
        self.lost(vec![gaps::lost(
            from,
            end,
            &format!("a batch can't be decoded: {error}"),
        )])?;
        Ok(true)
    }

    fn failed(&self, database: &Database, error: WalkError) -> StageError {
        match error {
            WalkError::Store(error) => {
                self.shared.fail(&database.describe("read", &error));
                self.shared.ended()
            }
            WalkError::Newer(error) => StageError::Damaged {
                stage: self.stage.name.clone(),
                offset: self.next,
                reason: error.to_string(),
            },
        }
    }
}

/// Bytes of payload that a record will come to: of a message in parts, all of its parts.
fn estimated_bytes(header: &envelope::Header) -> usize {
    (header.raw_len as usize).saturating_mul(header.parts as usize)
}
