//! The sample `config.yml` at the top of the project.

use std::path::PathBuf;
use std::time::Duration;

use super::super::units::ByteSize;
use super::*;
use crate::producer::Start;

fn sample() -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

fn names(config: &Config) -> (Vec<&str>, Vec<&str>) {
    (
        config
            .consumers
            .iter()
            .map(|runner| runner.name.as_str())
            .collect(),
        config
            .producers
            .iter()
            .map(|runner| runner.name.as_str())
            .collect(),
    )
}

#[test]
fn the_sample_is_sound_and_wires_two_feeds_to_one_sink() {
    let (path, _) = sample();
    let Loaded { config, warnings } = Config::load(&path, &permissive(), &LoadOptions::default()).unwrap();
    assert_eq!(
        names(&config),
        (vec!["websocket_1", "websocket_2"], vec!["postgres"])
    );
    assert_eq!(config.producers[0].depends_on, ["websocket_1", "websocket_2"]);
    assert_eq!(config.producers[0].start, Start::Oldest);
    assert_eq!(warnings, Vec::<String>::new());
    let first = config.consumer("websocket_1").unwrap();
    assert_eq!(first.stage, config.consumers[1].stage);
    assert_eq!(
        first.stage,
        StageConfig {
            path: std::env::current_dir()
                .unwrap()
                .canonicalize()
                .unwrap()
                .join("tmp"),
            durability: Durability::Fsync,
            retention: Retention {
                age: Span(Duration::from_secs(86_400)),
                bytes: ByteSize(1 << 30),
            },
            max_bytes: ByteSize(10 << 30),
            on_full: OnFull::Block,
        }
    );
    assert_eq!(first.batch.messages, 100);
    assert_eq!(first.batch.bytes, ByteSize(1 << 20));
    assert_eq!(first.batch.interval, Span(Duration::from_millis(200)));
    assert_eq!(config.producers_of("websocket_2").count(), 1);
}

#[test]
fn the_settings_that_the_sample_shows_in_comments_are_the_defaults() {
    let (path, text) = sample();
    let with_all_keys: String = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix('#') {
            Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase()) => {
                format!("{}{key}\n", &line[..line.len() - key.len() - 1])
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(with_all_keys.contains("\n      durability: fsync"));
    let load = |text: &str| Config::parse(&path, text, &permissive(), &LoadOptions::default()).unwrap();
    let (given, default) = (load(&with_all_keys).config, load(&text).config);
    assert_eq!(given.consumers[0].stage, default.consumers[0].stage);
    assert_eq!(given.consumers[0].batch, default.consumers[0].batch);
    assert_eq!(given.producers[0].start, default.producers[0].start);
}

/// Settings that only mean something beside another one.
const BESIDE: [(&str, &str); 2] = [("identity", "connections: 2"), ("window", "connections: 2")];

#[test]
fn each_setting_that_the_sample_shows_in_comments_works_as_it_stands() {
    let (path, text) = sample();
    let dir = tempfile::tempdir().unwrap();
    let profiles = dir.path().join("profile.yml");
    std::fs::write(&profiles, "postgres: { user: u, database: d, host: h }\n").unwrap();
    let options = LoadOptions {
        profiles: Some(profiles),
        ..LoadOptions::default()
    };
    let lines: Vec<_> = text.lines().collect();
    let (mut tried, mut wrong) = (0, Vec::new());
    for (number, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let Some(setting) = line
            .trim_start()
            .strip_prefix('#')
            .map(|rest| rest.strip_prefix(' ').unwrap_or(rest))
        else {
            continue;
        };
        let key = setting.split(':').next().unwrap_or_default();
        if indent.is_empty()
            || key.is_empty()
            || !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            continue;
        }
        let mut setting = format!("{indent}{setting}");
        if let Some((_, other)) = BESIDE.iter().find(|(beside, _)| *beside == key) {
            setting = format!("{setting}\n{indent}{other}");
        }
        let mut changed = lines.clone();
        changed[number] = &setting;
        if let Err(error) = Config::parse(
            &path,
            &changed.join("\n"),
            &crate::commands::builtin_registry(),
            &options,
        ) {
            wrong.push(format!("{line}\n{error}"));
        }
        tried += 1;
    }
    assert!(tried > 30, "only {tried} settings were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
