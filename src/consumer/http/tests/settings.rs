//! The keys in `config.yml`.

use std::time::Duration;

use super::super::HttpVariety;
use super::super::settings::Settings;
use crate::config::{Section, Variables};
use crate::consumer::ConsumerVariety;
use crate::json_path::RecordsPath;

/// Settings that are sound.
fn read(text: &str) -> Settings {
    let settings = Section::read_text(text, &Variables::default(), Settings::read);
    settings.unwrap_or_else(|mistakes| panic!("{mistakes}")).unwrap()
}

/// What is said about settings that are not.
fn mistakes(text: &str) -> String {
    let configured = Section::read_text(text, &Variables::default(), |section| {
        assert!(HttpVariety.configure("feed", section).is_none(), "{text}");
    });
    configured.unwrap_err().to_string()
}

#[test]
fn a_uri_alone_gives_the_documented_defaults() {
    let settings = read("uri: http://feed.example/prices");
    assert_eq!(settings.endpoint.shown(), "http://feed.example/prices");
    assert_eq!(settings.interval, Duration::from_secs(10));
    assert_eq!(settings.timeout, Duration::from_secs(30));
    assert_eq!(settings.max_answer_bytes, 16 << 20);
    assert_eq!(settings.backoff.ceiling(), Duration::from_millis(500));
    assert!(settings.headers.given.is_empty() && settings.headers.late.is_empty());
    assert!(settings.records.is_none() && settings.idle_timeout.is_none());
    assert!(settings.proxy.is_none() && settings.tls.is_none());
}

#[test]
fn every_key_is_read() {
    let settings = read(
        r#"
uri: https://feed.example/prices
interval: 1m
timeout: 5s
headers: { X-Api-Key: "123" }
auth: { bearer: abc }
proxy: http://proxy.example:3128
records: $.data[*]
max_answer_size: 1MiB
idle_timeout: 1h
reconnect: { initial: 1s, max: 2s }
tls: {}
"#,
    );
    assert!(settings.tls.is_some());
    assert_eq!(settings.headers.given["x-api-key"], "123");
    assert_eq!(settings.headers.given["authorization"], "Bearer abc");
    assert_eq!(settings.proxy.unwrap().to_string(), "http://proxy.example:3128");
    assert_eq!(
        (settings.interval, settings.timeout, settings.idle_timeout),
        (
            Duration::from_secs(60),
            Duration::from_secs(5),
            Some(Duration::from_secs(3_600))
        )
    );
    assert_eq!(
        settings.records,
        Some(RecordsPath::new("$.data".parse().unwrap()))
    );
    assert_eq!(settings.max_answer_bytes, 1 << 20);
    assert_eq!(settings.backoff.ceiling(), Duration::from_secs(1));
}

#[test]
fn mistakes_are_reported_together_with_their_places() {
    let said = mistakes(
        "uri: wss://feed.example/\ninterval: 99ms\ntimeout: 0s\nrecords: $.a[x]\nmax_answer_size: 64MiB\n\
         reconnect: { initial: 2s, max: 1s }\nintervall: 1s\nsubscribe: []\n\
         headers: { If-None-Match: x, Accept-Encoding: gzip, Range: secret }\n",
    );
    for (line, part) in [
        (1, "uri: must begin with http:// or https://"),
        (2, "interval: must be at least 100ms"),
        (3, "timeout: must be more than 0s"),
        (4, "records: expected a number, * or a key in quotes after ["),
        (5, "max_answer_size: must be at least 1 byte and at most 63MiB"),
        (6, "reconnect.max: must not be less than `initial`"),
        (7, "intervall: unknown key"),
        (8, "subscribe: unknown key"),
        (9, "if-none-match is set from the answer before"),
        (9, "accept-encoding can't be given"),
        (9, "range has no place in a GET"),
    ] {
        let found = said
            .lines()
            .any(|told| told.contains(part) && told.contains(&format!(":{line}:")));
        assert!(found, "{line}: {part} in {said}");
    }
    assert!(!said.contains("secret"), "{said}");
    let said = mistakes("uri: http://ann:hidden@feed.example/\nauth: { bearer: x }\ntls: {}");
    assert!(said.contains("auth: is given twice"), "{said}");
    assert!(
        said.contains("tls: is for a uri that begins with https://"),
        "{said}"
    );
    assert!(!said.contains("hidden"), "{said}");
}
