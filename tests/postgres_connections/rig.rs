//! Servers with certificates, profiles for them, and what came of connecting.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use socket_el::config::{Profiles, Variables};
use socket_el::private_postgres::{Options, PrivatePostgres};
use socket_el::producer::Producer as _;
use socket_el::producer::postgres::{PostgresOptions, PostgresProducer, Target};
use tempfile::TempDir;

/// A certificate and its key, in PEM.
pub(crate) struct Made {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// An authority of one test.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "socket-el test authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these alternative names, with this common name, changed as is wanted.
    pub(crate) fn issue(
        &self,
        names: &[&str],
        common: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Made {
        let key = KeyPair::generate().unwrap();
        let cert = params(names, common, change)
            .signed_by(&key, &self.issuer)
            .unwrap()
            .pem();
        Made {
            cert,
            key: key.serialize_pem(),
        }
    }
}

/// One that signs itself.
pub(crate) fn self_signed(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Made {
    let key = KeyPair::generate().unwrap();
    let cert = params(names, "myself", change).self_signed(&key).unwrap().pem();
    Made {
        cert,
        key: key.serialize_pem(),
    }
}

fn params(names: &[&str], common: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common);
    change(&mut params);
    params
}

/// A server with this certificate; without one it has no TLS.
pub(crate) fn server(made: Option<&Made>, settings: &[(&str, &str)], access: &[&str]) -> PrivatePostgres {
    server_with(made, settings, access, &[])
}

/// The same, with more files in its data directory.
pub(crate) fn server_with(
    made: Option<&Made>,
    settings: &[(&str, &str)],
    access: &[&str],
    more: &[(&str, &str)],
) -> PrivatePostgres {
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let (mut settings, mut files) = (owned(settings), owned(more));
    if let Some(made) = made {
        settings.insert("ssl".to_owned(), "on".to_owned());
        files.insert("server.crt".to_owned(), made.cert.clone());
        files.insert("server.key".to_owned(), made.key.clone());
    }
    let options = Options {
        fsync: false,
        settings,
        files,
        access: access.iter().map(|line| (*line).to_owned()).collect(),
    };
    PrivatePostgres::start(&options).unwrap_or_else(|error| panic!("{error}"))
}

/// A home directory, and the files in it.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// What `check --connect` says with a profile of these keys.
    pub(crate) async fn probe(&self, keys: &str) -> Result<String, String> {
        let file = self.file("profile.yml", &format!("main:\n{keys}"));
        let variables = Variables::fixed([("HOME", self.path().to_str().unwrap())]);
        let profiles = Profiles::locate(Some(&file), &variables);
        let profile = profiles
            .get("main")
            .map_err(|error| format!("{error}: {:?}", profiles.mistakes()))?;
        let target = Target::of_profile(profile, "postgres");
        let producer = PostgresProducer::new(target, PostgresOptions::default());
        let lines = producer.probe(&[]).await?;
        Ok(lines.join("\n"))
    }
}

/// The keys with which the superuser of a server logs in.
pub(crate) fn login(server: &PrivatePostgres, host: &str) -> String {
    format!(
        "  user: {}\n  password: {}\n  database: postgres\n  host: {host}\n  port: {}\n",
        server.superuser(),
        server.password(),
        server.port()
    )
}
