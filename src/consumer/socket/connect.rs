//! From a name to a live WebSocket: look-up, TCP, TLS, handshake, subscriptions; all under one timeout.

use std::io;
use std::time::Duration;

use futures_util::SinkExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::settings::{MAX_STEP_BYTES, Settings};

/// How much is read from the connection at a time: at high rates this decides how many system calls a message costs.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// A live connection.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why there is no connection. Says what to do where that is known; never quotes headers, credentials or bodies.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {} s (connect_timeout)", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("can't reach {host}:{port}: {source}")]
    Tcp {
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error("{}", refusal(*.0))]
    Http(StatusCode),
    #[error(
        "the server's certificate is not trusted: {0}; if an authority of your own issued it, name that in tls.ca_file"
    )]
    Certificate(rustls::Error),
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    #[error("the server ended the connection during the handshake: {0}")]
    Broken(io::Error),
    #[error("what answers is no WebSocket server as asked for: {0}")]
    Handshake(#[source] Box<tungstenite::Error>),
    #[error("the connection broke off while subscribing: {0}")]
    Subscribe(#[source] Box<tungstenite::Error>),
}

/// What an HTTP answer other than "switching protocols" means for the operator.
fn refusal(status: StatusCode) -> String {
    let meaning = match status {
        StatusCode::UNAUTHORIZED => {
            "it wants credentials, or others: see headers, or user and password in uri"
        }
        StatusCode::FORBIDDEN => "it forbids access: see the credentials, and from where it lets clients in",
        StatusCode::NOT_FOUND => "it has no feed at this path: see uri",
        StatusCode::TOO_MANY_REQUESTS => {
            "it had too many connections or attempts from here; they become rarer now"
        }
        status if status.is_redirection() => "its feed has moved: ask its operator for the new uri",
        status if status.is_server_error() => "it has trouble of its own",
        _ => "it opened no WebSocket: see uri, headers and subprotocols",
    };
    format!("the server answered HTTP {status}; {meaning}")
}

/// Connects, and sends what `subscribe` says.
pub(super) async fn connect(settings: &Settings) -> Result<Socket, ConnectError> {
    let limit = settings.connect_timeout;
    timeout(limit, async {
        let mut socket = dial(settings).await?;
        for message in &settings.subscribe {
            let sent = socket.feed(Message::Text(message.clone())).await;
            sent.map_err(|error| ConnectError::Subscribe(Box::new(error)))?;
        }
        let flushed = socket.flush().await;
        flushed.map_err(|error| ConnectError::Subscribe(Box::new(error)))?;
        Ok(socket)
    })
    .await
    .map_err(|_| ConnectError::Timeout(limit))?
}

/// Connects without subscribing to anything, for a trial.
pub(super) async fn try_out(settings: &Settings) -> Result<Socket, ConnectError> {
    let limit = settings.connect_timeout;
    timeout(limit, dial(settings))
        .await
        .map_err(|_| ConnectError::Timeout(limit))?
}

async fn dial(settings: &Settings) -> Result<Socket, ConnectError> {
    let endpoint = &settings.endpoint;
    let unreachable = |source| ConnectError::Tcp {
        host: endpoint.host().to_owned(),
        port: endpoint.port(),
        source,
    };
    let tcp = TcpStream::connect((endpoint.host(), endpoint.port()))
        .await
        .map_err(unreachable)?;
    // Pongs and subscriptions are small and are not to wait for more.
    tcp.set_nodelay(true).map_err(unreachable)?;
    let request = request(settings).map_err(handshake_error)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_write_buffer_size(2 * MAX_STEP_BYTES)
        .max_message_size(Some(settings.max_message_bytes))
        .max_frame_size(Some(settings.max_message_bytes));
    let connector = match &settings.tls {
        Some(tls) => Connector::Rustls(tls.clone()),
        None => Connector::Plain,
    };
    let (socket, _response) = client_async_tls_with_config(request, tcp, Some(config), Some(connector))
        .await
        .map_err(handshake_error)?;
    Ok(socket)
}

fn request(settings: &Settings) -> Result<Request, tungstenite::Error> {
    let mut request = settings.endpoint.uri().into_client_request()?;
    for (name, value) in &settings.headers {
        request.headers_mut().insert(name, value.clone());
    }
    Ok(request)
}

fn handshake_error(error: tungstenite::Error) -> ConnectError {
    match error {
        tungstenite::Error::Http(response) => ConnectError::Http(response.status()),
        tungstenite::Error::Io(error) => {
            let tls = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls {
                Some(tls @ rustls::Error::InvalidCertificate(_)) => ConnectError::Certificate(tls.clone()),
                Some(tls) => ConnectError::Tls(tls.clone()),
                None => ConnectError::Broken(error),
            }
        }
        tungstenite::Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            ConnectError::Broken(io::ErrorKind::UnexpectedEof.into())
        }
        other => ConnectError::Handshake(Box::new(other)),
    }
}
