//! What is measured: which messages, how they come, and what becomes of them.

use crate::messages::{self, Make};

/// One line of the table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What is sent.
    pub(crate) source: Source,
    pub(crate) mode: Mode,
    /// Messages of all consumers together, at a scale of 1.
    pub(crate) messages: u64,
    pub(crate) consumers: u64,
    /// Keys of each consumer, as lines of YAML.
    pub(crate) consumer_keys: &'static str,
    /// Keys of the stage.
    pub(crate) stage_keys: &'static str,
    /// Keys of the producer.
    pub(crate) producer_keys: &'static str,
}

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// The trades that `feed` makes.
    Trades,
    /// Messages that are made here, and played from a file.
    Made(Make),
    /// A recorded feed, over and over, where there are recordings.
    Recorded(&'static str),
}

/// How the messages come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As fast as they are taken, while all is running.
    FlatOut,
    /// So many a second to each consumer, while all is running.
    Rate(u64),
    /// First all into the stage, then out of it.
    Drain,
}

/// Every thousandth message is no JSON.
fn spoilt(n: u64) -> String {
    if n % 1_000 == 999 {
        format!("no JSON, number {n}")
    } else {
        messages::narrow(n)
    }
}

/// Trades of four kinds, for four tables.
fn kinds(n: u64) -> String {
    let kind = ["match", "ticker", "open", "done"][usize::try_from(n % 4).unwrap_or(0)];
    messages::narrow(n).replacen('{', &format!(r#"{{"type":"{kind}","#), 1)
}

/// The price of one of a hundred products.
fn product(n: u64) -> String {
    messages::narrow(n).replacen('{', &format!(r#"{{"product":"P{:02}","#, n * 7 % 100), 1)
}

/// A trade with a text of a thousand bytes more.
fn long(n: u64) -> String {
    messages::narrow(n).replacen('{', &format!(r#"{{"note":"{}","#, "long ".repeat(200)), 1)
}

const ROUTES: &str = "routes:
  - when: { $.type: match }
    table: matches
  - when: { $.type: ticker }
    table: tickers
  - when: { $.type: open }
    table: opens
  - table: others";

const UPSERT: &str = "table: products
columns: { product: text }
on_conflict: { key: [product], action: update }";

const LARGE_BATCHES: &str = "batch_configuration: { size: 1000 }";

/// For a latency below that of the default batches, which close after 200 ms.
const SMALL_BATCHES: &str = "batch_configuration: { size: 1000, interval: 10ms }";

impl Scenario {
    fn new(name: &'static str, about: &'static str, mode: Mode, source: Source) -> Self {
        Self {
            name,
            about,
            source,
            mode,
            messages: 2_000_000,
            consumers: 1,
            consumer_keys: LARGE_BATCHES,
            stage_keys: "",
            producer_keys: "",
        }
    }

    fn messages(self, messages: u64) -> Self {
        Self { messages, ..self }
    }

    fn consumers(self, consumers: u64) -> Self {
        Self { consumers, ..self }
    }

    fn consumer_keys(self, consumer_keys: &'static str) -> Self {
        Self {
            consumer_keys,
            ..self
        }
    }

    fn stage_keys(self, stage_keys: &'static str) -> Self {
        Self { stage_keys, ..self }
    }

    fn producer_keys(self, producer_keys: &'static str) -> Self {
        Self {
            producer_keys,
            ..self
        }
    }

    /// All of them, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        use Mode::{Drain, FlatOut, Rate};
        use Source::{Made, Recorded, Trades};
        let of_recording = |name, file| {
            Self::new(name, "a recorded feed over and over", FlatOut, Recorded(file)).messages(200_000)
        };
        vec![
            Self::new("live", "narrow trades as fast as they are taken", FlatOut, Trades),
            Self::new(
                "live-batch-100",
                "the same in batches of 100, the default",
                FlatOut,
                Trades,
            )
            .consumer_keys(""),
            Self::new(
                "live-interval",
                "the same with durability: interval(200ms)",
                FlatOut,
                Trades,
            )
            .stage_keys("durability: interval(200ms)"),
            Self::new(
                "live-1-of-16",
                "2,000,000 trades through 16 consumers",
                FlatOut,
                Trades,
            )
            .consumers(16),
            Self::new(
                "live-1-of-4",
                "2,000,000 trades through 4 consumers",
                FlatOut,
                Trades,
            )
            .consumers(4),
            Self::new(
                "rate-1000",
                "1,000 trades a second, batches of 10 ms",
                Rate(1_000),
                Trades,
            )
            .messages(10_000)
            .consumer_keys(SMALL_BATCHES),
            Self::new(
                "rate-10000",
                "10,000 trades a second, batches of 10 ms",
                Rate(10_000),
                Trades,
            )
            .messages(100_000)
            .consumer_keys(SMALL_BATCHES),
            Self::new(
                "rate-50000",
                "50,000 trades a second, batches of 10 ms",
                Rate(50_000),
                Trades,
            )
            .messages(500_000)
            .consumer_keys(SMALL_BATCHES),
            Self::new("drain", "a backlog of narrow trades", Drain, Trades).messages(5_000_000),
            Self::new("drain-short", "a backlog that is a tenth of it", Drain, Trades).messages(500_000),
            Self::new("drain-1-of-16", "a backlog in 16 stages", Drain, Trades).consumers(16),
            Self::new(
                "drain-decimals",
                "a backlog of trades with decimals in strings",
                Drain,
                Made(messages::decimals),
            )
            .producer_keys("columns: { p: numeric, q: numeric, T: timestamptz(ms), E: timestamptz(ms) }"),
            Self::new(
                "drain-long",
                "a backlog of trades with 1,000 bytes of text",
                Drain,
                Made(long),
            )
            .messages(500_000),
            Self::new(
                "drain-wide",
                "a backlog of tickers with 25 columns",
                Drain,
                Made(messages::wide),
            )
            .messages(500_000),
            Self::new(
                "drain-nested",
                "a backlog of order books",
                Drain,
                Made(messages::nested),
            )
            .messages(200_000),
            Self::new("drain-routes", "a backlog into four tables", Drain, Made(kinds)).producer_keys(ROUTES),
            Self::new(
                "drain-upsert",
                "a backlog into one row for each of 100 products",
                Drain,
                Made(product),
            )
            .producer_keys(UPSERT),
            Self::new(
                "drain-dead-letters",
                "a backlog with 0.1 % that is no JSON",
                Drain,
                Made(spoilt),
            ),
            of_recording("feed-binance", "binance"),
            of_recording("feed-binance-futures", "binance_futures"),
            of_recording("feed-bitfinex", "bitfinex"),
            of_recording("feed-bitstamp", "bitstamp"),
            of_recording("feed-bybit", "bybit"),
            of_recording("feed-coinbase", "coinbase"),
            of_recording("feed-hitbtc", "hitbtc"),
        ]
    }
}
