//! The profiles file.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

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
    let expected = Profile {
        user: "me".to_owned(),
        password: None,
        database: "mine".to_owned(),
        host: Host::Tcp("127.0.0.1".to_owned()),
        port: 5432,
        schema: "public".to_owned(),
    };
    assert_eq!(profiles.get("main").unwrap(), &expected);
    let full = profiles.get("full").unwrap();
    assert_eq!(full.password.as_ref().unwrap().expose(), "p:w }");
    assert_eq!(full.host, Host::UnixDirectory(PathBuf::from("/run/postgresql")));
    assert_eq!((full.port, full.schema.as_str()), (6543, "feeds"));
    assert!(!format!("{full:?}").contains("p:w"));
    assert_eq!(profiles.get("empty").unwrap().password, None);
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
            format!("{path}:5:9: main.port: expected a whole number from 0 to 65535"),
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
