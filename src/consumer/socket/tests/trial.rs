//! A trial sees what a consumer goes through, and keeps nothing.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::super::trial::{Role, Seen, Trial, TrialEnd};
use super::support::Server;
use crate::config::{Section, Variables};

fn trial(server: &Server, keys: &str) -> Trial {
    let text = format!("uri: {}\n{keys}", server.uri());
    Section::read_text(&text, &Variables::default(), Trial::read)
        .unwrap()
        .unwrap()
}

/// An event in words.
fn said(seen: Seen<'_>) -> String {
    match seen {
        Seen::Message(role, payload) => format!("{role:?} {}", String::from_utf8_lossy(payload)),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn each_event_is_told_in_its_order_and_pings_are_sent_as_often_as_is_wished() {
    let server = Server::listen().await;
    let keys = "subscribe: [{ send: hello }, { expect: { regex: '^welcome' } }]\ncontrol: [{ $.type: hb }]";
    let mut trial = trial(&server, keys);
    trial.ping_within(Duration::from_millis(1));
    let stop = CancellationToken::new();
    let serving = async {
        let mut socket = server.accept().await;
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        for text in ["early", "welcome", r#"{"type":"hb"}"#] {
            socket.send(Message::text(text)).await.unwrap();
        }
        socket.send(Message::Ping("now".into())).await.unwrap();
        // Reading answers pings.
        while let Some(Ok(_)) = socket.next().await {}
    };
    let mut events = Vec::new();
    let listening = async {
        let connected = trial.connect().await.unwrap();
        connected
            .listen(&stop, |_, seen| {
                if !matches!(seen, Seen::PingSent) {
                    events.push(said(seen));
                }
                // The answer to one of our pings is the last that is waited for.
                if matches!(seen, Seen::Pong) {
                    stop.cancel();
                }
            })
            .await
    };
    let (end, ()) = tokio::join!(listening, serving);
    assert_eq!(end, TrialEnd::Stopped);
    // When the first pong comes is up to the clock.
    events.retain(|event| event != "Pong");
    let all = [
        "Data early",
        "Answer welcome",
        "Subscribed",
        "Control {\"type\":\"hb\"}",
        "Ping",
    ];
    assert_eq!(events, all[..events.len()]);
    assert!(events.len() >= 2, "{events:?}");
}

#[tokio::test]
async fn a_connection_that_the_server_closes_ends_the_trial_with_the_cause() {
    let server = Server::listen().await;
    let trial = trial(&server, "");
    let stop = CancellationToken::new();
    let serving = async {
        let mut socket = server.accept().await;
        socket.send(Message::Binary(vec![0, 0xff].into())).await.unwrap();
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    let mut data = Vec::new();
    let listening = async {
        let connected = trial.connect().await.unwrap();
        connected
            .listen(&stop, |at, seen| {
                if let Seen::Message(Role::Data, payload) = seen {
                    assert!(at.micros() > 0);
                    data.push(payload.to_vec());
                }
            })
            .await
    };
    let (end, ()) = tokio::join!(listening, serving);
    assert_eq!(data, [[0, 0xff]]);
    let cause = "closed by the server without a code (1005)".to_owned();
    assert_eq!(end, TrialEnd::Lost(cause));
}

#[tokio::test]
async fn messages_are_heard_again_as_the_session_would_have_heard_them() {
    let server = Server::listen().await;
    let keys = "subscribe:\n  - send: one\n  - expect: { $.id: 1 }\n    reject: { $.ok: false }\n  - send: two\n  \
                - expect: { $.id: 2 }\ncontrol: [{ $.type: hb }]";
    let trial = trial(&server, keys);
    let messages = [
        r#"{"id":2}"#,
        r#"{"id":1}"#,
        r#"{"type":"hb"}"#,
        r#"{"id":2}"#,
        r#"{"id":2}"#,
    ];
    let roles = trial
        .rehear(messages.iter().map(|text| text.as_bytes()))
        .await
        .unwrap();
    assert_eq!(
        roles,
        [Role::Data, Role::Answer, Role::Control, Role::Answer, Role::Data]
    );
    let refused = [r#"{"ok":false}"#];
    let roles = trial
        .rehear(refused.iter().map(|text| text.as_bytes()))
        .await
        .unwrap();
    assert_eq!(roles, [Role::Refusal]);
}
