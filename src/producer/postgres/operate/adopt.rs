//! A stage path takes over the cursor of another path (or of its own earlier life): what `stage-inspect adopt` does.
//!
//! The row's lock is taken first, so that a transaction of the other engine is either committed before or never; the epoch
//! is raised, so that the other engine stops with the exit code for being fenced at its next transaction.
//!
//! Invariant: of a message that is delivered again no dead letter stays, so that it is a row or a dead letter afterwards, and
//! not both. What can't be told to be this stage's own message stays, and is not counted.

use tokio_postgres::Client;
use uuid::Uuid;

use super::super::cursor::{CursorKey, OwnTables, from_sql, to_sql};
use super::super::dial::ConnectError;
use super::super::outcomes;
use super::super::session::{Session, describe};
use super::super::table::{Router, Table};
use super::super::{PostgresOptions, Target};
use super::error::OperateError;
use super::{facts, router_of};
use crate::producer::{Adoption, AdoptionPlan, DoubledTable};
use crate::record::Offset;
use crate::stage::path::replay_cursor;
use crate::stage::report::Outcomes;
use crate::stage::{Bounds, Stage, StageError};

/// Dead letters that are looked at together.
const LETTERS_AT_ONCE: i64 = 10_000;

/// Why an adoption failed.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum AdoptError {
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
    /// The tables can't be looked at.
    #[error("{0}")]
    Tables(String),
}

impl From<OperateError> for AdoptError {
    fn from(error: OperateError) -> Self {
        Self::Tables(error.to_string())
    }
}

/// What the adoption comes to; nothing is changed but that our own tables are made where there are none.
///
/// # Errors
/// See [`AdoptError`].
pub(in super::super) async fn plan(
    target: &Target,
    options: &PostgresOptions,
    adoption: &Adoption,
) -> Result<AdoptionPlan, AdoptError> {
    let taking = Taking::begin(target, options, adoption).await?;
    taking.session.client.batch_execute("ROLLBACK").await?;
    Ok(taking.plan)
}

/// Makes the cursor of the adoption's stage and producer belong to its stage path, and sets the stage's own copy to the
/// same offset, so that it pins what is to be delivered.
///
/// # Errors
/// See [`AdoptError`]; nothing is changed in the database then.
pub(in super::super) async fn adopt(
    target: &Target,
    options: &PostgresOptions,
    adoption: &Adoption,
) -> Result<AdoptionPlan, AdoptError> {
    let Taking {
        session,
        tables,
        key,
        plan,
    } = Taking::begin(target, options, adoption).await?;
    let (client, next) = (&session.client, to_sql(plan.next_offset));
    client
        .execute(
            &format!(
                "INSERT INTO {} AS c (stage_path_id, stage, producer, epoch, next_offset) \
                 VALUES ($1::text::uuid, $2, $3, 1, $4) \
                 ON CONFLICT (stage, producer) DO UPDATE SET stage_path_id = EXCLUDED.stage_path_id, \
                 epoch = c.epoch + 1, next_offset = EXCLUDED.next_offset, updated_at = now()",
                tables.cursor()
            ),
            &[&key.path_id.to_string(), &key.stage, &key.producer, &next],
        )
        .await?;
    client
        .execute(
            &format!(
                "UPDATE {} SET {} WHERE stage = $1 AND producer = $2",
                tables.cursor(),
                outcomes::set_sql(plan.outcomes)
            ),
            &[&key.stage, &key.producer],
        )
        .await?;
    // Whatever is recorded of its tables: their rows of this stage begin no later.
    client
        .execute(
            &format!(
                "UPDATE {} SET from_offset = $3 WHERE stage = $1 AND producer = $2 AND from_offset > $3",
                tables.table()
            ),
            &[&key.stage, &key.producer, &next],
        )
        .await?;
    letters_ahead(client, &tables, &key, adoption, plan.next_offset, true).await?;
    // Before the commit: between it and the pin, what is to be delivered again could be removed. Should the commit fail, delivery
    // is held as before.
    adoption.stage.pin(&adoption.producer, plan.next_offset).await?;
    client.batch_execute("COMMIT").await?;
    // From now on the cursor is one of this stage's, whatever was held before.
    adoption.stage.begun(&adoption.producer).await?;
    Ok(plan)
}

/// An adoption inside its open transaction, with the row locked.
struct Taking {
    session: Session,
    tables: OwnTables,
    key: CursorKey,
    plan: AdoptionPlan,
}

impl Taking {
    async fn begin(
        target: &Target,
        options: &PostgresOptions,
        adoption: &Adoption,
    ) -> Result<Self, AdoptError> {
        let stage = adoption.stage.as_ref();
        let key = CursorKey {
            path_id: stage.path_id(),
            stage: stage.name().to_owned(),
            producer: adoption.producer.clone(),
            into_table: None,
        };
        let session = Session::open(target)
            .await
            .map_err(|error: ConnectError| AdoptError::Connect {
                target: target.to_string(),
                reason: error.to_string(),
            })?;
        let tables = OwnTables::new(target.schema());
        tables.make(&session.client, target.schema()).await?;
        session.client.batch_execute(&facts::begin_sql()).await?;
        let found = lock(&session.client, &tables, &key).await?;
        stage.refresh().await.map_err(AdoptError::Unread)?;
        refuse_unfinished_replay(&session.client, &tables, &key).await?;
        let next = next_offset(adoption, &key, found)?;
        let router = router_of(target.schema(), options, &key.stage)?;
        let plan = foresee(&session.client, &tables, &key, adoption, found, next, &router).await?;
        Ok(Self {
            session,
            tables,
            key,
            plan,
        })
    }
}

/// The row as it was found: whose it is, and where its cursor stands.
type Found = Option<(Uuid, Offset)>;

async fn lock(client: &Client, tables: &OwnTables, key: &CursorKey) -> Result<Found, AdoptError> {
    let sql = format!(
        "SELECT stage_path_id::text, next_offset FROM {} WHERE stage = $1 AND producer = $2 FOR UPDATE",
        tables.cursor()
    );
    let Some(row) = client.query_opt(&sql, &[&key.stage, &key.producer]).await? else {
        return Ok(None);
    };
    let path: String = row.try_get(0)?;
    Ok(Some((
        Uuid::parse_str(&path).unwrap_or_default(),
        from_sql(row.try_get(1)?),
    )))
}

async fn refuse_unfinished_replay(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
) -> Result<(), AdoptError> {
    let sql = format!(
        "SELECT FROM {} WHERE stage = $1 AND producer = $2 FOR SHARE",
        tables.cursor()
    );
    let replay = client
        .query_opt(&sql, &[&key.stage, &replay_cursor(&key.producer)])
        .await?;
    match replay {
        None => Ok(()),
        Some(_) => Err(AdoptError::ReplayUnfinished {
            stage: key.stage.clone(),
            producer: key.producer.clone(),
        }),
    }
}

/// Where delivery begins, or why nothing is adopted.
fn next_offset(adoption: &Adoption, key: &CursorKey, found: Found) -> Result<Offset, AdoptError> {
    let adopting = adoption.stage.as_ref();
    let (stage, producer) = (key.stage.clone(), key.producer.clone());
    let own = found.filter(|(path, _)| *path == key.path_id);
    if let Some((_, cursor)) = own.filter(|(_, cursor)| *cursor <= adopting.reach(&key.producer)) {
        return Err(AdoptError::Ours {
            stage,
            producer,
            cursor,
        });
    }
    let Bounds { oldest, head, .. } = adopting.bounds();
    let next = match (adoption.keep_cursor, found) {
        (false, _) => oldest,
        (true, Some((_, kept))) => kept,
        (true, None) => match adopting.cursor(&key.producer) {
            Some(remembered) => remembered,
            None => return Err(AdoptError::NoCursor { stage, producer }),
        },
    };
    if next > head {
        return Err(AdoptError::BeyondHead {
            stage,
            producer,
            cursor: next,
            head,
        });
    }
    Ok(next)
}

/// What comes of it.
async fn foresee(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    adoption: &Adoption,
    found: Found,
    next: Offset,
    router: &Router,
) -> Result<AdoptionPlan, AdoptError> {
    let stage = adoption.stage.as_ref();
    let oldest = stage.bounds().oldest;
    let remembered = stage.cursor(&key.producer);
    let delivered = remembered.unwrap_or(oldest);
    let before = stage.given_before(next).messages;
    let known = outcomes::uncounted(client, tables, key, next, before).await?;
    // What an operator knows to be there counts as delivered, and so does what the stage remembers; all else was stepped over.
    let is_delivered = adoption.keep_cursor || remembered.is_some_and(|delivered| delivered >= next);
    let outcomes = match is_delivered {
        true => known,
        false => Outcomes {
            delivered: 0,
            skipped: known.skipped + known.delivered,
            ..known
        },
    };
    let mut doubled = Vec::new();
    for table in router.tables() {
        let messages = doubled_in(client, tables, key, stage, table, next..delivered).await?;
        if messages > 0 {
            doubled.push(DoubledTable {
                table: table.name_sql().to_owned(),
                messages,
            });
        }
    }
    let letters = letters_ahead(client, tables, key, adoption, next, false).await?;
    Ok(AdoptionPlan {
        stage_path: key.path_id,
        previous_path: found.map(|(path, _)| path),
        previous_offset: found.map(|(_, offset)| offset),
        next_offset: next,
        remembered,
        delivered_again: stage.count_between(next, delivered.max(next)),
        passed_over: stage.count_between(delivered.max(oldest).min(next), next),
        doubled,
        letters_removed: letters.removed,
        letters_kept: letters.kept,
        outcomes,
    })
}

/// Of how many messages among these, which are delivered again, a table can hold rows already.
async fn doubled_in(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    stage: &dyn Stage,
    table: &Table,
    again: std::ops::Range<Offset>,
) -> Result<u64, AdoptError> {
    if again.is_empty() || table.mapping().on_conflict.is_some() {
        return Ok(0);
    }
    let found = facts::look_at_table(client, tables, key, table.mapping(), table.name_sql()).await?;
    if found.is_empty {
        return Ok(0);
    }
    // One that was made anew later has no rows of the messages before.
    let from = found
        .holds_from
        .map_or(again.start, |holds_from| holds_from.max(again.start));
    Ok(stage.count_between(from, again.end.max(from)))
}

/// Dead letters of messages from the cursor on.
#[derive(Default)]
struct LettersAhead {
    /// Their messages are in the stage, and come again.
    removed: u64,
    /// Theirs are not, or were another stage's: they stay, uncounted.
    kept: u64,
}

/// Deals with the dead letters from `next` on, or only counts them.
async fn letters_ahead(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    adoption: &Adoption,
    next: Offset,
    does_it: bool,
) -> Result<LettersAhead, AdoptError> {
    let stage = adoption.stage.as_ref();
    // Beyond it an offset is one of a copy's that went on by itself, with other messages.
    let own_until = stage.reach(&key.producer);
    let letters = tables.dead_letter();
    let page = format!(
        "SELECT id, message_offset FROM {letters} WHERE stage = $1 AND producer = $2 AND stage_path_id = $3::text::uuid \
         AND into_table IS NULL AND message_offset >= $4 AND id > $5 ORDER BY id LIMIT {LETTERS_AT_ONCE}"
    );
    let (path_id, mut after, mut ahead) = (key.path_id.to_string(), i64::MIN, LettersAhead::default());
    loop {
        let rows = client
            .query(
                &page,
                &[&key.stage, &key.producer, &path_id, &to_sql(next), &after],
            )
            .await?;
        let (mut removed, mut kept) = (Vec::new(), Vec::new());
        for row in &rows {
            let (id, offset): (i64, Offset) = (row.try_get(0)?, from_sql(row.try_get(1)?));
            after = id;
            let comes_again = offset < own_until && stage.count_between(offset, offset.advanced_by(1)) == 1;
            if comes_again { &mut removed } else { &mut kept }.push(id);
        }
        if rows.is_empty() {
            return Ok(ahead);
        }
        ahead.removed += removed.len() as u64;
        ahead.kept += kept.len() as u64;
        if does_it {
            let remove = format!("DELETE FROM {letters} WHERE id = ANY ($1)");
            client.execute(&remove, &[&removed]).await?;
            let uncount = format!("UPDATE {letters} SET replayed = true WHERE id = ANY ($1)");
            client.execute(&uncount, &[&kept]).await?;
        }
    }
}
