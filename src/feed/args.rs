//! The command line of `socket-el feed`.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{FeedOptions, Source, Then};

/// A WebSocket server on this machine, for trying and testing without a network.
///
/// Every request path is a stream of its own. Without --file it plays generated trades of the exchange that the path's last
/// segment names, each with a running number: a client of ws://127.0.0.1:9001/trades/binance gets
/// {"exchange":"binance", … ,"seq":0}, then "seq":1 and so on. A client that comes back goes on where the path's stream
/// stopped. A client that breaks off without a close frame loses what was on its way, as with a real feed.
/// Clients that share a path share its messages: each goes to one of them, or with --broadcast to all.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    socket-el feed                                      trades as fast as clients take them\n  \
    socket-el feed --rate 1000 --drop-after 5000        1000 a second, cut after every 5000\n  \
    socket-el feed --broadcast --rate 1000              the same to every client, as an exchange does\n  \
    socket-el feed --file trades.jsonl --then close     each line once, then close")]
pub struct FeedArgs {
    /// Address and port to listen on; port 0 takes a free one. The first line of output says which
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9001")]
    pub listen: SocketAddr,

    /// Allow --listen to name an address that other machines can reach. Nothing is encrypted and nobody is asked for a password
    #[arg(long)]
    pub public: bool,

    /// Play the lines of this file, a message each, byte for byte, instead of generated trades
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Begin the file again at its end
    #[arg(long, requires = "file")]
    pub repeat: bool,

    /// Generate so many trades per path [default: no end]
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub count: Option<u64>,

    /// Number (`seq`) of the first trade that is generated for each path
    #[arg(long, value_name = "SEQ", default_value_t = 0, conflicts_with = "file")]
    pub first: u64,

    /// Send at most so many messages a second to each connection [default: as fast as it takes them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,

    /// Send each message to every connection of its path, from the moment on which it connects, as an exchange does. The
    /// numbers follow the clock, also while nobody listens, 1000 a second unless --rate says otherwise. A client that
    /// falls 5 s behind is closed with code 1008
    #[arg(long)]
    pub broadcast: bool,

    /// Close each connection after so many messages; the client may come again and gets the next ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub drop_after: Option<u64>,

    /// What to do with a connection when everything is sent: close it, or stay and answer its pings
    #[arg(long, value_name = "WHAT", default_value = "stay")]
    pub then: Then,
}

impl From<FeedArgs> for FeedOptions {
    fn from(args: FeedArgs) -> Self {
        Self {
            listen: args.listen,
            public: args.public,
            source: match args.file {
                Some(path) => Source::File {
                    path,
                    repeat: args.repeat,
                },
                None => Source::Generated {
                    first: args.first,
                    count: args.count,
                },
            },
            rate: args.rate,
            broadcast: args.broadcast,
            drop_after: args.drop_after,
            then: args.then,
        }
    }
}
