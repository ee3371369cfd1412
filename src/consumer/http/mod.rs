//! The variety `http`: what a server answers to `GET`, asked at an interval.
//!
//! [`Polls::run`] is the life of it: ask, stage what is new, wait, ask again, one poll after the other. An answer is one
//! message, or with `records` each of its records is one, byte for byte; of an answer that is not whole nothing is staged. The validators of
//! the last answer (ETag, Last-Modified) go with the next request, and an answer that nothing has changed stages nothing. They
//! are forgotten with the process, so the first answer after a start is staged in any case.
//!
//! After a poll that failed, the stretch from the last good answer to the next one is recorded in the stage, between the
//! messages before and after it; so is the time without an engine. Before the first good answer of all there is none: nobody was
//! promised messages yet.
//!
//! Left to others: batches and backpressure ([`Batcher`]), what the messages mean.

mod client;
mod error;
mod settings;
mod status;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::batcher::Batcher;
use super::gap::Gap;
use super::patience::patiently;
use super::{Consumer, ConsumerContext, ConsumerVariety, stage_failed};
use crate::config::Section;
use crate::exit::RunnerError;
use crate::json_path::RecordsPath;
use crate::record::Timestamp;
use crate::stage::StageError;
use crate::stats::ConsumerStats;
use client::{Answer, Client};
use error::PollError;
use settings::Settings;
use status::Status;

/// Most records of one answer: bounds what a small answer of many tiny records takes.
const MAX_RECORDS: usize = 1_000_000;
/// How a stretch ends that has no end.
const STOPPED: &str = "no good answer before the engine stopped";

/// Makes consumers that poll HTTP servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpVariety;

impl ConsumerVariety for HttpVariety {
    fn name(&self) -> &'static str {
        "http"
    }

    fn configure(&self, _name: &str, section: &mut Section<'_>) -> Option<Box<dyn Consumer>> {
        let settings = Settings::read(section)?;
        Some(Box::new(HttpConsumer { settings }))
    }
}

/// Polls one HTTP server.
struct HttpConsumer {
    settings: Settings,
}

#[async_trait]
impl Consumer for HttpConsumer {
    async fn run(self: Box<Self>, context: ConsumerContext) -> Result<(), RunnerError> {
        let status = Status::new(
            &context.name,
            self.settings.endpoint.shown(),
            Arc::clone(&context.stats),
            self.settings.idle_timeout,
        );
        let polls = Polls {
            settings: &self.settings,
            status,
            batcher: Batcher::new(&context),
            gap: context.stage.last_seen().map(Gap::since_earlier_run),
            last_good: None,
        };
        let polled = polls.run(&context).await;
        polled.map_err(|error| stage_failed(&context.name, error))
    }

    async fn probe(&self) -> Result<String, String> {
        let begun = Instant::now();
        let shown = self.settings.endpoint.shown();
        let mut client = Client::new(&self.settings, &Arc::<ConsumerStats>::default());
        let polled = client.poll().await;
        let took = begun.elapsed().as_millis();
        let found = match &polled {
            Ok(None) => Ok((0, 0)),
            Ok(Some(answer)) => messages(answer, self.settings.records.as_ref())
                .map(|messages| (messages.len(), answer.body.len()))
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok((count, bytes)) => {
                let s = if count == 1 { "" } else { "s" };
                Ok(format!(
                    "{shown}: answered in {took} ms with {bytes} bytes, {count} message{s}"
                ))
            }
            Err(error) => Err(format!("{shown}: {error}")),
        }
    }
}

/// The messages of an answer.
fn messages<'a>(answer: &'a Answer, records: Option<&RecordsPath>) -> Result<Vec<&'a [u8]>, PollError> {
    match records {
        None => Ok(vec![&answer.body]),
        Some(path) => {
            let found = path.find(&answer.body, MAX_RECORDS)?;
            Ok(found.into_iter().map(str::as_bytes).collect())
        }
    }
}

/// One poll after the other.
struct Polls<'s> {
    settings: &'s Settings,
    status: Status,
    batcher: Batcher,
    /// The stretch without a good answer that is not over.
    gap: Option<Gap>,
    /// When the last good answer came.
    last_good: Option<Timestamp>,
}

impl Polls<'_> {
    /// Polls until the consumer is to stop.
    async fn run(mut self, context: &ConsumerContext) -> Result<(), StageError> {
        let mut client = Client::new(self.settings, &context.stats);
        let mut backoff = self.settings.backoff.clone();
        let mut due_at = Instant::now();
        while let Some((polled, begun)) = self.poll(&mut client, due_at, &context.stop).await? {
            let staged = match polled {
                Ok(answer) => self.take(&mut client, answer).await?,
                Err(error) => Err(error),
            };
            let now = Instant::now();
            match staged {
                Ok(messages) => {
                    backoff.reset();
                    due_at = begun + self.settings.interval;
                    self.status.answered(messages, now - begun);
                }
                Err(error) => {
                    let delay = error.remedy().delay(&mut backoff);
                    due_at = now + delay;
                    self.status.failed(&error, delay);
                    self.missed(&error.to_string());
                }
            }
        }
        self.status.stopped();
        if self.gap.is_some() {
            self.missed(STOPPED);
            self.record(Timestamp::now()).await?;
        }
        self.batcher.finish().await
    }

    /// Asks when it is time to; meanwhile batches become due. `None` when the consumer is to stop.
    async fn poll(
        &mut self,
        client: &mut Client<'_>,
        due_at: Instant,
        stop: &CancellationToken,
    ) -> Result<Option<(Result<Option<Answer>, PollError>, Instant)>, StageError> {
        let mut polling = pin!(async {
            sleep_until(due_at).await;
            self.status.polling();
            let begun = Instant::now();
            (client.poll().await, begun)
        });
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                due = self.batcher.due() => {
                    due?;
                    patiently(&self.status, self.batcher.flush()).await?;
                }
                polled = &mut polling => return Ok(Some(polled)),
            }
        }
    }

    /// Stages what an answer holds, behind the stretch before it; says how many messages that are.
    async fn take(
        &mut self,
        client: &mut Client<'_>,
        answer: Option<Answer>,
    ) -> Result<Result<usize, PollError>, StageError> {
        let now = Timestamp::now();
        let mut staged = 0;
        if let Some(answer) = answer {
            let messages = match messages(&answer, self.settings.records.as_ref()) {
                Ok(messages) => messages,
                Err(error) => return Ok(Err(error)),
            };
            self.record(now).await?;
            for message in &messages {
                patiently(&self.status, self.batcher.push(message, now)).await?;
            }
            staged = messages.len();
            client.took(answer);
        }
        self.record(now).await?;
        self.last_good = Some(now);
        Ok(Ok(staged))
    }

    /// A poll failed.
    fn missed(&mut self, cause: &str) {
        match (&mut self.gap, self.last_good) {
            (Some(gap), _) => gap.goes_on(cause.to_owned()),
            (None, Some(since)) => self.gap = Some(Gap::new(since, cause.to_owned())),
            (None, None) => {}
        }
    }

    /// Records the stretch without a good answer, if there is one: it is over.
    async fn record(&mut self, now: Timestamp) -> Result<(), StageError> {
        if let Some(gap) = self.gap.take() {
            patiently(&self.status, self.batcher.append_outage(gap.outage(now))).await?;
        }
        Ok(())
    }
}
