//! A probe of a feed, from the arguments to the report, with servers whose every word the test says.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Secret;

/// A server that speaks once the client has said so many messages, and what the probe of it found.
async fn probed(args: ProbeArgs, awaited: usize, messages: &[&str]) -> (Report, TrialEnd) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("ws://{}/", listener.local_addr().unwrap());
    let args = ProbeArgs {
        uri: Secret::new(uri),
        ..args
    };
    let messages: Vec<_> = messages.iter().map(|text| (*text).to_owned()).collect();
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(tcp).await.unwrap();
        for _ in 0..awaited {
            socket.next().await.unwrap().unwrap();
        }
        for message in messages {
            socket.send(Message::text(message)).await.unwrap();
        }
        until_closed(&mut socket).await;
    });
    let draft = Draft::of(&args).unwrap();
    let mut secrets = Secrets::of(&draft.name);
    let shown = draft.without_secrets(&mut secrets);
    let trial = draft.trial().unwrap();
    let listened = listen(&trial, &shown, secrets, &args, CancellationToken::new()).await;
    let listened = listened.unwrap().unwrap();
    let report = look(&draft, &shown, &listened, Vec::new()).await;
    server.await.unwrap();
    (report, listened.end)
}

async fn until_closed(socket: &mut WebSocketStream<TcpStream>) {
    while let Some(Ok(_)) = socket.next().await {}
}

/// Arguments of a probe that ends after so many messages.
fn args(messages: u64) -> ProbeArgs {
    ProbeArgs {
        uri: Secret::new(""),
        subscribe: Vec::new(),
        header: Vec::new(),
        subprotocol: Vec::new(),
        set: Vec::new(),
        seconds: 3_600,
        messages: Some(messages),
        name: Some("trades".to_owned()),
        json: false,
    }
}

#[tokio::test]
async fn an_answer_and_heartbeats_that_were_seen_become_keys_and_are_no_data_then() {
    let mut args = args(5);
    args.subscribe = vec![Secret::new(r#"{"op":"subscribe"}"#)];
    let (report, end) = probed(
        args,
        1,
        &[
            r#"{"type":"subscriptions","channels":["trades"]}"#,
            r#"{"type":"heartbeat","sequence":1}"#,
            r#"{"type":"trade","price":"0.10"}"#,
            r#"{"type":"trade","price":"0.20"}"#,
            r#"{"type":"trade","price":"0.30","more":true}"#,
        ],
    )
    .await;
    assert_eq!(end, TrialEnd::Stopped);
    assert_eq!(report.messages, 5, "all were data to the consumer that was tried");
    let seen: Vec<_> = report
        .kinds
        .iter()
        .map(|kind| (kind.kind.as_str(), kind.messages, kind.role))
        .collect();
    assert_eq!(
        seen,
        [
            ("$.type = \"trade\"", 3, "data"),
            ("$.type = \"heartbeat\"", 1, "no data: control"),
            (
                "$.type = \"subscriptions\"",
                1,
                "no data: the answer that subscribe waits for"
            ),
        ]
    );
    assert!(
        report.config.contains(
            "    subscribe:   # one of the answer came; what a refusal looks like was not seen: add reject\n      \
             - send: { op: subscribe }\n      - expect: { $.type: subscriptions }\n    \
             control:   # heartbeats, answers and greetings that were seen, which are no data\n      \
             - { $.type: heartbeat }\n"
        ),
        "{}",
        report.config
    );
    assert_eq!(
        report.create_table.as_deref(),
        Some(
            "CREATE TABLE IF NOT EXISTS \"public\".\"trades\" (\n    \"type\" text,\n    \"price\" text,\n    \
             \"more\" boolean\n);\n"
        )
    );
    assert!(
        report.config.contains("#columns: { price: numeric }"),
        "{}",
        report.config
    );
}

#[tokio::test]
async fn an_answer_that_names_what_lists_are_about_stays_data() {
    let mut args = args(4);
    args.subscribe = vec![Secret::new(r#"{"event":"subscribe"}"#)];
    let (report, _) = probed(
        args,
        1,
        &[
            r#"{"event":"info","version":2}"#,
            r#"{"event":"subscribed","chanId":17,"symbol":"tBTCUSD"}"#,
            "[17,[60157.5,0.25],1]",
            r#"[17,"hb",2]"#,
        ],
    )
    .await;
    let roles: Vec<_> = report
        .kinds
        .iter()
        .map(|kind| (kind.kind.as_str(), kind.role))
        .collect();
    assert!(roles.contains(&("$.event = \"subscribed\"", "data")), "{roles:?}");
    assert!(
        roles.contains(&("[number, \"hb\", number]", "no data: control")),
        "{roles:?}"
    );
    assert!(!report.config.contains("expect"), "{}", report.config);
    let table = report.create_table.unwrap();
    assert!(
        table.contains("\"symbol\" text") && table.contains("_message jsonb"),
        "{table}"
    );
}

#[tokio::test]
async fn what_the_consumer_is_told_to_expect_is_heard_as_it_would_hear_it() {
    let mut args = args(1);
    args.subscribe = vec![
        Secret::new(r#"{"op":"subscribe"}"#),
        Secret::new("{ expect: { $.ok: true }, reject: { $.ok: false } }"),
    ];
    args.set = vec![Secret::new("control: [{ $.type: heartbeat }]")];
    let (report, end) = probed(
        args,
        1,
        &[
            r#"{"type":"heartbeat"}"#,
            r#"{"ok":true}"#,
            r#"{"type":"heartbeat"}"#,
            r#"{"type":"trade","p":1}"#,
        ],
    )
    .await;
    assert_eq!((end, report.messages, report.control), (TrialEnd::Stopped, 1, 3));
    assert!(report.subscribed_after_ms.is_some());
    assert!(!report.config.contains("add reject"), "{}", report.config);
}

#[tokio::test]
async fn a_refusal_ends_it_and_says_what_refused() {
    let mut refused = args(1);
    refused.subscribe = vec![
        Secret::new("subscribe"),
        Secret::new("{ expect: { $.ok: true }, reject: { $.ok: false } }"),
    ];
    let (report, end) = probed(refused, 1, &[r#"{"ok":false}"#]).await;
    let TrialEnd::Lost(cause) = end else {
        panic!("{end:?}");
    };
    assert!(cause.contains("$.ok is false"), "{cause}");
    assert_eq!((report.subscribed_after_ms, report.lost), (None, Some(cause)));
    assert_eq!(report.kinds[0].role, "no data: a refusal");
}

#[tokio::test]
async fn messages_that_can_not_be_rows_and_servers_that_complain_are_pointed_out() {
    let mut complained = args(4);
    complained.subscribe = vec![Secret::new("subscribe")];
    let (report, _) = probed(
        complained,
        1,
        &[
            "hello",
            r#"{"event":"error","code":7}"#,
            r#"{"ping":1}"#,
            "[\"\\ud800\"]",
        ],
    )
    .await;
    let unknown = report.unknown.join("\n");
    for said in [
        "whether what was sent was understood",
        "the server sent $.event = \"error\"",
        "an answer to {ping}",
    ] {
        assert!(unknown.contains(said), "{said}: {unknown}");
    }
    let dead: Vec<_> = report
        .kinds
        .iter()
        .filter_map(|kind| kind.dead_letter_reason.as_deref())
        .collect();
    assert!(
        dead.iter().any(|reason| reason.starts_with("not JSON")),
        "{dead:?}"
    );
    assert!(
        dead.iter().any(|reason| reason.starts_with("a lone surrogate")),
        "{dead:?}"
    );
    let text = report.to_string();
    assert!(
        text.contains("1 of them would be dead letters: not JSON"),
        "{text}"
    );
}

#[tokio::test]
async fn more_than_is_kept_is_counted_and_said() {
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(heard::MAX_KEPT_BYTES / 4));
    let messages = [large.as_str(); 6];
    let (report, _) = probed(args(6), 0, &messages).await;
    assert_eq!((report.messages, report.not_looked_at), (6, 3));
    assert_eq!(report.kinds[0].messages, 3);
    assert_eq!(report.sizes.unwrap().largest as usize, large.len());
    assert!(
        report
            .to_string()
            .contains("the last 3 of them were counted only")
    );
}

#[tokio::test]
async fn a_feed_that_says_nothing_leaves_a_consumer_and_says_what_is_not_known() {
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut args = args(1);
    args.uri = Secret::new(format!("ws://{}/", listener.local_addr().unwrap()));
    let server = tokio::spawn({
        let stop = stop.clone();
        async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut socket = accept_async(tcp).await.unwrap();
            // As by Ctrl-C.
            stop.cancel();
            until_closed(&mut socket).await;
        }
    });
    let draft = Draft::of(&args).unwrap();
    let trial = draft.trial().unwrap();
    let listened = listen(&trial, &draft, Secrets::default(), &args, stop)
        .await
        .unwrap();
    // It may be stopped before the handshake is seen to be done.
    if let Some(listened) = listened {
        let report = look(&draft, &draft, &listened, Vec::new()).await;
        assert!(
            report.config.contains("uri: ws://127.0.0.1:"),
            "{}",
            report.config
        );
        assert_eq!((report.create_table, report.messages), (None, 0));
        assert!(report.unknown[0].contains("--subscribe"), "{:?}", report.unknown);
    }
    server.await.unwrap();
}
