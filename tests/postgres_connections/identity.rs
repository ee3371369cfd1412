//! Who the client says it is: certificates, channel binding, the password file.

use crate::rig::{Authority, Home, login, server, server_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_logs_in_where_the_server_asks_for_one() {
    let home = Home::new();
    let authority = Authority::new();
    let good = authority.issue(&["localhost"], "db", |_| {});
    let server = server_with(
        Some(&good),
        &[("ssl_ca_file", "root.crt")],
        &["hostssl all loader all cert"],
        &[("root.crt", &authority.pem)],
    );
    server
        .query(
            "postgres",
            "CREATE ROLE loader LOGIN; GRANT CREATE ON SCHEMA public TO loader",
        )
        .await
        .unwrap();
    let (mine, others) = (
        authority.issue(&[], "loader", |_| {}),
        authority.issue(&[], "somebody", |_| {}),
    );
    let root = home.file("root.pem", &authority.pem);
    let base = format!(
        "  user: loader\n  database: postgres\n  host: localhost\n  port: {}\n  sslmode: verify-full\n  sslrootcert: {}\n",
        server.port(),
        root.display()
    );
    let with = |name: &str, made: &crate::rig::Made| {
        let cert = home.file(&format!("{name}.crt"), &made.cert);
        let key = home.file(&format!("{name}.key"), &made.key);
        format!(
            "{base}  sslcert: {}\n  sslkey: {}\n",
            cert.display(),
            key.display()
        )
    };
    let said = home.probe(&with("mine", &mine)).await.unwrap();
    assert!(said.contains("user loader"), "{said}");
    let said = home.probe(&with("others", &others)).await.unwrap_err();
    assert!(said.contains("28000"), "{said}");
    assert!(home.probe(&base).await.is_err());
    // The places where libpq looks, too.
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    home.file(".postgresql/postgresql.crt", &mine.cert);
    home.file(".postgresql/postgresql.key", &mine.key);
    home.probe(&base).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn channel_binding_that_is_required_works_with_tls_and_fails_without() {
    let home = Home::new();
    let authority = Authority::new();
    let server = server(Some(&authority.issue(&["localhost"], "db", |_| {})), &[], &[]);
    let keys = |mode, binding| {
        login(&server, "localhost") + &format!("  sslmode: {mode}\n  channel_binding: {binding}\n")
    };
    for (mode, binding, works) in [
        ("require", "require", true),
        ("require", "prefer", true),
        ("require", "disable", true),
        ("disable", "prefer", true),
        ("disable", "require", false),
    ] {
        let outcome = home.probe(&keys(mode, binding)).await;
        assert_eq!(outcome.is_ok(), works, "{mode} {binding}: {outcome:?}");
        if let Err(said) = outcome {
            assert!(said.contains("channel_binding: require"), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_logs_in_and_without_one_the_error_says_where_passwords_come_from() {
    let home = Home::new();
    let server = server(None, &[], &[]);
    let keys = format!(
        "  url: postgresql://postgres@127.0.0.1:{}/postgres\n  application_name: mine\n",
        server.port()
    );
    let said = home.probe(&keys).await.unwrap_err();
    assert!(said.contains("~/.pgpass"), "{said}");
    home.file(
        ".pgpass",
        &format!("127.0.0.1:{}:*:postgres:{}\n", server.port(), server.password()),
    );
    home.probe(&keys).await.unwrap();
    home.file(".pgpass", "*:*:*:*:swordfish\n");
    let said = home.probe(&keys).await.unwrap_err();
    assert!(said.contains("28P01") && !said.contains("swordfish"), "{said}");
}
