//! What `stage-inspect` says about a stage, as numbers.

use std::ops::Range;

use super::engine::Workspace;

/// The offsets that hold messages, as runs without a gap, in order.
pub(crate) async fn offsets(workspace: &Workspace, stage: &str) -> Vec<(u64, u64)> {
    let process = workspace
        .inspect(&["--path", "tmp", "--json", "list", stage, "--limit", "1000000"])
        .await;
    let listed: serde_json::Value = serde_json::from_str(&process.stdout())
        .unwrap_or_else(|error| panic!("{error} in {}\n{}", process.stdout(), process.last_words()));
    let batches = listed["batches"].as_array().unwrap();
    runs(batches.iter().flat_map(|batch| -> Range<u64> {
        let first = batch["first"].as_u64().unwrap();
        first..first + batch["messages"].as_u64().unwrap()
    }))
}

/// Ascending numbers as runs `(first, after the last)`.
pub(crate) fn runs(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, end)) if *end == number => *end += 1,
            _ => runs.push((number, number + 1)),
        }
    }
    runs
}
