//! `uri`, `proxy`, `tls`, and what is said of several connections: `connections`, `rotate`, `identity`, `window`.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_yaml::Value;

use super::super::identity::MAX_PATHS;
use super::super::lane::MAX_CONNECTIONS;
use super::super::merge::WindowLimits;
use crate::config::Section;
use crate::config::units::Span;
use crate::consumer::reach::endpoint::Endpoint;
use crate::consumer::reach::proxy::{self, Proxy};
use crate::consumer::reach::settings::{read_endpoint, read_tls};
use crate::json_path::Finder;

/// `window.messages` unless it is given, and the most that it may be.
const WINDOW_MESSAGES: usize = 100_000;
const MAX_WINDOW_MESSAGES: usize = 1_000_000;
/// `window.age` unless it is given: more than the silence after which a connection is given up as dead.
const WINDOW_AGE: Duration = Duration::from_secs(60);
/// The shortest `rotate`: each time costs two handshakes.
const MIN_ROTATE: Duration = Duration::from_secs(1);

/// The default of `window`.
pub(super) const WINDOW: WindowLimits = WindowLimits {
    messages: WINDOW_MESSAGES,
    age: WINDOW_AGE,
};

/// How a connection reaches the feed. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(in super::super) struct Route {
    pub(in super::super) endpoint: Endpoint,
    /// `None` for a straight connection.
    pub(in super::super) proxy: Option<Proxy>,
    /// For wss.
    pub(in super::super) tls: Option<Arc<ClientConfig>>,
}

impl Route {
    /// Its address without anything secret.
    pub(in super::super) fn shown(&self) -> String {
        self.endpoint.shown().to_owned()
    }
}

/// A route for each connection. Empty when something is wrong; it is then reported.
pub(super) fn read_routes(section: &mut Section<'_>) -> Vec<Route> {
    let mut routes = match section.optional::<Value>("connections") {
        Some(Value::Sequence(_)) => read_list(section),
        given => read_number(section, given.as_ref()),
    };
    let of_tls = routes
        .iter()
        .find(|route| route.endpoint.is_tls())
        .or(routes.first());
    let tls = read_tls(section, of_tls.map(|route| &route.endpoint));
    for route in &mut routes {
        route.tls = tls.clone().filter(|_| route.endpoint.is_tls());
    }
    routes
}

/// `connections` as a number: so many to the same address.
fn read_number(section: &mut Section<'_>, given: Option<&Value>) -> Vec<Route> {
    let number = given.map_or(Some(1), Value::as_u64);
    let number = number
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| (1..=MAX_CONNECTIONS).contains(number));
    if number.is_none() {
        let message =
            format!("must be a number from 1 to {MAX_CONNECTIONS}, or a list with an entry for each of them");
        section.problem("connections", &message);
    }
    let endpoint = read_endpoint(section, Endpoint::parse);
    let way = Way::read(section);
    let route = endpoint.map(|endpoint| way.to(endpoint, section));
    route.map_or_else(Vec::new, |route| vec![route; number.unwrap_or_default()])
}

/// `connections` as a list: `uri` and `proxy` of each, in place of the consumer's own.
fn read_list(section: &mut Section<'_>) -> Vec<Route> {
    let entries = section.sequence("connections").unwrap_or_default();
    if !(1..=MAX_CONNECTIONS).contains(&entries.len()) {
        section.problem(
            "connections",
            &format!("must have 1 to {MAX_CONNECTIONS} entries"),
        );
    }
    let is_needed = entries.iter().any(|entry| !entry.contains("uri"));
    let common = if is_needed || section.contains("uri") {
        read_endpoint(section, Endpoint::parse)
    } else {
        section.optional::<String>("uri");
        None
    };
    let common_way = Way::read(section);
    let mut routes = Vec::new();
    for mut entry in entries {
        // Asked for in any case, so that misspelled keys are recognised.
        let own = entry
            .contains("uri")
            .then(|| read_endpoint(&mut entry, Endpoint::parse));
        entry.optional::<String>("uri");
        let way = Way::read(&mut entry);
        let endpoint = own.unwrap_or_else(|| common.clone());
        routes.extend(endpoint.map(|endpoint| match way {
            Way::OfEnvironment => common_way.to(endpoint, section),
            way => way.to(endpoint, &mut entry),
        }));
    }
    routes
}

/// `proxy`.
enum Way {
    Straight,
    Through(Proxy),
    /// It is not given, so the environment decides.
    OfEnvironment,
}

impl Way {
    fn read(section: &mut Section<'_>) -> Self {
        match section.optional::<String>("proxy") {
            None => Self::OfEnvironment,
            Some(given) if given == proxy::NONE => Self::Straight,
            Some(given) => match Proxy::parse(&given) {
                Ok(proxy) => Self::Through(proxy),
                Err(error) => {
                    section.problem("proxy", &format!("{error}, or {}", proxy::NONE));
                    Self::Straight
                }
            },
        }
    }

    /// The route to this endpoint, without TLS. What is wrong in the environment is reported to the section.
    fn to(&self, endpoint: Endpoint, section: &mut Section<'_>) -> Route {
        let proxy = match self {
            Self::Straight => None,
            Self::Through(proxy) => Some(proxy.clone()),
            Self::OfEnvironment => {
                let found = Proxy::of_environment(&endpoint, |name| std::env::var(name).ok());
                found.unwrap_or_else(|(name, error)| {
                    let message = format!("is not given, and the environment variable {name} {error}");
                    section.problem("proxy", &message);
                    None
                })
            }
        };
        Route {
            endpoint,
            proxy,
            tls: None,
        }
    }
}

/// `rotate`.
pub(super) fn read_rotate(section: &mut Section<'_>) -> Option<Duration> {
    let Span(rotate) = section.optional("rotate")?;
    if rotate < MIN_ROTATE {
        section.problem("rotate", "must be at least 1s");
    }
    Some(rotate)
}

/// `identity` and `window`. They say how several connections are merged, so `merges` tells whether there are any.
pub(super) fn read_merging(section: &mut Section<'_>, merges: bool) -> (Option<Finder>, WindowLimits) {
    for key in ["identity", "window"] {
        if !merges && section.contains(key) {
            section.problem(key, "is for several connections: see connections and rotate");
        }
    }
    (read_identity(section), read_window(section))
}

/// `identity`: a path, or a list of paths.
fn read_identity(section: &mut Section<'_>) -> Option<Finder> {
    let paths = section.single_paths("identity", MAX_PATHS)?;
    Some(Finder::new(&paths))
}

fn read_window(section: &mut Section<'_>) -> WindowLimits {
    let Some(mut window) = section.section("window") else {
        return WINDOW;
    };
    let messages = window.or("messages", WINDOW.messages);
    if !(1..=MAX_WINDOW_MESSAGES).contains(&messages) {
        window.problem(
            "messages",
            &format!("must be at least 1 and at most {MAX_WINDOW_MESSAGES}"),
        );
    }
    let Span(age) = window.or("age", Span(WINDOW.age));
    if age.is_zero() {
        window.problem("age", "must be more than 0s");
    }
    WindowLimits { messages, age }
}
