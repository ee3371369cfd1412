//! The disk of the database's server is full: the stage keeps what comes, and everything is delivered once there is room.
//!
//! The table lies in a tablespace on a small file system in memory. That needs root, for it mounts; otherwise the test says that
//! it is skipped.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::checker::{Tally, tally_by_offset};
use crate::support::cluster::Database;
use crate::support::engine::{Workspace, config};
use crate::support::source::Source;

/// Rows of this many messages do not fit into the first size, and do into the second.
const MESSAGES: u64 = 20_000;
const SMALL: &str = "1m";
const LARGE: &str = "64m";

/// A small file system in memory, mounted until dropped.
struct Disk {
    mount: TempDir,
}

impl Disk {
    /// `None`, with the reason printed, where nothing can be mounted.
    fn mount() -> Option<Self> {
        let mount = TempDir::with_prefix("socket-el-test-").unwrap();
        match mounts(mount.path(), &format!("size={SMALL}")) {
            Ok(()) => Some(Self { mount }),
            Err(reason) => {
                println!("skipped, for nothing can be mounted: {reason}");
                None
            }
        }
    }

    fn grow(&self) {
        mounts(self.mount.path(), &format!("remount,size={LARGE}")).unwrap();
    }

    /// A directory for the tablespace, which belongs to whom the server runs as.
    fn directory(&self, server: &Path) -> String {
        use std::os::unix::fs::MetadataExt as _;

        let owner = std::fs::metadata(server).unwrap();
        let path = self.mount.path().join("space");
        std::fs::create_dir(&path).unwrap();
        for path in [self.mount.path(), &path] {
            chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that is just being stopped may still have files there.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.mount.path())
            .status();
    }
}

fn mounts(path: &Path, options: &str) -> Result<(), String> {
    let output = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(path)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_database_keeps_the_messages_in_the_stage_until_there_is_room() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let database = Database::alone().await;
    let space = disk.directory(database.cluster().socket_dir());
    database
        .cluster()
        .query("postgres", &format!("CREATE TABLESPACE small LOCATION '{space}'"))
        .await
        .unwrap();
    database
        .rows(
            "CREATE TABLE feed (exchange text, base text, quote text, direction text, price double precision, volume double precision, \
             timestamp bigint, \"priceUsd\" double precision, seq bigint, _stage text, _offset bigint, _received_at timestamptz) \
             TABLESPACE small",
        )
        .await;
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("feed", &source.url())], "metadata: true"));
    let mut engine = workspace.run();
    source.release(MESSAGES);
    engine.until_logged("SQLSTATE 53100").await;
    engine
        .until_logged("Make room on the disk of the database's server")
        .await;
    engine
        .until("all is sent, though nothing is delivered", async || {
            source.sent() >= MESSAGES
        })
        .await;
    let listed = workspace.inspect(&["list"]).await.stdout();
    assert!(
        listed.contains("feed by postgres is connecting since ") && listed.contains("Make room"),
        "{listed}"
    );
    let rows = database.count("feed").await;
    assert!(rows < Some(MESSAGES), "{rows:?}");
    disk.grow();
    engine
        .until("all are rows", async || {
            database.count("feed").await >= Some(MESSAGES)
        })
        .await;
    engine.stops_cleanly().await;
    assert_eq!(
        tally_by_offset(&database, "feed").await,
        Tally::each_once(MESSAGES)
    );
    assert_eq!(database.count("_socket_el_dead_letter").await, Some(0));
}
