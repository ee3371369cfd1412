//! One private PostgreSQL for all tests of a binary, and a database of its own for each of them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use socket_el::private_postgres::{Options, PrivatePostgres};

/// A database of one test.
#[derive(Clone)]
pub(crate) struct Database {
    cluster: Arc<PrivatePostgres>,
    name: String,
}

impl Database {
    /// In the cluster that all tests share: for tests that never stop it.
    pub(crate) async fn shared() -> Self {
        // The watcher of the cluster ends it with this process; statics are never dropped.
        static CLUSTER: OnceLock<Arc<PrivatePostgres>> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        let cluster = tokio::task::spawn_blocking(|| {
            let _starting = STARTING.lock();
            Arc::clone(CLUSTER.get_or_init(start))
        });
        Self::on(cluster.await.unwrap()).await
    }

    /// In a cluster that belongs to the test alone, which may stop it.
    pub(crate) async fn alone() -> Self {
        Self::on(tokio::task::spawn_blocking(start).await.unwrap()).await
    }

    async fn on(cluster: Arc<PrivatePostgres>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        cluster.create_database(&name).await.unwrap();
        Self { cluster, name }
    }

    /// The same database in a standby of its cluster.
    pub(crate) async fn standby(&self) -> Self {
        let primary = Arc::clone(&self.cluster);
        let made = tokio::task::spawn_blocking(move || primary.standby(&options()));
        Self {
            cluster: Arc::new(made.await.unwrap().unwrap_or_else(|error| panic!("{error}"))),
            name: self.name.clone(),
        }
    }

    pub(crate) fn cluster(&self) -> &PrivatePostgres {
        &self.cluster
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// All rows of the statements as text.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.cluster
            .query(&self.name, sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The number that a statement returns; `None` while it can't be told: the table or the server is not there.
    pub(crate) async fn number(&self, sql: &str) -> Option<u64> {
        let rows = self.cluster.query(&self.name, sql).await.ok()?;
        rows.first()?.first()?.as_ref()?.parse().ok()
    }

    /// How many rows a table has; `None` while there is no such table.
    pub(crate) async fn count(&self, table: &str) -> Option<u64> {
        self.number(&format!("SELECT count(*) FROM {table}")).await
    }
}

fn options() -> Options {
    Options {
        fsync: false,
        ..Options::default()
    }
}

fn start() -> Arc<PrivatePostgres> {
    Arc::new(PrivatePostgres::start(&options()).unwrap_or_else(|error| panic!("{error}")))
}
