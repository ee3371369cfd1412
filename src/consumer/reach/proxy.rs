//! The way through a proxy: HTTP CONNECT or SOCKS5. The proxy looks the server's name up; TLS is between us and the server.

use std::fmt;
use std::io;
use std::net::IpAddr;

use hyper::http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

use super::authority::{Authority, AuthorityError, Credentials};
use super::endpoint::Endpoint;

/// Most bytes of a proxy's answer to CONNECT.
const MAX_ANSWER_BYTES: usize = 16 << 10;
/// Most bytes of a SOCKS5 user or password: its length is one byte.
const MAX_SOCKS_BYTES: usize = 255;
/// In place of a proxy: none, whatever the environment says.
pub(in crate::consumer) const NONE: &str = "none";

/// A proxy. `Debug` and `Display` show no credentials.
#[derive(Clone)]
pub(in crate::consumer) struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
    shown: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

/// What is wrong with the address of a proxy. Never quotes it: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no proxy: {0}; one looks like http://host:port or socks5://user:password@host:port")]
pub(in crate::consumer) struct NotAProxy(&'static str);

/// Why a proxy leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(in crate::consumer) enum ProxyError {
    #[error("can't reach the proxy {proxy}: {source}")]
    Unreachable { proxy: String, source: io::Error },
    #[error("the proxy {proxy} broke off: {source}")]
    Broken { proxy: String, source: io::Error },
    #[error("what answers at {proxy} is no HTTP proxy")]
    NotHttp { proxy: String },
    #[error("the proxy {proxy} refused with HTTP {status}; {}", if *.status == 407 { "it wants credentials, or others: see proxy" } else { "ask its operator whether it lets connections through to this server" })]
    Refused { proxy: String, status: u16 },
    #[error("the proxy {proxy} refused: {source}")]
    Socks {
        proxy: String,
        source: tokio_socks::Error,
    },
}

impl ProxyError {
    /// Whether it stays so until somebody changes something.
    pub(in crate::consumer) fn is_configuration(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 401 | 403 | 407),
            Self::Socks { source, .. } => matches!(
                source,
                tokio_socks::Error::PasswordAuthFailure(_)
                    | tokio_socks::Error::NoAcceptableAuthMethods
                    | tokio_socks::Error::ConnectionNotAllowedByRuleset
            ),
            Self::Unreachable { .. } | Self::Broken { .. } | Self::NotHttp { .. } => false,
        }
    }
}

impl Proxy {
    pub(in crate::consumer) fn parse(text: &str) -> Result<Self, NotAProxy> {
        let parts = text
            .parse::<Uri>()
            .map_err(|_| NotAProxy("not a URI"))?
            .into_parts();
        let (kind, default_port) = match parts.scheme.as_ref().map(|scheme| scheme.as_str()) {
            Some("http") => (Kind::Http, 80),
            Some("socks5" | "socks5h") => (Kind::Socks5, 1080),
            _ => return Err(NotAProxy("it must begin with http:// or socks5://")),
        };
        if parts.path_and_query.is_some_and(|path| path.as_str() != "/") {
            return Err(NotAProxy("it has a path"));
        }
        let authority = parts.authority.ok_or(NotAProxy("it names no host"))?;
        let authority = Authority::parse(&authority).map_err(|error| match error {
            AuthorityError::NoHost => NotAProxy("it names no host"),
            AuthorityError::Port => NotAProxy("its port is no number from 1 to 65535"),
            AuthorityError::Credentials => NotAProxy("its user or password is not UTF-8"),
        })?;
        if let (Kind::Socks5, Some(given)) = (kind, &authority.credentials) {
            let fits = |text: &str| (1..=MAX_SOCKS_BYTES).contains(&text.len());
            if !fits(given.user.expose()) || !fits(given.password.expose()) {
                return Err(NotAProxy("user and password of SOCKS5 have 1 to 255 bytes each"));
            }
        }
        let scheme = if kind == Kind::Http { "http" } else { "socks5" };
        let port = authority.port.unwrap_or(default_port);
        Ok(Self {
            kind,
            port,
            shown: format!("{scheme}://{}:{port}", authority.bare.host()),
            host: authority.host,
            credentials: authority.credentials,
        })
    }

    /// The proxy that the environment names for this endpoint: `HTTPS_PROXY` for wss, else `ALL_PROXY`, in small letters too,
    /// unless `NO_PROXY` lists the host. This machine itself is never behind a proxy.
    ///
    /// # Errors
    /// The variable that holds something else than a proxy.
    pub(in crate::consumer) fn of_environment(
        endpoint: &Endpoint,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, (&'static str, NotAProxy)> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let either = |name: &'static str| set(&name.to_ascii_lowercase()).or_else(|| set(name));
        let excluded =
            either("NO_PROXY").is_some_and(|list| excludes(&list, endpoint.host(), endpoint.port()));
        if excluded || is_this_machine(endpoint.host()) {
            return Ok(None);
        }
        let for_tls = endpoint.is_tls().then_some("HTTPS_PROXY");
        for name in for_tls.into_iter().chain(["ALL_PROXY"]) {
            if let Some(value) = either(name) {
                return Self::parse(value.trim()).map(Some).map_err(|error| (name, error));
            }
        }
        Ok(None)
    }

    /// A connection to `host`:`port` through the proxy.
    pub(in crate::consumer) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = tcp.map_err(|source| ProxyError::Unreachable {
            proxy: self.shown.clone(),
            source,
        })?;
        match self.kind {
            Kind::Http => self.connect_http(tcp, host, port).await,
            Kind::Socks5 => {
                let target = (host, port);
                let connected = match &self.credentials {
                    None => Socks5Stream::connect_with_socket(tcp, target).await,
                    Some(Credentials { user, password }) => {
                        let (user, password) = (user.expose(), password.expose());
                        Socks5Stream::connect_with_password_and_socket(tcp, target, user, password).await
                    }
                };
                let proxy = self.shown.clone();
                connected
                    .map(Socks5Stream::into_inner)
                    .map_err(|source| match source {
                        tokio_socks::Error::Io(source) => ProxyError::Broken { proxy, source },
                        source => ProxyError::Socks { proxy, source },
                    })
            }
        }
    }

    async fn connect_http(&self, mut tcp: TcpStream, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let broken = |source| ProxyError::Broken {
            proxy: self.shown.clone(),
            source,
        };
        let target = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(basic) = self.credentials.as_ref().and_then(Credentials::basic) {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(basic.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        tcp.write_all(&request).await.map_err(broken)?;
        let status = read_status(&mut tcp).await.map_err(broken)?;
        match status {
            Some(200..=299) => Ok(tcp),
            Some(status) => Err(ProxyError::Refused {
                proxy: self.shown.clone(),
                status,
            }),
            None => Err(ProxyError::NotHttp {
                proxy: self.shown.clone(),
            }),
        }
    }
}

/// Reads an answer up to its empty line, byte by byte: what follows is the server's. `None` when it is none of HTTP.
async fn read_status(tcp: &mut TcpStream) -> io::Result<Option<u16>> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = tcp.read_u8().await?;
        answer.push(byte);
        if answer.len() > MAX_ANSWER_BYTES || !b"HTTP/1.".iter().zip(&answer).all(|(one, other)| one == other)
        {
            return Ok(None);
        }
    }
    let status = answer.split(|byte| *byte == b' ').nth(1);
    let status = status.and_then(|status| std::str::from_utf8(status.get(..3)?).ok());
    Ok(status.and_then(|status| status.parse().ok()))
}

/// Whether a `NO_PROXY` list has the host: names with what is below them, addresses, each with or without a port, or `*`.
fn excludes(list: &str, host: &str, port: u16) -> bool {
    let host = host.to_ascii_lowercase();
    list.split([',', ' ']).any(|entry| {
        let entry = entry.trim().to_ascii_lowercase();
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, number)) if !name.contains(':') || name.ends_with(']') => match number.parse() {
                Ok(number) => (name, Some(number)),
                Err(_) => (entry.as_str(), None),
            },
            _ => (entry.as_str(), None),
        };
        let name = name
            .trim_matches(['[', ']'])
            .trim_start_matches("*.")
            .trim_start_matches('.');
        let is_host = name == "*"
            || host == name
            || host
                .strip_suffix(name)
                .is_some_and(|above| above.ends_with('.') && !name.is_empty());
        is_host && wanted.is_none_or(|wanted: u16| wanted == port)
    })
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_its_credentials_are_shown_nowhere() {
        for (text, shown) in [
            ("http://p.example", "http://p.example:80"),
            ("http://ann:s%40cret@p.example:3128/", "http://p.example:3128"),
            ("socks5://ann:scret@[::1]:1081", "socks5://[::1]:1081"),
            ("socks5h://p.example", "socks5://p.example:1080"),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!(format!("{proxy} {proxy:?}"), format!("{shown} {shown}"));
        }
        for text in [
            "p.example:3128",
            "https://ann:scret@p.example",
            "http://p.example/x",
            "http://p.example:0",
            "http://",
            "socks5://ann:@p.example",
            "socks5://ann@p.example",
            "http://a b",
        ] {
            let refused = Proxy::parse(text).unwrap_err().to_string();
            assert!(
                refused.contains("looks like") && !refused.contains("scret"),
                "{refused}"
            );
        }
    }

    #[test]
    fn the_environment_names_a_proxy_unless_it_excludes_the_host() {
        let of = |uri: &str, variables: &[(&str, &str)]| {
            let endpoint = Endpoint::parse(uri).unwrap();
            Proxy::of_environment(&endpoint, |name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            })
            .map(|proxy| proxy.map(|proxy| proxy.to_string()))
        };
        let some = |shown: &str| Ok(Some(shown.to_owned()));
        let both = [("HTTPS_PROXY", "http://tls:1"), ("all_proxy", "socks5://all:2")];
        assert_eq!(of("wss://a.example", &both), some("http://tls:1"));
        assert_eq!(of("ws://a.example", &both), some("socks5://all:2"));
        assert_eq!(of("ws://a.example", &both[..1]), Ok(None));
        assert_eq!(of("wss://a.example", &[("HTTPS_PROXY", " ")]), Ok(None));
        for here in ["wss://localhost:1", "wss://127.0.0.1:1", "wss://[::1]:1"] {
            assert_eq!(of(here, &both), Ok(None), "{here}");
        }
        assert_eq!(
            of("wss://a.example", &[("HTTPS_PROXY", "p:3128")]).unwrap_err().0,
            "HTTPS_PROXY"
        );
        for (list, excluded) in [
            ("*", true),
            ("b.example, a.example", true),
            (".example", true),
            ("*.example", true),
            ("example", true),
            ("a.example:443", true),
            ("a.example:80", false),
            ("xample", false),
            ("b.a.example", false),
            (",", false),
        ] {
            let found = of("wss://A.example", &[both[0], ("NO_PROXY", list)]);
            assert_eq!(found == Ok(None), excluded, "{list}");
        }
        assert_eq!(
            of("wss://[fd00::1]:9", &[both[0], ("no_proxy", "[fd00::1]:9")]),
            Ok(None)
        );
        assert_eq!(
            of("wss://[fd00::1]:9", &[both[0], ("no_proxy", "fd00::1")]),
            Ok(None)
        );
    }
}
