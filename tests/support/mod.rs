//! What the end-to-end tests stand on: a private PostgreSQL with a database per test, the real binaries as child
//! processes, a WebSocket server and a TCP proxy with faults, and the checker of the guarantee.
//!
//! Everything is made in temporary directories and goes away with the values that stand for it, the database server
//! even when the test process is killed. Nothing waits for time to pass: [`eventually`] waits for conditions.

pub(crate) mod checker;
pub(crate) mod cluster;
pub(crate) mod engine;
pub(crate) mod inspect;
pub(crate) mod proxy;
pub(crate) mod source;

use std::time::{Duration, Instant};

/// The longest that anything is waited for: far beyond what a busy machine needs, so that only what never comes fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// How often a condition is looked at.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// Waits until `probe` finds what it looks for. `report` adds what would explain a failure.
pub(crate) async fn eventually<T>(
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
    report: impl Fn() -> String,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "not within {PATIENCE:?}: {what}\n{}",
            report()
        );
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
