//! One stage of a path that another process has open: read and acknowledged through its engine.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::client::{Client, ClientError, escaped, with_query};
use super::frames;
use super::mirror::{Link, Mirror, lock};
use super::wire::{Ack, OutageParams, RecordParams};
use crate::backoff::Backoff;
use crate::record::{Batch, Offset};
use crate::stage::envelope::{self, Assembler};
use crate::stage::path::{Glance, RecordPage, StoredRecord, held_cursor};
use crate::stage::report::Report;
use crate::stage::{
    Accepted, Bounds, Given, Outage, OutagePage, Place, ReadLimit, ReadOutcome, Stage, StageError,
    StagedBatch,
};

/// How long the first wait for an engine that does not answer takes at most, and the longest.
pub(super) const RETRY_INITIAL: Duration = Duration::from_millis(50);
pub(super) const RETRY_MAX: Duration = Duration::from_secs(1);

/// What is done when the engine goes away.
#[derive(Clone, Debug)]
pub(super) enum Patience {
    /// It is an error: a person waits for the answer.
    None,
    /// It comes back; until then, or until this is cancelled, whoever reads waits.
    Until(CancellationToken),
}

/// One stage.
pub(super) struct RemoteStage {
    pub(super) name: String,
    pub(super) path_id: Uuid,
    pub(super) client: Client,
    pub(super) mirror: Mirror,
    pub(super) patience: Patience,
    /// Producers of this process that have begun; every life of the engine is told.
    pub(super) began: Mutex<BTreeSet<String>>,
}

/// What waiting for the engine has come to.
enum Waited {
    /// Ask this life of it.
    Ask(Uuid),
    /// Whoever waits is to stop.
    Stop,
}

impl RemoteStage {
    /// The route of this stage.
    pub(super) fn route(&self) -> String {
        format!("/stages/{}", escaped(&self.name))
    }

    fn directory(&self) -> &Path {
        self.client.directory()
    }

    /// Waits until the engine answers and has been compared.
    async fn life(&self) -> Result<Waited, StageError> {
        let mut link = self.mirror.watch_link();
        let up = async {
            let link = link.wait_for(|link| *link != Link::Down).await;
            match link.as_deref() {
                Ok(Link::Up(life)) => Ok(Waited::Ask(*life)),
                Ok(Link::Over(error)) => Err(error.clone()),
                Ok(Link::Down) | Err(_) => Err(StageError::Closed),
            }
        };
        match &self.patience {
            Patience::None => up.await,
            Patience::Until(stop) => tokio::select! {
                biased;
                () = stop.cancelled() => Ok(Waited::Stop),
                up = up => up,
            },
        }
    }

    /// Asks until there is an answer, as far as patience goes; `None` when whoever waits is to stop.
    async fn ask<'a, T>(
        &'a self,
        request: impl Fn(Uuid) -> BoxFuture<'a, Result<T, ClientError>> + Send + Sync,
    ) -> Result<Option<T>, StageError> {
        let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
        loop {
            let life = match self.life().await? {
                Waited::Ask(life) => life,
                Waited::Stop => return Ok(None),
            };
            let error = match request(life).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => error,
            };
            let Patience::Until(stop) = &self.patience else {
                return Err(error.into_stage_error(self.directory()));
            };
            match error {
                // An engine that ends, or one that is not there: it is started again.
                ClientError::Stage(StageError::Failed { .. } | StageError::Closed)
                | ClientError::NoEngine
                | ClientError::OtherLife
                | ClientError::Lost(_)
                | ClientError::Broken(_)
                | ClientError::TimedOut => {
                    tracing::debug!(stage = self.name, %error, "asking the engine again");
                }
                ClientError::Stage(_)
                | ClientError::NotFound(_)
                | ClientError::Forbidden(_)
                | ClientError::OtherProtocol(_) => return Err(error.into_stage_error(self.directory())),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Verifies and decodes, away from the runtime's threads.
    async fn decode(&self, records: Vec<StoredRecord>) -> Result<Vec<Arc<StagedBatch>>, StageError> {
        let name = self.name.clone();
        let decoding = spawn_blocking(move || decode_batches(&name, &records)).await;
        decoding.unwrap_or_else(|error| {
            Err(StageError::Failed {
                path: self.directory().display().to_string(),
                reason: format!("decoding its records failed: {error}"),
            })
        })
    }

    /// Sets a cursor.
    async fn set_cursor(&self, cursor: &str, ack: Ack) -> Result<(), StageError> {
        let route = &format!("{}/cursors/{}", self.route(), escaped(cursor));
        let put = |life| async move { self.client.put(route, Some(life), &ack).await?.json().await }.boxed();
        if let Some(glance) = self.ask(put).await? {
            self.mirror.take(glance);
        }
        Ok(())
    }

    async fn fetch_outages(&self, life: Uuid, query: OutageParams) -> Result<OutagePage, ClientError> {
        let route = with_query(&format!("{}/outages", self.route()), &query)?;
        self.client.get(&route, Some(life)).await?.json().await
    }

    /// Tells one life of the engine that a producer has begun.
    pub(super) async fn put_begun(&self, life: Uuid, producer: &str) -> Result<Glance, ClientError> {
        let route = format!("{}/begun/{}", self.route(), escaped(producer));
        self.client.put(&route, Some(life), &()).await?.json().await
    }
}

/// Fetches a page of records; beside it the glance that came with it.
pub(super) async fn fetch_records(
    client: &Client,
    route: String,
    life: Option<Uuid>,
    from: Offset,
    limit: ReadLimit,
) -> Result<(RecordPage, Option<Glance>), ClientError> {
    let query = RecordParams {
        from,
        messages: limit.messages,
        bytes: limit.bytes,
    };
    let route = with_query(&format!("{route}/records"), &query)?;
    let frames = client.get(&route, life).await?.bytes().await?;
    frames::decode(&frames).map_err(|error| ClientError::Broken(error.to_string()))
}

/// The batches of verified records.
fn decode_batches(stage: &str, records: &[StoredRecord]) -> Result<Vec<Arc<StagedBatch>>, StageError> {
    let mut assembler = Assembler::new();
    let mut batches = Vec::new();
    for record in records {
        let decoded = envelope::open(stage, &record.key, &record.value)
            .and_then(|sealed| assembler.push(&sealed))
            .map_err(|error| StageError::Damaged {
                stage: stage.to_owned(),
                offset: envelope::parse_key(&record.key).map_or(Offset::ZERO, |(base, _)| base),
                reason: error.to_string(),
            })?;
        batches.extend(decoded.map(Arc::new));
    }
    Ok(batches)
}

#[async_trait]
impl Stage for RemoteStage {
    fn name(&self) -> &str {
        &self.name
    }

    fn path_id(&self) -> Uuid {
        self.path_id
    }

    async fn append(&self, _batch: Batch) -> Result<Accepted, StageError> {
        Err(StageError::NotOwner {
            stage: self.name.clone(),
        })
    }

    async fn append_outage(&self, _outage: Outage) -> Result<Accepted, StageError> {
        Err(StageError::NotOwner {
            stage: self.name.clone(),
        })
    }

    async fn read(&self, from: Offset, limit: ReadLimit) -> Result<ReadOutcome, StageError> {
        let nothing = ReadOutcome {
            batches: Vec::new(),
            gaps: Vec::new(),
            next: from,
        };
        let fetched = self
            .ask(|life| fetch_records(&self.client, self.route(), Some(life), from, limit).boxed())
            .await?;
        let Some((page, glance)) = fetched else {
            return Ok(nothing);
        };
        if let Some(glance) = glance {
            self.mirror.take(glance);
        }
        if page.next <= from {
            return Ok(nothing);
        }
        Ok(ReadOutcome {
            batches: self.decode(page.records).await?,
            gaps: page.gaps,
            next: page.next,
        })
    }

    async fn outages(&self, from: Place, to: Offset) -> Result<OutagePage, StageError> {
        let query = OutageParams {
            from: from.offset,
            sequence: from.sequence,
            to: Some(to),
        };
        let fetched = self.ask(|life| self.fetch_outages(life, query).boxed()).await?;
        Ok(fetched.unwrap_or(OutagePage {
            outages: Vec::new(),
            next: from,
        }))
    }

    fn watch_outages(&self) -> watch::Receiver<Place> {
        self.mirror.watch_outages()
    }

    async fn ack(&self, producer: &str, next: Offset) -> Result<(), StageError> {
        // Who stops while the engine is away leaves the stage's copy behind; it may be.
        self.set_cursor(producer, Ack { next, durable: false }).await
    }

    async fn pin(&self, cursor: &str, next: Offset) -> Result<(), StageError> {
        self.set_cursor(cursor, Ack { next, durable: true }).await
    }

    fn cursor(&self, producer: &str) -> Option<Offset> {
        self.mirror.cursor(producer)
    }

    fn bounds(&self) -> Bounds {
        self.mirror.bounds()
    }

    async fn refresh(&self) -> Result<(), StageError> {
        // Of records that are not there comes the glance that goes with them.
        let nothing = ReadLimit {
            messages: 0,
            bytes: 0,
        };
        let end = Offset::new(u64::MAX);
        let fetched = self
            .ask(|life| fetch_records(&self.client, self.route(), Some(life), end, nothing).boxed())
            .await?;
        if let Some((_, Some(glance))) = fetched {
            self.mirror.take(glance);
        }
        Ok(())
    }

    fn reach(&self, producer: &str) -> Offset {
        self.mirror.reach(producer)
    }

    async fn hold(&self, producer: &str, reach: Offset) -> Result<(), StageError> {
        // Were the next life of the engine told that it has begun, that would end what is noted now.
        lock(&self.began).remove(producer);
        self.pin(&held_cursor(producer), reach).await
    }

    async fn begun(&self, producer: &str) -> Result<(), StageError> {
        let name = producer.to_owned();
        lock(&self.began).insert(name.clone());
        let name = &name;
        let glance = self
            .ask(|life| async move { self.put_begun(life, name).await }.boxed())
            .await?;
        if let Some(glance) = glance {
            self.mirror.take(glance);
        }
        Ok(())
    }

    fn count_between(&self, from: Offset, to: Offset) -> u64 {
        self.mirror.count_between(from, to)
    }

    fn given_before(&self, offset: Offset) -> Given {
        self.mirror.given_before(offset)
    }

    async fn report(&self, producer: &str, report: &Report) -> bool {
        // Nobody waits for this: it is told again soon.
        let Some(life) = self.mirror.answering() else {
            return false;
        };
        let route = format!("{}/deliveries/{}", self.route(), escaped(producer));
        self.client.put(&route, Some(life), report).await.is_ok()
    }

    fn watch_head(&self) -> watch::Receiver<Offset> {
        self.mirror.watch_head()
    }
}
