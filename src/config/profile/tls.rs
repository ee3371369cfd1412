//! Whether a connection to the database is encrypted, and whom it trusts: `sslmode` and the files beside it, with the
//! meanings that libpq gives them.
//!
//! Files are looked at when the profile is read, so that mistakes have their place, and read again for each connection, so
//! that a renewed certificate needs no restart.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::file::read_text;
use crate::config::variables::Variables;

use super::source::Source;

/// Places in the home directory, the same as libpq's.
const USUAL_ROOTS: &str = ".postgresql/root.crt";
const USUAL_CERTIFICATE: &str = ".postgresql/postgresql.crt";
const USUAL_KEY: &str = ".postgresql/postgresql.key";
/// In `sslrootcert`: the authorities that the system trusts.
const SYSTEM: &str = "system";

/// How much TLS there has to be, in libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only when the server refuses without.
    Allow,
    /// When the server has it; else without.
    Prefer,
    /// Always; whoever the server is, unless authorities are given.
    Require,
    /// Always, and the server's certificate comes from a trusted authority.
    VerifyCa,
    /// Always, and the certificate is also for the host that was asked for.
    VerifyFull,
}

impl SslMode {
    const ALL: [Self; 6] = [
        Self::Disable,
        Self::Allow,
        Self::Prefer,
        Self::Require,
        Self::VerifyCa,
        Self::VerifyFull,
    ];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// Whether SCRAM authentication is tied to the server's certificate, so that nobody in between can pass it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When the server offers it.
    Prefer,
    /// Always: a server without it, or without TLS, gets no password.
    Require,
}

/// Authorities that server certificates may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Any: certificates are not checked.
    Unchecked,
    /// Those in a PEM file.
    File(PathBuf),
    /// Those of the system.
    System,
}

/// What of a server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Nothing: only who listens is kept out.
    Nothing,
    /// That it comes from a trusted authority.
    Authority,
    /// And that it is for the host.
    AuthorityAndHost,
}

/// The client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// A PEM file with the certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// A PEM file with its private key.
    pub key: PathBuf,
}

/// The TLS side of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// How much TLS there has to be.
    pub mode: SslMode,
    /// Whom certificates may come from.
    pub roots: Roots,
    /// Who the client is.
    pub identity: Option<ClientIdentity>,
}

/// What the files held. No `Debug`: one of them is a private key.
pub struct TlsFiles {
    /// The authorities of [`Roots::File`].
    pub roots: Vec<CertificateDer<'static>>,
    /// The client's chain and key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct TlsFileError {
    /// The key of the profile that names it.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub message: String,
}

impl TlsSettings {
    /// No TLS at all.
    pub const NONE: Self = Self {
        mode: SslMode::Disable,
        roots: Roots::Unchecked,
        identity: None,
    };

    /// What is checked of a server's certificate. As in libpq, authorities that are given are always used: with them
    /// `require` and weaker modes check what `verify-ca` does.
    #[must_use]
    pub fn verification(&self) -> Verification {
        match (self.mode, &self.roots) {
            (SslMode::VerifyFull, _) => Verification::AuthorityAndHost,
            (SslMode::VerifyCa, _) | (_, Roots::File(_) | Roots::System) => Verification::Authority,
            (_, Roots::Unchecked) => Verification::Nothing,
        }
    }

    /// Reads the files as they are now.
    ///
    /// # Errors
    /// With the first file that can't be used.
    pub fn read_files(&self) -> Result<TlsFiles, TlsFileError> {
        let roots = match &self.roots {
            Roots::File(path) => certificates("sslrootcert", path)?,
            Roots::Unchecked | Roots::System => Vec::new(),
        };
        let identity = match &self.identity {
            Some(identity) => Some((
                certificates("sslcert", &identity.certificate)?,
                private_key(&identity.key)?,
            )),
            None => None,
        };
        Ok(TlsFiles { roots, identity })
    }

    /// Reads the keys, and looks at the files.
    pub(super) fn read(source: &mut Source<'_, '_>, variables: &Variables) -> Option<Self> {
        let home = variables.get("HOME").map(PathBuf::from);
        let usual = |place: &str| {
            home.as_ref()
                .map(|home| home.join(place))
                .filter(|path| path.exists())
        };
        let given_mode = source.one_of("sslmode", &SslMode::ALL.map(|mode| (mode.name(), mode)));
        let mut path = |key| source.text(key).filter(|path| !path.is_empty());
        let (root, cert, key) = (path("sslrootcert"), path("sslcert"), path("sslkey"));

        let from_system = root.as_deref() == Some(SYSTEM);
        let mode = given_mode.unwrap_or(if from_system {
            SslMode::VerifyFull
        } else {
            SslMode::Prefer
        });
        if from_system && mode != SslMode::VerifyFull {
            source.problem(
                "sslmode",
                "must be verify-full with `sslrootcert: system`: with so many authorities, anybody could get some certificate",
            );
            return None;
        }
        let roots = match root.map(PathBuf::from).or_else(|| usual(USUAL_ROOTS)) {
            Some(_) if from_system => Roots::System,
            Some(path) => Roots::File(path),
            None if mode.verifies() => {
                source.problem(
                    "sslmode",
                    &format!(
                        "{} needs to know whom to trust: give `sslrootcert`, a file or `system`; there is no ~/{USUAL_ROOTS} either",
                        mode.name()
                    ),
                );
                return None;
            }
            None => Roots::Unchecked,
        };
        let identity = match (
            cert.map(PathBuf::from).or_else(|| usual(USUAL_CERTIFICATE)),
            key.map(PathBuf::from),
        ) {
            (Some(certificate), key) => {
                let Some(key) = key.or_else(|| usual(USUAL_KEY)) else {
                    source.problem(
                        "sslkey",
                        "is missing: a certificate is of no use without its private key",
                    );
                    return None;
                };
                Some(ClientIdentity { certificate, key })
            }
            (None, Some(_)) => {
                source.problem(
                    "sslkey",
                    "needs `sslcert` beside it: a certificate and its key come together",
                );
                return None;
            }
            (None, None) => None,
        };
        let settings = Self {
            mode,
            roots,
            identity,
        };
        if mode != SslMode::Disable
            && let Err(error) = settings.read_files()
        {
            source.problem(error.key, &error.to_string());
            return None;
        }
        Some(settings)
    }
}

impl ChannelBinding {
    pub(super) fn read(source: &mut Source<'_, '_>) -> Self {
        let known = [
            ("disable", Self::Disable),
            ("prefer", Self::Prefer),
            ("require", Self::Require),
        ];
        source.one_of("channel_binding", &known).unwrap_or(Self::Prefer)
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let error = |message: String| TlsFileError {
        key,
        path: path.to_owned(),
        message,
    };
    let text = read_text(path).map_err(|cause| error(cause.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| error("is not a PEM file".to_owned()))?;
    if certificates.is_empty() {
        return Err(error(
            "holds no certificate (a block that begins with -----BEGIN CERTIFICATE-----)".to_owned(),
        ));
    }
    Ok(certificates)
}

/// Only what libpq takes, too: a plain file that nobody else can read, or that root lends to a group.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    let error = |message: String| TlsFileError {
        key: "sslkey",
        path: path.to_owned(),
        message,
    };
    let found = fs::metadata(path).map_err(|cause: io::Error| error(format!("can't be read: {cause}")))?;
    if !found.is_file() {
        return Err(error("is not a plain file".to_owned()));
    }
    let forbidden = if found.uid() == 0 { 0o037 } else { 0o077 };
    if found.mode() & forbidden != 0 {
        return Err(error(format!(
            "others can get at the private key (mode {:04o}); run: chmod 600 {}",
            found.mode() & 0o7777,
            path.display()
        )));
    }
    let text = read_text(path).map_err(|cause| error(cause.to_string()))?;
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(error(
            "is encrypted, and there is nobody to ask for its passphrase; write it without one: openssl pkey -in … -out …"
                .to_owned(),
        ));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| error("holds no private key in PEM (PKCS#8, PKCS#1 or SEC1)".to_owned()))
}
