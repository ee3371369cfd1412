//! *Staged means safe*, against a power cut: what the stage has acknowledged is on the disk, whatever was still in
//! the machine's memory.
//!
//! The stage lies on an ext4 file system in a file, through a loop device. At a random instant the appending process
//! is stopped, and the file is copied: the copy holds what had been written to the device by then, and nothing of
//! what the kernel still kept in its page cache. The copy is mounted, so that the journal is replayed as after
//! a power cut, and every acknowledged message must read back. The copy is then the disk of the next round.
//!
//! This needs root and loop devices, so it runs only when `SOCKET_EL_POWER_CUTS` says how many cuts to make:
//!
//! ```text
//! SOCKET_EL_POWER_CUTS=50 cargo test --test power_cut
//! ```
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod staging;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use staging::{Acknowledged, Appender};

const IMAGE_BYTES: u64 = 512 << 20;

/// How often a copy is made again because the kernel wrote to the disk meanwhile.
const MAX_COPIES: u32 = 20;

/// The longest time from the first acknowledgement to the cut: enough to fill a generation.
const MAX_WAIT_MILLIS: u64 = 1000;

/// How often it is tried to unmount in order.
const MAX_UNMOUNTS: u32 = 40;

/// An ext4 file system in a file, mounted until dropped.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn make(image: PathBuf, mount: &Path) -> Self {
        std::fs::File::create(&image)
            .unwrap()
            .set_len(IMAGE_BYTES)
            .unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        Self::mount(image, mount)
    }

    fn mount(image: PathBuf, mount: &Path) -> Self {
        std::fs::create_dir_all(mount).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(mount));
        Self {
            image,
            mount: mount.to_owned(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A database that was just closed, or a child that was just killed, lets go a moment later.
        for _ in 0..MAX_UNMOUNTS {
            let unmounted = Command::new("umount").arg("--quiet").arg(&self.mount).status();
            if unmounted.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        // It goes as soon as nobody is in there any more.
        Command::new("umount")
            .arg("--lazy")
            .arg(&self.mount)
            .status()
            .ok();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn signal(child: &Child, name: &str) {
    run(Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string()));
}

/// Copies the disk as it is at one instant: a copy during which the kernel wrote to it is of no instant at all.
fn copy_at_one_instant(image: &Path, copy: &Path) {
    for _ in 0..MAX_COPIES {
        run(Command::new("cp").arg("--sparse=always").arg(image).arg(copy));
        if Command::new("cmp")
            .arg("-s")
            .arg(image)
            .arg(copy)
            .status()
            .unwrap()
            .success()
        {
            return;
        }
    }
    panic!("the kernel never stopped writing to {}", image.display());
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    staging::be_a_child_if_asked();
    let cuts: u32 = std::env::var("SOCKET_EL_POWER_CUTS")
        .ok()
        .and_then(|cuts| cuts.parse().ok())
        .unwrap_or(0);
    if cuts == 0 {
        println!("skipped: SOCKET_EL_POWER_CUTS is not set (it needs root and loop devices)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("mount");
    let stage = mount.join("stage");
    let mut disk = Disk::make(dir.path().join("0.img"), &mount);
    let mut acknowledged = Acknowledged::new();
    let mut checked = 0;
    for cut in 1..=cuts {
        let copy = dir.path().join(format!("{cut}.img"));
        acknowledged.append(&mut append_and_cut(&stage, &disk.image, &copy));
        let old = disk.image.clone();
        drop(disk);
        std::fs::remove_file(old).unwrap();
        disk = Disk::mount(copy, &mount);
        checked += staging::check(&stage, &acknowledged, cut);
    }
    println!("{cuts} power cuts, {checked} acknowledged messages read back");
    assert!(
        checked > 0,
        "no cut came after an acknowledgement: the test has proved nothing"
    );
}

/// Appends until a random instant, then copies the disk as it is and kills the process. Returns what it had
/// acknowledged before.
fn append_and_cut(stage: &Path, image: &Path, copy: &Path) -> Acknowledged {
    let appender = Appender::start("what_was_acknowledged_survives_a_power_cut", stage);
    // One in four falls into opening.
    if rand::random_range(0..4) > 0 {
        appender.wait_for_begin();
    }
    // The random instant is what is under test here, not a condition to wait for.
    std::thread::park_timeout(Duration::from_millis(rand::random_range(0..MAX_WAIT_MILLIS)));
    signal(&appender.child, "STOP");
    copy_at_one_instant(image, copy);
    // A stopped process says nothing, so all that it ever said was said before the copy was made.
    appender.kill()
}
