//! What one profile says: the servers, who logs in, and how connections are made and kept.

use std::time::Duration;

use crate::config::secret::Secret;
use crate::config::section::Section;
use crate::config::variables::Variables;

use super::host::{self, Host, Server};
use super::pgpass::PasswordFile;
use super::source::{PlainNumber, Source};
use super::tls::{ChannelBinding, SslMode, TlsSettings};

/// Holds a password, for a profile without one.
const PASSWORD_VARIABLE: &str = "PGPASSWORD";

/// PostgreSQL cuts longer names off in silence.
const MAX_NAME_BYTES: usize = 63;

const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 5432;
const DEFAULT_SCHEMA: &str = "public";

/// What Linux takes for keepalives, in seconds and probes.
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);
const MAX_KEEPALIVE_COUNT: u32 = 127;
/// What Linux takes for unacknowledged data: a signed 32-bit number of milliseconds.
const MAX_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// How to reach a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The role to log in as.
    pub user: String,
    /// The database.
    pub database: String,
    /// Where it may be, in the order in which to try; at least one.
    pub servers: Vec<Server>,
    /// The schema that holds the tables.
    pub schema: String,
    /// Encryption and certificates.
    pub tls: TlsSettings,
    /// Whether authentication is tied to the server's certificate.
    pub channel_binding: ChannelBinding,
    /// The name under which the server lists the sessions, in place of the producer's.
    pub application_name: Option<String>,
    /// How long one address may take from the first packet to a session that is ready.
    pub connect_timeout: Option<Duration>,
    /// Which servers will do.
    pub session_attrs: SessionAttrs,
    /// How a connection that carries nothing is kept and watched.
    pub keepalives: Keepalives,
    /// How long sent data may wait for its acknowledgement; zero: as the system has it.
    pub tcp_user_timeout: Option<Duration>,
    /// Command-line options for the server's process.
    pub options: Option<String>,
}

/// Which of several servers will do. All that a sink can use take writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAttrs {
    /// Any that is no standby.
    Any,
    /// One whose sessions may write by default, too.
    ReadWrite,
    /// Any that is no standby.
    Primary,
}

/// TCP keepalives; what is not given is the engine's choice, and zero the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether they are sent at all.
    pub enabled: bool,
    /// Silence after which the first is sent.
    pub idle: Option<Duration>,
    /// Between them.
    pub interval: Option<Duration>,
    /// How many go unanswered before the connection is given up.
    pub count: Option<u32>,
}

impl Profile {
    /// Reads the keys; `warnings` takes what is allowed but worth telling.
    pub(super) fn read(
        section: &mut Section<'_>,
        variables: &Variables,
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        let source = &mut Source::new(section);
        let user = named(source, "user", None);
        let password = source.secret("password");
        let database = named(source, "database", None);
        let servers = read_servers(source);
        let schema = named(source, "schema", Some(DEFAULT_SCHEMA));
        let tls = TlsSettings::read(source, variables);
        let channel_binding = ChannelBinding::read(source);
        let application_name = read_application_name(source);
        let connect_timeout = source.span("connect_timeout", PlainNumber::Seconds);
        if connect_timeout == Some(Duration::ZERO) {
            source.problem(
                "connect_timeout",
                "must be more than 0: an attempt without an end would keep everything else waiting",
            );
        }
        let session_attrs = read_session_attrs(source);
        let keepalives = Keepalives::read(source);
        let tcp_user_timeout = source.span("tcp_user_timeout", PlainNumber::Milliseconds);
        if tcp_user_timeout.is_some_and(|timeout| timeout > MAX_USER_TIMEOUT) {
            source.problem("tcp_user_timeout", "must be at most 2147483647ms");
        }
        let options = source.text("options").filter(|options| !options.is_empty());
        if options.as_ref().is_some_and(|options| options.contains('\0')) {
            source.problem("options", "must not hold NUL");
        }
        let mut profile = Self {
            user: user?,
            database: database?,
            servers: servers?,
            schema: schema?,
            tls: tls?,
            channel_binding,
            application_name,
            connect_timeout,
            session_attrs,
            keepalives,
            tcp_user_timeout,
            options,
        };
        profile.find_passwords(password, variables, warnings);
        warnings.extend(profile.plain_text_warning());
        Some(profile)
    }

    /// The profile's own password, else that of the environment, else what the password file has for each server.
    fn find_passwords(&mut self, own: Option<Secret>, variables: &Variables, warnings: &mut Vec<String>) {
        let from_environment = || {
            let password = variables.get(PASSWORD_VARIABLE)?.into_string().ok()?;
            (!password.is_empty()).then(|| Secret::new(password))
        };
        if let Some(password) = own.or_else(from_environment) {
            for server in &mut self.servers {
                server.password = Some(password.clone());
            }
        } else if let Some(file) = PasswordFile::find(variables, warnings) {
            for server in &mut self.servers {
                server.password = file.password(server, &self.database, &self.user);
            }
        }
    }

    fn plain_text_warning(&self) -> Option<String> {
        let weak = matches!(self.tls.mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
        let server = self
            .servers
            .iter()
            .find(|server| weak && server.password.is_some() && !server.host.is_local())?;
        Some(format!(
            "`sslmode: {}` lets a password and rows go to {} without encryption; `sslmode: verify-full` would not",
            self.tls.mode.name(),
            server.host
        ))
    }
}

impl Keepalives {
    fn read(source: &mut Source<'_, '_>) -> Self {
        let enabled = source.switch("keepalives").unwrap_or(true);
        let mut span = |key| {
            let span = source.span(key, PlainNumber::Seconds)?;
            if span != Duration::ZERO && !(Duration::from_secs(1)..=MAX_KEEPALIVE).contains(&span) {
                source.problem(key, "must be from 1s to 32767s, or 0 for what the system has");
            }
            Some(span)
        };
        let (idle, interval) = (span("keepalives_idle"), span("keepalives_interval"));
        let text = source.text("keepalives_count");
        let count = text
            .as_ref()
            .and_then(|text| text.parse().ok())
            .filter(|count| *count <= MAX_KEEPALIVE_COUNT);
        if text.is_some() && count.is_none() {
            source.problem(
                "keepalives_count",
                "must be from 1 to 127, or 0 for what the system has",
            );
        }
        Self {
            enabled,
            idle,
            interval,
            count,
        }
    }
}

/// A name as PostgreSQL takes it.
fn named(source: &mut Source<'_, '_>, key: &str, default: Option<&str>) -> Option<String> {
    let Some(name) = source.text(key).or_else(|| default.map(str::to_owned)) else {
        source.missing(key);
        return None;
    };
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('\0') {
        source.problem(key, &format!("must be 1 to {MAX_NAME_BYTES} bytes, without NUL"));
        return None;
    }
    Some(name)
}

fn read_servers(source: &mut Source<'_, '_>) -> Option<Vec<Server>> {
    let hosts = match source.texts("host") {
        Some(texts) => host::hosts(&texts),
        None => Ok(vec![Host::of(DEFAULT_HOST)]),
    }
    .map_err(|message| source.problem("host", &message))
    .ok();
    // With hosts that nobody understands, how many ports there should be is not known, but the one port that is usual can be.
    let count = hosts.as_ref().map_or(1, Vec::len);
    let ports = match source.texts("port") {
        Some(texts) => host::ports(&texts, count, DEFAULT_PORT)
            .map_err(|message| source.problem("port", &message))
            .ok()?,
        None => vec![DEFAULT_PORT; count],
    };
    let server = |(host, port)| Server {
        host,
        port,
        password: None,
    };
    Some(hosts?.into_iter().zip(ports).map(server).collect())
}

/// The server shows other characters than these changed, and what is longer cut: a name that it changed would not be
/// recognised as our own.
fn read_application_name(source: &mut Source<'_, '_>) -> Option<String> {
    let name = source.text("application_name").filter(|name| !name.is_empty())?;
    let printable = |byte: u8| (b' '..=b'~').contains(&byte);
    if name.len() > MAX_NAME_BYTES || !name.bytes().all(printable) {
        source.problem(
            "application_name",
            &format!("must be at most {MAX_NAME_BYTES} printable ASCII characters"),
        );
        return None;
    }
    Some(name)
}

fn read_session_attrs(source: &mut Source<'_, '_>) -> SessionAttrs {
    let known = [
        ("any", Some(SessionAttrs::Any)),
        ("read-write", Some(SessionAttrs::ReadWrite)),
        ("primary", Some(SessionAttrs::Primary)),
        ("read-only", None),
        ("standby", None),
        ("prefer-standby", None),
    ];
    match source.one_of("target_session_attrs", &known) {
        Some(Some(attrs)) => attrs,
        Some(None) => {
            source.problem(
                "target_session_attrs",
                "must be any, read-write or primary: rows can't be written to a standby or a read-only server",
            );
            SessionAttrs::Any
        }
        None => SessionAttrs::Any,
    }
}
