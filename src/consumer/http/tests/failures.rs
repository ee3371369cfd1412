//! Servers that give no answer that can be staged: what is said, when they are asked again, and what stands in the stage.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::support::{RawServer, Running, Server, acceptor, settings};
use crate::consumer::captured_log::Log;
use crate::consumer::memory_stage::Entry;
use crate::stats::ConsumerState;

/// What stands in a stage, in order: messages, and the causes of outages.
pub(super) fn told(entries: Vec<Entry>) -> Vec<String> {
    let told = entries.into_iter().flat_map(|entry| match entry {
        Entry::Batch(batch) => batch
            .iter()
            .map(|message| String::from_utf8(message.payload.to_vec()).unwrap())
            .collect(),
        Entry::Outage(outage) => {
            assert!(outage.from <= outage.to);
            vec![format!("outage: {}", outage.cause)]
        }
    });
    told.collect()
}

/// Between two good answers there is this one: the failure is told and recorded as `said`, and nothing else is staged.
async fn fails(keys: &str, answer: &str, said: &str) {
    let server = RawServer::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings(&server.uri(), keys));
    server.answer_well(r#"{"data":[1]}"#).await;
    consumer.stage.messages_reach(1).await;
    server.answer(answer).await;
    let why = consumer.state_is(ConsumerState::Waiting).await;
    assert!(
        why.contains(said) && why.contains("; the next attempt after"),
        "{why}, not {said}"
    );
    server.answer_well(r#"{"data":[2]}"#).await;
    consumer.stage.messages_reach(2).await;
    let (stage, stats) = consumer.stop().await;
    let told = told(stage.entries());
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[1].starts_with("outage: ") && told[1].contains(said),
        "{told:?}"
    );
    assert_eq!((stats.attempts.get(), stats.gaps.get()), (3, 1));
    let log = log.text();
    assert_eq!(log.matches("poll failed").count(), 1, "one line for it: {log}");
    assert_eq!(log.matches("the source answers").count(), 2, "{log}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_status_is_told_once_and_is_a_stretch_between_the_good_answers_around_it() {
    for (status, said) in [
        ("401 Unauthorized", "credentials"),
        ("403 Forbidden", "forbids access"),
        ("404 Not Found", "at this path"),
        ("418 I'm a teapot", "no answer to a GET"),
        ("206 Partial Content", "no answer to a GET"),
        ("304 Not Modified", "HTTP 304"),
        ("429 Too Many Requests", "too many"),
        ("500 Internal Server Error", "trouble of its own"),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        fails("", &answer, said).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_what_was_asked_for_is_a_failed_poll_and_nothing_of_it_is_staged() {
    for (keys, rest, said) in [
        (
            "records: $",
            "Content-Length: 6\r\n\r\n<html>",
            "is no JSON (line 1, column 1)",
        ),
        (
            "records: $.data",
            "Content-Length: 14\r\n\r\n{\"data\":[1]} x",
            "is no JSON",
        ),
        (
            "records: $.data",
            "Content-Length: 2\r\n\r\n[]",
            "has nothing at $.data",
        ),
        (
            "max_answer_size: 16",
            "Content-Length: 17\r\n\r\n",
            "more than 16 bytes (max_answer_size)",
        ),
        (
            "max_answer_size: 16",
            "Transfer-Encoding: chunked\r\n\r\n9\r\n[1,2,3,4,\r\n8\r\n5,6,7,8,\r\n",
            "more than 16 bytes (max_answer_size)",
        ),
        (
            "",
            "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
            "compressed",
        ),
        (
            "",
            "Content-Length: 10\r\n\r\n[1,2",
            "ended before the whole answer",
        ),
        (
            "",
            "Transfer-Encoding: chunked\r\n\r\n5\r\n[1,2,\r\n",
            "ended before the whole answer",
        ),
    ] {
        fails(keys, &format!("HTTP/1.1 200 OK\r\n{rest}"), said).await;
    }
    fails("", "220 mail.example ESMTP\r\n\r\n", "no HTTP server").await;
    fails("", "", "ended before the whole answer").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_pieces_of_unknown_length_is_taken_whole() {
    let server = RawServer::listen().await;
    let consumer = Running::start(settings(&server.uri(), "records: $.data"));
    for body in [
        "Transfer-Encoding: chunked\r\n\r\n7\r\n{\"data\"\r\n4\r\n:[1,\r\n3\r\n2]}\r\n0\r\n\r\n",
        "Connection: close\r\n\r\n{\"data\":[3]}",
    ] {
        server.answer(&format!("HTTP/1.1 200 OK\r\n{body}")).await;
    }
    consumer.stage.messages_reach(3).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(told(stage.entries()).concat(), "123");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_given_up_after_timeout_before_and_in_its_answer() {
    let server = RawServer::listen().await;
    let consumer = Running::start(settings(&server.uri(), "timeout: 20s"));
    server.answer_well("good").await;
    let (mut hanging, mut begun) = (Vec::new(), Vec::new());
    for begin in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
        let mut tcp = server.asked().await;
        begun.push(Instant::now());
        tcp.write_all(begin.as_bytes()).await.unwrap();
        hanging.push(tcp);
    }
    server.answer_well("good").await;
    begun.push(Instant::now());
    consumer.stage.messages_reach(2).await;
    let apart: Vec<u64> = begun
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    assert_eq!(apart, [20, 20], "seconds");
    let (stage, _) = consumer.stop().await;
    let told = told(stage.entries());
    assert_eq!(told.len(), 3, "{told:?}");
    let said = "no whole answer within 20 s (timeout)";
    assert_eq!(told[1], format!("outage: {said}; then: {said}"));
}

#[tokio::test(start_paused = true)]
async fn a_redirection_is_not_followed_and_what_only_an_operator_can_mend_is_an_error_once() {
    let mut elsewhere = Server::listen().await;
    let mut server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let consumer = Running::start(settings(&server.uri(), ""));
    let begun = Instant::now();
    let location = elsewhere.uri();
    for _ in 0..3 {
        server.asked().await.answer(302, &[("location", &location)], "");
        let why = consumer.state_is(ConsumerState::Waiting).await;
        assert!(why.contains("HTTP 302") && why.contains("moved"), "{why}");
    }
    server.asked().await.answer(200, &[], "x");
    let took = begun.elapsed().as_secs();
    assert!((180..=361).contains(&took), "one to two minutes each: {took} s");
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop().await;
    assert!(elsewhere.is_idle());
    assert_eq!(stage.outages(), [], "there was no good answer yet");
    let log = log.text();
    assert_eq!(log.matches("HTTP 302").count(), 3, "{log}");
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_patience_gets_it() {
    let mut server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri(), "interval: 1s"));
    for (status, patience, seconds) in [(429, "100", 100), (503, "7", 7), (429, "9999999", 900)] {
        server
            .asked()
            .await
            .answer(status, &[("retry-after", patience)], "");
        let answered = Instant::now();
        let asked = server.asked().await;
        assert_eq!(answered.elapsed().as_secs(), seconds, "{status}");
        asked.answer(200, &[], "x");
    }
    consumer.stage.messages_reach(3).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(stage.outages().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn delays_grow_while_it_fails_and_are_short_again_after_a_good_answer() {
    let mut server = Server::listen().await;
    let mut patient = settings(&server.uri(), "interval: 1s");
    patient.backoff = crate::backoff::Backoff::new(Duration::from_secs(1), Duration::from_secs(3_600));
    let consumer = Running::start(patient);
    let begun = Instant::now();
    for _ in 0..12 {
        server.asked().await.answer(500, &[], "");
    }
    let took = begun.elapsed().as_secs();
    // Full jitter: evenly from nothing to 1 + 2 + 4 … + 1024 seconds, of which the last are the most.
    assert!((20..2_048).contains(&took), "{took} s");
    let good = server.asked().await;
    let answered = Instant::now();
    good.answer(200, &[], "x");
    server.asked().await.answer(500, &[], "");
    let asked = server.asked().await;
    let took = answered.elapsed();
    assert!(
        took <= Duration::from_secs(3),
        "short after a good answer: {took:?}"
    );
    drop(asked);
    consumer.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_asked_until_it_is_and_that_is_no_outage() {
    let server = RawServer::listen().await;
    let uri = server.uri();
    drop(server);
    let consumer = Running::start(settings(&uri, ""));
    let why = consumer.state_is(ConsumerState::Waiting).await;
    assert!(
        why.contains("not started yet") || why.contains("can't reach 127.0.0.1:"),
        "{why}"
    );
    while consumer.stats.attempts.get() < 3 {
        tokio::task::yield_now().await;
    }
    let address = uri.trim_start_matches("http://").trim_end_matches('/');
    let server = RawServer::of(TcpListener::bind(address).await.unwrap());
    server.answer_well("here now").await;
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(told(stage.entries()), ["here now"]);
}

#[tokio::test(start_paused = true)]
async fn many_failures_are_one_stretch_with_the_first_and_the_last_cause_also_when_the_engine_stops() {
    let mut server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri(), ""));
    server.asked().await.answer(200, &[("etag", "\"a\"")], "one");
    for status in [500, 502, 503] {
        server.asked().await.answer(status, &[], "");
    }
    // That nothing has changed ends the stretch too, and is a good answer from which the next one counts.
    server.asked().await.answer(304, &[], "");
    server.asked().await.answer(502, &[], "");
    let again = server.asked().await;
    let (stage, _) = consumer.stop().await;
    drop(again);
    let told = told(stage.entries());
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[1].contains("HTTP 500") && told[1].contains("; then: the server answered HTTP 503"));
    assert!(
        told[2].contains("HTTP 502") && told[2].contains("then: no good answer before the engine stopped"),
        "{told:?}"
    );
    let outages = stage.outages();
    assert!(outages[0].to <= outages[1].from, "{outages:?}");
}

#[tokio::test(start_paused = true)]
async fn credentials_and_headers_reach_the_server_and_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "hiddentoken1\n").unwrap();
    let mut server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let uri = server.uri().replace("http://", "http://ann:tops%3Aecret@") + "t?key=hiddenkey";
    let keys = format!(
        "headers: {{ X-Api-Key: hiddenheader, X-Token: {{ file: {} }}, User-Agent: ours }}",
        token.display()
    );
    let consumer = Running::start(settings(&uri, &keys));
    let asked = server.asked().await;
    assert_eq!(asked.target.to_string(), "/t?key=hiddenkey");
    assert_eq!(asked.header("authorization"), Some("Basic YW5uOnRvcHM6ZWNyZXQ="));
    assert_eq!(asked.header("x-api-key"), Some("hiddenheader"));
    assert_eq!(asked.header("x-token"), Some("hiddentoken1"));
    assert_eq!(asked.header("user-agent"), Some("ours"));
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
    assert_eq!(
        asked.header("host"),
        Some(format!("127.0.0.1:{}", server.port()).as_str())
    );
    asked.answer(200, &[], "hiddenpayload");
    std::fs::write(&token, "hiddentoken2\n").unwrap();
    let asked = server.asked().await;
    assert_eq!(
        asked.header("x-token"),
        Some("hiddentoken2"),
        "read at every poll"
    );
    asked.answer(403, &[("x-reason", "hiddenreason")], "hiddenbody");
    consumer.state_is(ConsumerState::Waiting).await;
    std::fs::remove_file(&token).unwrap();
    while consumer.stats.attempts.get() < 3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let why = consumer.state_is(ConsumerState::Waiting).await;
    assert!(why.contains("can't read") || why.contains("HTTP 403"), "{why}");
    let (stage, _) = consumer.stop().await;
    let log = log.text();
    assert!(
        log.contains("the source answers") && log.contains("poll failed"),
        "{log}"
    );
    let everything_told = format!("{log} {:?}", stage.outages());
    for secret in ["ann", "tops", "YW5u", "hidden"] {
        assert!(!everything_told.contains(secret), "{secret} in {everything_told}");
    }
}

#[tokio::test]
async fn a_server_with_tls_is_asked_when_its_authority_is_known_and_never_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    let mut server = Server::listen_with(Some(acceptor(&authority))).await;
    let uri = format!("https://localhost:{}/", server.port());
    let known = settings(
        &uri,
        &format!("interval: 100ms\ntls: {{ ca_file: {} }}", authority.display()),
    );
    let consumer = Running::start(known);
    for _ in 0..2 {
        server.asked().await.answer(200, &[], "in confidence");
    }
    consumer.stage.messages_reach(2).await;
    let (_, stats) = consumer.stop().await;
    assert_eq!(stats.connects.get(), 1, "TLS is not made anew for each poll");

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&authority, other.cert.pem()).unwrap();
    let unknown = settings(&uri, &format!("tls: {{ ca_file: {} }}", authority.display()));
    let consumer = Running::start(unknown);
    while consumer.stats.attempts.get() < 1 {
        tokio::task::yield_now().await;
    }
    let why = consumer.state_is(ConsumerState::Waiting).await;
    assert!(
        why.contains("certificate is not trusted") && why.contains("tls.ca_file"),
        "{why}"
    );
    consumer.stop().await;
    assert!(server.is_idle());
}
