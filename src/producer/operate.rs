//! What an operator can have done about what a producer has delivered: again, not at all, or after all.
//!
//! The process that asks does the work itself, on the sink, under the same locks as an engine: so it is the same with and
//! without one running.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::remains::{Departed, Remains};
use crate::exit::RunnerError;
use crate::record::{Offset, Timestamp};
use crate::stage::path::StagePath;
use crate::stage::report::Passed;
use crate::stage::{SharedStage, StageError};
use crate::stats::ProducerStats;

/// The stage of a producer that something is done about.
#[derive(Clone)]
pub struct Scope {
    /// The producer's name.
    pub producer: String,
    /// The path of the stage.
    pub path: Arc<dyn StagePath>,
    /// The stage.
    pub stage: SharedStage,
}

impl Scope {
    /// The stage's durable head, asked for now: what the stage itself says of it may be some milliseconds old when an engine has it
    /// open, and older than a cursor that was read since.
    ///
    /// # Errors
    /// When the engine that has the stage open can't be asked.
    pub async fn head(&self) -> Result<Offset, StageError> {
        let summary = self.path.summary().await?;
        let seen = self.stage.bounds().head;
        let now = summary.stage(self.stage.name()).map(|stage| stage.bounds.head);
        Ok(now.map_or(seen, |now| now.max(seen)))
    }
}

/// What is to be delivered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayWish {
    /// The command as it was given, by which the same one is known again.
    pub asked: String,
    /// The first message.
    pub from: Offset,
    /// Before which message it ends, if not with the last one that was delivered.
    pub to: Option<Offset>,
    /// The table to deliver into, if not the producer's own; `{table}` in it stands for the name of each of these.
    pub into_table: Option<String>,
    /// Whether rows may stand twice.
    pub allow_duplicates: bool,
}

/// How it is prevented that a replay's rows stand twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubles {
    /// The table does not exist, or is empty.
    NoneThere,
    /// The table was made anew after these messages; the replay ends where its rows begin.
    MadeLater,
    /// The table has had its rows since it was made, and gets none.
    HasAll,
    /// Offsets that stand in the table are left out.
    LeftOut,
    /// A row that stands stays, and one of the same key is left out (`on_conflict: { action: ignore }`).
    FirstOfKey,
    /// A row takes the place of one of the same key (`on_conflict: { action: update }`). The replay goes on to where the
    /// producer stands at its end, so that the last message of each key is what stands.
    LastOfKey,
    /// It is not.
    Allowed,
}

/// What a replay is going to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPlan {
    /// The tables.
    pub tables: Vec<TablePlan>,
    /// The first offset.
    pub from: Offset,
    /// Where it stands: equal to `from`, or further on when it is resumed.
    pub next: Offset,
    /// The offset after the last.
    pub to: Offset,
    /// Messages from `next` to `to` that the stage holds.
    pub messages: u64,
    /// When the first of them was received.
    pub received_first: Option<Timestamp>,
    /// When the last of them was received.
    pub received_last: Option<Timestamp>,
    /// Messages among them that stand as dead letters. They are left out: `dead-letters retry` delivers them.
    pub dead_letters: u64,
}

/// What a replay is going to do to a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TablePlan {
    /// Its name, quoted for SQL.
    pub table: String,
    /// The offset after the last that may become rows of it.
    pub until: Offset,
    /// What becomes of rows that would stand twice.
    pub doubles: Doubles,
    /// Messages of the replay that stand in the table already.
    pub standing: u64,
    /// When the table was made anew, if that is what the end comes from.
    pub made_at: Option<String>,
}

impl ReplayPlan {
    /// Messages that stand in one of the tables already.
    #[must_use]
    pub fn standing(&self) -> u64 {
        self.tables.iter().map(|table| table.standing).sum()
    }
}

impl fmt::Display for TablePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.doubles {
            Doubles::NoneThere => f.write_str("no row stands twice: the table holds none of these messages yet"),
            Doubles::MadeLater => write!(
                f,
                "no row stands twice: the table was made anew{} and holds rows from offset {} on, where the replay ends",
                self.made_at
                    .as_deref()
                    .map_or(String::new(), |at| format!(" at {at}")),
                self.until
            ),
            Doubles::HasAll => {
                f.write_str("no row stands twice: the table has had its rows since it was made, and gets none")
            }
            Doubles::LeftOut => write!(
                f,
                "no row stands twice: offsets that stand in the table are left out ({} messages)",
                self.standing
            ),
            Doubles::FirstOfKey => {
                f.write_str("no row stands twice: rows whose key stands in the table are left out")
            }
            Doubles::LastOfKey => f.write_str(
                "no row stands twice: rows take the place of those of the same key. Until the replay has come to where the producer \
                 stands, rows may be set back to what older messages say",
            ),
            Doubles::Allowed => {
                f.write_str("rows that stand in the table already will stand twice, as was asked for")
            }
        }
    }
}

impl fmt::Display for ReplayPlan {
    /// A line for each table, with its name where there are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, table) in self.tables.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            match self.tables.len() {
                1 => write!(f, "{end}{table}")?,
                _ => write!(f, "{end}{}: {table}", table.table)?,
            }
        }
        Ok(())
    }
}

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayEnd {
    /// Everything is delivered, and nothing of the replay is left.
    Done,
    /// It was stopped, and can be resumed from here.
    Stopped(Offset),
}

/// What stepping over messages is going to do, or has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipping {
    /// The cursor before.
    pub from: Offset,
    /// The cursor afterwards.
    pub to: Offset,
    /// Messages between them.
    pub messages: u64,
    /// When the first of them was received.
    pub received_first: Option<Timestamp>,
    /// When the last of them was received.
    pub received_last: Option<Timestamp>,
}

/// What an operator can have a producer do beside delivering.
#[async_trait]
pub trait Operations: Send + Sync {
    /// How far it is, and what became of the messages before; `None` when it has not begun, or has not counted yet.
    ///
    /// # Errors
    /// When the sink can't be asked.
    async fn passed(&self, scope: &Scope) -> Result<Option<Passed>, RunnerError>;

    /// What a replay would do; nothing is changed.
    ///
    /// # Errors
    /// When it would be refused, or the sink or the stage can't be asked.
    async fn plan_replay(&self, scope: &Scope, wish: &ReplayWish) -> Result<ReplayPlan, RunnerError>;

    /// Begins a replay, or finds the unfinished one that the same wish has begun.
    ///
    /// # Errors
    /// As [`plan_replay`](Self::plan_replay), and when another replay is unfinished.
    async fn begin_replay(&self, scope: &Scope, wish: &ReplayWish) -> Result<ReplayPlan, RunnerError>;

    /// The unfinished replay, if there is one.
    ///
    /// # Errors
    /// When the sink or the stage can't be asked.
    async fn unfinished_replay(&self, scope: &Scope) -> Result<Option<ReplayPlan>, RunnerError>;

    /// Delivers what the begun replay has yet to deliver, until it is done or told to stop. Whoever else is at it is fenced.
    ///
    /// # Errors
    /// When it is fenced, or an operator has to mend something; it can be resumed.
    async fn replay(
        &self,
        scope: &Scope,
        stats: Arc<ProducerStats>,
        stop: CancellationToken,
    ) -> Result<ReplayEnd, RunnerError>;

    /// Ends an unfinished replay where it stands, and returns where that is; `None` when there was none.
    ///
    /// # Errors
    /// When the sink or the stage can't be asked.
    async fn abandon_replay(&self, scope: &Scope) -> Result<Option<Offset>, RunnerError>;

    /// What stepping over all messages before `to` would do; nothing is changed.
    ///
    /// # Errors
    /// When it would be refused, or the sink or the stage can't be asked.
    async fn plan_skip(&self, scope: &Scope, to: Offset) -> Result<Skipping, RunnerError>;

    /// Moves the cursor to `to`; the messages before it become dead letters.
    ///
    /// # Errors
    /// As [`plan_skip`](Self::plan_skip). What is skipped by then stays so.
    async fn skip(&self, scope: &Scope, to: Offset) -> Result<Skipping, RunnerError>;

    /// What the sink holds of a stage, or of a producer of it, that is forgotten, by producer; nothing is changed.
    ///
    /// # Errors
    /// When the sink can't be asked.
    async fn remains(&self, departed: &Departed) -> Result<Vec<Remains>, RunnerError>;

    /// Removes the cursors among what remains; returns how many those were.
    ///
    /// # Errors
    /// When the sink can't be asked.
    async fn forget_cursors(&self, departed: &Departed) -> Result<u64, RunnerError>;
}
