//! Where the servers are: hosts, ports, and how the two lists belong together.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::secret::Secret;

/// No profile names more servers: each is tried for as long as `connect_timeout`.
const MAX_SERVERS: usize = 32;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The directory of its Unix sockets.
    UnixDirectory(PathBuf),
}

impl Host {
    /// As libpq reads it: what begins with `/` is a directory.
    pub(super) fn of(text: &str) -> Self {
        if text.starts_with('/') {
            Self::UnixDirectory(PathBuf::from(text))
        } else {
            Self::Tcp(text.to_owned())
        }
    }

    /// Whether a connection to it stays on this machine, as far as can be told without asking for its addresses.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::UnixDirectory(_) => true,
            Self::Tcp(name) if name == "localhost" => true,
            Self::Tcp(name) => name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => f.write_str(host),
            Self::UnixDirectory(directory) => directory.display().fmt(f),
        }
    }
}

/// One server of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub host: Host,
    /// Its port; part of a Unix socket's name, too.
    pub port: u16,
    /// The password that it is given if it asks for one. Each may have its own, for `.pgpass` tells hosts apart.
    pub password: Option<Secret>,
}

/// `host:port`; an IPv6 address in brackets.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// The items of lists and comma lists, in their order.
fn items(texts: &[String]) -> Vec<&str> {
    texts
        .iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .collect()
}

/// The hosts of the key `host`.
pub(super) fn hosts(texts: &[String]) -> Result<Vec<Host>, String> {
    let unusable = |text: &str| {
        text.is_empty() || text.contains(|character: char| character.is_whitespace() || character == '\0')
    };
    let items = items(texts);
    if items.is_empty() || items.iter().any(|text| unusable(text)) {
        return Err(
            "must be a name, an address, or the directory of a Unix socket; or several of them".to_owned(),
        );
    }
    if items.len() > MAX_SERVERS {
        return Err(format!("must not be more than {MAX_SERVERS} hosts"));
    }
    Ok(items.into_iter().map(Host::of).collect())
}

/// A port for each of `hosts` servers from the key `port`; an empty one is `default`.
pub(super) fn ports(texts: &[String], hosts: usize, default: u16) -> Result<Vec<u16>, String> {
    let port = |text: &str| match text {
        "" => Ok(default),
        text => text
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or("must be from 1 to 65535"),
    };
    let ports: Vec<u16> = items(texts).into_iter().map(port).collect::<Result<_, _>>()?;
    match ports.as_slice() {
        [one] => Ok(vec![*one; hosts]),
        all if all.len() == hosts => Ok(ports),
        all => Err(format!(
            "{} ports do not fit {hosts} hosts; give one port for all of them, or one for each",
            all.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn hosts_come_as_lists_comma_lists_or_both() {
        let names = |given: &[&str]| -> Vec<String> {
            hosts(&texts(given))
                .unwrap()
                .iter()
                .map(Host::to_string)
                .collect()
        };
        assert_eq!(names(&["a"]), ["a"]);
        assert_eq!(names(&["a, b", "/run/pg"]), ["a", "b", "/run/pg"]);
        for bad in [&["a b"][..], &["a,,b"], &[""], &[], &["a\0"]] {
            assert!(hosts(&texts(bad)).is_err(), "{bad:?}");
        }
        assert!(hosts(&vec!["a".to_owned(); MAX_SERVERS + 1]).is_err());
    }

    #[test]
    fn one_port_is_for_all_hosts_and_several_are_one_for_each() {
        for (given, count, expected) in [
            (&["1"][..], 3, Some(vec![1, 1, 1])),
            (&["1,2"], 2, Some(vec![1, 2])),
            (&["1", "2"], 2, Some(vec![1, 2])),
            (&[",2"], 2, Some(vec![5432, 2])),
            (&["1,2"], 3, None),
            (&["0"], 1, None),
            (&["65536"], 1, None),
            (&["x"], 1, None),
        ] {
            assert_eq!(ports(&texts(given), count, 5432).ok(), expected, "{given:?}");
        }
    }

    #[test]
    fn loopback_and_sockets_are_local() {
        for (host, local) in [
            ("localhost", true),
            ("127.1.2.3", true),
            ("::1", true),
            ("/tmp", true),
            ("db.example", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(Host::of(host).is_local(), local, "{host}");
        }
    }
}
