//! `socket-el probe`: what it prints is a configuration that `check` takes and the engine runs, and the table that the engine
//! then makes; and nothing secret is among it.

use std::fs;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::support::cluster::Database;
use crate::support::engine::{Feed, Process, Workspace};
use crate::support::eventually;

/// A feed of several kinds; no two of them give a key values of different types.
const FEED: [&str; 6] = [
    r#"{"type":"subscriptions","channels":["trades"]}"#,
    r#"{"type":"heartbeat","sequence":90}"#,
    r#"{"type":"trade","price":"0.00001305","size":985,"fee":0.25,"time":"2021-04-17T16:43:30.244075Z","maker":true}"#,
    r#"{"type":"trade","price":"14.7775","size":4,"fee":1.5,"time":"2021-04-17T16:43:37Z","it's":null}"#,
    r#"{"type":"book","bids":[["1.0","2"]],"E":1633998512068,"e":"x","":"no name"}"#,
    r#"{"type":"book","bids":[],"E":1633998512070,"e":"y","long":18446744073709551616}"#,
];

const CHECK: [&str; 5] = ["check", "-c", "config.yml", "--profiles", "profile.yml"];

/// Probes, which must end well, and gives the report.
async fn probe(workspace: &Workspace, arguments: &[&str]) -> Value {
    let mut process = workspace.start(&[&["probe", "--json"], arguments].concat());
    process.ends_with(0).await;
    serde_json::from_str(&process.stdout()).unwrap()
}

async fn checks(workspace: &Workspace, config: &str) -> String {
    workspace.write_config(config);
    let mut check = workspace.start(&CHECK);
    check.ends_with(0).await;
    check.stdout()
}

async fn columns(database: &Database, table: &str) -> Vec<String> {
    let rows = database
        .rows(&format!(
            "SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute \
             WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1"
        ))
        .await;
    rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runners_that_are_printed_pass_check_and_make_the_table_that_is_shown() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    fs::write(workspace.path().join("feed.jsonl"), FEED.join("\n")).unwrap();
    let feed = Feed::start(&workspace, &["--file", "feed.jsonl", "--repeat", "--rate", "500"]).await;
    let arguments = [
        &*feed.url,
        "--messages",
        "60",
        "--seconds",
        "600",
        "--name",
        "trades",
    ];
    let report = probe(&workspace, &arguments).await;
    assert_eq!(
        (
            report["messages"].as_u64(),
            report["handshake"]["status"].as_u64()
        ),
        (Some(60), Some(101))
    );
    assert_eq!(report["kinds"].as_array().unwrap().len(), 4);
    let config = report["config"].as_str().unwrap();
    assert!(config.contains("- { $.type: heartbeat }"), "{config}");

    // With every suggestion that stands in a comment, and as it is.
    let hint = "#    columns: { price: numeric, time: timestamptz }";
    assert!(config.contains(hint), "{config}");
    assert!(
        config.contains("#    columns: { E: 'timestamptz(ms)' }"),
        "{config}"
    );
    let all = config.replace("    #", "    ");
    let tables = checks(&workspace, &all).await;
    assert!(tables.contains("\"time\" timestamp with time zone"), "{tables}");
    checks(&workspace, config).await;

    // Other keys than the stage and the table take no part in it.
    let mut engine = workspace.run();
    engine
        .until("all kinds of messages are rows", async || {
            let question = "SELECT least(count(*) FILTER (WHERE size IS NOT NULL), count(*) FILTER (WHERE \"E\" IS NOT NULL)) FROM trades";
            database.count("trades").await.is_some_and(|count| count > 20)
                && database.number(question).await.is_some_and(|least| least > 5)
        })
        .await;
    engine.stops_cleanly().await;
    let shown = report["create_table"].as_str().unwrap();
    database.rows(&shown.replace("\"trades\"", "\"shown\"")).await;
    assert_eq!(
        columns(&database, "shown").await,
        columns(&database, "trades").await
    );
    let heartbeats = "SELECT count(*) FROM trades WHERE type NOT IN ('trade', 'book')";
    assert_eq!(database.number(heartbeats).await, Some(0));

    // The same messages in the same order, for people.
    let feed = Feed::start(&workspace, &["--file", "feed.jsonl", "--repeat", "--rate", "500"]).await;
    let arguments = [&["probe", &*feed.url], &arguments[1..]].concat();
    let mut text = workspace.start(&arguments);
    text.ends_with(0).await;
    let text = text.stdout().replace(&feed.url, report["uri"].as_str().unwrap());
    // How long it was silent depends on the machine.
    let untimed = |text: &str| -> String {
        let lines = text.trim_end().lines();
        lines
            .filter(|line| !line.contains("silence"))
            .flat_map(|line| [line, "\n"])
            .collect()
    };
    assert!(
        untimed(&text).contains(&untimed(config)) && text.contains(shown.trim_end()),
        "{text}"
    );
}

/// A server that tells whatever it was told, and what it was told.
async fn echo() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let told = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn({
        let told = Arc::clone(&told);
        async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let mut said = Vec::new();
                #[expect(clippy::result_large_err, reason = "the library's own type")]
                let note = |request: &Request, response: Response| {
                    said.push(request.uri().to_string());
                    for name in ["authorization", "x-api-key"] {
                        let value = request.headers().get(name);
                        said.push(value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned()));
                    }
                    Ok(response)
                };
                let Ok(mut socket) = accept_hdr_async(tcp, note).await else {
                    continue;
                };
                for line in &said {
                    let message = serde_json::json!({ "type": "echo", "you": line }).to_string();
                    let _ = socket.send(Message::text(message)).await;
                }
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        said.push(message.to_string());
                        let _ = socket.send(message).await;
                    }
                }
                told.lock().unwrap().push(said.join(" "));
            }
        }
    });
    (place, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_printed_even_if_the_server_sends_it_back_and_variables_stand_in_its_place() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let (place, told) = echo().await;
    let uri = format!("ws://ann1234:pa55w0rd@{place}/feed?symbol=btc&apikey=k3y%2Bk3y");
    let arguments = [
        "probe",
        &uri,
        "--header",
        "X-Api-Key: h34d3r-s3cr3t",
        "--subscribe",
        r#"{"op":"auth","args":["4rg-s3cr3t"]}"#,
        "--subscribe",
        r#"{"op":"subscribe","token":"t0k3n-s3cr3t","channel":"trades"}"#,
        "--messages",
        "5",
        "--name",
        "my_feed",
    ];
    let secrets = [
        "ann1234",
        "pa55w0rd",
        "k3y%2Bk3y",
        "h34d3r-s3cr3t",
        "4rg-s3cr3t",
        "t0k3n-s3cr3t",
    ];
    // As basic authentication has the user and password.
    let basic = "YW5uMTIzNDpwYTU1dzByZA==";
    let mut config = String::new();
    for form in [&[][..], &["--json"]] {
        let mut process = workspace.start(&[&arguments[..], form].concat());
        process.ends_with(0).await;
        let printed = process.stdout() + &process.stderr();
        for secret in secrets {
            assert!(!printed.contains(secret), "{secret} in {printed}");
        }
        if let Ok(report) = serde_json::from_str::<Value>(&process.stdout()) {
            report["config"].as_str().unwrap().clone_into(&mut config);
            let variables = report["variables"].as_array().unwrap();
            assert_eq!(variables.len(), secrets.len(), "{variables:?}");
        }
    }
    for shown in [
        format!(
            "uri: ws://${{MY_FEED_USER}}:${{MY_FEED_PASSWORD}}@{place}/feed?symbol=btc&apikey=${{MY_FEED_APIKEY}}"
        ),
        "X-Api-Key: '${X_API_KEY}'".to_owned(),
        "send: { op: auth, args: ['${MY_FEED_ARGS}'] }".to_owned(),
        "send: { op: subscribe, token: '${MY_FEED_TOKEN}', channel: trades }".to_owned(),
    ] {
        assert!(config.contains(&shown), "{shown} in {config}");
    }

    // With the variables set, the configuration says to the server what the command line has said.
    workspace.write_config(&config);
    let variables = [
        ("MY_FEED_USER", secrets[0]),
        ("MY_FEED_PASSWORD", secrets[1]),
        ("MY_FEED_APIKEY", secrets[2]),
        ("X_API_KEY", secrets[3]),
        ("MY_FEED_ARGS", secrets[4]),
        ("MY_FEED_TOKEN", secrets[5]),
    ];
    let binary = env!("CARGO_BIN_EXE_socket-el");
    let mut check = workspace.spawn(
        binary.as_ref(),
        &[&CHECK[..], &["--connect"]].concat(),
        &variables,
    );
    check.ends_with(0).await;
    let mut unset = workspace.start(&CHECK);
    unset.ends_with(2).await;
    assert!(
        unset.stderr().contains("MY_FEED_USER is not set"),
        "{}",
        unset.stderr()
    );
    // A connection is noted when it has ended.
    let all = || Some(told.lock().unwrap().clone()).filter(|told| told.len() == 3);
    let told = eventually("the server noted all connections", async || all(), String::new).await;
    let [probed, again, checked] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(probed, again);
    assert!(probed.starts_with(checked.as_str()), "{told:?}");
    let heard = format!(
        "/feed?symbol=btc&apikey={} Basic {basic} {}",
        secrets[2], secrets[3]
    );
    assert_eq!(*checked, heard);
    assert!(
        probed.contains(secrets[4]) && probed.contains(secrets[5]),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_fails_says_what_failed_and_how_to_mend_it() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let says = |process: &Process, parts: &[&str]| {
        let log = process.stderr();
        let said = log
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(said, "no line with {parts:?} in\n{log}");
    };
    // A port that nobody listens on, for a moment ago somebody did.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("ws://u:hidden@{}/", listener.local_addr().unwrap());
    drop(listener);
    let mut refused = workspace.start(&["probe", &nobody]);
    refused.ends_with(1).await;
    says(&refused, &["ERROR", "can't connect", "can't reach 127.0.0.1"]);
    assert!(!refused.stderr().contains("hidden"));

    let mut wrong = workspace.start(&["probe", "http://127.0.0.1/", "--set", "idle: { action: wait }"]);
    wrong.ends_with(2).await;
    says(&wrong, &["uri must begin with ws://", "idle.action"]);

    let mut usage = workspace.start(&["probe", "ws://127.0.0.1/", "--seconds", "0"]);
    usage.ends_with(2).await;

    let feed = Feed::start(&workspace, &["--rate", "100"]).await;
    let mut unanswered = workspace.start(&[
        "probe",
        &feed.url,
        "--subscribe",
        "{ expect: { $.ok: true } }",
        "--seconds",
        "1",
    ]);
    unanswered.ends_with(1).await;
    says(&unanswered, &["not subscribed within 1 s"]);
    let report = unanswered.stdout();
    assert!(
        report.contains("expect: { $.ok: true }") && report.contains("CREATE TABLE"),
        "{report}"
    );
}
