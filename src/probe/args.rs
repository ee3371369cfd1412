//! The command line of `socket-el probe`.

use std::convert::Infallible;

use crate::config::Secret;

/// Looks at a feed, and says what it sends and how to keep it.
///
/// Connects as a `socket` consumer would, listens for a while, and prints the handshake, the rate, the kinds of messages with
/// an example and the columns of each, runners for config.yml, and the table that the producer would make. Nothing is
/// staged and no database is needed.
///
/// What is given here is written as in config.yml: ${VAR} stands for an environment variable. Secrets that are given as they
/// are stand in the printed runner as ${VAR}; they are seen by who may list processes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    socket-el probe ws://127.0.0.1:9001/trades/binance\n  \
    socket-el probe wss://feed.example/ws --subscribe '{\"op\":\"subscribe\",\"args\":[\"trades\"]}' --seconds 30\n  \
    socket-el probe wss://feed.example/ws --header 'X-Api-Key: ${KEY}' --set 'proxy: socks5://127.0.0.1:1080'\n  \
    socket-el probe wss://feed.example/ws --json | jq -r .config > config.yml")]
pub struct ProbeArgs {
    /// The feed: ws://… or wss://…
    #[arg(value_name = "URI", value_parser = secret)]
    pub uri: Secret,

    /// What to do after connecting, in order: a message to send, or a step as in config.yml ({ expect: … }). May be
    /// given several times
    #[arg(long, value_name = "STEP", value_parser = secret)]
    pub subscribe: Vec<Secret>,

    /// A header of the handshake. May be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = secret)]
    pub header: Vec<Secret>,

    /// A subprotocol to ask for. May be given several times
    #[arg(long, value_name = "NAME", value_parser = secret)]
    pub subprotocol: Vec<Secret>,

    /// More keys of a `socket` consumer, as in config.yml: 'tls: { ca_file: ca.pem }'. May be given several times
    #[arg(long, value_name = "KEYS", value_parser = secret)]
    pub set: Vec<Secret>,

    /// Listen for so long
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,

    /// Stop after so many messages, if they come sooner
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,

    /// The name of the consumer, and so of its stage and table [default: made from the URI's host]
    #[arg(long)]
    pub name: Option<String>,

    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants a parser that may fail")]
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}
