//! What the command line asks for, a module a command. This is the top of the program: it puts the parts of the
//! library together and turns how they ended into an exit code.

mod check;
mod demo;
mod drain;
mod init;
mod run;
mod signals;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::CommandFactory as _;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::cli::{Cli, Command, ConfigArgs};
use crate::config::{Config, LoadOptions};
use crate::consumer::http::HttpVariety;
use crate::consumer::socket::SocketVariety;
use crate::exit::{ExitReason, RunnerError};
use crate::feed;
use crate::manual;
use crate::producer::postgres::PostgresVariety;
use crate::registry::Registry;

/// Does what a command asks and says with which code the process should exit. An error is printed to stderr.
#[must_use]
pub fn execute(command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("could not start: {error}");
            return ExitCode::from(ExitReason::Failed as u8);
        }
    };
    let outcome = runtime.block_on(dispatch(command));
    // What still runs was told to stop and did not; waiting for it would undo the deadline.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", crate::exit::chain(&error));
            ExitCode::from(error.reason() as u8)
        }
    }
}

async fn dispatch(command: Command) -> Result<(), RunnerError> {
    let stop = CancellationToken::new();
    signals::cancel_on_signal(stop.clone())?;
    match command {
        Command::Run(args) => run::run(&args, stop).await,
        Command::Drain(args) => drain::drain(&args, stop).await,
        Command::Check(args) => check::check(&args).await,
        Command::Init(args) => init::init(&args.config),
        Command::Probe(args) => crate::probe::run(args, stop).await,
        Command::Feed(args) => feed::run(args, stop).await,
        Command::Demo(args) => demo::demo(&args, stop).await,
        Command::Completions(args) => print(Ok(manual::completions(&args, Cli::command()))),
        Command::Man(args) => print(manual::man(&args, Cli::command())),
    }
}

/// Prints a text that was made. Who reads it may stop early.
fn print(text: io::Result<Vec<u8>>) -> Result<(), RunnerError> {
    let printed = text.and_then(|text| {
        let mut stdout = io::stdout();
        stdout.write_all(&text).and_then(|()| stdout.flush())
    });
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(RunnerError::new(ExitReason::Failed, error))
        }
        _ => Ok(()),
    }
}

/// Makes a panic on any thread end the process, after its message: half an engine must not go on running, and the
/// next start recovers whatever state it left.
pub fn end_process_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        error!("internal error, please report this: {panic}");
        std::process::exit(i32::from(ExitReason::Failed as u8));
    }));
}

/// The varieties that `socket-el` has by itself.
#[must_use]
pub fn builtin_registry() -> Registry {
    let mut registry = Registry::empty();
    registry
        .add_consumer(SocketVariety)
        .add_consumer(HttpVariety)
        .add_producer(PostgresVariety);
    registry
}

/// Loads the configuration and logs its warnings.
fn load(args: &ConfigArgs, registry: &Registry) -> Result<Config, RunnerError> {
    let options = LoadOptions {
        profiles: args.profiles.clone(),
        ..LoadOptions::default()
    };
    let loaded = Config::load(&args.config, registry, &options)
        .map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.config)
}
