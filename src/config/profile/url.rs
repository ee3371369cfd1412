//! A connection URL as libpq takes it: `postgresql://user:password@host:1,other:2/database?sslmode=require`.
//!
//! It is taken apart into the keys of a profile and no further: what the values mean is for whoever reads the keys. Errors
//! never repeat a part of the URL but the name of a parameter, for a password may stand anywhere in it.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::config::problem::{quotable, suggestion};

/// The keys of a profile that a URL can set as parameters (`?sslmode=…`), beside its own parts.
const PARAMETERS: [&str; 21] = [
    "user",
    "password",
    "database",
    "host",
    "port",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "application_name",
    "connect_timeout",
    "target_session_attrs",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "options",
    // The names that libpq and JDBC have for two of them.
    "dbname",
    "ssl",
];

/// What a URL sets, by the profile's keys. No `Debug`: a password may be in it.
pub(super) struct ConnectionUrl {
    values: BTreeMap<&'static str, String>,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UrlError {
    #[error("must begin with postgresql:// or postgres://")]
    OtherScheme,
    #[error("a % in it is not followed by two hexadecimal digits; write %25 for a literal %")]
    BadEscape,
    #[error("what its %-escapes stand for is not UTF-8 text, or holds NUL")]
    NotText,
    #[error("a [ in it lacks its ]; an IPv6 address is written as [::1]:5432")]
    UnclosedBracket,
    #[error("what follows the ] of an address must be a port, as in [::1]:5432")]
    AfterBracket,
    #[error("a parameter in it has no value; they are written as ?sslmode=require&connect_timeout=5")]
    NoValue,
    #[error("unknown parameter `{name}`{hint}")]
    Unknown { name: String, hint: String },
    #[error("sets {0} twice")]
    Twice(&'static str),
    #[error("the parameter ssl can only be true, which is sslmode=require; write sslmode instead")]
    Ssl,
}

impl ConnectionUrl {
    /// Takes a URL apart.
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let rest = ["postgresql://", "postgres://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or(UrlError::OtherScheme)?;
        let mut url = Self {
            values: BTreeMap::new(),
        };
        // As in libpq, what stands before the first @ is the user, unless a / or ? comes first.
        let end_of_user = rest.find(['@', '/', '?']);
        let rest = match end_of_user.map(|at| rest.split_at(at)) {
            Some((user, after)) if after.starts_with('@') => {
                url.set_user(user)?;
                &after[1..]
            }
            _ => rest,
        };
        let (hosts, path, parameters) = split(rest);
        url.set_hosts(hosts)?;
        if !path.is_empty() {
            url.set("database", decoded(path)?)?;
        }
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            url.set_parameter(parameter)?;
        }
        Ok(url)
    }

    /// What it sets for a key of the profile.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    fn set(&mut self, key: &'static str, value: String) -> Result<(), UrlError> {
        match self.values.insert(key, value) {
            None => Ok(()),
            Some(_) => Err(UrlError::Twice(key)),
        }
    }

    fn set_user(&mut self, text: &str) -> Result<(), UrlError> {
        let (user, password) = match text.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (text, None),
        };
        if !user.is_empty() {
            self.set("user", decoded(user)?)?;
        }
        match password {
            Some(password) if !password.is_empty() => self.set("password", decoded(password)?),
            _ => Ok(()),
        }
    }

    /// Hosts and ports become comma lists, as the keys `host` and `port` have them; a host without a port has an empty one.
    fn set_hosts(&mut self, text: &str) -> Result<(), UrlError> {
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for one in text.split(',') {
            let (host, port) = if let Some(address) = one.strip_prefix('[') {
                let (address, after) = address.split_once(']').ok_or(UrlError::UnclosedBracket)?;
                match after.strip_prefix(':') {
                    Some(port) => (address, port),
                    None if after.is_empty() => (address, ""),
                    None => return Err(UrlError::AfterBracket),
                }
            } else {
                one.split_once(':').unwrap_or((one, ""))
            };
            hosts.push(decoded(host)?);
            ports.push(decoded(port)?);
        }
        if hosts.iter().any(|host| !host.is_empty()) {
            self.set("host", hosts.join(","))?;
        }
        if ports.iter().any(|port| !port.is_empty()) {
            self.set("port", ports.join(","))?;
        }
        Ok(())
    }

    fn set_parameter(&mut self, parameter: &str) -> Result<(), UrlError> {
        let (name, value) = parameter.split_once('=').ok_or(UrlError::NoValue)?;
        let (name, value) = (decoded(name)?, decoded(value)?);
        match PARAMETERS.into_iter().find(|known| *known == name) {
            Some("dbname") => self.set("database", value),
            Some("ssl") if value == "true" => self.set("sslmode", "require".to_owned()),
            Some("ssl") => Err(UrlError::Ssl),
            Some(key) => self.set(key, value),
            None => Err(UrlError::Unknown {
                name: quotable(&name),
                hint: suggestion(&name, &PARAMETERS),
            }),
        }
    }
}

/// Hosts, path and parameters.
fn split(text: &str) -> (&str, &str, &str) {
    let (before, parameters) = text.split_once('?').unwrap_or((text, ""));
    let (hosts, path) = before.split_once('/').unwrap_or((before, ""));
    (hosts, path, parameters)
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        if byte == b'%' && !(escaped(bytes.next()) && escaped(bytes.next())) {
            return Err(UrlError::BadEscape);
        }
    }
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| UrlError::NotText)?;
    if text.contains('\0') {
        return Err(UrlError::NotText);
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Vec<(&'static str, String)> {
        let url = ConnectionUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        url.values.into_iter().collect()
    }

    #[test]
    fn a_url_sets_the_keys_that_libpq_would_read_from_it() {
        for (text, expected) in [
            ("postgresql://", &[][..]),
            ("postgres:///", &[]),
            ("postgresql://localhost", &[("host", "localhost")]),
            ("postgresql://h:5433", &[("host", "h"), ("port", "5433")]),
            ("postgresql://h/mydb", &[("database", "mydb"), ("host", "h")]),
            ("postgresql://u@h", &[("host", "h"), ("user", "u")]),
            (
                "postgresql://u%40x:p%3Aw%2F@h",
                &[("host", "h"), ("password", "p:w/"), ("user", "u@x")],
            ),
            (
                "postgresql://u:a:b@h",
                &[("host", "h"), ("password", "a:b"), ("user", "u")],
            ),
            (
                "postgresql://user@host1:1,host2:2/db?sslmode=verify-full",
                &[
                    ("database", "db"),
                    ("host", "host1,host2"),
                    ("port", "1,2"),
                    ("sslmode", "verify-full"),
                    ("user", "user"),
                ],
            ),
            ("postgresql://a,b:2", &[("host", "a,b"), ("port", ",2")]),
            ("postgresql://[::1]:5/", &[("host", "::1"), ("port", "5")]),
            (
                "postgresql://[2001:db8::1]/d",
                &[("database", "d"), ("host", "2001:db8::1")],
            ),
            (
                "postgresql://%2Fvar%2Frun%2Fpostgresql/db",
                &[("database", "db"), ("host", "/var/run/postgresql")],
            ),
            (
                "postgresql:///db?host=/tmp&user=u&ssl=true",
                &[
                    ("database", "db"),
                    ("host", "/tmp"),
                    ("sslmode", "require"),
                    ("user", "u"),
                ],
            ),
            (
                "postgresql://h?options=-c%20geqo%3Doff&dbname=x",
                &[("database", "x"), ("host", "h"), ("options", "-c geqo=off")],
            ),
            ("postgresql://h/a@b", &[("database", "a@b"), ("host", "h")]),
        ] {
            let expected: Vec<(&str, String)> = expected
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned()))
                .collect();
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn a_url_that_can_not_be_meant_is_refused_without_repeating_it() {
        for (text, expected) in [
            ("mysql://h", UrlError::OtherScheme),
            ("u:swordfish@h", UrlError::OtherScheme),
            ("postgresql://u:swordfish%zz@h", UrlError::BadEscape),
            ("postgresql://h/%", UrlError::BadEscape),
            ("postgresql://h/%00", UrlError::NotText),
            ("postgresql://h/%ff", UrlError::NotText),
            ("postgresql://[::1", UrlError::UnclosedBracket),
            ("postgresql://[::1]x", UrlError::AfterBracket),
            ("postgresql://h?sslmode", UrlError::NoValue),
            ("postgresql://h/a?dbname=swordfish", UrlError::Twice("database")),
            ("postgresql://h?ssl=swordfish", UrlError::Ssl),
        ] {
            let error = ConnectionUrl::parse(text).err();
            assert_eq!(error.as_ref(), Some(&expected), "{text}");
            assert!(!error.unwrap().to_string().contains("swordfish"), "{text}");
        }
        let error = ConnectionUrl::parse("postgresql://h?sslmod=x").err().unwrap();
        assert_eq!(
            error.to_string(),
            "unknown parameter `sslmod`; did you mean `sslmode`?"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(postgres(ql)?://)?[a-z0-9%:@/?&=,\\[\\]é\u{0}]{0,40}|\\PC{0,60}") {
            let _ = ConnectionUrl::parse(&text);
        }

        #[test]
        fn what_was_escaped_comes_back(user in "\\PC{1,12}", password in "\\PC{1,12}", database in "\\PC{1,12}") {
            let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            let text = format!("postgresql://{}:{}@h/{}", escaped(&user), escaped(&password), escaped(&database));
            let url = ConnectionUrl::parse(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(url.get("user"), Some(user.as_str()));
            prop_assert_eq!(url.get("password"), Some(password.as_str()));
            prop_assert_eq!(url.get("database"), Some(database.as_str()));
        }
    }
}
