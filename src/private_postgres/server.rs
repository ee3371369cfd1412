//! The processes and files of one private cluster: `initdb`, the server as our child, and the watcher that outlives us.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use uuid::Uuid;

use super::binaries::Binaries;
use super::{Options, PrivatePostgresError, SUPERUSER, StopMode};

/// Whom root runs the server as: the user that the packages of PostgreSQL make.
const SERVICE_USER: &str = "postgres";

/// Ports to choose from: below those that the kernel gives to outgoing connections, so that nobody takes ours while the
/// server is stopped.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// How many ports are tried before a start fails.
const PORT_ATTEMPTS: u32 = 20;

/// The longest a server may take to get ready, recovery after a crash included, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the server's state is looked at while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The longest path of a Unix socket that all systems take (Linux: 107, macOS: 103 bytes).
const SOCKET_PATH_MAX: usize = 103;

/// Lines of the server's log that an error quotes.
const QUOTED_LOG_LINES: usize = 20;

const WATCHER: &str = include_str!("watcher.sh");

pub(super) struct Server {
    binaries: Binaries,
    account: Option<Account>,
    dir: PathBuf,
    port: u16,
    password: String,
    process: Mutex<Option<Child>>,
    watcher: Watcher,
}

/// A user of the system, other than ourselves.
#[derive(Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

/// The process that removes everything when its pipe ends.
struct Watcher {
    process: Child,
    /// Held open as long as we live.
    pipe: Option<ChildStdin>,
}

impl Server {
    pub(super) fn create(options: &Options) -> Result<Self, PrivatePostgresError> {
        let server = Self::prepare(Uuid::new_v4().simple().to_string())?;
        server.initdb()?;
        server.configure(options)?;
        server.add_files(options)?;
        server.launch()?;
        Ok(server)
    }

    /// A server that follows another one.
    pub(super) fn create_standby(primary: &Self, options: &Options) -> Result<Self, PrivatePostgresError> {
        let server = Self::prepare(primary.password.clone())?;
        server.base_backup(primary)?;
        server.configure(options)?;
        server.add_files(options)?;
        server.launch()?;
        Ok(server)
    }

    /// Its directory and its watcher, and nothing in it yet.
    fn prepare(password: String) -> Result<Self, PrivatePostgresError> {
        let binaries = Binaries::find()?;
        let account = Account::to_run_as()?;
        let base = base_dir();
        let made = tempfile::Builder::new()
            .prefix("socket-el-pg-")
            .tempdir_in(&base)
            .map_err(io_error("make a directory in", &base))?;
        let watcher = Watcher::spawn(made.path())?;
        // From here on the watcher removes the directory, whatever happens to us.
        let dir = made.keep();
        if let Some(account) = account {
            chown(&dir, Some(account.uid), Some(account.gid))
                .map_err(io_error("give away the directory", &dir))?;
        }
        Ok(Self {
            binaries,
            account,
            port: free_port().map_err(io_error("find a free port for", &dir))?,
            dir,
            password,
            process: Mutex::new(None),
            watcher,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
    }

    /// Starts the server and waits until it is ready; nothing when it runs.
    pub(super) fn launch(&self) -> Result<(), PrivatePostgresError> {
        let mut process = self.process();
        if let Some(running) = process.as_mut()
            && matches!(running.try_wait(), Ok(None))
        {
            return Ok(());
        }
        let log_path = self.log_path();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(io_error("open", &log_path))?;
        let log_too = log.try_clone().map_err(io_error("open", &log_path))?;
        let child = self
            .command(&self.binaries.postgres)
            .arg("-D")
            .arg(self.data_dir())
            .stdout(log)
            .stderr(log_too)
            .spawn()
            .map_err(io_error("start", &self.binaries.postgres))?;
        // Kept before waiting, so that a server that is too slow is stopped like any other.
        let child = process.insert(child);
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready(child.id()) {
            let ended = child
                .try_wait()
                .map_err(io_error("wait for", &self.binaries.postgres))?;
            if let Some(status) = ended {
                *process = None;
                return Err(self.not_started(format!("it ended: {status}")));
            }
            if Instant::now() > deadline {
                return Err(self.not_started(format!("not ready after {} s", PATIENCE.as_secs())));
            }
            sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Stops the server and waits until it is gone; nothing when it is.
    pub(super) fn stop(&self, mode: StopMode) -> Result<(), PrivatePostgresError> {
        let mut process = self.process();
        let Some(child) = process.as_mut() else {
            return Ok(());
        };
        let signal = match mode {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        let running = child
            .try_wait()
            .map_err(io_error("wait for", &self.binaries.postgres))?
            .is_none();
        if running {
            // The child is not waited for yet, so the id is still its own.
            kill_process(Pid::from_child(child), signal)
                .map_err(|errno| io_error("signal", &self.binaries.postgres)(errno.into()))?;
        }
        let deadline = Instant::now() + PATIENCE;
        while child
            .try_wait()
            .map_err(io_error("wait for", &self.binaries.postgres))?
            .is_none()
        {
            if Instant::now() > deadline {
                return Err(PrivatePostgresError::NotStopped {
                    dir: self.dir.clone(),
                    seconds: PATIENCE.as_secs(),
                });
            }
            sleep(POLL_INTERVAL);
        }
        *process = None;
        Ok(())
    }

    fn initdb(&self) -> Result<(), PrivatePostgresError> {
        let password_file = self.dir.join("password");
        self.write_private(&password_file, &self.password)
            .map_err(io_error("write", &password_file))?;
        let output = self
            .command(&self.binaries.initdb)
            .arg("--pgdata")
            .arg(self.data_dir())
            .arg("--pwfile")
            .arg(&password_file)
            .args(["--username", SUPERUSER, "--encoding", "UTF8", "--locale", "C"])
            .args(["--auth-local", "trust", "--auth-host", "scram-sha-256"])
            // Whether the disk has an empty cluster matters to nobody.
            .arg("--no-sync")
            .output()
            .map_err(io_error("start", &self.binaries.initdb))?;
        fs::remove_file(&password_file).map_err(io_error("remove", &password_file))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(PrivatePostgresError::Initdb {
                status: output.status,
                output: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
    }

    /// Copies the running `primary`, with what makes this one a standby of it.
    fn base_backup(&self, primary: &Self) -> Result<(), PrivatePostgresError> {
        let program = self.binaries.initdb.with_file_name("pg_basebackup");
        let output = self
            .command(&program)
            .arg("--pgdata")
            .arg(self.data_dir())
            .arg("--host")
            .arg(&primary.dir)
            .args(["--port", &primary.port.to_string(), "--username", SUPERUSER])
            .args([
                "--write-recovery-conf",
                "--wal-method=stream",
                "--checkpoint=fast",
                "--no-sync",
            ])
            .output()
            .map_err(io_error("start", &program))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(PrivatePostgresError::BaseBackup {
                status: output.status,
                output: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
    }

    /// A file that only the server can read.
    fn write_private(&self, path: &Path, contents: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(contents.as_bytes())?;
        match self.account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        }
    }

    /// Appends our settings to `postgresql.conf`, where later lines win and `ALTER SYSTEM` still overrides them.
    fn configure(&self, options: &Options) -> Result<(), PrivatePostgresError> {
        let path = self.data_dir().join("postgresql.conf");
        let on_or_off = if options.fsync { "on" } else { "off" };
        let port = self.port.to_string();
        let dir = self.dir.to_string_lossy();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", &dir),
            ("fsync", on_or_off),
            ("full_page_writes", on_or_off),
        ];
        let theirs = options.settings.iter();
        let lines: String = ours
            .into_iter()
            .chain(theirs.map(|(name, value)| (name.as_str(), value.as_str())))
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        File::options()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(lines.as_bytes()))
            .map_err(io_error("write", &path))
    }

    fn add_files(&self, options: &Options) -> Result<(), PrivatePostgresError> {
        for (name, contents) in &options.files {
            let path = self.data_dir().join(name);
            self.write_private(&path, contents)
                .map_err(io_error("write", &path))?;
        }
        if options.access.is_empty() {
            return Ok(());
        }
        let path = self.data_dir().join("pg_hba.conf");
        fs::read_to_string(&path)
            .and_then(|others| fs::write(&path, options.access.join("\n") + "\n" + &others))
            .map_err(io_error("write", &path))
    }

    /// A command in the cluster's directory, as the user that owns it, out of reach of our terminal's signals.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// The eighth line of `postmaster.pid` says when connections are accepted; `pg_ctl` looks there too.
    fn is_ready(&self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(self.data_dir().join("postmaster.pid")) else {
            return false;
        };
        let mut lines = text.lines();
        lines.next() == Some(pid.to_string().as_str())
            && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    }

    fn not_started(&self, reason: String) -> PrivatePostgresError {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        PrivatePostgresError::NotStarted {
            dir: self.dir.clone(),
            reason,
            log: lines[lines.len().saturating_sub(QUOTED_LOG_LINES)..].join("\n"),
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        // A panic while it was held leaves the child as it was: nothing to mend.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    /// Best effort: what fails here the watcher does again, or reports nowhere.
    fn drop(&mut self) {
        let _ = self.stop(StopMode::Immediate);
        self.watcher.finish();
    }
}

impl Account {
    /// `None`: as ourselves.
    fn to_run_as() -> Result<Option<Self>, PrivatePostgresError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let id = |flag| {
            let output = Command::new("id").args([flag, SERVICE_USER]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        match (id("-u"), id("-g")) {
            (Some(uid), Some(gid)) => Ok(Some(Self { uid, gid })),
            _ => Err(PrivatePostgresError::NoUser { user: SERVICE_USER }),
        }
    }
}

impl Watcher {
    fn spawn(dir: &Path) -> Result<Self, PrivatePostgresError> {
        let mut process = Command::new("/bin/sh")
            .arg("-c")
            .arg(WATCHER)
            .arg("socket-el-pg-watcher")
            .arg(dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(io_error("start a watcher for", dir))?;
        let pipe = process.stdin.take();
        Ok(Self { process, pipe })
    }

    fn finish(&mut self) {
        self.pipe = None;
        let _ = self.process.wait();
    }
}

/// Where clusters are made: the temporary directory, or `/tmp` where that one's path leaves no room for a socket's.
fn base_dir() -> PathBuf {
    let base = std::env::temp_dir();
    let longest = base.join("socket-el-pg-XXXXXX").join(".s.PGSQL.65535");
    if longest.as_os_str().len() > SOCKET_PATH_MAX {
        PathBuf::from("/tmp")
    } else {
        base
    }
}

fn free_port() -> io::Result<u16> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_ATTEMPTS {
        let port = rand::rng().random_range(PORTS);
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivatePostgresError {
    let path = path.to_owned();
    move |source| PrivatePostgresError::Io { what, path, source }
}
