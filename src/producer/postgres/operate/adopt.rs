//! A stage path takes over the cursor of another path (or of its own earlier life): what `stage-inspect adopt` does.
//!
//! The row's lock is taken first, so that a transaction of the other engine is either committed before or never; the epoch
//! is raised, so that the other engine stops with the exit code for being fenced at its next transaction.

use std::fmt;

use uuid::Uuid;

use super::cursor::{OwnTables, from_sql, to_sql};
use super::dial::ConnectError;
use super::outcomes;
use super::session::{LASTING_COMMIT, Session, describe};
use super::target::Target;
use crate::producer::Adoption;
use crate::record::Offset;
use crate::stage::path::replay_cursor;
use crate::stage::report::Outcomes;
use crate::stage::{Bounds, StageError};

/// How long the engine that holds the row may take to end its transaction, in milliseconds.
const LOCK_TIMEOUT_MS: u32 = 30_000;

/// What an adoption did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The path that had the cursor before; `None` when there was no cursor.
    pub previous_path: Option<Uuid>,
    /// Where that path's cursor stood.
    pub previous_offset: Option<Offset>,
    /// The offset of the next message to be delivered.
    pub next_offset: Offset,
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.previous_path, self.previous_offset) {
            (Some(path), Some(offset)) => {
                write!(f, "the cursor belonged to stage path {path} at offset {offset}; ")?;
            }
            _ => f.write_str("there was no cursor; ")?,
        }
        write!(
            f,
            "it is this stage's now and delivery begins at offset {}",
            self.next_offset
        )
    }
}

/// Why an adoption failed.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is no session to be had.
    #[error("can't use the database {target}: {reason}")]
    Connect {
        /// Which.
        target: String,
        /// Why.
        reason: String,
    },
    /// `keep_cursor`, but there is none.
    #[error(
        "producer {producer} has no cursor for stage {stage} that could be kept. Adopt without `--keep-cursor`, which begins at the oldest message"
    )]
    NoCursor {
        /// The stage.
        stage: String,
        /// The producer.
        producer: String,
    },
    /// The cursor comes from this stage's own past.
    #[error(
        "the cursor of stage {stage} and producer {producer} is this stage path's already, and stands at offset {cursor}: there is \
         nothing to take over, and to begin at the oldest message would deliver again what is delivered. `stage-inspect replay` does \
         that without doubling rows"
    )]
    Ours {
        /// The stage.
        stage: String,
        /// The producer.
        producer: String,
        /// Where it stands.
        cursor: Offset,
    },
    /// `keep_cursor`, but the stage has not come there.
    #[error(
        "the cursor of stage {stage} and producer {producer} stands at offset {cursor}, and this stage ends at {head}: what comes next \
         would be passed over as delivered. Adopt without `--keep-cursor`, which begins at the oldest message"
    )]
    BeyondHead {
        /// The stage.
        stage: String,
        /// The producer.
        producer: String,
        /// Where it stands.
        cursor: Offset,
        /// Where the stage ends.
        head: Offset,
    },
    /// What a replay has still to deliver would be delivered twice.
    #[error(
        "a replay of stage {stage} by {producer} is unfinished. Finish it with `stage-inspect replay {stage} --producer {producer} \
         --resume`, or end it where it stands with --abandon, and adopt then"
    )]
    ReplayUnfinished {
        /// The stage.
        stage: String,
        /// The producer.
        producer: String,
    },
    /// Where the stage stands can't be told; nothing is changed.
    #[error("{0}")]
    Unread(#[source] StageError),
    /// The stage did not take the cursor; the database has it.
    #[error("the database's cursor is adopted, but the stage's own copy could not be set: {0}. Adopt again")]
    Stage(#[from] StageError),
    /// The database refused.
    #[error("the database refused: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// Makes the cursor of the adoption's stage and producer belong to its stage path, and sets the stage's own copy to the
/// same offset, so that it pins what is to be delivered.
///
/// # Errors
/// See [`AdoptError`]; nothing is changed in the database then.
pub async fn adopt(target: &Target, adoption: &Adoption) -> Result<Adopted, AdoptError> {
    let Adoption {
        producer,
        stage: adopting,
        keep_cursor,
    } = adoption;
    let (stage, path_id) = (adopting.name(), adopting.path_id());
    let mut session = Session::open(target)
        .await
        .map_err(|error: ConnectError| AdoptError::Connect {
            target: target.to_string(),
            reason: error.to_string(),
        })?;
    let tables = OwnTables::new(target.schema());
    tables.make(&session.client, target.schema()).await?;
    let transaction = session.client.transaction().await?;
    transaction
        .batch_execute(&format!(
            "SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; {LASTING_COMMIT}"
        ))
        .await?;
    let found = transaction
        .query_opt(
            &format!(
                "SELECT stage_path_id::text, next_offset FROM {} WHERE stage = $1 AND producer = $2 FOR UPDATE",
                tables.cursor()
            ),
            &[&stage, &producer],
        )
        .await?;
    let (previous_path, previous_offset) = match found {
        Some(row) => {
            let path: String = row.try_get(0)?;
            (Uuid::parse_str(&path).ok(), Some(from_sql(row.try_get(1)?)))
        }
        None => (None, None),
    };
    adopting.refresh().await.map_err(AdoptError::Unread)?;
    let named = || (stage.to_owned(), producer.clone());
    let replay = format!(
        "SELECT FROM {} WHERE stage = $1 AND producer = $2 FOR SHARE",
        tables.cursor()
    );
    let replay = transaction
        .query_opt(&replay, &[&stage, &replay_cursor(producer)])
        .await?;
    if replay.is_some() {
        let (stage, producer) = named();
        return Err(AdoptError::ReplayUnfinished { stage, producer });
    }
    let own = previous_offset.filter(|_| previous_path == Some(path_id));
    if let Some(cursor) = own.filter(|cursor| *cursor <= adopting.reach(producer)) {
        let (stage, producer) = named();
        return Err(AdoptError::Ours {
            stage,
            producer,
            cursor,
        });
    }
    let Bounds { oldest, head, .. } = adopting.bounds();
    let next_offset = match (*keep_cursor, previous_offset) {
        (false, _) => oldest,
        (true, Some(kept)) => kept,
        (true, None) => adopting.cursor(producer).ok_or_else(|| {
            let (stage, producer) = named();
            AdoptError::NoCursor { stage, producer }
        })?,
    };
    if next_offset > head {
        let (stage, producer) = named();
        return Err(AdoptError::BeyondHead {
            stage,
            producer,
            cursor: next_offset,
            head,
        });
    }
    transaction
        .execute(
            &format!(
                "INSERT INTO {} AS c (stage_path_id, stage, producer, epoch, next_offset) \
                 VALUES ($1::text::uuid, $2, $3, 1, $4) \
                 ON CONFLICT (stage, producer) DO UPDATE SET stage_path_id = EXCLUDED.stage_path_id, \
                 epoch = c.epoch + 1, next_offset = EXCLUDED.next_offset, updated_at = now()",
                tables.cursor()
            ),
            &[&path_id.to_string(), &stage, &producer, &to_sql(next_offset)],
        )
        .await?;
    // The counts begin anew: what an operator knows to be there counts as delivered.
    let before = adopting.given_before(next_offset).messages;
    let outcomes = match keep_cursor {
        true => Outcomes {
            delivered: before,
            ..Outcomes::default()
        },
        false => Outcomes {
            skipped: before,
            ..Outcomes::default()
        },
    };
    transaction
        .execute(
            &format!(
                "UPDATE {} SET {} WHERE stage = $1 AND producer = $2",
                tables.cursor(),
                outcomes::set_sql(outcomes)
            ),
            &[&stage, &producer],
        )
        .await?;
    // Whatever is recorded of its tables: their rows of this stage begin no later.
    transaction
        .execute(
            &format!(
                "UPDATE {} SET from_offset = $3 WHERE stage = $1 AND producer = $2 AND from_offset > $3",
                tables.table()
            ),
            &[&stage, &producer, &to_sql(next_offset)],
        )
        .await?;
    transaction.commit().await?;
    adopting.ack(producer, next_offset).await?;
    // From now on the cursor is one of this stage's, whatever was held before.
    adopting.begun(producer).await?;
    Ok(Adopted {
        previous_path,
        previous_offset,
        next_offset,
    })
}
