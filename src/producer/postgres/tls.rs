//! TLS to the database, by rustls: what is checked of the server's certificate, and who the client says it is.
//!
//! rustls checks certificates as browsers do; libpq asks for less, and its users have certificates to match. So the verifier here
//! is our own: nothing, the authority, or authority and host, as `sslmode` says. That the server holds its
//! certificate's key is checked always: a handshake whose signature is wrong fails in every mode. Three things are accepted
//! as libpq accepts them: a self-signed certificate that is itself the root, a host that stands in the common name for want of an
//! alternative name, and, where nothing is checked, certificates of X.509 version 1.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::{Roots, TlsFileError, TlsSettings, Verification};
use crate::system_roots::system_roots;

/// Why there can be no TLS, whoever the server is.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("{}: {file}", file.key)]
    File {
        #[from]
        file: TlsFileError,
    },
    #[error("sslrootcert: a certificate in the file is not usable: {0}")]
    Root(#[source] Error),
    #[error("sslcert, sslkey: not usable together: {0}")]
    Identity(#[source] Error),
    #[error(
        "sslrootcert: this system has no certificates of authorities; install them (package ca-certificates), or name a file"
    )]
    NoSystemRoots,
    #[error("TLS can't be set up: {0}")]
    Setup(#[source] Error),
}

/// What came of the handshake of one connection.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    begun: AtomicBool,
    version: OnceLock<&'static str>,
}

impl Handshake {
    /// The protocol, once the server has proved who it is.
    pub(super) fn version(&self) -> Option<&'static str> {
        self.version.get().copied()
    }

    /// The server has agreed to TLS, and then it did not come about.
    pub(super) fn failed(&self) -> bool {
        self.begun.load(Ordering::Relaxed) && self.version().is_none()
    }
}

/// Makes the TLS of one connection.
pub(super) struct Connector {
    inner: MakeRustlsConnect,
    handshake: Arc<Handshake>,
}

impl Connector {
    /// Reads the files of the settings as they are now.
    pub(super) fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let files = settings.read_files()?;
        let mut roots = RootCertStore::empty();
        if settings.roots == Roots::System {
            roots = system_roots().ok_or(TlsError::NoSystemRoots)?;
        }
        for root in &files.roots {
            roots.add(root.clone()).map_err(TlsError::Root)?;
        }
        let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
        let handshake = Arc::new(Handshake::default());
        let verifier = Verifier {
            verification: settings.verification(),
            roots,
            pinned: files.roots,
            supported: provider.signature_verification_algorithms,
            handshake: Arc::clone(&handshake),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match files.identity {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(TlsError::Identity)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            inner: MakeRustlsConnect::new(config),
            handshake,
        })
    }

    /// What will have come of the handshake.
    pub(super) fn handshake(&self) -> Arc<Handshake> {
        Arc::clone(&self.handshake)
    }
}

impl<S> MakeTlsConnect<S> for Connector
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = Noting<<MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect>;
    type Error = <MakeRustlsConnect as MakeTlsConnect<S>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        Ok(Noting {
            inner: self.inner.make_tls_connect(host)?,
            handshake: Arc::clone(&self.handshake),
        })
    }
}

/// Notes that a handshake begins: the client library does so only if the server has agreed to TLS.
pub(super) struct Noting<C> {
    inner: C,
    handshake: Arc<Handshake>,
}

impl<S, C: TlsConnect<S>> TlsConnect<S> for Noting<C> {
    type Stream = C::Stream;
    type Error = C::Error;
    type Future = C::Future;

    fn connect(self, stream: S) -> Self::Future {
        self.handshake.begun.store(true, Ordering::Relaxed);
        self.inner.connect(stream)
    }
}

#[derive(Debug)]
struct Verifier {
    verification: Verification,
    roots: RootCertStore,
    /// The roots of the file once more, as they stand there.
    pinned: Vec<CertificateDer<'static>>,
    supported: WebPkiSupportedAlgorithms,
    handshake: Arc<Handshake>,
}

impl Verifier {
    fn check_authority(
        &self,
        server: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.pinned.contains(server)
            && let Ok(certificate) = Certificate::from_der(server)
            && certificate.tbs_certificate.issuer == certificate.tbs_certificate.subject
        {
            return check_dates(&certificate, now);
        }
        let parsed = ParsedCertificate::try_from(server)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, between, now, self.supported.all)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.verification {
            Verification::Nothing => {}
            Verification::Authority => self.check_authority(server, between, now)?,
            Verification::AuthorityAndHost => {
                self.check_authority(server, between, now)?;
                check_host(server, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = match OldKey::of(server) {
            Some(key) => key.verify_tls12(message, signed, &self.supported)?,
            None => verify_tls12_signature(message, server, signed, &self.supported)?,
        };
        let _ = self.handshake.version.set("TLS 1.2");
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = match OldKey::of(server) {
            Some(key) => verify_tls13_signature_with_raw_key(
                message,
                &SubjectPublicKeyInfoDer::from(key.info.as_slice()),
                signed,
                &self.supported,
            )?,
            None => verify_tls13_signature(message, server, signed, &self.supported)?,
        };
        let _ = self.handshake.version.set("TLS 1.3");
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.supported.supported_schemes()
    }
}

/// The public key of a certificate older than X.509 version 3, which rustls would not look at; `openssl x509 -req`, as in
/// PostgreSQL's own documentation, makes such ones.
struct OldKey {
    /// The whole SubjectPublicKeyInfo.
    info: Vec<u8>,
    /// The contents of its AlgorithmIdentifier.
    algorithm: Vec<u8>,
    key: Vec<u8>,
}

impl OldKey {
    fn of(server: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(server).ok()?.tbs_certificate;
        if certificate.version == Version::V3 {
            return None;
        }
        let info = certificate.subject_public_key_info;
        // Without its tag and length, which take a byte each.
        let algorithm = info.algorithm.to_der().ok()?.get(2..)?.to_vec();
        Some(Self {
            info: info.to_der().ok()?,
            algorithm,
            key: info.subject_public_key.as_bytes()?.to_vec(),
        })
    }

    fn verify_tls12(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        supported: &WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, Error> {
        supported
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == signed.scheme)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .find(|algorithm| algorithm.public_key_alg_id().as_ref() == self.algorithm)
            .and_then(|algorithm| {
                algorithm
                    .verify_signature(&self.key, message, signed.signature())
                    .ok()
            })
            .map(|()| HandshakeSignatureValid::assertion())
            .ok_or(Error::InvalidCertificate(CertificateError::BadSignature))
    }
}

fn check_dates(certificate: &Certificate, now: UnixTime) -> Result<(), Error> {
    let validity = &certificate.tbs_certificate.validity;
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now > validity.not_after.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

/// By the alternative names; where there is none of the kind, by the first common name.
fn check_host(server: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let by_alternative_names =
        || ParsedCertificate::try_from(server).and_then(|parsed| verify_server_name(&parsed, name));
    let Ok(certificate) = Certificate::from_der(server) else {
        return by_alternative_names();
    };
    let alternative: Option<SubjectAltName> = match certificate.tbs_certificate.get() {
        Ok(found) => found.map(|(_, names)| names),
        Err(_) => return by_alternative_names(),
    };
    let of_the_kind = |one: &GeneralName| match name {
        ServerName::IpAddress(_) => matches!(one, GeneralName::IpAddress(_)),
        _ => matches!(one, GeneralName::DnsName(_)),
    };
    if alternative.is_some_and(|names| names.0.iter().any(of_the_kind)) {
        return by_alternative_names();
    }
    let refused = Error::InvalidCertificate(CertificateError::NotValidForName);
    match common_name(&certificate) {
        Some(common) if name_matches(&common, &name.to_str()) => Ok(()),
        _ => Err(refused),
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    const COMMON_NAME: &str = "2.5.4.3";
    let attributes = certificate
        .tbs_certificate
        .subject
        .0
        .iter()
        .flat_map(|part| part.0.iter());
    let mut common = attributes.filter(|attribute| attribute.oid.to_string() == COMMON_NAME);
    String::from_utf8(common.next()?.value.value().to_vec()).ok()
}

/// A pattern may begin with `*.`, which stands for one label.
fn name_matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.to_ascii_lowercase());
    match pattern.strip_prefix("*.") {
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, host, matches) in [
            ("db.example", "DB.example", true),
            ("*.example", "db.example", true),
            ("*.example", "a.db.example", false),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*", "db", false),
            ("", "db", false),
        ] {
            assert_eq!(name_matches(pattern, host), matches, "{pattern} {host}");
        }
    }
}
