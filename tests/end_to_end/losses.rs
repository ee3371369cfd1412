//! What is lost on this side of the source stands in the ledger with exact places and numbers: what a full stage drops, what the disk
//! loses, and what a killed engine had received and not staged.

use std::path::Path;

use base64::Engine as _;
use rand::RngExt as _;
use socket_el::stage::path::StagePath as _;
use socket_el::stage::remote::RemotePath;
use tokio_tungstenite::tungstenite::Message;

use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace};
use crate::support::proxy::{Proxy, Traffic};
use crate::support::source::Source;

/// Bytes of a message that does not compress, and so many of them that they are half as much again as the stage takes.
const LARGE_BYTES: usize = 50_000;
const FLOOD: u64 = 1_000;

struct Scene {
    database: Database,
    /// Before PostgreSQL.
    proxy: Proxy,
    source: Source,
    /// Numbered messages that were sent.
    sent: u64,
    workspace: Workspace,
}

impl Scene {
    /// With these keys of the stage, and others of the consumer.
    async fn new(stage: &str, keys: &str) -> Self {
        let database = Database::shared().await;
        let proxy = Proxy::to(database.cluster().port()).await;
        let workspace = Workspace::new(&database, proxy.port());
        let source = Source::start().await;
        workspace.write_config(&format!(
            "runners:
  - name: feed
    type: consumer
    variety: socket
    uri: {}
    stage: {{ type: local, path: tmp{stage} }}
    reconnect: {{ initial: 20ms, max: 200ms }}
    {keys}
  - name: postgres
    type: producer
    variety: postgres
    depends_on: [feed]
    profile: postgres
    metadata: true
",
            source.url()
        ));
        Self {
            database,
            proxy,
            source,
            sent: 0,
            workspace,
        }
    }

    /// Sends numbered messages of so many bytes that do not compress.
    async fn sends(&mut self, messages: u64, bytes: usize) {
        let numbers = self.sent..self.sent + messages;
        self.sent += messages;
        let sent = numbers.map(|number| {
            let noise: Vec<u8> = (0..bytes).map(|_| rand::rng().random()).collect();
            let blob = base64::engine::general_purpose::STANDARD.encode(noise);
            Message::text(format!("{{\"seq\":{number},\"blob\":\"{blob}\"}}"))
        });
        self.source.send(sent.collect::<Vec<_>>()).await;
    }

    /// What the engine says of the consumer; `None` while it can't be asked.
    async fn consumer(&self) -> Option<serde_json::Value> {
        let path = RemotePath::connect(&self.workspace.path().join("tmp"))
            .await
            .ok()?;
        let status = path.status().await.ok()?;
        path.close().await.ok()?;
        Some(status?["consumers"]["feed"].clone())
    }

    /// Waits until so many messages have come over the connection, whether they are in a batch that is closed or not.
    async fn has_come(&self, engine: &mut Process, messages: u64) {
        engine
            .until(&format!("{messages} messages have come"), async || {
                let told = self.consumer().await.unwrap_or_default();
                told["connections"][0]["first"].as_u64() >= Some(messages)
            })
            .await;
    }

    async fn is_row(&self, engine: &mut Process, seq: u64) {
        engine
            .until(&format!("message {seq} is a row"), async || {
                self.database.number("SELECT max(seq) FROM feed").await == Some(seq)
            })
            .await;
    }

    /// The database is away, the stage is filled beyond what it holds, the database comes back, and all goes on.
    async fn overflows(&mut self) {
        let mut engine = self.workspace.run();
        self.sends(100, 10).await;
        self.is_row(&mut engine, 99).await;
        self.proxy.set(Traffic::Refused);
        self.proxy.cut();
        self.sends(FLOOD, LARGE_BYTES).await;
        self.has_come(&mut engine, self.sent).await;
        // The path, or with drop_oldest the stage whose messages went.
        engine.until_logged(" is full").await;
        self.proxy.set(Traffic::Flowing);
        // Nothing is pending: whatever was dropped, there is room again.
        engine
            .until("what is left is delivered", async || {
                let listed = self.workspace.inspect(&["--path", "tmp", "--json", "list"]).await;
                let listed: serde_json::Value = serde_json::from_str(&listed.stdout()).unwrap_or_default();
                listed[0]["stages"][0]["producers"][0]["pending"] == 0
            })
            .await;
        self.sends(100, 10).await;
        self.is_row(&mut engine, self.sent - 1).await;
        engine.stops_cleanly().await;
    }

    /// Rows of the ledger of one cause: where they begin and end, and how many messages they are.
    async fn ledger(&self, cause: &str) -> Vec<(u64, u64, Option<u64>)> {
        let rows = self
            .database
            .rows(&format!(
                "SELECT from_offset, to_offset, messages FROM _socket_el_gap WHERE cause = '{cause}' ORDER BY from_offset, number"
            ))
            .await;
        let number = |value: &Option<String>| value.as_ref().map(|value| value.parse::<u64>().unwrap());
        rows.iter()
            .map(|row| {
                (
                    number(&row[0]).unwrap(),
                    number(&row[1]).unwrap(),
                    number(&row[2]),
                )
            })
            .collect()
    }

    /// Offsets below `end` at which no row is, as stretches.
    async fn without_rows(&self, end: u64) -> Vec<(u64, u64)> {
        let rows = self
            .database
            .rows(&format!(
                "SELECT before + 1, _offset FROM (
                   SELECT _offset, lag(_offset, 1, -1::bigint) OVER (ORDER BY _offset) AS before
                   FROM (SELECT _offset FROM feed WHERE _offset < {end} UNION SELECT {end}) AS ends) AS pairs
                 WHERE _offset > before + 1 ORDER BY _offset"
            ))
            .await;
        let number = |value: &Option<String>| value.as_ref().unwrap().parse().unwrap();
        rows.iter()
            .map(|row| (number(&row[0]), number(&row[1])))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drop_oldest_drops_stands_in_the_ledger_with_the_offsets_that_are_no_rows() {
    let mut scene = Scene::new(", max_bytes: 32MiB, on_full: drop_oldest", "").await;
    scene.overflows().await;
    let dropped = scene.ledger("dropped_oldest").await;
    // Nothing restarted, so every message has the offset of its number.
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for (from, to, messages) in &dropped {
        assert_eq!(*messages, Some(to - from));
        match stretches.last_mut() {
            Some((_, end)) if end == from => *end = *to,
            _ => stretches.push((*from, *to)),
        }
    }
    assert!(!stretches.is_empty());
    assert_eq!(stretches, scene.without_rows(scene.sent).await);
    let misplaced = scene
        .database
        .number("SELECT count(*) FROM feed WHERE _offset <> seq")
        .await;
    assert_eq!(misplaced, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drop_newest_drops_stands_in_the_ledger_where_the_numbers_have_a_hole() {
    let mut scene = Scene::new(", max_bytes: 32MiB, on_full: drop_newest", "").await;
    scene.overflows().await;
    let holes = scene
        .database
        .rows(
            "SELECT _offset, seq - before - 1 FROM (
               SELECT _offset, seq, lag(seq, 1, -1::bigint) OVER (ORDER BY _offset) AS before FROM feed) AS pairs
             WHERE seq <> before + 1 ORDER BY _offset",
        )
        .await;
    let number = |value: &Option<String>| value.as_ref().unwrap().parse::<u64>().unwrap();
    let holes: Vec<_> = holes
        .iter()
        .map(|row| (number(&row[0]), number(&row[0]), Some(number(&row[1]))))
        .collect();
    assert!(!holes.is_empty());
    assert_eq!(scene.ledger("dropped_newest").await, holes);
}

/// Changes a byte in the midst of what the largest file of a directory holds.
fn damage(directory: &Path) {
    let files = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let largest = files
        .max_by_key(|file| file.metadata().unwrap().len())
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&largest).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2] ^= 0xff;
    std::fs::write(&largest, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_loses_stands_in_the_ledger_with_the_offsets_that_are_no_rows() {
    let mut scene = Scene::new("", "").await;
    let mut engine = scene.workspace.run();
    scene.sends(100, 10).await;
    scene.is_row(&mut engine, 99).await;
    scene.proxy.set(Traffic::Refused);
    scene.proxy.cut();
    scene.sends(1_000, 1_000).await;
    scene.has_come(&mut engine, scene.sent).await;
    engine.stops_cleanly().await;
    damage(&scene.workspace.path().join("tmp/g-0"));
    scene.proxy.set(Traffic::Flowing);
    let mut engine = scene.workspace.run();
    let staged = scene.sent;
    scene.sends(100, 10).await;
    scene.is_row(&mut engine, scene.sent - 1).await;
    engine.stops_cleanly().await;

    let lost = scene.ledger("lost").await;
    let missing = scene.without_rows(staged).await;
    assert!(!missing.is_empty());
    let told: Vec<_> = lost.iter().map(|(from, to, _)| (*from, *to)).collect();
    assert_eq!(told, missing);
    for (from, to, messages) in lost {
        assert_eq!(
            messages,
            Some(to - from),
            "after a stop in order nothing is unknown"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_engine_had_received_and_not_staged_stands_in_the_ledger_by_number_and_by_time() {
    const STEP: u64 = 1_000;
    const OPEN: u64 = 700;
    let keys =
        format!("sequence: {{ path: $.seq }}\n    batch_configuration: {{ size: {STEP}, interval: 1h }}");
    let scene = Scene::new("", &keys).await;
    let mut engine = scene.workspace.run();
    scene.source.release(STEP);
    scene.is_row(&mut engine, STEP - 1).await;
    scene.source.release(OPEN);
    scene.has_come(&mut engine, STEP + OPEN).await;
    engine.kill();
    let mut engine = scene.workspace.run();
    scene.source.release(STEP);
    let last = 2 * STEP + OPEN - 1;
    scene.is_row(&mut engine, last).await;
    engine.stops_cleanly().await;

    let goes_on = scene
        .database
        .number(&format!("SELECT _offset FROM feed WHERE seq = {}", STEP + OPEN))
        .await
        .unwrap();
    assert_eq!(scene.database.count("feed").await, Some(2 * STEP));
    assert_eq!(scene.without_rows(goes_on).await, [(STEP, goes_on)]);
    assert_eq!(scene.ledger("reservation").await, [(STEP, goes_on, Some(0))]);
    assert_eq!(scene.ledger("outage").await, [(STEP, goes_on, None)]);
    assert_eq!(scene.ledger("sequence").await, [(STEP, goes_on, Some(OPEN))]);
    let row = scene
        .database
        .rows(
            "SELECT s.missing_first, s.missing_last, o.detail,
                    (o.began_at >= b._received_at AND o.ended_at <= a._received_at)::text
             FROM _socket_el_gap s, _socket_el_gap o, feed b, feed a
             WHERE s.cause = 'sequence' AND o.cause = 'outage' AND b.seq = 999 AND a.seq = 1700",
        )
        .await;
    let expected = ["1000", "1699", "the engine was killed, or crashed", "true"];
    assert_eq!(row, [expected.map(|text| Some(text.to_owned()))]);
}
