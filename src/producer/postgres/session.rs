//! One connection to the database, checked before use.
//!
//! A [`Session`] is always on a server that takes writes, in UTF-8, with transactions that read committed data. Its
//! connection ends with it: the task that drives it is aborted when the session is dropped, so that the server sees
//! the socket close and rolls back.

use std::fmt;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls, Statement};
use tracing::warn;

use crate::config::{Host, Profile};

/// The oldest server that is used: 12, the oldest that `COPY`, identity columns and `pg_blocking_pids` were tried for.
const OLDEST_SERVER: i32 = 120_000;
/// PostgreSQL cuts application names to this many bytes; cut here, so that ours is recognised.
const APPLICATION_NAME_BYTES: usize = 63;
/// Making a connection, authentication included, may take this long unless the profile says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that vanished without a word is noticed after about a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// Keepalives are not sent while sent data waits for its acknowledgement; this bounds that.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

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

/// Where to deliver: a server, a database and a schema in it. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Target {
    config: Config,
    schema: String,
    connect_timeout: Duration,
}

impl Target {
    /// The schema `schema` behind the connection settings `config`, for the producer of this name.
    #[must_use]
    pub fn new(mut config: Config, schema: impl Into<String>, producer: &str) -> Self {
        config
            .application_name(application_name(producer))
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNACKNOWLEDGED);
        let connect_timeout = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        Self {
            config,
            schema: schema.into(),
            connect_timeout,
        }
    }

    /// What a profile names, for the producer of this name.
    #[must_use]
    pub fn of_profile(profile: &Profile, producer: &str) -> Self {
        let mut config = Config::new();
        match &profile.host {
            Host::Tcp(name) => config.host(name),
            Host::UnixDirectory(path) => config.host_path(path),
        };
        config
            .port(profile.port)
            .user(&profile.user)
            .dbname(&profile.database);
        if let Some(password) = &profile.password {
            config.password(password.expose());
        }
        Self::new(config, &profile.schema, producer)
    }

    /// The schema of the tables.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The name under which the server lists our sessions.
    pub(super) fn application_name(&self) -> &str {
        self.config.get_application_name().unwrap_or_default()
    }
}

impl fmt::Display for Target {
    /// Host, database and user, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match host {
                tokio_postgres::config::Host::Tcp(name) => write!(f, "{comma}{name}")?,
                tokio_postgres::config::Host::Unix(path) => write!(f, "{comma}{}", path.display())?,
            }
        }
        if let Some(port) = self.config.get_ports().first() {
            write!(f, ":{port}")?;
        }
        write!(
            f,
            " database {} user {}",
            self.config.get_dbname().unwrap_or("of the user's name"),
            self.config.get_user().unwrap_or("of this process")
        )
    }
}

fn application_name(producer: &str) -> String {
    let mut name = format!("socket-el/{producer}");
    let mut end = APPLICATION_NAME_BYTES.min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody answered in time.
    #[error("no session after {} s, authentication included", .0.as_secs())]
    Timeout(Duration),
    /// The server refused, or could not be reached.
    #[error("{}", describe(.0))]
    Refused(#[source] tokio_postgres::Error),
    /// It can't be written to at present.
    #[error("the server is {0}; waiting for one that takes writes")]
    NotWritable(&'static str),
    /// It will never do as it is.
    #[error("{0}")]
    Unsuitable(String),
}

impl From<tokio_postgres::Error> for ConnectError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Refused(error)
    }
}

/// A checked connection.
pub(super) struct Session {
    pub(super) client: Client,
    connection: JoinHandle<()>,
    pid: i32,
    /// Prepared statements by their text. Bounded by [`MAX_STATEMENTS`].
    statements: Vec<(String, Statement)>,
}

/// Prepared statements that a session keeps: COPY for each table, and two of our own. More are prepared again.
const MAX_STATEMENTS: usize = 64;

impl Session {
    /// Connects and checks.
    pub(super) async fn open(target: &Target) -> Result<Self, ConnectError> {
        timeout(target.connect_timeout, Self::open_unbounded(target))
            .await
            .unwrap_or(Err(ConnectError::Timeout(target.connect_timeout)))
    }

    async fn open_unbounded(target: &Target) -> Result<Self, ConnectError> {
        let (client, connection) = target.config.connect(NoTls).await?;
        let connection = tokio::spawn(async move {
            // Whoever waits for an answer gets the error too, and deals with it.
            if let Err(error) = connection.await {
                tracing::debug!(error = describe(&error), "connection to the database ended");
            }
        });
        let mut session = Self {
            client,
            connection,
            pid: 0,
            statements: Vec::new(),
        };
        session.check().await?;
        Ok(session)
    }

    async fn check(&mut self) -> Result<(), ConnectError> {
        let row = self
            .client
            .query_one(
                "SELECT pg_is_in_recovery(), current_setting('server_encoding'), \
                 current_setting('server_version_num')::int4, pg_backend_pid()",
                &[],
            )
            .await?;
        let (in_recovery, encoding, version): (bool, String, i32) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        self.pid = row.try_get(3)?;
        if in_recovery {
            return Err(ConnectError::NotWritable("a standby in recovery"));
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
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_producer_name_gives_the_application_name_that_the_server_will_show() {
        assert_eq!(application_name("postgres"), "socket-el/postgres");
        assert_eq!(application_name(&"x".repeat(63)).len(), APPLICATION_NAME_BYTES);
    }

    #[test]
    fn a_target_never_shows_its_password() {
        let mut config = Config::new();
        config.host("db.example").user("loader").password("hunter2");
        let target = Target::new(config, "public", "postgres");
        assert!(!format!("{target:?} {target}").contains("hunter2"));
    }
}
