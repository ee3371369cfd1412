//! Waits for the stage that are long enough to be seen are shown: it takes nothing, so nobody listens to the source.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::stage::StageError;

/// A wait for the stage that is longer is shown; shorter ones are the ordinary pace of a disk.
const PAUSED_AFTER: Duration = Duration::from_secs(1);

/// Who shows such waits.
pub(super) trait Pausing {
    /// What was shown before.
    type Before;

    /// The stage takes nothing.
    fn paused(&self) -> Self::Before;

    /// It takes messages again.
    fn resumed(&self, before: Self::Before, after: Duration);
}

/// Does the work to its end, and shows when that takes long. Returns how long it waited.
pub(super) async fn patiently<P: Pausing>(
    status: &P,
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
