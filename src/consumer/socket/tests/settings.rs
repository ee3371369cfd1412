//! The keys in `config.yml`.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use super::super::SocketVariety;
use super::super::liveness::{Idle, IdleAction, Ping};
use super::super::script::{Outgoing, Step};
use super::super::settings::Settings;
use crate::config::{Section, Variables};
use crate::consumer::ConsumerVariety;
use crate::json_path::Finder;

/// Settings that are sound.
fn read(text: &str) -> Settings {
    let variables = Variables::default();
    let settings = Section::read_text(text, &variables, Settings::read);
    match settings {
        Ok(settings) => settings.unwrap(),
        Err(mistakes) => panic!("{mistakes}"),
    }
}

/// What is said about settings that are not.
fn mistakes(text: &str) -> String {
    let variables = Variables::default();
    let configured = Section::read_text(text, &variables, |section| {
        assert!(SocketVariety.configure("feed", section).is_none(), "{text}");
    });
    configured.unwrap_err().to_string()
}

#[test]
fn a_uri_alone_gives_the_documented_defaults() {
    let settings = read("uri: ws://feed.example/trades");
    assert_eq!(settings.routes[0].endpoint.shown(), "ws://feed.example/trades");
    assert!(settings.headers.is_empty() && settings.subscribe.is_empty() && settings.routes[0].tls.is_none());
    assert_eq!(
        settings.ping,
        Some(Ping {
            interval: Duration::from_secs(20),
            timeout: Duration::from_secs(10)
        })
    );
    assert_eq!(
        settings.idle,
        Some(Idle {
            timeout: Duration::from_secs(60),
            action: IdleAction::Reconnect
        })
    );
    assert!(
        settings.routes[0].proxy.is_none() && settings.control.is_empty() && settings.ping_message.is_none()
    );
    assert_eq!(settings.connect_timeout, Duration::from_secs(30));
    assert_eq!(settings.backoff.ceiling(), Duration::from_millis(500));
    assert_eq!(settings.max_message_bytes, 16 << 20);
}

#[test]
fn every_key_is_read() {
    let mut settings = read(
        r#"
uri: ws://ann:secret@feed.example/trades
headers: { X-Api-Key: "123", Origin: "https://feed.example" }
subprotocols: [v2.json, v1.json]
subscribe:
  - send: plain text
  - send: { op: subscribe, args: [trades, 5, true, null], depth: { level: 2 } }
  - send: [1, 2.5]
  - send: { base64: AP8= }
ping: { interval: 5s, timeout: 2s }
idle_timeout: 0s
connect_timeout: 3s
reconnect: { initial: 100ms, max: 200ms }
max_message_size: 1MiB
"#,
    );
    assert_eq!(settings.headers["x-api-key"], "123");
    assert_eq!(settings.headers["origin"], "https://feed.example");
    let authorization = settings.routes[0].endpoint.authorization();
    assert_eq!(authorization.unwrap(), "Basic YW5uOnNlY3JldA==");
    assert_eq!(settings.headers["sec-websocket-protocol"], "v2.json, v1.json");
    let sent = settings.subscribe.iter().map(|step| match step {
        Step::Send(Outgoing::Fixed(message)) => message.clone(),
        _ => panic!("nothing is expected"),
    });
    assert!(sent.eq([
        Message::text("plain text"),
        Message::text(r#"{"op":"subscribe","args":["trades",5,true,null],"depth":{"level":2}}"#),
        Message::text("[1,2.5]"),
        Message::binary(vec![0, 255]),
    ]));
    assert_eq!(
        settings.ping,
        Some(Ping {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2)
        })
    );
    assert_eq!(settings.idle, None);
    assert_eq!(settings.connect_timeout, Duration::from_secs(3));
    settings.backoff.next_delay();
    settings.backoff.next_delay();
    assert_eq!(settings.backoff.ceiling(), Duration::from_millis(200));
    assert_eq!(settings.max_message_bytes, 1 << 20);
}

#[test]
fn an_interval_of_zero_sends_no_pings() {
    assert_eq!(
        read("{ uri: 'ws://a.example', ping: { interval: 0s } }").ping,
        None
    );
}

#[test]
fn each_mistake_is_reported_with_its_key_and_all_of_them_together() {
    let text = r#"
uri: http://feed.example/
headers: { "bad name": x, Upgrade: y, Sec-WebSocket-Protocol: z, good: "tab\u0001" }
subprotocols: ["a b"]
subscribe:
  - send: ok
  - sned: typo
  - expect: later
  - expect: { $.event: [[1]], event: x }
    send: y
    timeout: 0s
  - expect: { regex: "a(b" }
    reject: {}
  - send: z
    reject: { $.a: 1 }
  - send: { base64: "?" }
control: [{}, { $.type: heartbeat }]
auth: { basic: { user: "a:b" }, token: x }
proxy: https://p.example
idle: { timeout: 5s, action: shout }
idle_timeout: 3s
ping: { timeout: 0s, every: 1s, expect: { $: pong } }
connect_timeout: 0s
reconnect: { initial: 2s, max: 1s }
max_message_size: 2GiB
idle_timeoud: 5s
"#;
    let said = mistakes(text);
    for part in [
        "uri: must begin with ws:// or wss://",
        r#"headers: "bad name" can't be the name of a header"#,
        "upgrade is set by the WebSocket protocol",
        "subprotocols`; name them there",
        "the value of good has characters",
        "subprotocols: names must have only",
        "subscribe[1].send: is missing",
        "subscribe[1].sned: unknown key",
        "subscribe[2].expect: expected a mapping",
        "subscribe[3].expect.$.event: must be a single value, or a list",
        "subscribe[3].expect.event: a path begins with $",
        "subscribe[3].send: is a step of its own",
        "subscribe[3].timeout: must be more than 0s",
        "subscribe[4].expect.regex: is no regular expression: unclosed group",
        "subscribe[4].reject: names nothing to look for",
        "subscribe[5].reject: belongs to a step with `expect`",
        "subscribe[6].send: has bytes that are no base64",
        "control: has an entry that names nothing",
        "auth.basic.user: holds a colon",
        "auth.basic.password: is missing",
        "auth.token: unknown key",
        "proxy: is no proxy",
        "idle.action: ",
        "idle_timeout: is given twice",
        "ping.expect: is the answer to a message",
        "ping.timeout: must be more than 0s",
        "ping.every: unknown key",
        "connect_timeout: must be more than 0s",
        "reconnect.max: must not be less than `initial`",
        "max_message_size: must be at least 1 byte and at most 63MiB",
        "idle_timeoud: unknown key",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
}

#[test]
fn credentials_given_twice_are_refused_and_no_secret_is_repeated() {
    let said = mistakes(
        r#"
uri: wss://ann:topsecret@feed.example/?token=topsecret
headers: { Authorization: Bearer topsecret, x-bad: "topsecret\u0001" }
tls: { ca_file: /nonexistent/ca.pem, cert: x }
"#,
    );
    for part in [
        "authorization is given twice",
        "tls.ca_file: can't read /nonexistent/ca.pem",
        "tls.cert: unknown key",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    assert!(!said.contains("topsecret"), "{said}");
    let said = mistakes("{ uri: 'ws://ann:top secret@feed.example' }");
    assert!(
        said.contains("is not a URI") && !said.contains("secret"),
        "{said}"
    );
}

#[test]
fn tls_files_are_refused_for_a_uri_without_tls() {
    let said = mistakes("{ uri: 'ws://a.example', tls: { ca_file: ca.pem } }");
    assert!(
        said.contains("tls: is for a uri that begins with wss://"),
        "{said}"
    );
}

#[test]
fn connections_are_a_number_or_a_list_of_ways() {
    let addresses = |settings: &Settings| -> Vec<String> {
        let routes = settings.routes.iter();
        let shown = routes.map(|route| match &route.proxy {
            Some(proxy) => format!("{} by {proxy}", route.endpoint.shown()),
            None => route.endpoint.shown().to_owned(),
        });
        shown.collect()
    };
    let two = read("{ uri: 'ws://a.example', connections: 2, proxy: 'socks5://p.example' }");
    assert_eq!(addresses(&two), ["ws://a.example/ by socks5://p.example:1080"; 2]);
    assert!(two.merges() && two.identity.is_none() && two.rotate.is_none());
    let listed = read(
        r"
uri: ws://a.example
proxy: http://p.example
connections:
  - {}
  - { uri: 'wss://ann:secret@b.example/x', proxy: none }
  - { proxy: 'socks5://q.example' }
rotate: 23h
identity: [$.u, $.s]
window: { messages: 5000, age: 2m }
",
    );
    assert_eq!(
        addresses(&listed),
        [
            "ws://a.example/ by http://p.example:80",
            "wss://b.example/x",
            "ws://a.example/ by socks5://q.example:1080"
        ]
    );
    let secure = listed.routes.iter().map(|route| route.tls.is_some());
    assert!(secure.eq([false, true, false]));
    assert_eq!(listed.rotate, Some(Duration::from_secs(23 * 3_600)));
    assert_eq!(listed.identity.as_ref().map(Finder::paths), Some(2));
    assert_eq!(
        (listed.window.messages, listed.window.age),
        (5_000, Duration::from_secs(120))
    );
    let own = read("{ connections: [{ uri: 'ws://a.example' }, { uri: 'ws://b.example' }], identity: $.id }");
    assert_eq!(addresses(&own), ["ws://a.example/", "ws://b.example/"]);
    let alone = read("{ uri: 'ws://a.example', rotate: 1s, window: { age: 5s } }");
    assert!(alone.merges());
    assert!(!read("{ uri: 'ws://a.example', connections: 1 }").merges());
}

#[test]
fn mistakes_in_connections_are_reported_where_they_stand() {
    for (keys, parts) in [
        (
            "connections: 0",
            &["connections: must be a number from 1 to 4"][..],
        ),
        ("connections: 5", &["connections: must be a number from 1 to 4"]),
        ("connections: two", &["connections: must be a number from 1 to 4"]),
        ("connections: []", &["connections: must have 1 to 4 entries"]),
        (
            "connections: [{ uri: 'http://a' }, { url: x, proxy: ftp://p }]",
            &[
                "connections[0].uri: must begin with ws://",
                "connections[1].url: unknown key; did you mean `uri`?",
                "connections[1].proxy: is no proxy",
            ],
        ),
        (
            "connections: [{}, {}, {}, {}, {}]",
            &["connections: must have 1 to 4 entries"],
        ),
        (
            "identity: $.id",
            &["identity: is for several connections: see connections and rotate"],
        ),
        ("window: { age: 1s }", &["window: is for several connections"]),
        (
            "{ connections: 2, identity: id }",
            &["identity: a path begins with $"],
        ),
        (
            "{ connections: 2, identity: [$.a, '$.b.', '$.c[*]'] }",
            &[
                "identity[1]: expected a key",
                "identity[2]: must name a single value",
            ],
        ),
        (
            "{ connections: 2, identity: [] }",
            &["identity: must be a path, or a list of 1 to 8 paths"],
        ),
        (
            "{ connections: 2, rotate: 999ms, window: { messages: 0, age: 0s, bytes: 1 } }",
            &[
                "rotate: must be at least 1s",
                "window.messages: must be at least 1 and at most 1000000",
                "window.age: must be more than 0s",
                "window.bytes: unknown key",
            ],
        ),
        (
            "{ connections: [{ uri: 'ws://ann:secret@b.example' }, {}], auth: { bearer: x } }",
            &["auth: is given twice: here, and by the user in `uri`"],
        ),
    ] {
        let inside = keys.strip_prefix("{ ").and_then(|keys| keys.strip_suffix(" }"));
        let keys = inside.unwrap_or(keys);
        let said = mistakes(&format!("{{ uri: 'ws://a.example', {keys} }}"));
        for part in parts {
            assert!(said.contains(part), "{part} in:\n{said}");
        }
        assert_eq!(said.matches("config.yml:").count(), parts.len(), "{said}");
    }
    let said = mistakes("{ connections: [{ uri: 'ws://a.example' }, {}] }");
    assert!(said.contains("uri: is missing"), "{said}");
}
