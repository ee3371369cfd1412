//! Why there is no connection, what that means for the operator, and when it is worth trying again.

use std::io;
use std::time::{Duration, SystemTime};

use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::tungstenite::{self};

use super::proxy::ProxyError;
use super::token::TokenError;

/// The longest that a server's `Retry-After` is obeyed: a server that errs about it is not to keep a feed away for days.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

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
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("{}", meaning(*.status, *.retry_after))]
    Http {
        status: StatusCode,
        /// What the server asks for, as it asks.
        retry_after: Option<Duration>,
    },
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
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// By the ordinary delays.
    Backoff,
    /// Not before this time is over, for so the server asks.
    After(Duration),
    /// Rarely: it stays as it is until somebody changes something.
    Operator,
}

impl ConnectError {
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Http {
                status,
                retry_after: Some(wait),
            } if asks_for_time(*status) => Remedy::After((*wait).min(MAX_RETRY_AFTER)),
            Self::Http { status, .. } if is_configuration(*status) => Remedy::Operator,
            Self::Proxy(error) if error.is_configuration() => Remedy::Operator,
            Self::Token(_) | Self::Certificate(_) => Remedy::Operator,
            Self::Http { .. }
            | Self::Proxy(_)
            | Self::Timeout(_)
            | Self::Tcp { .. }
            | Self::Tls(_)
            | Self::Broken(_)
            | Self::Handshake(_) => Remedy::Backoff,
        }
    }
}

/// Answers that come with a `Retry-After` to obey.
fn asks_for_time(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Answers that stay the same until the configuration, or the account at the server, is changed.
fn is_configuration(status: StatusCode) -> bool {
    status.is_redirection()
        || matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
        )
}

/// What an HTTP answer other than "switching protocols" means for the operator.
fn meaning(status: StatusCode, retry_after: Option<Duration>) -> String {
    let meaning = match status {
        StatusCode::UNAUTHORIZED => {
            "it wants credentials, or others: see auth, headers, or user and password in uri"
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
    let asked = retry_after
        .filter(|_| asks_for_time(status))
        .map_or_else(String::new, |wait| {
            let seconds = wait.as_secs();
            if wait > MAX_RETRY_AFTER {
                let most = MAX_RETRY_AFTER.as_secs();
                format!(" (it asks for {seconds} s of patience, and gets {most} s)")
            } else {
                format!(" (it asks for {seconds} s of patience)")
            }
        });
    format!("the server answered HTTP {status}; {meaning}{asked}")
}

/// `Retry-After`: seconds, or a date.
fn retry_after<B>(response: &tungstenite::http::Response<B>, now: SystemTime) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Of an answer other than "switching protocols".
fn of_response(response: &Response) -> ConnectError {
    ConnectError::Http {
        status: response.status(),
        retry_after: retry_after(response, SystemTime::now()),
    }
}

/// Of an error of the handshake, TLS or WebSocket.
pub(super) fn of_handshake(error: tungstenite::Error) -> ConnectError {
    match error {
        tungstenite::Error::Http(response) => of_response(&response),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> ConnectError {
        let mut response = Response::new(None);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(value) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, value.parse().unwrap());
        }
        of_response(&response)
    }

    #[test]
    fn each_answer_has_its_remedy() {
        for status in [401, 403, 404, 301, 308] {
            assert_eq!(answer(status, Some("5")).remedy(), Remedy::Operator, "{status}");
        }
        for status in [400, 410, 426, 500, 502, 503, 429, 200] {
            assert_eq!(answer(status, None).remedy(), Remedy::Backoff, "{status}");
        }
        let seconds = Duration::from_secs;
        for status in [429, 503] {
            assert_eq!(answer(status, Some(" 7 ")).remedy(), Remedy::After(seconds(7)));
            assert_eq!(answer(status, Some("soon")).remedy(), Remedy::Backoff);
            assert_eq!(
                answer(status, Some("Wed, 21 Oct 2015 07:28:00 GMT")).remedy(),
                Remedy::After(Duration::ZERO),
                "a date that is over"
            );
            assert_eq!(
                answer(status, Some("86400")).remedy(),
                Remedy::After(MAX_RETRY_AFTER)
            );
            assert_eq!(
                answer(status, Some("18446744073709551616")).remedy(),
                Remedy::Backoff
            );
        }
        assert_eq!(answer(500, Some("7")).remedy(), Remedy::Backoff);
        let said = answer(429, Some("86400")).to_string();
        assert!(said.contains("86400 s of patience, and gets 900 s"), "{said}");
        assert!(!answer(500, Some("7")).to_string().contains("patience"));
    }

    #[test]
    fn a_date_is_counted_from_now() {
        let now = SystemTime::now();
        let date = httpdate::fmt_http_date(now + Duration::from_secs(100));
        let mut response = Response::new(None);
        response.headers_mut().insert(RETRY_AFTER, date.parse().unwrap());
        let wait = retry_after(&response, now).unwrap();
        assert!(
            wait > Duration::from_secs(98) && wait <= Duration::from_secs(100),
            "{wait:?}"
        );
    }
}
