//! A stage path of small generations, and the binary that looks into it.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use socket_el::record::{Batch, Offset, Timestamp};
use socket_el::stage::envelope::Codec;
use socket_el::stage::local::{LocalOptions, LocalPath, StageRole, Tuning};
use socket_el::stage::{Outage, OutageKind, SharedStage};
use tempfile::TempDir;

pub(crate) const STAGE: &str = "trades";
pub(crate) const PRODUCER: &str = "postgres";

/// Messages of one batch.
pub(crate) const BATCH: u64 = 10;

/// 2026-11-24T00:00:00Z, when the first message came; each other one came a second later.
const START: i64 = 1_795_478_400_000_000;

/// A directory with a stage path, removed in the end.
pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) path: PathBuf,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tmp");
        Self { dir, path }
    }

    /// A closed path of about four generations: so many batches, of which none is delivered.
    pub(crate) async fn with_batches(batches: u64) -> Self {
        let rig = Self::new();
        let local = rig.open();
        append(&stage(&local), 0, batches).await;
        local.close().unwrap();
        rig
    }

    /// Opens the path as an engine does, with generations of about 40 messages.
    pub(crate) fn open(&self) -> LocalPath {
        self.open_with(&[StageRole {
            name: STAGE.to_owned(),
            producers: vec![PRODUCER.to_owned()],
        }])
    }

    pub(crate) fn open_with(&self, roles: &[StageRole]) -> LocalPath {
        let mut options = LocalOptions::new(&self.path);
        options.tuning = Tuning {
            seal_bytes: 40 << 10,
            codec: Codec::None,
            min_free: 0,
            reserve_bytes: 64 << 10,
            reservation: 1000,
            housekeeping: Duration::from_millis(20),
            ..Tuning::default()
        };
        LocalPath::open(options, roles).unwrap()
    }

    /// Runs `stage-inspect --path` with these arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stage-inspect"));
        command.arg("--path").arg(&self.path).args(arguments);
        command
    }

    /// Runs it as a user who may read the path but not write to it, with the temporary directory `tmp`.
    pub(crate) fn run_read_only(&self, arguments: &[&str], tmp: &Path) -> Ran {
        const NOBODY: u32 = 65_534;
        let mut command = self.command(arguments);
        command.env("TMPDIR", tmp).stdin(Stdio::null());
        let is_root = std::fs::metadata("/proc/self").unwrap();
        if std::os::unix::fs::MetadataExt::uid(&is_root) == 0 {
            // Root may write anywhere.
            give_to(self.dir.path(), NOBODY);
            command.uid(NOBODY).gid(NOBODY).current_dir("/");
        }
        set_modes(&self.path, 0o500, 0o400);
        let ran = Ran::of(command.output().unwrap());
        set_modes(&self.path, 0o700, 0o600);
        ran
    }

    /// The extent `first..end` of the stage in each generation.
    pub(crate) fn extents(&self) -> Vec<(u64, u64)> {
        let local = LocalPath::inspect(&self.path, &[]).unwrap();
        let summary = local.overview();
        local.close().unwrap();
        let extents = summary.generations.iter().filter_map(|generation| {
            let extent = generation.extents.get(STAGE)?;
            Some((extent.first.get(), extent.end.get()))
        });
        extents.collect()
    }
}

fn give_to(path: &Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give_to(&entry.unwrap().path(), uid);
        }
    }
}

fn set_modes(path: &Path, directory: u32, file: u32) {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = |mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    if path.is_dir() {
        // To list it needs its rights.
        mode(0o700);
        for entry in std::fs::read_dir(path).unwrap() {
            set_modes(&entry.unwrap().path(), directory, file);
        }
        mode(directory);
    } else {
        mode(file);
    }
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The standard output, if it went well.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.stdout
    }

    /// The standard output as JSON, however it went.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The standard output as lines of JSON.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// Fails unless it ended with this code and these words on the standard error.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(words), "{words}: {self:?}");
    }
}

pub(crate) fn stage(local: &LocalPath) -> SharedStage {
    local.stage(STAGE).unwrap()
}

/// The message of a number: JSON of about 1 kB.
pub(crate) fn payload(number: u64) -> String {
    format!(
        "{{\"seq\":{number},\"price\":1.50,\"pad\":\"{}\"}}",
        ".".repeat(960)
    )
}

pub(crate) fn received(number: u64) -> Timestamp {
    Timestamp::from_micros(START + i64::try_from(number).unwrap() * 1_000_000)
}

/// Appends so many batches of messages, beginning with message number `first`.
pub(crate) async fn append(stage: &SharedStage, first: u64, batches: u64) {
    for batch in 0..batches {
        let begin = first + batch * BATCH;
        let messages: Vec<_> = (begin..begin + BATCH).map(payload).collect();
        append_payloads(stage, begin, messages.iter().map(String::as_bytes)).await;
    }
}

/// Appends one batch; its messages were received as their numbers say.
pub(crate) async fn append_payloads<'a>(
    stage: &SharedStage,
    first: u64,
    payloads: impl Iterator<Item = &'a [u8]>,
) {
    let mut batch = Batch::default();
    for (number, payload) in (first..).zip(payloads) {
        assert!(batch.push(payload, received(number)));
    }
    stage.append(batch).await.unwrap().durable().await.unwrap();
}

pub(crate) async fn ack(stage: &SharedStage, producer: &str, next: u64) {
    stage.ack(producer, Offset::new(next)).await.unwrap();
}

pub(crate) fn outage(cause: &str) -> Outage {
    Outage {
        from: received(1),
        to: received(2),
        messages: 0,
        cause: cause.to_owned(),
        kind: OutageKind::Disconnected,
    }
}
