//! What an operator can have done about delivered messages, on PostgreSQL.
//!
//! | module | what it holds |
//! |---|---|
//! | `facts` | what database and stage say about a replay that is wished for |
//! | `decide` | whether it can be done without doubling rows, and how: a pure decision |
//! | `begin` | the replay's row, made under the lock of the producer's own |
//! | `replay` | the delivery itself, by the same loop as an engine's; its end |
//! | `stretch` | the stage as a replay reads it: up to an end, without what is to be left out |
//! | `left_out` | which offsets are to be left out |
//! | `skip` | stepping over messages |
//! | `letters` | dead letters found, shown and given up |
//! | `retry`, `lot` | dead letters delivered after all, a lot in a transaction |
//! | `remains` | what is left of a stage that is forgotten |
//! | `adopt` | a stage path takes over another's cursor |
//! | `error` | why something could not be done |
//!
//! Invariants:
//! * a producer's own cursor moves only under its row's lock; a replay never moves it;
//! * a message is a row or a dead letter, never both: what stands as a dead letter is left out of a replay, and no dead
//!   letter is delivered while a replay of its stage is unfinished.

pub(super) mod adopt;
mod begin;
mod decide;
mod error;
mod facts;
mod left_out;
mod letters;
mod lot;
mod remains;
mod replay;
mod retry;
mod skip;
mod stretch;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::cursor::CursorKey;
use super::table::Router;
use super::{PostgresOptions, PostgresProducer};
use crate::exit::RunnerError;
use crate::producer::dead_letters::{DeadLetters, Letter, LetterFilter, PickedLetters, Retried};
use crate::producer::operate::{Operations, ReplayEnd, ReplayPlan, ReplayWish, Scope, Skipping};
use crate::producer::remains::{Departed, Remains};
use crate::record::Offset;
use crate::stage::path::replay_cursor;
use crate::stage::report::Passed;
use crate::stats::ProducerStats;

use error::OperateError;

/// How long the engine that holds a row may take to end its transaction, in milliseconds.
const LOCK_TIMEOUT_MS: u32 = 30_000;

/// The row of the producer's own cursor.
fn own_key(scope: &Scope) -> CursorKey {
    CursorKey {
        path_id: scope.stage.path_id(),
        stage: scope.stage.name().to_owned(),
        producer: scope.producer.clone(),
        into_table: None,
    }
}

/// The row of the producer's replay.
fn replay_key(scope: &Scope) -> CursorKey {
    CursorKey {
        producer: replay_cursor(&scope.producer),
        ..own_key(scope)
    }
}

/// The options of a delivery into another table, if one is named.
fn options_into(
    options: &PostgresOptions,
    into_table: Option<&str>,
) -> Result<PostgresOptions, OperateError> {
    match into_table {
        None => Ok(options.clone()),
        Some(table) => options.into_table(table).map_err(OperateError::Usage),
    }
}

/// The tables that a stage is delivered into.
fn router_of(schema: &str, options: &PostgresOptions, stage: &str) -> Result<Router, OperateError> {
    let options = options.for_stage(schema, stage);
    Ok(Router::new(options.map_err(OperateError::Usage)?))
}

#[async_trait]
impl Operations for PostgresProducer {
    async fn passed(&self, scope: &Scope) -> Result<Option<Passed>, RunnerError> {
        Ok(facts::passed(&self.target, &own_key(scope)).await?)
    }

    async fn plan_replay(&self, scope: &Scope, wish: &ReplayWish) -> Result<ReplayPlan, RunnerError> {
        Ok(begin::begin(&self.target, &self.options, scope, wish, true).await?)
    }

    async fn begin_replay(&self, scope: &Scope, wish: &ReplayWish) -> Result<ReplayPlan, RunnerError> {
        Ok(begin::begin(&self.target, &self.options, scope, wish, false).await?)
    }

    async fn unfinished_replay(&self, scope: &Scope) -> Result<Option<ReplayPlan>, RunnerError> {
        Ok(begin::unfinished(&self.target, scope).await?)
    }

    async fn replay(
        &self,
        scope: &Scope,
        stats: Arc<ProducerStats>,
        stop: CancellationToken,
    ) -> Result<ReplayEnd, RunnerError> {
        Ok(replay::replay(&self.target, &self.options, self.timing, scope, stats, stop).await?)
    }

    async fn abandon_replay(&self, scope: &Scope) -> Result<Option<Offset>, RunnerError> {
        Ok(replay::abandon(&self.target, scope).await?)
    }

    async fn plan_skip(&self, scope: &Scope, to: Offset) -> Result<Skipping, RunnerError> {
        Ok(skip::plan(&self.target, scope, to).await?)
    }

    async fn skip(&self, scope: &Scope, to: Offset) -> Result<Skipping, RunnerError> {
        Ok(skip::skip(&self.target, &self.timing, scope, to).await?)
    }

    async fn remains(&self, departed: &Departed) -> Result<Vec<Remains>, RunnerError> {
        Ok(remains::find(&self.target, departed).await?)
    }

    async fn forget_cursors(&self, departed: &Departed) -> Result<u64, RunnerError> {
        Ok(remains::forget_cursors(&self.target, departed).await?)
    }
}

#[async_trait]
impl DeadLetters for PostgresProducer {
    async fn count(&self, producer: &str, filter: &LetterFilter) -> Result<PickedLetters, RunnerError> {
        Ok(letters::count(&self.target, producer, filter).await?)
    }

    async fn by_stage(
        &self,
        producer: &str,
        filter: &LetterFilter,
    ) -> Result<BTreeMap<String, u64>, RunnerError> {
        Ok(letters::by_stage(&self.target, producer, filter).await?)
    }

    async fn page(
        &self,
        producer: &str,
        filter: &LetterFilter,
        after: i64,
        limit: u32,
        with_payload: bool,
    ) -> Result<Vec<Letter>, RunnerError> {
        Ok(letters::page(&self.target, producer, filter, after, limit, with_payload).await?)
    }

    async fn discard(
        &self,
        producer: &str,
        filter: &LetterFilter,
        picked: PickedLetters,
    ) -> Result<u64, RunnerError> {
        Ok(letters::discard(&self.target, producer, filter, picked).await?)
    }

    async fn retry(
        &self,
        producer: &str,
        filter: &LetterFilter,
        anyway: bool,
        stop: CancellationToken,
    ) -> Result<Retried, RunnerError> {
        let retry = retry::Retry {
            target: &self.target,
            options: &self.options,
            timing: self.timing,
            producer,
            filter,
            anyway,
            stop,
        };
        Ok(retry.run().await?)
    }
}
