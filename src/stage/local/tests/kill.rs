//! A real process, really killed: whatever it said was staged is there, exactly once.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::RngExt;

use super::support::*;
use crate::stage::local::LocalPath;

/// In the child's environment: the path to append to.
const ENV_PATH: &str = "SOCKET_EL_KILL_TEST_PATH";

/// How often the child is killed.
const ENV_KILLS: &str = "SOCKET_EL_KILLS";
const DEFAULT_KILLS: u32 = 10;

const SAYS: &str = "staged ";

/// Appends for ever and says what is staged, when the test below starts it as a child; otherwise it has nothing to do.
#[test]
fn a_child_that_appends() {
    let Some(path) = std::env::var_os(ENV_PATH) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let local = LocalPath::open(options(Path::new(&path)), &roles()).unwrap();
        let stage = local.stage(STAGE).unwrap();
        println!("\n{SAYS}open");
        for number in 0_u64.. {
            let sizes = (0..number % 7 + 1).map(|n| 1000 * n as usize);
            let payloads = sizes.map(|size| payload(number, size)).collect();
            for (offset, payload) in append(&stage, payloads).await {
                let line = format!("{SAYS}{offset} {number} {}\n", payload.len());
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        }
    });
}

/// Runs the child for a while, kills it, and returns what it said.
fn run_and_kill(path: &Path, after: Duration) -> Vec<Numbered> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "stage::local::tests::kill::a_child_that_appends",
            "--nocapture",
        ])
        .env(ENV_PATH, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reading = std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix(SAYS).map(str::to_owned))
            .filter_map(|said| {
                let numbers: Vec<u64> = said.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
                let [offset, number, bytes] = numbers[..] else {
                    return None;
                };
                Some((offset, payload(number, usize::try_from(bytes).unwrap())))
            })
            .collect()
    });
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap()
}

#[tokio::test]
async fn every_message_that_a_killed_process_called_staged_reads_back_exactly() {
    let kills = std::env::var(ENV_KILLS).ok().and_then(|kills| kills.parse().ok());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stage");
    let mut said: Vec<Numbered> = Vec::new();
    for _ in 0..kills.unwrap_or(DEFAULT_KILLS) {
        let after = Duration::from_millis(rand::rng().random_range(1..600));
        let new = run_and_kill(&path, after);
        let next = said.last().map_or(0, |(offset, _)| offset + 1);
        assert!(
            new.first().is_none_or(|(offset, _)| *offset >= next),
            "an offset is given twice"
        );
        said.extend(new);
    }
    assert!(!said.is_empty(), "the child never got to append");
    let (_local, stage) = open(&path);
    let read: std::collections::BTreeMap<_, _> = read_all(&stage).await.0.into_iter().collect();
    for (offset, payload) in &said {
        assert_eq!(
            read.get(offset),
            Some(payload),
            "offset {offset} of {}",
            said.len()
        );
    }
}
