//! Every message that was received is accounted for, whatever happened to it and to the engine: `stage-inspect counts` is
//! reconciled with what the tables, the dead letters and the stage themselves hold.

use base64::Engine as _;
use rand::RngExt as _;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace};
use crate::support::source::Source;

/// Trades of each step.
const STEP: u64 = 1_000;

/// Messages of each kind that no row comes of.
const OTHERS: usize = 40;

/// Large messages, which fill the stage: 100 MB where it takes 48 MiB.
const LARGE: usize = 1_500;
const LARGE_BYTES: usize = 50_000;

const PROFILES: [&str; 4] = ["-c", "config.yml", "--profiles", "profile.yml"];

/// An engine whose stage drops its oldest messages when it is full, and whose producer leaves messages out.
struct Accounted {
    database: Database,
    source: Source,
    workspace: Workspace,
}

impl Accounted {
    async fn new() -> Self {
        let database = Database::shared().await;
        let workspace = Workspace::direct(&database);
        let source = Source::start().await;
        workspace.write_config(&format!(
            "runners:
  - name: feed
    type: consumer
    variety: socket
    uri: {}
    stage: {{ type: local, path: tmp, max_bytes: 48MiB, on_full: drop_oldest }}
  - name: postgres
    type: producer
    variety: postgres
    depends_on: [feed]
    profile: postgres
    when: {{ $.exchange: test }}
    metadata: true
",
            source.url()
        ));
        Self {
            database,
            source,
            workspace,
        }
    }

    async fn inspect(&self, arguments: &[&str]) -> Process {
        // `list` needs no database.
        let profiles = if arguments.contains(&"list") {
            &[]
        } else {
            &PROFILES[..]
        };
        self.workspace.inspect(&[arguments, profiles].concat()).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let mut process = self.inspect(&[&["--json"], arguments].concat()).await;
        process.ends_with(0).await;
        serde_json::from_str(&process.stdout()).unwrap()
    }

    /// Trades, messages that the mapping leaves out and messages that are no JSON; waits until they have come.
    async fn sends(&self, engine: &mut Process) {
        let left_out = (0..OTHERS).map(|n| Message::text(format!("{{\"exchange\":\"other\",\"n\":{n}}}")));
        let garbage = (0..OTHERS).map(|_| Message::text("no json"));
        self.source.send(left_out.chain(garbage)).await;
        self.source.release(STEP);
        let source = &self.source;
        engine
            .until("they are sent", async || source.sent() >= source.released())
            .await;
    }

    /// The offset after the last message.
    async fn head(&self) -> u64 {
        self.json(&["list"]).await[0]["stages"][0]["head"]
            .as_u64()
            .unwrap()
    }

    async fn number(&self, sql: &str) -> u64 {
        self.database.number(sql).await.unwrap()
    }

    /// The counts, each of which must be what the tables and the stage hold. Nothing may be pending.
    async fn reconciled(&self) -> Value {
        let counted = self.json(&["counts", "feed"]).await;
        let counts = &counted[0]["counts"];
        let count = |name: &str| counts[name].as_u64().unwrap();
        let rows = self.number("SELECT count(DISTINCT _offset) FROM feed").await;
        let letters = "SELECT count(*) FROM _socket_el_dead_letter WHERE reason";
        let skipped = self
            .number(&format!("{letters} = 'skipped by an operator'"))
            .await;
        let dead = self
            .number(&format!("{letters} <> 'skipped by an operator'"))
            .await;
        let both = self
            .number("SELECT count(*) FROM feed JOIN _socket_el_dead_letter ON message_offset = _offset")
            .await;
        assert_eq!(both, 0, "no message is a row and a letter");
        assert_eq!(
            (
                count("delivered"),
                count("skipped"),
                count("dead_letters"),
                count("pending")
            ),
            (rows, skipped, dead, 0),
            "{counts}"
        );
        // Every offset up to the head was a message, but for those that were never given.
        let listed = self.json(&["list"]).await;
        let stage = &listed[0]["stages"][0];
        let (mut given, mut dropped) = (stage["head"].as_u64().unwrap(), 0);
        for gap in stage["gaps"].as_array().unwrap() {
            let length = gap["to"].as_u64().unwrap() - gap["from"].as_u64().unwrap();
            match gap["cause"].as_str().unwrap() {
                "reservation" => given -= length,
                "dropped_oldest" => dropped += length,
                other => panic!("{other}: {gap}"),
            }
        }
        assert_eq!((count("received"), count("lost")), (given, 0), "{counts}");
        // What the stage drops after an operator has stepped over it, and before the engine knows, counts as what it was then.
        assert!(count("dropped") <= dropped, "{dropped} dropped: {counts}");
        assert_eq!(
            count("ignored") + count("dropped"),
            given - rows - skipped - dead,
            "{counts}"
        );
        counts.clone()
    }
}

/// A message that does not compress, and that the mapping leaves out.
fn large() -> Message {
    let bytes: Vec<u8> = (0..LARGE_BYTES).map(|_| rand::rng().random()).collect();
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    Message::text(format!("{{\"exchange\":\"other\",\"blob\":\"{text}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_reconcile_with_what_is_there_after_kills_drops_skips_dead_letters_and_ignored_messages() {
    let accounted = Accounted::new().await;
    // Killed in the midst of it, again and again.
    for _ in 0..4 {
        let connections = accounted.source.starts().await.len();
        let mut engine = accounted.workspace.run();
        engine
            .until("it is connected", async || {
                accounted.source.starts().await.len() > connections
            })
            .await;
        accounted.sends(&mut engine).await;
        engine.kill();
    }
    accounted.workspace.drain().await;
    let counts = accounted.reconciled().await;
    assert!(
        counts["dead_letters"].as_u64() > Some(0) && counts["ignored"].as_u64() > Some(0),
        "{counts}"
    );

    // The table takes nothing, until the stage is full and drops what is oldest.
    let head = accounted.head().await;
    accounted
        .database
        .rows(
            "CREATE FUNCTION blocks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               RAISE EXCEPTION 'closed' USING ERRCODE = 'XX000'; END $$;
             CREATE TRIGGER blocks BEFORE INSERT ON feed FOR EACH ROW EXECUTE FUNCTION blocks()",
        )
        .await;
    let mut engine = accounted.workspace.run();
    // First what the table refuses: nothing is delivered of what comes then, and is dropped.
    accounted.source.release(1);
    engine.until_logged("is held").await;
    accounted.sends(&mut engine).await;
    let held = accounted.json(&["list"]).await;
    let delivery = &held[0]["stages"][0]["deliveries"][0];
    assert_eq!(delivery["state"], "held", "{delivery}");
    assert!(delivery["why"].as_str().unwrap().contains("XX000"), "{delivery}");
    let listed = accounted.inspect(&["list"]).await.stdout();
    assert!(
        listed.contains("feed by postgres is held since ") && listed.contains("look at its log"),
        "{listed}"
    );
    accounted.source.send((0..LARGE).map(|_| large())).await;
    engine
        .until_logged("messages are dropped: the stage is full")
        .await;
    accounted.sends(&mut engine).await;

    // Somebody steps over a part of what is left.
    let all = head + 1 + 2 * (STEP + 2 * OTHERS as u64) + LARGE as u64;
    engine
        .until("all is staged", async || accounted.head().await == all)
        .await;
    let to = (all - STEP / 2).to_string();
    accounted
        .inspect(&["skip", "feed", "--to", &to, "--yes"])
        .await
        .ends_with(0)
        .await;
    accounted.database.rows("DROP TRIGGER blocks ON feed").await;
    let database = &accounted.database;
    let last = accounted.source.released() - 1;
    engine
        .until("the last trade is a row", async || {
            database.number("SELECT max(seq) FROM feed").await == Some(last)
        })
        .await;
    engine.kill();
    accounted.workspace.drain().await;
    let counts = accounted.reconciled().await;
    for figure in ["delivered", "ignored", "skipped", "dead_letters", "dropped"] {
        assert!(counts[figure].as_u64() > Some(0), "{figure}: {counts}");
    }

    // A running engine says the same, to whoever asks it.
    let mut engine = accounted.workspace.run();
    engine
        .until("it has told", async || {
            let listed = accounted.json(&["list"]).await;
            let delivery = &listed[0]["stages"][0]["deliveries"][0];
            delivery["state"] == "idle" && delivery["counts"] == counts
        })
        .await;
    assert_eq!(accounted.json(&["counts"]).await[0]["counts"], counts);
    engine.stops_cleanly().await;
}
