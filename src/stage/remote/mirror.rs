//! What a remote stage answers at once, without asking: a mirror of the engine's, kept up by its stream of changes.
//!
//! Bounds only grow within one life of an engine, so that an answer which comes late takes nothing back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use crate::record::Offset;
use crate::stage::local::gaps::GapList;
use crate::stage::path::{Glance, StageSummary, held_cursor};
use crate::stage::{Bounds, Given, Place, StageError};

/// How a stage stands with its engine.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Link {
    /// This life of the engine has been compared with what was read, and answers.
    Up(Uuid),
    /// It does not answer.
    Down,
    /// Nothing is to be expected any more.
    Over(StageError),
}

/// The mirror of one stage.
pub(super) struct Mirror {
    state: Mutex<State>,
    /// `None` once nothing is to be expected any more.
    head: Mutex<Option<watch::Sender<Offset>>>,
    head_seen: watch::Receiver<Offset>,
    outages: watch::Sender<Place>,
    link: watch::Sender<Link>,
    /// The last life that was compared.
    life: Mutex<Uuid>,
}

struct State {
    bounds: Bounds,
    cursors: BTreeMap<String, Offset>,
    begun: BTreeSet<String>,
    gaps: GapList,
}

impl Mirror {
    /// What the stage was when this life of the engine was first asked.
    pub(super) fn new(summary: &StageSummary, life: Uuid) -> Self {
        let (head, head_seen) = watch::channel(summary.bounds.head);
        let producers = || summary.producers.iter();
        let cursors = producers().filter_map(|(name, producer)| Some((name.clone(), producer.cursor?)));
        let held = producers().filter_map(|(name, producer)| Some((held_cursor(name), producer.held_at?)));
        let cursors = cursors.chain(held).collect();
        Self {
            state: Mutex::new(State {
                bounds: summary.bounds,
                cursors,
                begun: summary.begun.clone(),
                gaps: GapList::from_stored(summary.gaps.clone()),
            }),
            head: Mutex::new(Some(head)),
            head_seen,
            outages: watch::Sender::default(),
            link: watch::Sender::new(Link::Up(life)),
            life: Mutex::new(life),
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.state().bounds
    }

    pub(super) fn cursor(&self, producer: &str) -> Option<Offset> {
        self.state().cursors.get(producer).copied()
    }

    pub(super) fn reach(&self, producer: &str) -> Offset {
        let state = self.state();
        let held = state.cursors.get(&held_cursor(producer)).copied();
        state.bounds.reach(state.begun.contains(producer), held)
    }

    pub(super) fn count_between(&self, from: Offset, to: Offset) -> u64 {
        let state = self.state();
        let (from, to) = (from.max(state.bounds.oldest), to.min(state.bounds.head));
        state.gaps.count_between(from, to)
    }

    pub(super) fn given_before(&self, offset: Offset) -> Given {
        let state = self.state();
        state.gaps.given_before(offset, state.bounds)
    }

    pub(super) fn watch_head(&self) -> watch::Receiver<Offset> {
        self.head_seen.clone()
    }

    /// The life of the engine that answers now.
    pub(super) fn answering(&self) -> Option<Uuid> {
        match *self.link.borrow() {
            Link::Up(life) => Some(life),
            Link::Down | Link::Over(_) => None,
        }
    }

    pub(super) fn watch_outages(&self) -> watch::Receiver<Place> {
        self.outages.subscribe()
    }

    pub(super) fn watch_link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Takes what the engine of the present life says.
    pub(super) fn take(&self, glance: Glance) {
        let outages = glance.outages;
        let head = {
            let mut state = self.state();
            let (known, now) = (state.bounds, glance.bounds);
            state.bounds = Bounds {
                oldest: known.oldest.max(now.oldest),
                head: known.head.max(now.head),
                reserved: known.reserved.max(now.reserved),
                given_from: now.given_from,
                staged: known.staged.max(now.staged),
                is_uncounted: now.is_uncounted,
            };
            state.cursors = glance.cursors;
            state.begun = glance.begun;
            if let Some(gaps) = glance.gaps {
                state.gaps = GapList::from_stored(gaps);
            }
            state.bounds.head
        };
        // Before the head: whoever sees a message knows of the outages before it.
        if let Some(end) = outages {
            self.outages
                .send_if_modified(|known| end > *known && std::mem::replace(known, end) != end);
        }
        if let Some(sender) = &*lock(&self.head) {
            sender.send_if_modified(|known| std::mem::replace(known, head) != head);
        }
    }

    /// The life of the engine that was compared last.
    pub(super) fn last_life(&self) -> Uuid {
        *lock(&self.life)
    }

    /// A life of the engine that has been compared answers, and says this.
    pub(super) fn up(&self, glance: Glance, life: Uuid) {
        *lock(&self.life) = life;
        self.take(glance);
        self.link.send_if_modified(|link| {
            let is_over = matches!(link, Link::Over(_));
            if !is_over {
                *link = Link::Up(life);
            }
            !is_over
        });
    }

    /// The engine of this life has not answered.
    pub(super) fn down(&self) {
        self.link.send_if_modified(|link| {
            let was_up = matches!(link, Link::Up(_));
            if was_up {
                *link = Link::Down;
            }
            was_up
        });
    }

    /// Nothing is to be expected any more; wakes all who wait.
    pub(super) fn end(&self, error: StageError) {
        self.link.send_if_modified(|link| {
            let is_first = !matches!(link, Link::Over(_));
            if is_first {
                *link = Link::Over(error);
            }
            is_first
        });
        lock(&self.head).take();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What a lock guards is whole whoever panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
