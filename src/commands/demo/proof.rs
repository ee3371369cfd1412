//! What the demonstration proves: that each message which was sent is a row exactly once, in order.

use std::fmt;

use crate::exit::{ExitReason, RunnerError};

use super::setup::{Demo, STAGES};

/// What was sent, staged and found in the table of each stage.
pub(super) struct Proof {
    stages: Vec<StageProof>,
}

#[derive(serde::Serialize)]
struct StageProof {
    stage: &'static str,
    sent: u64,
    staged: u64,
    rows: u64,
    distinct_seq: u64,
    /// Rows whose `seq` is not their place in the order of offsets.
    out_of_order: u64,
}

impl StageProof {
    fn holds(&self) -> bool {
        let counts = [self.staged, self.rows, self.distinct_seq];
        self.sent > 0 && counts.iter().all(|&count| count == self.sent) && self.out_of_order == 0
    }
}

impl Proof {
    /// Counts what stands in the tables.
    pub(super) async fn gather(demo: &Demo) -> Result<Self, RunnerError> {
        let mut stages = Vec::new();
        for ((stage, sent), staged) in STAGES.into_iter().zip(demo.sent()).zip(demo.staged()) {
            let found = demo
                .query(&format!(
                    "select count(*), count(distinct seq), count(*) filter (where seq <> place) from \
                     (select seq, row_number() over (order by _offset) - 1 as place from {stage}) rows"
                ))
                .await?;
            let [rows, distinct_seq, out_of_order] = counts(&found)?;
            stages.push(StageProof {
                stage,
                sent,
                staged,
                rows,
                distinct_seq,
                out_of_order,
            });
        }
        Ok(Self { stages })
    }

    /// Whether every message is a row exactly once, in order.
    pub(super) fn holds(&self) -> bool {
        self.stages.iter().all(StageProof::holds)
    }

    /// Rows of all tables.
    pub(super) fn rows(&self) -> u64 {
        self.stages.iter().map(|stage| stage.rows).sum()
    }

    /// The proof of each stage, to be serialised.
    pub(super) fn stages(&self) -> &[impl serde::Serialize + use<>] {
        &self.stages
    }
}

fn counts(found: &[Vec<Option<String>>]) -> Result<[u64; 3], RunnerError> {
    let numbers: Option<Vec<u64>> = found
        .first()
        .and_then(|row| row.iter().map(|field| field.as_deref()?.parse().ok()).collect());
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| {
            RunnerError::new(
                ExitReason::Failed,
                "the rows could not be counted; please report this",
            )
        })
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14}{:>12}{:>12}{:>12}{:>14}{:>14}",
            "stage", "sent", "staged", "rows", "distinct seq", "out of order"
        )?;
        for stage in &self.stages {
            let StageProof {
                stage,
                sent,
                staged,
                rows,
                distinct_seq,
                out_of_order,
            } = stage;
            writeln!(
                f,
                "{stage:<14}{sent:>12}{staged:>12}{rows:>12}{distinct_seq:>14}{out_of_order:>14}"
            )?;
        }
        let verdict = if self.holds() {
            "proved: every message that was sent is a row exactly once, in order"
        } else {
            "FAILED: a message is missing, doubled or out of order"
        };
        f.write_str(verdict)
    }
}
