//! Gathers a consumer's messages into batches and appends them to its stage, in order, several under way at a time.
//!
//! A batch closes at whichever comes first of the [`BatchLimits`]. Only what the stage has reported durable
//! counts as staged. A message costs one copy, and messages that come together are copied together; buffers are allocated per batch,
//! as large as the last one needed.
//!
//! Backpressure: [`Batcher::push`] waits while too much is under way, or the stage takes nothing because it is full. A
//! consumer that waits there reads nothing from its source, which is the point. When the process is to stop meanwhile,
//! the supervisor's deadline ends the wait; what was not staged by then is lost, as in a kill.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::sequence::Check;
use super::{BatchLimits, ConsumerContext};
use crate::record::{Batch, Timestamp};
use crate::stage::{Appended, Outage, OutageKind, SharedStage, StageError};
use crate::stats::ConsumerStats;

/// Most batches of one consumer that are appended but not durable.
const MAX_IN_FLIGHT_BATCHES: usize = 256;
/// Most payload bytes in them, unless a single batch has more: bounds what a slow disk can make a consumer hold.
const MAX_IN_FLIGHT_BYTES: usize = 8 << 20;
/// Most messages that a fresh batch has room for from the start; it grows when there are more.
const MAX_FRESH_MESSAGES: usize = 1 << 16;
/// Most bytes that a fresh batch has room for from the start.
const MAX_FRESH_BYTES: usize = 4 << 20;

/// One consumer's way into its stage.
pub struct Batcher {
    stage: SharedStage,
    limits: BatchLimits,
    max_bytes: usize,
    stats: Arc<ConsumerStats>,
    open: Batch,
    /// When the open batch has its age; `None` when it is empty.
    deadline: Option<Instant>,
    /// What becomes of the appended batches, oldest first.
    in_flight: FuturesOrdered<BoxFuture<'static, Outcome>>,
    in_flight_bytes: usize,
    /// The source's own numbers.
    sequence: Option<Check>,
}

/// What became of one batch.
struct Outcome {
    messages: u64,
    bytes: usize,
    appended: Result<Appended, StageError>,
}

impl Batcher {
    /// A batcher for the stage, limits and counters of this context.
    #[must_use]
    pub fn new(context: &ConsumerContext) -> Self {
        let limit = usize::try_from(context.batch.bytes.0).unwrap_or(usize::MAX);
        Self {
            stage: Arc::clone(&context.stage),
            limits: context.batch,
            max_bytes: limit.min(Batch::MAX_BYTES),
            stats: Arc::clone(&context.stats),
            open: Batch::default(),
            deadline: None,
            in_flight: FuturesOrdered::new(),
            in_flight_bytes: 0,
            sequence: context.sequence.clone().map(Check::new),
        }
    }

    /// Takes a message in, and appends the batch that is full with it. Waits only under backpressure. Must not be
    /// cancelled while it waits: the batch would be lost.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    pub async fn push(&mut self, payload: &[u8], received_at: Timestamp) -> Result<(), StageError> {
        if self.sequence.is_some() {
            self.check_number(payload, received_at).await?;
        }
        if !self.open.is_empty() && self.open.byte_len() + payload.len() > self.max_bytes {
            self.flush().await?;
        }
        if !self.open.push(payload, received_at) {
            return self.refuse(payload.len(), received_at).await;
        }
        self.taken_in().await
    }

    /// Takes messages in, as [`push`](Self::push) would one after the other. Must not be cancelled while it waits.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    pub async fn push_all(&mut self, messages: &Batch) -> Result<(), StageError> {
        let mut taken = 0;
        while let Some(next) = messages.get(taken) {
            let count = self.room_for(messages, taken);
            if count > 0 && self.open.extend_from(messages, taken..taken + count) {
                taken += count;
                self.taken_in().await?;
            } else {
                self.push(next.payload, next.received_at).await?;
                taken += 1;
            }
        }
        Ok(())
    }

    /// How many messages from `first` on can be taken in without a look at each.
    fn room_for(&self, messages: &Batch, first: usize) -> usize {
        if self.sequence.is_some() {
            return 0;
        }
        let room = self.limits.messages.saturating_sub(self.open.len());
        let bytes = self.max_bytes.saturating_sub(self.open.byte_len());
        messages.count_within(first, bytes).min(room)
    }

    /// The open batch has got messages: it is to be closed by its age, or at once when it is full.
    async fn taken_in(&mut self) -> Result<(), StageError> {
        if self.deadline.is_none() {
            self.deadline = Some(after(self.limits.interval.0));
        }
        if self.open.len() >= self.limits.messages || self.open.byte_len() >= self.max_bytes {
            self.flush().await?;
        }
        Ok(())
    }

    /// Resolves when the open batch, or what was summed up, must be flushed; never while there is nothing. To be waited for beside the source; on the
    /// way it counts what has become durable. May be cancelled at any time.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    pub async fn due(&mut self) -> Result<(), StageError> {
        loop {
            let deadline = self.deadline;
            let age = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = age => return Ok(()),
                Some(outcome) = self.in_flight.next() => self.settle(outcome)?,
            }
        }
    }

    /// Appends the open batch, if it holds anything. Must not be cancelled: the batch would be lost.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    pub async fn flush(&mut self) -> Result<(), StageError> {
        let deadline = self.deadline.take();
        self.append_open().await?;
        if let Some(check) = &mut self.sequence
            && check.has_summed()
        {
            // Holes that were too many wait no longer than a batch does.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                if let Some(rest) = check.take_rest() {
                    self.record(rest).await?;
                }
            } else {
                self.deadline = Some(after(self.limits.interval.0));
            }
        }
        Ok(())
    }

    async fn append_open(&mut self) -> Result<(), StageError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let (messages, bytes) = (self.open.len(), self.open.byte_len());
        let fresh_bytes = bytes.min(MAX_FRESH_BYTES);
        // With a little more the next batch, of messages that are hardly longer, need not be moved into twice the room.
        let fresh = Batch::with_capacity(messages.min(MAX_FRESH_MESSAGES), fresh_bytes + fresh_bytes / 16);
        let batch = std::mem::replace(&mut self.open, fresh);
        self.stats.received.add(messages as u64);
        self.stats.received_bytes.add(bytes as u64);
        self.make_room(bytes).await?;
        let accepted = self.stage.append(batch).await?;
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(Box::pin(async move {
            Outcome {
                messages: messages as u64,
                bytes,
                appended: accepted.durable().await,
            }
        }));
        Ok(())
    }

    /// Records a stretch in which messages may have been missed, after everything pushed before. Must not be cancelled: what
    /// is open would be lost.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    pub async fn append_outage(&mut self, outage: Outage) -> Result<(), StageError> {
        if let Some(check) = &mut self.sequence
            && outage.kind == OutageKind::Disconnected
        {
            check.note_outage();
        }
        self.flush().await?;
        self.record(outage).await
    }

    /// Appends an outage behind what is appended.
    async fn record(&mut self, outage: Outage) -> Result<(), StageError> {
        self.make_room(0).await?;
        let accepted = self.stage.append_outage(outage).await?;
        self.stats.gaps.add(1);
        self.in_flight.push_back(Box::pin(async move {
            Outcome {
                messages: 0,
                bytes: 0,
                appended: accepted.durable().await,
            }
        }));
        Ok(())
    }

    /// Appends what is left, notes that the consumer stops in order, and waits until everything is durable.
    ///
    /// # Errors
    /// When the stage has failed or is closed.
    pub async fn finish(mut self) -> Result<(), StageError> {
        self.stage.note_stop(Timestamp::now());
        self.flush().await?;
        if let Some(rest) = self.sequence.as_mut().and_then(Check::take_rest) {
            self.record(rest).await?;
        }
        while let Some(outcome) = self.in_flight.next().await {
            self.settle(outcome)?;
        }
        Ok(())
    }

    /// Looks at a message's number before the message is taken in.
    async fn check_number(&mut self, payload: &[u8], received_at: Timestamp) -> Result<(), StageError> {
        let Some(check) = &mut self.sequence else {
            return Ok(());
        };
        if !check.is_seeded() {
            check.seed(self.stage.as_ref()).await?;
        }
        let hole = check.observe(payload, received_at, &self.stats.sequence);
        let summed = check.take_summed(received_at);
        for outage in summed.into_iter().chain(hole) {
            let skip = outage.kind.skip();
            warn!(
                stage = self.stage.name(),
                key = skip.and_then(|skip| skip.key.as_deref()),
                first = skip.map(|skip| skip.first),
                last = skip.map(|skip| skip.last),
                messages = outage.messages,
                "{}",
                outage.cause
            );
            self.append_outage(outage).await?;
        }
        Ok(())
    }

    /// Waits until a batch of `bytes` more may be under way.
    async fn make_room(&mut self, bytes: usize) -> Result<(), StageError> {
        while self.in_flight.len() >= MAX_IN_FLIGHT_BATCHES
            || self.in_flight_bytes + bytes > MAX_IN_FLIGHT_BYTES
        {
            match self.in_flight.next().await {
                Some(outcome) => self.settle(outcome)?,
                None => break,
            }
        }
        Ok(())
    }

    fn settle(&mut self, outcome: Outcome) -> Result<(), StageError> {
        self.in_flight_bytes -= outcome.bytes;
        match outcome.appended? {
            Appended::Staged { .. } => self.stats.staged.add(outcome.messages),
            Appended::Dropped { messages } => self.stats.dropped.add(messages),
        }
        Ok(())
    }

    /// A message that no batch can hold is dropped, counted, and recorded in its place.
    async fn refuse(&mut self, bytes: usize, received_at: Timestamp) -> Result<(), StageError> {
        self.stats.received.add(1);
        self.stats.received_bytes.add(bytes as u64);
        self.stats.dropped.add(1);
        self.append_outage(Outage {
            from: received_at,
            to: received_at,
            messages: 1,
            cause: format!("a message of {bytes} bytes, more than a batch can hold"),
            kind: OutageKind::TooLarge,
        })
        .await
    }
}

/// This long from now; an interval beyond all calendars is as good as none.
fn after(interval: Duration) -> Instant {
    const A_CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
    Instant::now() + interval.min(A_CENTURY)
}
