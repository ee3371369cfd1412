//! The command `socket-el`.

use std::process::ExitCode;

use clap::Parser;
use socket_el::cli::Cli;
use socket_el::stage::local::trial;
use socket_el::{commands, telemetry};

/// glibc's allocator keeps what many threads have freed in arenas of their own; while a backlog of 2 GB drains, this one was
/// measured to need a sixth less memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    trial::run_if_asked();
    let cli = Cli::parse();
    telemetry::init(cli.log_format, cli.command.log_level());
    commands::end_process_on_panic();
    commands::execute(cli.command)
}
