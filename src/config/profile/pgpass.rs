//! The password file of PostgreSQL's own programs: `PGPASSFILE`, else `~/.pgpass`, read by libpq's rules.
//!
//! A line is `host:port:database:user:password`; each of the first four may be `*`, and `\` makes the next character
//! ordinary. The first line that matches counts. A file that others can read is ignored with a warning.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::file::read_text;
use crate::config::secret::Secret;
use crate::config::variables::Variables;

use super::host::{Host, Server};

/// Names a password file in place of the usual one.
const FILE_VARIABLE: &str = "PGPASSFILE";
/// The usual password file in the home directory.
const USUAL_FILE: &str = ".pgpass";
/// Where servers put their sockets by default; in a password file these go by the name `localhost`.
const DEFAULT_SOCKET_DIRECTORIES: [&str; 3] = ["/tmp", "/run/postgresql", "/var/run/postgresql"];

/// A password file that was found and may be used.
pub(super) struct PasswordFile {
    text: String,
}

impl PasswordFile {
    /// The file, if there is one. What is wrong with it is a warning, as for libpq: the server may ask for no password.
    pub(super) fn find(variables: &Variables, warnings: &mut Vec<String>) -> Option<Self> {
        let filled = |name| variables.get(name).filter(|value| !value.is_empty());
        let path = filled(FILE_VARIABLE)
            .map(PathBuf::from)
            .or_else(|| filled("HOME").map(|home| Path::new(&home).join(USUAL_FILE)))?;
        let found = fs::metadata(&path).ok()?;
        let mode = found.permissions().mode() & 0o7777;
        let shown = path.display();
        if !found.is_file() {
            warnings.push(format!(
                "the password file {shown} is ignored: it is not a plain file"
            ));
            return None;
        }
        if mode & 0o077 != 0 {
            warnings.push(format!(
                "the password file {shown} is ignored, for others can get at it (mode {mode:04o}); run: chmod 600 {shown}"
            ));
            return None;
        }
        match read_text(&path) {
            Ok(text) => Some(Self { text }),
            Err(error) => {
                warnings.push(format!("the password file {shown} is ignored: it {error}"));
                None
            }
        }
    }

    /// The password of the first line that is about this server, database and user.
    pub(super) fn password(&self, server: &Server, database: &str, user: &str) -> Option<Secret> {
        let port = server.port.to_string();
        let names: Vec<String> = match &server.host {
            Host::Tcp(name) => vec![name.clone()],
            Host::UnixDirectory(path) => {
                let path = path.to_string_lossy().into_owned();
                if DEFAULT_SOCKET_DIRECTORIES.contains(&path.as_str()) {
                    vec!["localhost".to_owned(), path]
                } else {
                    vec![path]
                }
            }
        };
        self.text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| {
                let rest = names.iter().find_map(|name| after_match(line, name))?;
                let rest = after_match(rest, &port)?;
                let rest = after_match(rest, database)?;
                let password = unescaped(after_match(rest, user)?);
                (!password.is_empty()).then(|| Secret::new(password))
            })
    }
}

/// What follows the first field of `line` and its colon, if the field stands for `wanted`.
fn after_match<'l>(line: &'l str, wanted: &str) -> Option<&'l str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let (mut field, mut wanted) = (line.chars(), wanted.chars());
    loop {
        match (field.next()?, wanted.next()) {
            (':', None) => return Some(field.as_str()),
            ('\\', Some(wanted)) if field.next()? == wanted => {}
            (one, Some(wanted)) if one == wanted && one != '\\' => {}
            _ => return None,
        }
    }
}

/// The password: up to the next colon, without its escapes.
fn unescaped(text: &str) -> String {
    let mut password = String::new();
    let mut characters = text.chars();
    while let Some(one) = characters.next() {
        match one {
            ':' => break,
            '\\' => password.push(characters.next().unwrap_or('\\')),
            other => password.push(other),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};

    use super::*;

    fn found(text: &str, host: &str) -> Option<String> {
        let server = Server {
            host: Host::of(host),
            port: 5432,
            password: None,
        };
        let file = PasswordFile {
            text: text.to_owned(),
        };
        let password = file.password(&server, "d:b", "me")?;
        Some(password.expose().to_owned())
    }

    #[test]
    fn lines_match_by_the_rules_of_libpq() {
        for (text, host, expected) in [
            ("db:5432:d\\:b:me:secret", "db", Some("secret")),
            ("db:5432:*:me:secret", "db", Some("secret")),
            ("*:*:*:*:secret", "db", Some("secret")),
            ("*:*:*:*:secret\r\n", "db", Some("secret")),
            ("#*:*:*:*:no\n*:*:*:*:yes", "db", Some("yes")),
            ("other:*:*:*:no\ndb:*:*:*:yes\n*:*:*:*:later", "db", Some("yes")),
            ("db:5433:*:*:no", "db", None),
            ("d*:*:*:*:no", "db", None),
            ("dbx:*:*:*:no", "db", None),
            ("d:*:*:*:no", "db", None),
            ("db:*:*:you:no", "db", None),
            ("db:*:d:b:me:as in libpq", "db", Some("as in libpq")),
            (
                "db:*:*:*:with\\:colon\\\\and more:rest",
                "db",
                Some("with:colon\\and more"),
            ),
            ("db:*:*:*:ends\\", "db", Some("ends\\")),
            ("db:*:*:*:", "db", None),
            ("db:*:*:*", "db", None),
            ("d\\b:*:*:*:plain", "db", Some("plain")),
            ("\\:\\:1:*:*:*:six", "::1", Some("six")),
            ("localhost:*:*:*:socket", "/var/run/postgresql", Some("socket")),
            (
                "/var/run/postgresql:*:*:*:socket",
                "/var/run/postgresql",
                Some("socket"),
            ),
            ("localhost:*:*:*:no", "/srv/sockets", None),
            ("/srv/sockets:*:*:*:path", "/srv/sockets", Some("path")),
            ("localhost:*:*:*:no", "127.0.0.1", None),
            ("", "db", None),
        ] {
            assert_eq!(found(text, host).as_deref(), expected, "{text:?} for {host}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored_with_a_warning() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(USUAL_FILE);
        fs::write(&path, "*:*:*:*:secret").unwrap();
        let variables = Variables::fixed([("HOME", home.path().to_str().unwrap())]);
        for (mode, used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let mut warnings = Vec::new();
            assert_eq!(
                PasswordFile::find(&variables, &mut warnings).is_some(),
                used,
                "{mode:o}"
            );
            assert_eq!(warnings.is_empty(), used, "{warnings:?}");
        }
        let elsewhere = Variables::fixed([
            ("HOME", home.path().to_str().unwrap()),
            (FILE_VARIABLE, "/nonexistent/pgpass"),
        ]);
        let mut warnings = Vec::new();
        assert!(PasswordFile::find(&elsewhere, &mut warnings).is_none());
        assert_eq!(warnings, Vec::<String>::new());
    }
}
