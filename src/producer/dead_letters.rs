//! What an operator can do about dead letters: look at them, deliver them after all, give them up.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::exit::RunnerError;
use crate::record::{Offset, Timestamp};

/// Which dead letters of a producer are meant; those that fulfil all that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Of this stage.
    pub stage: Option<String>,
    /// Whose reason holds this text, in letters of any case.
    pub reason: Option<String>,
    /// With this SQLSTATE.
    pub sqlstate: Option<String>,
    /// Of this message or a later one.
    pub from: Option<Offset>,
    /// Of a message before this one.
    pub to: Option<Offset>,
    /// Of these numbers; of any when there is none.
    pub ids: Vec<i64>,
}

/// A dead letter as it stands in the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its number.
    pub id: i64,
    /// The stage of the message.
    pub stage: String,
    /// The message.
    pub offset: Offset,
    /// The record of the message that is at fault, if it is one.
    pub record_index: Option<i32>,
    /// When the message was received.
    pub received_at: Timestamp,
    /// What the server called it, if the server refused.
    pub sqlstate: Option<String>,
    /// In words.
    pub reason: String,
    /// The table of the replay that it comes from, if that is not the producer's own.
    pub into_table: Option<String>,
    /// Bytes of the message.
    pub bytes: u64,
    /// The message, if it was asked for.
    pub payload: Option<Vec<u8>>,
}

/// What became of dead letters that were tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Retried {
    /// Dead letters that are rows now.
    pub delivered: u64,
    /// Their rows.
    pub rows: u64,
    /// Dead letters that can't be rows still.
    pub failed: u64,
    /// Dead letters that somebody else is at.
    pub busy: u64,
    /// Whether it ended before all were tried.
    pub stopped: bool,
}

/// The dead letters that a filter picked when somebody looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PickedLetters {
    /// How many.
    pub letters: u64,
    /// The highest of their numbers.
    pub last: i64,
}

/// The dead letters in a producer's sink.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// How many there are.
    ///
    /// # Errors
    /// When the sink can't be asked.
    async fn count(&self, producer: &str, filter: &LetterFilter) -> Result<PickedLetters, RunnerError>;

    /// How many there are of each stage that has any.
    ///
    /// # Errors
    /// As [`count`](Self::count).
    async fn by_stage(
        &self,
        producer: &str,
        filter: &LetterFilter,
    ) -> Result<BTreeMap<String, u64>, RunnerError>;

    /// Those with a number above `after`, at most `limit`, in order of number; with their messages fewer, so that their bytes
    /// are bounded.
    ///
    /// # Errors
    /// As [`count`](Self::count).
    async fn page(
        &self,
        producer: &str,
        filter: &LetterFilter,
        after: i64,
        limit: u32,
        with_payload: bool,
    ) -> Result<Vec<Letter>, RunnerError>;

    /// Gives up those that were picked, and none that has come since; returns how many those were.
    ///
    /// # Errors
    /// As [`count`](Self::count), and when there are more of them now; nothing is given up then, or it can't be told.
    async fn discard(
        &self,
        producer: &str,
        filter: &LetterFilter,
        picked: PickedLetters,
    ) -> Result<u64, RunnerError>;

    /// Delivers them as the configuration has it now. Those that still can't be rows stay, with the new reason. `anyway`:
    /// those too that a replay could deliver again later, which that replay is refused for then.
    ///
    /// # Errors
    /// When an operator has to mend something; what is delivered by then stays delivered.
    async fn retry(
        &self,
        producer: &str,
        filter: &LetterFilter,
        anyway: bool,
        stop: CancellationToken,
    ) -> Result<Retried, RunnerError>;
}
