//! One stage of an open path, as consumers and producers see it.
//!
//! Appends go to the committing thread through a queue that is bounded in bytes; reads come from memory, or block on a thread
//! for blocking work; acks stay in memory until the committing thread writes them down.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use uuid::Uuid;

use super::reader;
use super::state::{Command, Shared, StageState, lock, read};
use super::{cursors, outages};
use crate::record::{Batch, Offset, Timestamp};
use crate::stage::envelope::MAX_MESSAGE;
use crate::stage::path::held_cursor;
use crate::stage::report::Report;
use crate::stage::{
    Accepted, Bounds, Gap, Given, LastSeen, Outage, OutagePage, Place, ReadLimit, ReadOutcome, Stage,
    StageError,
};

/// One stage of a path.
pub(super) struct LocalStage {
    shared: Arc<Shared>,
    state: Arc<StageState>,
}

impl LocalStage {
    pub(super) fn new(shared: &Arc<Shared>, state: &Arc<StageState>) -> Self {
        Self {
            shared: Arc::clone(shared),
            state: Arc::clone(state),
        }
    }

    /// Whether anything can be done still.
    fn check(&self) -> Result<(), StageError> {
        if self.shared.room.is_closed() {
            Err(self.shared.ended())
        } else {
            Ok(())
        }
    }

    /// Changes the book, which waits for the disk, on a thread where it may.
    async fn write_down(
        &self,
        change: impl FnOnce(&Shared, &StageState) -> Result<(), String> + Send + 'static,
    ) -> Result<(), StageError> {
        self.check()?;
        let (shared, state) = (Arc::clone(&self.shared), Arc::clone(&self.state));
        let written = tokio::task::spawn_blocking(move || shared.checked(change(&shared, &state))).await;
        written.unwrap_or_else(|_| Err(self.shared.ended()))
    }

    /// Waits until so many KiB may be appended. Those that hold their place are not waited for longer than it takes to commit them.
    async fn wait_for_room(&self, kib: u32) -> Result<OwnedSemaphorePermit, StageError> {
        let _waiting = Waiting::begin(&self.shared);
        self.shared
            .commands
            .send(Command::Wake)
            .map_err(|_| self.shared.ended())?;
        let room = Arc::clone(&self.shared.room);
        let permit = room.acquire_many_owned(kib).await;
        permit.map_err(|_| self.shared.ended())
    }

    /// Reads from the disk, on a thread where that may take its time.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &StageState) -> Result<T, StageError> + Send + 'static,
    ) -> Result<T, StageError> {
        let (shared, state) = (Arc::clone(&self.shared), Arc::clone(&self.state));
        match tokio::task::spawn_blocking(move || work(&shared, &state)).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // The runtime cancels blocking work only when it ends.
                if error.is_panic() {
                    self.shared.suspect_open();
                    self.shared.fail("reading the stage panicked");
                }
                Err(self.shared.ended())
            }
        }
    }
}

/// Somebody who waits for room in the queue.
struct Waiting<'s>(&'s Shared);

impl<'s> Waiting<'s> {
    fn begin(shared: &'s Shared) -> Self {
        shared.awaiting_room.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.awaiting_room.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Stage for LocalStage {
    fn name(&self) -> &str {
        &self.state.name
    }

    fn path_id(&self) -> Uuid {
        self.shared.id
    }

    async fn append(&self, batch: Batch) -> Result<Accepted, StageError> {
        if batch.byte_len() > MAX_MESSAGE
            && let Some(large) = batch.iter().find(|message| message.payload.len() > MAX_MESSAGE)
        {
            return Err(StageError::TooLarge {
                stage: self.state.name.clone(),
                bytes: large.payload.len(),
            });
        }
        let all = (self.shared.options.tuning.queue_bytes / 1024).max(1);
        let wanted = batch.byte_len().div_ceil(1024).clamp(1, all);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let permit = match Arc::clone(&self.shared.room).try_acquire_many_owned(wanted) {
            Ok(permit) => permit,
            Err(_) => self.wait_for_room(wanted).await?,
        };
        let (answer, outcome) = oneshot::channel();
        let command = Command::Append {
            stage: Arc::clone(&self.state),
            batch,
            answer,
            permit,
        };
        self.shared
            .commands
            .send(command)
            .map_err(|_| self.shared.ended())?;
        Ok(Accepted::new(outcome))
    }

    async fn append_outage(&self, outage: Outage) -> Result<Accepted, StageError> {
        self.check()?;
        let (answer, outcome) = oneshot::channel();
        let command = Command::Outage {
            stage: Arc::clone(&self.state),
            outage,
            answer,
        };
        self.shared
            .commands
            .send(command)
            .map_err(|_| self.shared.ended())?;
        Ok(Accepted::new(outcome))
    }

    fn note_stop(&self, at: Timestamp) {
        lock(&self.state.heard).stopped_at = Some(at);
    }

    fn last_seen(&self) -> Option<LastSeen> {
        self.state.last_seen
    }

    async fn read(&self, from: Offset, limit: ReadLimit) -> Result<ReadOutcome, StageError> {
        self.check()?;
        let head = self.state.head();
        if from >= head {
            return Ok(ReadOutcome {
                batches: Vec::new(),
                gaps: Vec::<Gap>::new(),
                next: from,
            });
        }
        if let Some(outcome) = reader::read_recent(&self.state, from, head, limit) {
            return Ok(outcome);
        }
        self.blocking(move |shared, state| reader::read_disk(shared, state, from, limit))
            .await
    }

    async fn outages(&self, from: Place, to: Offset) -> Result<OutagePage, StageError> {
        self.check()?;
        self.blocking(move |shared, state| outages::page(shared, state, from, to))
            .await
    }

    fn watch_outages(&self) -> watch::Receiver<Place> {
        self.state.outages.subscribe()
    }

    async fn ack(&self, producer: &str, next: Offset) -> Result<(), StageError> {
        self.check()?;
        // Backwards as well: a sink that was restored from a backup wants again what it no longer has.
        lock(&self.state.cursors).set(producer, next);
        self.state.changed.send_replace(());
        // With the acks there may be room again.
        self.shared
            .commands
            .send(Command::Wake)
            .map_err(|_| self.shared.ended())
    }

    fn cursor(&self, producer: &str) -> Option<Offset> {
        lock(&self.state.cursors).now().get(producer).copied()
    }

    fn bounds(&self) -> Bounds {
        self.shared.bounds(&self.state)
    }

    async fn pin(&self, cursor: &str, next: Offset) -> Result<(), StageError> {
        let cursor = cursor.to_owned();
        self.write_down(move |shared, state| cursors::pin(shared, state, &cursor, next))
            .await
    }

    fn reach(&self, producer: &str) -> Offset {
        let bounds = self.bounds();
        let held = self.cursor(&held_cursor(producer));
        bounds.reach(lock(&self.state.begun).contains(producer), held)
    }

    async fn begun(&self, producer: &str) -> Result<(), StageError> {
        self.check()?;
        let held = held_cursor(producer);
        if self.cursor(&held).is_some() {
            self.write_down(move |shared, state| cursors::forget(shared, state, &held).map(drop))
                .await?;
        }
        if lock(&self.state.begun).insert(producer.to_owned()) {
            self.state.changed.send_replace(());
        }
        Ok(())
    }

    fn count_between(&self, from: Offset, to: Offset) -> u64 {
        let bounds = self.bounds();
        let (from, to) = (from.max(bounds.oldest), to.min(bounds.head));
        read(&self.state.gaps).count_between(from, to)
    }

    fn given_before(&self, offset: Offset) -> Given {
        let bounds = self.bounds();
        read(&self.state.gaps).given_before(offset, bounds)
    }

    async fn report(&self, producer: &str, report: &Report) -> bool {
        let known = self.state.producers.iter().any(|name| name == producer)
            || lock(&self.state.cursors).now().contains_key(producer);
        if known {
            let heard = (report.clone(), Timestamp::now());
            lock(&self.state.reports).insert(producer.to_owned(), heard);
        }
        true
    }

    fn watch_head(&self) -> watch::Receiver<Offset> {
        self.state.head_seen.clone()
    }
}
