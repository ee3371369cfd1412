//! The private PostgreSQL: it starts, stops, recovers, asks for its password, and never outlives its owner.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket_el::private_postgres::{Options, PrivatePostgres, StopMode};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

/// Names the process that `a_killed_owner_leaves_neither_server_nor_directory` kills.
const OWNER: &str = "SOCKET_EL_TEST_OWNER";

fn start() -> PrivatePostgres {
    PrivatePostgres::start(&Options {
        fsync: false,
        ..Options::default()
    })
    .unwrap()
}

fn gone_within(limit: Duration, what: &str, gone: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !gone() {
        assert!(Instant::now() < deadline, "{what} is still there after {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that is not a zombie: one whose parent does not wait for it stays in the table.
fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_every_way_of_stopping_and_the_port_stays() {
    let postgres = start();
    postgres.create_database("it's \"own\"").await.unwrap();
    let database = "it's \"own\"";
    postgres
        .query(database, "CREATE TABLE t (n bigint)")
        .await
        .unwrap();
    let port = postgres.port();
    for (n, mode) in [StopMode::Smart, StopMode::Fast, StopMode::Immediate]
        .into_iter()
        .enumerate()
    {
        postgres
            .query(database, &format!("INSERT INTO t VALUES ({n})"))
            .await
            .unwrap();
        postgres.stop(mode).unwrap();
        assert_eq!(postgres.pid(), None);
        postgres.query(database, "SELECT 1").await.unwrap_err();
        postgres.start_again().unwrap();
        assert_eq!(postgres.port(), port);
    }
    let rows = postgres
        .query(database, "SELECT n, NULL FROM t ORDER BY n")
        .await
        .unwrap();
    assert_eq!(rows, ["0", "1", "2"].map(|n| vec![Some(n.to_owned()), None]));
    let dir = postgres.socket_dir().to_owned();
    drop(postgres);
    assert!(!dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_asks_for_the_password_and_the_server_is_utf8() {
    let postgres = start();
    let refused = postgres
        .connection("postgres")
        .password("wrong")
        .connect(NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD));
    let settings = postgres
        .query("postgres", "SHOW server_encoding; SHOW lc_collate; SHOW fsync")
        .await
        .unwrap();
    assert_eq!(
        settings,
        ["UTF8", "C", "off"].map(|value| vec![Some(value.to_owned())])
    );
    assert!(!format!("{postgres:?}").contains(postgres.password()));
}

/// Not a test of its own: the owner, which the test below starts and kills.
#[test]
fn owner_that_waits_to_be_killed() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let postgres = start();
    println!(
        "owned {} {}",
        postgres.pid().unwrap(),
        postgres.socket_dir().display()
    );
    std::thread::sleep(Duration::from_secs(600));
}

fn spawn_owner() -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_that_waits_to_be_killed", "--nocapture"])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_owner_leaves_neither_server_nor_directory() {
    let mut owner = spawn_owner();
    let line = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.split_once("owned ").map(|(_, facts)| facts.to_owned()))
        .unwrap();
    let (pid, dir) = line.split_once(' ').unwrap();
    let (pid, dir) = (pid.parse().unwrap(), Path::new(dir));
    assert!(is_running(pid) && dir.exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    gone_within(Duration::from_secs(60), "the server", || !is_running(pid));
    gone_within(Duration::from_secs(60), "its directory", || !dir.exists());
}
