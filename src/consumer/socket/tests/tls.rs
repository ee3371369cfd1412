//! wss with authorities made for the test.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{accept_async, accept_hdr_async};

use super::super::settings::Settings;
use super::super::trial::Trial;
use super::support::{HeldClock, Log, Running, Server, connect, settings};
use crate::config::{Section, Variables};
use crate::consumer::memory_stage::Durability;
use crate::consumer::reach::tls::{TlsFiles, client_config};
use crate::stats::ConsumerState;

/// A certificate that is its own authority, and its files.
struct Identity {
    signed: rcgen::CertifiedKey<rcgen::KeyPair>,
    cert_file: PathBuf,
    key_file: PathBuf,
}

impl Identity {
    fn make(folder: &tempfile::TempDir, name: &str) -> Self {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let cert_file = folder.path().join(format!("{name}.pem"));
        let key_file = folder.path().join(format!("{name}.key"));
        std::fs::write(&cert_file, signed.cert.pem()).unwrap();
        std::fs::write(&key_file, signed.signing_key.serialize_pem()).unwrap();
        Self {
            signed,
            cert_file,
            key_file,
        }
    }

    fn acceptor(&self, clients: Option<&Identity>) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(clients.signed.cert.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.signed.signing_key.serialize_der()));
        let config = builder
            .with_single_cert(vec![self.signed.cert.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Settings for this server by its name in the certificate.
fn secure(server: &Server, files: &TlsFiles) -> Settings {
    let port = server.listener.local_addr().unwrap().port();
    let mut settings = settings(&format!("wss://localhost:{port}/"));
    settings.routes[0].tls = Some(client_config(files).unwrap());
    settings
}

#[tokio::test]
async fn a_server_whose_authority_is_in_ca_file_is_trusted_and_gets_the_clients_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Identity::make(&folder, "ours"), Identity::make(&folder, "theirs"));
    let server = Server::listen().await;
    let files = TlsFiles {
        ca_file: Some(theirs.cert_file.clone()),
        cert_file: Some(ours.cert_file.clone()),
        key_file: Some(ours.key_file.clone()),
    };
    let consumer = Running::start(secure(&server, &files), Durability::Immediate);
    let tls = theirs
        .acceptor(Some(&ours))
        .accept(server.accept_tcp().await)
        .await
        .unwrap();
    let mut socket = accept_async(tls).await.unwrap();
    socket.send(Message::Text("in confidence".into())).await.unwrap();
    consumer.stage.messages_reach(1).await;
    assert_eq!(consumer.stage.payloads(), [b"in confidence"]);
    drop(socket);
    consumer.stop().await;
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (other, theirs) = (
        Identity::make(&folder, "other"),
        Identity::make(&folder, "theirs"),
    );
    let server = Server::listen().await;
    let files = TlsFiles {
        ca_file: Some(other.cert_file),
        ..TlsFiles::default()
    };
    let settings = secure(&server, &files);
    let (refused, accepted) = tokio::join!(connect(&settings), async {
        theirs.acceptor(None).accept(server.accept_tcp().await).await
    });
    assert!(accepted.is_err());
    let said = refused.err().unwrap().to_string();
    assert!(
        said.contains("not trusted") && said.contains("tls.ca_file"),
        "{said}"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_said_to_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = Identity::make(&folder, "theirs");
    let server = Server::listen().await;
    let files = TlsFiles {
        ca_file: Some(theirs.cert_file),
        ..TlsFiles::default()
    };
    let settings = secure(&server, &files);
    let (refused, ()) = tokio::join!(connect(&settings), async {
        let mut tcp = server.accept_tcp().await;
        let mut first = [0; 1];
        tcp.read_exact(&mut first).await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let said = refused.err().unwrap().to_string();
    assert!(said.contains("TLS failed"), "{said}");
}

#[tokio::test]
async fn a_trial_tells_what_was_agreed_on_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::make(&folder, "server");
    let server = Server::listen().await;
    let acceptor = identity.acceptor(None);
    let port = server.listener.local_addr().unwrap().port();
    let keys = format!(
        "uri: wss://localhost:{port}/\nsubprotocols: [v1.json, v2.json]\ntls: {{ ca_file: {} }}",
        identity.cert_file.display()
    );
    let trial = Section::read_text(&keys, &Variables::default(), Trial::read)
        .unwrap()
        .unwrap();
    let serving = async {
        let (tcp, _) = server.listener.accept().await.unwrap();
        let tls = acceptor.accept(tcp).await.unwrap();
        #[expect(clippy::result_large_err, reason = "the library's own type")]
        let choose = |request: &Request, mut response: Response| {
            assert_eq!(request.headers()["sec-websocket-protocol"], "v1.json, v2.json");
            response
                .headers_mut()
                .insert("sec-websocket-protocol", "v2.json".parse().unwrap());
            Ok(response)
        };
        accept_hdr_async(tls, choose).await.unwrap()
    };
    let (connected, _socket) = tokio::join!(trial.connect(), serving);
    let handshake = connected.unwrap().handshake;
    assert_eq!(
        (
            handshake.status,
            handshake.subprotocol.as_deref(),
            handshake.extensions
        ),
        (101, Some("v2.json"), None)
    );
    let tls = handshake.tls.unwrap();
    assert!(tls.starts_with("TLS 1.3, TLS13_"), "{tls}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_trusted_is_an_error_once_and_the_server_is_tried_rarely_until_it_has_a_good_one()
 {
    let clock = HeldClock::hold();
    let folder = tempfile::tempdir().unwrap();
    let (other, theirs) = (
        Identity::make(&folder, "other"),
        Identity::make(&folder, "theirs"),
    );
    let server = Server::listen().await;
    let files = TlsFiles {
        ca_file: Some(theirs.cert_file.clone()),
        ..TlsFiles::default()
    };
    let (log, _guard) = Log::capture();
    let consumer = Running::start_unbatched(secure(&server, &files));
    for attempt in 1..=3 {
        let tcp = server.accept_tcp().await;
        assert!(other.acceptor(None).accept(tcp).await.is_err());
        let why = consumer.state_is(ConsumerState::Waiting).await;
        assert!(why.contains("not trusted"), "{why}");
        clock.pass(Duration::from_secs(59)).await;
        assert_eq!(consumer.stats.attempts.get(), attempt);
        clock.pass(Duration::from_secs(62)).await;
    }
    let tls = theirs
        .acceptor(None)
        .accept(server.accept_tcp().await)
        .await
        .unwrap();
    let mut socket = accept_async(tls).await.unwrap();
    socket.send(Message::text("welcome")).await.unwrap();
    consumer.stage.messages_reach(1).await;
    consumer.state_is(ConsumerState::Live).await;
    drop(socket);
    let (stage, _) = consumer.stop().await;
    assert!(stage.outages().len() <= 1, "only for the end of the server");
    let log = log.text();
    assert_eq!(
        (log.matches("not trusted").count(), log.matches("ERROR").count()),
        (3, 1),
        "{log}"
    );
}
