//! `stage-inspect list`: the stages of a place, or the batches of one stage.

use std::sync::Arc;

use serde::Serialize;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::record::{Offset, Timestamp};
use socket_el::stage::path::{
    BatchPosition, BatchQuery, BatchSummary, GenerationSummary, ProducerSummary, StagePath, StageSummary,
};
use socket_el::stage::{Gap, GapCause, Outage};

use crate::cli::{Cli, ListArgs};
use crate::place::{Place, close, places, stage_failed};
use crate::table::{Align, Table, human_bytes, human_count};
use crate::time::utc;

/// The stages of one directory.
#[derive(Serialize)]
struct PlaceListing {
    path: String,
    path_id: String,
    disk_bytes: u64,
    generations: usize,
    stages: Vec<Stage>,
}

/// A stage.
#[derive(Serialize)]
struct Stage {
    name: String,
    /// Offset of the oldest message that is still there.
    oldest: Offset,
    /// The offset after the last message.
    head: Offset,
    /// Messages between the two.
    messages: u64,
    /// Messages that were dropped because the stage was full (`on_full: drop_newest`).
    refused: u64,
    producers: Vec<Producer>,
    /// Offsets that hold no message.
    gaps: Vec<Gap>,
}

/// How far a producer is, as far as the stage knows.
#[derive(Serialize)]
struct Producer {
    name: String,
    cursor: Offset,
    pending: u64,
}

/// The batches of one stage.
#[derive(Serialize)]
struct StageListing {
    #[serde(flatten)]
    stage: Stage,
    batches: Vec<Batch>,
}

/// A batch, or a stretch without a connection, which has no messages.
#[derive(Serialize)]
struct Batch {
    first: Offset,
    end: Offset,
    messages: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    received_first: Timestamp,
    received_last: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    outage: Option<Outage>,
    /// Producers that have delivered all of it.
    delivered_by: Vec<String>,
}

impl From<StageSummary> for Stage {
    fn from(summary: StageSummary) -> Self {
        let producer = |(name, ProducerSummary { cursor, pending })| Producer {
            name,
            cursor: cursor.unwrap_or(Offset::ZERO),
            pending,
        };
        Self {
            name: summary.name,
            oldest: summary.bounds.oldest,
            head: summary.bounds.head,
            messages: summary.messages,
            refused: summary.refused,
            producers: summary.producers.into_iter().map(producer).collect(),
            gaps: summary.gaps,
        }
    }
}

impl Batch {
    fn of(batch: BatchSummary, producers: &[Producer]) -> Self {
        let delivered = producers.iter().filter(|producer| producer.cursor >= batch.end);
        Self {
            delivered_by: delivered.map(|producer| producer.name.clone()).collect(),
            first: batch.first,
            end: batch.end,
            messages: batch.end.get() - batch.first.get(),
            raw_bytes: batch.raw_bytes,
            stored_bytes: batch.stored_bytes,
            received_first: batch.received_first,
            received_last: batch.received_last,
            outage: batch.outage,
        }
    }
}

/// Lists what was asked for.
pub(crate) async fn list(cli: &Cli, args: &ListArgs) -> Result<(), RunnerError> {
    let places = places(&cli.at).map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
    match &args.stage {
        Some(stage) => list_stage(cli, args, stage, &places).await,
        None => list_places(cli, &places).await,
    }
}

async fn list_places(cli: &Cli, places: &[Place]) -> Result<(), RunnerError> {
    let mut listings = Vec::new();
    for place in places {
        let path = place.open(cli).await?;
        let summary = path.summary().await.map_err(stage_failed)?;
        let generations = summary.generations;
        let listing = PlaceListing {
            path: place.path.display().to_string(),
            path_id: path.id().to_string(),
            disk_bytes: generations
                .iter()
                .map(|generation: &GenerationSummary| generation.bytes)
                .sum(),
            generations: generations.len(),
            stages: summary.stages.into_iter().map(Stage::from).collect(),
        };
        close(path).await?;
        listings.push(listing);
    }
    if cli.json {
        return print_json(&listings);
    }
    for listing in &listings {
        print_place(listing);
    }
    Ok(())
}

fn print_place(listing: &PlaceListing) {
    let PlaceListing {
        path,
        disk_bytes,
        generations,
        ..
    } = listing;
    println!(
        "{path}: {} on disk in {generations} generations",
        human_bytes(*disk_bytes)
    );
    let mut table = Table::new([
        ("STAGE", Align::Left),
        ("OLDEST", Align::Right),
        ("HEAD", Align::Right),
        ("MESSAGES", Align::Right),
        ("PRODUCER", Align::Left),
        ("CURSOR", Align::Right),
        ("PENDING", Align::Right),
        ("LOST", Align::Right),
    ]);
    for stage in &listing.stages {
        let lost = lost(&stage.gaps);
        let row = |producer: [String; 3]| {
            let [name, cursor, pending] = producer;
            [
                stage.name.clone(),
                stage.oldest.to_string(),
                stage.head.to_string(),
                human_count(stage.messages),
                name,
                cursor,
                pending,
                lost.clone(),
            ]
        };
        if stage.producers.is_empty() {
            table.push(row(["none".to_owned(), "-".to_owned(), "-".to_owned()]));
        }
        for producer in &stage.producers {
            table.push(row([
                producer.name.clone(),
                producer.cursor.to_string(),
                human_count(producer.pending),
            ]));
        }
    }
    print!("{table}");
}

async fn list_stage(cli: &Cli, args: &ListArgs, stage: &str, places: &[Place]) -> Result<(), RunnerError> {
    let unknown = || {
        let known: Vec<_> = places
            .iter()
            .flat_map(|place| place.configured.iter().map(|role| role.name.as_str()))
            .collect();
        let known = if known.is_empty() {
            String::new()
        } else {
            format!("; the configuration has {}", known.join(", "))
        };
        RunnerError::new(
            ExitReason::Configuration,
            format!("there is no stage {stage}{known}"),
        )
    };
    let place = places
        .iter()
        .find(|place| place.may_hold(stage))
        .ok_or_else(unknown)?;
    let path = place.open(cli).await?;
    let Some(found) = path
        .summary()
        .await
        .map_err(stage_failed)?
        .stages
        .into_iter()
        .find(|found| found.name == stage)
    else {
        close(path).await?;
        return Err(unknown());
    };
    let found = Stage::from(found);
    let batches = read_batches(path, found.name.clone(), Offset::new(args.from), args.limit).await?;
    let batches = batches
        .into_iter()
        .map(|batch| Batch::of(batch, &found.producers))
        .collect();
    let listing = StageListing {
        stage: found,
        batches,
    };
    if cli.json {
        return print_json(&listing);
    }
    print_stage(&listing, args.limit);
    Ok(())
}

/// Reads up to `limit` batches from the one that holds `from` on, and closes the path.
async fn read_batches(
    path: Arc<dyn StagePath>,
    stage: String,
    from: Offset,
    limit: usize,
) -> Result<Vec<BatchSummary>, RunnerError> {
    let query = BatchQuery {
        from: BatchPosition {
            offset: from,
            part: 0,
        },
        since: None,
        only_outages: false,
        limit,
    };
    let page = path.batches(&stage, query).await;
    close(path).await?;
    page.map(|page| page.batches).map_err(stage_failed)
}

fn print_stage(listing: &StageListing, limit: usize) {
    let mut table = Table::new([
        ("OFFSETS", Align::Left),
        ("COUNT", Align::Right),
        ("RAW", Align::Right),
        ("STORED", Align::Right),
        ("RECEIVED", Align::Left),
        ("STATE", Align::Left),
    ]);
    let producers = listing.stage.producers.len();
    for batch in &listing.batches {
        let state = match (&batch.outage, batch.delivered_by.len()) {
            (Some(outage), _) => format!("no connection: {}", outage.cause),
            (None, 0) => "pending".to_owned(),
            (None, delivered) if delivered == producers => "delivered".to_owned(),
            (None, _) => format!("delivered by {}", batch.delivered_by.join(", ")),
        };
        table.push([
            format!("{}..{}", batch.first, batch.end),
            human_count(batch.messages),
            human_bytes(batch.raw_bytes),
            human_bytes(batch.stored_bytes),
            received(batch.received_first, batch.received_last),
            state,
        ]);
    }
    print!("{table}");
    if listing.batches.len() == limit
        && let Some(last) = listing.batches.last()
    {
        println!("more with --from {}", last.end);
    }
}

/// How many messages are known to be missing, with a mark when there is a gap of which nobody can know.
fn lost(gaps: &[Gap]) -> String {
    let count = human_count(gaps.iter().filter_map(|gap| gap.messages).sum());
    let unknown = gaps
        .iter()
        .any(|gap| gap.cause == GapCause::Lost && gap.messages.is_none());
    if unknown {
        format!("{count} + unknown")
    } else {
        count
    }
}

/// When the first message came, and how much later the last one.
fn received(first: Timestamp, last: Timestamp) -> String {
    let millis = last.micros().saturating_sub(first.micros()) / 1000;
    format!("{} +{millis} ms", utc(first))
}

fn print_json(listing: &impl Serialize) -> Result<(), RunnerError> {
    let text =
        serde_json::to_string_pretty(listing).map_err(|error| RunnerError::new(ExitReason::Failed, error))?;
    println!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_of_unknown_size_is_not_shown_as_none() {
        let gap = |cause, messages| Gap {
            from: Offset::new(1),
            to: Offset::new(9),
            messages,
            cause,
            noticed_at: Timestamp::from_micros(0),
        };
        assert_eq!(lost(&[gap(GapCause::Reservation, Some(0))]), "0");
        assert_eq!(
            lost(&[gap(GapCause::Lost, Some(8)), gap(GapCause::Expired, None)]),
            "8"
        );
        assert_eq!(
            lost(&[gap(GapCause::Lost, None), gap(GapCause::DroppedOldest, Some(8))]),
            "8 + unknown"
        );
    }
}
