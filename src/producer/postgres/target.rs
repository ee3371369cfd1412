//! Where to deliver, as a profile says it: servers, who logs in, a database and a schema in it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding as Binding, Host as ConfigHost};

use crate::config::{ChannelBinding, Host, Keepalives, Profile, Secret, Server, SessionAttrs, TlsSettings};

/// PostgreSQL cuts application names to this many bytes; cut here, so that ours is recognised.
const APPLICATION_NAME_BYTES: usize = 63;
/// Making a connection, authentication included, may take this long per address unless the profile says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that vanished without a word is noticed after about a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// What Linux waits before the first keepalive unless told otherwise; the client library can't leave it alone.
const SYSTEM_KEEPALIVE_IDLE: Duration = Duration::from_secs(7200);
/// Keepalives are not sent while sent data waits for its acknowledgement; this bounds that.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// Where the client library would connect without a port.
const DEFAULT_PORT: u16 = 5432;

/// Where to deliver: servers, a database and a schema in it. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Target {
    /// Without hosts, ports, password and TLS, which differ by attempt.
    base: Config,
    servers: Vec<Server>,
    tls: TlsSettings,
    session_attrs: SessionAttrs,
    schema: String,
    connect_timeout: Duration,
}

impl Target {
    /// The schema `schema` behind the connection settings `config`, without TLS, for the producer of this name.
    #[must_use]
    pub fn new(config: Config, schema: impl Into<String>, producer: &str) -> Self {
        let mut base = Config::new();
        if let Some(user) = config.get_user() {
            base.user(user);
        }
        if let Some(database) = config.get_dbname() {
            base.dbname(database);
        }
        if let Some(options) = config.get_options() {
            base.options(options);
        }
        base.application_name(default_application_name(producer));
        set_keepalives(&mut base, None, None);
        let password = config
            .get_password()
            .map(|bytes| Secret::new(String::from_utf8_lossy(bytes)));
        let ports = config.get_ports();
        let server = |(index, host): (usize, &ConfigHost)| Server {
            host: match host {
                ConfigHost::Tcp(name) => Host::Tcp(name.clone()),
                ConfigHost::Unix(path) => Host::UnixDirectory(path.clone()),
            },
            port: *ports.get(index).or(ports.first()).unwrap_or(&DEFAULT_PORT),
            password: password.clone(),
        };
        Self {
            base,
            servers: config.get_hosts().iter().enumerate().map(server).collect(),
            tls: TlsSettings::NONE,
            session_attrs: SessionAttrs::Any,
            schema: schema.into(),
            connect_timeout: config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT),
        }
    }

    /// What a profile names, for the producer of this name.
    #[must_use]
    pub fn of_profile(profile: &Profile, producer: &str) -> Self {
        let mut base = Config::new();
        base.user(&profile.user)
            .dbname(&profile.database)
            .application_name(
                profile
                    .application_name
                    .clone()
                    .unwrap_or_else(|| default_application_name(producer)),
            )
            .channel_binding(match profile.channel_binding {
                ChannelBinding::Disable => Binding::Disable,
                ChannelBinding::Prefer => Binding::Prefer,
                ChannelBinding::Require => Binding::Require,
            });
        if let Some(options) = &profile.options {
            base.options(options);
        }
        set_keepalives(&mut base, Some(&profile.keepalives), profile.tcp_user_timeout);
        Self {
            base,
            servers: profile.servers.clone(),
            tls: profile.tls.clone(),
            session_attrs: profile.session_attrs,
            schema: profile.schema.clone(),
            connect_timeout: profile.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        }
    }

    /// The schema of the tables.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The name of the database.
    pub(super) fn database(&self) -> &str {
        self.base.get_dbname().unwrap_or("of the user's name")
    }

    /// The name under which the server lists our sessions.
    pub(super) fn application_name(&self) -> &str {
        self.base.get_application_name().unwrap_or_default()
    }

    /// Where the database may be, in the order in which to try.
    pub(super) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(super) fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    pub(super) fn session_attrs(&self) -> SessionAttrs {
        self.session_attrs
    }

    /// How long one address may take until its session is ready.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// What the client library needs for one server, at this address if it is known by name; how it is about TLS
    /// is for the caller to set.
    pub(super) fn config_for(&self, server: &Server, address: Option<IpAddr>) -> Config {
        let mut config = self.base.clone();
        match &server.host {
            Host::Tcp(name) => config.host(name),
            Host::UnixDirectory(path) => config.host_path(path),
        };
        config.port(server.port);
        if let Some(address) = address {
            config.hostaddr(address);
        }
        if let Some(password) = &server.password {
            config.password(password.expose());
        }
        config
    }
}

impl fmt::Display for Target {
    /// Servers, database and user, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{server}")?;
        }
        write!(
            f,
            " database {} user {}",
            self.database(),
            self.base.get_user().unwrap_or("of this process")
        )
    }
}

fn set_keepalives(config: &mut Config, own: Option<&Keepalives>, user_timeout: Option<Duration>) {
    config.keepalives(own.is_none_or(|own| own.enabled));
    match own.and_then(|own| own.idle).unwrap_or(KEEPALIVE_IDLE) {
        Duration::ZERO => config.keepalives_idle(SYSTEM_KEEPALIVE_IDLE),
        idle => config.keepalives_idle(idle),
    };
    // What is not set, the system decides.
    match own.and_then(|own| own.interval).unwrap_or(KEEPALIVE_INTERVAL) {
        Duration::ZERO => {}
        interval => {
            config.keepalives_interval(interval);
        }
    }
    match own.and_then(|own| own.count).unwrap_or(KEEPALIVE_RETRIES) {
        0 => {}
        count => {
            config.keepalives_retries(count);
        }
    }
    match user_timeout.unwrap_or(UNACKNOWLEDGED) {
        Duration::ZERO => {}
        timeout => {
            config.tcp_user_timeout(timeout);
        }
    }
}

fn default_application_name(producer: &str) -> String {
    let mut name = format!("socket-el/{producer}");
    let mut end = APPLICATION_NAME_BYTES.min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_producer_name_gives_the_application_name_that_the_server_will_show() {
        assert_eq!(default_application_name("postgres"), "socket-el/postgres");
        assert_eq!(
            default_application_name(&"x".repeat(63)).len(),
            APPLICATION_NAME_BYTES
        );
    }

    #[test]
    fn a_target_never_shows_its_password() {
        let mut config = Config::new();
        config.host("db.example").user("loader").password("hunter2");
        let target = Target::new(config, "public", "postgres");
        assert!(!format!("{target:?} {target}").contains("hunter2"));
    }
}
