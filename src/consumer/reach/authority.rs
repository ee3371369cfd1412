//! The part of a URI that says where something is and who asks: `user:password@host:port`. Credentials are used and never shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::http::HeaderValue;
use hyper::http::uri;
use percent_encoding::percent_decode_str;

use crate::config::Secret;

/// A taken-apart authority.
pub(in crate::consumer) struct Authority {
    /// Without credentials.
    pub(in crate::consumer) bare: uri::Authority,
    /// Host name or address, without brackets.
    pub(in crate::consumer) host: String,
    pub(in crate::consumer) port: Option<u16>,
    pub(in crate::consumer) credentials: Option<Credentials>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Credentials {
    pub(in crate::consumer) user: Secret,
    pub(in crate::consumer) password: Secret,
}

/// What is wrong with an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum AuthorityError {
    NoHost,
    Port,
    /// The user or password is not UTF-8 when decoded.
    Credentials,
}

impl Authority {
    pub(in crate::consumer) fn parse(authority: &uri::Authority) -> Result<Self, AuthorityError> {
        let (credentials, place) = match authority.as_str().rsplit_once('@') {
            Some((credentials, place)) => (Some(Credentials::decode(credentials)?), place),
            None => (None, authority.as_str()),
        };
        let bare: uri::Authority = place.parse().map_err(|_| AuthorityError::NoHost)?;
        if bare.host().is_empty() {
            return Err(AuthorityError::NoHost);
        }
        let port = match (bare.port_u16(), place.rsplit_once(':')) {
            (Some(0), _) => return Err(AuthorityError::Port),
            (Some(port), _) => Some(port),
            // What follows the last colon of a bracketed IPv6 address without a port is no port.
            (None, Some((_, rest))) if !rest.ends_with(']') => return Err(AuthorityError::Port),
            (None, _) => None,
        };
        let host = bare.host().trim_matches(['[', ']']).to_owned();
        Ok(Self {
            bare,
            host,
            port,
            credentials,
        })
    }
}

impl Credentials {
    /// From `user:password`, each percent-encoded as in a URI.
    fn decode(text: &str) -> Result<Self, AuthorityError> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decode = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(Secret::new).map_err(|_| AuthorityError::Credentials)
        };
        Ok(Self {
            user: decode(user)?,
            password: decode(password)?,
        })
    }

    /// The value of a header for basic authentication, marked as not to be shown.
    pub(in crate::consumer) fn basic(&self) -> Option<HeaderValue> {
        let plain = format!("{}:{}", self.user.expose(), self.password.expose());
        // Base64 has only characters that a header may hold.
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}
