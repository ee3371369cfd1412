//! A TCP connection to a server, straight or through a proxy, and what goes wrong on the way to its first word.

use std::io;

use tokio::net::TcpStream;

use super::endpoint::Endpoint;
use super::proxy::{Proxy, ProxyError};
use super::refusal::Remedy;

/// Why a server can't be reached. Says what to do where that is known.
#[derive(Debug, thiserror::Error)]
pub(in crate::consumer) enum ReachError {
    #[error("can't reach {host}:{port}: {source}")]
    Tcp {
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(
        "the server's certificate is not trusted: {0}; if an authority of your own issued it, name that in tls.ca_file"
    )]
    Certificate(rustls::Error),
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    #[error("the server ended the connection during the handshake: {0}")]
    Broken(io::Error),
}

impl ReachError {
    /// Of an error of the handshake, in which TLS hides its own.
    pub(in crate::consumer) fn of_handshake(error: io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(tls @ rustls::Error::InvalidCertificate(_)) => Self::Certificate(tls.clone()),
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Broken(error),
        }
    }

    pub(in crate::consumer) fn remedy(&self) -> Remedy {
        match self {
            Self::Proxy(error) if error.is_configuration() => Remedy::Operator,
            Self::Certificate(_) => Remedy::Operator,
            Self::Tcp { .. } | Self::Proxy(_) | Self::Tls(_) | Self::Broken(_) => Remedy::Backoff,
        }
    }
}

/// Connects.
pub(in crate::consumer) async fn connect(
    endpoint: &Endpoint,
    proxy: Option<&Proxy>,
) -> Result<TcpStream, ReachError> {
    let (host, port) = (endpoint.host(), endpoint.port());
    let unreachable = |source| ReachError::Tcp {
        host: host.to_owned(),
        port,
        source,
    };
    let tcp = match proxy {
        Some(proxy) => proxy.connect(host, port).await?,
        None => TcpStream::connect((host, port)).await.map_err(unreachable)?,
    };
    // What is sent is small and is not to wait for more.
    tcp.set_nodelay(true).map_err(unreachable)?;
    Ok(tcp)
}
