//! `stage-inspect gaps`: every stretch of a stage without messages, and every stretch of time without a connection, in order.

use clap::Args;
use serde::Serialize;
use socket_el::exit::RunnerError;
use socket_el::record::Offset;
use socket_el::stage::GapCause;
use socket_el::stage::path::{BatchPosition, BatchQuery, StageSummary};

use crate::batches::OutageFacts;
use crate::chosen::{Chosen, choose};
use crate::cli::Cli;
use crate::message::escaped;
use crate::output::{print, print_json};
use crate::place::stage_failed;
use crate::table::{Align, Table, human_count};
use crate::time::{Time, utc};

/// Outages of one page.
const PAGE: usize = 1_000;

/// Arguments of `gaps`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect gaps websocket_1
  stage-inspect gaps websocket_1 --json

Causes: reservation (offsets skipped after an unclean stop: no message was there), lost (the disk no longer holds them, or holds \
them damaged), dropped_oldest (the stage was full, or they were forgotten), expired (delivered and past the retention), outage \
(no connection: the feed may have sent messages that nobody received), dropped_newest (the stage was full and refused them), \
too_large (a message that can't be staged), sequence (the feed's own numbers have a hole).

The same stand in the table _socket_el_gap of the database, once delivery has passed them.")]
pub(crate) struct GapsArgs {
    /// The stage: the name of its consumer
    pub(crate) stage: String,
}

#[derive(Serialize)]
struct Listing {
    stage: String,
    /// Messages that the stage refused because it was full (`on_full: drop_newest`).
    refused: u64,
    gaps: Vec<Stretch>,
}

/// A stretch without messages.
#[derive(Serialize)]
struct Stretch {
    cause: &'static str,
    /// For an outage, the offset of the first message after it.
    from: Offset,
    to: Offset,
    /// How many messages are missing; none when nobody can know.
    messages: Option<u64>,
    /// What was found where messages are lost, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    noticed_at: Option<Time>,
    /// When what is missing was received, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<Received>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outage: Option<OutageFacts>,
}

#[derive(Clone, Copy, Serialize)]
struct Received {
    from: Time,
    to: Time,
}

/// Lists the gaps of a stage.
pub(crate) async fn gaps(cli: &Cli, args: &GapsArgs) -> Result<(), RunnerError> {
    let chosen = choose(cli, &args.stage).await?;
    let mut stretches = of_offsets(&chosen.summary);
    stretches.extend(outages(&chosen).await?);
    // What comes before the message at an offset stands before the gap that begins there.
    stretches.sort_by_key(|stretch| (stretch.from, stretch.to));
    let listing = Listing {
        stage: chosen.summary.name.clone(),
        refused: chosen.summary.refused,
        gaps: stretches,
    };
    chosen.close().await?;
    if cli.json {
        print_json(&listing)
    } else {
        print(shown(&listing))
    }
}

/// The recorded gaps, and what lies before the oldest message without being recorded: it has expired.
fn of_offsets(stage: &StageSummary) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut at = Offset::ZERO;
    let expired = |from, to| Stretch {
        cause: GapCause::Expired.name(),
        from,
        to,
        messages: None,
        why: None,
        noticed_at: None,
        received: None,
        outage: None,
    };
    for gap in &stage.gaps {
        let known = gap.from.min(stage.bounds.oldest);
        if at < known {
            stretches.push(expired(at, known));
        }
        at = gap.to;
        stretches.push(Stretch {
            cause: gap.cause.name(),
            from: gap.from,
            to: gap.to,
            messages: gap.messages,
            why: gap.why.clone(),
            noticed_at: Some(Time(gap.noticed_at)),
            received: gap.period.map(|period| Received {
                from: Time(period.from),
                to: Time(period.to),
            }),
            outage: None,
        });
    }
    if at < stage.bounds.oldest {
        stretches.push(expired(at, stage.bounds.oldest));
    }
    stretches
}

async fn outages(chosen: &Chosen) -> Result<Vec<Stretch>, RunnerError> {
    let mut query = BatchQuery {
        from: BatchPosition::default(),
        since: None,
        only_outages: true,
        limit: PAGE,
    };
    let mut stretches = Vec::new();
    loop {
        let page = chosen
            .path
            .batches(&chosen.summary.name, query)
            .await
            .map_err(stage_failed)?;
        for batch in page.batches {
            if let Some(outage) = batch.outage {
                stretches.push(Stretch {
                    cause: outage.kind.name(),
                    from: batch.first,
                    to: batch.first,
                    messages: (outage.messages > 0).then_some(outage.messages),
                    why: None,
                    noticed_at: None,
                    received: None,
                    outage: Some(OutageFacts::from(outage)),
                });
            }
        }
        match page.next {
            Some(next) => query.from = next,
            None => return Ok(stretches),
        }
    }
}

/// The cause, and which of the source's numbers are missing.
fn why(outage: &OutageFacts) -> String {
    let cause = escaped(&outage.cause);
    let Some(skip) = &outage.skip else {
        return cause;
    };
    let numbers = if skip.first == skip.last {
        skip.first.to_string()
    } else {
        format!("{} to {}", skip.first, skip.last)
    };
    match &skip.key {
        Some(key) => format!("{}: {numbers}: {cause}", escaped(key)),
        None => format!("{numbers}: {cause}"),
    }
}

fn shown(listing: &Listing) -> String {
    let mut table = Table::new([
        ("OFFSETS", Align::Left),
        ("CAUSE", Align::Left),
        ("MESSAGES", Align::Right),
        ("WHEN", Align::Left),
        ("WHY", Align::Left),
    ]);
    for stretch in &listing.gaps {
        let (offsets, when, why) = match &stretch.outage {
            Some(outage) => (
                format!("before {}", stretch.from),
                format!("{} to {}", utc(outage.from.0), utc(outage.to.0)),
                why(outage),
            ),
            None => (
                format!("{}..{}", stretch.from, stretch.to),
                match (stretch.received, stretch.noticed_at) {
                    (Some(received), _) => format!("{} to {}", utc(received.from.0), utc(received.to.0)),
                    (None, Some(time)) => format!("noticed {}", utc(time.0)),
                    (None, None) => "-".to_owned(),
                },
                stretch.why.as_deref().map_or(String::new(), escaped),
            ),
        };
        table.push([
            offsets,
            stretch.cause.to_owned(),
            stretch.messages.map_or_else(|| "?".to_owned(), human_count),
            when,
            why,
        ]);
    }
    let mut text = if listing.gaps.is_empty() {
        format!("stage {} has no gaps\n", listing.stage)
    } else {
        table.to_string()
    };
    if listing.refused > 0 {
        text += &format!(
            "refused because the stage was full: {} messages\n",
            human_count(listing.refused)
        );
    }
    text
}
