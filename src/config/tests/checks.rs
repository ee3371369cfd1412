//! Rules that concern several keys or runners.

use super::*;

/// The lines about `text` that remain when those about the missing profile are left out.
fn mistakes_besides_profile(text: &str) -> Vec<String> {
    lines(&load(text).unwrap_err())
}

#[test]
fn a_file_without_runners_is_refused() {
    for text in ["", "# nothing\n", "runners:\n"] {
        assert_eq!(
            mistakes(text),
            ["config.yml:1:1: runners: is missing: the list of consumers and producers"],
            "{text:?}"
        );
    }
    assert_eq!(
        mistakes("runners: []"),
        ["config.yml:1:10: runners: must hold at least one runner"]
    );
    assert_eq!(
        mistakes("runners: {}"),
        ["config.yml:1:10: runners: expected a list, found a mapping"]
    );
    assert_eq!(
        mistakes("runers: []"),
        [
            "config.yml:1:1: runners: is missing: the list of consumers and producers",
            "config.yml:1:1: runers: unknown key; known here: runners",
        ]
        .map(|line| line.replace("known here: runners", "did you mean `runners`?"))
    );
}

#[test]
fn a_file_that_is_not_there_is_named_with_what_to_do() {
    let error = Config::load(
        Path::new("/nowhere/config.yml"),
        &strict(),
        &LoadOptions::default(),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nowhere/config.yml: can't be read: No such file or directory (os error 2). Name another file with -c, or write one with `socket-el init`"
    );
}

#[test]
fn names_are_unique_over_both_types() {
    let text =
        with_consumer_keys("    stage: { type: local, path: tmp }").replace("name: sink", "name: feed");
    assert_eq!(
        mistakes_besides_profile(&text),
        ["config.yml:7:13: runners[1] (feed).name: is the name of another runner already, in line 2"]
    );
}

#[test]
fn a_name_of_63_characters_is_the_longest() {
    let with_name = |name: &str| {
        with_consumer_keys("    stage: { type: local, path: tmp }")
            .replace("name: feed", &format!("name: {name}"))
            .replace("[feed]", &format!("[{name}]"))
    };
    assert!(load(&with_name(&"n".repeat(63))).is_ok());
    for name in [&"n".repeat(64), "ä", "a.b", "\"\""] {
        let found = mistakes_besides_profile(&with_name(name));
        assert!(
            found[0].ends_with("name: must be 1 to 63 of the characters A-Z a-z 0-9 _ -"),
            "{found:?}"
        );
    }
}

#[test]
fn types_of_runners_and_stages_are_listed_when_unknown() {
    let text = with_consumer_keys("    stage: { type: s3, bucket: b }");
    assert_eq!(
        mistakes_besides_profile(&text),
        ["config.yml:6:20: runners[0] (feed).stage.type: unknown type of stage; known here: local"]
    );
    let text = text.replace("type: producer", "type: transformer");
    assert!(
        mistakes_besides_profile(&text)
            .contains(&"config.yml:7:25: runners[1] (sink).type: unknown type of runner; known here: consumer, producer".to_owned())
    );
}

#[test]
fn an_unknown_variety_is_answered_with_the_known_ones() {
    let text = with_consumer_keys("    stage: { type: local, path: tmp }")
        .replace("variety: socket", "variety: kafka");
    assert_eq!(
        mistakes_besides_profile(&text),
        ["config.yml:4:14: runners[0] (feed).variety: unknown variety `kafka`; known here: socket"]
    );
}

#[test]
fn a_producer_depends_on_known_consumers_once_each() {
    let with = |depends_on: &str| {
        with_consumer_keys("    stage: { type: local, path: tmp }").replace("[feed]", depends_on)
    };
    for (depends_on, message) in [
        ("[]", "depends_on: must name at least one consumer"),
        ("[feed, feed]", "depends_on[1]: `feed` is named twice"),
        (
            "[feet]",
            "depends_on[0]: there is no consumer `feet`; did you mean `feed`?",
        ),
        (
            "[feed, sink]",
            "depends_on[1]: `sink` is no consumer; a producer delivers the stages of consumers",
        ),
        ("feed", "depends_on: expected a list, found text"),
    ] {
        assert_eq!(
            mistakes_besides_profile(&with(depends_on)),
            [format!("config.yml:7:66: runners[1] (sink).{message}")]
        );
    }
    assert_eq!(
        mistakes_besides_profile(&with("~")),
        ["config.yml:7:5: runners[1] (sink).depends_on: is missing"]
    );
}

#[test]
fn a_consumer_that_nobody_delivers_is_a_warning() {
    let text = "runners:
  - { name: lonely, type: consumer, variety: socket, stage: { type: local, path: tmp } }
";
    assert_eq!(
        load(text).unwrap().warnings,
        ["config.yml:2:5: runners[0] (lonely): no producer delivers it: its stage grows up to max_bytes"]
    );
}

#[test]
fn stages_of_one_path_must_agree_however_the_path_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    std::fs::create_dir(real.join("data")).unwrap();
    std::os::unix::fs::symlink(real.join("data"), real.join("link")).unwrap();
    let text = format!(
        "runners:
  - {{ name: a, type: consumer, variety: socket, stage: {{ type: local, path: {real}/data }} }}
  - {{ name: b, type: consumer, variety: socket, stage: {{ type: local, path: {real}/none/../link/., on_full: drop_oldest, retention: {{ age: 1h }} }} }}
  - {{ name: c, type: consumer, variety: socket, stage: {{ type: local, path: {real}/elsewhere, on_full: drop_newest }} }}
  - {{ name: sink, type: producer, variety: postgres, depends_on: [a, b, c] }}
",
        real = real.display()
    );
    assert_eq!(
        mistakes_besides_profile(&text),
        [format!(
            "config.yml:3:5: runners[1] (b).stage: the runners `a` and `b` share the path {}/data and must agree on retention ({{ age: 1d, bytes: 1GiB }} and {{ age: 1h, bytes: 1GiB }}), on_full (block and drop_oldest)",
            real.display()
        )]
    );
    let agreed = text.replace(", on_full: drop_oldest, retention: { age: 1h }", "");
    assert_eq!(load(&agreed).unwrap().config.consumers.len(), 3);
}

#[test]
fn a_path_that_only_a_shell_understands_is_refused() {
    let text = with_consumer_keys("    stage: { type: local, path: ~/data }");
    assert_eq!(
        mistakes_besides_profile(&text),
        [
            "config.yml:6:33: runners[0] (feed).stage.path: `~` is not replaced here; write ${HOME} in its place"
        ]
    );
}

#[test]
fn durability_is_fsync_or_an_interval_within_limits() {
    let with = |durability: &str| {
        load(&with_consumer_keys(&format!(
            "    stage: {{ type: local, path: tmp, durability: {durability} }}"
        )))
    };
    assert_eq!(
        with("interval(200ms)").unwrap().config.consumers[0]
            .stage
            .durability
            .to_string(),
        "interval(200ms)"
    );
    for (durability, message) in [
        (
            "interval(0s)",
            "interval(…) must be from 1ms to 1h; fsync is the one that loses nothing",
        ),
        (
            "interval(5)",
            "interval(…): `5` lacks its unit: one of ms, s, m, h or d, as in 200ms or 20s",
        ),
        ("interval", "expected fsync or interval(200ms), found `interval`"),
    ] {
        assert!(
            with(durability).unwrap_err().to_string().ends_with(message),
            "{durability}"
        );
    }
}

#[test]
fn stages_are_read_without_the_varieties_and_variables_of_their_runners() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yml");
    let text = "runners:
  - { name: feed, type: consumer, variety: none, uri: \"${UNSET}\", stage: { type: local, path: /nowhere/x } }
  - { name: sink, type: producer, variety: none, depends_on: [feed], profile: 5 }
";
    std::fs::write(&path, text).unwrap();
    let stages = load_stages(&path, &Variables::fixed([])).unwrap();
    assert_eq!(stages.len(), 1);
    assert_eq!(stages[0].name, "feed");
    assert_eq!(stages[0].config.path, Path::new("/nowhere/x"));
    assert_eq!(stages[0].producers, ["sink"]);

    std::fs::write(&path, text.replace("type: local", "type: locl")).unwrap();
    let error = load_stages(&path, &Variables::fixed([])).unwrap_err().to_string();
    assert!(
        error.ends_with("stage.type: unknown type of stage; did you mean `local`?"),
        "{error}"
    );
}
