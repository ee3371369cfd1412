//! What a scenario runs on: the server, a directory with a configuration, and processes that end with it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use socket_el::private_postgres::{Options, PrivatePostgres};
use tempfile::TempDir;

use crate::scenario::{Mode, Scenario, Source};

/// The binary that is measured.
const SOCKET_EL: &str = env!("CARGO_BIN_EXE_socket-el");

/// Names a folder of recordings: for each feed NAME.jsonl, a message a line.
const FEEDS_VARIABLE: &str = "SOCKET_EL_FEEDS";

/// The PostgreSQL of all scenarios.
pub(crate) struct Server {
    pub(crate) postgres: PrivatePostgres,
}

impl Server {
    /// Starts it, with room for what is loaded between two checkpoints as a server for such work has.
    pub(crate) fn start() -> Self {
        let settings = [
            ("track_commit_timestamp", "on"),
            ("max_wal_size", "8GB"),
            ("shared_buffers", "512MB"),
            ("autovacuum", "off"),
        ];
        let options = Options {
            settings: settings
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Options::default()
        };
        let postgres = PrivatePostgres::start(&options).unwrap_or_else(|error| panic!("{error}"));
        Self { postgres }
    }
}

/// A directory and a database of one run.
pub(crate) struct Rig<'a> {
    server: &'a PrivatePostgres,
    dir: TempDir,
    database: String,
}

impl<'a> Rig<'a> {
    pub(crate) async fn set_up(server: &'a Server) -> Self {
        let database = "bench".to_owned();
        let postgres = &server.postgres;
        postgres
            .query("postgres", "DROP DATABASE IF EXISTS bench WITH (FORCE)")
            .await
            .unwrap();
        postgres.create_database(&database).await.unwrap();
        Self {
            server: postgres,
            dir: TempDir::with_prefix("socket-el-bench-").unwrap(),
            database,
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory of the stages.
    pub(crate) fn stage_dir(&self) -> PathBuf {
        self.file("tmp")
    }

    pub(crate) fn server_pid(&self) -> u32 {
        self.server.pid().unwrap()
    }

    /// The rows of statements, as text.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let rows = self.server.query(&self.database, sql).await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The first row of a statement as numbers; none before the tables are there.
    pub(crate) async fn numbers(&self, sql: &str) -> Option<Vec<f64>> {
        let rows = self.server.query(&self.database, sql).await.ok()?;
        let first = rows.into_iter().next()?;
        first.iter().map(|field| field.as_deref()?.parse().ok()).collect()
    }

    /// Runs a command of psql to its end, over TCP as the engine.
    pub(crate) fn psql(&self, command: &str) {
        let output = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"])
            .arg("--host=127.0.0.1")
            .arg(format!("--port={}", self.server.port()))
            .arg(format!("--username={}", self.server.superuser()))
            .arg(format!("--dbname={}", self.database))
            .arg(format!("--command={command}"))
            .env("PGPASSWORD", self.server.password())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql {command}: {error}");
    }

    /// Writes the configuration and the profile.
    pub(crate) fn configure(&self, scenario: &Scenario, feed: &str) {
        let mut yaml = "runners:\n".to_owned();
        for name in names(scenario) {
            yaml += &format!(
                "  - name: {name}\n    type: consumer\n    variety: socket\n    uri: {feed}{name}\n    stage:\n      type: local\n      \
                 path: tmp\n      max_bytes: 100GB\n      retention: {{ age: 0s }}\n{}{}",
                indented(scenario.stage_keys, 6),
                indented(scenario.consumer_keys, 4)
            );
        }
        yaml += &format!(
            "  - name: postgres\n    type: producer\n    variety: postgres\n    depends_on: [{}]\n    profile: postgres\n    metadata: true\n",
            names(scenario).join(", ")
        );
        yaml += &indented(scenario.producer_keys, 4);
        fs::write(self.file("config.yml"), yaml).unwrap();
        let profile = format!(
            "postgres:\n  user: {}\n  password: {}\n  database: {}\n  host: 127.0.0.1\n  port: {}\n  schema: public\n",
            self.server.superuser(),
            self.server.password(),
            self.database,
            self.server.port()
        );
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = file.open(self.file("profile.yml")).unwrap();
        std::io::Write::write_all(&mut file, profile.as_bytes()).unwrap();
    }

    /// Starts the feed of a scenario, which sends so many messages to each of its consumers; and its address. `None` when the
    /// recording is not there.
    pub(crate) fn feed(&self, scenario: &Scenario, each: u64) -> Option<(Process, String)> {
        let count = each.to_string();
        let mut arguments = vec!["feed".to_owned(), "--listen".into(), "127.0.0.1:0".into()];
        match scenario.source {
            Source::Trades => arguments.extend(["--count".into(), count]),
            Source::Made(make) => {
                let file = self.file("messages.jsonl");
                let lines: String = (0..each).map(|n| make(n) + "\n").collect();
                fs::write(&file, lines).unwrap();
                arguments.extend(["--file".into(), file.display().to_string()]);
            }
            Source::Recorded(name) => {
                let file = self.file("messages.jsonl");
                let recorded = fs::read_to_string(recording(name)?).unwrap();
                let lines = recorded.lines().cycle().take(usize::try_from(each).unwrap());
                let lines: String = lines.flat_map(|line| [line, "\n"]).collect();
                fs::write(&file, lines).unwrap();
                arguments.extend(["--file".into(), file.display().to_string()]);
            }
        }
        if let Mode::Rate(rate) = scenario.mode {
            arguments.extend(["--rate".into(), rate.to_string()]);
        }
        let mut process = self.start(&arguments, Stdio::piped());
        let mut first = String::new();
        let stdout = process.child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut first).unwrap();
        let url = first.trim_end().strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("{}", self.log())).to_owned();
        Some((process, url))
    }

    /// Starts the engine, with these arguments after `run`.
    pub(crate) fn engine(&self, arguments: &[String]) -> Process {
        let run = ["run", "-c", "config.yml", "--profiles", "profile.yml"];
        let run = run.iter().map(|&argument| argument.to_owned());
        let all: Vec<_> = run.chain(arguments.iter().cloned()).collect();
        self.start(&all, Stdio::null())
    }

    fn start(&self, arguments: &[String], stdout: Stdio) -> Process {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file("log"))
            .unwrap();
        let child = Command::new(SOCKET_EL)
            .args(arguments)
            .current_dir(self.dir.path())
            .env_remove("SOCKET_EL_PROFILES")
            .env_remove("SOCKET_EL_LOG")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            .spawn()
            .unwrap();
        Process { child }
    }

    /// What the processes have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}

/// The consumers of a scenario, which are its stages too.
pub(crate) fn names(scenario: &Scenario) -> Vec<String> {
    (1..=scenario.consumers)
        .map(|number| format!("feed_{number}"))
        .collect()
}

/// A recorded feed, if it is there.
fn recording(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os(FEEDS_VARIABLE)?);
    let file = folder.join(name).with_extension("jsonl");
    file.is_file().then_some(file)
}

fn indented(keys: &str, by: usize) -> String {
    keys.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// A process; killed when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        while self.runs() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
