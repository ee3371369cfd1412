//! Several hosts: which is taken, and what is said when none will do.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use socket_el::private_postgres::PrivatePostgres;

use crate::rig::{Home, server, server_with};

/// A port where nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Keys for servers on 127.0.0.1 at these ports, all with the password of their cluster by way of `.pgpass`.
fn keys(home: &Home, ports: &[u16], servers: &[&PrivatePostgres], more: &str) -> String {
    let lines: String = servers
        .iter()
        .map(|server| format!("*:{}:*:*:{}\n", server.port(), server.password()))
        .collect();
    home.file(".pgpass", &lines);
    let hosts = vec!["127.0.0.1"; ports.len()].join(", ");
    format!(
        "  user: postgres\n  database: postgres\n  host: [{hosts}]\n  port: {ports:?}\n{}",
        more.lines().map(|line| format!("  {line}\n")).collect::<String>()
    )
}

fn is_with(said: &str, server: &PrivatePostgres) -> bool {
    said.contains(&format!("connected to 127.0.0.1:{},", server.port()))
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_tried_in_order_until_one_takes_writes() {
    let home = Home::new();
    let standby = server_with(None, &[], &[], &[("standby.signal", "")]);
    let read_only = server(None, &[("default_transaction_read_only", "on")], &[]);
    let primary = server(None, &[], &[]);
    let dead = closed_port();
    let all = [&standby, &read_only, &primary];
    let ports = [dead, standby.port(), read_only.port(), primary.port()];

    // A session can be made to write where that is only a default.
    for (attrs, expected) in [
        ("any", &read_only),
        ("primary", &read_only),
        ("read-write", &primary),
    ] {
        let keys = keys(&home, &ports, &all, &format!("target_session_attrs: {attrs}"));
        let said = home.probe(&keys).await.unwrap();
        assert!(is_with(&said, expected), "{attrs}: {said}");
    }

    let keys = keys(&home, &ports[..3], &all, "target_session_attrs: read-write");
    let said = home.probe(&keys).await.unwrap_err();
    for part in [
        format!("127.0.0.1:{dead}: error connecting to server: Connection refused"),
        format!(
            "127.0.0.1:{}: the server is a standby in recovery",
            standby.port()
        ),
        format!(
            "127.0.0.1:{}: the server is read-only by default",
            read_only.port()
        ),
    ] {
        assert!(said.contains(&part), "{part} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_accepts_and_says_nothing_is_given_up_after_connect_timeout() {
    let home = Home::new();
    let primary = server(None, &[], &[]);
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let begun = Instant::now();
    let alone = keys(&home, &[port], &[&primary], "connect_timeout: 300ms");
    let said = home.probe(&alone).await.unwrap_err();
    assert!(said.contains("no session after 0.3 s"), "{said}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let first = keys(
        &home,
        &[port, primary.port()],
        &[&primary],
        "connect_timeout: 300ms\nsslmode: require",
    );
    // TLS is waited for as well; the other host has none, which is another reason.
    let said = home.probe(&first).await.unwrap_err();
    assert!(
        said.contains("no session after 0.3 s") && said.contains("does not support TLS"),
        "{said}"
    );
    let first = keys(&home, &[port, primary.port()], &[&primary], "connect_timeout: 2s");
    let said = home.probe(&first).await.unwrap();
    assert!(is_with(&said, &primary), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_ends_the_search_as_in_libpq() {
    let home = Home::new();
    let (first, second) = (server(None, &[], &[]), server(None, &[], &[]));
    let ports = [first.port(), second.port()];
    let keys = keys(&home, &ports, &[&second], "");
    home.file(
        ".pgpass",
        &format!("*:{}:*:*:wrong\n*:*:*:*:{}\n", first.port(), second.password()),
    );
    let said = home.probe(&keys).await.unwrap_err();
    assert!(
        said.contains("28P01") && !said.contains(&format!(":{}: ", second.port())),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_a_unix_socket_is_a_host_whatever_sslmode_says() {
    let home = Home::new();
    let server = server(None, &[], &[]);
    let directory = server.socket_dir().display();
    let keys = format!(
        "  user: postgres\n  database: postgres\n  host: {directory}\n  port: {}\n  sslmode: require\n",
        server.port()
    );
    let said = home.probe(&keys).await.unwrap();
    assert!(said.contains("no TLS"), "{said}");
}
