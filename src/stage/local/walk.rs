//! Goes through the records of one stage in one generation, and notices what is missing.
//!
//! Invariants: every record is verified (checksum, key, `prev_end`); a record that does not stand up to it, and a part
//! without those before it, is as if it were not there. Offsets that no whole batch holds come out as [`Gap`]s: up to
//! `prev_end` of the next record something was lost, from there on nothing was ever written.

use std::ops::Bound;

use super::gaps;
use crate::record::{Offset, Timestamp};
use crate::stage::envelope::{self, EnvelopeError, Header, Kind};
use crate::stage::{Gap, Period};

/// How often each record's page is touched while it is read. sled looks at what its cache may forget only after 64 accesses in
/// each of 256 shards: without touching, a walk keeps most of a generation in memory, whatever the cache's capacity.
const TOUCHES: u32 = 8;

/// Why a walk can't go on.
#[derive(Debug)]
pub(super) enum WalkError {
    /// sled failed.
    Store(sled::Error),
    /// A record of a newer program.
    Newer(EnvelopeError),
}

/// A record, and what is missing before it.
pub(super) struct Step {
    /// Offsets before it that hold nothing, in order.
    pub(super) missing: Vec<Gap>,
    /// What the record says about itself.
    pub(super) header: Header,
    /// The record as stored.
    pub(super) key: sled::IVec,
    /// The same.
    pub(super) value: sled::IVec,
}

/// The walk.
pub(super) struct Walk<'a> {
    stage: &'a str,
    tree: sled::Tree,
    records: sled::Iter,
    /// The offset that the next batch should begin at; `None` while any will do.
    expected: Option<Offset>,
    /// When the last of what stands before came, where that is known.
    came: Option<Timestamp>,
    /// The part that came last of a message that is not whole yet.
    partial: Option<Header>,
    /// The record at which to stop.
    until: Offset,
    /// What was wrong with the last record that was left out, since the last that was not.
    fault: Option<String>,
}

impl<'a> Walk<'a> {
    /// From the batch that holds `from`, or the first one, up to `until`.
    pub(super) fn new(
        tree: &sled::Tree,
        stage: &'a str,
        from: Option<Offset>,
        until: Offset,
    ) -> Result<Self, WalkError> {
        let start = match from {
            None => Offset::ZERO,
            Some(from) => tree
                .range(..=envelope::key(from, u32::MAX))
                .next_back()
                .transpose()
                .map_err(WalkError::Store)?
                .and_then(|(key, _)| envelope::parse_key(&key))
                .map_or(from, |(base, _)| base),
        };
        let begin = Bound::Included(envelope::key(start, 0));
        Ok(Self {
            stage,
            tree: tree.clone(),
            records: tree.range::<[u8; 12], _>((begin, Bound::Unbounded)),
            expected: from,
            came: None,
            partial: None,
            until,
            fault: None,
        })
    }

    /// The next verified record: of data as long as whole batches can come of it, or of an outage.
    pub(super) fn next(&mut self) -> Result<Option<Step>, WalkError> {
        while let Some(record) = self.records.next() {
            let (key, value) = record.map_err(WalkError::Store)?;
            for _ in 0..TOUCHES {
                self.tree.contains_key(&key).map_err(WalkError::Store)?;
            }
            if envelope::parse_key(&key).is_some_and(|(base, _)| base >= self.until) {
                return Ok(None);
            }
            let header = match envelope::open(self.stage, &key, &value) {
                Ok(sealed) => sealed.header,
                Err(error @ EnvelopeError::Newer { .. }) => return Err(WalkError::Newer(error)),
                Err(error) => {
                    tracing::warn!(stage = self.stage, %error, "a record is damaged and left out");
                    self.fault = Some(format!("a record is damaged: {error}"));
                    continue;
                }
            };
            let missing = match header.kind {
                Kind::Gap => Vec::new(),
                Kind::Data if header.part == 0 => self.before(&header),
                Kind::Data if self.continues(&header) => Vec::new(),
                Kind::Data => continue,
            };
            if header.kind == Kind::Data {
                if header.is_last_part() {
                    self.partial = None;
                    self.fault = None;
                    self.came = Some(header.received_last);
                    self.expected = Some(self.expected.map_or(header.end(), |at| at.max(header.end())));
                } else {
                    self.partial = Some(header);
                }
            }
            return Ok(Some(Step {
                missing,
                header,
                key,
                value,
            }));
        }
        Ok(None)
    }

    /// What is missing between the last batch and `end`, once nothing more comes.
    pub(super) fn missing_up_to(&self, end: Offset) -> Option<Gap> {
        let expected = self.expected?;
        let why = self.fault.as_deref().unwrap_or("the generation ends before them");
        (expected < end).then(|| gaps::lost(expected, end, why))
    }

    /// The end of the last whole batch.
    pub(super) fn end(&self) -> Option<Offset> {
        self.expected
    }

    fn before(&mut self, header: &Header) -> Vec<Gap> {
        self.partial = None;
        let Some(expected) = self.expected else {
            return Vec::new();
        };
        let written = header.prev_end.max(expected);
        let mut missing = Vec::new();
        if expected < written {
            let why = self.fault.as_deref();
            let why = why.unwrap_or("the record behind them says that they were there");
            missing.push(Gap {
                period: self.came.map(|from| Period {
                    from,
                    to: header.received_first,
                }),
                ..gaps::lost(expected, written, why)
            });
        }
        if written < header.base {
            missing.push(gaps::reservation(written, header.base));
        }
        missing
    }

    fn continues(&self, header: &Header) -> bool {
        self.partial
            .is_some_and(|last| last.base == header.base && last.part + 1 == header.part)
    }
}
