//! A disk that is really full: the stage lies on a small file system of its own in memory, others fill it up to the last
//! block, and everything that was acknowledged must come back, without a restart, as soon as there is room.
//!
//! This needs root, for it mounts; otherwise the tests say that they are skipped. Two of them fill the disk while the engine
//! writes. It asks for room before it begins something, and what others take between the asking and the writing ends the
//! path until the next start, as documented: so those two are run by hand, with `SOCKET_EL_FULL_DISK=1`.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use socket_el::record::{Batch, Offset, Timestamp};
use socket_el::stage::envelope::Codec;
use socket_el::stage::local::{
    LocalOptions, LocalPath, OnFull, OpenError, Retention, StageRole, Tuning, disk,
};
use socket_el::stage::{Appended, GapCause, ReadLimit, SharedStage};

const STAGE: &str = "websocket_1";
const PRODUCER: &str = "postgres";
const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 56 * MIB;

/// Long enough for anything on a busy machine; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small file system in memory, mounted until dropped.
struct Disk {
    mount: tempfile::TempDir,
}

impl Disk {
    /// As [`mount`](Self::mount), for a test that may lose the race with the engine; `None` as well unless it is asked for.
    fn mount_for_a_race() -> Option<Self> {
        if std::env::var_os("SOCKET_EL_FULL_DISK").is_none() {
            println!("skipped: set SOCKET_EL_FULL_DISK=1 to run it");
            return None;
        }
        Self::mount()
    }

    /// `None`, with the reason printed, where nothing can be mounted.
    fn mount() -> Option<Self> {
        let mount = tempfile::tempdir().unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"])
            .arg(mount.path())
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self { mount }),
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                println!("skipped, for nothing can be mounted: {reason}");
                None
            }
            Err(error) => {
                println!("skipped, for there is no mount program: {error}");
                None
            }
        }
    }

    fn stage(&self) -> PathBuf {
        self.mount.path().join("stage")
    }

    /// Takes every free byte for somebody else.
    fn fill(&self) -> Ballast {
        let path = self.ballast();
        self.fill_up();
        Ballast { path }
    }

    /// Takes all but `left` bytes for somebody else. The engine writes at the same time: what it took since the free space
    /// was asked for can be too much, and then it is asked for again.
    fn fill_but(&self, left: u64) -> Ballast {
        let path = self.ballast();
        let file = File::create_new(&path).unwrap();
        loop {
            let free = disk::free_bytes(self.mount.path()).unwrap();
            let taken = free.saturating_sub(left).max(1);
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, taken) {
                Ok(()) => return Ballast { path },
                Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.mount.path().join("ballast")
    }

    /// Takes what has become free since.
    fn fill_up(&self) {
        let path = self.ballast();
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        for chunk in [vec![1; 64 << 10], vec![1; 1]] {
            loop {
                match file.write(&chunk) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("--lazy")
            .arg(self.mount.path())
            .status()
            .ok();
    }
}

/// What somebody else has on the disk, until dropped.
struct Ballast {
    path: PathBuf,
}

impl Drop for Ballast {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

fn options(path: &Path, on_full: OnFull) -> LocalOptions {
    LocalOptions {
        on_full,
        retention: Retention {
            age: Duration::ZERO,
            bytes: 0,
        },
        tuning: Tuning {
            seal_bytes: 2 * MIB,
            // Sealed by age as well, which must not be tried on a full disk.
            seal_age: Duration::from_millis(1500),
            codec: Codec::None,
            segment_bytes: 1 << 20,
            open_cache_bytes: MIB,
            sealed_cache_bytes: MIB,
            ring_bytes: 4 << 10,
            queue_bytes: 64 << 10,
            min_free: 12 * MIB,
            // In the same proportion to what opening needs as by default.
            reserve_bytes: 9 * MIB,
            housekeeping: Duration::from_millis(20),
            ..Tuning::default()
        },
        ..LocalOptions::new(path)
    }
}

fn roles() -> Vec<StageRole> {
    vec![StageRole {
        name: STAGE.to_owned(),
        producers: vec![PRODUCER.to_owned()],
    }]
}

fn open(options: LocalOptions) -> (LocalPath, SharedStage) {
    let opened = LocalPath::open(options, &roles()).unwrap();
    let stage = opened.stage(STAGE).unwrap();
    (opened, stage)
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = format!("message {number} ").into_bytes();
    payload.resize(2000, b'.');
    payload
}

fn batch(first: u64) -> Batch {
    let mut batch = Batch::default();
    for number in first..first + 10 {
        assert!(batch.push(&payload(number), Timestamp::now()));
    }
    batch
}

/// Appends message after message, of the number that its offset is.
async fn append(stage: &SharedStage, messages: std::ops::Range<u64>) {
    for first in messages.step_by(10) {
        let appended = stage.append(batch(first)).await.unwrap().durable().await.unwrap();
        let Appended::Staged { first: at, .. } = appended else {
            panic!("dropped")
        };
        assert_eq!(at.get(), first);
    }
}

/// Reads from `from` up to the head and checks every message; returns where it came to, and the messages missing on the way.
async fn read(stage: &SharedStage, from: Offset) -> (Offset, u64) {
    let limit = ReadLimit {
        messages: 1000,
        bytes: 1 << 20,
    };
    let (mut at, mut dropped) = (from, 0);
    while at < stage.bounds().head {
        let outcome = stage.read(at, limit).await.unwrap();
        for gap in &outcome.gaps {
            assert_eq!(gap.cause, GapCause::DroppedOldest, "{gap:?}");
            dropped += gap.messages.unwrap();
        }
        for batch in &outcome.batches {
            for (offset, message) in batch.messages_from(at) {
                assert!(*message.payload == payload(offset.get()), "offset {offset}");
            }
        }
        at = outcome.next;
    }
    (at, dropped)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until nothing more is appended, because the disk is full.
async fn until_blocked(stage: &SharedStage) {
    let mut seen = (stage.bounds().head, Instant::now());
    until("the disk is full", || {
        let head = stage.bounds().head;
        if head != seen.0 {
            seen = (head, Instant::now());
        }
        head > Offset::ZERO && seen.1.elapsed() > Duration::from_millis(700)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_blocks_and_everything_goes_on_by_itself_once_there_is_room() {
    let Some(disk) = Disk::mount_for_a_race() else {
        return;
    };
    let settings = options(&disk.stage(), OnFull::Block);
    let (opened, stage) = open(settings.clone());
    let messages = 20_000;
    let appending = tokio::spawn({
        let stage = stage.clone();
        async move { append(&stage, 0..messages).await }
    });
    // Others take the last of it while the open generation holds something and grows old.
    until("something is staged", || stage.bounds().head > Offset::new(500)).await;
    // What is left is less than `min_free`, and enough for what the engine is in the midst of: it looks before it begins
    // something, and can't know what others take afterwards.
    let ballast = disk.fill_but(9 * MIB);
    until_blocked(&stage).await;
    disk.fill_up();
    // Many rounds of housekeeping, with acks that are to be written down and generations that are old.
    for next in 0..150 {
        stage.ack(PRODUCER, Offset::new(next)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        // What the reserve gave back is taken too.
        disk.fill_up();
    }
    assert_eq!(*opened.failed().borrow(), None);
    assert!(!appending.is_finished());
    // Reading waits until there is room to open what is to be read, and no longer.
    let reading = tokio::spawn({
        let stage = stage.clone();
        async move { read(&stage, Offset::ZERO).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(ballast);
    let (mut at, dropped) = tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert_eq!(dropped, 0);
    while at.get() < messages {
        stage.ack(PRODUCER, at).await.unwrap();
        let mut head = stage.watch_head();
        tokio::time::timeout(PATIENCE, head.wait_for(|head| *head > at))
            .await
            .unwrap()
            .unwrap();
        at = read(&stage, at).await.0;
    }
    appending.await.unwrap();
    opened.close().unwrap();
    let (opened, stage) = open(settings);
    assert_eq!(stage.bounds().head.get(), messages);
    opened.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_on_a_full_disk_is_not_opened_and_nothing_of_it_is_lost() {
    let Some(disk) = Disk::mount() else { return };
    let settings = options(&disk.stage(), OnFull::Block);
    let (opened, stage) = open(settings.clone());
    append(&stage, 0..5000).await;
    opened.close().unwrap();
    let reserve = disk.stage().join("reserve");
    std::fs::remove_file(&reserve).unwrap();
    let ballast = disk.fill();
    let refused = LocalPath::open(settings.clone(), &roles());
    assert!(matches!(refused, Err(OpenError::DiskFull { .. })));
    drop(ballast);
    let (opened, stage) = open(settings);
    assert_eq!(read(&stage, Offset::ZERO).await, (Offset::new(5000), 0));
    opened.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_oldest_and_drop_newest_go_on_while_others_fill_the_disk() {
    for on_full in [OnFull::DropOldest, OnFull::DropNewest] {
        let Some(disk) = Disk::mount_for_a_race() else {
            return;
        };
        let settings = options(&disk.stage(), on_full);
        let (opened, stage) = open(settings.clone());
        append(&stage, 0..3000).await;
        // At one stroke: whoever fills it bit by bit takes what the reserve gives back as well.
        let ballast = disk.fill_but(0);
        let generations = opened.overview().generations.len();
        let (mut next, mut refused) = (3000, 0);
        let filled = Instant::now();
        // The open generation grows old meanwhile.
        for appended in 0.. {
            if appended >= 600 && filled.elapsed() > 2 * settings.tuning.seal_age {
                break;
            }
            match stage.append(batch(next)).await.unwrap().durable().await.unwrap() {
                Appended::Staged { first, end } => {
                    assert_eq!(first.get(), next);
                    next = end.get();
                }
                Appended::Dropped { messages } => refused += messages,
            }
        }
        assert_eq!(*opened.failed().borrow(), None);
        if on_full == OnFull::DropNewest {
            // What the reserve gives back is for reading, not for rolling by age.
            assert_eq!(opened.overview().generations.len(), generations);
            assert!(refused > 0);
        }
        drop(ballast);
        let (head, dropped) = read(&stage, Offset::ZERO).await;
        assert_eq!(head.get(), next);
        assert_eq!(on_full == OnFull::DropOldest, dropped > 0);
        opened.close().unwrap();
        let (opened, stage) = open(settings);
        assert_eq!(read(&stage, Offset::ZERO).await, (head, dropped));
        opened.close().unwrap();
    }
}
