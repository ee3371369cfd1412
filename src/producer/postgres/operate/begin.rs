//! The beginning of a replay: its row, made under the lock of the producer's own row, so that what is found then stays true
//! of the messages before the cursor.

use super::super::cursor::{CursorKey, OwnTables, to_sql};
use super::super::made;
use super::super::session::Session;
use super::super::table::{ConflictAction, Router, Table};
use super::super::{PostgresOptions, Target};
use super::decide::{Found, Marked, decide_all};
use super::error::OperateError;
use super::facts::{self, Remembered, ReplayRow};
use super::{options_into, own_key, replay_key, router_of};
use crate::producer::operate::{Doubles, ReplayPlan, ReplayWish, Scope, TablePlan};
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
    let (marked, received_from) = beginning.look_at_rows(&session, scope).await?;
    session.client.batch_execute(&facts::begin_sql()).await?;
    let (_, cursor) = facts::lock_own(&session.client, &beginning.tables, &own_key(scope)).await?;
    facts::refuse_held(scope)?;
    let unfinished =
        facts::replay_row(&session.client, &beginning.tables, &beginning.key, "FOR UPDATE").await?;
    if let Some(row) = unfinished {
        refuse_other(scope, wish, &row)?;
        return plan(&session, target, scope, &row).await;
    }
    let row = beginning
        .decide(&session, scope, wish, cursor, &marked, received_from)
        .await?;
    let mut plan = plan(&session, target, scope, &row).await?;
    for (table, marked) in plan.tables.iter_mut().zip(&marked) {
        table.standing = marked.map_or(0, |marked| marked.standing);
    }
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
    scope.stage.pin(&beginning.key.producer, row.next).await?;
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
pub(super) async fn unfinished(target: &Target, scope: &Scope) -> Result<Option<ReplayPlan>, OperateError> {
    let session = facts::connect(target).await?;
    let tables = OwnTables::new(target.schema());
    match facts::replay_row(&session.client, &tables, &replay_key(scope), "").await? {
        None => Ok(None),
        Some(row) => {
            refuse_other_path(scope, &row)?;
            plan(&session, target, scope, &row).await.map(Some)
        }
    }
}

/// What a replay is begun with.
struct Beginning {
    tables: OwnTables,
    key: CursorKey,
    router: Router,
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
        let (schema, stage) = (target.schema(), scope.stage.name());
        let own = router_of(schema, options, stage)?;
        let router = router_of(schema, &options_into(options, wish.into_table.as_deref())?, stage)?;
        let is_own = |table: &Table| own.tables().iter().any(|own| own.name_sql() == table.name_sql());
        if let Some(table) = router
            .tables()
            .iter()
            .find(|table| wish.into_table.is_some() && is_own(table))
        {
            return Err(OperateError::Usage(format!(
                "--into names {}, which stage {stage} is delivered into anyway. Leave it out",
                table.name_sql()
            )));
        }
        if wish.to.is_some() && follows_the_producer(&router, wish.into_table.as_deref()) {
            return Err(OperateError::Usage(
                "a replay into a table with `on_conflict: { action: update }` ends where the producer stands, so that the last message \
                 of each key is what stands. Leave --to out, or deliver into another table with --into"
                    .to_owned(),
            ));
        }
        let bounds = scope.stage.bounds();
        bounds
            .refuse_outside(stage, wish.from, wish.to)
            .map_err(OperateError::Usage)?;
        Ok(Self {
            tables: OwnTables::new(target.schema()),
            key: CursorKey {
                into_table: wish.into_table.clone(),
                ..replay_key(scope)
            },
            router,
            from: wish.from.max(bounds.oldest),
            to: wish.to.unwrap_or(bounds.head).min(bounds.head),
            bounds,
        })
    }

    /// What the rows of each table tell. Before any lock is held, for it takes its time. No row of these offsets comes in
    /// meanwhile but by another replay, of which there can be none at its end.
    async fn look_at_rows(
        &self,
        session: &Session,
        scope: &Scope,
    ) -> Result<(Vec<Option<Marked>>, Option<Timestamp>), OperateError> {
        let (first, _) = facts::times(scope, self.from, self.to).await?;
        let mut marked = Vec::new();
        for table in self.router.tables() {
            let of_table = facts::look_at_rows(
                &session.client,
                table.mapping(),
                table.name_sql(),
                &self.key.stage,
                self.from..self.to,
                first,
            );
            marked.push(of_table.await?);
        }
        Ok((marked, first))
    }

    /// The row to be made.
    async fn decide(
        &self,
        session: &Session,
        scope: &Scope,
        wish: &ReplayWish,
        cursor: Offset,
        marked: &[Option<Marked>],
        received_from: Option<Timestamp>,
    ) -> Result<ReplayRow, OperateError> {
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
        let mut tables = Vec::new();
        for (table, marked) in self.router.tables().iter().zip(marked) {
            let found = facts::look_at_table(
                &session.client,
                &self.tables,
                &self.key,
                table.mapping(),
                table.name_sql(),
            );
            let found = Found {
                marked: *marked,
                ..found.await?
            };
            tables.push((table.name_sql().to_owned(), found));
        }
        let tables =
            decide_all(&tables, wish.allow_duplicates, self.from, to).map_err(OperateError::Refused)?;
        Ok(ReplayRow {
            is_ours: true,
            next: self.from,
            to: tables.iter().map(|table| table.until).max().unwrap_or(to),
            remembered: Remembered {
                asked: wish.asked.clone(),
                from: self.from,
                into_table: wish.into_table.clone(),
                tables,
                received_from,
            },
        })
    }
}

/// Whether a replay has to end where the producer stands: its rows take the place of those that the producer has written.
pub(super) fn follows_the_producer(router: &Router, into_table: Option<&str>) -> bool {
    let updates = |table: &Table| {
        let conflict = table.mapping().on_conflict.as_ref();
        conflict.is_some_and(|conflict| conflict.action == ConflictAction::Update)
    };
    into_table.is_none() && router.tables().iter().any(updates)
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
    target: &Target,
    scope: &Scope,
    row: &ReplayRow,
) -> Result<ReplayPlan, OperateError> {
    let own_tables = OwnTables::new(target.schema());
    let key = CursorKey {
        into_table: row.remembered.into_table.clone(),
        ..replay_key(scope)
    };
    let (client, left) = (&session.client, row.next..row.to);
    let mut tables = Vec::new();
    for end in &row.remembered.tables {
        let made = made::holds_from(client, &own_tables, &key, &end.table).await?;
        tables.push(TablePlan {
            table: end.table.clone(),
            until: end.until,
            doubles: end.doubles,
            standing: 0,
            made_at: made
                .filter(|_| end.doubles == Doubles::MadeLater)
                .map(|(_, made_at)| made_at),
        });
    }
    let (received_first, received_last) = facts::times(scope, row.next, row.to).await?;
    Ok(ReplayPlan {
        dead_letters: facts::count_dead_letters(client, &own_tables, &key, left).await?,
        tables,
        from: row.remembered.from,
        next: row.next,
        to: row.to,
        messages: scope.stage.count_between(row.next, row.to),
        received_first,
        received_last,
    })
}
