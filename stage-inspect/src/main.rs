//! The command `stage-inspect`: looks into the durable stages of socket-el. A thin layer over the library: what a stage
//! holds is found out there, and shown here.

// What is printed goes through `output`: `println!` panics when nobody reads it any more.
#![deny(clippy::print_stdout)]

mod activity;
mod adopt;
mod batches;
mod chosen;
mod cli;
mod confirm;
mod counts;
mod dead_letters;
mod export;
mod facts;
mod forget;
mod gaps;
mod list;
mod message;
mod output;
mod place;
mod producing;
mod range;
mod replay;
mod show;
mod skip;
mod stopping;
mod table;
mod tail;
mod time;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use socket_el::exit::{ExitReason, RunnerError, chain};
use socket_el::manual;
use socket_el::stage::local::trial;

use crate::cli::{Cli, Command};
use crate::output::print_bytes;

#[tokio::main]
async fn run(cli: &Cli) -> Result<(), RunnerError> {
    match &cli.command {
        Command::List(args) => list::list(cli, args).await,
        Command::Counts(args) => counts::counts(cli, args).await,
        Command::Show(args) => show::show(cli, args).await,
        Command::Tail(args) => tail::tail(cli, args).await,
        Command::Gaps(args) => gaps::gaps(cli, args).await,
        Command::Verify(args) => verify::verify(cli, args).await,
        Command::Export(args) => export::export(cli, args).await,
        Command::Forget(args) => forget::forget(cli, args).await,
        Command::Adopt(args) => adopt::adopt(cli, args).await,
        Command::Replay(args) => replay::replay(cli, args).await,
        Command::Skip(args) => skip::skip(cli, args).await,
        Command::DeadLetters(args) => dead_letters::dead_letters(cli, args).await,
        Command::Completions(args) => print_bytes(&manual::completions(args, Cli::command())),
        Command::Man(args) => {
            let page = manual::man(args, Cli::command());
            print_bytes(&page.map_err(|error| RunnerError::new(ExitReason::Failed, error))?)
        }
    }
}

/// What a command that looks costs is the pipeline's loss where processors are scarce: others go first. Before any thread is started,
/// as each inherits it.
fn give_way() {
    const NICENESS: i32 = 10;
    // Where it is not allowed, the command works all the same.
    let _ = rustix::process::nice(NICENESS);
}

fn main() -> ExitCode {
    trial::run_if_asked();
    let cli = Cli::parse();
    if cli.command.only_looks() {
        give_way();
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stage-inspect: {}", chain(&error));
            ExitCode::from(error.reason() as u8)
        }
    }
}
