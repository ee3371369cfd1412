//! The housekeeping thread: what takes long and must not hold up commits.
//!
//! It sums up sealed generations, closes those that nobody reads, takes the reserve again when there is room, and
//! watches over commits.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::state::{Shared, lock};

/// A commit that takes longer than this is reported.
const SLOW_COMMIT: Duration = Duration::from_secs(10);

/// Works until the channel is closed. A message means: look now.
pub(super) fn keep(shared: &Arc<Shared>, wake: &Receiver<()>) {
    let tuning = &shared.options.tuning;
    let mut warned = false;
    loop {
        match wake.recv_timeout(tuning.housekeeping) {
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        }
        let waiting = (*lock(&shared.commit_began)).map(|began| began.elapsed());
        let slow = waiting.is_some_and(|waiting| waiting > SLOW_COMMIT);
        if slow && !warned {
            tracing::error!(path = %shared.path.display(), ?waiting, "the disk does not answer; a commit is waiting for it");
        }
        warned = slow;
        if shared.failure.borrow().is_some() {
            return;
        }
        if let Err(reason) = look_after(shared) {
            shared.fail(&reason);
            return;
        }
    }
}

#[cfg(not(test))]
fn look_after(shared: &Shared) -> Result<(), String> {
    work(shared)
}

/// In tests nothing changes on the disk while one looks at it.
#[cfg(test)]
fn look_after(shared: &Shared) -> Result<(), String> {
    shared.options.tuning.step.apart_from(|| work(shared))
}

fn work(shared: &Shared) -> Result<(), String> {
    shared.settle_all(shared.options.tuning.housekeeping * 5)?;
    take_reserve(shared)
}

/// Takes the reserve again once there is more free space than the reserve and the least that has to stay free.
fn take_reserve(shared: &Shared) -> Result<(), String> {
    let mut reserve = lock(&shared.reserve);
    let Some(reserve) = reserve.as_mut().filter(|reserve| !reserve.is_held()) else {
        return Ok(());
    };
    let tuning = &shared.options.tuning;
    let again = super::disk::free_bytes(&shared.path).and_then(|free| {
        if free > tuning.min_free + 2 * tuning.reserve_bytes {
            reserve.make_again().map(drop)
        } else {
            Ok(())
        }
    });
    again.map_err(|error| super::state::describe(&error))
}
