//! Answers that say nothing of their length and end with their connection.

use tokio::io::AsyncWriteExt;

use super::failures::told;
use super::support::{RawServer, Running, acceptor, read_request, settings};

const HEAD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn over_tls_one_that_is_cut_is_a_failed_poll_for_the_session_has_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    let acceptor = acceptor(&authority);
    let server = RawServer::listen().await;
    let uri = server.uri().replace("http://127.0.0.1", "https://localhost");
    let keys = format!("interval: 100ms\ntls: {{ ca_file: {} }}", authority.display());
    let consumer = Running::start(settings(&uri, &keys));
    for (body, is_whole) in [("first", true), ("cu", false), ("last", true)] {
        let mut tls = acceptor.accept(server.accept().await).await.unwrap();
        read_request(&mut tls).await;
        tls.write_all(format!("{HEAD}{body}").as_bytes()).await.unwrap();
        tls.flush().await.unwrap();
        if is_whole {
            tls.shutdown().await.unwrap();
        }
    }
    consumer.stage.messages_reach(2).await;
    let (stage, _) = consumer.stop().await;
    let told = told(stage.entries());
    assert!(
        told.len() == 3 && told[1].contains("ended before the whole answer"),
        "{told:?}"
    );
    assert_eq!((told[0].as_str(), told[2].as_str()), ("first", "last"));
}

#[tokio::test(start_paused = true)]
async fn without_tls_only_records_tell_that_one_is_cut() {
    let cut = format!("{HEAD}[1,2");
    let server = RawServer::listen().await;
    let consumer = Running::start(settings(&server.uri(), "records: $"));
    for answer in [&cut, &format!("{HEAD}[3]")] {
        server.answer(answer).await;
    }
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(stage.payloads(), [b"3"]);

    let consumer = Running::start(settings(&server.uri(), ""));
    server.answer(&cut).await;
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(stage.payloads(), [b"[1,2"]);
}
