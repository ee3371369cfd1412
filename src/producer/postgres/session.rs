//! One connection to the database, checked before use.
//!
//! A [`Session`] is always on a server that takes writes, in UTF-8, with transactions that read committed data. Its
//! connection ends with it: the task that drives it is aborted when the session is dropped, so that the server sees
//! the socket close and rolls back.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Statement};
use tracing::warn;

use super::dial::{self, ConnectError};
use super::target::Target;
use crate::config::{Server, SessionAttrs};

/// The oldest server that is used: 12, the oldest that `COPY`, identity columns and `pg_blocking_pids` were tried for.
const OLDEST_SERVER: i32 = 120_000;
/// In each transaction that is acted upon once it is committed: a role's default may be weaker, and an ack must not be
/// ahead of the server's disk. A stricter default stays.
pub(super) const LASTING_COMMIT: &str = "SELECT set_config('synchronous_commit', 'on', true) \
     WHERE current_setting('synchronous_commit') <> 'remote_apply'";

/// How long things may take. Only tests use other values than the default.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Waiting for a lock inside a data transaction.
    pub(super) lock: Duration,
    /// Waiting for the answer to a statement that has nothing to do but answer; then the connection is given up.
    pub(super) answer: Duration,
    /// Waiting for the cursor's row while taking the epoch; then our own old backend that holds it is terminated.
    pub(super) epoch: Duration,
    /// Between attempts at what an operator must mend.
    pub(super) hold: Duration,
    /// The first delay after something transient.
    pub(super) retry_initial: Duration,
    /// The longest delay after something transient.
    pub(super) retry_max: Duration,
    /// Between looks at the epoch while there is nothing to deliver.
    pub(super) idle_check: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lock: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            epoch: Duration::from_secs(10),
            hold: Duration::from_secs(30),
            retry_initial: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
            idle_check: Duration::from_secs(10),
        }
    }
}

/// Whom a session is with.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Host and port.
    server: String,
    /// The TLS protocol; `None` without TLS.
    tls: Option<&'static str>,
    user: String,
    version: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            tls,
            user,
            version,
        } = self;
        let tls = tls.unwrap_or("no TLS");
        write!(f, "{server}, {tls}, user {user}, PostgreSQL {version}")
    }
}

/// How long the session may take that only shows whether a pooler stands between.
const SECOND_SESSION: Duration = Duration::from_secs(2);

const TRANSACTION_POOLING: &str = "a pooler between hands the server's process to others after each transaction, and delivery \
     needs one of its own. Set pool_mode = session for this database (PgBouncer), or connect to the server itself";

/// A checked connection.
pub(super) struct Session {
    pub(super) client: Client,
    connection: JoinHandle<()>,
    pid: i32,
    peer: Peer,
    /// Prepared statements by their text. Bounded by [`MAX_STATEMENTS`].
    statements: Vec<(String, Statement)>,
}

/// Prepared statements that a session keeps: COPY for each table, and two of our own. More are prepared again.
const MAX_STATEMENTS: usize = 64;

impl Session {
    /// Connects to the first server that will do, and checks it. A server that refuses the login ends the search, as in
    /// libpq; whatever else is wrong with one, the next is tried.
    pub(super) async fn open(target: &Target) -> Result<Self, ConnectError> {
        let limit = target.connect_timeout();
        let mut failures = Vec::new();
        'servers: for server in target.servers() {
            let addresses = match dial::addresses(server, limit).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    failures.push((server.to_string(), error));
                    continue;
                }
            };
            let several = addresses.len() > 1;
            for address in addresses {
                let error = match timeout(limit, Self::open_at(target, server, address)).await {
                    Ok(Ok(session)) => return Ok(session),
                    Ok(Err(error)) => error,
                    Err(_) => ConnectError::Timeout(limit),
                };
                let (refused, elsewhere) = (
                    error.is_login_refused(),
                    matches!(error, ConnectError::NotWritable(_)),
                );
                let name = match address {
                    Some(address) if several => format!("{server} ({address})"),
                    _ => server.to_string(),
                };
                failures.push((name, error));
                if refused {
                    break 'servers;
                }
                if elsewhere {
                    break;
                }
            }
        }
        match failures.pop() {
            Some((_, error)) if failures.is_empty() && target.servers().len() == 1 => Err(error),
            Some(last) => {
                failures.push(last);
                Err(ConnectError::NoServer(failures))
            }
            None => Err(ConnectError::Unsuitable("no host is named".to_owned())),
        }
    }

    async fn open_at(
        target: &Target,
        server: &Server,
        address: Option<IpAddr>,
    ) -> Result<Self, ConnectError> {
        let dialled = dial::dial(target, server, address).await?;
        let mut session = Self {
            client: dialled.client,
            connection: dialled.connection,
            pid: 0,
            peer: Peer {
                server: server.to_string(),
                tls: dialled.tls,
                user: String::new(),
                version: String::new(),
            },
            statements: Vec::new(),
        };
        session.check(target.session_attrs()).await?;
        Ok(session)
    }

    async fn check(&mut self, wanted: SessionAttrs) -> Result<(), ConnectError> {
        let row = self
            .client
            // Not prepared by name: that is what fails behind a pooler, which can be told better a moment later.
            .query_typed_one(
                "SELECT pg_is_in_recovery(), current_setting('server_encoding'), \
                 current_setting('server_version_num')::int4, pg_backend_pid(), \
                 current_setting('default_transaction_read_only') = 'on', \
                 current_user::text, current_setting('server_version')",
                &[],
            )
            .await?;
        let (in_recovery, encoding, version): (bool, String, i32) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        self.pid = row.try_get(3)?;
        let read_only: bool = row.try_get(4)?;
        (self.peer.user, self.peer.version) = (row.try_get(5)?, row.try_get(6)?);
        if in_recovery {
            return Err(ConnectError::NotWritable("a standby in recovery"));
        }
        match wanted {
            SessionAttrs::ReadWrite if read_only => {
                return Err(ConnectError::NotWritable(
                    "read-only by default (default_transaction_read_only)",
                ));
            }
            SessionAttrs::ReadWrite | SessionAttrs::Any | SessionAttrs::Primary => {}
        }
        if encoding != "UTF8" {
            return Err(ConnectError::Unsuitable(format!(
                "the database's encoding is {encoding}, which can't hold every message. Use a database with the encoding UTF8"
            )));
        }
        if version < OLDEST_SERVER {
            return Err(ConnectError::Unsuitable(format!(
                "the server's version number is {version}. PostgreSQL {} or newer is needed",
                OLDEST_SERVER / 10_000
            )));
        }
        // Defaults of the role or the database may say otherwise; literals are written for conforming strings.
        self.client
            .batch_execute(
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE; \
                 SET standard_conforming_strings = on; SET client_min_messages = warning",
            )
            .await?;
        Ok(())
    }

    /// Refuses a pooler that gives the server's process to somebody else between our transactions: the session's settings and
    /// prepared statements would be lost, or somebody else's. It shows in that a second session, made while this one is
    /// idle, gets the same process.
    pub(super) async fn refuse_transaction_pooling(&self, target: &Target) -> Result<(), ConnectError> {
        // Who can't have two sessions at once has a process of its own.
        let Ok(Ok(other)) = timeout(SECOND_SESSION, Self::open(target)).await else {
            return Ok(());
        };
        if other.pid == self.pid && other.peer.server == self.peer.server {
            return Err(ConnectError::Unsuitable(TRANSACTION_POOLING.to_owned()));
        }
        Ok(())
    }

    /// Whom it is with, and how.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The server's process for this session.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// A prepared statement for this text.
    pub(super) async fn statement(&mut self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        if let Some((_, statement)) = self.statements.iter().find(|(text, _)| text == sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        if self.statements.len() == MAX_STATEMENTS {
            self.statements.remove(0);
        }
        self.statements.push((sql.to_owned(), statement.clone()));
        Ok(statement)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Terminates the backends of our own application name that keep the session `waiting` from a lock.
///
/// They belong to a connection that this engine or the one before it gave up, but that the server has not yet noticed to be gone.
/// Whoever else blocks is only named.
pub(super) async fn end_own_blockers(target: &Target, waiting: i32) -> Result<(), ConnectError> {
    let helper = Session::open(target).await?;
    let rows = helper
        .client
        .query(
            "SELECT a.pid, a.application_name = $2, \
                    CASE WHEN a.application_name = $2 THEN pg_terminate_backend(a.pid) ELSE false END \
             FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids($1))",
            &[&waiting, &target.application_name()],
        )
        .await?;
    for row in rows {
        let (pid, ours, ended): (i32, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if ours {
            warn!(
                pid,
                ended, "terminated our own old backend, which held the cursor's row"
            );
        } else {
            warn!(
                pid,
                "another session holds the cursor's row and keeps delivery waiting; end its transaction"
            );
        }
    }
    Ok(())
}

/// What an error of the server or the connection says, in one line: without DETAIL, which may quote data.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    if let Some(db) = error.as_db_error() {
        let code = db.code().code();
        let advice = match code {
            // invalid_sql_statement_name, duplicate_prepared_statement: never of our own doing.
            "26000" | "42P05" => "; is there a pooler between? It needs pool_mode = session",
            _ => "",
        };
        return format!("{} (SQLSTATE {code}){advice}", db.message());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
