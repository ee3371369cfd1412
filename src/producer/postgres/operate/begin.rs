//! The beginning of a replay: its row, made under the lock of the producer's own row, so that what is found then stays true
//! of the messages before the cursor.

use super::super::cursor::{CursorKey, OwnTables, to_sql};
use super::super::made;
use super::super::session::Session;
use super::super::{PostgresOptions, Target};
use super::decide::{Found, decide};
use super::error::OperateError;
use super::facts::{self, Remembered, ReplayRow};
use super::{options_into, own_key, replay_key, table_of};
use crate::producer::operate::{Doubles, ReplayPlan, ReplayWish, Scope};
use crate::record::{Offset, Timestamp};
use crate::stage::Bounds;

/// Begins a replay and says what it is going to do, or only says so.
pub(super) async fn begin(
    target: &Target,
    options: &PostgresOptions,
    scope: &Scope,
    wish: &ReplayWish,
    dry: bool,
) -> Result<ReplayPlan, OperateError> {
    let beginning = Beginning::new(target, options, scope, wish)?;
    let session = facts::connect(target).await?;
    let marked = beginning.look_at_rows(&session, scope).await?;
    session.client.batch_execute(&facts::begin_sql()).await?;
    let (_, cursor) = facts::lock_own(&session.client, &beginning.tables, &own_key(scope)).await?;
    let unfinished =
        facts::replay_row(&session.client, &beginning.tables, &beginning.key, "FOR UPDATE").await?;
    if let Some(row) = unfinished {
        refuse_other(scope, wish, &row)?;
        return plan(&session, options, target, scope, &row).await;
    }
    let (row, messages) = beginning.decide(&session, scope, wish, cursor, marked).await?;
    let mut plan = plan(&session, options, target, scope, &row).await?;
    plan.standing = messages;
    if dry {
        return Ok(plan);
    }
    let remembered = serde_json::to_string(&row.remembered)
        .map_err(|error| OperateError::Refused(format!("the replay can't be written down: {error}")))?;
    session
        .client
        .execute(
            &format!(
                "INSERT INTO {} (stage_path_id, stage, producer, epoch, next_offset, end_offset, replay) \
                 VALUES ($1::text::uuid, $2, $3, 1, $4, $5, $6::text::jsonb)",
                beginning.tables.cursor()
            ),
            &[
                &beginning.key.path_id.to_string(),
                &beginning.key.stage,
                &beginning.key.producer,
                &to_sql(row.next),
                &to_sql(row.to),
                &remembered,
            ],
        )
        .await?;
    // Before the commit: between it and the pin, what is to be delivered could be removed.
    scope.stage.ack(&beginning.key.producer, row.next).await?;
    if scope.stage.bounds().oldest > row.next {
        scope
            .path
            .forget_producer(scope.stage.name(), &beginning.key.producer)
            .await?;
        return Err(OperateError::Refused(
            "the oldest messages were removed this moment, for their retention is over. Ask again".to_owned(),
        ));
    }
    session.client.batch_execute("COMMIT").await?;
    Ok(plan)
}

/// The replay that is unfinished, if there is one.
pub(super) async fn unfinished(
    target: &Target,
    options: &PostgresOptions,
    scope: &Scope,
) -> Result<Option<ReplayPlan>, OperateError> {
    let session = facts::connect(target).await?;
    let tables = OwnTables::new(target.schema());
    match facts::replay_row(&session.client, &tables, &replay_key(scope), "").await? {
        None => Ok(None),
        Some(row) => {
            refuse_other_path(scope, &row)?;
            plan(&session, options, target, scope, &row).await.map(Some)
        }
    }
}

/// What a replay is begun with.
struct Beginning {
    tables: OwnTables,
    key: CursorKey,
    options: PostgresOptions,
    /// Quoted.
    table: String,
    bounds: Bounds,
    from: Offset,
    to: Offset,
}

impl Beginning {
    fn new(
        target: &Target,
        options: &PostgresOptions,
        scope: &Scope,
        wish: &ReplayWish,
    ) -> Result<Self, OperateError> {
        let stage = scope.stage.name();
        if wish.into_table.as_deref() == Some(options.table_for(stage).as_str()) {
            return Err(OperateError::Usage(format!(
                "--into names the table that stage {stage} is delivered into anyway. Leave it out"
            )));
        }
        let options = options_into(options, wish.into_table.as_deref())?;
        let bounds = scope.stage.bounds();
        Ok(Self {
            tables: OwnTables::new(target.schema()),
            key: CursorKey {
                into_table: wish.into_table.clone(),
                ..replay_key(scope)
            },
            table: table_of(target.schema(), &options, stage).name_sql().to_owned(),
            options,
            from: wish.from.max(bounds.oldest),
            to: wish.to.unwrap_or(bounds.head).min(bounds.head),
            bounds,
        })
    }

    /// Before any lock is held, for it takes its time. No row of these offsets comes in meanwhile but by another replay, of
    /// which there can be none at its end.
    async fn look_at_rows(
        &self,
        session: &Session,
        scope: &Scope,
    ) -> Result<(Option<super::decide::Marked>, Option<Timestamp>), OperateError> {
        let (first, _) = facts::times(scope, self.from, self.to).await?;
        let marked = facts::look_at_rows(
            &session.client,
            &self.options,
            &self.table,
            &self.key.stage,
            self.from..self.to,
            first,
        );
        Ok((marked.await?, first))
    }

    /// The row to be made, and how many messages stand in the table.
    async fn decide(
        &self,
        session: &Session,
        scope: &Scope,
        wish: &ReplayWish,
        cursor: Offset,
        (marked, received_from): (Option<super::decide::Marked>, Option<Timestamp>),
    ) -> Result<(ReplayRow, u64), OperateError> {
        let head = if cursor > self.bounds.head {
            scope.head().await?
        } else {
            self.bounds.head
        };
        if cursor > head {
            return Err(OperateError::Refused(format!(
                "the cursor in the database stands at offset {cursor}, beyond the stage's head at {head}: the stage is older than the \
                 cursor. Start the engine, which tells what to do"
            )));
        }
        let to = self.to.min(cursor);
        if self.from >= to {
            return Err(OperateError::Refused(format!(
                "there is nothing to deliver again: the stage holds messages from offset {} on, and {} has delivered those before \
                 offset {cursor}",
                self.bounds.oldest, scope.producer
            )));
        }
        let found = Found {
            marked,
            ..facts::look_at_table(
                &session.client,
                &self.tables,
                &self.key,
                &self.options,
                &self.table,
            )
            .await?
        };
        let (to, doubles) = decide(&self.table, found, wish.allow_duplicates, self.from, to)
            .map_err(OperateError::Refused)?;
        let row = ReplayRow {
            is_ours: true,
            next: self.from,
            to,
            remembered: Remembered {
                asked: wish.asked.clone(),
                from: self.from,
                into_table: wish.into_table.clone(),
                doubles,
                received_from,
            },
        };
        Ok((row, marked.map_or(0, |marked| marked.standing)))
    }
}

/// One replay of a producer and stage at a time.
fn refuse_other(scope: &Scope, wish: &ReplayWish, row: &ReplayRow) -> Result<(), OperateError> {
    refuse_other_path(scope, row)?;
    if row.remembered.asked == wish.asked {
        return Ok(());
    }
    Err(OperateError::Refused(format!(
        "another replay of stage {} by {} is unfinished: {}..{} ({}), which stands at offset {}. Finish it with --resume, or end it \
         where it stands with --abandon",
        scope.stage.name(),
        scope.producer,
        row.remembered.from,
        row.to,
        row.remembered.asked,
        row.next
    )))
}

fn refuse_other_path(scope: &Scope, row: &ReplayRow) -> Result<(), OperateError> {
    if row.is_ours {
        return Ok(());
    }
    Err(OperateError::Refused(format!(
        "an unfinished replay of stage {} by {} belongs to another stage path. If that path is gone, end it with --abandon",
        scope.stage.name(),
        scope.producer
    )))
}

/// What a replay has yet to do.
async fn plan(
    session: &Session,
    options: &PostgresOptions,
    target: &Target,
    scope: &Scope,
    row: &ReplayRow,
) -> Result<ReplayPlan, OperateError> {
    let tables = OwnTables::new(target.schema());
    let Remembered {
        into_table, doubles, ..
    } = &row.remembered;
    let options = options_into(options, into_table.as_deref())?;
    let table = table_of(target.schema(), &options, scope.stage.name())
        .name_sql()
        .to_owned();
    let key = CursorKey {
        into_table: into_table.clone(),
        ..replay_key(scope)
    };
    let made = made::holds_from(&session.client, &tables, &key, &table).await?;
    let (received_first, received_last) = facts::times(scope, row.next, row.to).await?;
    Ok(ReplayPlan {
        dead_letters: facts::count_dead_letters(&session.client, &tables, &key, row.next..row.to).await?,
        table,
        from: row.remembered.from,
        next: row.next,
        to: row.to,
        messages: scope.stage.count_between(row.next, row.to),
        received_first,
        received_last,
        standing: 0,
        doubles: *doubles,
        made_at: made
            .filter(|_| *doubles == Doubles::MadeLater)
            .map(|(_, made_at)| made_at),
    })
}
