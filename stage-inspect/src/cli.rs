//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use socket_el::manual::{CompletionsArgs, ManArgs};

use crate::adopt::AdoptArgs;
use crate::counts::CountsArgs;
use crate::dead_letters::DeadLettersArgs;
use crate::export::ExportArgs;
use crate::forget::ForgetArgs;
use crate::gaps::GapsArgs;
use crate::list::ListArgs;
use crate::replay::ReplayArgs;
use crate::show::ShowArgs;
use crate::skip::SkipArgs;
use crate::tail::TailArgs;
use crate::verify::VerifyArgs;

/// Looks into the durable stages of socket-el.
///
/// The stages are those of the configuration, or of the directory that --path names. It works the same whether the engine
/// runs or not: one process at a time can open a stage path, so a running engine is asked.
#[derive(Debug, Parser)]
#[command(
    name = "stage-inspect",
    version,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "\
Examples:
  stage-inspect list                             all stages of config.yml
  stage-inspect list websocket_1                 the batches of one
  stage-inspect show websocket_1 41              a message
  stage-inspect --path tmp --json list           all stages as JSON, without a configuration

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 stage in use or unreachable, 4 data damaged, 5 taken over by \
another process."
)]
pub(crate) struct Cli {
    /// Where the stages are.
    #[command(flatten)]
    pub(crate) at: Location,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say on stderr how the stages are looked into: through the engine, or by opening the files
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the stages are.
#[derive(Debug, Args)]
pub(crate) struct Location {
    /// The configuration that names the stages
    #[arg(short, long, global = true, value_name = "FILE", default_value = "config.yml")]
    pub(crate) config: PathBuf,
    /// A directory that holds stages (`stage: path`), in place of a configuration; what needs the database needs that
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "config")]
    pub(crate) path: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the stages and how far their producers are; or the batches of one stage
    List(ListArgs),
    /// Show what became of every message that was received, by producer
    Counts(CountsArgs),
    /// Show messages by their offsets
    Show(ShowArgs),
    /// Show the last messages, and with -f those that come
    Tail(TailArgs),
    /// List what a stage lacks: losses, drops, skipped offsets, stretches without a connection
    Gaps(GapsArgs),
    /// Read everything, and report what is damaged or lost
    Verify(VerifyArgs),
    /// Write messages to a file
    Export(ExportArgs),
    /// Give up what a stage or a producer that has left the configuration still holds
    Forget(ForgetArgs),
    /// Let a stage take over a cursor in the database: one of another stage path, or one whose row was removed
    ///
    /// A cursor says how far a producer has delivered a stage. An engine that still has it stops with exit code 5. Delivery begins at the oldest message that this stage holds,
    /// or with --keep-cursor where the cursor stands, which is only right for a path that was moved, or when the rows before
    /// it are known to be there.
    Adopt(AdoptArgs),
    /// Deliver once more what a stage still holds of what was delivered: after rows were lost
    Replay(ReplayArgs),
    /// Step over messages that block a producer; they become dead letters
    Skip(SkipArgs),
    /// Handle messages that could not become rows: list, show, export, retry, drop
    DeadLetters(DeadLettersArgs),
    /// Print a script that completes this command line in a shell
    Completions(CompletionsArgs),
    /// Print the man page, or write those of all commands into a directory
    Man(ManArgs),
}

impl Command {
    /// Whether it reads a stage, and changes nothing in it or in a database.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::List(_)
                | Self::Counts(_)
                | Self::Show(_)
                | Self::Tail(_)
                | Self::Gaps(_)
                | Self::Verify(_)
                | Self::Export(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parsed(arguments: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("stage-inspect").chain(arguments.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn list_takes_a_stage_and_options_on_either_side() {
        let cli = parsed("list websocket_1 --limit 5 --json --path /data").unwrap();
        assert!(cli.json);
        assert_eq!(cli.at.path, Some(PathBuf::from("/data")));
        let Command::List(list) = cli.command else {
            panic!("not list")
        };
        assert_eq!(
            (list.stage.as_deref(), list.limit, list.from),
            (Some("websocket_1"), 5, 0)
        );
        assert_eq!(parsed("list").unwrap().at.config, PathBuf::from("config.yml"));
    }

    #[test]
    fn a_path_and_a_configuration_exclude_each_other() {
        assert!(parsed("list --path /data -c other.yml").is_err());
    }
}
