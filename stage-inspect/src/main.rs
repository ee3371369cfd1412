//! The command `stage-inspect`: looks into the durable stages of socket-el. A thin layer over the library: what a stage
//! holds is found out there, and shown here.

mod adopt;
mod cli;
mod list;
mod place;
mod table;
mod time;

use std::process::ExitCode;

use clap::Parser as _;
use socket_el::exit::{RunnerError, chain};
use socket_el::stage::local::trial;

use crate::cli::{Cli, Command};

#[tokio::main]
async fn run(cli: &Cli) -> Result<(), RunnerError> {
    match &cli.command {
        Command::List(args) => list::list(cli, args).await,
        Command::Adopt(args) => adopt::adopt(cli, args).await,
    }
}

fn main() -> ExitCode {
    trial::run_if_asked();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stage-inspect: {}", chain(&error));
            ExitCode::from(error.reason() as u8)
        }
    }
}
