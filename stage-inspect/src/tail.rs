//! `stage-inspect tail`: the last messages of a stage, and with `-f` those that come.

use clap::Args;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::record::Offset;
use socket_el::stage::SharedStage;
use socket_el::stage::path::{Route, StagePath as _, StageSummary};
use socket_el::stage::remote::RemotePath;
use socket_el::telemetry::{self, LogFormat};
use tokio_util::sync::CancellationToken;

use crate::chosen::{Chosen, choose};
use crate::cli::Cli;
use crate::output::Output;
use crate::place::stage_failed;
use crate::range::Pages;
use crate::show::{Shape, write_page};
use crate::stopping::Stopping;

/// Arguments of `tail`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect tail websocket_1 -n 3          the last three messages
  stage-inspect tail websocket_1 -f --json     what comes, a line of JSON for each message, until Ctrl-C")]
pub(crate) struct TailArgs {
    /// The stage: the name of its consumer
    pub(crate) stage: String,
    /// Go on with what comes, until Ctrl-C; an engine that stops or is killed is waited for
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with so many messages before the end
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    pub(crate) messages: u64,
    /// The payloads as they came, a line end behind each
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

/// Shows the last messages, and follows if that was asked for.
pub(crate) async fn tail(cli: &Cli, args: &TailArgs) -> Result<(), RunnerError> {
    let chosen = choose(cli, &args.stage).await?;
    let shape = Shape::new(cli.json, args.raw);
    let mut output = Output::new();
    let head = chosen.summary.bounds.head;
    let start = last_messages(&chosen.summary, args.messages);
    write(&mut output, shape, chosen.stage()?, start, head).await?;
    if args.follow {
        match chosen.path.route() {
            Route::Files => eprintln!(
                "stage-inspect: no engine runs on {}: nothing to follow",
                chosen.path.directory().display()
            ),
            Route::Engine { .. } => follow(&mut output, shape, &chosen, head).await?,
        }
    }
    chosen.close().await
}

/// Shows what comes until Ctrl-C. An engine that stops, or is killed, is waited for.
async fn follow(output: &mut Output, shape: Shape, chosen: &Chosen, from: Offset) -> Result<(), RunnerError> {
    let (mut stop, given_up) = (Stopping::listen()?, CancellationToken::new());
    // What becomes of the engine is told on stderr.
    telemetry::init(LogFormat::Text, tracing::Level::INFO);
    let path = RemotePath::connect_patiently(chosen.path.directory(), given_up.clone()).await;
    let path = path.map_err(|error| RunnerError::new(ExitReason::StageInUse, error))?;
    let name = &chosen.summary.name;
    let stage = path
        .stage(name)
        .ok_or_else(|| RunnerError::new(ExitReason::Failed, format!("stage {name} is no longer there")))?;
    let following = async {
        let (mut seen, mut heads) = (from, stage.watch_head());
        loop {
            let head = *heads.borrow_and_update();
            if head > seen {
                write(output, shape, stage.clone(), seen, head).await?;
                seen = head;
            }
            // Its path is another one by now, or the stage is gone: waiting would not help.
            if heads.changed().await.is_err() {
                return Err(stage_failed(path.failed_for_good().await));
            }
        }
    };
    let ended = tokio::select! {
        () = stop.asked() => Ok(()),
        ended = following => ended,
    };
    given_up.cancel();
    output.flush()?;
    ended
}

/// Shows the messages of a stretch.
async fn write(
    output: &mut Output,
    shape: Shape,
    stage: SharedStage,
    from: Offset,
    to: Offset,
) -> Result<(), RunnerError> {
    let mut pages = Pages::new(stage, from, to);
    while let Some(page) = pages.next().await? {
        write_page(output, shape, &page, &(from..to))?;
    }
    output.flush()
}

/// The offset from which on a stage holds so many messages, over the gaps between them.
fn last_messages(stage: &StageSummary, wanted: u64) -> Offset {
    let oldest = stage.bounds.oldest;
    let (mut at, mut left) = (stage.bounds.head, wanted);
    let behind_gaps = stage.gaps.iter().rev().filter(|gap| gap.from < stage.bounds.head);
    for gap in behind_gaps {
        if gap.to <= oldest {
            break;
        }
        let held = at.get().saturating_sub(gap.to.get());
        if held >= left {
            break;
        }
        left -= held;
        at = gap.from.min(at);
    }
    Offset::new(at.get().saturating_sub(left)).max(oldest)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use socket_el::record::Timestamp;
    use socket_el::stage::{Bounds, Gap, GapCause};

    use super::*;

    #[test]
    fn the_last_messages_are_counted_over_gaps() {
        let gap = |from, to| Gap {
            from: Offset::new(from),
            to: Offset::new(to),
            messages: Some(0),
            cause: GapCause::Reservation,
            why: None,
            noticed_at: Timestamp::from_micros(0),
            period: None,
        };
        let stage = StageSummary {
            name: "trades".to_owned(),
            bounds: Bounds {
                oldest: Offset::new(10),
                head: Offset::new(1_000),
                reserved: Offset::new(1_000),
                given_from: Offset::ZERO,
                staged: 40,
                is_uncounted: false,
            },
            messages: 40,
            refused: 0,
            producers: BTreeMap::new(),
            begun: BTreeSet::new(),
            gaps: vec![gap(0, 10), gap(20, 500), gap(510, 980)],
            generations: vec![0],
        };
        for (wanted, start) in [
            (0, 1_000),
            (1, 999),
            (20, 980),
            (21, 509),
            (30, 500),
            (31, 19),
            (40, 10),
            (99, 10),
        ] {
            assert_eq!(last_messages(&stage, wanted).get(), start, "{wanted}");
        }
    }
}
