//! One entry of `connections`: there is always a connection, or an attempt at one.
//!
//! A connection that is lost is made again after a delay. With `rotate` the next one is made while the present one is still
//! live, and only when it is subscribed is the present one closed in order; so for a while there are two, each in a
//! [`Lane`] of its own. When the next one can't be had, the present one stays; and when that is lost meanwhile, it is made again
//! as if there had been no next one, which may have been refused only because there were two.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connect::{self, Socket};
use super::lane::Lane;
use super::queue::Sender;
use super::refusal::Remedy;
use super::script::Script;
use super::session::{End, Orders, Session};
use super::settings::{Route, Settings};
use super::status::{Board, Replaced, Status};
use crate::backoff::Backoff;

/// One entry of `connections`.
pub(super) struct Connection {
    settings: Arc<Settings>,
    /// Its place among the entries, from 0.
    entry: usize,
    queue: Sender,
    stop: CancellationToken,
    /// Of its two places.
    status: [Status; 2],
}

/// One connection, or the attempts at it.
struct Life<'c> {
    lane: Lane,
    running: Pin<Box<dyn Future<Output = Ending> + Send + 'c>>,
    progress: watch::Receiver<Progress>,
    /// Cancelled when another one takes its place.
    retire: CancellationToken,
}

/// How far a life is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// When the connection was made.
    pub(super) connected: Option<Instant>,
    /// Whether it is subscribed, and the merge has been told so.
    pub(super) is_live: bool,
    /// Whether it waits for the next attempt, and not because the server asks for that.
    waits_unasked: bool,
}

/// How a life ended.
enum Ending {
    /// The consumer is to stop.
    Stopped,
    /// Closed in order, for another one has taken its place.
    Retired,
    Lost {
        cause: String,
        /// With the delay for the next attempt.
        backoff: Backoff,
    },
}

impl Connection {
    pub(super) fn new(
        settings: &Arc<Settings>,
        entry: usize,
        queue: Sender,
        board: &Arc<Board>,
        stop: CancellationToken,
    ) -> Self {
        let lane = Lane::first_of(entry);
        Self {
            settings: Arc::clone(settings),
            entry,
            queue,
            stop,
            status: [Status::new(board, lane), Status::new(board, lane.other())],
        }
    }

    /// Holds a connection until the consumer is to stop.
    pub(super) async fn keep(self) {
        let mut rotate = self.first_rotation();
        let apart = self.settings.apart * u32::try_from(self.entry).unwrap_or(u32::MAX);
        let first = Lane::first_of(self.entry);
        if !apart.is_zero() {
            self.status_of(first).starts_apart(apart);
        }
        let mut present = self.live(first, apart, self.settings.backoff.clone());
        let mut next: Option<Life<'_>> = None;
        loop {
            let is_retiring = present.retire.is_cancelled();
            let next_progress = next.as_ref().map(|life| life.progress.clone());
            tokio::select! {
                ending = &mut present.running => match (ending, next.take()) {
                    (Ending::Stopped, None) => return,
                    (Ending::Stopped, Some(next)) => {
                        next.running.await;
                        return;
                    }
                    (Ending::Lost { cause, backoff }, None) => {
                        present = self.live_again(present.lane, &cause, backoff);
                    }
                    (Ending::Lost { cause, backoff }, Some(next)) if next.progress.borrow().waits_unasked => {
                        self.status_of(next.lane).dropped();
                        present = self.live_again(present.lane, &cause, backoff);
                    }
                    (Ending::Retired, None) => {
                        // The next one has come and gone meanwhile.
                        present = self.live(present.lane, Duration::ZERO, self.settings.backoff.clone());
                    }
                    (ending, Some(next)) => {
                        self.status_of(present.lane).replaced(match &ending {
                            Ending::Lost { cause, .. } => Replaced::Lost(cause),
                            Ending::Retired | Ending::Stopped => Replaced::Rotated,
                        });
                        present = next;
                        rotate = self.settings.rotate;
                    }
                },
                (lane, ending) = ending_of(&mut next) => {
                    next = match ending {
                        Ending::Lost { cause, backoff } => Some(self.live_again(lane, &cause, backoff)),
                        Ending::Stopped | Ending::Retired => None,
                    };
                }
                () = is_live(next_progress.as_ref()), if !is_retiring => present.retire.cancel(),
                () = is_due(&present.progress, rotate), if next_progress.is_none() && !self.stop.is_cancelled() => {
                    self.status_of(present.lane).rotates();
                    next = Some(self.live(present.lane.other(), Duration::ZERO, self.settings.backoff.clone()));
                }
            }
        }
    }

    /// `rotate` of the first connection: several entries share the time evenly, so that they are never replaced together.
    fn first_rotation(&self) -> Option<Duration> {
        let entries = u32::try_from(self.settings.routes.len()).unwrap_or(u32::MAX);
        let left = entries.saturating_sub(u32::try_from(self.entry).unwrap_or(0));
        self.settings.rotate.map(|rotate| rotate * left / entries)
    }

    fn status_of(&self, lane: Lane) -> &Status {
        &self.status[lane.index() % 2]
    }

    /// The life after one that was lost.
    fn live_again(&self, lane: Lane, cause: &str, mut backoff: Backoff) -> Life<'_> {
        let delay = backoff.next_delay();
        self.status_of(lane).lost(cause, delay);
        self.live(lane, delay, backoff)
    }

    /// A life that begins after `delay`.
    fn live(&self, lane: Lane, delay: Duration, backoff: Backoff) -> Life<'_> {
        let (told, progress) = watch::channel(Progress::default());
        let retire = CancellationToken::new();
        Life {
            lane,
            running: Box::pin(self.life(lane, delay, backoff, told, retire.clone())),
            progress,
            retire,
        }
    }

    async fn life(
        &self,
        lane: Lane,
        delay: Duration,
        mut backoff: Backoff,
        progress: watch::Sender<Progress>,
        retire: CancellationToken,
    ) -> Ending {
        let status = self.status_of(lane);
        let Some((connected, mark)) = self.connected(status, &progress, &mut backoff, delay).await else {
            return Ending::Stopped;
        };
        progress.send_modify(|progress| progress.connected = Some(Instant::now()));
        let behind = CancellationToken::new();
        let Ok(intake) = self.queue.join(lane, mark, behind.clone()).await else {
            return Ending::Stopped;
        };
        let orders = Orders {
            stop: self.stop.clone(),
            retire,
            behind,
        };
        let session = Session::new(connected, intake, orders, status, &self.settings, progress);
        match session.run().await {
            Ok(End::Retired) => Ending::Retired,
            Ok(End::Lost { cause, was_healthy }) => {
                if was_healthy {
                    backoff.reset();
                }
                Ending::Lost { cause, backoff }
            }
            Ok(End::Stopped) => {
                status.stopped();
                Ending::Stopped
            }
            // The stage has failed, of which others tell.
            Err(_) => Ending::Stopped,
        }
    }

    /// Tries to connect after `delay`, and again until it works. `None` when the consumer is to stop. Returns the mark at which it
    /// was dialled too.
    async fn connected(
        &self,
        status: &Status,
        progress: &watch::Sender<Progress>,
        backoff: &mut Backoff,
        delay: Duration,
    ) -> Option<((Socket, Script<'_>), u64)> {
        let route: &Route = &self.settings.routes[self.entry];
        let mut due_at = Instant::now() + delay;
        progress.send_modify(|progress| progress.waits_unasked = true);
        loop {
            let attempt = async {
                sleep_until(due_at).await;
                progress.send_modify(|progress| progress.waits_unasked = false);
                status.connecting();
                let (start, mark) = (std::time::Instant::now(), self.queue.mark());
                let connected = connect::connect(&self.settings, route).await;
                (connected, mark, start.elapsed())
            };
            let (connected, mark, took) = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    status.stopped_waiting();
                    return None;
                }
                attempt = attempt => attempt,
            };
            match connected {
                Ok(connection) => {
                    status.connected(took);
                    return Some((connection, mark));
                }
                Err(error) => {
                    let remedy = error.remedy();
                    let delay = remedy.delay(backoff);
                    status.refused(&error, delay);
                    let is_asked = matches!(remedy, Remedy::After(_));
                    progress.send_modify(|progress| progress.waits_unasked = !is_asked);
                    due_at = Instant::now() + delay;
                }
            }
        }
    }
}

/// Waits for the end of a life; for ever when there is none.
async fn ending_of(life: &mut Option<Life<'_>>) -> (Lane, Ending) {
    match life {
        Some(life) => (life.lane, (&mut life.running).await),
        None => pending().await,
    }
}

/// Waits until a life is live; for ever when there is none.
async fn is_live(progress: Option<&watch::Receiver<Progress>>) {
    match progress {
        Some(progress) => reaches(progress, |progress| progress.is_live).await,
        None => pending().await,
    }
}

/// Waits until a connection is as old as `rotate` says.
async fn is_due(progress: &watch::Receiver<Progress>, rotate: Option<Duration>) {
    let Some(rotate) = rotate else {
        return pending().await;
    };
    reaches(progress, |progress| progress.connected.is_some()).await;
    let connected = progress.borrow().connected;
    if let Some(connected) = connected {
        sleep_until(connected + rotate).await;
    }
}

/// Waits until a life has come so far; for ever when it ends before.
async fn reaches(progress: &watch::Receiver<Progress>, enough: impl Fn(&Progress) -> bool) {
    let mut progress = progress.clone();
    if progress.wait_for(enough).await.is_err() {
        pending::<()>().await;
    }
}
