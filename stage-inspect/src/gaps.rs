//! `stage-inspect gaps`: every stretch of a stage without messages, and every stretch of time without a connection, in order.

use clap::Args;
use serde::Serialize;
use socket_el::exit::RunnerError;
use socket_el::record::Offset;
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
(no connection: the feed may have sent messages that nobody received).")]
pub(crate) struct GapsArgs {
    /// The stage
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
    cause: Cause,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    outage: Option<OutageFacts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    Reservation,
    Lost,
    DroppedOldest,
    Expired,
    Outage,
}

impl Cause {
    fn words(self) -> &'static str {
        match self {
            Self::Reservation => "reservation",
            Self::Lost => "lost",
            Self::DroppedOldest => "dropped",
            Self::Expired => "expired",
            Self::Outage => "outage",
        }
    }
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
    use socket_el::stage::GapCause;

    let mut stretches = Vec::new();
    let mut at = Offset::ZERO;
    let expired = |from, to| Stretch {
        cause: Cause::Expired,
        from,
        to,
        messages: None,
        why: None,
        noticed_at: None,
        outage: None,
    };
    for gap in &stage.gaps {
        let known = gap.from.min(stage.bounds.oldest);
        if at < known {
            stretches.push(expired(at, known));
        }
        at = gap.to;
        stretches.push(Stretch {
            cause: match gap.cause {
                GapCause::Reservation => Cause::Reservation,
                GapCause::Lost => Cause::Lost,
                GapCause::DroppedOldest => Cause::DroppedOldest,
                GapCause::Expired => Cause::Expired,
            },
            from: gap.from,
            to: gap.to,
            messages: gap.messages,
            why: gap.why.clone(),
            noticed_at: Some(Time(gap.noticed_at)),
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
                    cause: Cause::Outage,
                    from: batch.first,
                    to: batch.first,
                    messages: (outage.messages > 0).then_some(outage.messages),
                    why: None,
                    noticed_at: None,
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
                escaped(&outage.cause),
            ),
            None => (
                format!("{}..{}", stretch.from, stretch.to),
                stretch
                    .noticed_at
                    .map_or_else(|| "-".to_owned(), |time| utc(time.0)),
                stretch.why.as_deref().map_or(String::new(), escaped),
            ),
        };
        table.push([
            offsets,
            stretch.cause.words().to_owned(),
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
