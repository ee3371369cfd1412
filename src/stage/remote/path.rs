//! A stage path that another process has open.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::client::{Client, ClientError, escaped, with_query};
use super::follow::follow;
use super::mirror::{Link, Mirror, lock};
use super::stage::{Patience, RemoteStage, fetch_records};
use super::wire::{BatchParams, Identity};
use crate::record::Offset;
use crate::stage::path::{BatchPage, BatchQuery, PathSummary, RecordPage, Route, StagePath, StageSummary};
use crate::stage::{ReadLimit, SharedStage, StageError};

/// A stage path, asked through its engine. Dropping it ends its tasks.
pub struct RemotePath {
    client: Client,
    identity: Identity,
    patience: Patience,
    /// As the stages were when it was connected.
    summaries: BTreeMap<String, StageSummary>,
    followed: Mutex<Followed>,
}

/// The stages that somebody has asked for, and the tasks that keep their mirrors up.
#[derive(Default)]
struct Followed {
    stages: BTreeMap<String, Arc<RemoteStage>>,
    tasks: JoinSet<()>,
}

impl RemotePath {
    /// Connects to the engine that has the path open, for a tool: whatever goes wrong is an error at once.
    ///
    /// # Errors
    /// When no engine answers, or not as it should.
    pub async fn connect(directory: &Path) -> Result<Self, ClientError> {
        Self::connect_with(directory, Patience::None).await
    }

    /// Connects to the engine that has the path open, for a producer: once it is connected, an engine that goes away is waited
    /// for, until `stop` is cancelled: then reads find nothing and acks are left out.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub async fn connect_patiently(directory: &Path, stop: CancellationToken) -> Result<Self, ClientError> {
        Self::connect_with(directory, Patience::Until(stop)).await
    }

    async fn connect_with(directory: &Path, patience: Patience) -> Result<Self, ClientError> {
        // The working directory may change; the path may not.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let client = Client::new(&directory);
        let identity = client.identity().await?;
        let summary: PathSummary = client.get("/stages", Some(identity.life)).await?.json().await?;
        let summaries = summary
            .stages
            .into_iter()
            .map(|stage| (stage.name.clone(), stage))
            .collect();
        Ok(Self {
            client,
            identity,
            patience,
            summaries,
            followed: Mutex::default(),
        })
    }

    /// Who answered when it was connected.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Names of all stages in order.
    pub fn stage_names(&self) -> impl Iterator<Item = &str> + '_ {
        self.summaries.keys().map(String::as_str)
    }

    /// Waits until one of the stages that were asked for is not to be had any more, and says why.
    pub async fn failed_for_good(&self) -> StageError {
        let links: Vec<_> = lock(&self.followed)
            .stages
            .values()
            .map(|stage| {
                let mut link = stage.mirror.watch_link();
                link.mark_changed();
                link
            })
            .collect();
        let over = links.into_iter().map(|mut link| {
            Box::pin(async move {
                // The mirror lives as long as this path: it is over before its channel is.
                while link.changed().await.is_ok() {
                    if let Link::Over(error) = &*link.borrow_and_update() {
                        return error.clone();
                    }
                }
                StageError::Closed
            })
        });
        let over: Vec<_> = over.collect();
        if over.is_empty() {
            return std::future::pending().await;
        }
        futures_util::future::select_all(over).await.0
    }

    fn failed(&self, error: ClientError) -> StageError {
        error.into_stage_error(self.client.directory())
    }

    /// The tasks, to be ended.
    fn take_tasks(&self) -> JoinSet<()> {
        let mut followed = lock(&self.followed);
        for stage in followed.stages.values() {
            stage.mirror.end(StageError::Closed);
        }
        std::mem::take(&mut followed.tasks)
    }
}

fn route_of(stage: &str) -> String {
    format!("/stages/{}", escaped(stage))
}

#[async_trait]
impl StagePath for RemotePath {
    fn route(&self) -> Route {
        Route::Engine {
            pid: self.identity.pid,
            version: self.identity.version.clone(),
        }
    }

    fn directory(&self) -> &Path {
        self.client.directory()
    }

    fn id(&self) -> Uuid {
        self.identity.id
    }

    /// Must be called within a runtime: a task keeps what is answered at once up to date.
    fn stage(&self, name: &str) -> Option<SharedStage> {
        let summary = self.summaries.get(name)?;
        let mut followed = lock(&self.followed);
        if let Some(stage) = followed.stages.get(name) {
            return Some(Arc::clone(stage) as SharedStage);
        }
        let stage = Arc::new(RemoteStage {
            name: name.to_owned(),
            path_id: self.identity.id,
            client: self.client.clone(),
            mirror: Mirror::new(summary, self.identity.life),
            patience: self.patience.clone(),
            began: Mutex::default(),
        });
        followed.stages.insert(name.to_owned(), Arc::clone(&stage));
        let following = Arc::clone(&stage);
        followed.tasks.spawn(async move { follow(&following).await });
        Some(stage)
    }

    async fn summary(&self) -> Result<PathSummary, StageError> {
        let summary = async { self.client.get("/stages", None).await?.json().await };
        summary.await.map_err(|error| self.failed(error))
    }

    async fn batches(&self, stage: &str, query: BatchQuery) -> Result<BatchPage, StageError> {
        let page = async {
            let route = with_query(&format!("{}/batches", route_of(stage)), &BatchParams::from(query))?;
            self.client.get(&route, None).await?.json().await
        };
        match page.await {
            Err(ClientError::NotFound(_)) => Ok(BatchPage::default()),
            page => page.map_err(|error| self.failed(error)),
        }
    }

    async fn records(&self, stage: &str, from: Offset, limit: ReadLimit) -> Result<RecordPage, StageError> {
        match fetch_records(&self.client, route_of(stage), None, from, limit).await {
            Ok((page, _)) => Ok(page),
            Err(ClientError::NotFound(_)) => Ok(RecordPage {
                next: from,
                ..RecordPage::default()
            }),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn forget_producer(&self, stage: &str, producer: &str) -> Result<bool, StageError> {
        let route = format!("{}/cursors/{}", route_of(stage), escaped(producer));
        match self.client.delete(&route).await {
            Ok(_) => Ok(true),
            Err(ClientError::NotFound(_)) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn forget_stage(&self, stage: &str) -> Result<Option<u64>, StageError> {
        let forgotten = async { self.client.delete(&route_of(stage)).await?.json().await };
        match forgotten.await {
            Ok(Forgotten { messages }) => Ok(Some(messages)),
            Err(ClientError::NotFound(_)) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn status(&self) -> Result<Option<serde_json::Value>, StageError> {
        let status = async { self.client.get("/status", None).await?.json().await };
        status.await.map(Some).map_err(|error| self.failed(error))
    }

    async fn close(&self) -> Result<(), StageError> {
        self.take_tasks().shutdown().await;
        Ok(())
    }
}

/// The answer to `DELETE` of a stage.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Forgotten {
    /// How many messages were given up.
    pub messages: u64,
}
