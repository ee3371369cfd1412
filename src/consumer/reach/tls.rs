//! TLS to a feed: which authorities are trusted, and who the client says it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::system_roots::system_roots;

/// The section `tls`.
#[derive(Clone, Debug, Default)]
pub(in crate::consumer) struct TlsFiles {
    /// Authorities to trust instead of the system's.
    pub(in crate::consumer) ca_file: Option<PathBuf>,
    /// The client's certificate chain.
    pub(in crate::consumer) cert_file: Option<PathBuf>,
    /// Its key.
    pub(in crate::consumer) key_file: Option<PathBuf>,
}

/// What is wrong with the files, and the key of the section that it is about.
#[derive(Debug, thiserror::Error)]
pub(in crate::consumer) enum TlsError {
    #[error("can't read {}: {source}; it must be a PEM file that the engine's user may read", .path.display())]
    Unreadable {
        key: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    #[error("{} holds no certificate (a PEM block that begins with -----BEGIN CERTIFICATE-----)", .path.display())]
    NoCertificate { key: &'static str, path: PathBuf },
    #[error("the certificate or key is not usable: {source}")]
    Unusable {
        key: &'static str,
        source: rustls::Error,
    },
    #[error("needs {missing} beside it: a certificate and its key come together")]
    HalfIdentity {
        key: &'static str,
        missing: &'static str,
    },
    #[error(
        "this system has no certificates of authorities; install them (package ca-certificates), or name a file with ca_file"
    )]
    NoSystemRoots,
}

impl TlsError {
    /// The key of the section `tls` that the error is about.
    pub(in crate::consumer) fn key(&self) -> &'static str {
        match self {
            Self::Unreadable { key, .. }
            | Self::NoCertificate { key, .. }
            | Self::Unusable { key, .. }
            | Self::HalfIdentity { key, .. } => key,
            Self::NoSystemRoots => "ca_file",
        }
    }
}

/// Reads the files into what a connection needs.
pub(in crate::consumer) fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &files.ca_file {
        Some(path) => roots_of(path)?,
        None => system_roots().ok_or(TlsError::NoSystemRoots)?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable {
            key: "ca_file",
            source,
        })?
        .with_root_certificates(roots);
    let config = match (&files.cert_file, &files.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => {
            return Err(TlsError::HalfIdentity {
                key: "cert_file",
                missing: "key_file",
            });
        }
        (None, Some(_)) => {
            return Err(TlsError::HalfIdentity {
                key: "key_file",
                missing: "cert_file",
            });
        }
        (Some(cert_file), Some(key_file)) => {
            let chain = certificates("cert_file", cert_file)?;
            let key = PrivateKeyDer::from_pem_file(key_file).map_err(|source| TlsError::Unreadable {
                key: "key_file",
                path: key_file.clone(),
                source,
            })?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsError::Unusable {
                    key: "cert_file",
                    source,
                })?
        }
    };
    Ok(Arc::new(config))
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca_file", path)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable {
            key: "ca_file",
            source,
        })?;
    }
    Ok(roots)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        key,
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            key,
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_empty_or_half_of_a_pair_are_named_with_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.pem");
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let with_ca = |path: &Path| TlsFiles {
            ca_file: Some(path.to_owned()),
            ..TlsFiles::default()
        };
        for path in [&missing, &empty] {
            let error = client_config(&with_ca(path)).unwrap_err();
            assert_eq!(error.key(), "ca_file");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }

        let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let good = folder.path().join("good.pem");
        std::fs::write(&good, authority.cert.pem()).unwrap();
        assert!(client_config(&with_ca(&good)).is_ok());
        let half = TlsFiles {
            cert_file: Some(good.clone()),
            ..with_ca(&good)
        };
        let error = client_config(&half).unwrap_err();
        assert_eq!(error.key(), "cert_file");
        assert!(error.to_string().contains("key_file"), "{error}");
    }
}
