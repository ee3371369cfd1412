//! The authorities that this system trusts, for feeds and databases alike.

use rustls::RootCertStore;

/// The system's authorities; `None` when there is none that can be used.
pub(crate) fn system_roots() -> Option<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry the odd certificate that is no longer parsed; the others are as good without it.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    (usable > 0).then_some(roots)
}
