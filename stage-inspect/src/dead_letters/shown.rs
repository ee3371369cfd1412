//! Dead letters as they are shown: in a table, one by one, as lines of JSON.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use socket_el::exit::RunnerError;
use socket_el::producer::dead_letters::{DeadLetters, Letter, LetterFilter};
use socket_el::record::Offset;

use crate::export::destination::Target;
use crate::message::{escaped, pretty};
use crate::output::{json_failed, print, print_bytes, print_json};
use crate::table::{Align, Table, human_bytes, human_count};
use crate::time::{Time, utc};

/// The most dead letters of a page of an export; their bytes are bounded besides.
const EXPORT_PAGE: u32 = 1_000;

/// Characters of a reason in the table.
const REASON: usize = 60;

#[derive(Serialize)]
struct LetterLine<'a> {
    id: i64,
    stage: &'a str,
    offset: Offset,
    record: Option<i32>,
    received_at: Time,
    sqlstate: Option<&'a str>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    into_table: Option<&'a str>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> LetterLine<'a> {
    fn new(letter: &'a Letter) -> Self {
        let payload = letter.payload.as_deref();
        let message = payload.and_then(|payload| serde_json::from_slice::<&RawValue>(payload).ok());
        Self {
            id: letter.id,
            stage: &letter.stage,
            offset: letter.offset,
            record: letter.record_index,
            received_at: Time(letter.received_at),
            sqlstate: letter.sqlstate.as_deref(),
            reason: &letter.reason,
            into_table: letter.into_table.as_deref(),
            bytes: letter.bytes,
            message,
            payload_base64: payload
                .filter(|_| message.is_none())
                .map(|payload| STANDARD.encode(payload)),
        }
    }
}

/// A page of the dead letters of a producer.
pub(super) struct Listed<'a> {
    pub(super) producer: &'a str,
    /// How many there are of each stage, on this page and others.
    pub(super) by_stage: BTreeMap<String, u64>,
    pub(super) page: Vec<Letter>,
    /// Behind which one there may be others.
    pub(super) more: Option<i64>,
}

/// Dead letters, by producer.
pub(super) fn list(json: bool, listed: &[Listed<'_>]) -> Result<(), RunnerError> {
    if json {
        let producers: Vec<_> = listed
            .iter()
            .map(|listed| {
                let letters: Vec<_> = listed.page.iter().map(LetterLine::new).collect();
                serde_json::json!({
                    "producer": listed.producer,
                    "stages": listed.by_stage,
                    "dead_letters": letters,
                    "after": listed.more,
                })
            })
            .collect();
        return print_json(&producers);
    }
    if listed.is_empty() {
        return print("no dead letters\n");
    }
    for (index, listed) in listed.iter().enumerate() {
        if index > 0 {
            print("\n")?;
        }
        list_of_producer(listed)?;
    }
    Ok(())
}

fn list_of_producer(listed: &Listed<'_>) -> Result<(), RunnerError> {
    let stages = listed.by_stage.iter();
    let stages: Vec<_> = stages
        .map(|(stage, letters)| format!("{} of {stage}", human_count(*letters)))
        .collect();
    let mut table = Table::new([
        ("ID", Align::Right),
        ("STAGE", Align::Left),
        ("OFFSET", Align::Right),
        ("RECORD", Align::Right),
        ("RECEIVED", Align::Left),
        ("SQLSTATE", Align::Left),
        ("BYTES", Align::Right),
        ("REASON", Align::Left),
    ]);
    for letter in &listed.page {
        let mut reason: String = escaped(&letter.reason).chars().take(REASON).collect();
        if reason.len() < letter.reason.len() && reason.chars().count() == REASON {
            reason.push('…');
        }
        table.push([
            letter.id.to_string(),
            letter.stage.clone(),
            letter.offset.to_string(),
            letter
                .record_index
                .map_or(String::new(), |record| record.to_string()),
            utc(letter.received_at),
            letter.sqlstate.clone().unwrap_or_default(),
            human_bytes(letter.bytes),
            reason,
        ]);
    }
    let producer = listed.producer;
    let more = listed.more.map_or(String::new(), |after| {
        format!("more with --producer {producer} --after {after}\n")
    });
    print(format_args!(
        "dead letters of {producer}: {}\n{table}{more}",
        stages.join(", ")
    ))
}

/// One dead letter with its message.
pub(super) fn show(json: bool, raw: bool, letter: &Letter) -> Result<(), RunnerError> {
    let payload = letter.payload.as_deref().unwrap_or_default();
    if raw {
        return print_bytes(payload);
    }
    if json {
        return print_json(&LetterLine::new(letter));
    }
    let record = letter
        .record_index
        .map_or(String::new(), |record| format!(", record {record}"));
    let into = letter
        .into_table
        .as_deref()
        .map_or(String::new(), |table| format!(", of a replay into {table}"));
    let sqlstate = letter
        .sqlstate
        .as_deref()
        .map_or(String::new(), |state| format!(" (SQLSTATE {state})"));
    print(format_args!(
        "dead letter {}: stage {}, offset {}{record}{into}, received {}, {}\n{}{sqlstate}\n\n{}\n",
        letter.id,
        letter.stage,
        letter.offset,
        utc(letter.received_at),
        human_bytes(letter.bytes),
        escaped(&letter.reason),
        pretty(payload)
    ))
}

/// Writes dead letters with their messages, page by page.
pub(super) async fn export(
    letters: &dyn DeadLetters,
    producer: &str,
    filter: &LetterFilter,
    output: &Target,
    force: bool,
) -> Result<(), RunnerError> {
    let mut destination = output.open(force)?;
    let (mut after, mut written) = (i64::MIN, 0_u64);
    loop {
        let page = letters.page(producer, filter, after, EXPORT_PAGE, true).await?;
        let Some(last) = page.last() else {
            break;
        };
        after = last.id;
        for letter in &page {
            let line = serde_json::to_string(&LetterLine::new(letter)).map_err(json_failed)?;
            // Inside the strings of valid JSON no line ends; outside of them one is as good as a blank.
            destination.line(&line.replace(['\n', '\r'], " "))?;
            written += 1;
        }
    }
    destination.finish()?;
    if !output.is_stdout() {
        eprintln!("wrote {} dead letters to {output}", human_count(written));
    }
    Ok(())
}
