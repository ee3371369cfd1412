//! `completions` and `man`.

use super::rig::*;

#[test]
fn completions_and_man_pages_know_every_command() {
    let rig = Rig::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = rig.run(&["completions", shell]);
        assert!(script.text().contains("verify"), "{shell}");
    }
    rig.run(&["completions", "cmd.exe"]).refused(2, "possible values");
    assert!(rig.run(&["man"]).text().contains(".SH SYNOPSIS"));
    let pages = rig.dir.path().join("man1");
    assert_eq!(rig.run(&["man", pages.to_str().unwrap()]).text(), "");
    for page in [
        "stage-inspect.1",
        "stage-inspect-list.1",
        "stage-inspect-verify.1",
    ] {
        assert!(pages.join(page).exists(), "{page}");
    }
    rig.run(&["man", "/proc/nowhere"]).refused(1, "");
}
