//! How many instructions a message costs in each part of its way: a figure that a busy machine does not change, to be compared with
//! the recorded one.
//!
//! ```sh
//! cargo bench --bench instructions               # fails when a part costs 2 % more than recorded
//! cargo bench --bench instructions -- --record   # records what is measured
//! ```
//!
//! Each part runs under `valgrind --tool=callgrind` (Debian: `apt install valgrind`) twice, with few and with more rounds; the
//! difference is free of the setting-up. The records are in `benches/instructions.txt`; other processors and compilers count a
//! little differently, so compare on one machine.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails is to stop")]

#[path = "messages/mod.rs"]
mod messages;
#[path = "receive/mod.rs"]
mod receive;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use messages::Make;
use socket_el::producer::postgres::table::{
    Condition, DeclaredColumn, Encoded, Mapping, MemoryTable, RouterOptions, Scalar, TableOptions, When,
};
use socket_el::record::{Batch, Message, Offset, Timestamp};
use socket_el::stage::envelope::{Assembler, Codec, Encoder, open};

/// Messages of a round.
const MESSAGES: u64 = 1_000;

const FEW_ROUNDS: u64 = 2;
const MORE_ROUNDS: u64 = 12;

/// A part may cost this share more than recorded.
const TOLERANCE: f64 = 0.02;

const STAGE: &str = "websocket_1";

/// Does a part's work for every message of the rounds.
type Part = fn(rounds: u64);

const PARTS: [(&str, Part); 12] = [
    ("receive", |rounds| {
        receive::receive(&texts(messages::narrow), "", rounds);
    }),
    ("receive-patterns", |rounds| {
        receive::receive(&texts(messages::narrow), receive::PATTERNS, rounds);
    }),
    ("batch", gather),
    ("envelope-encode-lz4", |rounds| encode(rounds, Codec::Lz4)),
    ("envelope-encode-zstd", |rounds| encode(rounds, Codec::Zstd)),
    ("envelope-decode-lz4", decode),
    ("rows-narrow", |rounds| inferred(rounds, messages::narrow)),
    ("rows-wide", |rounds| inferred(rounds, messages::wide)),
    ("rows-nested", |rounds| inferred(rounds, messages::nested)),
    ("rows-decimals", |rounds| inferred(rounds, messages::decimals)),
    ("rows-declared", declared),
    ("rows-routed", routed),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--part", name, rounds] => {
            let (_, part) = PARTS.iter().find(|(part, _)| *part == name).unwrap();
            part(rounds.parse().unwrap());
            ExitCode::SUCCESS
        }
        [] => compare(),
        ["--record"] => {
            record();
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: cargo bench --bench instructions [-- --record]");
            ExitCode::from(2)
        }
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

fn record() {
    let mut text = "# Instructions a message, by cargo bench --bench instructions -- --record\n".to_owned();
    for (name, _) in PARTS {
        let measured = measure(name);
        println!("{name:<24}{measured:>10.0}");
        text += &format!("{name} {measured:.0}\n");
    }
    std::fs::write(file(), text).unwrap();
}

fn compare() -> ExitCode {
    let text = std::fs::read_to_string(file()).unwrap();
    let recorded: BTreeMap<&str, f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, figure)| (name, figure.parse().unwrap()))
        .collect();
    println!(
        "{:<24}{:>10}{:>10}{:>9}",
        "instructions a message", "recorded", "now", "change"
    );
    let mut is_slower = false;
    for (name, _) in PARTS {
        let now = measure(name);
        let Some(recorded) = recorded.get(name) else {
            println!("{name:<24}{:>10}{now:>10.0}", "none");
            is_slower = true;
            continue;
        };
        let change = now / recorded - 1.0;
        let verdict = if change > TOLERANCE { "  slower" } else { "" };
        println!(
            "{name:<24}{recorded:>10.0}{now:>10.0}{:>8.1}%{verdict}",
            change * 100.0
        );
        is_slower |= change > TOLERANCE;
    }
    if is_slower {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Instructions of a part for each message.
fn measure(name: &str) -> f64 {
    let few = callgrind(name, FEW_ROUNDS);
    let more = callgrind(name, MORE_ROUNDS);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let figure = (more - few) as f64 / ((MORE_ROUNDS - FEW_ROUNDS) * MESSAGES) as f64;
    figure
}

fn callgrind(name: &str, rounds: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--part", name, &rounds.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind is needed: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, collected) = collected.unwrap_or_else(|| panic!("{said}"));
    collected.trim().parse().unwrap()
}

fn texts(make: Make) -> Vec<String> {
    (0..MESSAGES).map(make).collect()
}

fn batch(texts: &[String]) -> Batch {
    let mut batch = Batch::with_capacity(texts.len(), texts.iter().map(String::len).sum());
    for (text, micros) in texts.iter().zip(1_700_000_000_000_000..) {
        assert!(batch.push(text.as_bytes(), Timestamp::from_micros(micros)));
    }
    batch
}

fn gather(rounds: u64) {
    let texts = texts(messages::narrow);
    for _ in 0..rounds {
        black_box(batch(black_box(&texts)));
    }
}

fn encode(rounds: u64, codec: Codec) {
    let batch = batch(&texts(messages::narrow));
    let mut encoder = Encoder::new(codec);
    let mut records = Vec::new();
    for _ in 0..rounds {
        records.clear();
        encoder
            .encode(STAGE, Offset::ZERO, Offset::ZERO, black_box(&batch), &mut records)
            .unwrap();
    }
}

fn decode(rounds: u64) {
    let batch = batch(&texts(messages::narrow));
    let mut records = Vec::new();
    Encoder::new(Codec::Lz4)
        .encode(STAGE, Offset::ZERO, Offset::ZERO, &batch, &mut records)
        .unwrap();
    let mut assembler = Assembler::new();
    for _ in 0..rounds {
        for record in &records {
            let sealed = open(STAGE, &record.key, black_box(&record.value)).unwrap();
            black_box(assembler.push(&sealed).unwrap());
        }
    }
}

/// Rows of columns whose types the messages decide.
fn inferred(rounds: u64, make: Make) {
    rows(rounds, make, single(Mapping::default()));
}

fn single(mapping: Mapping) -> RouterOptions {
    RouterOptions::single("public", STAGE, STAGE, mapping)
}

/// Rows of trades whose decimals in strings and whose times are declared as what they are.
fn declared(rounds: u64) {
    let column = |name: &str, column_type: &str| DeclaredColumn {
        name: name.to_owned(),
        path: None,
        column_type: Some(column_type.parse().unwrap()),
    };
    let mapping = Mapping {
        columns: vec![
            column("E", "timestamptz(ms)"),
            column("T", "timestamptz(ms)"),
            column("p", "numeric"),
            column("q", "numeric(30, 12)"),
        ],
        ..Mapping::default()
    };
    rows(rounds, messages::decimals, single(mapping));
}

/// Rows of the third of four tables, which the type of the message chooses.
fn routed(rounds: u64) {
    let table = |name: &str| TableOptions {
        table: name.to_owned(),
        mapping: Mapping::default(),
    };
    let of_type = |value: &str| {
        When(vec![Condition {
            path: "$.type".parse().unwrap(),
            values: vec![Scalar::Text(value.to_owned())],
        }])
    };
    let options = RouterOptions {
        when: When::default(),
        tables: ["matches", "tickers", STAGE, "others"].map(table).into(),
        routes: vec![
            (of_type("match"), 0),
            (of_type("ticker"), 1),
            (of_type("open"), 2),
            (When::default(), 3),
        ],
        ..single(Mapping::default())
    };
    let make = |n| messages::narrow(n).replacen('{', r#"{"type":"open","#, 1);
    rows(rounds, make, options);
}

fn rows(rounds: u64, make: Make, options: RouterOptions) {
    let texts = texts(make);
    let messages: Vec<_> = texts
        .iter()
        .zip(0..)
        .map(|(text, offset)| {
            let message = Message {
                payload: text.as_bytes(),
                received_at: Timestamp::from_micros(0),
            };
            (Offset::new(offset), message)
        })
        .collect();
    let mut table = MemoryTable::new(options, STAGE).unwrap();
    table.learn(&messages).unwrap();
    for _ in 0..rounds {
        for &(offset, message) in &messages {
            assert_eq!(table.encode(offset, black_box(message)), Encoded::Rows(1));
        }
    }
}
