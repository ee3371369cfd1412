//! A stage path on this machine's disk, looked into: its stages, generations, gaps, batches and records.
//!
//! [`LocalPath::inspect`] opens a path that no engine runs on; it recovers it, for sled writes when it opens, but drops
//! nothing. An engine answers in the same way, through [`StagePath`].

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::batches;
use super::cursors;
use super::gaps;
use super::lock::Holder;
use super::options::{Durability, LocalOptions, OnFull, OpenError, Retention, StageRole, Tuning};
use super::path::{LocalPath, is_there};
use super::reader;
use super::state::{Shared, StageState, lock, read};
use crate::record::Offset;
use crate::stage::path::{
    BatchPage, BatchQuery, GenerationSummary, Glance, PathSummary, ProducerSummary, RecordPage, Route,
    StagePath, StageSummary, held_cursor, held_of,
};
use crate::stage::report::{Balance, Delivery};
use crate::stage::{GapCause, ReadLimit, SharedStage, StageError};

impl LocalPath {
    /// Opens a path that no engine runs on, to look at it; `roles` are the stages and producers that the configuration
    /// has for it, if there is one. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Missing`] when there is none.
    pub fn inspect(path: &Path, roles: &[StageRole]) -> Result<Self, OpenError> {
        Self::inspect_tuned(path, roles, Tuning::default())
    }

    pub(super) fn inspect_tuned(path: &Path, roles: &[StageRole], tuning: Tuning) -> Result<Self, OpenError> {
        if !is_there(path) {
            return Err(OpenError::Missing {
                path: path.to_owned(),
            });
        }
        let options = LocalOptions {
            path: path.to_owned(),
            durability: Durability::Fsync,
            // Nothing is past a retention that is not known.
            retention: Retention {
                age: Duration::MAX,
                bytes: u64::MAX,
            },
            max_bytes: u64::MAX,
            on_full: OnFull::Block,
            tuning: Tuning {
                seal_age: Duration::MAX,
                seal_bytes: u64::MAX,
                min_free: 0,
                ..tuning
            },
        };
        Self::open_existing(options, roles, Holder::Tool)
    }

    /// Stages and generations at a glance.
    #[must_use]
    pub fn overview(&self) -> PathSummary {
        let shared = self.shared();
        PathSummary {
            id: shared.id,
            stages: shared
                .stages
                .values()
                .map(|stage| summary(shared, stage))
                .collect(),
            generations: shared
                .catalog()
                .iter()
                .map(|(number, generation)| GenerationSummary {
                    number: *number,
                    state: generation.entry.state,
                    made_at: generation.entry.made_at,
                    sealed_at: generation.entry.sealed_at,
                    bytes: generation.bytes,
                    extents: generation.extents.clone(),
                })
                .collect(),
        }
    }

    /// What changes in a stage while it is in use; `None` when there is no such stage, or the path is closed.
    #[must_use]
    pub fn glance(&self, stage: &str) -> Option<Glance> {
        let shared = self.shared();
        let stage = shared.stages.get(stage).filter(|_| !shared.room.is_closed())?;
        Some(Glance {
            bounds: shared.bounds(stage),
            cursors: lock(&stage.cursors).now().clone(),
            begun: lock(&stage.begun).clone(),
            outages: Some(stage.outages_end()),
            gaps: Some(read(&stage.gaps).as_slice().to_vec()),
        })
    }

    /// Changes whenever [`glance`](Self::glance) may say something else. Who waits on it slows nobody down.
    #[must_use]
    pub fn changes(&self, stage: &str) -> Option<watch::Receiver<()>> {
        Some(self.shared().stages.get(stage)?.changed.subscribe())
    }

    /// Does what blocks with a stage on a thread where it may; `None` when there is no such stage.
    async fn of_stage<T: Send + 'static>(
        &self,
        stage: &str,
        work: impl FnOnce(&Arc<Shared>, &Arc<StageState>) -> Result<T, StageError> + Send + 'static,
    ) -> Result<Option<T>, StageError> {
        let shared = Arc::clone(self.shared());
        if shared.room.is_closed() {
            return Err(shared.ended());
        }
        let Some(stage) = shared.stages.get(stage).cloned() else {
            return Ok(None);
        };
        // Held until the work is done, whether or not somebody waits for it still.
        let look = Arc::clone(&shared.looks).acquire_owned().await;
        let look = look.map_err(|_| shared.ended())?;
        let working = Arc::clone(&shared);
        let done = spawn_blocking(move || {
            let _look = look;
            work(&working, &stage)
        })
        .await;
        done.unwrap_or_else(|error| {
            // The runtime cancels blocking work only when it ends.
            if error.is_panic() {
                shared.suspect_open();
                shared.fail("reading the stage panicked");
            }
            Err(shared.ended())
        })
        .map(Some)
    }
}

#[async_trait]
impl StagePath for LocalPath {
    fn route(&self) -> Route {
        Route::Files
    }

    fn directory(&self) -> &Path {
        Self::directory(self)
    }

    fn id(&self) -> Uuid {
        Self::id(self)
    }

    fn stage(&self, name: &str) -> Option<SharedStage> {
        Self::stage(self, name)
    }

    async fn summary(&self) -> Result<PathSummary, StageError> {
        if self.shared().room.is_closed() {
            return Err(self.shared().ended());
        }
        Ok(self.overview())
    }

    async fn batches(&self, stage: &str, query: BatchQuery) -> Result<BatchPage, StageError> {
        let page = self
            .of_stage(stage, move |shared, stage| batches::page(shared, stage, query))
            .await?;
        Ok(page.unwrap_or_default())
    }

    async fn records(&self, stage: &str, from: Offset, limit: ReadLimit) -> Result<RecordPage, StageError> {
        let page = self
            .of_stage(stage, move |shared, stage| {
                reader::read_records(shared, stage, from, limit)
            })
            .await?;
        let nothing = RecordPage {
            next: from,
            ..RecordPage::default()
        };
        Ok(page.unwrap_or(nothing))
    }

    async fn forget_producer(&self, stage: &str, producer: &str) -> Result<bool, StageError> {
        let producer = producer.to_owned();
        let forgotten = self
            .of_stage(stage, move |shared, stage| {
                if stage.producers.contains(&producer) {
                    return Err(StageError::StillConfigured {
                        what: format!("producer {producer} of stage {}", stage.name),
                    });
                }
                // What is noted of its cursor in the sink goes with it.
                shared.checked(cursors::forget(shared, stage, &held_cursor(&producer)))?;
                shared.checked(cursors::forget(shared, stage, &producer))
            })
            .await?;
        Ok(forgotten.unwrap_or(false))
    }

    async fn forget_stage(&self, stage: &str) -> Result<Option<u64>, StageError> {
        self.of_stage(stage, |shared, stage| {
            if stage.is_configured {
                return Err(StageError::StillConfigured {
                    what: format!("stage {}", stage.name),
                });
            }
            shared.checked(forget_messages(shared, stage))
        })
        .await
    }

    async fn close(&self) -> Result<(), StageError> {
        let closing = self.closing();
        let done = spawn_blocking(closing).await;
        done.unwrap_or_else(|_| Err(self.shared().ended()))
    }
}

/// Records everything in the stage as dropped, so that it pins nothing, and forgets its cursors.
fn forget_messages(shared: &Shared, stage: &StageState) -> Result<u64, String> {
    let bounds = shared.bounds(stage);
    let dense = read(&stage.gaps).dense_between(bounds.oldest, bounds.head);
    let dropped = |(from, to)| gaps::of_messages(from, to, GapCause::DroppedOldest);
    let messages = dense
        .iter()
        .map(|(from, to): &(Offset, Offset)| to.get() - from.get())
        .sum();
    lock(&stage.ring).forget_before(bounds.head);
    shared.record_gaps(stage, dense.into_iter().map(dropped).collect())?;
    let producers: Vec<_> = lock(&stage.cursors).now().keys().cloned().collect();
    for producer in producers {
        cursors::forget(shared, stage, &producer)?;
    }
    Ok(messages)
}

fn summary(shared: &Shared, stage: &StageState) -> StageSummary {
    let bounds = shared.bounds(stage);
    let gaps = read(&stage.gaps).clone();
    let pending = |from: Offset| gaps.count_between(from.max(bounds.oldest), bounds.head);
    let refused = stage.refused.load(Ordering::Relaxed);
    let reports = lock(&stage.reports).clone();
    let known = lock(&stage.cursors).now().clone();
    let held: Vec<_> = known.keys().filter_map(|name| held_of(name)).collect();
    let names: BTreeSet<_> = stage
        .producers
        .iter()
        .map(String::as_str)
        .chain(
            known
                .keys()
                .map(String::as_str)
                .filter(|name| held_of(name).is_none()),
        )
        .chain(held)
        .collect();
    let of_producer = |name: &str| {
        let cursor = known.get(name).copied();
        let delivery = reports.get(name).map(|(report, heard_at)| Delivery {
            condition: report.condition.clone(),
            heard_at: *heard_at,
            balance: report
                .passed
                .map(|passed| Balance::of(passed, bounds, &gaps, refused)),
        });
        ProducerSummary {
            cursor,
            pending: pending(cursor.unwrap_or(bounds.oldest)),
            held_at: known.get(&held_cursor(name)).copied(),
            delivery,
        }
    };
    StageSummary {
        name: stage.name.clone(),
        messages: pending(bounds.oldest),
        refused,
        producers: names
            .into_iter()
            .map(|name| (name.to_owned(), of_producer(name)))
            .collect(),
        begun: lock(&stage.begun).clone(),
        gaps: gaps.as_slice().to_vec(),
        generations: shared
            .catalog()
            .iter()
            .filter(|(_, generation)| generation.extents.contains_key(&stage.name))
            .map(|(number, _)| *number)
            .collect(),
        bounds,
    }
}
