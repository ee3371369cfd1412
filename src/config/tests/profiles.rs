//! The profiles file.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const SINK: &str = "runners:
  - { name: feed, type: consumer, variety: socket, uri: ws://a, stage: { type: local, path: tmp } }
  - { name: sink, type: producer, variety: postgres, depends_on: [feed], profile: main }
";

/// A profiles file that only its owner may read.
fn written(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.yml");
    std::fs::write(&path, text).unwrap();
    set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

fn profiles_of(path: &Path) -> Profiles {
    Profiles::locate(Some(path), &Variables::fixed([("PW", "p:w }"), ("EMPTY", "")]))
}

fn load_named(path: &Path) -> Result<Loaded, ConfigError> {
    let options = LoadOptions {
        profiles: Some(path.to_owned()),
        variables: Variables::fixed([]),
    };
    Config::parse(Path::new("config.yml"), SINK, &strict(), &options)
}

#[test]
fn a_profile_is_typed_with_its_defaults() {
    let (_folder, path) = written(
        "main: { user: me, database: mine }
full: { user: u, password: \"${PW}\", database: d, host: /run/postgresql, port: 6543, schema: feeds }
empty: { user: u, password: \"${EMPTY}\", database: d, host: db.example }
",
    );
    let profiles = profiles_of(&path);
    let main = profiles.get("main").unwrap();
    assert_eq!((main.user.as_str(), main.database.as_str()), ("me", "mine"));
    assert_eq!(main.schema, "public");
    let server = Server {
        host: Host::Tcp("127.0.0.1".to_owned()),
        port: 5432,
        password: None,
    };
    assert_eq!(main.servers, [server]);
    assert_eq!(main.tls.mode, SslMode::Prefer);
    assert_eq!(main.tls.verification(), Verification::Nothing);
    assert_eq!(main.session_attrs, SessionAttrs::Any);
    let full = profiles.get("full").unwrap();
    let server = &full.servers[0];
    assert_eq!(server.password.as_ref().unwrap().expose(), "p:w }");
    assert_eq!(server.host, Host::UnixDirectory(PathBuf::from("/run/postgresql")));
    assert_eq!((server.port, full.schema.as_str()), (6543, "feeds"));
    assert!(!format!("{full:?}").contains("p:w"));
    assert_eq!(profiles.get("empty").unwrap().servers[0].password, None);
    assert_eq!(profiles.warnings(), Vec::<String>::new());
}

#[test]
fn mistakes_in_the_profile_that_is_asked_for_are_reported_with_those_of_the_configuration() {
    let (_folder, path) = written(
        "main:
  user: me
  password: [swordfish]
  databse: mine
  port: 70000
other: { nonsense: swordfish }
",
    );
    let error = load_named(&path).unwrap_err();
    let path = path.display();
    assert_eq!(
        lines(&error),
        [
            format!("config.yml:3:83: runners[1] (sink).profile: the profile `main` in {path} has mistakes"),
            format!("{path}:2:3: main.database: is missing"),
            format!("{path}:3:13: main.password: expected text"),
            format!("{path}:4:3: main.databse: unknown key; did you mean `database`?"),
            format!("{path}:5:9: main.port: must be from 1 to 65535"),
        ]
    );
}

#[test]
fn a_profile_that_is_missing_is_named_with_the_known_ones() {
    let (_folder, path) = written("first: { user: u, database: d }\nsecond: { user: u, database: d }\n");
    assert_eq!(
        lines(&load_named(&path).unwrap_err()),
        [format!(
            "config.yml:3:83: runners[1] (sink).profile: there is no profile `main` in {}; known here: first, second",
            path.display()
        )]
    );
}

#[test]
fn a_missing_file_matters_only_when_a_profile_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().to_str().unwrap();
    assert!(load_with(SINK, &permissive(), &[("HOME", home)]).is_ok());
    let error = load_with(SINK, &strict(), &[("HOME", home)]).unwrap_err();
    assert_eq!(
        lines(&error),
        [format!(
            "config.yml:3:83: runners[1] (sink).profile: there is no profiles file: looked for {home}/.socket_el/profile.yml; name another with --profiles FILE or SOCKET_EL_PROFILES, or write `main: {{ user: me, password: \"…\", database: mine }}` into it (mode 0600)"
        )]
    );
    let error = load_with(SINK, &strict(), &[]).unwrap_err().to_string();
    assert!(
        error.contains("looked for ~/.socket_el/profile.yml, but HOME is not set"),
        "{error}"
    );
}

#[test]
fn the_file_that_is_named_goes_before_the_variable_and_that_before_the_home_directory() {
    let (_one, named) = written("main: { user: named, database: d }");
    let (_two, by_variable) = written("main: { user: variable, database: d }");
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".socket_el")).unwrap();
    std::fs::write(
        home.path().join(".socket_el/profile.yml"),
        "main: { user: home, database: d }",
    )
    .unwrap();
    let home = home.path().to_str().unwrap();
    let all = Variables::fixed([("HOME", home), (PROFILES_VARIABLE, by_variable.to_str().unwrap())]);
    let only_home = Variables::fixed([("HOME", home), (PROFILES_VARIABLE, "")]);
    for (file, variables, user) in [
        (Some(named.as_path()), &all, "named"),
        (None, &all, "variable"),
        (None, &only_home, "home"),
    ] {
        assert_eq!(Profiles::locate(file, variables).get("main").unwrap().user, user);
    }
}

#[test]
fn a_file_that_others_can_read_is_a_warning() {
    let (_folder, path) = written("main: { user: me, database: mine }");
    set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let path = path.display();
    assert_eq!(
        load_named(Path::new(&path.to_string())).unwrap().warnings,
        [format!(
            "{path}: others can get at the passwords in it (mode 0640); run: chmod 600 {path}"
        )]
    );
}

#[test]
fn names_that_postgresql_would_cut_off_are_refused() {
    let (_folder, path) = written(&format!(
        "main: {{ user: u, database: d, schema: {}, port: 0, host: \"a b\" }}",
        "s".repeat(64)
    ));
    let error = load_named(&path).unwrap_err().to_string();
    for message in [
        "main.schema: must be 1 to 63 bytes, without NUL",
        "main.port: must be from 1 to 65535",
        "main.host: must be a name, an address, or the directory of a Unix socket",
    ] {
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn no_profiles_at_all_is_an_answer_too() {
    let error = Profiles::default().get("x").unwrap_err();
    assert!(matches!(error, ProfileError::NoFile { .. }), "{error}");
}

/// The lines that reading `main` gives, without the file's name.
fn mistakes(text: &str, variables: &Variables) -> Vec<String> {
    let (_folder, path) = written(text);
    let profiles = Profiles::locate(Some(&path), variables);
    assert!(profiles.get("main").is_err(), "{text}");
    let lines = profiles.mistakes();
    lines
        .iter()
        .map(|problem| {
            format!(
                "{}:{} {}: {}",
                problem.at.line, problem.at.column, problem.path, problem.message
            )
        })
        .collect()
}

fn profile(text: &str, variables: &Variables) -> Profile {
    let (_folder, path) = written(text);
    let profiles = Profiles::locate(Some(&path), variables);
    let found = profiles.get("main").cloned();
    found.unwrap_or_else(|error| panic!("{error}: {:?}", profiles.mistakes()))
}

#[test]
fn every_key_of_a_connection_is_read() {
    let all = profile(
        "main:
  user: u
  database: d
  host: [a, \"b, /run/pg\"]
  port: [1, 2, 3]
  sslmode: require
  channel_binding: require
  application_name: mine
  connect_timeout: 5
  target_session_attrs: read-write
  keepalives: 0
  keepalives_idle: 20
  keepalives_interval: 3s
  keepalives_count: 4
  tcp_user_timeout: 1500
  options: -c statement_timeout=0
",
        &Variables::fixed([]),
    );
    let servers: Vec<String> = all.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["a:1", "b:2", "/run/pg:3"]);
    assert_eq!(all.tls.mode, SslMode::Require);
    assert_eq!(all.channel_binding, ChannelBinding::Require);
    assert_eq!(all.application_name.as_deref(), Some("mine"));
    assert_eq!(all.connect_timeout, Some(Duration::from_secs(5)));
    assert_eq!(all.session_attrs, SessionAttrs::ReadWrite);
    let keepalives = Keepalives {
        enabled: false,
        idle: Some(Duration::from_secs(20)),
        interval: Some(Duration::from_secs(3)),
        count: Some(4),
    };
    assert_eq!(all.keepalives, keepalives);
    assert_eq!(all.tcp_user_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(all.options.as_deref(), Some("-c statement_timeout=0"));
}

#[test]
fn a_url_says_the_same_as_the_keys_and_never_both() {
    let by_url =
        "main: { schema: s, url: \"postgresql://me:p%40w@a:1,b:2/d?sslmode=require&connect_timeout=7\" }";
    let by_keys = "main: { schema: s, user: me, password: p@w, host: \"a,b\", port: \"1,2\", database: d, sslmode: require, connect_timeout: 7s }";
    let none = Variables::fixed([]);
    assert_eq!(profile(by_url, &none), profile(by_keys, &none));

    let both = "main: { url: \"postgresql://me:swordfish@a/d?sslmode=requir\", host: b, password: x, connect_timeout: 1 }";
    assert_eq!(
        mistakes(both, &none),
        [
            "1:14 main.url: sslmode in it unknown value `requir`; did you mean `require`?",
            "1:68 main.host: is set by `url`, too; keep one of the two",
            "1:81 main.password: is set by `url`, too; keep one of the two",
        ]
    );
    let broken = "main: { url: \"postgresql://me:swordfish%@a/d\" }";
    assert_eq!(
        mistakes(broken, &none),
        ["1:14 main.url: a % in it is not followed by two hexadecimal digits; write %25 for a literal %"]
    );
}

#[test]
fn mistakes_in_the_keys_of_a_connection_are_reported_together() {
    let text = "main:
  user: u
  database: d
  keepalive_interval: 1
  sslmode: verify-all
  sslcert: /nonexistent.crt
  target_session_attrs: standby
  connect_timeout: 0
  keepalives_idle: 100ms
  keepalives_count: 128
  application_name: \"ü\"
  host: [a, b]
  port: [1, 2, 3]
";
    assert_eq!(
        mistakes(text, &Variables::fixed([])),
        [
            "2:3 main.sslkey: is missing: a certificate is of no use without its private key",
            "4:3 main.keepalive_interval: unknown key; did you mean `keepalives_interval`?",
            "5:12 main.sslmode: unknown value `verify-all`; did you mean `verify-full`?",
            "7:25 main.target_session_attrs: must be any, read-write or primary: rows can't be written to a standby or a read-only server",
            "8:20 main.connect_timeout: must be more than 0: an attempt without an end would keep everything else waiting",
            "9:20 main.keepalives_idle: must be from 1s to 32767s, or 0 for what the system has",
            "10:21 main.keepalives_count: must be from 1 to 127, or 0 for what the system has",
            "11:21 main.application_name: must be at most 63 printable ASCII characters",
            "13:9 main.port: 3 ports do not fit 2 hosts; give one port for all of them, or one for each",
        ]
    );
}

/// A home directory with `.postgresql`, and variables that name it.
fn home() -> (TempDir, Variables) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    let variables = Variables::fixed([("HOME", home.path().to_str().unwrap())]);
    (home, variables)
}

#[test]
fn certificates_that_are_known_to_libpq_are_known_here_and_decide_what_is_checked() {
    let (home, variables) = home();
    let with = |mode: &str| format!("main: {{ user: u, database: d, {mode} }}");
    assert!(mistakes(&with("sslmode: verify-ca"), &variables)[0].contains("whom to trust"));
    assert!(
        mistakes(&with("sslmode: require, sslrootcert: system"), &variables)[0]
            .contains("must be verify-full")
    );
    let system = profile(&with("sslrootcert: system"), &variables).tls;
    assert_eq!((system.mode, system.roots), (SslMode::VerifyFull, Roots::System));

    let made = rcgen::generate_simple_self_signed(["db".to_owned()]).unwrap();
    let root = home.path().join(".postgresql/root.crt");
    std::fs::write(&root, made.cert.pem()).unwrap();
    for (mode, checked) in [
        ("sslmode: prefer", Verification::Authority),
        ("sslmode: require", Verification::Authority),
        ("sslmode: verify-ca", Verification::Authority),
        ("sslmode: verify-full", Verification::AuthorityAndHost),
    ] {
        let tls = profile(&with(mode), &variables).tls;
        assert_eq!(tls.verification(), checked, "{mode}");
        assert_eq!(tls.roots, Roots::File(root.clone()));
    }
    std::fs::write(&root, "swordfish").unwrap();
    let refused = mistakes(&with("sslmode: prefer"), &variables).join("\n");
    assert!(
        refused.contains("holds no certificate") && !refused.contains("swordfish"),
        "{refused}"
    );
}

#[test]
fn a_private_key_that_others_can_read_or_that_is_encrypted_is_refused() {
    let (home, variables) = home();
    let made = rcgen::generate_simple_self_signed(["me".to_owned()]).unwrap();
    let (cert, key) = (home.path().join("c.pem"), home.path().join("k.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    let text = format!(
        "main: {{ user: u, database: d, sslcert: {}, sslkey: {} }}",
        cert.display(),
        key.display()
    );
    let write = |pem: &str, mode| {
        std::fs::write(&key, pem).unwrap();
        set_permissions(&key, Permissions::from_mode(mode)).unwrap();
    };
    write(&made.signing_key.serialize_pem(), 0o600);
    assert!(profile(&text, &variables).tls.identity.is_some());
    write(&made.signing_key.serialize_pem(), 0o644);
    let refused = mistakes(&text, &variables).join("\n");
    assert!(
        refused.contains("main.sslkey") && refused.contains("chmod 600"),
        "{refused}"
    );
    write(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        0o600,
    );
    assert!(mistakes(&text, &variables)[0].contains("is encrypted"));
    write("nonsense", 0o600);
    assert!(mistakes(&text, &variables)[0].contains("no private key in PEM"));
}

#[test]
fn a_password_comes_from_the_profile_else_the_environment_else_the_password_file_of_each_host() {
    let (home, _) = home();
    let file = home.path().join(".pgpass");
    std::fs::write(&file, "a:*:*:*:for-a\nb:2:d:u:for-b\n").unwrap();
    set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let path = home.path().to_str().unwrap();
    let passwords = |own: &str, variables: &Variables| -> Vec<Option<String>> {
        let text = format!("main: {{ user: u, database: d, host: [a, b, c], port: 2, {own} }}");
        let servers = profile(&text, variables).servers;
        servers
            .iter()
            .map(|server| server.password.as_ref().map(|one| one.expose().to_owned()))
            .collect()
    };
    let all = |password: &str| vec![Some(password.to_owned()); 3];
    let both = Variables::fixed([("HOME", path), ("PGPASSWORD", "env")]);
    let only_file = Variables::fixed([("HOME", path), ("PGPASSWORD", "")]);
    assert_eq!(passwords("password: own", &both), all("own"));
    assert_eq!(passwords("", &both), all("env"));
    assert_eq!(
        passwords("password: \"\"", &only_file),
        [Some("for-a".to_owned()), Some("for-b".to_owned()), None]
    );
}

#[test]
fn a_password_on_its_way_to_another_machine_without_sure_encryption_is_one_warning() {
    for (keys, warned) in [
        ("host: db.example", true),
        ("host: db.example, sslmode: disable", true),
        ("host: db.example, sslmode: require", false),
        ("host: localhost", false),
        ("host: /tmp", false),
    ] {
        let (_folder, path) = written(&format!("main: {{ user: u, database: d, password: x, {keys} }}"));
        let profiles = Profiles::locate(Some(&path), &Variables::fixed([]));
        profiles.get("main").unwrap();
        let warnings = profiles.warnings();
        assert_eq!(warnings.len(), usize::from(warned), "{keys}: {warnings:?}");
    }
}
