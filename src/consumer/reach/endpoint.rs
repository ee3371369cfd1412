//! Where a source is: a `uri` taken apart, so that its credentials are used and never shown.

use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::http::{HeaderValue, Uri};

use super::authority::{Authority, AuthorityError, Credentials};

/// The address of a server.
#[derive(Clone)]
pub(in crate::consumer) struct Endpoint {
    /// Without credentials.
    uri: Uri,
    /// For logs: without credentials and without the query, which often carries a token.
    shown: String,
    host: String,
    port: u16,
    is_tls: bool,
    /// The URI's user and password as basic authentication.
    authorization: Option<HeaderValue>,
    tls_scheme: &'static str,
}

/// What the URIs of a protocol begin with.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Schemes {
    plain: &'static str,
    tls: &'static str,
}

const WEBSOCKET: Schemes = Schemes {
    plain: "ws",
    tls: "wss",
};
const HTTP: Schemes = Schemes {
    plain: "http",
    tls: "https",
};

/// What is wrong with a URI. Never quotes it: it may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::consumer) enum EndpointError {
    #[error(
        "is not a URI; one looks like {}://host:port/path (characters like @ or / in a password are written %40, %2F)", .0.tls
    )]
    NotAUri(&'static Schemes),
    #[error("must begin with {}:// or {}://", .0.plain, .0.tls)]
    Scheme(&'static Schemes),
    #[error("names no host; it should look like {}://host:port/path", .0.tls)]
    NoHost(&'static Schemes),
    #[error("has a port that is no number from 1 to 65535")]
    Port,
    #[error("has a user or password that is not UTF-8")]
    Credentials,
}

impl Endpoint {
    /// Takes the URI of a WebSocket server apart.
    pub(in crate::consumer) fn parse(text: &str) -> Result<Self, EndpointError> {
        Self::parse_as(text, &WEBSOCKET)
    }

    /// Takes the URI of an HTTP server apart.
    pub(in crate::consumer) fn parse_http(text: &str) -> Result<Self, EndpointError> {
        Self::parse_as(text, &HTTP)
    }

    fn parse_as(text: &str, schemes: &'static Schemes) -> Result<Self, EndpointError> {
        let parts = text
            .parse::<Uri>()
            .map_err(|_| EndpointError::NotAUri(schemes))?
            .into_parts();
        let is_tls = match parts.scheme.as_ref().map(Scheme::as_str) {
            Some(scheme) if scheme == schemes.plain => false,
            Some(scheme) if scheme == schemes.tls => true,
            _ => return Err(EndpointError::Scheme(schemes)),
        };
        let authority = parts.authority.ok_or(EndpointError::NoHost(schemes))?;
        let authority = Authority::parse(&authority).map_err(|error| match error {
            AuthorityError::NoHost => EndpointError::NoHost(schemes),
            AuthorityError::Port => EndpointError::Port,
            AuthorityError::Credentials => EndpointError::Credentials,
        })?;
        let Authority {
            bare,
            host,
            port,
            credentials,
        } = authority;
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        let path_and_query = parts
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        let scheme = if is_tls { schemes.tls } else { schemes.plain };
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
            .map_err(|_| EndpointError::NotAUri(schemes))?;
        Ok(Self {
            uri,
            shown,
            host,
            port,
            is_tls,
            authorization: credentials.as_ref().and_then(Credentials::basic),
            tls_scheme: schemes.tls,
        })
    }

    /// The URI without credentials.
    pub(in crate::consumer) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// What may be shown of it.
    pub(in crate::consumer) fn shown(&self) -> &str {
        &self.shown
    }

    /// Host name or address, without brackets.
    pub(in crate::consumer) fn host(&self) -> &str {
        &self.host
    }

    pub(in crate::consumer) fn port(&self) -> u16 {
        self.port
    }

    pub(in crate::consumer) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// What the URI would begin with, were it one with TLS.
    pub(in crate::consumer) fn tls_scheme(&self) -> &'static str {
        self.tls_scheme
    }

    pub(in crate::consumer) fn authorization(&self) -> Option<&HeaderValue> {
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
            ("http://a.example/", EndpointError::Scheme(&WEBSOCKET)),
            ("a.example", EndpointError::Scheme(&WEBSOCKET)),
            ("ws://a.example:99999/", EndpointError::Port),
            ("ws://a.example:0/", EndpointError::Port),
            ("ws://ann:secret @a.example/", EndpointError::NotAUri(&WEBSOCKET)),
            ("ws://ann:secret@/", EndpointError::NotAUri(&WEBSOCKET)),
            ("", EndpointError::NotAUri(&WEBSOCKET)),
        ] {
            let refused = Endpoint::parse(text).unwrap_err();
            assert_eq!(refused, error, "{text}");
            assert!(!refused.to_string().contains("secret"));
        }
    }

    #[test]
    fn the_uri_of_an_http_server_is_no_websocket_uri_and_the_other_way_round() {
        let endpoint = Endpoint::parse_http("https://ann:secret@a.example/x?y").unwrap();
        assert_eq!(
            (endpoint.port(), endpoint.is_tls(), endpoint.shown()),
            (443, true, "https://a.example/x?…")
        );
        assert_eq!(Endpoint::parse_http("http://[::1]").unwrap().port(), 80);
        let refused = Endpoint::parse_http("wss://a.example").unwrap_err();
        assert_eq!(refused.to_string(), "must begin with http:// or https://");
        let refused = Endpoint::parse_http("https://ann:secret @a.example").unwrap_err();
        assert!(
            refused.to_string().contains("looks like https://host"),
            "{refused}"
        );
    }
}
