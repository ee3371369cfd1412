//! The recipes of docs/recipes.md, run as they stand there on messages in the shape of the feeds that they are for.
//!
//! For each: what was received is what became rows, was ignored, or is a dead letter, and decimals are exact to the digit.

use std::fs;
use std::path::Path;

use crate::support::cluster::Database;
use crate::support::engine::{Workspace, config};
use crate::support::source::Source;

/// The blocks of a language under a heading that begins so.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.md")).unwrap();
    let section = page
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap_or_else(|| panic!("docs/recipes.md has no section {heading}"));
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

/// Plays messages through the recipe under a heading, and compares the rows of a query, columns joined by `|`, NULL as `~`.
struct Recipe<'a> {
    heading: &'a str,
    messages: &'a [&'a str],
    ignored: u64,
    dead_letters: u64,
    query: &'a str,
    rows: &'a [&'a str],
}

impl Recipe<'_> {
    async fn works(&self) {
        let database = Database::shared().await;
        let workspace = Workspace::direct(&database);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for sql in blocks(self.heading, "sql") {
            if sql.contains("CREATE TABLE") {
                before.push(sql);
            } else {
                after.push(sql);
            }
        }
        for sql in before {
            database.rows(&sql).await;
        }
        let source = Source::start().await;
        let keys = blocks(self.heading, "yaml").remove(0);
        workspace.write_config(&config(&[("feed", &source.url())], &keys));
        let mut engine = workspace.run();
        engine
            .until("it is connected", async || !source.starts().await.is_empty())
            .await;
        source
            .send(self.messages.iter().map(|message| (*message).into()))
            .await;
        let wanted = self.messages.len() as u64;
        engine
            .until("all messages are passed", async || {
                let question = "SELECT next_offset FROM _socket_el_cursor WHERE stage = 'feed'";
                database.number(question).await == Some(wanted)
            })
            .await;
        engine.stops_cleanly().await;
        let figures = format!("delivered={wanted} ignored={} ", self.ignored);
        assert!(
            engine.stderr().contains(&figures),
            "{figures}\n{}",
            engine.last_words()
        );
        assert_eq!(
            database.count("_socket_el_dead_letter").await,
            Some(self.dead_letters),
            "{}",
            self.heading
        );
        for sql in after {
            database.rows(&sql).await;
        }
        let rows = database.rows(self.query).await;
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let fields: Vec<_> = row.iter().map(|field| field.as_deref().unwrap_or("~")).collect();
                fields.join("|")
            })
            .collect();
        assert_eq!(rows, self.rows, "{}", self.heading);
    }
}

const COINBASE: [&str; 4] = [
    r#"{"type":"subscriptions","channels":[{"name":"matches","product_ids":["AAA-BBB"]}]}"#,
    r#"{"type":"last_match","trade_id":11,"maker_order_id":"00000000-0000-4000-8000-000000000001","taker_order_id":"00000000-0000-4000-8000-000000000002","side":"sell","size":"0.04","price":"14.7775","product_id":"AAA-BBB","sequence":3,"time":"2021-04-17T16:43:30.244075Z"}"#,
    r#"{"type":"l2update","product_id":"AAA-BBB","changes":[["sell","0.00001306","660.5"]],"time":"2021-04-17T16:43:37.075687Z"}"#,
    r#"{"type":"match","trade_id":12,"maker_order_id":"00000000-0000-4000-8000-000000000003","taker_order_id":"00000000-0000-4000-8000-000000000004","side":"sell","size":"985","price":"0.00001305","product_id":"AAA-BBB","sequence":4,"time":"2021-04-18T00:00:00.000001Z"}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn the_trades_of_coinbase() {
    Recipe {
        heading: "Coinbase: the trades",
        messages: &COINBASE,
        ignored: 2,
        dead_letters: 0,
        query: "SELECT trade_id, price, size, time AT TIME ZONE 'UTC', pg_typeof(maker_order_id) FROM feed ORDER BY 1",
        rows: &[
            "11|14.7775|0.04|2021-04-17 16:43:30.244075|uuid",
            "12|0.00001305|985|2021-04-18 00:00:00.000001|uuid",
        ],
    }
    .works()
    .await;
}

/// Tickers of one product and of another, the first twice.
const TICKERS: [&str; 3] = [
    r#"{"type":"ticker","sequence":1,"product_id":"AAA-BBB","price":"14.7775","best_bid":"14.7550","best_ask":"14.8060","volume_24h":"94381.28000000","side":"buy","time":"2021-04-17T16:43:30.244075Z","trade_id":11,"last_size":"0.04"}"#,
    r#"{"type":"ticker","sequence":2,"product_id":"CCC-BBB","price":"0.00001305","best_bid":"0.00001300","best_ask":"0.00001310","volume_24h":"7","side":"sell","time":"2021-04-17T16:43:31Z","trade_id":5,"last_size":"985"}"#,
    r#"{"type":"ticker","sequence":3,"product_id":"AAA-BBB","price":"14.80","best_bid":"14.79","best_ask":"14.81","volume_24h":"94382.0","side":"buy","time":"2021-04-17T16:43:32Z","trade_id":12,"last_size":"1"}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn each_type_of_coinbase_in_a_table_of_its_own() {
    let snapshot = r#"{"type":"snapshot","product_id":"AAA-BBB","asks":[["1.5","2"]],"bids":[]}"#;
    let changes = r#"{"type":"l2update","product_id":"CCC-BBB","changes":[["buy","0.10","3"],["sell","0.2","0"]],"time":"2021-04-17T16:43:38Z"}"#;
    Recipe {
        heading: "Coinbase: each type",
        messages: &[
            COINBASE[0], COINBASE[1], TICKERS[0], COINBASE[2], TICKERS[1], snapshot, COINBASE[3], TICKERS[2], changes,
        ],
        ignored: 1,
        dead_letters: 0,
        query: "SELECT 'trade', trade_id::text, price, size, pg_typeof(maker_order_id)::text FROM trades \
                UNION ALL SELECT 'ticker', product_id, price, last_size, best_bid::text FROM tickers \
                UNION ALL SELECT 'level', product_id, price, size, side || to_char(time AT TIME ZONE 'UTC', ' SS.MS') FROM levels \
                UNION ALL SELECT 'book', product_id, NULL, NULL, asks::text || bids::text FROM books ORDER BY 1, 2, 3",
        rows: &[
            "book|AAA-BBB|~|~|[[\"1.5\", \"2\"]][]",
            "level|AAA-BBB|0.00001306|660.5|sell 37.075",
            "level|CCC-BBB|0.10|3|buy 38.000",
            "level|CCC-BBB|0.2|0|sell 38.000",
            "ticker|AAA-BBB|14.80|1|14.79",
            "ticker|CCC-BBB|0.00001305|985|0.00001300",
            "trade|11|14.7775|0.04|uuid",
            "trade|12|0.00001305|985|uuid",
        ],
    }
    .works()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_ticker_of_each_product() {
    Recipe {
        heading: "Tickers",
        messages: &[COINBASE[0], TICKERS[0], TICKERS[1], TICKERS[2]],
        ignored: 1,
        dead_letters: 0,
        query: "SELECT product_id, price, volume_24h, sequence FROM tickers ORDER BY 1",
        rows: &["AAA-BBB|14.80|94382.0|3", "CCC-BBB|0.00001305|7|2"],
    }
    .works()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trades_that_come_again_stand_once() {
    Recipe {
        heading: "Trades that the feed sends again",
        messages: &[COINBASE[1], COINBASE[3], COINBASE[1], COINBASE[0], COINBASE[3]],
        ignored: 1,
        dead_letters: 0,
        query: "SELECT trade_id, type, price FROM trades ORDER BY 1",
        rows: &["11|last_match|14.7775", "12|match|0.00001305"],
    }
    .works()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_combined_streams_of_binance() {
    Recipe {
        heading: "Binance",
        messages: &[
            r#"{"stream":"aaabbb@depth@100ms","data":{"e":"depthUpdate","E":1633998512068,"s":"AAABBB","U":1,"u":2,"b":[["0.3513","6195.0"]],"a":[]}}"#,
            r#"{"stream":"aaabbb@aggTrade","data":{"e":"aggTrade","E":1633998523963,"s":"AAABBB","a":7,"p":"0.35280000","q":"58.00000000","f":1,"l":2,"T":1633998523962,"m":false,"M":true}}"#,
        ],
        ignored: 1,
        dead_letters: 0,
        query: "SELECT stream, e, \"E\" AT TIME ZONE 'UTC', \"T\" AT TIME ZONE 'UTC', p, q, m, \"M\" FROM feed",
        rows: &[
            "aaabbb@aggTrade|aggTrade|2021-10-12 00:28:43.963|2021-10-12 00:28:43.962|0.35280000|58.00000000|f|t",
        ],
    }
    .works()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arrays_of_bitfinex() {
    Recipe {
        heading: "Bitfinex",
        messages: &[
            r#"{"event":"subscribed","channel":"book","chanId":17}"#,
            "[17,[[0.068965,3,60157.36709703],[1.10,1,-0.0020]],1]",
            "[17,[0.0262,0,1],2]",
            r#"[17,"hb",3]"#,
        ],
        ignored: 0,
        dead_letters: 0,
        query: "SELECT channel, price, count, amount, _message FROM feed ORDER BY price, _message->>'event'",
        rows: &[
            "17|0.0262|0|1|~",
            "17|0.068965|3|60157.36709703|~",
            "17|1.10|1|-0.0020|~",
            "~|~|~|~|{\"event\": \"subscribed\", \"chanId\": 17, \"channel\": \"book\"}",
            "17|~|~|~|[17, \"hb\", 3]",
        ],
    }
    .works()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_many_records_of_bybit() {
    Recipe {
        heading: "Bybit",
        messages: &[
            r#"{"success":true,"ret_msg":"","request":{"op":"subscribe","args":["trade.BTCUSD"]}}"#,
            r#"{"topic":"trade.BTCUSD","data":[{"trade_time_ms":1618677786614,"timestamp":"2021-04-17T16:43:06.000Z","symbol":"BTCUSD","side":"Sell","size":4,"price":60621.5,"trade_id":"00000000-0000-4000-8000-000000000001"},{"trade_time_ms":1618677786618,"timestamp":"2021-04-17T16:43:06.000Z","symbol":"BTCUSD","side":"Sell","size":5,"price":60621.50,"trade_id":"00000000-0000-4000-8000-000000000002"}]}"#,
            r#"{"topic":"trade.EOSUSD","data":[]}"#,
        ],
        ignored: 2,
        dead_letters: 0,
        query: "SELECT topic, trade_time_ms AT TIME ZONE 'UTC', price, size FROM feed ORDER BY 2",
        rows: &[
            "trade.BTCUSD|2021-04-17 16:43:06.614|60621.5|4",
            "trade.BTCUSD|2021-04-17 16:43:06.618|60621.50|5",
        ],
    }
    .works()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_rpc_of_hitbtc() {
    Recipe {
        heading: "HitBTC",
        messages: &[
            r#"{"jsonrpc":"2.0","result":true,"id":"1"}"#,
            r#"{"jsonrpc":"2.0","method":"snapshotTrades","params":{"data":[{"id":1,"price":"0.000020295","quantity":"2.95","side":"buy","timestamp":"2021-07-13T11:07:53.658Z"}],"symbol":"AAABBB"}}"#,
            r#"{"jsonrpc":"2.0","method":"updateTrades","params":{"data":[{"id":2,"price":"0.0000203","quantity":"1e2","side":"sell","timestamp":"2021-07-13T11:07:54Z"}],"symbol":"AAABBB"}}"#,
        ],
        ignored: 1,
        dead_letters: 0,
        query: "SELECT id, symbol, method, price, quantity, timestamp AT TIME ZONE 'UTC' FROM feed ORDER BY id",
        rows: &[
            "1|AAABBB|snapshotTrades|0.000020295|2.95|2021-07-13 11:07:53.658",
            "2|AAABBB|updateTrades|0.0000203|100|2021-07-13 11:07:54",
        ],
    }
    .works()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trades_in_a_table_partitioned_by_day() {
    let no_time = r#"{"type":"match","price":"1","trade_id":13}"#;
    Recipe {
        heading: "Trades in a table",
        messages: &[COINBASE[0], COINBASE[1], COINBASE[3], no_time],
        ignored: 1,
        dead_letters: 1,
        query: "SELECT tableoid::regclass, trade_id, price FROM trades ORDER BY trade_id",
        rows: &["trades_2021_04_17|11|14.7775", "trades_other|12|0.00001305"],
    }
    .works()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_messages_first_and_views_later() {
    Recipe {
        heading: "Raw first",
        messages: &[COINBASE[0], COINBASE[1], "nonsense", COINBASE[3]],
        ignored: 0,
        dead_letters: 1,
        query: "SELECT (SELECT count(*) FROM feed), price, time AT TIME ZONE 'UTC' FROM matches ORDER BY price",
        rows: &[
            "3|0.00001305|2021-04-18 00:00:00.000001",
        ],
    }
    .works()
    .await;
}
