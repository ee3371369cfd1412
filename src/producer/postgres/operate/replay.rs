//! The delivery of a replay, by the loop that delivers for an engine, and its end.
//!
//! At the end the stage's copy of the cursor goes first, for it has nothing left to keep, and then the row: whoever is
//! killed in between finds a replay that stands at its end.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::cursor::{self, CursorKey, OwnTables};
use super::super::delivery::Delivery;
use super::super::made;
use super::super::session::Timing;
use super::super::{PostgresOptions, Target};
use super::error::OperateError;
use super::facts::{self, ReplayRow};
use super::left_out::LeftOut;
use super::stretch::Stretch;
use super::{options_into, replay_key, table_of};
use crate::backoff::Backoff;
use crate::producer::operate::{Doubles, ReplayEnd, Scope};
use crate::producer::{ProducerContext, RunUntil, Start};
use crate::record::Offset;
use crate::stats::ProducerStats;

/// How often the end of a replay is tried while the database is away.
const ATTEMPTS: u32 = 20;

/// Delivers what the replay has yet to deliver.
pub(super) async fn replay(
    target: &Target,
    options: &PostgresOptions,
    timing: Timing,
    scope: &Scope,
    stats: Arc<ProducerStats>,
    stop: CancellationToken,
) -> Result<ReplayEnd, OperateError> {
    let tables = OwnTables::new(target.schema());
    let session = facts::connect(target).await?;
    let key = replay_key(scope);
    session.client.batch_execute(&facts::begin_sql()).await?;
    let taken = cursor::take_up(&session.client, &tables, &key).await?;
    let row = facts::replay_row(&session.client, &tables, &key, "").await?;
    session.client.batch_execute("COMMIT").await?;
    drop(session);
    let (Some((claim, next)), Some(row)) = (taken, row) else {
        return Err(no_replay(scope));
    };
    check_head(scope, &row)?;
    // It may have been lost with the process that began it.
    scope.stage.ack(&key.producer, next).await?;

    let options = options_into(options, row.remembered.into_table.as_deref())?;
    let key = CursorKey {
        into_table: row.remembered.into_table.clone(),
        ..key
    };
    let table = table_of(target.schema(), &options, scope.stage.name())
        .name_sql()
        .to_owned();
    let inner = stop.child_token();
    let left_out = Arc::new(LeftOut::new(
        target,
        timing,
        key.clone(),
        (row.remembered.doubles == Doubles::LeftOut).then_some(table.clone()),
        row.to,
        inner.clone(),
    ));
    let context = ProducerContext {
        name: key.producer.clone(),
        stages: vec![Arc::new(Stretch::new(scope.stage.clone(), Arc::clone(&left_out)))],
        start: Start::Oldest,
        until: RunUntil::Drained,
        stats,
        stop: inner,
    };
    let mut delivery = Delivery::new(target.clone(), &options, timing, context);
    // While something is delivered, a table of ours that is gone is not made again.
    delivery.tables_made = true;
    for lane in &mut delivery.lanes {
        lane.key = key.clone();
        lane.claim = Some(claim);
        lane.cursor = next;
        lane.position = next;
        lane.ends_when_held = true;
    }
    delivery.run().await.map_err(OperateError::Delivery)?;
    if let Some(failure) = left_out.failure() {
        return Err(failure);
    }
    finish(target, timing, scope, &key, &table).await
}

/// The stage must hold what was delivered before.
fn check_head(scope: &Scope, row: &ReplayRow) -> Result<(), OperateError> {
    let head = scope.stage.bounds().head;
    if row.to <= head {
        return Ok(());
    }
    Err(OperateError::Refused(format!(
        "the replay ends at offset {}, beyond the stage's head at {head}: the stage is older than the replay. End it with --abandon",
        row.to
    )))
}

fn no_replay(scope: &Scope) -> OperateError {
    OperateError::Refused(format!(
        "no replay of stage {} by {} is unfinished",
        scope.stage.name(),
        scope.producer
    ))
}

/// Removes what a replay that stands at its end has left, however often the connection is lost.
async fn finish(
    target: &Target,
    timing: Timing,
    scope: &Scope,
    key: &CursorKey,
    table: &str,
) -> Result<ReplayEnd, OperateError> {
    let mut backoff = Backoff::new(timing.retry_initial, timing.retry_max);
    let mut attempt = 1;
    loop {
        match try_finish(target, scope, key, table).await {
            Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                warn!("everything is delivered; ending the replay is tried again: {error}");
                tokio::time::sleep(backoff.next_delay()).await;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

async fn try_finish(
    target: &Target,
    scope: &Scope,
    key: &CursorKey,
    table: &str,
) -> Result<ReplayEnd, OperateError> {
    let tables = OwnTables::new(target.schema());
    let session = facts::connect(target).await?;
    session.client.batch_execute(&facts::begin_sql()).await?;
    // No row: an attempt before this one has removed it, and its answer was lost.
    if let Some(row) = facts::replay_row(&session.client, &tables, key, "FOR UPDATE").await? {
        if row.next < row.to {
            return Ok(ReplayEnd::Stopped(row.next));
        }
        scope
            .path
            .forget_producer(scope.stage.name(), &key.producer)
            .await?;
        remove(&session.client, &tables, key, table, &row).await?;
    }
    session.client.batch_execute("COMMIT").await?;
    Ok(ReplayEnd::Done)
}

/// Removes the row, inside the open transaction, and notes what the table holds by now.
async fn remove(
    client: &tokio_postgres::Client,
    tables: &OwnTables,
    key: &CursorKey,
    table: &str,
    row: &ReplayRow,
) -> Result<(), OperateError> {
    if row.is_ours && row.next > row.remembered.from {
        made::lower(client, tables, key, table, row.remembered.from).await?;
    }
    client
        .execute(
            &format!(
                "DELETE FROM {} WHERE stage = $1 AND producer = $2",
                tables.cursor()
            ),
            &[&key.stage, &key.producer],
        )
        .await?;
    Ok(())
}

/// Ends a replay where it stands.
pub(super) async fn abandon(
    target: &Target,
    options: &PostgresOptions,
    scope: &Scope,
) -> Result<Option<Offset>, OperateError> {
    let tables = OwnTables::new(target.schema());
    let key = replay_key(scope);
    let session = facts::connect(target).await?;
    session.client.batch_execute(&facts::begin_sql()).await?;
    let row = facts::replay_row(&session.client, &tables, &key, "FOR UPDATE").await?;
    if let Some(row) = &row {
        let options = options_into(options, row.remembered.into_table.as_deref())?;
        let table = table_of(target.schema(), &options, scope.stage.name());
        remove(&session.client, &tables, &key, table.name_sql(), row).await?;
    }
    session.client.batch_execute("COMMIT").await?;
    // Without a row too: whoever was killed while it began a replay has left it.
    let forgotten = scope
        .path
        .forget_producer(scope.stage.name(), &key.producer)
        .await?;
    Ok(match row {
        Some(row) => Some(row.next),
        None if forgotten => Some(Offset::ZERO),
        None => None,
    })
}
