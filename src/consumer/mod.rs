//! Consumers: take messages from a source and append them to their stage.
//!
//! A consumer receives, the [`Batcher`](batcher::Batcher) gathers and appends. A consumer never sees a
//! producer, and knows a stage only as [`Stage`](crate::stage::Stage).

pub mod batcher;
#[cfg(test)]
mod captured_log;
mod gap;
pub mod http;
#[cfg(test)]
mod memory_stage;
mod patience;
mod reach;
pub mod sequence;
pub mod socket;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::config::Section;
use crate::config::units::{ByteSize, Span};
use crate::exit::RunnerError;
use crate::stage::{SharedStage, StageError};
use crate::stats::ConsumerStats;

use self::sequence::Sequence;

/// Takes messages from one source until it is told to stop.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Receives messages and hands them to the context's stage, best through a
    /// [`Batcher`](batcher::Batcher), until `context.stop` is cancelled; then flushes and returns. A source that
    /// fails is no reason to return: wait and connect again.
    ///
    /// # Errors
    /// Only for what the operator must mend, or when the stage has failed: the whole process then stops.
    async fn run(self: Box<Self>, context: ConsumerContext) -> Result<(), RunnerError>;

    /// Tries the source once (`check --connect`) and says in one line what it found.
    ///
    /// # Errors
    /// In words: what failed and what to do.
    async fn probe(&self) -> Result<String, String> {
        Ok("nothing to connect to".to_owned())
    }
}

/// What a consumer is given to run with.
#[derive(Clone)]
pub struct ConsumerContext {
    /// The runner's name, which is its stage's too.
    pub name: String,
    /// Where messages go.
    pub stage: SharedStage,
    /// When a batch closes.
    pub batch: BatchLimits,
    /// Where messages have the source's own numbers, if those are to be checked.
    pub sequence: Option<Sequence>,
    /// To be counted as it happens.
    pub stats: Arc<ConsumerStats>,
    /// Cancelled when the consumer is to stop.
    pub stop: CancellationToken,
}

/// `batch_configuration`: a batch closes at whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of payload.
    pub bytes: ByteSize,
    /// Age of its first message.
    pub interval: Span,
}

/// A kind of consumer that `config.yml` can name with `variety`.
pub trait ConsumerVariety: Send + Sync {
    /// The name in `config.yml`.
    fn name(&self) -> &'static str;

    /// Reads the keys of one runner of this variety. The keys that all consumers have (`name`, `type`,
    /// `variety`, `stage`, `batch_configuration`, `sequence`) are read already. What is wrong is reported to the section, and
    /// `None` returned; keys that nobody asked for are reported as unknown afterwards.
    fn configure(&self, name: &str, section: &mut Section<'_>) -> Option<Box<dyn Consumer>>;
}

/// Ends a consumer whose stage has failed.
fn stage_failed(name: &str, error: StageError) -> RunnerError {
    let reason = error.exit_reason();
    RunnerError::new(
        reason,
        ConsumerFailed {
            name: name.to_owned(),
            error,
        },
    )
}

/// The stage took nothing more.
#[derive(Debug, thiserror::Error)]
#[error("consumer {name}: {error}")]
struct ConsumerFailed {
    name: String,
    error: StageError,
}
