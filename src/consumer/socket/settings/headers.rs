//! `headers`, `auth` and `subprotocols` of the handshake.

use tokio_tungstenite::tungstenite::http::header::{
    CONNECTION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};

use super::Route;
use crate::config::Section;
use crate::consumer::reach::headers;
pub(in super::super) use crate::consumer::reach::headers::{Headers, LateHeader};

/// All three.
pub(super) fn read_headers(section: &mut Section<'_>, routes: &[Route]) -> Headers {
    // The user of each route's uri becomes a header when connecting.
    let any_user = routes
        .iter()
        .any(|route| route.endpoint.authorization().is_some());
    let mut headers = headers::read_headers(section, any_user, reserved);
    let subprotocols: Vec<String> = section.or("subprotocols", Vec::new());
    if !subprotocols.is_empty() {
        let is_token = |name: &String| HeaderName::try_from(name).is_ok();
        match HeaderValue::try_from(subprotocols.join(", ")) {
            Ok(value) if subprotocols.iter().all(is_token) => {
                headers.given.insert(SEC_WEBSOCKET_PROTOCOL, value);
            }
            _ => section.problem(
                "subprotocols",
                "names must have only letters, digits and signs like - . _",
            ),
        }
    }
    headers
}

/// Why a header can't be given.
fn reserved(name: &HeaderName) -> Option<&'static str> {
    if *name == SEC_WEBSOCKET_PROTOCOL {
        return Some("is set from `subprotocols`; name them there");
    }
    [
        CONNECTION,
        UPGRADE,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION,
        SEC_WEBSOCKET_EXTENSIONS,
    ]
    .contains(name)
    .then_some("is set by the WebSocket protocol itself; leave it out")
}
