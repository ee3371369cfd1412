//! What stands in a lane's way: waiting, holding, and messages that the server refuses.

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::super::advice;
use super::super::dead_letter::Verdict;
use super::super::refusals::TRIAL_MESSAGES;
use super::Lane;
use crate::record::Offset;

impl Lane {
    /// An operator has to mend something: the lane waits long between attempts. Each begins with the cursor's row, which the
    /// operator may have moved past what holds it.
    pub(in super::super) fn hold(&mut self, reason: &str, what_to_do: &str) {
        self.needs_claim = true;
        self.not_before = Some(Instant::now() + self.hold_delay);
        self.position = self.cursor;
        self.reloads = 0;
        self.changes = 0;
        self.reloaded_once = false;
        let is_new = self.standing.held(reason, what_to_do);
        let pause = if what_to_do.is_empty() { "" } else { ". " };
        if self.ends_when_held {
            self.ended_by = Some(format!("{reason}{pause}{what_to_do}"));
        } else if is_new {
            error!(stage = self.key.stage, tables = self.tables, offset = %self.cursor.offset,
                "delivery of this stage is held, and tried again every {} s: {reason}{pause}{what_to_do}", self.hold_delay.as_secs());
        } else {
            debug!(stage = self.key.stage, "still held");
        }
    }

    /// Something transient: the lane waits a little, longer each time.
    pub(in super::super) fn retry_later(&mut self, reason: &str) {
        self.not_before = Some(Instant::now() + self.retry.next_delay());
        self.position = self.cursor;
        if self.standing.retrying(reason) {
            warn!(stage = self.key.stage, tables = self.tables, offset = %self.cursor.offset,
                "delivery of this stage is tried again until it works: {reason}");
        } else {
            debug!(stage = self.key.stage, reason, "trying again");
        }
    }

    pub(super) fn goes_on(&self) {
        info!(stage = self.key.stage, offset = %self.cursor.offset, "delivery of this stage goes on");
    }

    /// Nothing is under way: with nothing left to deliver, whatever was in the way is over.
    pub(in super::super) fn rests(&mut self) {
        if self.is_ready() && self.is_drained() && self.standing.idle() {
            self.goes_on();
        }
    }

    /// The server refuses the message at `offset`: it is a dead letter from the next attempt on, unless too many are.
    /// `is_named`: the server has named its row.
    pub(in super::super) fn condemn(&mut self, offset: Offset, verdict: Verdict, is_named: bool) {
        let ahead = self.stage.count_between(self.cursor.offset, offset);
        if !self.refusals.refuse(ahead, is_named) {
            self.condemned.insert(offset, verdict);
            return;
        }
        self.refusals.hold();
        // Once the table is mended these may be rows.
        self.condemned.clear();
        self.limit = self.filling.batching.rows.min(TRIAL_MESSAGES);
        let state = verdict.sqlstate.as_deref().unwrap_or_default();
        self.hold(
            &format!(
                "the server refuses more than {} of the messages (poison_limit), at last the one at offset {offset} with SQLSTATE {state}",
                self.refusals.limit()
            ),
            &format!(
                "The table does not fit the data: mend the table or the mapping, and delivery goes on by itself; `stage-inspect \
                 dead-letters retry` then delivers what was refused before. If it is the data that is wrong, raise poison_limit, or step over \
                 it with `stage-inspect skip`{}",
                advice::about_row(&verdict)
            ),
        );
    }

    /// Takes half of `messages` the next time, at least one.
    pub(in super::super) fn halve(&mut self, messages: u64) {
        let most = self.filling.batching.rows;
        self.limit = usize::try_from(messages / 2).unwrap_or(most).clamp(1, most);
    }
}
