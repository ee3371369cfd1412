//! The command line of `socket-el`: what can be asked, with a help text that teaches. What is asked is done in
//! [`commands`](crate::commands).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tracing::Level;

use crate::feed::FeedArgs;
use crate::manual::{CompletionsArgs, ManArgs};
use crate::probe::ProbeArgs;
use crate::telemetry::LogFormat;

/// Keeps WebSocket feeds in PostgreSQL, exactly once, through a durable queue on disk.
#[derive(Debug, Parser)]
#[command(
    name = "socket-el",
    version,
    max_term_width = 110,
    after_help = "\
Begin with:
  socket-el demo                  try the whole pipeline on this machine, without a network
  socket-el init                  write a config.yml and a profile to fill in
  socket-el check -c config.yml   find the mistakes of a configuration
  socket-el run -c config.yml     run it

stage-inspect shows what is staged and delivered, and handles what went wrong.

Exit codes:
  0 done, 1 failed, 2 usage or configuration, 3 stage in use or unreachable,
  4 data damaged, 5 taken over by another engine

Logs go to stderr. The environment variable SOCKET_EL_LOG sets their filter,
e.g. debug, or info,tokio_postgres=debug."
)]
pub struct Cli {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the configured runners until SIGINT or SIGTERM.
    ///
    /// Stops cleanly: consumers close their connections and flush what they hold, producers finish their
    /// transaction. A second signal, or 30 s, ends it at once; what was staged is safe then too.
    Run(RunArgs),
    /// Delivers what is staged, without receiving anything new, until every stage is empty.
    ///
    /// For after an outage of the database, or before a machine is given up. Beside a running engine, which delivers by itself,
    /// it only watches until nothing is pending.
    Drain(DrainArgs),
    /// Finds the mistakes of a configuration, all of them at once.
    Check(CheckArgs),
    /// Writes a commented configuration and a profile to begin with.
    ///
    /// The profile, which says how to reach the database, can be read by its owner only. What is there already is left as it is.
    Init(InitArgs),
    /// Looks at a feed, and says what it sends and how to keep it.
    Probe(ProbeArgs),
    /// Serves a WebSocket feed on this machine, for trying and testing without a network.
    Feed(FeedArgs),
    /// Runs the whole pipeline on this machine and proves that every message is a row exactly once.
    ///
    /// Starts a feed, two consumers, and a private PostgreSQL in a directory of its own from the server binaries
    /// that are installed; measures live and draining, and compares both with what `psql \copy` takes for the same
    /// rows. Nothing is left behind. Exits with 1 if a message is missing, doubled or out of order.
    Demo(DemoArgs),
    /// Prints a script that completes this command line in a shell.
    Completions(CompletionsArgs),
    /// Prints the man page, or writes those of all commands into a directory.
    Man(ManArgs),
}

impl Command {
    /// From which level on the command logs by default: the demonstration and a probe print a report of their own.
    #[must_use]
    pub fn log_level(&self) -> Level {
        match self {
            Self::Demo(_) | Self::Probe(_) => Level::WARN,
            Self::Run(_)
            | Self::Drain(_)
            | Self::Check(_)
            | Self::Init(_)
            | Self::Feed(_)
            | Self::Completions(_)
            | Self::Man(_) => Level::INFO,
        }
    }
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "config.yml")]
    pub config: PathBuf,
    /// The file with the database profiles [default: $SOCKET_EL_PROFILES, or ~/.socket_el/profile.yml].
    #[arg(long, value_name = "FILE")]
    pub profiles: Option<PathBuf>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  socket-el run -c config.yml
  socket-el run --only websocket_1 --only websocket_2    receive in one process,
  socket-el run --only postgres                          and deliver in another

A process that runs no consumer of a stage path reads it through the process that does; either may be started \
first, and each may be started again while the other goes on.")]
pub struct RunArgs {
    /// The configuration and the profiles.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Run only the runner of this name; may be given several times.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub only: Vec<String>,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  socket-el drain -c config.yml")]
pub struct DrainArgs {
    /// The configuration and the profiles.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print what was done as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  socket-el check -c config.yml --connect")]
pub struct CheckArgs {
    /// The configuration and the profiles.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Open the stages too, and try every feed and database.
    #[arg(long)]
    pub connect: bool,
    /// Print what was found as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  socket-el init -c feeds/config.yml --profiles feeds/profile.yml")]
pub struct InitArgs {
    /// The configuration and the profiles.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  socket-el demo --messages 1000000")]
pub struct DemoArgs {
    /// Messages of each of the two feeds in each of the two phases (live, drain).
    #[arg(long, default_value_t = 250_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub messages: u64,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}
