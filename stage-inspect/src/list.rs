//! `stage-inspect list`: the stages of a place at a glance. The batches of one stage are left to
//! [`batches`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::record::{Offset, Timestamp};
use socket_el::stage::path::{BatchPosition, BatchQuery, PathSummary, StagePath, StageSummary};
use socket_el::stage::report::{Balance, Delivery, DeliveryState};

use crate::activity::{self, Consumer};
use crate::batches;
use crate::cli::Cli;
use crate::facts::{ProducerFacts, StageFacts};
use crate::message::escaped;
use crate::output::{print, print_json};
use crate::place::{Place, close, places, stage_failed};
use crate::table::{Align, Table, human_bytes, human_count};
use crate::time::{Time, age, parse_since, utc};

/// Batches that `list STAGE` shows unless told otherwise.
const DEFAULT_LIMIT: usize = 100;

/// Batches that are looked at to estimate the bytes of all that are pending.
const SAMPLE_BATCHES: usize = 256;

/// Arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect list                             all stages of config.yml
  stage-inspect list websocket_1 --limit 10      the first batches of one
  stage-inspect list websocket_1 --since 90m     those that came in the last 90 minutes

Bytes with a ~ are estimated from the first pending batches, before compression. DELIVERY is what a running engine's producer does: \
idle, delivering, connecting, retrying (something transient) or held (an operator is needed). With --json, `list STAGE` holds nothing that \
changes while the stage does not.")]
pub(crate) struct ListArgs {
    /// The stage whose batches to list
    pub(crate) stage: Option<String>,
    /// Begin with the batch that holds this offset, or the first one after it
    #[arg(long, value_name = "OFFSET", default_value_t = 0, requires = "stage")]
    pub(crate) from: u64,
    /// End before the batch that begins at this offset or after it
    #[arg(long, value_name = "OFFSET", requires = "stage")]
    pub(crate) to: Option<u64>,
    /// Leave out what was received before: a time such as 2026-11-24T10:00:00Z, or a duration back such as 90m
    #[arg(long, value_name = "TIME", value_parser = parse_since, requires = "stage")]
    pub(crate) since: Option<Timestamp>,
    /// Most batches to list
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT, requires = "stage")]
    pub(crate) limit: usize,
}

/// A producer that was not heard for this long may be gone.
const SILENCE: Duration = Duration::from_secs(60);

/// The stages of one directory.
#[derive(Serialize)]
struct PlaceListing {
    path: String,
    path_id: String,
    disk_bytes: u64,
    generations: usize,
    stages: Vec<Stage>,
    /// What the engine that runs on it says of the consumers of these stages; left out when none runs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    consumers: BTreeMap<String, Consumer>,
}

/// A stage, with what takes a look into its batches.
#[derive(Serialize)]
struct Stage {
    #[serde(flatten)]
    facts: StageFacts,
    /// By producer, for those that have something pending.
    backlogs: Vec<Backlog>,
    /// By producer, for those that a running engine has heard of.
    deliveries: Vec<DeliveryFacts>,
}

/// What a producer is doing.
#[derive(Serialize)]
struct DeliveryFacts {
    producer: String,
    state: DeliveryState,
    since: Time,
    /// Why; empty where the state says it all.
    why: String,
    /// What to do; empty where nothing is needed, or `why` says it.
    what_to_do: String,
    /// When the producer was heard last.
    heard_at: Time,
    /// What became of every message that the stage was offered; none while the producer does not know.
    counts: Option<Balance>,
}

/// What a producer has yet to deliver.
#[derive(Serialize)]
struct Backlog {
    producer: String,
    /// When the oldest of it was received.
    oldest_received_at: Time,
    /// About how many bytes it has before compression.
    estimated_bytes: u64,
}

/// Lists what was asked for.
pub(crate) async fn list(cli: &Cli, args: &ListArgs) -> Result<(), RunnerError> {
    if let Some(stage) = &args.stage {
        return batches::list(cli, args, stage).await;
    }
    let places = places(&cli.at).map_err(|error| RunnerError::new(ExitReason::Configuration, error))?;
    let (mut listings, mut failure) = (Vec::new(), None);
    for place in &places {
        match look(cli, place).await {
            Ok(listing) => listings.push(listing),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    // One directory that can't be looked into hides no other.
    let printed = if failure.is_some() && listings.is_empty() {
        Ok(())
    } else if cli.json {
        print_json(&listings)
    } else {
        let shown: Vec<_> = listings.iter().map(shown).collect();
        print(shown.join("\n"))
    };
    failure.map_or(printed, Err)
}

async fn look(cli: &Cli, place: &Place) -> Result<PlaceListing, RunnerError> {
    let path = place.open(cli).await?;
    let summary = path.summary().await.map_err(stage_failed)?;
    let mut stages = Vec::new();
    for stage in &summary.stages {
        stages.push(Stage {
            deliveries: deliveries(stage),
            backlogs: backlogs(&path, stage).await?,
            facts: StageFacts::from(stage.clone()),
        });
    }
    let names: Vec<_> = stages.iter().map(|stage| stage.facts.name.clone()).collect();
    let consumers = activity::consumers(&*path, &names).await.map_err(stage_failed)?;
    close(path).await?;
    let PathSummary { id, generations, .. } = summary;
    Ok(PlaceListing {
        path: place.path.display().to_string(),
        path_id: id.to_string(),
        disk_bytes: generations.iter().map(|generation| generation.bytes).sum(),
        generations: generations.len(),
        stages,
        consumers,
    })
}

fn deliveries(stage: &StageSummary) -> Vec<DeliveryFacts> {
    let known = stage.producers.iter().filter_map(|(name, producer)| {
        let Delivery {
            condition,
            heard_at,
            balance,
        } = producer.delivery.clone()?;
        Some(DeliveryFacts {
            producer: name.clone(),
            state: condition.state,
            since: Time(condition.since),
            why: condition.why,
            what_to_do: condition.what_to_do,
            heard_at: Time(heard_at),
            counts: balance,
        })
    });
    known.collect()
}

async fn backlogs(path: &Arc<dyn StagePath>, stage: &StageSummary) -> Result<Vec<Backlog>, RunnerError> {
    let mut backlogs = Vec::new();
    for (name, producer) in &stage.producers {
        if producer.pending == 0 {
            continue;
        }
        let from = producer.cursor.unwrap_or(Offset::ZERO).max(stage.bounds.oldest);
        let query = BatchQuery {
            from: BatchPosition {
                offset: from,
                part: 0,
            },
            since: None,
            only_outages: false,
            limit: SAMPLE_BATCHES,
        };
        let page = path.batches(&stage.name, query).await.map_err(stage_failed)?;
        let held: Vec<_> = page
            .batches
            .iter()
            .filter(|batch| batch.outage.is_none())
            .collect();
        let Some(oldest) = held.first() else {
            continue;
        };
        let messages: u64 = held.iter().map(|batch| batch.end.get() - batch.first.get()).sum();
        let bytes: u64 = held.iter().map(|batch| batch.raw_bytes).sum();
        let estimated = u128::from(bytes) * u128::from(producer.pending) / u128::from(messages.max(1));
        backlogs.push(Backlog {
            producer: name.clone(),
            oldest_received_at: Time(oldest.received_first),
            estimated_bytes: u64::try_from(estimated).unwrap_or(u64::MAX),
        });
    }
    Ok(backlogs)
}

fn shown(listing: &PlaceListing) -> String {
    let mut table = Table::new([
        ("STAGE", Align::Left),
        ("STATE", Align::Left),
        ("HEAD", Align::Right),
        ("MESSAGES", Align::Right),
        ("KEPT", Align::Right),
        ("GENERATIONS", Align::Right),
        ("PRODUCER", Align::Left),
        ("DELIVERY", Align::Left),
        ("CURSOR", Align::Right),
        ("PENDING", Align::Right),
        ("BYTES", Align::Right),
        ("OLDEST", Align::Right),
    ]);
    let now = Timestamp::now();
    let mut troubles = String::new();
    for Stage {
        facts,
        backlogs,
        deliveries,
    } in &listing.stages
    {
        let mut own = [
            facts.name.clone(),
            facts.state_in_words(),
            facts.head.to_string(),
            human_count(facts.messages),
            human_count(facts.kept),
            facts.generations.len().to_string(),
        ];
        let mut row = |producer: [String; 6]| {
            // What is said of the stage stands in its first row only.
            let [name, state, head, messages, kept, generations] = std::mem::take(&mut own);
            let [producer, delivery, cursor, pending, bytes, oldest] = producer;
            table.push([
                name,
                state,
                head,
                messages,
                kept,
                generations,
                producer,
                delivery,
                cursor,
                pending,
                bytes,
                oldest,
            ]);
        };
        if facts.producers.is_empty() {
            row(["none", "-", "-", "-", "-", "-"].map(str::to_owned));
        }
        for producer in &facts.producers {
            let backlog = backlogs.iter().find(|backlog| backlog.producer == producer.name);
            let delivery = deliveries
                .iter()
                .find(|delivery| delivery.producer == producer.name);
            row(producer_row(producer, delivery, backlog, now));
            if let Some(trouble) = delivery.and_then(|delivery| trouble(delivery, now)) {
                troubles += &format!("{} by {} {trouble}\n", facts.name, producer.shown_name());
            }
        }
    }
    let generations = listing.generations;
    let consumers = if listing.consumers.is_empty() {
        String::new()
    } else {
        format!("\n{}", activity::shown(&listing.consumers, now))
    };
    format!(
        "{}: {} on disk in {generations} generation{}\n{table}{troubles}{consumers}",
        listing.path,
        human_bytes(listing.disk_bytes),
        if generations == 1 { "" } else { "s" }
    )
}

fn producer_row(
    producer: &ProducerFacts,
    delivery: Option<&DeliveryFacts>,
    backlog: Option<&Backlog>,
    now: Timestamp,
) -> [String; 6] {
    let none = || "-".to_owned();
    [
        producer.shown_name(),
        match (delivery, producer.held_at) {
            (Some(delivery), _) => state_in_words(delivery.state).to_owned(),
            // Nobody tells how it stands while no engine runs, but this is known to the stage.
            (None, Some(_)) => state_in_words(DeliveryState::Held).to_owned(),
            (None, None) => none(),
        },
        producer.cursor.map_or_else(none, |cursor| cursor.to_string()),
        human_count(producer.pending),
        backlog.map_or_else(none, |backlog| {
            format!("~{}", human_bytes(backlog.estimated_bytes))
        }),
        backlog.map_or_else(none, |backlog| age(backlog.oldest_received_at.0, now)),
    ]
}

fn state_in_words(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Connecting => "connecting",
        DeliveryState::Idle => "idle",
        DeliveryState::Delivering => "delivering",
        DeliveryState::Retrying => "retrying",
        DeliveryState::Held => "held",
    }
}

/// What stands in the way of a delivery, since when, and what to do; `None` when nothing does.
fn trouble(delivery: &DeliveryFacts, now: Timestamp) -> Option<String> {
    let DeliveryFacts {
        state,
        since,
        why,
        what_to_do,
        heard_at,
        ..
    } = delivery;
    let is_well = matches!(state, DeliveryState::Idle | DeliveryState::Delivering);
    let silent = now.micros().saturating_sub(heard_at.0.micros());
    let is_silent = u128::try_from(silent).is_ok_and(|silent| silent > SILENCE.as_micros());
    if is_well && !is_silent {
        return None;
    }
    let mut text = format!(
        "is {} since {} ({})",
        state_in_words(*state),
        utc(since.0),
        age(since.0, now)
    );
    for (before, more) in [(": ", why), (". ", what_to_do)] {
        if !more.is_empty() {
            text += before;
            text += &escaped(more);
        }
    }
    if is_silent {
        text += &format!(
            ". Its process has not been heard for {}: is it running?",
            age(heard_at.0, now)
        );
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_is_told_with_what_to_do_and_a_process_that_is_gone_is_noticed() {
        let now = Timestamp::from_micros(1_795_478_400_000_000);
        let ago = |seconds: i64| Time(Timestamp::from_micros(now.micros() - seconds * 1_000_000));
        let mut delivery = DeliveryFacts {
            producer: "postgres".to_owned(),
            state: DeliveryState::Held,
            since: ago(65),
            why: "permission denied (SQLSTATE 42501)".to_owned(),
            what_to_do: "Grant it".to_owned(),
            heard_at: ago(3),
            counts: None,
        };
        assert_eq!(
            trouble(&delivery, now).unwrap(),
            "is held since 2026-11-23 23:58:55.000Z (1 m 5 s): permission denied (SQLSTATE 42501). Grant it"
        );
        delivery.state = DeliveryState::Delivering;
        assert_eq!(trouble(&delivery, now), None);
        delivery.heard_at = ago(120);
        let silent = trouble(&delivery, now).unwrap();
        assert!(
            silent.ends_with("has not been heard for 2 m 0 s: is it running?"),
            "{silent}"
        );
    }
}
