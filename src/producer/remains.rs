//! What a sink still holds of a stage that is forgotten.

use serde::Serialize;
use uuid::Uuid;

use crate::record::Offset;

/// Whose remains are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// The stage path.
    pub path_id: Uuid,
    /// The stage.
    pub stage: String,
    /// Only of this producer; of all when there is none.
    pub producer: Option<String>,
}

/// What a sink holds of one producer of the stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// The sink.
    pub database: String,
    /// The producer.
    pub producer: String,
    /// Where its cursor stands; `None` when there is none. It is of no use without the stage, and goes with it.
    pub cursor: Option<Offset>,
    /// What is data, and stays: each kind with the statement that removes it.
    pub data: Vec<RemainingData>,
}

/// Rows that stay in a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemainingData {
    /// What they are: "dead letters".
    pub what: &'static str,
    /// How many.
    pub rows: u64,
    /// The statement that removes them.
    pub remove: String,
}
