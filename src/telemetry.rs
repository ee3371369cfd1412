//! Logs: what the process tells its operator, on stderr. Levels: ERROR is for lost data or an operator who is
//! needed, WARN for what mends itself but should be known, INFO for what an operator wants to read every day.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_subscriber::EnvFilter;

/// The environment variable that sets the filter, in the syntax of `tracing-subscriber`'s `EnvFilter`.
pub const FILTER_VARIABLE: &str = "SOCKET_EL_LOG";

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line of text per event, coloured on a terminal.
    #[default]
    Text,
    /// A JSON object per event.
    Json,
}

/// Targets that are never heard below INFO, whatever the filter says: what they tell there are the payloads of messages.
const PAYLOAD_TARGETS: [&str; 2] = ["tungstenite", "tokio_tungstenite"];

/// Starts logging to stderr from `level` on, unless the environment says otherwise. To be called once, by a binary. sled's
/// own messages below WARN are left out by default, as it tells of its internals at INFO.
pub fn init(format: LogFormat, level: Level) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(format!("{level},sled=warn")));
    let quiet = PAYLOAD_TARGETS
        .iter()
        .filter_map(|target| format!("{target}=info").parse().ok());
    let filter = quiet.fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
