//! `stage-inspect list STAGE`: the batches of one stage, page by page, so that a long list needs no more memory than a short one.

use serde::Serialize;
use socket_el::exit::RunnerError;
use socket_el::record::{Offset, Timestamp};
use socket_el::stage::path::{BatchPosition, BatchQuery, BatchSummary};
use socket_el::stage::{Outage, Skip};

use crate::chosen::{Chosen, choose};
use crate::cli::Cli;
use crate::facts::{ProducerFacts, StageFacts};
use crate::list::ListArgs;
use crate::message::escaped;
use crate::output::{Output, json_failed};
use crate::place::stage_failed;
use crate::range::refuse_outside;
use crate::table::{Align, Table, human_bytes, human_count};
use crate::time::{Time, utc};

/// Batches of one page, whose columns are aligned with each other.
const PAGE: usize = 1_000;

/// A batch, or a stretch without a connection, which has no messages.
#[derive(Serialize)]
struct Batch {
    first: Offset,
    end: Offset,
    messages: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    received_first: Time,
    received_last: Time,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    outage: Option<OutageFacts>,
    /// Producers that have delivered all of it.
    delivered_by: Vec<String>,
}

/// A stretch of time in which messages may have been missed.
#[derive(Serialize)]
pub(crate) struct OutageFacts {
    pub(crate) from: Time,
    pub(crate) to: Time,
    /// Messages that are known to be missing; 0 when nobody can know.
    pub(crate) messages: u64,
    pub(crate) cause: String,
    /// What kind of stretch it is: `outage`, `dropped_newest`, `too_large`, `sequence`.
    pub(crate) kind: &'static str,
    /// The source's numbers that did not come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skip: Option<Skip>,
}

impl From<Outage> for OutageFacts {
    fn from(outage: Outage) -> Self {
        Self {
            from: Time(outage.from),
            to: Time(outage.to),
            messages: outage.messages,
            kind: outage.kind.name(),
            skip: outage.kind.skip().cloned(),
            cause: outage.cause,
        }
    }
}

impl Batch {
    fn of(batch: BatchSummary, producers: &[ProducerFacts]) -> Self {
        let delivered = producers
            .iter()
            .filter(|producer| producer.cursor.is_some_and(|cursor| cursor >= batch.end));
        Self {
            delivered_by: delivered.map(|producer| producer.name.clone()).collect(),
            first: batch.first,
            end: batch.end,
            messages: batch.end.get() - batch.first.get(),
            raw_bytes: batch.raw_bytes,
            stored_bytes: batch.stored_bytes,
            received_first: Time(batch.received_first),
            received_last: Time(batch.received_last),
            generation: batch.generation,
            outage: batch.outage.map(OutageFacts::from),
        }
    }
}

/// What is left to list.
struct Rest {
    query: BatchQuery,
    to: Offset,
    left: usize,
    /// Whether there is nothing behind what was read.
    ended: bool,
}

impl Rest {
    async fn page(&mut self, chosen: &Chosen) -> Result<Vec<BatchSummary>, RunnerError> {
        self.query.limit = self.left.min(PAGE);
        let name = &chosen.summary.name;
        let page = chosen
            .path
            .batches(name, self.query)
            .await
            .map_err(stage_failed)?;
        let mut batches = page.batches;
        let within = batches.partition_point(|batch| batch.first < self.to);
        self.ended = page.next.is_none() || within < batches.len();
        batches.truncate(within);
        self.left -= batches.len();
        if let Some(next) = page.next {
            self.query.from = next;
        }
        Ok(batches)
    }

    fn is_done(&self) -> bool {
        self.ended || self.left == 0
    }
}

/// Lists the batches of a stage.
pub(crate) async fn list(cli: &Cli, args: &ListArgs, stage: &str) -> Result<(), RunnerError> {
    let chosen = choose(cli, stage).await?;
    refuse_outside(&chosen, args.from, args.to)?;
    let facts = StageFacts::from(chosen.summary.clone());
    let mut rest = Rest {
        query: BatchQuery {
            from: BatchPosition {
                offset: Offset::new(args.from),
                part: 0,
            },
            since: args.since,
            only_outages: false,
            limit: 0,
        },
        to: Offset::new(args.to.unwrap_or(u64::MAX)),
        left: args.limit,
        ended: false,
    };
    let mut output = Output::new();
    if cli.json {
        write_json(&mut output, &chosen, &facts, &mut rest).await?;
    } else {
        write_table(&mut output, &chosen, &facts, &mut rest).await?;
    }
    output.flush()?;
    chosen.close().await
}

/// The stage as an object that is left open until its last batch is written.
async fn write_json(
    output: &mut Output,
    chosen: &Chosen,
    facts: &StageFacts,
    rest: &mut Rest,
) -> Result<(), RunnerError> {
    let text = serde_json::to_string_pretty(facts).map_err(json_failed)?;
    let open = text.trim_end().trim_end_matches('}').trim_end();
    output.write(format_args!("{open},\n  \"batches\": ["))?;
    let mut separator = "";
    while !rest.is_done() {
        for batch in rest.page(chosen).await? {
            let text = serde_json::to_string(&Batch::of(batch, &facts.producers)).map_err(json_failed)?;
            output.write(format_args!("{separator}\n    {text}"))?;
            separator = ",";
        }
    }
    output.line(if separator.is_empty() { "]\n}" } else { "\n  ]\n}" })
}

async fn write_table(
    output: &mut Output,
    chosen: &Chosen,
    facts: &StageFacts,
    rest: &mut Rest,
) -> Result<(), RunnerError> {
    let mut last = None;
    let mut is_first = true;
    while !rest.is_done() {
        let mut table = Table::new([
            ("OFFSETS", Align::Left),
            ("COUNT", Align::Right),
            ("RAW", Align::Right),
            ("STORED", Align::Right),
            ("RECEIVED", Align::Left),
            ("STATE", Align::Left),
        ]);
        for batch in rest.page(chosen).await? {
            let batch = Batch::of(batch, &facts.producers);
            last = Some(batch.end);
            table.push([
                format!("{}..{}", batch.first, batch.end),
                human_count(batch.messages),
                human_bytes(batch.raw_bytes),
                human_bytes(batch.stored_bytes),
                received(batch.received_first.0, batch.received_last.0),
                state(&batch, facts),
            ]);
        }
        let text = table.to_string();
        // The headings stand above the first page only.
        let shown = if is_first {
            text.as_str()
        } else {
            text.split_once('\n').map_or("", |(_, rows)| rows)
        };
        output.write(shown)?;
        is_first = false;
    }
    if let Some(last) = last
        && !rest.ended
        && last < facts.head
    {
        output.line(format_args!("more with --from {last}"))?;
    }
    Ok(())
}

fn state(batch: &Batch, facts: &StageFacts) -> String {
    match (&batch.outage, batch.delivered_by.len()) {
        (Some(outage), _) => match outage.kind {
            "outage" => format!("no connection: {}", escaped(&outage.cause)),
            _ => escaped(&outage.cause),
        },
        (None, _) if facts.producers.is_empty() => "no producer".to_owned(),
        (None, 0) => "pending".to_owned(),
        (None, delivered) if delivered == facts.producers.len() => "delivered".to_owned(),
        (None, _) => format!("delivered by {}", batch.delivered_by.join(", ")),
    }
}

/// When the first message came, and how much later the last one.
fn received(first: Timestamp, last: Timestamp) -> String {
    let millis = last.micros().saturating_sub(first.micros()) / 1000;
    format!("{} +{millis} ms", utc(first))
}
