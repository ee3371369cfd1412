//! What the tests of an operator's doings share: a stage path in memory, and the producer that is asked.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::{PostgresOptions, PostgresProducer, Target};
use super::support::{MemoryStage, PRODUCER, QUICK};
use crate::exit::RunnerError;
use crate::producer::operate::{Operations as _, ReplayEnd, ReplayPlan, ReplayWish, Scope};
use crate::producer::{Producer as _, ProducerContext, RunUntil, Start};
use crate::record::Offset;
use crate::stage::path::{BatchPage, BatchQuery, PathSummary, RecordPage, Route, StagePath, replay_cursor};
use crate::stage::{ReadLimit, SharedStage, Stage as _, StageError};
use crate::stats::ProducerStats;

/// The path of one stage in memory.
pub(super) struct MemoryPath(pub(super) Arc<MemoryStage>);

#[async_trait]
impl StagePath for MemoryPath {
    fn route(&self) -> Route {
        Route::Files
    }

    fn directory(&self) -> &Path {
        Path::new("memory")
    }

    fn id(&self) -> Uuid {
        self.0.path_id()
    }

    fn stage(&self, _name: &str) -> Option<SharedStage> {
        Some(self.0.clone())
    }

    async fn summary(&self) -> Result<PathSummary, StageError> {
        Ok(PathSummary {
            id: self.id(),
            stages: vec![self.0.summary()],
            generations: Vec::new(),
        })
    }

    async fn batches(&self, _stage: &str, _query: BatchQuery) -> Result<BatchPage, StageError> {
        Err(StageError::Closed)
    }

    async fn records(
        &self,
        _stage: &str,
        _from: Offset,
        _limit: ReadLimit,
    ) -> Result<RecordPage, StageError> {
        Err(StageError::Closed)
    }

    async fn forget_producer(&self, _stage: &str, producer: &str) -> Result<bool, StageError> {
        Ok(self.0.forget_cursor(producer))
    }

    async fn forget_stage(&self, _stage: &str) -> Result<Option<u64>, StageError> {
        Err(StageError::Closed)
    }

    async fn close(&self) -> Result<(), StageError> {
        Ok(())
    }
}

/// Somebody at the command line.
pub(super) struct Operator {
    pub(super) producer: Arc<PostgresProducer>,
    pub(super) scope: Scope,
}

impl Operator {
    pub(super) fn new(target: Target, stage: &Arc<MemoryStage>) -> Self {
        Self::with(target, stage, PostgresOptions::default())
    }

    pub(super) fn with(target: Target, stage: &Arc<MemoryStage>, options: PostgresOptions) -> Self {
        let mut producer = PostgresProducer::new(target, options);
        producer.timing = QUICK;
        Self {
            producer: Arc::new(producer),
            scope: Scope {
                producer: PRODUCER.to_owned(),
                path: Arc::new(MemoryPath(stage.clone())),
                stage: stage.clone(),
            },
        }
    }

    /// Delivers everything that is new, as an engine with the same options does.
    pub(super) async fn delivers(&self) {
        let mut engine = PostgresProducer::new(self.producer.target.clone(), self.producer.options.clone());
        engine.timing = QUICK;
        let context = ProducerContext {
            name: PRODUCER.to_owned(),
            stages: vec![self.scope.stage.clone()],
            start: Start::Oldest,
            until: RunUntil::Drained,
            stats: Arc::default(),
            stop: CancellationToken::new(),
        };
        Box::new(engine).run(context).await.unwrap();
    }

    pub(super) async fn begins(&self, wish: &ReplayWish) -> Result<ReplayPlan, RunnerError> {
        self.producer.begin_replay(&self.scope, wish).await
    }

    /// Delivers until the replay is done.
    pub(super) async fn goes_on(&self) -> Result<ReplayEnd, RunnerError> {
        self.producer
            .replay(
                &self.scope,
                Arc::new(ProducerStats::default()),
                CancellationToken::new(),
            )
            .await
    }

    /// Begins a replay and delivers all of it.
    pub(super) async fn replays(&self, wish: &ReplayWish) -> ReplayPlan {
        let plan = self.begins(wish).await.unwrap();
        assert_eq!(self.goes_on().await.unwrap(), ReplayEnd::Done);
        assert_eq!(
            self.scope.stage.cursor(&replay_cursor(PRODUCER)),
            None,
            "nothing is pinned any more"
        );
        plan
    }
}

/// Everything from an offset on.
pub(super) fn everything_from(from: u64) -> ReplayWish {
    ReplayWish {
        asked: format!("--from {from}"),
        from: Offset::new(from),
        to: None,
        into_table: None,
        allow_duplicates: false,
    }
}

pub(super) fn into_table(table: &str) -> ReplayWish {
    ReplayWish {
        asked: format!("--all --into {table}"),
        into_table: Some(table.to_owned()),
        ..everything_from(0)
    }
}
