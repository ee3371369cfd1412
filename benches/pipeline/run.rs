//! One run of a scenario, and its figures.

use std::time::{Duration, SystemTime};

use socket_el::stage::look::look_into;

use crate::meter::{disk_bytes, peak_memory, process_cpu, server_cpu};
use crate::rig::{Process, Rig, Server, names};
use crate::scenario::{Mode, Scenario};

/// How often it is looked whether all is there: what is measured is timed by the server.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The longest that a scenario may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Counts of [`Rig::numbers`] are whole and far below 2^53.
const COUNTED: &str = "SELECT coalesce(sum(delivered + ignored + dead_letters), 0) FROM _socket_el_cursor";

/// The figures of a run.
#[derive(serde::Serialize)]
pub(crate) struct Measured {
    pub(crate) messages: f64,
    /// In tables; fewer or more than messages where one makes several, or gives way.
    pub(crate) rows: f64,
    /// From the first message received, or for a backlog from the engine's start, to the last commit.
    pub(crate) seconds: f64,
    /// How long `psql \copy` took for the same rows; none where rows have given way to others.
    pub(crate) copy_seconds: Option<f64>,
    pub(crate) engine_cpu_seconds: f64,
    pub(crate) postgres_cpu_seconds: f64,
    pub(crate) peak_memory_bytes: f64,
    /// Of a backlog: what the stage path takes on the disk for each message.
    pub(crate) disk_bytes_per_message: Option<f64>,
    /// From the frame's receipt to the commit of its rows, for 50, 99 and 99.9 % of them.
    pub(crate) latency_seconds: Option<[f64; 3]>,
    /// Of a backlog: from the engine's start to the first commit.
    pub(crate) first_commit_seconds: Option<f64>,
}

/// Runs a scenario once. `None` when its recording is not there.
pub(crate) async fn run(server: &Server, scenario: &Scenario, scale: f64) -> Option<Measured> {
    let rig = Rig::set_up(server).await;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of some millions"
    )]
    let each = (scenario.messages as f64 * scale / scenario.consumers as f64).ceil() as u64;
    let messages = each * scenario.consumers;
    let (feed, url) = rig.feed(scenario, each)?;
    rig.configure(scenario, &url);
    let disk = match scenario.mode {
        Mode::Drain => Some(stage(&rig, scenario, messages).await),
        Mode::FlatOut | Mode::Rate(_) => None,
    };
    // What the preparations have written is not to be a checkpoint's work in the midst of what is measured.
    rig.rows("CHECKPOINT").await;

    let postgres_before = server_cpu(rig.server_pid());
    let began = SystemTime::now();
    let mut engine = rig.engine(&[]);
    delivered(&rig, &mut engine, messages).await;
    let engine_cpu = process_cpu(engine.pid());
    let postgres_cpu = server_cpu(rig.server_pid()) - postgres_before;
    let peak_memory = peak_memory(engine.pid());
    engine.stop();
    feed.stop();

    let tables = tables(&rig).await;
    let times = Times::of(&rig, &tables).await;
    let rows = times.rows;
    let began = match scenario.mode {
        Mode::Drain => began
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64(),
        Mode::FlatOut | Mode::Rate(_) => times.first_received,
    };
    let gives_way = scenario.producer_keys.contains("on_conflict");
    Some(Measured {
        messages: as_figure(messages),
        rows,
        seconds: times.last_commit - began,
        copy_seconds: (!gives_way).then(|| copy(&rig, &tables)),
        engine_cpu_seconds: engine_cpu.as_secs_f64(),
        postgres_cpu_seconds: postgres_cpu.as_secs_f64(),
        peak_memory_bytes: as_figure(peak_memory),
        disk_bytes_per_message: disk.map(|bytes| as_figure(bytes) / as_figure(messages)),
        latency_seconds: (scenario.mode != Mode::Drain).then_some(times.latency),
        first_commit_seconds: (scenario.mode == Mode::Drain && !gives_way)
            .then_some(times.first_commit - began),
    })
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn as_figure(count: u64) -> f64 {
    count as f64
}

/// Puts the messages into the stages, while nothing is delivered; the bytes that they take on the disk.
async fn stage(rig: &Rig<'_>, scenario: &Scenario, messages: u64) -> u64 {
    let only = names(scenario)
        .into_iter()
        .flat_map(|name| ["--only".to_owned(), name]);
    let mut engine = rig.engine(&only.collect::<Vec<_>>());
    let deadline = std::time::Instant::now() + PATIENCE;
    while staged(rig).await < messages {
        assert!(
            engine.runs() && std::time::Instant::now() < deadline,
            "not all is staged\n{}",
            rig.log()
        );
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    engine.stop();
    disk_bytes(&rig.stage_dir())
}

/// How many messages are in the stages.
async fn staged(rig: &Rig<'_>) -> u64 {
    if !rig.stage_dir().join("control.sock").exists() {
        return 0;
    }
    let Ok(path) = look_into(&rig.stage_dir(), &[], |_| {}).await else {
        return 0;
    };
    path.summary().await.map_or(0, |summary| {
        summary.stages.iter().map(|stage| stage.messages).sum()
    })
}

/// Waits until all messages are delivered, or ignored, or dead letters.
async fn delivered(rig: &Rig<'_>, engine: &mut Process, messages: u64) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let counted = rig.numbers(COUNTED).await;
        if counted
            .as_ref()
            .is_some_and(|counted| counted[0] >= as_figure(messages))
        {
            return;
        }
        assert!(
            engine.runs() && std::time::Instant::now() < deadline,
            "not all is delivered: {counted:?} of {messages}\n{}",
            rig.log()
        );
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The tables that messages have become rows of, quoted.
async fn tables(rig: &Rig<'_>) -> Vec<String> {
    let names = rig
        .rows("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_socket\\_el%' ORDER BY 1")
        .await;
    names.into_iter().filter_map(|mut row| row.pop()?).collect()
}

/// When what happened, by the server's clock, in seconds since 1970.
struct Times {
    rows: f64,
    first_received: f64,
    first_commit: f64,
    last_commit: f64,
    latency: [f64; 3],
}

impl Times {
    async fn of(rig: &Rig<'_>, tables: &[String]) -> Self {
        let each: Vec<_> = tables
            .iter()
            .map(|table| format!("SELECT _received_at AS received, pg_xact_commit_timestamp(xmin) AS committed FROM {table}"))
            .collect();
        let all = each.join(" UNION ALL ");
        let epoch = |of: &str| format!("extract(epoch FROM {of})");
        let latency = |share: &str| {
            epoch(&format!(
                "percentile_disc({share}) WITHIN GROUP (ORDER BY committed - received)"
            ))
        };
        // Every transaction moves the cursor, those without rows too.
        let sql = format!(
            "SELECT count(*), {}, {}, (SELECT {} FROM _socket_el_cursor), {}, {}, {} FROM ({all}) rows",
            epoch("min(received)"),
            epoch("min(committed)"),
            epoch("max(pg_xact_commit_timestamp(xmin))"),
            latency("0.5"),
            latency("0.99"),
            latency("0.999"),
        );
        let numbers = rig.numbers(&sql).await.unwrap();
        let [rows, first_received, first_commit, last_commit, p50, p99, p999] = numbers[..] else {
            panic!("{sql}: {numbers:?}");
        };
        Self {
            rows,
            first_received,
            first_commit,
            last_commit,
            latency: [p50, p99, p999],
        }
    }
}

/// Loads copies of the tables with `psql \copy … (format binary)`, and says how many seconds that took.
fn copy(rig: &Rig<'_>, tables: &[String]) -> f64 {
    let files: Vec<_> = (0..tables.len())
        .map(|number| rig.file(&format!("{number}.copy")).display().to_string())
        .collect();
    for (number, (table, file)) in tables.iter().zip(&files).enumerate() {
        rig.psql(&format!("\\copy {table} to '{file}' (format binary)"));
        rig.psql(&format!("CREATE TABLE yardstick_{number} (LIKE {table})"));
    }
    rig.psql("CHECKPOINT");
    let began = std::time::Instant::now();
    for (number, file) in files.iter().enumerate() {
        rig.psql(&format!(
            "\\copy yardstick_{number} from '{file}' (format binary)"
        ));
    }
    began.elapsed().as_secs_f64()
}
