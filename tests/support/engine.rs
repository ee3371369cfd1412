//! The real binaries as child processes, in a temporary directory with their configuration, profile and stage.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::cluster::Database;
use super::{LOOK_INTERVAL, PATIENCE, eventually};

/// The end of a log that a failure shows.
const SHOWN_LOG_BYTES: usize = 4_000;

/// A directory with `config.yml` and `profile.yml`, which is also the working directory of what is started in it.
pub(crate) struct Workspace {
    dir: TempDir,
    started: Cell<u32>,
}

impl Workspace {
    /// With a profile `postgres` for the database, over `port`: the server's own, or that of a proxy.
    pub(crate) fn new(database: &Database, port: u16) -> Self {
        let workspace = Self {
            dir: TempDir::with_prefix("socket-el-test-").unwrap(),
            started: Cell::new(0),
        };
        let (user, password) = (database.cluster().superuser(), database.cluster().password());
        let name = database.name();
        workspace.write_profile(&format!(
            "postgres:\n  user: {user}\n  password: {password}\n  database: {name}\n  host: 127.0.0.1\n  \
             port: {port}\n  schema: public\n"
        ));
        workspace
    }

    /// With direct connections to the database.
    pub(crate) fn direct(database: &Database) -> Self {
        Self::new(database, database.cluster().port())
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write_profile(&self, yaml: &str) {
        let path = self.path().join("profile.yml");
        fs::write(&path, yaml).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn write_config(&self, yaml: &str) {
        fs::write(self.path().join("config.yml"), yaml).unwrap();
    }

    /// Starts `socket-el` with these arguments.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        self.spawn(Path::new(env!("CARGO_BIN_EXE_socket-el")), arguments, &[])
    }

    /// Starts the engine with the workspace's configuration.
    pub(crate) fn run(&self) -> Process {
        self.start(&["run", "-c", "config.yml", "--profiles", "profile.yml"])
    }

    /// Delivers what is staged, which must succeed.
    pub(crate) async fn drain(&self) {
        let mut drain = self.start(&["drain", "-c", "config.yml", "--profiles", "profile.yml"]);
        drain.ends_with(0).await;
    }

    /// Runs `stage-inspect`, which `cargo test --workspace` builds beside `socket-el`, until it ends.
    pub(crate) async fn inspect(&self, arguments: &[&str]) -> Process {
        let mut process = self.spawn(&self.tool(), arguments, &[]);
        process.end().await;
        process
    }

    /// The binary `stage-inspect`.
    pub(crate) fn tool(&self) -> PathBuf {
        let binary = Path::new(env!("CARGO_BIN_EXE_socket-el")).with_file_name("stage-inspect");
        assert!(
            binary.is_file(),
            "no {}: run `cargo test --workspace`, which builds it",
            binary.display()
        );
        binary
    }

    /// Starts any program in this directory, with more variables in its environment.
    pub(crate) fn spawn(&self, binary: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let number = self.started.replace(self.started.get() + 1);
        let output = |stream: &str| {
            let path = self.path().join(format!("{number}.{stream}"));
            (File::create(&path).unwrap(), path)
        };
        let ((stdout, stdout_path), (stderr, stderr_path)) = (output("out"), output("err"));
        let child = Command::new(binary)
            .args(arguments)
            .current_dir(self.path())
            .env_remove("SOCKET_EL_PROFILES")
            .env_remove("SOCKET_EL_LOG")
            .env("HOME", self.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        Process {
            name: arguments.first().copied().unwrap_or_default().to_owned(),
            child,
            stdout: stdout_path,
            stderr: stderr_path,
        }
    }
}

/// A process of ours; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// Ends it as a crash would, in the midst of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it where it stands, until [`go_on`](Self::go_on).
    pub(crate) fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub(crate) fn go_on(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Asks it to stop, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// Asks it to stop, as an init system does.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Asks it to stop, and demands that it ends well.
    pub(crate) async fn stops_cleanly(&mut self) {
        self.stops_with(0).await;
    }

    /// Asks it to stop, and demands that it ends with this exit code.
    pub(crate) async fn stops_with(&mut self, code: i32) {
        self.terminate();
        self.ends_with(code).await;
    }

    /// Waits for its end, which must have this exit code.
    pub(crate) async fn ends_with(&mut self, code: i32) {
        let ended = self.end().await;
        assert_eq!(
            ended,
            code,
            "exit code of `{}` ({})",
            self.name,
            self.last_words()
        );
    }

    /// Waits for its end; the exit code, or 128 and the signal as shells have it.
    pub(crate) async fn end(&mut self) -> i32 {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            assert!(
                std::time::Instant::now() < deadline,
                "`{}` has not ended\n{}",
                self.name,
                self.last_words()
            );
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits, while it runs, until a condition is true.
    pub(crate) async fn until(&mut self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let (name, stderr) = (self.name.clone(), self.stderr.clone());
        let report = || last_words_of(&name, &stderr);
        let child = &mut self.child;
        let looking = async || {
            if condition().await {
                return Some(());
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("`{name}` ended ({status}) before {what}\n{}", report());
            }
            None
        };
        eventually(what, looking, report).await;
    }

    /// Waits until its log has a text.
    pub(crate) async fn until_logged(&mut self, text: &str) {
        let stderr = self.stderr.clone();
        self.until(&format!("the log says {text:?}"), async || {
            String::from_utf8_lossy(&fs::read(&stderr).unwrap()).contains(text)
        })
        .await;
    }

    pub(crate) fn last_words(&self) -> String {
        last_words_of(&self.name, &self.stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_words_of(name: &str, stderr: &Path) -> String {
    let log = fs::read(stderr).unwrap_or_default();
    let log = String::from_utf8_lossy(&log[log.len().saturating_sub(SHOWN_LOG_BYTES)..]);
    format!("--- end of the log of `{name}`\n{log}---")
}

/// `socket-el feed`, and where it listens.
pub(crate) struct Feed {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Feed {
    pub(crate) async fn start(workspace: &Workspace, arguments: &[&str]) -> Self {
        let mut process = workspace.start(&[&["feed", "--listen", "127.0.0.1:0"], arguments].concat());
        let stdout = process.stdout.clone();
        process
            .until("it listens", async || {
                fs::read_to_string(&stdout).unwrap().contains('\n')
            })
            .await;
        let first = process.stdout().lines().next().unwrap().to_owned();
        let url = first.strip_prefix("listening on ").unwrap().to_owned();
        Self { process, url }
    }
}

/// A configuration of the shape that the engine was first made for: consumers, and one producer of all of them.
pub(crate) fn config(consumers: &[(&str, &str)], producer_keys: &str) -> String {
    let mut yaml = "runners:\n".to_owned();
    for (name, uri) in consumers {
        yaml += &format!(
            "  - name: {name}\n    type: consumer\n    variety: socket\n    uri: {uri}\n    stage:\n      \
             type: local\n      path: tmp\n    batch_configuration:\n      size: 100\n"
        );
    }
    let names: Vec<_> = consumers.iter().map(|(name, _)| *name).collect();
    yaml += &format!(
        "  - name: postgres\n    type: producer\n    variety: postgres\n    depends_on: [{}]\n    profile: postgres\n",
        names.join(", ")
    );
    for key in producer_keys.lines() {
        yaml += &format!("    {key}\n");
    }
    yaml
}
