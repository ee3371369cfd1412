//! A feed that sends what can't become a row disturbs nothing else: each is a row, a dead letter, or a recorded gap.

use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::support::checker::{Tally, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::source::Source;

/// Trades before and after each disturbance.
const STEP: u64 = 100;

struct Disturbed {
    database: Database,
    source: Source,
    engine: Process,
    trades: u64,
    _workspace: Workspace,
}

impl Disturbed {
    async fn start() -> Self {
        let database = Database::shared().await;
        let workspace = Workspace::direct(&database);
        let source = Source::start().await;
        workspace.write_config(&config(&[("feed", &source.url())], "metadata: true"));
        let engine = workspace.run();
        let mut disturbed = Self {
            database,
            source,
            engine,
            trades: 0,
            _workspace: workspace,
        };
        disturbed.trades_arrive().await;
        disturbed
    }

    /// More trades are sent, and become rows.
    async fn trades_arrive(&mut self) {
        self.source.release(STEP);
        self.trades += STEP;
        let (database, trades) = (&self.database, self.trades);
        self.engine
            .until("the trades are rows", async || {
                database.number("SELECT count(seq) FROM feed").await >= Some(trades)
            })
            .await;
    }

    async fn dead_letters(&self) -> Vec<Vec<Option<String>>> {
        self.database
            .rows("SELECT encode(payload, 'hex'), reason FROM _socket_el_dead_letter ORDER BY message_offset")
            .await
    }

    async fn ends_well(mut self) {
        self.engine.stops_cleanly().await;
        self.database
            .rows("CREATE TABLE trades AS SELECT seq, _offset FROM feed WHERE seq IS NOT NULL")
            .await;
        let seen = tally_by_offset(&self.database, "trades").await;
        assert_eq!(seen, Tally::each_once(self.trades));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_becomes_a_dead_letter_with_its_bytes_and_a_reason() {
    let mut disturbed = Disturbed::start().await;
    let garbage: [&[u8]; 5] = [
        b"",
        b"ceci n'est pas du JSON",
        b"{\"cut\": ",
        b"\xff\xfe\x00",
        b"{\"a\":\"\xc3\x28\"}",
    ];
    let messages = garbage.map(|bytes| match std::str::from_utf8(bytes) {
        Ok(text) => Message::text(text),
        Err(_) => Message::binary(bytes),
    });
    disturbed.source.send(messages).await;
    disturbed.trades_arrive().await;
    let dead = disturbed.dead_letters().await;
    let payloads: Vec<_> = dead.iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(payloads, garbage.map(hex));
    assert!(dead.iter().all(|row| !row[1].as_ref().unwrap().is_empty()));
    assert_eq!(disturbed.source.starts().await, [0], "it stays connected");
    disturbed.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_deep_messages_are_rows_and_too_deep_ones_dead_letters() {
    let mut disturbed = Disturbed::start().await;
    let nested = |depth: usize| format!("{{\"deep\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    let large = "x".repeat(1 << 20);
    disturbed
        .source
        .send([
            Message::text(format!("{{\"large\":\"{large}\"}}")),
            Message::text(nested(99)),
            Message::text(nested(200)),
        ])
        .await;
    disturbed.trades_arrive().await;
    let database = &disturbed.database;
    let whole = database
        .number("SELECT count(*) FROM feed WHERE large = repeat('x', 1048576)")
        .await;
    assert_eq!(whole, Some(1));
    let deep = database
        .number("SELECT count(*) FROM feed WHERE deep IS NOT NULL")
        .await;
    assert_eq!(deep, Some(1));
    let dead = disturbed.dead_letters().await;
    let payloads: Vec<_> = dead.iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(payloads, [hex(nested(200).as_bytes())]);
    disturbed.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_can_not_be_received_cost_the_connection_and_are_recorded() {
    let mut disturbed = Disturbed::start().await;
    let too_large = Message::text("x".repeat(20 << 20));
    let bad_text = Message::Frame(Frame::message(
        b"{\"a\":\"\xff\"}".to_vec(),
        OpCode::Data(Data::Text),
        true,
    ));
    for (message, connections) in [(too_large, 2), (bad_text, 3)] {
        disturbed.source.send([message]).await;
        let source = &disturbed.source;
        disturbed
            .engine
            .until("it has connected again", async || {
                source.starts().await.len() >= connections
            })
            .await;
        disturbed.trades_arrive().await;
    }
    assert_eq!(disturbed.dead_letters().await.len(), 0);
    let log = disturbed.engine.stderr();
    assert!(log.contains("1009") && log.contains("1007"), "{log}");
    disturbed.ends_well().await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
