//! A process that appends to a stage until it is ended, and the check that everything it acknowledged reads back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use socket_el::record::{Batch, Offset, Timestamp};
use socket_el::stage::local::{LocalOptions, LocalPath, Retention, StageRole, Tuning, trial};
use socket_el::stage::{Appended, ReadLimit};

/// Set in the process that appends: the directory of the stage path.
const APPEND_TO: &str = "SOCKET_EL_TEST_APPEND_TO";
const STAGE: &str = "websocket_1";
const PRODUCER: &str = "postgres";

/// So many of the last messages are never acknowledged by the producer, and must be there.
const PENDING: u64 = 20_000;

/// What was acknowledged: first offset → the offset after the last message, and the first message's number.
pub(crate) type Acknowledged = BTreeMap<u64, (u64, u64)>;

fn open(path: &Path) -> LocalPath {
    // Small generations, so that the end falls into rolling, sealing and dropping too; but of more than one segment: sled fills
    // its first one with zeros when it makes the file, so that only beyond it are there blocks which an `fdatasync`
    // has to make known to the file.
    let tuning = Tuning {
        seal_bytes: 12 << 20,
        min_free: 0,
        reserve_bytes: 0,
        ..Tuning::default()
    };
    let retention = Retention {
        age: Duration::ZERO,
        bytes: 0,
    };
    let options = LocalOptions {
        tuning,
        retention,
        ..LocalOptions::new(path)
    };
    let roles = [StageRole {
        name: STAGE.to_owned(),
        producers: vec![PRODUCER.to_owned()],
    }];
    LocalPath::open(options, &roles).unwrap()
}

/// To be called first in the test: does the work of a child, if this process is one, and then never returns.
pub(crate) fn be_a_child_if_asked() {
    trial::run_if_asked();
    if let Some(path) = std::env::var_os(APPEND_TO) {
        append_for_ever(Path::new(&path));
    }
}

fn append_for_ever(path: &Path) -> ! {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let opened = open(path);
        let stage = opened.stage(STAGE).unwrap();
        let mut number = 0_u64;
        loop {
            let mut batch = Batch::with_capacity(200, 40_000);
            let first_number = number;
            // Now and then a message of many records.
            if rand::random_range(0..50) == 0 {
                assert!(batch.push(&large_payload(number), Timestamp::now()));
                number += 1;
            }
            for _ in 0..rand::random_range(1..200) {
                assert!(batch.push(&payload(number), Timestamp::now()));
                number += 1;
            }
            let first_is_large = batch.get(0).is_some_and(|message| message.payload.len() > LARGE);
            let appended = stage.append(batch).await.unwrap().durable().await.unwrap();
            let Appended::Staged { first, end } = appended else {
                panic!("nothing is dropped here")
            };
            let line = format!(
                "staged {first} {end} {}\n",
                first_number * 2 + u64::from(first_is_large)
            );
            std::io::stdout().write_all(line.as_bytes()).unwrap();
            stage
                .ack(PRODUCER, Offset::new(end.get().saturating_sub(PENDING)))
                .await
                .unwrap();
        }
    })
}

const LARGE: usize = 300_000;

/// Does not compress away.
fn payload(number: u64) -> Vec<u8> {
    let noise: String = (0..8)
        .map(|i| format!("{:016x}", (number + i).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    format!("{{\"number\":{number},\"noise\":\"{noise}\"}}").into_bytes()
}

fn large_payload(number: u64) -> Vec<u8> {
    (0..)
        .flat_map(|i| payload(number ^ (i << 32)))
        .take(LARGE + 1)
        .collect()
}

/// The child that appends; ended and waited for when dropped.
pub(crate) struct Appender {
    pub(crate) child: Child,
    said: Option<JoinHandle<Acknowledged>>,
    begun: Receiver<()>,
}

impl Appender {
    /// Starts it: this binary, running only the named test.
    pub(crate) fn start(test: &str, stage: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(APPEND_TO, stage)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, begun) = channel();
        let said = std::thread::spawn(move || {
            let lines = stdout
                .lines()
                .map_while(Result::ok)
                .filter_map(|line| parse(&line));
            lines.inspect(|_| tell.send(()).unwrap_or_default()).collect()
        });
        Self {
            child,
            said: Some(said),
            begun,
        }
    }

    /// Waits until it has acknowledged something, or has ended by itself.
    pub(crate) fn wait_for_begin(&self) {
        self.begun.recv().ok();
    }

    /// Kills it, and returns all that it had acknowledged.
    pub(crate) fn kill(mut self) -> Acknowledged {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said.take().unwrap().join().unwrap()
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn parse(line: &str) -> Option<(u64, (u64, u64))> {
    // The test harness prints its own beginning of a line in front of the first one.
    let line = line.split_once("staged ")?.1;
    let mut numbers = line.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, (next()?, next()?)))
}

/// Opens the stage as the next start does, and reads all that was ever acknowledged and may not be dropped yet. Returns
/// how many messages these were.
pub(crate) fn check(path: &Path, acknowledged: &Acknowledged, round: u32) -> u64 {
    let mut before = 0;
    for (&first, &(end, _)) in acknowledged {
        assert!(
            first >= before,
            "offset {first} was given twice, in round {round}"
        );
        before = end;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let opened = open(path);
        let stage = opened.stage(STAGE).unwrap();
        // From here on nothing may be dropped.
        let cursor = stage.cursor(PRODUCER).unwrap_or_default();
        let (mut found, mut gaps, mut from) = (BTreeMap::new(), Vec::new(), cursor);
        loop {
            let read = stage
                .read(
                    from,
                    ReadLimit {
                        messages: 10_000,
                        bytes: 1 << 20,
                    },
                )
                .await
                .unwrap();
            for batch in &read.batches {
                found.extend(
                    batch
                        .messages_from(from)
                        .map(|(at, message)| (at.get(), message.payload.to_vec())),
                );
            }
            gaps.extend(read.gaps);
            if read.next == from {
                break;
            }
            from = read.next;
        }
        let mut checked = 0;
        for (&first, &(end, number)) in acknowledged {
            let (number, first_is_large) = (number / 2, number % 2 == 1);
            for offset in first.max(cursor.get())..end {
                let number = number + offset - first;
                let is_large = first_is_large && offset == first;
                let expected = if is_large {
                    large_payload(number)
                } else {
                    payload(number)
                };
                let found = found.get(&offset);
                let is = found.map_or("missing", |_| "another message");
                let about = format!("from {cursor} up to {from}, {:?}, with {gaps:?}", stage.bounds());
                assert!(
                    found == Some(&expected),
                    "offset {offset} is {is} in round {round}, reading {about}; large: {is_large}"
                );
                checked += 1;
            }
        }
        opened.close().unwrap();
        checked
    })
}
