//! Verdicts on real databases. The child is this test binary, run again for [`a_child_of_the_trials_below`] alone.

use std::fs;

use super::super::disk::read_through;
use super::*;

const SETTINGS: SledSettings = SledSettings {
    segment_size: 1 << 16,
    cache_capacity: 1 << 20,
};

/// Holds a trial when one of the tests below starts it as a child; otherwise it has nothing to do.
#[test]
fn a_child_of_the_trials_below() {
    run_if_asked();
}

/// Like it, but one thread panics while another waits for it for ever.
#[test]
fn a_child_that_panics_on_another_thread() {
    if std::env::var_os(ENV_OPEN).is_some() {
        condemn_on_panic();
        std::thread::spawn(|| panic!("on page 7"));
        loop {
            std::thread::park();
        }
    }
}

/// This binary, running only the named test of this file.
fn only(test: &str) -> TrialCommand {
    TrialCommand::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .arg(format!("stage::local::trial::tests::{test}"))
        .arg("--nocapture")
}

fn this_binary() -> TrialCommand {
    only("a_child_of_the_trials_below")
}

fn shell(script: &str) -> TrialCommand {
    TrialCommand::new("/bin/sh").arg("-c").arg(script)
}

/// A directory with a database `g-1` of 2 MB that was sealed as generations are: closed, opened once, closed.
fn database() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("g-1");
    {
        let db = SETTINGS.config(&dir).open().unwrap();
        let tree = db.open_tree("websocket_1").unwrap();
        for number in 0..1000_u32 {
            tree.insert(number.to_be_bytes(), vec![number as u8; 2000])
                .unwrap();
        }
        db.flush().unwrap();
    }
    drop(open_again(&dir));
    (parent, dir)
}

/// sled's lock goes a moment after the database is dropped.
fn open_again(dir: &Path) -> sled::Db {
    for _ in 0..500 {
        match SETTINGS.config(dir).open() {
            Ok(db) => return db,
            Err(sled::Error::Io(_)) => std::thread::sleep(POLL),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the lock never went");
}

/// The verdict, after making sure that the database is untouched and nothing is left beside it.
fn verdict(command: &TrialCommand, parent: &Path, dir: &Path) -> Verdict {
    let before = read_through(dir).unwrap();
    let verdict = command.open_in_child(dir, SETTINGS);
    assert_eq!(read_through(dir).unwrap(), before, "the original was changed");
    let beside: Vec<_> = fs::read_dir(parent)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(beside, [dir], "something is left");
    verdict
}

#[test]
fn a_sound_database_is_found_sound() {
    let (parent, dir) = database();
    assert_eq!(verdict(&this_binary(), parent.path(), &dir), Verdict::Sound);
}

#[test]
fn a_database_with_overwritten_pages_is_condemned() {
    let (parent, dir) = database();
    // Every page: sled keeps whole segments that hold nothing any more, and damage to those alone harms no record.
    let damaged: Vec<_> = fs::read(dir.join("db"))
        .unwrap()
        .iter()
        .map(|byte| byte ^ 0x55)
        .collect();
    fs::write(dir.join("db"), damaged).unwrap();
    let verdict = verdict(&this_binary(), parent.path(), &dir);
    assert!(matches!(verdict, Verdict::Condemned(_)), "{verdict:?}");
}

#[test]
fn a_database_whose_configuration_is_garbage_is_condemned() {
    let (parent, dir) = database();
    fs::write(dir.join("conf"), b"not what sled wrote").unwrap();
    let verdict = verdict(&this_binary(), parent.path(), &dir);
    assert!(matches!(verdict, Verdict::Condemned(_)), "{verdict:?}");
}

#[test]
fn a_panic_on_any_thread_condemns() {
    let (parent, dir) = database();
    match verdict(
        &only("a_child_that_panics_on_another_thread"),
        parent.path(),
        &dir,
    ) {
        Verdict::Condemned(reason) => assert!(reason.contains("on page 7"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_that_do_not_fit_condemn_nothing() {
    let (_parent, dir) = database();
    let other = SledSettings {
        segment_size: 1 << 17,
        ..SETTINGS
    };
    let verdict = this_binary().open_in_child(&dir, other);
    assert!(matches!(verdict, Verdict::Unclear(_)), "{verdict:?}");
}

#[test]
fn a_child_that_was_killed_says_nothing_about_the_database() {
    let (parent, dir) = database();
    let killed = shell("echo 'socket-el trial: sound'; kill -9 $$");
    match verdict(&killed, parent.path(), &dir) {
        Verdict::Unclear(reason) => assert!(reason.contains("signal: 9"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_child_that_hangs_fails_or_cannot_be_started_says_nothing_either() {
    let (parent, dir) = database();
    let commands = [
        shell("exec sleep 1000").time_limit(Duration::from_millis(50)),
        shell("exit 0"),
        shell("echo 'socket-el trial: condemned: it said'; exit 3"),
        TrialCommand::new("/nonexistent/socket-el"),
    ];
    for command in commands {
        let verdict = verdict(&command, parent.path(), &dir);
        assert!(matches!(verdict, Verdict::Unclear(_)), "{verdict:?}");
    }
}

#[test]
fn what_the_child_could_not_do_for_want_of_space_or_rights_condemns_nothing() {
    assert!(is_of_the_machine(&io::ErrorKind::StorageFull.into()));
    assert!(is_of_the_machine(&io::ErrorKind::PermissionDenied.into()));
    assert!(!is_of_the_machine(&io::ErrorKind::UnexpectedEof.into()));
    let gone = this_binary().open_in_child(Path::new("/nonexistent/g-1"), SETTINGS);
    assert!(matches!(gone, Verdict::Unclear(_)), "{gone:?}");
}

#[test]
fn a_panic_outweighs_a_verdict_and_other_output_is_ignored() {
    let output = "test x ... socket-el trial: condemned: panic: y\nsocket-el trial: sound\nok\n";
    assert_eq!(said(output), Some(Verdict::Condemned("panic: y".to_owned())));
    assert_eq!(said("running 1 test\n"), None);
    assert_eq!(said("socket-el trial: soun"), None);
}
