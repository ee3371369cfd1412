//! A stage takes over a cursor in the sink: what is asked for, and what it comes to, which is told before it is done.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use crate::record::Offset;
use crate::stage::SharedStage;
use crate::stage::report::Outcomes;

/// A stage that is to take over a cursor which belongs to another stage path, or to an earlier life of its own.
pub struct Adoption {
    /// The producer's name.
    pub producer: String,
    /// The stage, open in this process.
    pub stage: SharedStage,
    /// Go on where the cursor stands, or where there is none at the stage's own copy; otherwise at the oldest message.
    pub keep_cursor: bool,
}

/// What an adoption is going to do, or has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdoptionPlan {
    /// The stage's own path.
    pub stage_path: Uuid,
    /// The path that has the cursor; `None` when there is no cursor.
    pub previous_path: Option<Uuid>,
    /// Where that path's cursor stands.
    pub previous_offset: Option<Offset>,
    /// The offset of the next message to be delivered.
    pub next_offset: Offset,
    /// Up to which offset the stage remembers deliveries, by its own copy of the cursor.
    pub remembered: Option<Offset>,
    /// Messages that the stage remembers as delivered, and that are delivered again.
    pub delivered_again: u64,
    /// Messages of the stage that it does not remember as delivered, and that are passed over.
    pub passed_over: u64,
    /// Tables in which rows of messages that are delivered again can stand twice then.
    pub doubled: Vec<DoubledTable>,
    /// Dead letters that are removed, because their messages are delivered again.
    pub letters_removed: u64,
    /// Dead letters of later offsets whose messages the stage does not hold. They stay, and nothing counts them.
    pub letters_kept: u64,
    /// As what the messages before `next_offset` count from now on.
    pub outcomes: Outcomes,
}

/// A table whose rows can stand twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoubledTable {
    /// Its name, quoted for SQL.
    pub table: String,
    /// At most of so many messages.
    pub messages: u64,
}

impl fmt::Display for AdoptionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.previous_path, self.previous_offset) {
            (Some(path), Some(offset)) if path == self.stage_path => {
                write!(
                    f,
                    "the cursor stood at offset {offset}, which is not of this stage's past"
                )?;
            }
            (Some(path), Some(offset)) => {
                write!(f, "the cursor was of stage path {path}, at offset {offset}")?;
            }
            _ => f.write_str("the database has had no cursor")?,
        }
        write!(f, "; delivery begins at offset {}", self.next_offset)?;
        match (self.delivered_again, self.remembered) {
            (0, None) => f.write_str(", and the stage does not remember any delivery by this producer")?,
            (0, Some(remembered)) => write!(
                f,
                ", and the stage was delivered before offset {remembered}: no message comes again"
            )?,
            (again, _) => write!(
                f,
                ": {again} messages that the stage remembers as delivered are delivered again"
            )?,
        }
        for DoubledTable { table, messages } in &self.doubled {
            write!(
                f,
                ", so that table {table} can have rows of {messages} messages twice (to prevent it, empty the table first)"
            )?;
        }
        if self.letters_removed > 0 {
            write!(
                f,
                "; {} dead letters of them are removed, as their messages come again",
                self.letters_removed
            )?;
        }
        if self.letters_kept > 0 {
            write!(
                f,
                "; {} dead letters of later offsets, whose messages the stage does not hold, stay and are not counted",
                self.letters_kept
            )?;
        }
        if self.passed_over > 0 {
            write!(
                f,
                "; {} messages that the stage does not remember as delivered are passed over",
                self.passed_over
            )?;
        }
        let Outcomes {
            delivered,
            skipped,
            dead_letters,
            ..
        } = self.outcomes;
        if delivered + skipped + dead_letters > 0 {
            write!(
                f,
                "; what became of the messages before it is counted anew, as far as it is still known: {delivered} delivered, {skipped} \
                 skipped, {dead_letters} dead letters (those that the mapping left out, or that were dropped or lost, are among them)"
            )?;
        }
        Ok(())
    }
}
