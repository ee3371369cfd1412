//! A stretch of a stage: which messages were asked for, and reading them page by page.

use clap::Args;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::record::{Message, Offset, Timestamp};
use socket_el::stage::path::{BatchPosition, BatchQuery, StagePath, StageSummary};
use socket_el::stage::{ReadLimit, ReadOutcome, SharedStage};

use crate::chosen::Chosen;
use crate::place::stage_failed;
use crate::time::parse_since;

/// What one read returns at most, unless another limit is asked for.
const PAGE: ReadLimit = ReadLimit {
    messages: 1_000,
    bytes: 1 << 20,
};

/// Batches and outages looked at in one request for the first batch since a time.
const SEARCH: usize = 100;

/// Which messages.
#[derive(Debug, Args)]
pub(crate) struct RangeArgs {
    /// Begin with this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub(crate) from: u64,
    /// End before this offset
    #[arg(long, value_name = "OFFSET")]
    pub(crate) to: Option<u64>,
    /// Begin with what was received at this time: 2026-11-24T10:00:00Z, or a duration back such as 90m
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) since: Option<Timestamp>,
}

impl RangeArgs {
    /// The stretch as the stage is now: from the first message asked for to before the last.
    pub(crate) async fn resolve(&self, chosen: &Chosen) -> Result<Pages, RunnerError> {
        let bounds = chosen.summary.bounds;
        refuse_outside(chosen, self.from, self.to)?;
        let to = Offset::new(self.to.unwrap_or(u64::MAX)).min(bounds.head);
        let mut from = Offset::new(self.from).max(bounds.oldest);
        if let Some(since) = self.since {
            from = from.max(first_since(chosen.path.as_ref(), &chosen.stage()?, from, since).await?);
        }
        Ok(Pages::new(chosen.stage()?, from, to))
    }
}

/// Refuses a stretch that can hold nothing, as a mistake of who asks for it.
pub(crate) fn refuse_outside(chosen: &Chosen, from: u64, to: Option<u64>) -> Result<(), RunnerError> {
    let StageSummary { name, bounds, .. } = &chosen.summary;
    bounds
        .refuse_outside(name, Offset::new(from), to.map(Offset::new))
        .map_err(|error| RunnerError::new(ExitReason::Configuration, error))
}

/// Offset of the first message at `from` or after it that was received at `since` or later; the head if there is none.
pub(crate) async fn first_since(
    path: &dyn StagePath,
    stage: &SharedStage,
    from: Offset,
    since: Timestamp,
) -> Result<Offset, RunnerError> {
    let mut query = BatchQuery {
        from: BatchPosition {
            offset: from,
            part: 0,
        },
        since: Some(since),
        only_outages: false,
        limit: SEARCH,
    };
    let head = stage.bounds().head;
    let batch = loop {
        let page = path.batches(stage.name(), query).await.map_err(stage_failed)?;
        match (
            page.batches.into_iter().find(|batch| batch.outage.is_none()),
            page.next,
        ) {
            (Some(batch), _) => break batch,
            (None, Some(next)) => query.from = next,
            (None, None) => return Ok(head),
        }
    };
    let mut pages = Pages::new(stage.clone(), batch.first.max(from), batch.end);
    while let Some(page) = pages.next().await? {
        for batch in &page.batches {
            let mut messages = batch.messages_from(from);
            if let Some((offset, _)) = messages.find(|(_, message)| message.received_at >= since) {
                return Ok(offset);
            }
        }
    }
    Ok(batch.end)
}

/// Reads a stretch of a stage.
#[derive(Clone)]
pub(crate) struct Pages {
    stage: SharedStage,
    at: Offset,
    to: Offset,
    limit: ReadLimit,
}

impl Pages {
    pub(crate) fn new(stage: SharedStage, from: Offset, to: Offset) -> Self {
        Self {
            stage,
            at: from,
            to,
            limit: PAGE,
        }
    }

    /// With pages of up to this size.
    pub(crate) fn limited(self, limit: ReadLimit) -> Self {
        Self { limit, ..self }
    }

    /// Where the next page begins.
    pub(crate) fn at(&self) -> Offset {
        self.at
    }

    /// Where the last page ends.
    pub(crate) fn to(&self) -> Offset {
        self.to
    }

    /// The messages of a page that were asked for; `from` is what [`at`](Self::at) was before it.
    pub(crate) fn messages<'p>(
        &self,
        page: &'p ReadOutcome,
        from: Offset,
    ) -> impl Iterator<Item = (Offset, Message<'p>)> + use<'p> {
        let to = self.to;
        let messages = page
            .batches
            .iter()
            .flat_map(move |batch| batch.messages_from(from));
        messages.take_while(move |(offset, _)| *offset < to)
    }

    /// The next batches and gaps; `None` at the end. What they hold before [`at`](Self::at) as it was, or at
    /// [`to`](Self::to) and behind it, was not asked for.
    pub(crate) async fn next(&mut self) -> Result<Option<ReadOutcome>, RunnerError> {
        if self.at >= self.to {
            return Ok(None);
        }
        let page = self.stage.read(self.at, self.limit).await.map_err(stage_failed)?;
        if page.next <= self.at {
            return Ok(None);
        }
        self.at = page.next;
        Ok(Some(page))
    }
}
