//! A small stage path that is served, and raw requests to it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::control::{Control, Status};
use crate::record::{Batch, Offset, Timestamp};
use crate::stage::local::trial::TrialCommand;
use crate::stage::local::{LocalOptions, LocalPath, StageRole};
use crate::stage::remote::SOCKET_NAME;
use crate::stage::{Appended, ReadLimit, ReadOutcome, SharedStage};

pub(super) const STAGE: &str = "trades";
pub(super) const PRODUCER: &str = "postgres";

/// Long enough for anything on a busy machine; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that a small stage holds.
pub(super) const ALL: ReadLimit = ReadLimit {
    messages: 100_000,
    bytes: 64 << 20,
};

/// Small generations, so that they roll.
pub(super) fn options(path: &Path) -> LocalOptions {
    let trial = TrialCommand::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .arg("stage::local::trial::tests::a_child_of_the_trials_below")
        .arg("--nocapture");
    let mut options = LocalOptions::new(path);
    let tuning = &mut options.tuning;
    tuning.seal_bytes = 200 << 10;
    tuning.segment_bytes = 1 << 18;
    tuning.open_cache_bytes = 1 << 20;
    tuning.sealed_cache_bytes = 1 << 20;
    // What is read comes from the disk, as over the socket.
    tuning.ring_bytes = 0;
    tuning.min_free = 0;
    tuning.reserve_bytes = 64 << 10;
    tuning.reservation = 1000;
    tuning.trial = Some(trial);
    options
}

pub(super) fn open(path: &Path) -> Arc<LocalPath> {
    let roles = [StageRole {
        name: STAGE.to_owned(),
        producers: vec![PRODUCER.to_owned()],
    }];
    Arc::new(LocalPath::open(options(path), &roles).unwrap())
}

/// An engine: a path with its socket.
pub(super) struct Engine {
    pub(super) local: Arc<LocalPath>,
    pub(super) stage: SharedStage,
    control: Control,
}

impl Engine {
    pub(super) fn start(path: &Path) -> Self {
        let local = open(path);
        let control = Control::start(Arc::clone(&local), Arc::new(Status::default)).unwrap();
        let stage = local.stage(STAGE).unwrap();
        Self {
            local,
            stage,
            control,
        }
    }

    pub(super) async fn stop(self) {
        self.control.stop().await;
        self.local.close().unwrap();
    }
}

/// Appends one batch and waits until it is staged.
pub(super) async fn append(stage: &SharedStage, payloads: &[Vec<u8>]) -> Offset {
    let mut batch = Batch::default();
    for (number, payload) in (0..).zip(payloads) {
        assert!(batch.push(payload, Timestamp::from_micros(number)));
    }
    let accepted = stage.append(batch).await.unwrap();
    let Appended::Staged { end, .. } = accepted.durable().await.unwrap() else {
        panic!("not staged");
    };
    end
}

/// Appends `count` messages.
pub(super) async fn fill(stage: &SharedStage, count: u64) -> Offset {
    let payloads: Vec<_> = (0..count)
        .map(|number| format!("message {number}").into_bytes())
        .collect();
    append(stage, &payloads).await
}

/// Messages of a read with their offsets and times.
pub(super) fn messages(outcome: &ReadOutcome, from: Offset) -> Vec<(u64, i64, Vec<u8>)> {
    outcome
        .batches
        .iter()
        .flat_map(|batch| batch.messages_from(from))
        .map(|(offset, message)| {
            (
                offset.get(),
                message.received_at.micros(),
                message.payload.to_vec(),
            )
        })
        .collect()
}

/// Sends bytes as they are, and reads all that comes back until the engine closes the connection.
pub(super) async fn raw(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path.join(SOCKET_NAME)).await.unwrap();
    // The engine may close it before all is written; what it says is what counts.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request of one line, after whose answer the connection ends.
pub(super) async fn ask(path: &Path, line: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(path, request.as_bytes()).await;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Waits until `done`; how often it is asked does not change what is asked.
pub(super) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
