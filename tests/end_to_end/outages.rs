//! PostgreSQL goes away, or the network in front of it, in the midst of a load: nothing is lost, nothing doubled, and
//! nobody has to do anything.

use std::time::Duration;

use socket_el::private_postgres::StopMode;

use crate::support::checker::{Tally, missing_stretches, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::proxy::{Proxy, Traffic};
use crate::support::source::Source;

/// Messages of each step of a load.
const STEP: u64 = 2_000;

/// An engine over a proxy, with a load that the test releases step by step.
struct Load {
    database: Database,
    proxy: Proxy,
    source: Source,
    engine: Process,
    /// Last, for its directory must outlive the engine.
    workspace: Workspace,
}

impl Load {
    async fn start(database: Database) -> Self {
        let proxy = Proxy::to(database.cluster().port()).await;
        let workspace = Workspace::new(&database, proxy.port());
        let source = Source::start().await;
        workspace.write_config(&config(&[("websocket_1", &source.url())], "metadata: true"));
        let engine = workspace.run();
        let mut load = Self {
            database,
            proxy,
            source,
            engine,
            workspace,
        };
        load.source.release(STEP);
        load.delivers_all().await;
        load
    }

    /// Waits until everything released so far is a row.
    async fn delivers_all(&mut self) {
        let database = &self.database;
        let source = &self.source;
        self.engine
            .until("everything sent is a row", async || {
                let rows = database.count("websocket_1").await;
                rows.is_some_and(|rows| rows > 0 && rows >= source.released())
            })
            .await;
    }

    /// Releases a step, and waits until the feed has sent it.
    async fn sends_a_step(&mut self) {
        self.source.release(STEP);
        let source = &self.source;
        self.engine
            .until("the step is sent", async || source.sent() >= source.released())
            .await;
    }

    /// Every message is a row once, in order, in one life of the engine and over one connection to the feed.
    async fn ends_with_each_message_once(mut self) {
        self.delivers_all().await;
        self.engine.stops_cleanly().await;
        let seen = tally_by_offset(&self.database, "websocket_1").await;
        assert_eq!(
            seen,
            Tally::each_once(self.source.released()),
            "{}",
            self.engine.last_words()
        );
        assert_eq!(missing_stretches(&self.database, "websocket_1").await, []);
        assert_eq!(self.source.starts().await, [0]);
        drop(self.workspace);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_under_load_and_comes_back_loses_and_doubles_nothing() {
    let mut load = Load::start(Database::alone().await).await;
    for mode in [StopMode::Immediate, StopMode::Fast] {
        load.source.release(STEP);
        let database = load.database.clone();
        tokio::task::spawn_blocking(move || database.cluster().stop(mode))
            .await
            .unwrap()
            .unwrap();
        load.sends_a_step().await;
        let database = load.database.clone();
        tokio::task::spawn_blocking(move || database.cluster().start_again())
            .await
            .unwrap()
            .unwrap();
        load.delivers_all().await;
    }
    load.ends_with_each_message_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_neither_repeated_nor_forgotten() {
    let mut load = Load::start(Database::shared().await).await;
    for lost in [1, 3] {
        let before = load.proxy.swallowed();
        load.proxy.swallow_commits(lost);
        while load.proxy.swallowed() < before + lost {
            load.sends_a_step().await;
            load.delivers_all().await;
        }
    }
    assert_eq!(load.proxy.swallowed(), 4);
    load.ends_with_each_message_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_cuts_refuses_and_delays_loses_and_doubles_nothing() {
    let mut load = Load::start(Database::shared().await).await;
    for _ in 0..3 {
        load.source.release(STEP);
        load.proxy.cut();
        load.sends_a_step().await;
        load.proxy.cut();
    }
    load.proxy.set(Traffic::Refused);
    load.proxy.cut();
    load.sends_a_step().await;
    load.proxy.set(Traffic::Delayed(Duration::from_millis(5)));
    load.delivers_all().await;
    // Held, then cut: the engine does not learn which of its words have arrived.
    load.source.release(STEP);
    load.proxy.set(Traffic::Held);
    load.sends_a_step().await;
    load.proxy.cut();
    load.proxy.set(Traffic::Flowing);
    load.ends_with_each_message_once().await;
}
