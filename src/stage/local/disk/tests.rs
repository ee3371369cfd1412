//! Making, removing, reading and sweeping, and the faults that can really be brought about.

use std::os::unix::fs::{MetadataExt, symlink};

use super::tree::read_file_through;
use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// A directory with two files and one inside another.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("db"), b"pages").unwrap();
    fs::write(dir.path().join("conf"), b"").unwrap();
    fs::create_dir(dir.path().join("blobs")).unwrap();
    fs::write(dir.path().join("blobs/1"), vec![7; 700_000]).unwrap();
    dir
}

#[test]
fn what_is_created_appears_whole_and_for_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let made = create_durably(dir.path(), "g-1", |inside| {
        assert_eq!(names(dir.path()), ["tmp-g-1"]);
        fs::create_dir(inside.join("blobs")).map_err(failed("create", inside))?;
        fs::write(inside.join("db"), b"x").map_err(failed("write", inside))
    });
    made.unwrap();
    assert_eq!(names(dir.path()), ["g-1"]);
    let made = dir.path().join("g-1");
    assert_eq!(
        [mode(&made), mode(&made.join("blobs")), mode(&made.join("db"))],
        [0o700, 0o700, 0o600]
    );
}

#[test]
fn what_could_not_be_created_leaves_nothing_and_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("g-1")).unwrap();
    fs::write(dir.path().join("g-1/db"), b"old").unwrap();
    let refused = create_durably(dir.path(), "g-1", |_| Ok::<_, DiskError>(()));
    assert_eq!(refused.unwrap_err().io_kind(), Some(io::ErrorKind::AlreadyExists));
    let refused: Result<(), _> = create_durably(dir.path(), "g-2", |inside| {
        Err(DiskError::Special {
            path: inside.to_owned(),
        })
    });
    assert!(matches!(refused, Err(DiskError::Special { .. })));
    assert_eq!(names(dir.path()), ["g-1"]);
    assert_eq!(fs::read(dir.path().join("g-1/db")).unwrap(), b"old");
}

#[test]
fn removing_works_beside_the_trash_of_an_interrupted_removal() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("trash-0-g-1")).unwrap();
    fs::create_dir(dir.path().join("g-1")).unwrap();
    fs::write(dir.path().join("g-1/db"), b"x").unwrap();
    remove_durably(&dir.path().join("g-1")).unwrap();
    assert_eq!(names(dir.path()), ["trash-0-g-1"]);
    let gone = remove_durably(&dir.path().join("g-1")).unwrap_err();
    assert_eq!(gone.io_kind(), Some(io::ErrorKind::NotFound));
}

#[test]
fn sweeping_removes_leftovers_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for made in ["tmp-g-2", "trash-0-g-1", "g-3", "damaged-g-0", "meta"] {
        fs::create_dir(path(made)).unwrap();
    }
    for made in [
        "tmp-g-2/db",
        "trash-9",
        "lock",
        "g-3/db",
        "g-3/snap.00000000000000FF",
        "g-3/snap.0000000000000100.generating",
        "meta/snap.0000000000000001.generating",
        "damaged-g-0/snap.0000000000000001.generating",
    ] {
        fs::write(path(made), b"x").unwrap();
    }
    let removed: Vec<_> = [
        "g-3/snap.0000000000000100.generating",
        "meta/snap.0000000000000001.generating",
        "tmp-g-2",
        "trash-0-g-1",
        "trash-9",
    ]
    .map(path)
    .into();
    assert_eq!(sweep(dir.path()).unwrap(), removed);
    assert_eq!(names(dir.path()), ["damaged-g-0", "g-3", "lock", "meta"]);
    assert_eq!(names(&path("g-3")), ["db", "snap.00000000000000FF"]);
    assert_eq!(names(&path("damaged-g-0")).len(), 1);
    assert_eq!(sweep(dir.path()).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn sums_name_every_file_in_order_and_change_with_any_bit() {
    let dir = tree();
    let sums = read_through(dir.path()).unwrap();
    let seen: Vec<_> = sums.iter().map(|sum| (sum.name.as_str(), sum.size)).collect();
    assert_eq!(seen, [("blobs/1", 700_000), ("conf", 0), ("db", 5)]);
    assert_eq!(sums[2].crc32c, crc32c::crc32c(b"pages"));

    let mut bytes = fs::read(dir.path().join("blobs/1")).unwrap();
    bytes[699_999] ^= 1;
    fs::write(dir.path().join("blobs/1"), bytes).unwrap();
    let changed = read_through(dir.path()).unwrap();
    assert_ne!(changed[0], sums[0]);
    assert_eq!(changed[1..], sums[1..]);
}

#[test]
fn a_read_error_of_the_system_is_an_error_and_not_an_end_of_file() {
    // The first page of a process's memory is mapped nowhere: Linux answers a read of it with EIO.
    let unreadable = read_file_through(Path::new("/proc/self/mem"), &mut [0; 100]).unwrap_err();
    match unreadable {
        DiskError::Io { action, source, .. } => {
            assert_eq!((action, source.raw_os_error()), ("read", Some(5)));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_file_that_gives_another_number_of_bytes_than_it_has_is_refused() {
    // Files of /proc say that they are empty, and are not.
    let refused = read_file_through(Path::new("/proc/self/status"), &mut [0; 100]);
    assert!(matches!(refused, Err(DiskError::Length { expected: 0, .. })));
}

#[test]
fn links_are_refused_instead_of_followed() {
    let dir = tree();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), b"x").unwrap();
    symlink(outside.path(), dir.path().join("trash-link")).unwrap();
    let copy = outside.path().join("copy");
    for refused in [
        read_through(dir.path()).map(drop),
        fsync_tree(dir.path()),
        copy_tree(dir.path(), &copy),
    ] {
        assert!(matches!(refused, Err(DiskError::Special { .. })), "{refused:?}");
    }
    sweep(dir.path()).unwrap();
    assert!(!dir.path().join("trash-link").exists());
    assert!(outside.path().join("precious").exists());
}

#[test]
fn a_missing_directory_is_an_error_everywhere() {
    let gone = Path::new("/nonexistent/stage");
    let kinds = [
        read_through(gone).map(drop),
        fsync_tree(gone),
        sweep(gone).map(drop),
        free_bytes(gone).map(drop),
        dir_bytes(gone).map(drop),
        rename_durably(gone, Path::new("/nonexistent/other")),
    ]
    .map(|outcome| outcome.unwrap_err().io_kind());
    assert_eq!(kinds, [Some(io::ErrorKind::NotFound); 6]);
}

#[test]
fn a_copy_is_equal_independent_and_for_its_owner_only() {
    let dir = tree();
    let target = tempfile::tempdir().unwrap();
    let copy = target.path().join("copy");
    copy_tree(dir.path(), &copy).unwrap();
    fsync_tree(&copy).unwrap();
    let before = read_through(dir.path()).unwrap();
    assert_eq!(read_through(&copy).unwrap(), before);
    assert_eq!((mode(&copy), mode(&copy.join("db"))), (0o700, 0o600));
    fs::write(copy.join("db"), b"other").unwrap();
    assert_eq!(read_through(dir.path()).unwrap(), before);
    let refused = copy_tree(dir.path(), &copy).unwrap_err();
    assert_eq!(refused.io_kind(), Some(io::ErrorKind::AlreadyExists));
}

#[test]
fn the_size_of_a_directory_is_what_its_blocks_take() {
    let dir = tree();
    let full = dir_bytes(dir.path()).unwrap();
    assert!(full >= 700_000, "{full}");
    let holes = File::create(dir.path().join("holes")).unwrap();
    holes.set_len(1 << 30).unwrap();
    assert!(dir_bytes(dir.path()).unwrap() < full + (1 << 20));
    assert!(free_bytes(dir.path()).unwrap() > 0);
}

#[test]
fn what_root_makes_belongs_to_the_owner_of_the_directory() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make files for others");
        return;
    }
    let dir = tree();
    std::os::unix::fs::chown(dir.path(), Some(65_534), Some(65_533)).unwrap();
    let owner = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid())
    };
    create_durably(dir.path(), "g-1", |inside| {
        create_file(&inside.join("db")).map(drop)
    })
    .unwrap();
    for made in ["g-1", "g-1/db"] {
        assert_eq!(owner(&dir.path().join(made)), (65_534, 65_533), "{made}");
    }
    adopt_owner(&dir.path().join("blobs"), dir.path()).unwrap();
    assert_eq!(owner(&dir.path().join("blobs/1")), (65_534, 65_533));
    assert_eq!(owner(&dir.path().join("db")), (0, 0));
}

/// Where [`a_child_with_another_umask`] is to make something.
const UMASK_DIR: &str = "SOCKET_EL_TEST_UMASK_DIR";

/// Makes things when the test below starts it as a child; otherwise it has nothing to do.
#[test]
fn a_child_with_another_umask() {
    if let Some(dir) = std::env::var_os(UMASK_DIR) {
        let dir = PathBuf::from(dir).join("d");
        create_dir(&dir).unwrap();
        create_file(&dir.join("f")).unwrap();
    }
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    // The umask belongs to the whole process, so a process of its own tries others.
    for umask in ["0000", "0777"] {
        let dir = tempfile::tempdir().unwrap();
        let child = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(format!(
                "umask {umask}; exec \"$0\" --exact stage::local::disk::tests::a_child_with_another_umask"
            ))
            .arg(std::env::current_exe().unwrap())
            .env(UMASK_DIR, dir.path())
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        let made = dir.path().join("d");
        assert_eq!((mode(&made), mode(&made.join("f"))), (0o700, 0o600), "{umask}");
    }
}
