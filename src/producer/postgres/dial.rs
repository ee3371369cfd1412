//! From a server of a profile to a connection that is logged in: addresses, and with or without TLS in libpq's order.
//!
//! `prefer` tries with TLS and, when the handshake or the login fails, once more without; `allow` the other way round. A server
//! behind a Unix socket is never asked for TLS. Which of several servers is taken is left to [`super::session`].

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_postgres::config::SslMode as ClientMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls, Socket};

use super::advice;
use super::classify::{Action, action_for};
use super::session::describe;
use super::target::Target;
use super::tls::{Connector, Handshake};
use crate::config::{Host, Server, SslMode};

/// A name that stands for more addresses is tried at no more than these.
const MAX_ADDRESSES: usize = 16;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody answered in time.
    #[error("no session after {} s, TLS and authentication included", .0.as_secs_f32())]
    Timeout(Duration),
    /// Nobody knows where the server is.
    #[error("the host's name can't be looked up: {0}")]
    Lookup(#[source] io::Error),
    /// The server refused, or could not be reached.
    #[error("{}", explain(.0))]
    Refused(#[source] tokio_postgres::Error),
    /// With TLS and without, in the order of the attempts.
    #[error("{}: {first}; {}: {second}", manner(.tls_first), manner(&!.tls_first))]
    BothWays {
        /// Whether the first attempt was the one with TLS.
        tls_first: bool,
        first: Box<ConnectError>,
        second: Box<ConnectError>,
    },
    /// It can't be written to at present.
    #[error("the server is {0}; waiting for one that takes writes")]
    NotWritable(&'static str),
    /// It will never do as it is.
    #[error("{0}")]
    Unsuitable(String),
    /// None of several servers or addresses, each with its reason.
    #[error("no server will do: {}", list(.0))]
    NoServer(Vec<(String, ConnectError)>),
}

impl From<tokio_postgres::Error> for ConnectError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Refused(error)
    }
}

impl ConnectError {
    /// Whether it won't get better until somebody changes something.
    pub(super) fn needs_operator(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Lookup(_) | Self::NotWritable(_) => false,
            Self::Unsuitable(_) => true,
            Self::Refused(error) if is_bad_startup(error) => true,
            Self::Refused(error) if error.as_db_error().is_some() => {
                !matches!(action_for(error), Action::Reconnect | Action::Retry)
            }
            Self::Refused(error) => !is_transport(error),
            Self::BothWays { first, second, .. } => first.needs_operator() || second.needs_operator(),
            Self::NoServer(all) => all.iter().any(|(_, error)| error.needs_operator()),
        }
    }

    /// What an operator can do; empty where nobody is needed, or the error says it itself.
    pub(super) fn what_to_do(&self) -> &'static str {
        match self {
            Self::Refused(error) if is_bad_startup(error) => "",
            Self::Refused(error) => advice::what_to_do(error),
            Self::BothWays { first, second, .. } => match second.what_to_do() {
                "" => first.what_to_do(),
                advice => advice,
            },
            Self::NoServer(all) => {
                let advices = all.iter().map(|(_, error)| error.what_to_do());
                advices
                    .into_iter()
                    .find(|advice| !advice.is_empty())
                    .unwrap_or("")
            }
            Self::Timeout(_) | Self::Lookup(_) | Self::NotWritable(_) | Self::Unsuitable(_) => "",
        }
    }

    /// Whether the server was found and did not let us in: then, as in libpq, no other server is asked.
    pub(super) fn is_login_refused(&self) -> bool {
        match self {
            Self::Refused(error) => login_refused(error),
            Self::BothWays { second, .. } => second.is_login_refused(),
            _ => false,
        }
    }
}

/// A connection that is logged in, but not yet looked at.
pub(super) struct Dialled {
    pub(super) client: Client,
    /// Drives the connection; whoever takes it ends it.
    pub(super) connection: JoinHandle<()>,
    /// The TLS protocol; `None` without TLS.
    pub(super) tls: Option<&'static str>,
}

/// Where to try a server: its addresses, or `None` for its Unix socket.
pub(super) async fn addresses(server: &Server, limit: Duration) -> Result<Vec<Option<IpAddr>>, ConnectError> {
    let name = match &server.host {
        Host::UnixDirectory(_) => return Ok(vec![None]),
        Host::Tcp(name) => name,
    };
    let found = tokio::time::timeout(limit, lookup_host((name.as_str(), server.port)))
        .await
        .map_err(|_| ConnectError::Timeout(limit))?
        .map_err(ConnectError::Lookup)?;
    let mut addresses: Vec<Option<IpAddr>> = Vec::new();
    for address in found.map(|address| Some(address.ip())).take(MAX_ADDRESSES) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(ConnectError::Lookup(io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

/// Connects to a server at one of its addresses and logs in.
pub(super) async fn dial(
    target: &Target,
    server: &Server,
    address: Option<IpAddr>,
) -> Result<Dialled, ConnectError> {
    if matches!(server.host, Host::UnixDirectory(_)) {
        return Ok(plain(target, server, address).await?);
    }
    match target.tls().mode {
        SslMode::Disable => Ok(plain(target, server, address).await?),
        SslMode::Allow => {
            let first = match plain(target, server, address).await {
                Ok(dialled) => return Ok(dialled),
                Err(error) if server_refused_login(&error) => error,
                Err(error) => return Err(error.into()),
            };
            let connector = connector(target).await?;
            let second = with_tls(target, server, address, connector, ClientMode::Prefer).await;
            second.map_err(|second| both_ways(false, first, second))
        }
        SslMode::Prefer => {
            let connector = connector(target).await?;
            let handshake = connector.handshake();
            let first = match with_tls(target, server, address, connector, ClientMode::Prefer).await {
                Ok(dialled) => return Ok(dialled),
                Err(error) if handshake.failed() => error,
                Err(error) if handshake.version().is_some() && server_refused_login(&error) => error,
                Err(error) => return Err(error.into()),
            };
            let second = plain(target, server, address).await;
            second.map_err(|second| both_ways(true, first, second))
        }
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            let connector = connector(target).await?;
            Ok(with_tls(target, server, address, connector, ClientMode::Require).await?)
        }
    }
}

async fn plain(
    target: &Target,
    server: &Server,
    address: Option<IpAddr>,
) -> Result<Dialled, tokio_postgres::Error> {
    open(target, server, address, NoTls, ClientMode::Disable, None).await
}

async fn with_tls(
    target: &Target,
    server: &Server,
    address: Option<IpAddr>,
    connector: Connector,
    mode: ClientMode,
) -> Result<Dialled, tokio_postgres::Error> {
    let handshake = connector.handshake();
    open(target, server, address, connector, mode, Some(handshake)).await
}

async fn open<T>(
    target: &Target,
    server: &Server,
    address: Option<IpAddr>,
    tls: T,
    mode: ClientMode,
    handshake: Option<Arc<Handshake>>,
) -> Result<Dialled, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let mut config = target.config_for(server, address);
    config.ssl_mode(mode);
    let (client, connection) = config.connect(tls).await?;
    let connection = tokio::spawn(async move {
        // Whoever waits for an answer gets the error too, and deals with it.
        if let Err(error) = connection.await {
            tracing::debug!(error = describe(&error), "connection to the database ended");
        }
    });
    Ok(Dialled {
        client,
        connection,
        tls: handshake.and_then(|handshake| handshake.version()),
    })
}

/// Reads certificates anew, away from the threads that must not wait for a disk.
async fn connector(target: &Target) -> Result<Connector, ConnectError> {
    let settings = target.tls().clone();
    spawn_blocking(move || Connector::new(&settings))
        .await
        .map_err(|error| ConnectError::Unsuitable(format!("reading the certificates failed: {error}")))?
        .map_err(|error| ConnectError::Unsuitable(error.to_string()))
}

fn both_ways(tls_first: bool, first: tokio_postgres::Error, second: tokio_postgres::Error) -> ConnectError {
    ConnectError::BothWays {
        tls_first,
        first: Box::new(first.into()),
        second: Box::new(second.into()),
    }
}

fn manner(tls: &bool) -> &'static str {
    if *tls { "with TLS" } else { "without TLS" }
}

fn list(all: &[(String, ConnectError)]) -> String {
    let each: Vec<String> = all
        .iter()
        .map(|(server, error)| format!("{server}: {error}"))
        .collect();
    each.join("; ")
}

/// The server's own word on who is asking: class 28.
fn server_refused_login(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state| state.code().starts_with("28"))
}

/// The same, or the login was broken off on our side: no password, no channel binding, a server that can't prove itself.
fn login_refused(error: &tokio_postgres::Error) -> bool {
    server_refused_login(error)
        || (error.as_db_error().is_none() && !is_transport(error) && rustls_error(error).is_none())
}

/// The network's fault, or that of somebody who closed the connection without a word.
fn is_transport(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || (rustls_error(error).is_none()
            && error
                .source()
                .is_some_and(|cause| cause.downcast_ref::<io::Error>().is_some()))
}

fn rustls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    error
        .source()?
        .downcast_ref::<io::Error>()?
        .get_ref()?
        .downcast_ref()
}

/// A pooler that does not know something of what every connection begins with: it won't learn it by being asked again.
fn is_bad_startup(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state| state.code() == "08P01")
}

/// What an error of the client library says, with what to do where it is about the profile.
fn explain(error: &tokio_postgres::Error) -> String {
    use rustls::{CertificateError, Error as TlsError};

    let text = describe(error);
    if is_bad_startup(error) {
        return format!(
            "{text} (a pooler? PgBouncer before 1.20 takes `options` only with ignore_startup_parameters)"
        );
    }
    let advice = match rustls_error(error) {
        Some(TlsError::InvalidCertificate(cause)) => match cause {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the server's certificate comes from nobody in `sslrootcert`"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate is for another host; `sslmode: verify-ca` would not look at the host"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "renew the server's certificate, or look at this machine's clock"
            }
            CertificateError::Other(_) => {
                "rustls, which checks it, wants certificates of X.509 version 3 and no authority's own"
            }
            _ => return text,
        },
        Some(_) => "the TLS handshake broke off; the server's log may say why",
        None => match error.source().map(ToString::to_string).as_deref() {
            Some("server does not support TLS") => {
                "turn TLS on there (ssl = on), or choose another `sslmode`"
            }
            Some("password missing") => {
                "the server asks for a password, and there is none: neither `password` in the profile nor PGPASSWORD nor a line in ~/.pgpass"
            }
            Some("server did not use channel binding") => {
                "`channel_binding: require` needs TLS and scram-sha-256 on the server's side"
            }
            _ => return text,
        },
    };
    format!("{text} ({advice})")
}
