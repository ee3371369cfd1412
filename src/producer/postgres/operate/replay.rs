//! The delivery of a replay, by the loop that delivers for an engine, and its end.
//!
//! A replay that updates rows by their key goes on to where the producer stands, so that none is left as an older message would
//! have it: its end is moved there, under the lock of the producer's row, until it is reached.
//!
//! At the end the stage's copy of the cursor goes first, for it has nothing left to keep, and then the row: whoever is
//! killed in between finds a replay that stands at its end.

use std::sync::Arc;

use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::cursor::{self, Claim, CursorKey, OwnTables, to_sql};
use super::super::delivery::Delivery;
use super::super::made;
use super::super::session::Timing;
use super::super::table::{Router, Table, Takes};
use super::super::{PostgresOptions, Target};
use super::begin::follows_the_producer;
use super::decide::TableEnd;
use super::error::OperateError;
use super::facts::{self, ReplayRow};
use super::left_out::LeftOut;
use super::stretch::Stretch;
use super::{options_into, own_key, replay_key, router_of};
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
    loop {
        let (claim, row) = take_up(target, scope).await?;
        let into_table = row.remembered.into_table.as_deref();
        let options = options_into(options, into_table)?;
        let router = router_of(target.schema(), &options, scope.stage.name())?;
        check_tables(&router, &row)?;
        let follows = follows_the_producer(&router, into_table);
        let round = Round {
            target,
            timing,
            scope,
            key: CursorKey {
                into_table: row.remembered.into_table.clone(),
                ..replay_key(scope)
            },
            row,
        };
        round.deliver(&options, claim, stats.clone(), &stop).await?;
        match round.finish(follows).await? {
            Finish::Moved => {}
            Finish::Ended(end) => return Ok(end),
        }
    }
}

/// What was found out about the tables holds for these.
fn check_tables(router: &Router, row: &ReplayRow) -> Result<(), OperateError> {
    let names = router.tables().iter().map(Table::name_sql);
    if names.eq(row.remembered.tables.iter().map(|end| end.table.as_str())) {
        return Ok(());
    }
    Err(OperateError::Refused(
        "the configuration names other tables than when the replay was begun. End it with --abandon, and begin again".to_owned(),
    ))
}

/// Takes the replay's row, whoever was at it.
async fn take_up(target: &Target, scope: &Scope) -> Result<(Claim, ReplayRow), OperateError> {
    let tables = OwnTables::new(target.schema());
    let session = facts::connect(target).await?;
    let key = replay_key(scope);
    session.client.batch_execute(&facts::begin_sql()).await?;
    let taken = cursor::take_up(&session.client, &tables, &key).await?;
    let row = facts::replay_row(&session.client, &tables, &key, "").await?;
    session.client.batch_execute("COMMIT").await?;
    let (Some((claim, _)), Some(row)) = (taken, row) else {
        return Err(no_replay(scope));
    };
    check_head(scope, &row).await?;
    // It may have been lost with the stage's book, or be behind.
    scope.stage.pin(&key.producer, row.next).await?;
    Ok((claim, row))
}

/// The delivery up to the end as it stands.
struct Round<'a> {
    target: &'a Target,
    timing: Timing,
    scope: &'a Scope,
    key: CursorKey,
    row: ReplayRow,
}

/// What came of the end of a round.
enum Finish {
    /// The replay is over, or was stopped.
    Ended(ReplayEnd),
    /// Its end was moved to where the producer stands.
    Moved,
}

impl Round<'_> {
    async fn deliver(
        &self,
        options: &PostgresOptions,
        claim: Claim,
        stats: Arc<ProducerStats>,
        stop: &CancellationToken,
    ) -> Result<(), OperateError> {
        let ends = &self.row.remembered.tables;
        let inner = stop.child_token();
        let tells = ends.iter().filter(|end| end.doubles == Doubles::LeftOut);
        let left_out = Arc::new(LeftOut::new(
            self.target,
            self.timing,
            self.key.clone(),
            tells.map(|end| end.table.clone()).collect(),
            ends.len() > 1,
            self.row.to,
            inner.clone(),
        ));
        let context = ProducerContext {
            name: self.key.producer.clone(),
            stages: vec![Arc::new(Stretch::new(
                self.scope.stage.clone(),
                Arc::clone(&left_out),
            ))],
            start: Start::Oldest,
            until: RunUntil::Drained,
            stats,
            stop: inner,
        };
        let delivery = Delivery::new(self.target.clone(), options, self.timing, context);
        let mut delivery = delivery.map_err(OperateError::Delivery)?;
        // While something is delivered, a table of ours that is gone is not made again.
        delivery.tables_made = true;
        for lane in &mut delivery.lanes {
            lane.key = self.key.clone();
            lane.claim = Some(claim);
            lane.cursor = self.row.next.into();
            lane.position = self.row.next.into();
            lane.ends_when_held = true;
            for table in lane.router.iter_mut().flat_map(Router::tables_mut) {
                let end = ends.iter().find(|end| end.table == table.name_sql());
                table.take_only(takes(end.cloned(), &left_out));
            }
        }
        delivery.run().await.map_err(OperateError::Delivery)?;
        left_out.failure().map_or(Ok(()), Err)
    }

    /// Removes what a replay that stands at its end has left, however often the connection is lost.
    async fn finish(&self, follows: bool) -> Result<Finish, OperateError> {
        let mut backoff = Backoff::new(self.timing.retry_initial, self.timing.retry_max);
        let mut attempt = 1;
        loop {
            match self.try_finish(follows).await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    warn!("everything is delivered; ending the replay is tried again: {error}");
                    tokio::time::sleep(backoff.next_delay()).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_finish(&self, follows: bool) -> Result<Finish, OperateError> {
        let (scope, key) = (self.scope, &self.key);
        let tables = OwnTables::new(self.target.schema());
        let session = facts::connect(self.target).await?;
        let client = &session.client;
        client.batch_execute(&facts::begin_sql()).await?;
        // In the order in which a beginning locks them.
        let producer = match follows {
            true => Some(facts::lock_own(client, &tables, &own_key(scope)).await?.1),
            false => None,
        };
        // No row: an attempt before this one has removed it, and its answer was lost.
        if let Some(row) = facts::replay_row(client, &tables, key, "FOR UPDATE").await? {
            if row.next < row.to {
                return Ok(Finish::Ended(ReplayEnd::Stopped(row.next)));
            }
            if let Some(end) = producer.filter(|producer| *producer > row.to) {
                move_end(client, &tables, key, end).await?;
                client.batch_execute("COMMIT").await?;
                return Ok(Finish::Moved);
            }
            scope
                .path
                .forget_producer(scope.stage.name(), &key.producer)
                .await?;
            remove(client, &tables, key, &row).await?;
        }
        client.batch_execute("COMMIT").await?;
        Ok(Finish::Ended(ReplayEnd::Done))
    }
}

/// Which offsets a table takes.
fn takes(end: Option<TableEnd>, left_out: &Arc<LeftOut>) -> Takes {
    let left_out = Arc::clone(left_out);
    Takes(Arc::new(move |offset| {
        end.as_ref().is_some_and(|end| {
            let is_open = end.doubles == Doubles::LastOfKey || offset < end.until;
            is_open && !(end.doubles == Doubles::LeftOut && left_out.stands_in(&end.table, offset))
        })
    }))
}

/// Moves a replay's end on, inside the open transaction.
async fn move_end(
    client: &tokio_postgres::Client,
    tables: &OwnTables,
    key: &CursorKey,
    end: Offset,
) -> Result<(), OperateError> {
    let sql = format!(
        "UPDATE {} SET end_offset = $3 WHERE stage = $1 AND producer = $2",
        tables.cursor()
    );
    let parameters: [&(dyn ToSql + Sync); 3] = [&key.stage, &key.producer, &to_sql(end)];
    client.execute(&sql, &parameters).await?;
    Ok(())
}

/// The stage must hold what was delivered before.
async fn check_head(scope: &Scope, row: &ReplayRow) -> Result<(), OperateError> {
    let head = scope.head().await?;
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

/// Removes the row, inside the open transaction, and notes what the tables hold by now.
async fn remove(
    client: &tokio_postgres::Client,
    tables: &OwnTables,
    key: &CursorKey,
    row: &ReplayRow,
) -> Result<(), OperateError> {
    if row.is_ours && row.next > row.remembered.from {
        for end in &row.remembered.tables {
            made::lower(client, tables, key, &end.table, row.remembered.from).await?;
        }
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
pub(super) async fn abandon(target: &Target, scope: &Scope) -> Result<Option<Offset>, OperateError> {
    let tables = OwnTables::new(target.schema());
    let key = replay_key(scope);
    let session = facts::connect(target).await?;
    session.client.batch_execute(&facts::begin_sql()).await?;
    let row = facts::replay_row(&session.client, &tables, &key, "FOR UPDATE").await?;
    if let Some(row) = &row {
        remove(&session.client, &tables, &key, row).await?;
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
