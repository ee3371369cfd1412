//! Stepping over messages: they become dead letters, and the cursor moves past them, in one transaction at a time.
//!
//! The epoch stays as it is: an engine that delivers the stage is not fenced, but finds its cursor moved and goes on there.

use super::super::Target;
use super::super::batching::Batching;
use super::super::cursor::{CursorKey, OwnTables, from_sql, to_sql};
use super::super::dead_letter::{self, DeadLetter, SKIPPED, Verdict};
use super::super::ledger;
use super::super::outcomes;
use super::super::session::{Session, Timing};
use super::error::OperateError;
use super::{facts, own_key};
use crate::backoff::Backoff;
use crate::producer::operate::{Scope, Skipping};
use crate::record::Offset;
use crate::stage::report::Outcomes;
use crate::stage::{Place, ReadLimit};

/// How often in a row a transaction may fail for something transient.
const ATTEMPTS: u32 = 20;

/// What skipping to `to` would do.
pub(super) async fn plan(target: &Target, scope: &Scope, to: Offset) -> Result<Skipping, OperateError> {
    let session = facts::connect(target).await?;
    let tables = OwnTables::new(target.schema());
    let row = session.client.batch_execute(&facts::begin_sql()).await;
    row?;
    let (_, from) = facts::lock_own(&session.client, &tables, &own_key(scope)).await?;
    facts::refuse_held(scope)?;
    session.client.batch_execute("ROLLBACK").await?;
    let mut head = scope.stage.bounds().head;
    if to > head {
        head = scope.head().await?;
    }
    if to > head {
        return Err(OperateError::Refused(format!(
            "stage {} ends at offset {head}: nothing is skipped that has not come yet",
            scope.stage.name()
        )));
    }
    if to <= from {
        return Err(OperateError::Refused(format!(
            "the cursor of {} for stage {} stands at offset {from} already",
            scope.producer,
            scope.stage.name()
        )));
    }
    let (received_first, received_last) = facts::times(scope, from, to).await?;
    Ok(Skipping {
        from,
        to,
        messages: scope.stage.count_between(from, to),
        received_first,
        received_last,
    })
}

/// Skips to `to`.
pub(super) async fn skip(
    target: &Target,
    timing: &Timing,
    scope: &Scope,
    to: Offset,
) -> Result<Skipping, OperateError> {
    let mut done = plan(target, scope, to).await?;
    done.messages = 0;
    let (mut session, mut failures) = (None, 0);
    let mut place = Place::default();
    let mut backoff = Backoff::new(timing.retry_initial, timing.retry_max);
    let key = own_key(scope);
    loop {
        let stepped = async {
            let open = match session.take() {
                Some(open) => open,
                None => facts::connect(target).await?,
            };
            step(open, target, scope, &key, place, to).await
        };
        match stepped.await {
            Ok(Step {
                session: used,
                next,
                letters,
            }) => {
                scope.stage.ack(&scope.producer, next.offset).await?;
                done.messages += letters;
                (session, failures) = (Some(used), 0);
                backoff.reset();
                place = next;
                if next.offset >= to {
                    done.to = next.offset;
                    return Ok(done);
                }
            }
            // Whether it was committed is for the cursor to say, where the next one begins.
            Err(error) if error.is_transient() && failures < ATTEMPTS => {
                failures += 1;
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

struct Step {
    session: Session,
    /// Where the cursor stands, and up to which of the outages there the ledger is written.
    next: Place,
    letters: u64,
}

/// One transaction.
async fn step(
    mut session: Session,
    target: &Target,
    scope: &Scope,
    key: &CursorKey,
    place: Place,
    to: Offset,
) -> Result<Step, OperateError> {
    let tables = OwnTables::new(target.schema());
    session.client.batch_execute(&facts::begin_sql()).await?;
    let (epoch, from) = facts::lock_own(&session.client, &tables, key).await?;
    facts::refuse_held(scope)?;
    if from >= to {
        session.client.batch_execute("ROLLBACK").await?;
        return Ok(Step {
            session,
            next: from.into(),
            letters: 0,
        });
    }
    let Batching { rows, bytes, .. } = Batching::default();
    let limit = ReadLimit {
        messages: rows,
        bytes,
    };
    // The engine may have delivered on meanwhile.
    let place = if place.offset == from { place } else { from.into() };
    let read = scope.stage.read(from, limit).await?.up_to(to);
    let read = ledger::with_outages(scope.stage.as_ref(), place, read).await?;
    let (read, outages) = (read.messages, read.outages.outages);
    let next = read.next;
    if next <= from && outages.is_empty() {
        return Err(OperateError::Refused(format!(
            "stage {} holds nothing at offset {from} yet",
            scope.stage.name()
        )));
    }
    let verdict = Verdict {
        sqlstate: None,
        reason: SKIPPED.to_owned(),
        record_index: None,
    };
    let messages = read.batches.iter().flat_map(|batch| batch.messages_from(from));
    let letters: Vec<_> = messages
        .take_while(|(offset, _)| *offset < next)
        .map(|(offset, message)| DeadLetter::new(offset, message, verdict.clone()))
        .collect();
    if !letters.is_empty() {
        dead_letter::insert(&mut session, &tables, key, &letters).await?;
    }
    let entries: Vec<_> = read
        .gaps
        .iter()
        .map(ledger::Entry::from)
        .chain(outages.iter().map(ledger::Entry::from))
        .collect();
    if !entries.is_empty() {
        ledger::insert(&mut session, &tables, key, &entries).await?;
    }
    let outcomes = Outcomes {
        skipped: letters.len() as u64,
        ..outcomes::of_gaps(&read.gaps, next)
    };
    let moved = session
        .client
        .query_opt(
            &format!(
                "UPDATE {} SET next_offset = $4, updated_at = now(), {} \
                 WHERE stage = $1 AND producer = $2 AND epoch = $3 AND next_offset = $5 RETURNING next_offset",
                tables.cursor(),
                outcomes::add_sql(6)
            ),
            &[
                &key.stage,
                &key.producer,
                &epoch,
                &to_sql(next),
                &to_sql(from),
                &outcomes::values(outcomes),
            ],
        )
        .await?;
    let Some(moved) = moved else {
        return Err(OperateError::Refused(
            "the cursor did not move: look at rules and triggers on _socket_el_cursor".to_owned(),
        ));
    };
    session.client.batch_execute("COMMIT").await?;
    let at = Place::from(from_sql(moved.try_get(0)?));
    Ok(Step {
        session,
        next: outages.last().map_or(at, |last| last.place.next().max(at)),
        letters: letters.len() as u64,
    })
}
