//! The ledger of gaps accounts for every message that the feed sent and that is no row: whatever cut the connection,
//! killed the engine or stopped PostgreSQL, each missing number lies within a recorded stretch, and each stretch is there once.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use socket_el::private_postgres::StopMode;

use crate::support::checker::{Tally, missing_stretches, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Feed, Process, Workspace, config};
use crate::support::proxy::Proxy;

/// How many disturbances, unless the environment variable says otherwise, and what they are drawn from.
const DISTURBANCES: usize = 24;
const DISTURBANCES_VARIABLE: &str = "SOCKET_EL_DISTURBANCES";
const SEED: u64 = 20_261_124;

/// How many messages the feed sends while its only connection is cut again and again, unless the environment variable says otherwise.
const CUT_MESSAGES: u64 = 100_000;
const CUT_MESSAGES_VARIABLE: &str = "SOCKET_EL_CUT_MESSAGES";
/// Messages a second then, and the most that come through between two cuts.
const CUT_RATE: u64 = 5_000;
const MAX_BETWEEN_CUTS: u64 = 5_000;

/// What may happen.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// The connection to the feed breaks.
    Cut,
    /// An engine is killed, and started again.
    Kill,
    /// An engine is stopped in order, and started again.
    Stop,
    /// PostgreSQL goes and comes back; the feed's connection breaks meanwhile.
    Postgres(StopMode),
}

fn draw(rng: &mut StdRng) -> Disturbance {
    match rng.random_range(0..10) {
        0 | 1 => Disturbance::Kill,
        2 => Disturbance::Stop,
        3 => Disturbance::Postgres(StopMode::Immediate),
        4 => Disturbance::Postgres(StopMode::Fast),
        _ => Disturbance::Cut,
    }
}

/// A feed behind a proxy, and the engine in one process or two.
struct Scene {
    database: Database,
    proxy: Proxy,
    engines: Vec<Process>,
    commands: Vec<Vec<&'static str>>,
    /// Runs on whatever happens, so that what is sent meanwhile is missed.
    _feed: Feed,
    /// Last, for its directory must outlive the processes.
    workspace: Workspace,
}

impl Scene {
    async fn start(commands: &[&[&'static str]]) -> Self {
        Self::start_at(1_000, commands).await
    }

    /// With so many messages a second.
    async fn start_at(rate: u64, commands: &[&[&'static str]]) -> Self {
        let database = Database::alone().await;
        let workspace = Workspace::direct(&database);
        let feed = Feed::start(&workspace, &["--broadcast", "--rate", &rate.to_string()]).await;
        let port = feed.url.trim_end_matches('/').rsplit(':').next().unwrap();
        let proxy = Proxy::to_feed(port.parse().unwrap()).await;
        let uri = format!("ws://127.0.0.1:{}/trades/binance", proxy.port());
        let yaml = config(&[("websocket_1", &uri)], "metadata: true").replace(
            "    batch_configuration:\n",
            "    sequence: { path: $.seq }\n    reconnect: { initial: 20ms, max: 200ms }\n    batch_configuration:\n",
        );
        workspace.write_config(&yaml);
        let run = ["run", "-c", "config.yml", "--profiles", "profile.yml"];
        let commands: Vec<Vec<_>> = commands.iter().map(|only| [&run, *only].concat()).collect();
        let engines = commands.iter().map(|command| workspace.start(command)).collect();
        Self {
            database,
            proxy,
            engines,
            commands,
            _feed: feed,
            workspace,
        }
    }

    async fn newest(&self) -> u64 {
        let newest = self.database.number("SELECT max(seq) FROM websocket_1").await;
        newest.unwrap_or(0)
    }

    /// Waits until so many more messages have come through.
    async fn goes_on(&mut self, messages: u64) {
        let wanted = self.newest().await + messages;
        let database = self.database.clone();
        let (first, others) = self.engines.split_first_mut().unwrap();
        first
            .until("messages come through", async || {
                database
                    .number("SELECT max(seq) FROM websocket_1")
                    .await
                    .is_some_and(|newest| newest >= wanted)
            })
            .await;
        for other in others {
            other.until("it runs", async || true).await;
        }
    }

    async fn suffer(&mut self, disturbance: Disturbance, rng: &mut StdRng) {
        let which = rng.random_range(0..self.engines.len());
        match disturbance {
            Disturbance::Cut => self.proxy.cut(),
            Disturbance::Kill => {
                self.engines[which].kill();
                self.engines[which] = self.workspace.start(&self.commands[which]);
            }
            Disturbance::Stop => {
                self.engines[which].stops_cleanly().await;
                self.engines[which] = self.workspace.start(&self.commands[which]);
            }
            Disturbance::Postgres(mode) => {
                let database = self.database.clone();
                tokio::task::spawn_blocking(move || {
                    database.cluster().stop(mode).unwrap();
                })
                .await
                .unwrap();
                self.proxy.cut();
                let database = self.database.clone();
                tokio::task::spawn_blocking(move || database.cluster().start_again().unwrap())
                    .await
                    .unwrap();
            }
        }
    }

    async fn ends(&mut self) {
        for engine in self.engines.iter_mut().rev() {
            engine.stops_cleanly().await;
        }
        self.workspace.drain().await;
    }

    /// What the stage itself lists.
    async fn listed(&self) -> Vec<Value> {
        let process = self
            .workspace
            .inspect(&["--path", "tmp", "--json", "gaps", "websocket_1"])
            .await;
        let listing: Value = serde_json::from_str(&process.stdout()).unwrap();
        listing["gaps"].as_array().unwrap().clone()
    }
}

/// Everything that was sent and is no row lies in the ledger, and the ledger holds what the stage lists, each once.
async fn check_account(scene: &Scene) {
    let database = &scene.database;
    let tally = tally_by_offset(database, "websocket_1").await;
    assert_eq!(tally, Tally::each_once(tally.rows));
    let missing = missing_stretches(database, "websocket_1").await;
    assert!(!missing.is_empty(), "a broadcast waits for nobody");

    // Between the last row before a missing stretch and the first behind it lies an outage, by place and by time; and the
    // hole in the numbers is told with them.
    let unaccounted = database
        .rows(
            "WITH numbered AS (
                SELECT seq, _offset, _received_at, lag(seq) OVER w AS before_seq, lag(_offset) OVER w AS before_offset,
                       lag(_received_at) OVER w AS before_at
                FROM websocket_1 WINDOW w AS (ORDER BY _offset))
             SELECT before_seq, seq FROM numbered n
             WHERE seq > before_seq + 1 AND NOT (
                EXISTS (SELECT FROM _socket_el_gap g WHERE g.cause = 'outage'
                        AND g.from_offset > n.before_offset AND g.to_offset <= n._offset
                        AND g.began_at >= n.before_at AND g.ended_at <= n._received_at)
                AND coalesce((SELECT sum(g.messages) = n.seq - n.before_seq - 1 AND min(g.missing_first) = n.before_seq + 1
                            AND max(g.missing_last) = n.seq - 1 AND max(g.to_offset) = n._offset
                            AND bool_and(g.began_at = n.before_at AND g.ended_at <= n._received_at)
                            AND bool_and(g.detail LIKE '%over an outage')
                     FROM _socket_el_gap g WHERE g.cause = 'sequence'
                     AND g.to_offset > n.before_offset AND g.to_offset <= n._offset), false))",
        )
        .await;
    assert_eq!(unaccounted, Vec::<Vec<Option<String>>>::new());
    // A hole that was recorded just before a kill took the message behind it goes on in another row.
    let total: u64 = missing.iter().map(|(_, count)| count).sum();
    let told = database
        .number("SELECT sum(messages) FROM _socket_el_gap WHERE cause = 'sequence'")
        .await;
    assert_eq!(
        told,
        Some(total),
        "no number is told to be missing that is not, and none twice"
    );

    // The same as the stage lists: place, cause and messages of each.
    let mut listed: Vec<_> = scene
        .listed()
        .await
        .iter()
        .map(|gap| {
            let text = |value: &Value| value.as_u64().map_or_else(|| "?".to_owned(), |n| n.to_string());
            let outage = &gap["outage"]["cause"];
            let why = outage
                .as_str()
                .unwrap_or("offsets reserved before an unclean stop");
            format!(
                "{} {} {} {why}",
                text(&gap["to"]),
                gap["cause"].as_str().unwrap(),
                text(&gap["messages"])
            )
        })
        .collect();
    let rows = database
        .rows("SELECT to_offset, cause, coalesce(messages::text, '?'), detail FROM _socket_el_gap")
        .await;
    let mut recorded: Vec<_> = rows
        .into_iter()
        .map(|row| row.into_iter().map(Option::unwrap).collect::<Vec<_>>().join(" "))
        .collect();
    listed.sort();
    recorded.sort();
    assert_eq!(recorded, listed);
    println!(
        "{} rows, {total} messages missing in {} stretches, {} rows in the ledger",
        tally.rows,
        missing.len(),
        recorded.len()
    );
}

fn disturbances() -> usize {
    match std::env::var(DISTURBANCES_VARIABLE) {
        Ok(number) => number.parse().unwrap(),
        Err(_) => DISTURBANCES,
    }
}

async fn disturbed(commands: &[&[&'static str]], seed: u64) {
    let mut scene = Scene::start(commands).await;
    let mut rng = StdRng::seed_from_u64(seed);
    scene.goes_on(100).await;
    for _ in 0..disturbances() {
        let disturbance = draw(&mut rng);
        scene.suffer(disturbance, &mut rng).await;
        scene.goes_on(rng.random_range(1..200)).await;
    }
    scene.ends().await;
    check_account(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_that_is_missing_lies_within_a_stretch_of_the_ledger_and_each_stretch_is_there_once() {
    disturbed(&[&[]], SEED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_another_process_delivers() {
    disturbed(&[&["--only", "websocket_1"], &["--only", "postgres"]], SEED + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_without_an_engine_is_a_stretch_that_says_how_the_engine_ended() {
    let mut scene = Scene::start(&[&[]]).await;
    scene.goes_on(100).await;
    scene.engines[0].kill();
    scene.engines[0] = scene.workspace.start(&scene.commands[0]);
    scene.goes_on(100).await;
    scene.engines[0].stops_cleanly().await;
    let stopped_by = scene.database.rows("SELECT now()").await[0][0].clone().unwrap();
    scene.engines[0] = scene.workspace.start(&scene.commands[0]);
    scene.goes_on(100).await;
    scene.ends().await;
    check_account(&scene).await;
    let rows = scene
        .database
        .rows(&format!(
            "SELECT detail, (began_at <= '{stopped_by}')::text, (ended_at > '{stopped_by}')::text FROM _socket_el_gap \
             WHERE cause = 'outage' ORDER BY to_offset"
        ))
        .await;
    let row =
        |detail: &str, began: &str, ended: &str| [detail, began, ended].map(|text| Some(text.to_owned()));
    assert_eq!(
        rows,
        [
            row("the engine was killed, or crashed", "true", "false"),
            row("the engine was stopped", "true", "true")
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_connection_that_is_cut_at_random_the_ledger_accounts_for_every_missing_number() {
    let messages = match std::env::var(CUT_MESSAGES_VARIABLE) {
        Ok(number) => number.parse().unwrap(),
        Err(_) => CUT_MESSAGES,
    };
    let mut scene = Scene::start_at(CUT_RATE, &[&[]]).await;
    let mut rng = StdRng::seed_from_u64(SEED + 2);
    scene.goes_on(1).await;
    let mut cuts = 0;
    while scene.newest().await < messages {
        scene.proxy.cut();
        cuts += 1;
        scene.goes_on(rng.random_range(1..MAX_BETWEEN_CUTS)).await;
    }
    scene.ends().await;
    println!("{cuts} cuts");
    check_account(&scene).await;
}
