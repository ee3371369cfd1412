//! Where a feed is: a `uri` taken apart, so that its credentials are used and never shown.

use tokio_tungstenite::tungstenite::http::uri::{PathAndQuery, Scheme};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};

use super::authority::{Authority, AuthorityError, Credentials};

/// The address of a WebSocket server.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// Without credentials.
    uri: Uri,
    /// For logs: without credentials and without the query, which often carries a token.
    shown: String,
    host: String,
    port: u16,
    is_tls: bool,
    /// The URI's user and password as basic authentication.
    authorization: Option<HeaderValue>,
}

/// What is wrong with a URI. Never quotes it: it may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EndpointError {
    #[error(
        "is not a URI; one looks like wss://host:port/path (characters like @ or / in a password are written %40, %2F)"
    )]
    NotAUri,
    #[error("must begin with ws:// or wss://")]
    Scheme,
    #[error("names no host; it should look like wss://host:port/path")]
    NoHost,
    #[error("has a port that is no number from 1 to 65535")]
    Port,
    #[error("has a user or password that is not UTF-8")]
    Credentials,
}

impl From<AuthorityError> for EndpointError {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::NoHost => Self::NoHost,
            AuthorityError::Port => Self::Port,
            AuthorityError::Credentials => Self::Credentials,
        }
    }
}

impl Endpoint {
    /// Takes a URI apart.
    pub(super) fn parse(text: &str) -> Result<Self, EndpointError> {
        let parts = text
            .parse::<Uri>()
            .map_err(|_| EndpointError::NotAUri)?
            .into_parts();
        let is_tls = match parts.scheme.as_ref().map(Scheme::as_str) {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(EndpointError::Scheme),
        };
        let authority = parts.authority.ok_or(EndpointError::NoHost)?;
        let Authority {
            bare,
            host,
            port,
            credentials,
        } = Authority::parse(&authority)?;
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        let path_and_query = parts
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        let scheme = if is_tls { "wss" } else { "ws" };
        let query = if path_and_query.query().is_some() {
            "?…"
        } else {
            ""
        };
        let shown = format!("{scheme}://{bare}{}{query}", path_and_query.path());
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(bare)
            .path_and_query(path_and_query)
            .build()
            .map_err(|_| EndpointError::NotAUri)?;
        Ok(Self {
            uri,
            shown,
            host,
            port,
            is_tls,
            authorization: credentials.as_ref().and_then(Credentials::basic),
        })
    }

    /// The URI without credentials.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// What may be shown of it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Host name or address, without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_taken_apart_with_its_default_port() {
        for (text, host, port, is_tls, uri) in [
            ("ws://a.example", "a.example", 80, false, "ws://a.example/"),
            (
                "wss://a.example/x?y=1",
                "a.example",
                443,
                true,
                "wss://a.example/x?y=1",
            ),
            (
                "ws://127.0.0.1:9001/t",
                "127.0.0.1",
                9001,
                false,
                "ws://127.0.0.1:9001/t",
            ),
            ("wss://[::1]/", "::1", 443, true, "wss://[::1]/"),
            ("ws://[::1]:81", "::1", 81, false, "ws://[::1]:81/"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(
                (endpoint.host(), endpoint.port(), endpoint.is_tls()),
                (host, port, is_tls),
                "{text}"
            );
            assert_eq!(endpoint.uri().to_string(), uri);
            assert_eq!(endpoint.authorization(), None);
        }
    }

    #[test]
    fn credentials_become_basic_authentication_and_are_shown_nowhere() {
        let endpoint = Endpoint::parse("wss://ann:p%40ss%3A@feed.example:444/t?token=tiptop").unwrap();
        // ann:p@ss:
        assert_eq!(endpoint.authorization().unwrap(), "Basic YW5uOnBAc3M6");
        assert_eq!(endpoint.shown(), "wss://feed.example:444/t?…");
        let everything_shown = format!("{endpoint:?} {} {:?}", endpoint.uri(), endpoint.authorization());
        for secret in ["ann", "p%40ss", "p@ss", "YW5u"] {
            assert!(!everything_shown.contains(secret), "{everything_shown}");
        }
    }

    #[test]
    fn what_is_no_websocket_uri_is_refused_without_being_quoted() {
        for (text, error) in [
            ("http://a.example/", EndpointError::Scheme),
            ("a.example", EndpointError::Scheme),
            ("ws://a.example:99999/", EndpointError::Port),
            ("ws://a.example:0/", EndpointError::Port),
            ("ws://ann:secret @a.example/", EndpointError::NotAUri),
            ("ws://ann:secret@/", EndpointError::NotAUri),
            ("", EndpointError::NotAUri),
        ] {
            let refused = Endpoint::parse(text).unwrap_err();
            assert_eq!(refused, error, "{text}");
            assert!(!refused.to_string().contains("secret"));
        }
    }
}
