//! Mistakes carry line, column and path; variables, aliases and merges keep them right.

use super::*;

#[test]
fn five_mistakes_are_reported_together_each_with_its_place() {
    let text = "\
runners:
  - name: websocket_1
    type: consumer
    variety: socket
    stage:
      type: local
      path: tmp
      durability: sometimes
    batch_configuration:
      sise: 100
      interval: 20
  - name: post gres
    type: producer
    variety: postgress
    depends_on: [websocket_2]
";
    assert_eq!(
        mistakes(text),
        [
            "config.yml:2:5: runners[0] (websocket_1).uri: is missing",
            "config.yml:8:19: runners[0] (websocket_1).stage.durability: expected fsync or interval(200ms), found `sometimes`",
            "config.yml:10:7: runners[0] (websocket_1).batch_configuration.sise: unknown key; did you mean `size`?",
            "config.yml:11:17: runners[0] (websocket_1).batch_configuration.interval: `20` lacks its unit: one of ms, s, m, h or d, as in 200ms or 20s",
            "config.yml:12:11: runners[1] (post gres).name: must be 1 to 63 of the characters A-Z a-z 0-9 _ -",
            "config.yml:14:14: runners[1] (post gres).variety: unknown variety `postgress`; did you mean `postgres`?",
            "config.yml:15:17: runners[1] (post gres).depends_on[0]: there is no consumer `websocket_2`; did you mean `websocket_1`?",
        ]
    );
}

#[test]
fn what_is_no_yaml_is_reported_with_its_place() {
    let found = mistakes("runners:\n  - name: [a\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("config.yml:3:"), "{found:?}");
    assert!(found[0].contains("this is no YAML: "), "{found:?}");
    assert_eq!(
        mistakes("a: 1\n---\nb: 2\n"),
        ["config.yml:2:1: a second document begins here; a configuration is a single one"]
    );
    assert_eq!(
        mistakes("runners: !new []\n"),
        ["config.yml:1:10: tags (`!…`) have no meaning here; quote a text that begins with `!`"]
    );
    assert_eq!(
        mistakes("- a\n"),
        ["config.yml:1:1: expected a mapping, found a list"]
    );
}

#[test]
fn a_key_that_stands_twice_is_a_mistake() {
    let text = with_consumer_keys("    stage: { type: local, path: tmp, path: tmp2 }");
    assert!(
        mistakes(&text)
            .contains(&"config.yml:6:38: runners[0].stage.path: stands twice; first in line 6".to_owned()),
        "{:?}",
        mistakes(&text)
    );
}

#[test]
fn a_value_of_a_wrong_kind_says_what_is_wanted_and_not_what_it_is() {
    let text = with_consumer_keys(
        "    stage: { type: local, path: [tmp], on_full: blok, retention: 5, max_bytes: {} }
    batch_configuration: { size: many, bytes: 0, interval: 2h }
    headers: { a: b, c: { d: e } }",
    );
    let found = mistakes(&text);
    let expected = [
        "config.yml:6:33: runners[0] (feed).stage.path: expected text, found a list",
        "config.yml:6:49: runners[0] (feed).stage.on_full: unknown value `blok`; did you mean `block`?",
        "config.yml:6:66: runners[0] (feed).stage.retention: expected a mapping, found a single value",
        "config.yml:6:80: runners[0] (feed).stage.max_bytes: expected a number of bytes such as 65536, 64KiB, 1MiB or 10GB, found a mapping",
        "config.yml:7:34: runners[0] (feed).batch_configuration.size: expected a whole number from 0 to 18446744073709551615, found text",
        "config.yml:7:47: runners[0] (feed).batch_configuration.bytes: must be from 1B to 64MiB",
        "config.yml:7:60: runners[0] (feed).batch_configuration.interval: must be from 1ms to 1h",
        "config.yml:8:25: runners[0] (feed).headers.c: expected text, found a mapping",
    ];
    assert_eq!(found[..expected.len()], expected);
}

#[test]
fn an_unknown_key_without_a_near_one_is_answered_with_the_known_ones() {
    let text = with_consumer_keys("    stage: { type: local, path: tmp, zzz: 1 }");
    assert!(
        mistakes(&text).contains(
            &"config.yml:6:38: runners[0] (feed).stage.zzz: unknown key; known here: durability, retention, max_bytes, on_full"
                .to_owned()
        ),
        "{:?}",
        mistakes(&text)
    );
}

#[test]
fn variables_are_replaced_in_every_value_and_typed_by_what_is_wanted() {
    let text = with_consumer_keys(
        "    stage: { type: local, path: \"${DIR:-tmp}/x\", max_bytes: \"${MAX}\" }
    batch_configuration:
      size: ${N:-7}
      interval: \"${INTERVAL}\"",
    );
    let variables = [("MAX", "50MiB"), ("INTERVAL", "3s"), ("DIR", "/nowhere/at/all")];
    let config = load_with(&text, &permissive(), &variables).unwrap().config;
    let consumer = &config.consumers[0];
    assert_eq!(consumer.stage.path, Path::new("/nowhere/at/all/x"));
    assert_eq!(consumer.stage.max_bytes.to_string(), "50MiB");
    assert_eq!(consumer.batch.messages, 7);
    assert_eq!(consumer.batch.interval.to_string(), "3s");
}

#[test]
fn a_variable_can_not_change_the_shape_of_the_file() {
    let text = with_consumer_keys("    stage: { type: local, path: \"${DIR}\" }");
    let config = load_with(&text, &permissive(), &[("DIR", "/x }\n  - name: evil")])
        .unwrap()
        .config;
    assert_eq!(config.consumers.len(), 1);
    assert_eq!(config.consumers[0].stage.path, Path::new("/x }\n  - name: evil"));
}

#[test]
fn every_unset_variable_is_reported_with_its_place() {
    let text = with_consumer_keys(
        "    stage: { type: local, path: \"${NO_DIR}\" }
    headers:
      one: ${NO_ONE}
      two: ${NO_TWO}",
    );
    let found = mistakes(&text);
    for (line, name) in [
        ("config.yml:6:33: runners[0] (feed).stage.path", "NO_DIR"),
        ("config.yml:8:12: runners[0] (feed).headers.one", "NO_ONE"),
        ("config.yml:9:12: runners[0] (feed).headers.two", "NO_TWO"),
    ] {
        let start = format!(
            "{line}: the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
        );
        assert!(
            found.iter().any(|found| found.starts_with(&start)),
            "{start}\n{found:?}"
        );
    }
}

#[test]
fn what_a_variable_holds_is_never_part_of_a_message() {
    let text = with_consumer_keys(
        "    stage: { type: local, path: /tmp, max_bytes: \"${SECRET}\", on_full: \"${SECRET}\" }
    batch_configuration: { interval: \"${NUMBER}\", size: \"${SECRET}\" }
    ping: { interval: ${SECRET} }
    headers: [ \"${SECRET}\" ]",
    )
    .replace("interval: ${SECRET}", "interval: \"${SECRET}\"");
    let secrets = [("SECRET", "hunter2-hunter2"), ("NUMBER", "31415926")];
    let error = load_with(&text, &strict(), &secrets).unwrap_err();
    assert!(error.problems().len() >= 6, "{error}");
    for (_, secret) in secrets {
        assert!(!error.to_string().contains(secret), "{error}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
    assert!(error.to_string().contains("found `${SECRET}`"), "{error}");

    let error = Section::read_text(
        "uri: ws://${TOKEN}",
        &Variables::fixed([("TOKEN", "a b")]),
        |section| {
            let uri: Option<String> = section.optional("uri");
            section.problem("uri", &format!("{} has a blank in it", uri.unwrap_or_default()));
        },
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.yml:1:6: uri: ws://${TOKEN} has a blank in it"
    );
}

#[test]
fn aliases_and_merges_repeat_what_they_name_and_own_keys_win() {
    let text = "\
runners:
  - &base
    name: one
    type: consumer
    variety: socket
    uri: ws://a
    stage: &stage { type: local, path: /nowhere/stage }
  - { <<: *base, name: two, stage: { <<: *stage, max_bytes: 200MiB, path: /nowhere/other } }
  - { name: three, type: consumer, variety: socket, uri: ws://b, stage: *stage }
  - { name: sink, type: producer, variety: postgres, depends_on: [one, two, three] }
";
    let config = load(text).unwrap().config;
    let stages: Vec<_> = config
        .consumers
        .iter()
        .map(|runner| {
            (
                runner.name.as_str(),
                runner.stage.path.to_str().unwrap(),
                runner.stage.max_bytes.to_string(),
            )
        })
        .collect();
    assert_eq!(
        stages,
        [
            ("one", "/nowhere/stage", "10GiB".to_owned()),
            ("two", "/nowhere/other", "200MiB".to_owned()),
            ("three", "/nowhere/stage", "10GiB".to_owned()),
        ]
    );
}

#[test]
fn text_needs_no_quotes_and_null_is_absent() {
    let read = |text: &str| {
        Section::read_text(text, &Variables::fixed([]), |section| {
            (
                section.optional::<String>("text"),
                section.optional::<u16>("number"),
                section.optional::<bool>("flag"),
                section.optional::<f64>("fraction"),
            )
        })
        .unwrap()
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        read("text: 0123\nnumber: 0123\nflag: true\nfraction: 1.5"),
        (text("0123"), Some(123), Some(true), Some(1.5))
    );
    assert_eq!(
        read("text: \"null\"\nnumber: ~\nfraction: 2"),
        (text("null"), None, None, Some(2.0))
    );
    assert_eq!(
        read("text: true\nnumber:\nflag: null"),
        (text("true"), None, None, None)
    );
    assert_eq!(read("text: nan"), (text("nan"), None, None, None));
    let variables = Variables::fixed([("N", "8"), ("YES", "true"), ("EMPTY", ""), ("NULL", "null")]);
    let made_of_variables = Section::read_text(
        "{ text: \"${N}\", number: \"${N}\", flag: \"${YES}\" }",
        &variables,
        |section| {
            (
                section.optional::<String>("text"),
                section.optional::<u16>("number"),
                section.optional::<bool>("flag"),
            )
        },
    );
    assert_eq!(made_of_variables.unwrap(), (text("8"), Some(8), Some(true)));
    for (written, value) in [("${EMPTY}", ""), ("${NULL}", "null")] {
        let found = Section::read_text(&format!("text: {written}"), &variables, |section| {
            section.optional::<String>("text")
        });
        assert_eq!(
            found.unwrap(),
            text(value),
            "a value made of variables is never null"
        );
    }
    assert_eq!(read(""), (None, None, None, None));
}
