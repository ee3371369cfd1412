//! What the demonstration runs on: a directory of its own with a private PostgreSQL, a configuration and a feed.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, LoadOptions};
use crate::exit::{ExitReason, RunnerError};
use crate::feed::{Feed, FeedOptions, Source};
use crate::private_postgres::{Options, PrivatePostgres};

/// The two consumers, which are stages and tables too.
pub(super) const STAGES: [&str; 2] = ["websocket_1", "websocket_2"];

/// The request path of each consumer's feed.
const FEED_PATHS: [&str; 2] = ["/trades/binance", "/trades/huobi"];

/// The configuration of the demonstration: the shape of the original engine's sample.
const CONFIG: &str = "\
runners:
  - name: websocket_1
    type: consumer
    variety: socket
    uri: ws://{feed}/trades/binance
    stage: { type: local, path: {dir}/stage }
  - name: websocket_2
    type: consumer
    variety: socket
    uri: ws://{feed}/trades/huobi
    stage: { type: local, path: {dir}/stage }
  - name: postgres
    type: producer
    variety: postgres
    depends_on: [websocket_1, websocket_2]
    profile: postgres
    metadata: true
";

const DATABASE: &str = "demo";

/// The running parts, and the directory that goes with them.
pub(super) struct Demo {
    dir: tempfile::TempDir,
    postgres: Arc<PrivatePostgres>,
    feed: Option<RunningFeed>,
    messages: u64,
    sent: [u64; 2],
    staged: [u64; 2],
}

struct RunningFeed {
    feed: Arc<Feed>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Demo {
    /// Makes the directory, starts PostgreSQL, and writes the profile. `messages` is the number per feed and phase.
    pub(super) async fn set_up(messages: u64) -> Result<Self, RunnerError> {
        let dir = tempfile::Builder::new()
            .prefix("socket-el-demo-")
            .tempdir()
            .map_err(failed)?;
        let started = spawn_blocking(|| PrivatePostgres::start(&Options::default()))
            .await
            .map_err(failed)?;
        let postgres = Arc::new(started.map_err(failed)?);
        postgres.create_database(DATABASE).await.map_err(failed)?;
        let demo = Self {
            dir,
            postgres,
            feed: None,
            messages,
            sent: [0; 2],
            staged: [0; 2],
        };
        demo.write("profile.yml", &demo.profile())?;
        Ok(demo)
    }

    /// Messages of both feeds in one phase.
    pub(super) fn messages_per_phase(&self) -> u64 {
        self.messages * STAGES.len() as u64
    }

    /// What the feeds of the phases so far have sent, in the order of [`STAGES`].
    pub(super) fn sent(&self) -> [u64; 2] {
        self.sent
    }

    /// What became durable in the stages so far, in the order of [`STAGES`].
    pub(super) fn staged(&self) -> [u64; 2] {
        self.staged
    }

    /// Counts what a phase has staged.
    pub(super) fn add_staged(&mut self, stats: &crate::pipeline::PipelineStats) {
        for (staged, stage) in self.staged.iter_mut().zip(STAGES) {
            *staged += stats.consumers.get(stage).map_or(0, |stats| stats.staged.get());
        }
    }

    /// Starts the feed of a phase, whose `seq` goes on where the phase before it ended, and writes the
    /// configuration that names its port.
    pub(super) async fn start_feed(&mut self) -> Result<(), RunnerError> {
        let source = Source::Generated {
            first: self.sent[0],
            count: Some(self.messages),
        };
        let feed = Feed::bind(FeedOptions {
            source,
            ..FeedOptions::default()
        })
        .await
        .map_err(failed)?;
        let dir = self.dir.path().display().to_string();
        let config = CONFIG
            .replace("{feed}", &feed.local_addr().to_string())
            .replace("{dir}", &dir);
        self.write("config.yml", &config)?;
        let (feed, stop) = (Arc::new(feed), CancellationToken::new());
        let task = tokio::spawn({
            let (feed, stop) = (Arc::clone(&feed), stop.clone());
            async move { feed.run(stop).await }
        });
        self.feed = Some(RunningFeed { feed, stop, task });
        Ok(())
    }

    /// Stops the feed and counts what it has sent.
    pub(super) async fn stop_feed(&mut self) -> Result<(), RunnerError> {
        let Some(running) = self.feed.take() else {
            return Ok(());
        };
        running.stop.cancel();
        running.task.await.map_err(failed)?;
        let stats = running.feed.stats();
        for (sent, path) in self.sent.iter_mut().zip(FEED_PATHS) {
            *sent += stats
                .iter()
                .filter(|stats| stats.path == path)
                .map(|stats| stats.sent)
                .sum::<u64>();
        }
        Ok(())
    }

    /// The configuration, loaded as `socket-el run` does.
    pub(super) fn config(&self) -> Result<Config, RunnerError> {
        let options = LoadOptions {
            profiles: Some(self.file("profile.yml")),
            ..LoadOptions::default()
        };
        let loaded = Config::load(
            &self.file("config.yml"),
            &crate::commands::builtin_registry(),
            &options,
        );
        loaded
            .map(|loaded| loaded.config)
            .map_err(|error| RunnerError::new(ExitReason::Configuration, error))
    }

    /// A query's rows as text.
    pub(super) async fn query(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, RunnerError> {
        self.postgres.query(DATABASE, sql).await.map_err(failed)
    }

    /// Loads copies of both tables with `psql \copy … (format binary)` and says how long the loading took.
    pub(super) async fn copy_rows_with_psql(&self) -> Result<Duration, RunnerError> {
        let mut took = Duration::ZERO;
        for stage in STAGES {
            let file = self.file(&format!("{stage}.copy"));
            let file = file.display();
            self.psql(&format!("\\copy {stage} to '{file}' (format binary)"))
                .await?;
            self.psql(&format!("create table yardstick_{stage} (like {stage})"))
                .await?;
            let begin = Instant::now();
            self.psql(&format!("\\copy yardstick_{stage} from '{file}' (format binary)"))
                .await?;
            took += begin.elapsed();
            self.psql(&format!("drop table yardstick_{stage}")).await?;
        }
        Ok(took)
    }

    /// Stops everything and removes the directory.
    pub(super) async fn tear_down(mut self) {
        if let Err(error) = self.stop_feed().await {
            tracing::warn!("the feed did not stop well: {error}");
        }
        // Stopping the server blocks; the directory goes with `self`.
        if let Err(error) = spawn_blocking(move || drop(self)).await {
            tracing::warn!("the demonstration did not clean up: {error}");
        }
    }

    async fn psql(&self, command: &str) -> Result<(), RunnerError> {
        let output = tokio::process::Command::new("psql")
            .args([
                "--no-psqlrc",
                "--quiet",
                "--set=ON_ERROR_STOP=1",
                "--host=127.0.0.1",
            ])
            .arg(format!("--port={}", self.postgres.port()))
            .arg(format!("--username={}", self.postgres.superuser()))
            .arg(format!("--dbname={DATABASE}"))
            .arg(format!("--command={command}"))
            .env("PGPASSWORD", self.postgres.password())
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| failed(std::io::Error::other(format!("psql could not be run: {error}"))))?;
        if output.status.success() {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(RunnerError::new(
            ExitReason::Failed,
            format!("psql {command}: {reason}"),
        ))
    }

    fn profile(&self) -> String {
        format!(
            "postgres:\n  user: {}\n  password: {}\n  database: {DATABASE}\n  host: 127.0.0.1\n  port: {}\n",
            self.postgres.superuser(),
            self.postgres.password(),
            self.postgres.port()
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory is only ours to enter, so a file in it is private whatever the umask.
    fn write(&self, name: &str, text: &str) -> Result<(), RunnerError> {
        std::fs::write(self.file(name), text).map_err(failed)
    }
}

pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> RunnerError {
    RunnerError::new(ExitReason::Failed, error)
}
