//! The keys that say how a server is reached, whatever it speaks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::endpoint::{Endpoint, EndpointError};
use super::proxy::{self, Proxy};
use super::tls::{TlsFiles, client_config};
use crate::backoff::Backoff;
use crate::config::Section;
use crate::config::units::Span;

/// The first delay between attempts is at most this.
const INITIAL: Duration = Duration::from_millis(500);
/// No delay between attempts is longer.
const MAX: Duration = Duration::from_secs(60);

/// `uri`.
pub(in crate::consumer) fn read_endpoint(
    section: &mut Section<'_>,
    parse: fn(&str) -> Result<Endpoint, EndpointError>,
) -> Option<Endpoint> {
    let uri: String = section.required("uri")?;
    parse(&uri)
        .map_err(|error| section.problem("uri", &error.to_string()))
        .ok()
}

/// `proxy`, or what the environment says.
pub(in crate::consumer) fn read_proxy(
    section: &mut Section<'_>,
    endpoint: Option<&Endpoint>,
) -> Option<Proxy> {
    match section.optional::<String>("proxy") {
        Some(given) if given == proxy::NONE => None,
        Some(given) => match Proxy::parse(&given) {
            Ok(proxy) => Some(proxy),
            Err(error) => {
                section.problem("proxy", &format!("{error}, or {}", proxy::NONE));
                None
            }
        },
        None => {
            let found = Proxy::of_environment(endpoint?, |name| std::env::var(name).ok());
            found.unwrap_or_else(|(name, error)| {
                let message = format!("is not given, and the environment variable {name} {error}");
                section.problem("proxy", &message);
                None
            })
        }
    }
}

/// Delays between attempts where the configuration gives none.
pub(in crate::consumer) fn reconnect() -> Backoff {
    Backoff::new(INITIAL, MAX)
}

/// `reconnect`: delays between attempts.
pub(in crate::consumer) fn read_reconnect(section: &mut Section<'_>) -> Backoff {
    let (mut initial, mut max) = (Span(INITIAL), Span(MAX));
    if let Some(mut reconnect) = section.section("reconnect") {
        initial = reconnect.or("initial", initial);
        max = reconnect.or("max", max);
        if initial.0.is_zero() {
            reconnect.problem("initial", "must be more than 0s");
        }
        if max < initial {
            reconnect.problem("max", "must not be less than `initial`");
        }
    }
    Backoff::new(initial.0, max.0)
}

/// `tls`. `None` where the uri asks for none, or a problem was reported.
pub(in crate::consumer) fn read_tls(
    section: &mut Section<'_>,
    endpoint: Option<&Endpoint>,
) -> Option<Arc<ClientConfig>> {
    let is_tls = endpoint.is_some_and(Endpoint::is_tls);
    if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_tls() && section.contains("tls")) {
        let scheme = endpoint.tls_scheme();
        section.problem("tls", &format!("is for a uri that begins with {scheme}://"));
    }
    if let Some(mut tls) = section.section("tls") {
        let files = TlsFiles {
            ca_file: tls.optional::<PathBuf>("ca_file"),
            cert_file: tls.optional::<PathBuf>("cert_file"),
            key_file: tls.optional::<PathBuf>("key_file"),
        };
        let config = is_tls.then(|| client_config(&files))?;
        return config
            .map_err(|error| tls.problem(error.key(), &error.to_string()))
            .ok();
    }
    let config = is_tls.then(|| client_config(&TlsFiles::default()))?;
    config
        .map_err(|error| section.problem("uri", &error.to_string()))
        .ok()
}
