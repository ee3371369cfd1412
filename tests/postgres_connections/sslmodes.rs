//! Each `sslmode` against servers of every kind, as libpq's documentation says and as libpq does.

use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, IsCa, date_time_ymd};
use socket_el::private_postgres::PrivatePostgres;

use crate::rig::{Authority, Home, Made, login, self_signed, server};

const MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// What comes of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Plain,
    Tls,
    Fails,
}

/// Written as a letter for each mode: `p`lain, `t`ls, `-` for none.
fn outcomes(letters: &str) -> Vec<Outcome> {
    let outcome = |letter| match letter {
        'p' => Outcome::Plain,
        't' => Outcome::Tls,
        _ => Outcome::Fails,
    };
    letters.chars().map(outcome).collect()
}

async fn ours(home: &Home, server: &PrivatePostgres, mode: &str, root: Option<&Path>) -> (Outcome, String) {
    let root = root.map_or_else(String::new, |path| format!("  sslrootcert: {}\n", path.display()));
    let keys = login(server, "localhost") + &format!("  sslmode: {mode}\n{root}");
    match home.probe(&keys).await {
        Ok(said) if said.contains(", TLS 1.") => (Outcome::Tls, said),
        Ok(said) => {
            assert!(said.contains(", no TLS, user postgres, PostgreSQL "), "{said}");
            (Outcome::Plain, said)
        }
        Err(said) => {
            assert!(!said.contains(server.password()), "a password in: {said}");
            (Outcome::Fails, said)
        }
    }
}

/// What libpq does; `None` where there is no `psql`.
fn libpq(home: &Home, server: &PrivatePostgres, mode: &str, root: Option<&Path>) -> Option<Outcome> {
    let root = root.map_or_else(String::new, |path| format!(" sslrootcert={}", path.display()));
    let settings = format!(
        "host=localhost port={} user=postgres dbname=postgres sslmode={mode}{root} gssencmode=disable",
        server.port()
    );
    let output = Command::new("psql")
        .args(["-XAt", "-d", &settings, "-c"])
        .arg("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home.path())
        // Where root's home is that of the password database, HOME alone would not do.
        .env("PGSSLCERT", home.path().join("none.crt"))
        .env("PGSSLKEY", home.path().join("none.key"))
        .env("PGPASSWORD", server.password())
        .output()
        .ok()?;
    Some(match String::from_utf8_lossy(&output.stdout).trim() {
        "t" => Outcome::Tls,
        "f" => Outcome::Plain,
        _ => Outcome::Fails,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sslmode_does_with_every_server_what_libpq_does() {
    let home = Home::new();
    let authority = Authority::new();
    let good = authority.issue(&["localhost", "127.0.0.1"], "db", |_| {});
    let by_itself = self_signed(&["localhost"], |_| {});
    let own_authority = self_signed(&["localhost"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let other_host = authority.issue(&["other.example"], "localhost", |_| {});
    let by_common_name = authority.issue(&[], "localhost", |_| {});
    let wrong_common_name = authority.issue(&[], "other.example", |_| {});
    let expired = authority.issue(&["localhost"], "db", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let no_plain = ["hostnossl all all all reject"];
    let no_tls = ["hostssl all all all reject"];
    let root = home.file("root.pem", &authority.pem);
    let pinned = home.file("pinned.pem", &by_itself.cert);
    let pinned_authority = home.file("authority.pem", &own_authority.cert);
    let (none, root) = (None, Some(root.as_path()));
    let (pinned, pinned_authority) = (Some(pinned.as_path()), Some(pinned_authority.as_path()));
    // Server, then authorities and the outcomes for each.
    let table = [
        (
            "good",
            server(Some(&good), &[], &[]),
            vec![(none, "pptt--"), (root, "pptttt")],
        ),
        (
            "no TLS",
            server(None, &[], &[]),
            vec![(none, "ppp---"), (root, "ppp---")],
        ),
        (
            "self-signed",
            server(Some(&by_itself), &[], &[]),
            vec![(none, "pptt--"), (root, "ppp---"), (pinned, "pptttt")],
        ),
        (
            "authority of its own",
            server(Some(&own_authority), &[], &[]),
            vec![(none, "pptt--"), (root, "ppp---"), (pinned_authority, "pptttt")],
        ),
        (
            "other host",
            server(Some(&other_host), &[], &[]),
            vec![(none, "pptt--"), (root, "ppttt-")],
        ),
        (
            "common name",
            server(Some(&by_common_name), &[], &[]),
            vec![(root, "pptttt")],
        ),
        (
            "other common name",
            server(Some(&wrong_common_name), &[], &[]),
            vec![(root, "ppttt-")],
        ),
        (
            "expired",
            server(Some(&expired), &[], &[]),
            vec![(none, "pptt--"), (root, "ppp---")],
        ),
        (
            "only TLS 1.2",
            server(Some(&good), &[("ssl_max_protocol_version", "TLSv1.2")], &[]),
            vec![(root, "pptttt")],
        ),
        (
            "refuses without TLS",
            server(Some(&good), &[], &no_plain),
            vec![(none, "-ttt--"), (root, "-ttttt")],
        ),
        (
            "refuses with TLS",
            server(Some(&good), &[], &no_tls),
            vec![(none, "ppp---"), (root, "ppp---")],
        ),
    ];
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, server, rows) in &table {
        for (root, letters) in rows {
            for (mode, expected) in MODES.into_iter().zip(outcomes(letters)) {
                let (outcome, said) = ours(&home, server, mode, *root).await;
                let of_libpq = libpq(&home, server, mode, *root);
                compared += usize::from(of_libpq.is_some());
                if outcome != expected || of_libpq.is_some_and(|of_libpq| of_libpq != expected) {
                    wrong.push(format!(
                        "{name}, {mode}, root {root:?}: expected {expected:?}, libpq {of_libpq:?}, ours {outcome:?}: {said}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if compared > 0 {
        println!("compared with libpq: {compared}");
    } else {
        println!("NOT RUN: the comparison with libpq, for there is no psql");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_certificate_is_explained() {
    let home = Home::new();
    let authority = Authority::new();
    let root = home.file("root.pem", &authority.pem);
    let other = authority.issue(&["other.example"], "db", |_| {});
    let server = server(Some(&other), &[], &[]);
    let with = |mode: &str, root: &Path| {
        login(&server, "localhost") + &format!("  sslmode: {mode}\n  sslrootcert: {}\n", root.display())
    };
    let said = home.probe(&with("verify-full", &root)).await.unwrap_err();
    assert!(said.contains("for another host"), "{said}");
    let nobody = home.file("nobody.pem", &Authority::new().pem);
    let said = home.probe(&with("verify-ca", &nobody)).await.unwrap_err();
    assert!(said.contains("comes from nobody in `sslrootcert`"), "{said}");
}

/// As `openssl x509 -req` makes them, and PostgreSQL's documentation with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_x509_version_1_does_where_nothing_is_checked() {
    let home = Home::new();
    let (key, request, cert) = (
        home.path().join("k"),
        home.path().join("r"),
        home.path().join("c"),
    );
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| {
        let ran = Command::new("openssl")
            .args(arguments)
            .env("OPENSSL_CONF", "/dev/null")
            .output();
        ran.is_ok_and(|output| output.status.success())
    };
    let new = [
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
        &path(&key),
        "-out",
        &path(&request),
    ];
    let sign = [
        "x509",
        "-req",
        "-in",
        &path(&request),
        "-signkey",
        &path(&key),
        "-days",
        "30",
        "-out",
        &path(&cert),
    ];
    let is_old = || {
        let shown = Command::new("openssl")
            .args(["x509", "-noout", "-text", "-in", &path(&cert)])
            .output()
            .unwrap();
        String::from_utf8_lossy(&shown.stdout).contains("Version: 1 (0x0)")
    };
    if !(openssl(&new) && openssl(&sign) && is_old()) {
        println!("NOT RUN: there is no openssl, or one that makes no certificates of version 1");
        return;
    }
    let made = Made {
        cert: std::fs::read_to_string(&cert).unwrap(),
        key: std::fs::read_to_string(&key).unwrap(),
    };
    for newest in ["TLSv1.2", "TLSv1.3"] {
        let server = server(Some(&made), &[("ssl_max_protocol_version", newest)], &[]);
        for (mode, expected) in MODES.into_iter().zip(outcomes("pptt--")) {
            let (outcome, said) = ours(&home, &server, mode, None).await;
            assert_eq!(outcome, expected, "{newest}, {mode}: {said}");
            assert_eq!(
                libpq(&home, &server, mode, None).unwrap_or(expected),
                expected,
                "{newest}, {mode}"
            );
        }
        // As the root itself it does for everything.
        let (outcome, said) = ours(&home, &server, "verify-full", Some(&cert)).await;
        assert_eq!(outcome, Outcome::Tls, "{newest}: {said}");
    }
}
