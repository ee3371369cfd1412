//! The `postgres` producer: rows, dead letters and the cursor in one transaction, so that each message is
//! delivered exactly once.
//!
//! The way of a message:
//!
//! ```text
//! stage ─ read ─> encode ─> Prepared ─> transaction: lock and check, COPY, dead letters, gaps, cursor, COMMIT ─> ack
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `options`, `mapping_keys` | the keys in `config.yml` |
//! | `delivery` | the loop: which stage is next, overlap of encoding and committing |
//! | `lane` | what is known about one stage on its way into the database |
//! | `batching` | how much one transaction holds |
//! | `encode` | from batches to a prepared transaction |
//! | `transaction` | the data transaction, step by step |
//! | `load` | rows into a table: COPY, and what `on_conflict` does |
//! | `recover` | what to do when a transaction did not commit; isolation of poisoned messages |
//! | `refusals` | how many messages the server has refused of late |
//! | `classify` | from SQLSTATE to what to do |
//! | `blockers` | who keeps a transaction from its locks |
//! | `advice` | from SQLSTATE to what an operator can do |
//! | `condition` | how a lane stands, for its operator |
//! | `target` | the database, as a profile names it |
//! | `session` | one checked connection to the first server that will do |
//! | `dial`, `tls` | one server: addresses, with or without TLS, certificates |
//! | `connect` | session, start and resynchronisation of the lanes |
//! | `start` | from cursor and local copy to where delivery begins, or a hold |
//! | `cursor` | the cursor table, epochs |
//! | `outcomes` | the cursor row's counts: what became of each message |
//! | `dead_letter` | the dead-letter table |
//! | `ledger` | the ledger of gaps |
//! | [`table`] | JSON to binary COPY tuples, and the target table's own making |
//! | `made` | the record of tables that we made |
//! | `operate` | what an operator can have done: replay, skip, dead letters, adopt |
//!
//! Invariants:
//! * One connection per producer; whoever commits holds the cursor's row lock from the first statement on.
//! * COMMIT is sent only after the cursor's UPDATE was answered with one row.
//! * A stage is acknowledged only after its transaction is known to be committed.
//! * What may be transient is tried for ever; what an operator must mend holds one stage and leaves the others alone.

mod advice;
mod batching;
mod blockers;
mod classify;
mod condition;
mod connect;
mod cursor;
mod dead_letter;
mod delivery;
mod dial;
mod encode;
mod lane;
mod ledger;
mod load;
mod made;
mod mapping_keys;
mod operate;
mod options;
mod outcomes;
mod probe;
mod recover;
mod refusals;
mod session;
mod spare;
mod start;
pub mod table;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod transaction;

pub use batching::Batching;
pub use options::{PostgresOptions, PostgresVariety};
pub use target::Target;

use async_trait::async_trait;

use crate::exit::RunnerError;
use crate::producer::dead_letters::DeadLetters;
use crate::producer::operate::Operations;
use crate::producer::{Adoption, AdoptionPlan, Producer, ProducerContext};

use delivery::Delivery;
use session::Timing;
use table::RouterOptions;

/// Delivers stages into PostgreSQL tables.
#[derive(Debug)]
pub struct PostgresProducer {
    target: Target,
    options: PostgresOptions,
    timing: Timing,
}

impl PostgresProducer {
    /// A producer that delivers into `target`.
    #[must_use]
    pub fn new(target: Target, options: PostgresOptions) -> Self {
        Self {
            target,
            options,
            timing: Timing::default(),
        }
    }
}

#[async_trait]
impl Producer for PostgresProducer {
    async fn run(self: Box<Self>, context: ProducerContext) -> Result<(), RunnerError> {
        Delivery::new(self.target, &self.options, self.timing, context)?
            .run()
            .await
    }

    fn foresee(&self, stages: &[String]) -> Result<Vec<String>, String> {
        probe::foresee(&self.target, &self.options, stages)
    }

    async fn probe(&self, stages: &[String]) -> Result<Vec<String>, String> {
        probe::probe(&self.target, &self.options, stages).await
    }

    async fn plan_adoption(&self, adoption: &Adoption) -> Result<AdoptionPlan, String> {
        let plan = operate::adopt::plan(&self.target, &self.options, adoption).await;
        plan.map_err(|error| error.to_string())
    }

    async fn adopt(&self, adoption: &Adoption) -> Result<AdoptionPlan, String> {
        let done = operate::adopt::adopt(&self.target, &self.options, adoption).await;
        done.map_err(|error| error.to_string())
    }

    fn operations(&self) -> Option<&dyn Operations> {
        Some(self)
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetters> {
        Some(self)
    }

    fn tables_of(&self, stage: &str) -> Result<RouterOptions, String> {
        self.options.for_stage(self.target.schema(), stage)
    }
}
