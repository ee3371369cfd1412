//! Outages: stretches in which messages may be missing, and those that a full path makes itself.

use std::sync::atomic::Ordering;

use super::writer::{WaitingBatch, Writer};
use crate::record::Timestamp;
use crate::stage::{Appended, Outage};

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
        self.insert(stage, record)
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
