//! Whatever the file holds, it is read or refused, within limits.

use proptest::prelude::*;

use super::*;

fn sample() -> &'static str {
    include_str!("../../../config.yml")
}

#[test]
fn a_few_lines_can_not_become_billions_of_values() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", "));
    }
    assert_eq!(
        mistakes(&text),
        ["config.yml:5:25: more than 50000 values, aliases written out"]
    );
}

#[test]
fn merges_count_like_values() {
    let keys: Vec<String> = (0..500).map(|key| format!("k{key}: 1")).collect();
    let mut text = format!("a: &a {{ {} }}\nb:\n", keys.join(", "));
    for _ in 0..1_000 {
        text += "  - { <<: *a }\n";
    }
    let found = mistakes(&text);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].ends_with("more than 50000 values, aliases written out"),
        "{found:?}"
    );
}

#[test]
fn deep_nesting_is_refused_written_out_or_by_aliases() {
    assert_eq!(
        mistakes(&format!("{}{}", "[".repeat(65), "]".repeat(65))),
        ["config.yml:1:65: nested deeper than 64 levels"]
    );
    assert_eq!(mistakes(&"[".repeat(100_000)).len(), 1);
    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        text += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    let found = mistakes(&text);
    assert_eq!(found.len(), 1);
    assert!(found[0].ends_with("nested deeper than 64 levels"), "{found:?}");
}

#[test]
fn an_alias_inside_of_what_it_names_is_refused() {
    assert_eq!(
        mistakes("runners: &a [*a]"),
        ["config.yml:1:14: an alias stands inside of what it names"]
    );
}

#[test]
fn large_files_and_files_that_are_no_text_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yml");
    for (content, message) in [
        (
            vec![b'#'; (1 << 20) + 1],
            "is larger than 1048576 bytes; is it a configuration at all?",
        ),
        (b"a: 1\nb: \xff\n".to_vec(), "is not UTF-8 text in line 2"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = Config::load(&path, &strict(), &LoadOptions::default()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn only_so_many_mistakes_are_listed() {
    let text: String = (0..1_000).map(|key| format!("key{key}: 1\n")).collect();
    assert_eq!(mistakes(&text).len(), 100);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics_the_loader(text: String) {
        let _ = load(&text);
    }

    #[test]
    fn text_of_yaml_signs_never_panics_the_loader(text in "[-a:{}\\[\\]&*!|>'\"%@`#?,. \t\n$~<0]{0,200}") {
        let _ = load(&text);
    }

    #[test]
    fn a_damaged_sample_never_panics_the_loader(
        edits in prop::collection::vec((0.0..1.0_f64, 0..40_usize, "[-a:{}\\[\\]&*!|>'\"#?, \n$<]{0,4}"), 1..6),
    ) {
        let mut characters: Vec<char> = sample().chars().collect();
        for (place, removed, inserted) in edits {
            let from = (place * characters.len() as f64) as usize;
            let to = (from + removed).min(characters.len());
            characters.splice(from..to, inserted.chars());
        }
        let text: String = characters.into_iter().collect();
        let _ = load_with(&text, &strict(), &[]);
        let _ = load(&text);
    }
}
