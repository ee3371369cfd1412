//! Producers: read stages in order and deliver them to a sink.
//!
//! A producer never sees a consumer, and knows a stage only as [`Stage`](crate::stage::Stage).

mod adoption;
pub mod dead_letters;
pub mod operate;
pub mod postgres;
pub mod remains;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use self::adoption::{Adoption, AdoptionPlan, DoubledTable};

use self::postgres::table::RouterOptions;
use crate::config::{Profiles, Section};
use crate::exit::RunnerError;
use crate::stage::SharedStage;
use crate::stats::ProducerStats;

/// Delivers the messages of its stages to one sink until it is told to stop.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Reads the context's stages from its cursors, delivers, and acks what the sink has committed, until
    /// `context.stop` is cancelled or, with [`RunUntil::Drained`], every stage is empty. A sink that fails is no reason
    /// to return: wait and try again.
    ///
    /// # Errors
    /// Only for what the operator must mend, or when a stage has failed: the whole process then stops.
    async fn run(self: Box<Self>, context: ProducerContext) -> Result<(), RunnerError>;

    /// What it makes in its sink for these stages, as far as the configuration tells (`check`); a line each.
    ///
    /// # Errors
    /// In words: what can't be meant.
    fn foresee(&self, stages: &[String]) -> Result<Vec<String>, String> {
        let _ = stages;
        Ok(Vec::new())
    }

    /// Tries the sink once (`check --connect`) and says what it found and what it would do, a line each.
    ///
    /// # Errors
    /// In words: what failed and what to do.
    async fn probe(&self, stages: &[String]) -> Result<Vec<String>, String> {
        let _ = stages;
        Ok(vec!["nothing to connect to".to_owned()])
    }

    /// What [`adopt`](Self::adopt) would come to; nothing is changed.
    ///
    /// # Errors
    /// In words: what failed and what to do.
    async fn plan_adoption(&self, adoption: &Adoption) -> Result<AdoptionPlan, String> {
        Err(format!(
            "producer {} keeps no cursor in its sink that could be adopted",
            adoption.producer
        ))
    }

    /// Makes the sink's cursor belong to the adoption's stage (`stage-inspect adopt`), and says what it did.
    ///
    /// # Errors
    /// As [`plan_adoption`](Self::plan_adoption). Nothing is changed then.
    async fn adopt(&self, adoption: &Adoption) -> Result<AdoptionPlan, String> {
        self.plan_adoption(adoption).await
    }

    /// What an operator can have it do beside delivering; `None` when it keeps nothing in its sink to do that with.
    fn operations(&self) -> Option<&dyn operate::Operations> {
        None
    }

    /// Its dead letters; `None` when it keeps none in its sink.
    fn dead_letters(&self) -> Option<&dyn dead_letters::DeadLetters> {
        None
    }

    /// The tables that it delivers a stage into, and how: for exports of the same rows.
    ///
    /// # Errors
    /// In words, when it makes no rows.
    fn tables_of(&self, stage: &str) -> Result<RouterOptions, String> {
        let _ = stage;
        Err("it makes no rows of messages".to_owned())
    }
}

/// What a producer is given to run with.
#[derive(Clone)]
pub struct ProducerContext {
    /// The runner's name, which names its cursors.
    pub name: String,
    /// The stages it delivers, in the order of `depends_on`.
    pub stages: Vec<SharedStage>,
    /// Where it begins in a stage that it has no cursor for.
    pub start: Start,
    /// Whether it goes on when the stages are empty.
    pub until: RunUntil,
    /// To be counted as it happens.
    pub stats: Arc<ProducerStats>,
    /// Cancelled when the producer is to finish its transaction and stop.
    pub stop: CancellationToken,
}

/// `start`: where a producer that is new to a stage begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the oldest message that the stage holds.
    #[default]
    Oldest,
    /// With the first message appended after its start.
    Newest,
}

/// When a producer has done its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunUntil {
    /// Never: it waits for more.
    Stopped,
    /// When every stage is delivered up to its durable head.
    Drained,
}

/// A kind of producer that `config.yml` can name with `variety`.
pub trait ProducerVariety: Send + Sync {
    /// The name in `config.yml`.
    fn name(&self) -> &'static str;

    /// Reads the keys of one runner of this variety. The keys that all producers have (`name`, `type`,
    /// `variety`, `depends_on`, `start`) are read already. What is wrong is reported to the section, and `None`
    /// returned; keys that nobody asked for are reported as unknown afterwards.
    fn configure(
        &self,
        name: &str,
        section: &mut Section<'_>,
        profiles: &Profiles,
    ) -> Option<Box<dyn Producer>>;
}
