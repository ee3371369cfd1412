//! What is checked of a stage: every record's checksum and key, that it decodes, that it continues the one before, and
//! that there are as many messages as there should be.

use std::collections::BTreeMap;

use serde::Serialize;
use socket_el::record::{Offset, Timestamp};
use socket_el::stage::envelope::{self, Assembler, EnvelopeError};
use socket_el::stage::path::{
    BatchPosition, BatchQuery, Extent, GenerationState, PathSummary, RecordPage, StagePath, StageSummary,
    StoredRecord,
};
use socket_el::stage::{Gap, GapCause, ReadLimit, StageError};

use crate::message::escaped;
use crate::time::{Time, utc};

/// What one request returns at most.
const PAGE: ReadLimit = ReadLimit {
    messages: 10_000,
    bytes: 4 << 20,
};

/// Outages of one request.
const OUTAGES: usize = 1_000;

/// The most stretches of records without a right checksum, key or place that are reported one by one.
const MAX_FAULTS: usize = 1_000;

/// What was found in a stage.
#[derive(Debug, Serialize)]
pub(super) struct StageReport {
    pub(super) name: String,
    pub(super) records: u64,
    pub(super) messages: u64,
    pub(super) outages: u64,
    /// Damaged and lost stretches in order of offset.
    pub(super) problems: Vec<Problem>,
}

/// A stretch that is damaged or lost.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    pub(super) from: Offset,
    pub(super) to: Offset,
    /// How many messages are concerned; none when nobody can know.
    pub(super) messages: Option<u64>,
    /// What is the matter.
    pub(super) what: String,
    /// When it was found.
    pub(super) noticed_at: Time,
    /// Whether that was before this look.
    pub(super) known_before: bool,
}

impl Problem {
    pub(super) fn found_in_words(&self) -> String {
        if self.known_before {
            utc(self.noticed_at.0)
        } else {
            "now".to_owned()
        }
    }
}

impl StageReport {
    pub(super) fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Checks all stages of a path. What was found since `began` counts as found now.
pub(super) async fn stages(path: &dyn StagePath, began: Timestamp) -> Result<Vec<StageReport>, StageError> {
    let before = path.summary().await?;
    let mut found = Vec::new();
    for stage in &before.stages {
        let mut check = Check::new(stage, &before, began);
        check.records(path, stage.bounds.head).await?;
        check.outages(path).await?;
        found.push((check, stage.bounds.head));
    }
    // What reading has found missing is recorded by now.
    let after = path.summary().await?;
    Ok(found
        .into_iter()
        .map(|(check, head)| check.finish(&after, head))
        .collect())
}

/// What should be in a sealed generation, and what was there.
struct Held {
    extent: Extent,
    found: u64,
}

struct Check {
    name: String,
    began: Timestamp,
    oldest: Offset,
    assembler: Assembler,
    /// The end of the batch before.
    last_end: Option<Offset>,
    sealed: BTreeMap<u64, Held>,
    report: StageReport,
}

impl Check {
    fn new(stage: &StageSummary, path: &PathSummary, began: Timestamp) -> Self {
        let sealed = path
            .generations
            .iter()
            .filter(|generation| generation.state == GenerationState::Sealed)
            .filter_map(|generation| {
                let extent = *generation.extents.get(&stage.name)?;
                Some((generation.number, Held { extent, found: 0 }))
            });
        Self {
            name: stage.name.clone(),
            began,
            oldest: stage.bounds.oldest,
            assembler: Assembler::new(),
            last_end: None,
            sealed: sealed.collect(),
            report: StageReport {
                name: stage.name.clone(),
                records: 0,
                messages: 0,
                outages: 0,
                problems: Vec::new(),
            },
        }
    }

    /// Reads everything up to `head`.
    async fn records(&mut self, path: &dyn StagePath, head: Offset) -> Result<(), StageError> {
        let mut at = self.oldest;
        while at < head {
            let page = path.records(&self.name, at, PAGE).await?;
            if page.next <= at {
                self.fault(at, head, "the store gives nothing of it".to_owned());
                return Ok(());
            }
            at = page.next;
            self.page(&page, head);
        }
        Ok(())
    }

    fn page(&mut self, page: &RecordPage, head: Offset) {
        for record in &page.records {
            let base = envelope::parse_key(&record.key).map_or(self.oldest, |(base, _)| base);
            if base >= head {
                break;
            }
            self.report.records += 1;
            if let Err(error) = self.record(record, &page.gaps) {
                let end = base.advanced_by(1);
                self.fault(base, end, error.to_string());
                self.assembler.clear();
            }
        }
        if !self.assembler.is_empty() {
            // Pages hold whole messages.
            self.fault(page.next, page.next, "the last message is not whole".to_owned());
            self.assembler.clear();
        }
    }

    fn record(&mut self, record: &StoredRecord, gaps: &[Gap]) -> Result<(), EnvelopeError> {
        let sealed = envelope::open(&self.name, &record.key, &record.value)?;
        let header = sealed.header;
        if header.part == 0
            && let Some(last_end) = self.last_end
        {
            let skipped = gaps
                .iter()
                .map(|gap| {
                    gap.to
                        .min(header.base)
                        .get()
                        .saturating_sub(gap.from.max(last_end).get())
                })
                .sum::<u64>();
            let missing = header.base.get().saturating_sub(last_end.get());
            if header.base < last_end || header.prev_end < last_end || skipped < missing {
                let what = format!(
                    "it says that it follows {}, but what is before it ends at {last_end}",
                    header.prev_end
                );
                self.fault(last_end.min(header.base), last_end.max(header.base), what);
            }
        }
        if let Some(batch) = self.assembler.push(&sealed)? {
            let messages = batch.batch.len() as u64;
            self.report.messages += messages;
            self.last_end = Some(batch.end());
            let holder = self
                .sealed
                .values_mut()
                .find(|held| held.extent.first <= batch.first && batch.first < held.extent.end);
            if let Some(held) = holder {
                held.found += messages;
            }
        }
        Ok(())
    }

    async fn outages(&mut self, path: &dyn StagePath) -> Result<(), StageError> {
        let mut query = BatchQuery {
            from: BatchPosition::default(),
            since: None,
            only_outages: true,
            limit: OUTAGES,
        };
        loop {
            let page = path.batches(&self.name, query).await?;
            for batch in &page.batches {
                self.report.outages += 1;
                if batch.outage.is_none() {
                    self.fault(
                        batch.first,
                        batch.first,
                        "the record of a stretch without a connection does not decode".to_owned(),
                    );
                }
            }
            match page.next {
                Some(next) => query.from = next,
                None => return Ok(()),
            }
        }
    }

    fn fault(&mut self, from: Offset, to: Offset, what: String) {
        if self.report.problems.len() < MAX_FAULTS {
            self.report.problems.push(Problem {
                from,
                to,
                messages: Some(to.get() - from.get()),
                what,
                noticed_at: Time(Timestamp::now()),
                known_before: false,
            });
        }
    }

    /// Counts, with what is recorded as missing now.
    fn finish(mut self, after: &PathSummary, head: Offset) -> StageReport {
        let Some(after) = after.stage(&self.name) else {
            return self.report;
        };
        let gone = |from: Offset, to: Offset| {
            after
                .gaps
                .iter()
                .map(|gap| gap.to.min(to).get().saturating_sub(gap.from.max(from).get()))
                .sum::<u64>()
        };
        // What retention has taken meanwhile can't be counted any more.
        if after.bounds.oldest <= self.oldest {
            let stretch = head.get() - self.oldest.get();
            let expected = stretch.saturating_sub(gone(self.oldest, head));
            if self.report.messages != expected {
                let what = format!(
                    "{} messages are there, there should be {expected}",
                    self.report.messages
                );
                self.fault(self.oldest, head, what);
            }
            let mut wrong = Vec::new();
            for (number, held) in &self.sealed {
                let Extent {
                    first, end, messages, ..
                } = held.extent;
                let accounted = held.found + gone(first, end);
                if held.found > messages || accounted < messages {
                    let what = format!(
                        "generation {number} holds {} messages, it should hold {messages}",
                        held.found
                    );
                    wrong.push((first, end, what));
                }
            }
            for (first, end, what) in wrong {
                self.fault(first, end, what);
            }
        }
        let began = self.began;
        let lost = after.gaps.iter().filter(|gap| gap.cause == GapCause::Lost);
        self.report.problems.extend(lost.map(|gap| Problem {
            from: gap.from,
            to: gap.to,
            messages: gap.messages,
            what: match &gap.why {
                Some(why) => format!("{}: {}", gap.cause, escaped(why)),
                None => gap.cause.to_string(),
            },
            noticed_at: Time(gap.noticed_at),
            known_before: gap.noticed_at < began,
        }));
        self.report
            .problems
            .sort_by_key(|problem| (problem.from, problem.to));
        self.report
    }
}
