//! How a connection is left: with a reason, without waiting for a server that does not care.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::connect::Socket;

/// How long a closing handshake may take. What the server sends meanwhile is still received.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What a server still sends after it was told why it is left is read for so long, so that it gets to read the reason.
const LINGER: Duration = Duration::from_secs(1);
/// The buffer for that.
const LINGER_BUFFER_BYTES: usize = 64 << 10;

/// Tells the server why it is left. It may be in the midst of sending: ending the connection with bytes unread would reset it,
/// and the server might never read the reason; so what still comes is read, for a moment, and thrown away.
pub(super) async fn leave(socket: &mut Socket, code: CloseCode) {
    let frame = CloseFrame {
        code,
        reason: "".into(),
    };
    if !matches!(timeout(LINGER, socket.close(Some(frame))).await, Ok(Ok(()))) {
        return;
    }
    let mut thrown_away = vec![0; LINGER_BUFFER_BYTES];
    let rest = async { while let Ok(1..) = socket.get_mut().read(&mut thrown_away).await {} };
    let _ = timeout(LINGER, rest).await;
}

/// Closes a connection that was only tried.
pub(super) async fn hang_up(mut socket: Socket) {
    let closing = async {
        let closed = socket.close(None).await;
        while closed.is_ok()
            && let Some(Ok(message)) = socket.next().await
            && !message.is_close()
        {}
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}
