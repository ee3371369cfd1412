//! A PostgreSQL cluster of one's own: made with the installed server binaries in a new directory, reachable on
//! this machine only, and gone without a trace when its owner is. `socket-el demo` and the tests use it.
//!
//! Invariants:
//! * the server never outlives its owner, not even one that is killed: a watcher process holds the reading end of a
//!   pipe whose writing end only the owner has, and at its end stops the server and removes the directory;
//! * TCP on 127.0.0.1 asks for the generated password (scram-sha-256), so that a wrong one is refused as it
//!   would be elsewhere; the Unix socket trusts, for only its owner can enter the directory;
//! * the port stays the same over stops and starts.
//!
//! PostgreSQL refuses to run as root; root runs it as the user `postgres`. Installing the server is left to
//! `scripts/prepare.sh`. Starting and stopping block the thread; an async caller uses `spawn_blocking`.

mod binaries;
mod server;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use server::Server;

/// The superuser that [`PrivatePostgres`] makes.
const SUPERUSER: &str = "postgres";

/// How long a connection of [`PrivatePostgres::query`] may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How a private cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether the server waits for the disk. Without it a crash of the system (not of the server) destroys the
    /// cluster, and everything is faster: for tests.
    pub fsync: bool,
    /// More settings of `postgresql.conf`.
    pub settings: BTreeMap<String, String>,
    /// More files in the cluster's data directory, by their names, which only the server can read: certificates, keys.
    pub files: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf` that go before all others.
    pub access: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fsync: true,
            settings: BTreeMap::new(),
            files: BTreeMap::new(),
            access: Vec::new(),
        }
    }
}

/// How a server is stopped, in PostgreSQL's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Waits until all clients have left.
    Smart,
    /// Ends the clients' transactions and connections.
    Fast,
    /// Stops as in a crash; the next start recovers.
    Immediate,
}

/// A running (or stopped) private cluster. Dropping it stops the server and removes everything it has.
pub struct PrivatePostgres {
    server: Server,
}

impl PrivatePostgres {
    /// Makes a cluster and starts its server; returns when it accepts connections. Takes about a second.
    ///
    /// # Errors
    /// When no server is installed, or it can't be made or started.
    pub fn start(options: &Options) -> Result<Self, PrivatePostgresError> {
        Ok(Self {
            server: Server::create(options)?,
        })
    }

    /// Makes a standby of this cluster, which follows it by streaming replication, and starts it; returns when it answers queries.
    /// Users and passwords are the same. It goes on without this cluster, and can be promoted.
    ///
    /// # Errors
    /// When `pg_basebackup` is not installed or fails, or the standby does not start.
    pub fn standby(&self, options: &Options) -> Result<Self, PrivatePostgresError> {
        Ok(Self {
            server: Server::create_standby(&self.server, options)?,
        })
    }

    /// Makes a standby a primary of its own, and waits until it is one.
    ///
    /// # Errors
    /// When it is none, or does not become one.
    pub async fn promote(&self) -> Result<(), PrivatePostgresError> {
        self.query(SUPERUSER, "SELECT pg_promote()").await.map(drop)
    }

    /// Stops the server and waits until it is gone. Nothing happens when it is stopped already.
    ///
    /// # Errors
    /// When it has not stopped after a minute.
    pub fn stop(&self, mode: StopMode) -> Result<(), PrivatePostgresError> {
        self.server.stop(mode)
    }

    /// Starts the stopped server again, on the same port; returns when it accepts connections. Nothing happens
    /// when it is running.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&self) -> Result<(), PrivatePostgresError> {
        self.server.launch()
    }

    /// Stops and starts again.
    ///
    /// # Errors
    /// When it does not stop, or does not start.
    pub fn restart(&self, mode: StopMode) -> Result<(), PrivatePostgresError> {
        self.stop(mode)?;
        self.start_again()
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The directory of the Unix socket, to be given to libpq as a host. The whole cluster lives in it.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.server.dir()
    }

    /// The process id of the server; `None` when it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// The name of the superuser.
    #[must_use]
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        self.server.password()
    }

    /// How tokio-postgres connects to a database of this cluster over TCP, as the superuser.
    #[must_use]
    pub fn connection(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port())
            .user(SUPERUSER)
            .password(self.password())
            .dbname(database)
            .connect_timeout(CONNECT_TIMEOUT);
        config
    }

    /// Makes a database.
    ///
    /// # Errors
    /// When there is one of this name, or the server does not answer.
    pub async fn create_database(&self, name: &str) -> Result<(), PrivatePostgresError> {
        let quoted = name.replace('"', "\"\"");
        self.query(SUPERUSER, &format!("CREATE DATABASE \"{quoted}\""))
            .await?;
        Ok(())
    }

    /// Runs SQL on a connection of its own, as `psql` would, and returns the rows of all statements as text.
    ///
    /// # Errors
    /// When the server does not answer, or refuses a statement.
    pub async fn query(
        &self,
        database: &str,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, PrivatePostgresError> {
        let failed = |source| PrivatePostgresError::Query { source };
        let (client, connection) = self.connection(database).connect(NoTls).await.map_err(failed)?;
        let statements = async move { client.simple_query(sql).await };
        // The connection ends when the statements' future drops the client; what it may report then, they have too.
        let (answer, _) = tokio::join!(statements, connection);
        let rows = answer.map_err(failed)?.into_iter().filter_map(|message| {
            let SimpleQueryMessage::Row(row) = message else {
                return None;
            };
            Some(
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect(),
            )
        });
        Ok(rows.collect())
    }
}

impl fmt::Debug for PrivatePostgres {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivatePostgres")
            .field("socket_dir", &self.socket_dir())
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}

/// Why a private cluster could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PrivatePostgresError {
    /// The server's binaries are nowhere.
    #[error(
        "PostgreSQL's server is not installed: found no directory with both `initdb` and `postgres` on PATH or in \
         the usual places. Install it with: apt-get install postgresql (Debian, Ubuntu), \
         dnf install postgresql-server (Fedora), brew install postgresql (macOS)"
    )]
    NotInstalled,
    /// Root has nobody to run the server as.
    #[error(
        "PostgreSQL does not run as root, and there is no user `{user}` to run it as: \
         start this as another user, or make one with: useradd --system {user}"
    )]
    NoUser {
        /// The user that was looked for.
        user: &'static str,
    },
    /// The operating system refused something.
    #[error("could not {what} {}", path.display())]
    Io {
        /// What was tried, to be followed by the path.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}): {output}")]
    Initdb {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to stderr.
        output: String,
    },
    /// `pg_basebackup` failed.
    #[error("pg_basebackup failed ({status}): {output}")]
    BaseBackup {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to stderr.
        output: String,
    },
    /// The server ended, or did not get ready in time.
    #[error("PostgreSQL in {} did not start ({reason}); the end of its log:\n{log}", dir.display())]
    NotStarted {
        /// The cluster's directory.
        dir: PathBuf,
        /// What was seen.
        reason: String,
        /// The last lines of the server's log.
        log: String,
    },
    /// The server is still there after being told to stop.
    #[error("PostgreSQL in {} did not stop within {seconds} s", dir.display())]
    NotStopped {
        /// The cluster's directory.
        dir: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The server did not answer a query, or refused it.
    #[error("the private PostgreSQL refused")]
    Query {
        /// Its answer.
        source: tokio_postgres::Error,
    },
}
