//! PgBouncer in between: a session of one's own works, a shared one is refused with what to set.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket_el::private_postgres::PrivatePostgres;
use tempfile::TempDir;

use crate::rig::{Home, server};

/// The longest that a pooler may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running PgBouncer, which ends with this.
struct Bouncer {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `None` where PgBouncer is not installed.
fn binary() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|directory| directory.join("pgbouncer"))
        .find(|file| file.is_file())
}

/// The user that runs servers where root may not.
fn account() -> Option<(u32, u32)> {
    let id = |flag: &str, user: &[&str]| -> u32 {
        let output = Command::new("id").arg(flag).args(user).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id("-u", &[]) == 0).then(|| (id("-u", &["postgres"]), id("-g", &["postgres"])))
}

impl Bouncer {
    fn start(binary: &PathBuf, server: &PrivatePostgres, mode: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let (settings, users) = (path.join("pgbouncer.ini"), path.join("users.txt"));
        fs::write(&users, format!("\"postgres\" \"{}\"\n", server.password())).unwrap();
        fs::write(
            &settings,
            format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n",
                server.port(),
                users.display()
            ),
        )
        .unwrap();
        let mut command = Command::new(binary);
        command
            .arg("-q")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((uid, gid)) = account() {
            chown(path, Some(uid), Some(gid)).unwrap();
            command.uid(uid).gid(gid);
        }
        let mut process = command.spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "pgbouncer does not listen");
            assert!(process.try_wait().unwrap().is_none(), "pgbouncer ended");
            std::thread::yield_now();
        }
        Self {
            process,
            port,
            _directory: directory,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_works_and_in_transaction_mode_is_refused_with_what_to_set() {
    let Some(binary) = binary() else {
        println!("NOT RUN: pgbouncer is not installed");
        return;
    };
    let home = Home::new();
    let server = server(None, &[], &[]);
    let keys = |port| {
        format!(
            "  user: postgres\n  password: {}\n  database: postgres\n  port: {port}\n",
            server.password()
        )
    };
    let session = Bouncer::start(&binary, &server, "session");
    let said = home.probe(&keys(session.port)).await.unwrap();
    assert!(said.contains("connected to 127.0.0.1:"), "{said}");
    // Newer ones take options.
    if let Err(said) = home
        .probe(&(keys(session.port) + "  options: -c geqo=off\n"))
        .await
    {
        assert!(said.contains("ignore_startup_parameters"), "{said}");
    }
    for mode in ["transaction", "statement"] {
        let shared = Bouncer::start(&binary, &server, mode);
        let said = home.probe(&keys(shared.port)).await.unwrap_err();
        assert!(said.contains("pool_mode = session"), "{mode}: {said}");
    }
}
