//! The primary goes away, or becomes read-only, while the engine runs, and a standby takes its place: the engine finds it by
//! itself, and every message is a row once.

use socket_el::private_postgres::StopMode;

use crate::support::checker::{Tally, missing_stretches, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Process, Workspace, config};
use crate::support::source::Source;

/// Messages of each step.
const STEP: u64 = 2_000;

/// An engine that knows a primary and its standby.
struct Pair {
    primary: Database,
    standby: Database,
    source: Source,
    engine: Process,
    workspace: Workspace,
}

/// Changes a setting of a running server.
async fn set(database: &Database, setting: &str) {
    // Not in one message: that would be a transaction.
    database.rows(&format!("ALTER SYSTEM SET {setting}")).await;
    database.rows("SELECT pg_reload_conf()").await;
}

impl Pair {
    /// With `target_session_attrs`, a step delivered, and a standby without which nothing is committed.
    async fn start(attrs: &str) -> Self {
        let primary = Database::alone().await;
        let standby = primary.standby().await;
        set(&primary, "synchronous_standby_names = '*'").await;
        let workspace = Workspace::direct(&primary);
        let (user, password) = (primary.cluster().superuser(), primary.cluster().password());
        let (first, second) = (primary.cluster().port(), standby.cluster().port());
        workspace.write_profile(&format!(
            "postgres:\n  user: {user}\n  password: {password}\n  database: {}\n  host: [127.0.0.1, 127.0.0.1]\n  \
             port: [{first}, {second}]\n  schema: public\n  target_session_attrs: {attrs}\n",
            primary.name()
        ));
        let source = Source::start().await;
        workspace.write_config(&config(&[("feed", &source.url())], "metadata: true"));
        let engine = workspace.run();
        let mut pair = Self {
            primary,
            standby,
            source,
            engine,
            workspace,
        };
        let primary = &pair.primary;
        pair.engine
            .until("the standby is synchronous", async || {
                let sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
                primary.number(sync).await == Some(1)
            })
            .await;
        pair.source.release(STEP);
        pair.arrives_in(&pair.primary.clone()).await;
        pair
    }

    /// Waits until everything released is a row there.
    async fn arrives_in(&mut self, database: &Database) {
        let released = self.source.released();
        self.engine
            .until("everything released is a row", async || {
                database.count("feed").await >= Some(released)
            })
            .await;
    }

    /// The standby takes over, in the midst of what is sent, and has every message once.
    async fn ends_with_the_standby(mut self) {
        self.source.release(STEP);
        self.engine.until_logged("a standby in recovery").await;
        let listed = self.workspace.inspect(&["list"]).await.stdout();
        assert!(
            listed.contains("feed by postgres is connecting since "),
            "{listed}"
        );
        self.standby.cluster().promote().await.unwrap();
        self.source.release(STEP);
        let standby = self.standby.clone();
        self.arrives_in(&standby).await;
        self.engine.stops_cleanly().await;
        assert_eq!(
            tally_by_offset(&standby, "feed").await,
            Tally::each_once(self.source.released()),
            "{}",
            self.engine.last_words()
        );
        assert_eq!(missing_stretches(&standby, "feed").await, []);
        assert_eq!(self.source.starts().await, [0], "the feed has noticed nothing");
        assert_eq!(standby.count("_socket_el_dead_letter").await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_promoted_after_the_primary_was_stopped_gets_the_rest() {
    for mode in [StopMode::Immediate, StopMode::Fast] {
        let pair = Pair::start("primary").await;
        pair.source.release(STEP);
        let primary = pair.primary.clone();
        tokio::task::spawn_blocking(move || primary.cluster().stop(mode))
            .await
            .unwrap()
            .unwrap();
        pair.ends_with_the_standby().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_becomes_read_only_is_left_for_the_standby_that_is_promoted() {
    let mut pair = Pair::start("read-write").await;
    set(&pair.primary, "default_transaction_read_only = on").await;
    pair.primary
        .rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'socket-el/postgres'")
        .await;
    pair.engine.until_logged("read-only by default").await;
    let left = pair.primary.count("feed").await;
    let primary = pair.primary.clone();
    pair.ends_with_the_standby().await;
    assert_eq!(
        primary.count("feed").await,
        left,
        "nothing more goes to the old primary"
    );
}
