//! The way from a session into the batcher. Waits that are long enough to be seen are shown as the state `paused`: the stage takes
//! nothing, so nobody reads the socket.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::status::Status;
use crate::consumer::batcher::Batcher;
use crate::record::Timestamp;
use crate::stage::{Outage, StageError};

/// A wait for the stage that is longer is shown; shorter ones are the ordinary pace of a disk.
const PAUSED_AFTER: Duration = Duration::from_secs(1);

/// One consumer's way into its batcher. The durations that its methods return are how long they waited, deaf to the socket.
pub(super) struct Intake<'a> {
    batcher: &'a mut Batcher,
    status: &'a Status,
}

impl<'a> Intake<'a> {
    pub(super) fn new(batcher: &'a mut Batcher, status: &'a Status) -> Self {
        Self { batcher, status }
    }

    /// Takes a message in. Must not be cancelled.
    pub(super) async fn push(&mut self, payload: &[u8], at: Timestamp) -> Result<Duration, StageError> {
        shown(self.status, self.batcher.push(payload, at)).await
    }

    /// Appends what is open. Must not be cancelled.
    pub(super) async fn flush(&mut self) -> Result<Duration, StageError> {
        shown(self.status, self.batcher.flush()).await
    }

    /// Records a stretch. Must not be cancelled.
    pub(super) async fn append_outage(&mut self, outage: Outage) -> Result<Duration, StageError> {
        shown(self.status, self.batcher.append_outage(outage)).await
    }

    /// Resolves when [`flush`](Self::flush) is due.
    pub(super) async fn due(&mut self) -> Result<(), StageError> {
        self.batcher.due().await
    }
}

/// Does the work to its end, and shows when that takes long.
async fn shown(
    status: &Status,
    work: impl Future<Output = Result<(), StageError>>,
) -> Result<Duration, StageError> {
    let mut work = pin!(work);
    // Nearly always it is done at once, and then no clock is asked.
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
        return done.map(|()| Duration::ZERO);
    }
    let begun = Instant::now();
    tokio::select! {
        biased;
        done = &mut work => return done.map(|()| begun.elapsed()),
        () = sleep(PAUSED_AFTER) => {}
    }
    let before = status.paused();
    work.await?;
    status.resumed(before, begun.elapsed());
    Ok(begun.elapsed())
}
