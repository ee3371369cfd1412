//! The figures as a table, or as JSON.

use crate::run::Measured;
use crate::scenario::Scenario;

/// Prints a line for each run.
pub(crate) struct Table {
    json: bool,
}

/// What stands where there is no figure.
const NONE: &str = "-";

impl Table {
    /// With its head printed.
    pub(crate) fn new(json: bool) -> Self {
        if !json {
            println!(
                "{:<22}{:>11}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>9}{:>8}",
                "scenario",
                "messages/s",
                "of \\copy",
                "engine",
                "server",
                "memory",
                "disk",
                "first",
                "p50",
                "p99",
                "p99.9",
                "rows"
            );
            println!(
                "{:<22}{:>11}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}{:>9}{:>9}{:>9}{:>8}",
                "", "", "rows", "s/M", "s/M", "MB", "B/msg", "s", "ms", "ms", "ms", "/msg"
            );
        }
        Self { json }
    }

    /// A run; `None`: there was no recording.
    pub(crate) fn add(&mut self, scenario: &Scenario, measured: Option<&Measured>) {
        let name = scenario.name;
        if self.json {
            println!(
                "{}",
                serde_json::json!({ "scenario": name, "measured": measured })
            );
            return;
        }
        let Some(measured) = measured else {
            println!("{name:<22} skipped: there is no recording");
            return;
        };
        let Measured {
            messages,
            rows,
            seconds,
            ..
        } = measured;
        let of = |figure: Option<f64>, digits: usize| {
            figure.map_or_else(|| NONE.to_owned(), |figure| format!("{figure:.digits$}"))
        };
        let milliseconds =
            |number: usize| of(measured.latency_seconds.map(|latency| latency[number] * 1e3), 1);
        println!(
            "{name:<22}{:>11.0}{:>9}{:>8.2}{:>8.2}{:>8.0}{:>8}{:>8}{:>9}{:>9}{:>9}{:>8.2}",
            messages / seconds,
            of(measured.copy_seconds.map(|copy| copy / seconds), 2),
            measured.engine_cpu_seconds * 1e6 / messages,
            measured.postgres_cpu_seconds * 1e6 / messages,
            measured.peak_memory_bytes / 1e6,
            of(measured.disk_bytes_per_message, 1),
            of(measured.first_commit_seconds, 2),
            milliseconds(0),
            milliseconds(1),
            milliseconds(2),
            rows / messages,
        );
    }
}
