//! The whole pipeline, measured: `socket-el feed`, the engine and a private PostgreSQL as processes of their own on this machine.
//!
//! ```sh
//! cargo bench --bench pipeline                          # every scenario
//! cargo bench --bench pipeline -- live drain            # those whose names begin so
//! cargo bench --bench pipeline -- --scale 0.1 --json    # a tenth of the messages, as JSON
//! ```
//!
//! Each scenario has a database of its own in one server with fsync. What it put into its tables is checked (every message once),
//! then written out and loaded again by `psql \copy … (format binary)`: the yardstick of the very same rows, in the same run. Times
//! are the server's: from the first message received to the last commit, for which it tracks the times of commits.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that can't go on ends, and says where"
)]

#[path = "../messages/mod.rs"]
mod messages;
mod meter;
mod rig;
mod run;
mod scenario;
mod table;

use clap::Parser;

use crate::rig::Server;
use crate::scenario::Scenario;
use crate::table::Table;

/// Measures the whole pipeline.
#[derive(Parser)]
struct Args {
    /// Run the scenarios whose names begin with one of these [default: all]
    scenarios: Vec<String>,

    /// Send this share of each scenario's messages
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,

    /// Run each scenario so often
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u32,

    /// Name the scenarios, and run none
    #[arg(long)]
    list: bool,

    /// Print a JSON object per run, for programs
    #[arg(long)]
    json: bool,

    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let chosen: Vec<_> = Scenario::all()
        .into_iter()
        .filter(|scenario| {
            args.scenarios.is_empty() || args.scenarios.iter().any(|name| scenario.name.starts_with(name))
        })
        .collect();
    if args.list {
        for scenario in &chosen {
            println!("{:<22} {}", scenario.name, scenario.about);
        }
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = Server::start();
    let mut table = Table::new(args.json);
    for scenario in &chosen {
        for _ in 0..args.runs {
            let measured = runtime.block_on(run::run(&server, scenario, args.scale));
            table.add(scenario, measured.as_ref());
        }
    }
}
