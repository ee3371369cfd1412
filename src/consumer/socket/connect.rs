//! From a name to a live WebSocket: tokens, look-up, proxy, TCP, TLS, handshake; all under one timeout.

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::paced::{Paced, QUOTA_BYTES};
use super::refusal::{ConnectError, of_handshake};
use super::script::{MAX_STEP_BYTES, Script};
use super::settings::{Route, Settings};
use crate::consumer::reach;
use crate::consumer::reach::headers::apply;

/// How much is read from the connection at a time: at high rates this decides how many system calls a message costs.
const READ_BUFFER_BYTES: usize = QUOTA_BYTES;

/// A live connection.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<Paced<TcpStream>>>;

/// Whether anything was read from the connection since this was asked last.
pub(super) fn take_has_read(socket: &mut Socket) -> bool {
    match socket.get_mut() {
        MaybeTlsStream::Plain(connection) => connection.take_has_read(),
        MaybeTlsStream::Rustls(tls) => tls.get_mut().0.take_has_read(),
        // Of no kind that is made here.
        _ => true,
    }
}

/// Connects. The files of tokens are read first, so that what comes with the connection is what it needs.
pub(super) async fn connect<'s>(
    settings: &'s Settings,
    route: &Route,
) -> Result<(Socket, Script<'s>), ConnectError> {
    let (socket, script, _) = connect_with_answer(settings, route).await?;
    Ok((socket, script))
}

/// The same, with the server's answer to the handshake.
pub(super) async fn connect_with_answer<'s>(
    settings: &'s Settings,
    route: &Route,
) -> Result<(Socket, Script<'s>, Response), ConnectError> {
    let limit = settings.connect_timeout;
    timeout(limit, async {
        let script = Script::prepare(settings).await?;
        let (socket, answer) = dial(settings, route).await?;
        Ok((socket, script, answer))
    })
    .await
    .map_err(|_| ConnectError::Timeout(limit))?
}

async fn dial(settings: &Settings, route: &Route) -> Result<(Socket, Response), ConnectError> {
    let request = request(settings, route).await?;
    let tcp = reach::connect::connect(&route.endpoint, route.proxy.as_ref()).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_write_buffer_size(2 * MAX_STEP_BYTES)
        .max_message_size(Some(settings.max_message_bytes))
        .max_frame_size(Some(settings.max_message_bytes));
    let connector = match &route.tls {
        Some(tls) => Connector::Rustls(tls.clone()),
        None => Connector::Plain,
    };
    let answered = client_async_tls_with_config(request, Paced::new(tcp), Some(config), Some(connector))
        .await
        .map_err(of_handshake)?;
    Ok(answered)
}

async fn request(settings: &Settings, route: &Route) -> Result<Request, ConnectError> {
    let request: Result<Request, tungstenite::Error> = route.endpoint.uri().into_client_request();
    let mut request = request.map_err(of_handshake)?;
    if let Some(authorization) = route.endpoint.authorization() {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    apply(&settings.headers, &settings.late_headers, request.headers_mut()).await?;
    Ok(request)
}
