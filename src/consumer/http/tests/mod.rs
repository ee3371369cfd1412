//! Consumers over a stage in memory, against servers on the loopback address whose every answer the test gives.

mod failures;
mod proxies;
mod settings;
mod support;
mod unsized_answers;

use std::time::Duration;

use tokio::time::Instant;

use crate::consumer::Consumer;
use crate::consumer::captured_log::Log;
use crate::consumer::memory_stage::{Durability, Entry};
use crate::exit::ExitReason;
use crate::stats::ConsumerState;
use support::{Running, Server, settings};

#[tokio::test(start_paused = true)]
async fn a_poll_begins_an_interval_after_the_start_of_the_one_before_and_never_beside_it() {
    let mut server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri(), "interval: 5s"));
    let mut begun = Vec::new();
    for slowness in [0, 3, 7, 0, 0] {
        let asked = server.asked().await;
        begun.push(Instant::now());
        tokio::time::sleep(Duration::from_secs(slowness)).await;
        assert!(server.is_idle(), "no second poll beside a slow one");
        asked.answer(200, &[], "x");
    }
    consumer.stage.messages_reach(5).await;
    let (stage, stats) = consumer.stop().await;
    let apart: Vec<u64> = begun
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis() as u64 / 100)
        .collect();
    assert_eq!(apart, [50, 50, 70, 50], "tenths of a second");
    assert_eq!(stage.outages(), [], "a slow answer is none");
    assert_eq!((stats.attempts.get(), stats.connects.get()), (5, 1));
    assert_eq!((stats.received.get(), stats.staged.get()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_asked_for_by_its_validators_and_stages_nothing() {
    let mut server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri(), ""));
    let modified = "Wed, 21 Oct 2015 07:28:00 GMT";
    for (status, given, expected) in [
        (
            200,
            &[("etag", "\"one\""), ("last-modified", modified)][..],
            (None, None),
        ),
        (304, &[], (Some("\"one\""), Some(modified))),
        (204, &[], (Some("\"one\""), Some(modified))),
        (200, &[("etag", "W/\"two\"")], (Some("\"one\""), Some(modified))),
        (304, &[("etag", "W/\"three\"")], (Some("W/\"two\""), None)),
        (200, &[], (Some("W/\"two\""), None)),
        (200, &[], (None, None)),
    ] {
        let asked = server.asked().await;
        assert_eq!(
            (asked.header("if-none-match"), asked.header("if-modified-since")),
            expected
        );
        let body = if status == 200 { "changed" } else { "" };
        asked.answer(status, given, body);
    }
    consumer.stage.messages_reach(4).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(stage.payloads(), [b"changed"; 4]);
    assert_eq!(stage.outages(), []);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_can_not_be_staged_is_asked_for_again_whole() {
    let mut server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri(), "records: $.data[*]"));
    let etag = [("etag", "\"one\"")];
    server.asked().await.answer(200, &etag, "<html>");
    let asked = server.asked().await;
    assert_eq!(asked.header("if-none-match"), None);
    asked.answer(200, &etag, r#"{"data":[1]}"#);
    server.asked().await.answer(200, &[("etag", "\"two\"")], "<html>");
    let asked = server.asked().await;
    assert_eq!(asked.header("if-none-match"), Some("\"one\""));
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_one_message_byte_for_byte_or_each_of_its_records_is() {
    let mut server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri(), ""));
    let large = "häß ".repeat(300_000);
    let bodies = [" {\"a\" : 1}\n", "not JSON", "", &large];
    for body in bodies {
        server.asked().await.answer(200, &[], body);
    }
    consumer.stage.messages_reach(4).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(stage.payloads(), bodies.map(|body| body.as_bytes().to_vec()));

    let consumer = Running::start(settings(&server.uri(), "records: $.data"));
    let records: Vec<String> = (0..250).map(|n| format!("{{\"n\" : {n}.50}}")).collect();
    let body = format!("{{\"of\": 250, \"data\":[ {} ]}}", records.join(" , "));
    server.asked().await.answer(200, &[], &body);
    server.asked().await.answer(200, &[], r#"{"data":[]}"#);
    server.asked().await.answer(200, &[], r#"{"data":[1]}"#);
    consumer.stage.messages_reach(251).await;
    let (stage, stats) = consumer.stop().await;
    let expected = records.iter().map(String::as_str).chain(["1"]);
    assert!(
        stage
            .payloads()
            .iter()
            .map(Vec::as_slice)
            .eq(expected.map(str::as_bytes))
    );
    assert_eq!(stage.batch_sizes(), [100, 100, 50, 1], "by batch_configuration");
    let first = stage.entries().into_iter().find_map(|entry| match entry {
        Entry::Batch(batch) => batch.iter().map(|message| message.received_at).max(),
        Entry::Outage(_) => None,
    });
    assert!(first.is_some());
    assert_eq!(stats.staged.get(), 251);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_and_one_that_the_server_has_ended_is_no_failure() {
    let mut server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri(), ""));
    let mut connections = Vec::new();
    for headers in [&[][..], &[], &[("connection", "close")], &[]] {
        let asked = server.asked().await;
        connections.push(asked.connection);
        asked.answer(200, headers, "x");
    }
    consumer.stage.messages_reach(4).await;
    let (stage, stats) = consumer.stop().await;
    assert_eq!(connections, [0, 0, 0, 1]);
    assert_eq!((stats.attempts.get(), stats.connects.get()), (4, 2));
    assert_eq!(stage.outages(), []);

    // Ended without a word, between two polls.
    let raw = support::RawServer::listen().await;
    let consumer = Running::start(settings(&raw.uri(), ""));
    for _ in 0..3 {
        raw.answer("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny").await;
    }
    consumer.stage.messages_reach(3).await;
    let (stage, stats) = consumer.stop().await;
    assert_eq!(stage.outages(), []);
    assert_eq!((stats.attempts.get(), stats.connects.get()), (3, 3));
}

/// What stands between may have forgotten it, and swallow what is sent over it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_has_idled_for_half_a_minute_is_not_used_again() {
    for (interval, expected) in [("29s", [0, 0, 0]), ("31s", [0, 1, 2])] {
        let mut server = Server::listen().await;
        let consumer = Running::start(settings(&server.uri(), &format!("interval: {interval}")));
        let mut connections = Vec::new();
        for _ in 0..3 {
            let asked = server.asked().await;
            connections.push(asked.connection);
            asked.answer(200, &[], "x");
        }
        let (stage, _) = consumer.stop().await;
        assert_eq!(connections, expected, "{interval}");
        assert_eq!(stage.outages(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn the_state_tells_what_it_does_and_a_source_without_news_is_silent() {
    let mut server = Server::listen().await;
    let consumer = Running::start(settings(&server.uri(), "interval: 1s\nidle_timeout: 3s"));
    let first = server.asked().await;
    consumer.state_is(ConsumerState::Connecting).await;
    first.answer(200, &[("etag", "\"a\"")], "x");
    for _ in 0..2 {
        let asked = server.asked().await;
        consumer.state_is(ConsumerState::Live).await;
        asked.answer(304, &[], "");
    }
    for _ in 0..3 {
        server.asked().await.answer(304, &[], "");
    }
    let why = consumer.state_is(ConsumerState::Silent).await;
    assert!(
        why.contains("nothing new for") && why.contains("idle_timeout"),
        "{why}"
    );
    server.asked().await.answer(200, &[], "x");
    consumer.state_is(ConsumerState::Live).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(stage.outages(), [], "silence is no outage");
}

#[tokio::test]
async fn a_stage_that_takes_nothing_shows_as_paused_and_the_source_is_not_asked_until_it_does() {
    const RECORDS: u64 = 40_000;
    let mut server = Server::listen().await;
    let (log, _guard) = Log::capture();
    let keys = "interval: 100ms\nrecords: $.data[*]";
    let consumer = Running::start_over(settings(&server.uri(), keys), Durability::ByHand);
    let numbers: Vec<_> = (0..RECORDS).map(|number| number.to_string()).collect();
    let body = format!("{{\"data\":[{}]}}", numbers.join(","));
    server.asked().await.answer(200, &[], &body);
    let why = consumer.state_is(ConsumerState::Paused).await;
    assert!(why.contains("on_full: block"), "{why}");
    assert!(
        consumer.stage.payloads().len() < numbers.len(),
        "what is held is bounded"
    );
    assert!(server.is_idle(), "ten intervals have gone by");
    while consumer.stats.staged.get() < RECORDS {
        consumer.stage.commit();
        tokio::task::yield_now().await;
    }
    consumer.state_is(ConsumerState::Live).await;
    server.asked().await.answer(304, &[], "");
    let (stage, _) = consumer.stop().await;
    assert_eq!(
        stage.payloads(),
        numbers.iter().map(|text| text.as_bytes()).collect::<Vec<_>>()
    );
    assert_eq!(stage.outages(), [], "nothing was missed");
    let log = log.text();
    let told = |text| log.matches(text).count();
    assert_eq!((told("paused; the source"), told("asked again")), (1, 1), "{log}");
}

#[tokio::test]
async fn a_stage_that_fails_ends_the_consumer_between_two_polls() {
    let mut server = Server::listen().await;
    let settings = settings(&server.uri(), "interval: 1h");
    let mut consumer = Running::start_over(settings, Durability::ByHand);
    server.asked().await.answer(200, &[], "x");
    consumer.stage.messages_reach(1).await;
    consumer.stage.fail();
    let error = (&mut consumer.task).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), ExitReason::Failed);
    assert!(error.to_string().contains("feed_under_test"), "{error}");
}

#[tokio::test]
async fn a_stop_waits_neither_for_the_next_poll_nor_for_an_answer() {
    let mut server = Server::listen().await;
    let keys = "interval: 1h\ntimeout: 1h";
    let consumer = Running::start(settings(&server.uri(), keys));
    server.asked().await.answer(200, &[], "x");
    consumer.stage.messages_reach(1).await;
    let (stage, _) = consumer.stop().await;
    assert_eq!(stage.outages(), [], "a stop is no outage");

    let consumer = Running::start(settings(&server.uri(), keys));
    let unanswered = server.asked().await;
    consumer.stop().await;
    drop(unanswered);
}

#[tokio::test]
async fn a_trial_says_what_came_of_one_poll() {
    let mut server = Server::listen().await;
    let try_out = async |server: &mut Server, keys: &str, status: u16, body: &str| {
        let uri = server.uri().replace("http://", "http://ann:secret@");
        let consumer = super::HttpConsumer {
            settings: settings(&uri, keys),
        };
        let (said, ()) = tokio::join!(consumer.probe(), async {
            server.asked().await.answer(status, &[], body);
        });
        for said in [said.as_ref().ok(), said.as_ref().err()].into_iter().flatten() {
            assert!(!said.contains("secret"), "{said}");
        }
        said
    };
    let said = try_out(&mut server, "records: $", 200, "[1, 2]").await.unwrap();
    assert!(said.contains("6 bytes, 2 messages"), "{said}");
    let said = try_out(&mut server, "", 200, "[1]").await.unwrap();
    assert!(said.ends_with("3 bytes, 1 message"), "{said}");
    let said = try_out(&mut server, "", 401, "").await.unwrap_err();
    assert!(said.contains("HTTP 401"), "{said}");
    let said = try_out(&mut server, "records: $.x", 200, "{}").await.unwrap_err();
    assert!(said.contains("nothing at $.x"), "{said}");
}
