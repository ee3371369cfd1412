//! What a client gets that speaks HTTP by hand, well or badly.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::support::*;
use crate::control::{MAX_CONNECTIONS, MAX_WATCHERS};
use crate::record::Offset;
use crate::stage::path::Glance;
use crate::stage::remote::{RemotePath, SOCKET_NAME};

fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {body}"))
}

#[tokio::test]
async fn whatever_is_sent_gets_an_answer_and_hurts_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    fill(&engine.stage, 3).await;
    let path = dir.path();

    assert!(
        raw(path, b"\0\x01garbage\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    let huge = format!("GET /v1 HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    assert!(raw(path, huge.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let stage = format!("/v1/stages/{STAGE}");
    for (line, body, status, kind) in [
        ("GET /v1/nothing".to_owned(), "", 404, "not_found"),
        ("GET /v2".to_owned(), "", 404, "not_found"),
        ("GET /v1/stages/other".to_owned(), "", 404, "not_found"),
        ("GET /v1/stages/other/records".to_owned(), "", 404, "not_found"),
        ("GET /v1/stages/other/watch".to_owned(), "", 404, "not_found"),
        ("POST /v1/stages".to_owned(), "", 405, "method_not_allowed"),
        (format!("GET {stage}/records?from=x"), "", 400, "bad_request"),
        (format!("GET {stage}/messages?limit=-1"), "", 400, "bad_request"),
        (format!("GET {stage}/batches?sinze=1"), "", 400, "bad_request"),
        (format!("PUT {stage}/cursors/p"), "nonsense", 400, "bad_request"),
        (
            format!("PUT {stage}/cursors/p"),
            "{\"next\": 99999999}",
            400,
            "bad_request",
        ),
        (format!("PUT {stage}/deliveries/p"), "{}", 400, "bad_request"),
        (format!("DELETE {stage}/cursors/p"), "", 404, "not_found"),
        (format!("DELETE {stage}"), "", 409, "still_configured"),
    ] {
        let (found, body) = ask(path, &line, body).await;
        let answer = json(&body);
        assert_eq!(
            (found, answer["kind"].as_str()),
            (status, Some(kind)),
            "{line}: {body}"
        );
        assert!(answer["error"].is_string(), "{line}: {body}");
    }
    let long = "x".repeat(20_000);
    assert_eq!(ask(path, &format!("PUT {stage}/cursors/p"), &long).await.0, 413);
    // A client that goes away in the middle of a request, and one in the middle of an answer.
    let mut stream = UnixStream::connect(path.join(SOCKET_NAME)).await.unwrap();
    stream.write_all(b"GET /v1/sta").await.unwrap();
    drop(stream);
    let mut stream = UnixStream::connect(path.join(SOCKET_NAME)).await.unwrap();
    let watch = format!("GET {stage}/watch HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(watch.as_bytes()).await.unwrap();
    drop(stream);

    fill(&engine.stage, 3).await;
    let (status, body) = ask(path, &format!("GET {stage}"), "").await;
    assert_eq!((status, json(&body)["messages"].as_u64()), (200, Some(6)));
    engine.stop().await;
}

#[tokio::test]
async fn who_answers_is_told_and_a_request_for_another_life_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let (status, body) = ask(dir.path(), "GET /v1", "").await;
    let identity = json(&body);
    assert_eq!(status, 200);
    assert_eq!(identity["pid"].as_u64(), Some(std::process::id().into()));
    assert_eq!(
        identity["id"].as_str(),
        Some(engine.local.id().to_string().as_str())
    );
    assert_eq!(ask(dir.path(), "GET /v1/status", "").await.0, 200);
    let other = b"GET /v1/stages HTTP/1.1\r\nhost: x\r\nconnection: close\r\nif-match: \"other\"\r\n\r\n";
    assert!(raw(dir.path(), other).await.starts_with("HTTP/1.1 412"));
    engine.stop().await;
}

#[tokio::test]
async fn messages_are_lines_for_people_whatever_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    append(
        &engine.stage,
        &[b"{\"a\":1}".to_vec(), vec![0xff, 0x00], b"".to_vec()],
    )
    .await;
    let route = format!("GET /v1/stages/{STAGE}/messages");
    let (status, body) = ask(dir.path(), &route, "").await;
    assert_eq!(status, 200);
    // Chunks and lines come to the same here: take what is JSON.
    let lines: Vec<Value> = body
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(json)
        .collect();
    let payloads: Vec<_> = lines.iter().map(|line| line["payload"].as_str()).collect();
    assert_eq!(payloads, [Some("{\"a\":1}"), None, Some("")]);
    assert_eq!(lines[1]["payload_base64"].as_str(), Some("/wA="));
    let (_, body) = ask(dir.path(), &format!("{route}?from=1&to=2"), "").await;
    let lines: Vec<Value> = body
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(json)
        .collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["offset"].as_u64(), Some(1));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_slows_nobody_and_then_learns_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let mut stream = UnixStream::connect(dir.path().join(SOCKET_NAME)).await.unwrap();
    let watch = format!("GET /v1/stages/{STAGE}/watch HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(watch.as_bytes()).await.unwrap();
    let mut head = Offset::ZERO;
    for _ in 0..200 {
        head = fill(&engine.stage, 5).await;
        engine.stage.ack(PRODUCER, head).await.unwrap();
    }
    let mut lines = BufReader::new(stream).lines();
    let mut seen = 0;
    while let Some(line) = lines.next_line().await.unwrap() {
        if !line.starts_with("{\"bounds\"") {
            continue;
        }
        seen += 1;
        let glance: Glance = serde_json::from_str(&line).unwrap();
        if glance.bounds.head == head && glance.cursors.get(PRODUCER) == Some(&head) {
            break;
        }
    }
    assert!(seen <= 400, "{seen} lines for 400 changes");
    engine.stop().await;
}

/// Each stage that another process delivers is watched by it: there may be more of them than connections that ask.
#[tokio::test(flavor = "multi_thread")]
async fn who_watches_keeps_nobody_from_asking_and_the_last_one_too_many_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let watch = format!("GET /v1/stages/{STAGE}/watch HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut watching = Vec::new();
    for _ in 0..MAX_WATCHERS {
        let mut stream = UnixStream::connect(dir.path().join(SOCKET_NAME)).await.unwrap();
        stream.write_all(watch.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        while !lines
            .next_line()
            .await
            .unwrap()
            .unwrap()
            .starts_with("{\"bounds\"")
        {}
        watching.push(lines);
    }
    assert_eq!(ask(dir.path(), "GET /v1", "").await.0, 200);
    let (status, body) = ask(dir.path(), &format!("GET /v1/stages/{STAGE}/watch"), "").await;
    assert_eq!((status, json(&body)["kind"].as_str()), (503, Some("busy")));
    // The place of one that goes is free again.
    watching.pop();
    let mut last = UnixStream::connect(dir.path().join(SOCKET_NAME)).await.unwrap();
    loop {
        last.write_all(watch.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut last, &mut answer)
            .await
            .unwrap();
        if answer == *b"HTTP/1.1 200" {
            break;
        }
        last = UnixStream::connect(dir.path().join(SOCKET_NAME)).await.unwrap();
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_take_nothing_of_their_answers_do_not_keep_the_others_from_asking() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    // More than a socket holds.
    append(&engine.stage, &vec![vec![b'x'; 10_000]; 200]).await;
    let request = format!("GET /v1/stages/{STAGE}/messages HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut stalled = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = UnixStream::connect(dir.path().join(SOCKET_NAME)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.readable().await.unwrap();
        stalled.push(stream);
    }
    assert_eq!(ask(dir.path(), "GET /v1", "").await.0, 200);
    drop(stalled);
    engine.stop().await;
}

#[tokio::test]
async fn no_cursor_is_set_under_a_name_that_no_producer_has() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    fill(&engine.stage, 3).await;
    let long = "n".repeat(64);
    for name in [
        "",
        "a%20b",
        "a%2Fb",
        "%2Freplay",
        "a%2Freplay%2Freplay",
        "%00",
        "%C3%A9",
        &long,
    ] {
        for (what, body) in [("cursors", "{\"next\": 1}"), ("begun", "null")] {
            let line = format!("PUT /v1/stages/{STAGE}/{what}/{name}");
            let (status, body) = ask(dir.path(), &line, body).await;
            assert_eq!(
                (status, json(&body)["kind"].as_str()),
                (400, Some("bad_request")),
                "{line}"
            );
        }
    }
    for name in ["a", "A-1_b", "a%2Freplay", "a%2Fheld", &long[1..]] {
        let line = format!("PUT /v1/stages/{STAGE}/cursors/{name}");
        assert_eq!(ask(dir.path(), &line, "{\"next\": 1}").await.0, 200, "{line}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_replaces_a_stale_one_and_goes_with_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join(SOCKET_NAME);
    // What a crash leaves: a socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    assert!(RemotePath::connect(dir.path()).await.is_err());
    let engine = Engine::start(dir.path());
    let found = std::fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    RemotePath::connect(dir.path()).await.unwrap();
    engine.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_path_that_is_too_long_for_a_socket_is_served_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("d".repeat(100)).join("e".repeat(100));
    let engine = Engine::start(&long);
    fill(&engine.stage, 3).await;
    let remote = RemotePath::connect(&long).await.unwrap();
    assert_eq!(remote.identity().id, engine.local.id());
    assert!(
        long.join(SOCKET_NAME).exists(),
        "in the path itself, without a link"
    );
    engine.stop().await;
    assert!(!long.join(SOCKET_NAME).exists());
}
