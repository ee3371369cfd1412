//! What a stage path holds, for people: its stages, generations, gaps, and the batches of a stage.
//!
//! [`LocalPath::inspect`] opens a path that no engine runs on; it recovers it, for sled writes when it opens, but drops
//! nothing.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::generation::tree_of;
use super::meta::{Extent, GenerationState};
use super::options::{Durability, LocalOptions, OnFull, OpenError, Retention, Tuning};
use super::path::{LocalPath, is_there};
use super::state::{Shared, StageState, lock, read};
use super::walk::{Walk, WalkError};
use crate::record::{Offset, Timestamp};
use crate::stage::envelope::{self, Kind};
use crate::stage::{Bounds, Gap, Outage, StageError};

/// Batches that are looked up at a time.
const PAGE: usize = 256;

/// A stage at a glance.
#[derive(Clone, Debug)]
pub struct StageSummary {
    /// Its name.
    pub name: String,
    /// Where it begins and ends.
    pub bounds: Bounds,
    /// Messages in it.
    pub messages: u64,
    /// Messages that it refused since it was made, because it was full (`on_full: drop_newest`).
    pub refused: u64,
    /// By producer: its cursor, and how many messages it has yet to deliver.
    pub producers: BTreeMap<String, (Offset, u64)>,
    /// Offsets that hold no message.
    pub gaps: Vec<Gap>,
    /// Numbers of the generations that hold some of it.
    pub generations: Vec<u64>,
}

/// A generation at a glance.
#[derive(Clone, Debug)]
pub struct GenerationSummary {
    /// Its number.
    pub number: u64,
    /// What becomes of it.
    pub state: GenerationState,
    /// When it was made.
    pub made_at: Timestamp,
    /// When it was sealed.
    pub sealed_at: Option<Timestamp>,
    /// Bytes on disk.
    pub bytes: u64,
    /// What it holds by stage.
    pub extents: BTreeMap<String, Extent>,
}

/// A batch, or an outage, as it stands in a stage.
#[derive(Clone, Debug)]
pub struct BatchSummary {
    /// The generation that holds it.
    pub generation: u64,
    /// Offset of the first message; for an outage, of the next one.
    pub first: Offset,
    /// The offset after the last message.
    pub end: Offset,
    /// When the first message came.
    pub received_first: Timestamp,
    /// When the last message came.
    pub received_last: Timestamp,
    /// Bytes before compression, framing included.
    pub raw_bytes: u64,
    /// Bytes of the records without their headers.
    pub stored_bytes: u64,
    /// What is said of the outage, if it is one.
    pub outage: Option<Outage>,
}

impl LocalPath {
    /// Opens a path that no engine runs on, to look at it. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Missing`] when there is none.
    pub fn inspect(path: &Path) -> Result<Self, OpenError> {
        Self::inspect_tuned(path, Tuning::default())
    }

    pub(super) fn inspect_tuned(path: &Path, tuning: Tuning) -> Result<Self, OpenError> {
        if !is_there(path) {
            return Err(OpenError::Missing {
                path: path.to_owned(),
            });
        }
        let options = LocalOptions {
            path: path.to_owned(),
            durability: Durability::Fsync,
            // Nothing is past a retention that is not known.
            retention: Retention {
                age: Duration::MAX,
                bytes: u64::MAX,
            },
            max_bytes: u64::MAX,
            on_full: OnFull::Block,
            tuning: Tuning {
                seal_age: Duration::MAX,
                seal_bytes: u64::MAX,
                min_free: 0,
                ..tuning
            },
        };
        Self::open_existing(options, &[])
    }

    /// All stages in order of name.
    #[must_use]
    pub fn stages(&self) -> Vec<StageSummary> {
        let shared = self.shared();
        shared
            .stages
            .values()
            .map(|stage| summary(shared, stage))
            .collect()
    }

    /// All generations in order.
    #[must_use]
    pub fn generations(&self) -> Vec<GenerationSummary> {
        self.shared()
            .catalog()
            .iter()
            .map(|(number, generation)| GenerationSummary {
                number: *number,
                state: generation.entry.state,
                made_at: generation.entry.made_at,
                sealed_at: generation.entry.sealed_at,
                bytes: generation.bytes,
                extents: generation.extents.clone(),
            })
            .collect()
    }

    /// The batches and outages of a stage in order; `None` when there is no such stage. Looking at them blocks.
    #[must_use]
    pub fn batches(&self, stage: &str) -> Option<Batches> {
        let stage = Arc::clone(self.shared().stages.get(stage)?);
        Some(Batches {
            shared: Arc::clone(self.shared()),
            generations: self.shared().catalog().keys().copied().collect(),
            from: Offset::ZERO,
            seen_outages: 0,
            page: VecDeque::new(),
            stage,
        })
    }
}

fn summary(shared: &Shared, stage: &StageState) -> StageSummary {
    let bounds = shared.bounds(stage);
    let gaps = read(&stage.gaps).clone();
    let pending = |from: Offset| gaps.count_between(from.max(bounds.oldest), bounds.head);
    let mut producers: BTreeMap<_, _> = stage
        .producers
        .iter()
        .map(|name| (name.clone(), Offset::ZERO))
        .collect();
    producers.extend(lock(&stage.cursors).clone());
    StageSummary {
        name: stage.name.clone(),
        messages: pending(bounds.oldest),
        refused: stage.refused.load(Ordering::Relaxed),
        producers: producers
            .into_iter()
            .map(|(name, cursor)| (name, (cursor, pending(cursor))))
            .collect(),
        gaps: gaps.as_slice().to_vec(),
        generations: shared
            .catalog()
            .iter()
            .filter(|(_, generation)| generation.extents.contains_key(&stage.name))
            .map(|(number, _)| *number)
            .collect(),
        bounds,
    }
}

/// The batches of a stage, looked up page by page. Ends with the first error.
pub struct Batches {
    shared: Arc<Shared>,
    stage: Arc<StageState>,
    /// Generations that are not finished, the present one first.
    generations: VecDeque<u64>,
    /// Where to go on.
    from: Offset,
    /// Outages at `from` that were returned already.
    seen_outages: u32,
    page: VecDeque<BatchSummary>,
}

impl Iterator for Batches {
    type Item = Result<BatchSummary, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.page.is_empty() {
            let generation = *self.generations.front()?;
            match self.turn(generation) {
                Ok(true) => {}
                Ok(false) => {
                    self.generations.pop_front();
                }
                Err(error) => {
                    self.generations.clear();
                    return Some(Err(error));
                }
            }
        }
        self.page.pop_front().map(Ok)
    }
}

impl Batches {
    /// Looks up the next page; `false` when the generation has no more.
    fn turn(&mut self, number: u64) -> Result<bool, StageError> {
        let shared = Arc::clone(&self.shared);
        let open = read(&shared.open).clone().filter(|(open, _)| *open == number);
        let database = match open {
            Some((_, database)) => database,
            None => match shared.checked(shared.sealed_database(number))? {
                Some(database) => database,
                None => return Ok(false),
            },
        };
        let name = self.stage.name.clone();
        let tree = shared.checked(database.tree(&tree_of(&name)))?;
        let head = self.stage.head();
        let until = head.advanced_by(1);
        let failed = |error| match error {
            WalkError::Store(error) => {
                shared.fail(&database.describe("read", &error));
                shared.ended()
            }
            WalkError::Newer(error) => StageError::Damaged {
                stage: name.clone(),
                offset: self.from,
                reason: error.to_string(),
            },
        };
        let mut walk = Walk::new(&tree, &name, Some(self.from), until).map_err(failed)?;
        let mut parts = (0, 0);
        let (mut next, mut seen) = (self.from, self.seen_outages);
        while self.page.len() < PAGE {
            let Some(step) = walk.next().map_err(failed)? else {
                break;
            };
            let header = step.header;
            let sequence = header.part & !envelope::GAP_PART;
            let returned = match header.kind {
                Kind::Data => header.end() <= self.from || header.base >= head,
                Kind::Gap => {
                    header.base < self.from || (header.base == self.from && sequence < self.seen_outages)
                }
            };
            if returned {
                continue;
            }
            if header.part == 0 {
                parts = (0, 0);
            }
            parts.0 += u64::from(header.raw_len);
            parts.1 += u64::from(header.stored_len);
            if !header.is_last_part() {
                continue;
            }
            let outage = match header.kind {
                Kind::Data => None,
                Kind::Gap => envelope::open(&name, &step.key, &step.value)
                    .and_then(|sealed| envelope::decode_outage(&sealed))
                    .ok(),
            };
            self.page.push_back(BatchSummary {
                generation: number,
                first: header.base,
                end: header.end(),
                received_first: header.received_first,
                received_last: header.received_last,
                raw_bytes: parts.0,
                stored_bytes: parts.1,
                outage,
            });
            parts = (0, 0);
            (next, seen) = match header.kind {
                Kind::Data => (header.end(), 0),
                Kind::Gap => (header.base, sequence + 1),
            };
        }
        (self.from, self.seen_outages) = (next, seen);
        Ok(!self.page.is_empty())
    }
}
