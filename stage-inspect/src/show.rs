//! `stage-inspect show`: messages by their offsets. Of offsets without a message it is said what is known.

use std::fmt;
use std::ops::Range;

use clap::Args;
use serde::Serialize;
use socket_el::exit::{ExitReason, RunnerError};
use socket_el::record::{Message, Offset};
use socket_el::stage::{Bounds, Gap, GapCause};

use crate::chosen::choose;
use crate::cli::Cli;
use crate::message::{json_line, pretty};
use crate::output::{Output, json_failed};
use crate::range::Pages;
use crate::time::utc;

/// Arguments of `show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stage-inspect show websocket_1 41            one message
  stage-inspect show websocket_1 40..50        ten; the end is not among them, as in the lists
  stage-inspect show websocket_1 41 --raw      its bytes as they came
  stage-inspect show websocket_1 40..50 --json a line of JSON for each

Exits with 2 when the offsets lie before or behind what the stage holds, and with 1 when they lie in it and hold no message.")]
pub(crate) struct ShowArgs {
    /// The stage: the name of its consumer
    pub(crate) stage: String,
    /// An offset, or the first one and the one after the last
    #[arg(value_name = "OFFSET[..OFFSET]", value_parser = parse_offsets)]
    pub(crate) offsets: Range<u64>,
    /// The payloads as they came, a line end behind each
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

fn parse_offsets(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("expected an offset such as 41, or two such as 40..50, found `{text}`"))
    };
    let range = match text.split_once("..") {
        Some((from, to)) => number(from)?..number(to)?,
        None => {
            let offset = number(text)?;
            offset..offset.saturating_add(1)
        }
    };
    if range.is_empty() {
        return Err(format!(
            "{}..{} holds no offset: the second one must be larger",
            range.start, range.end
        ));
    }
    Ok(range)
}

/// How messages are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A header, and pretty JSON.
    Pretty,
    /// Payload and line end.
    Raw,
    /// A line of JSON.
    Json,
}

impl Shape {
    pub(crate) fn new(is_json: bool, is_raw: bool) -> Self {
        match (is_json, is_raw) {
            (true, _) => Self::Json,
            (false, true) => Self::Raw,
            (false, false) => Self::Pretty,
        }
    }

    /// Writes one message.
    pub(crate) fn message(
        self,
        output: &mut Output,
        offset: Offset,
        message: Message<'_>,
    ) -> Result<(), RunnerError> {
        match self {
            Self::Pretty => {
                output.line(format_args!("-- {offset}  {}", utc(message.received_at)))?;
                output.line(pretty(message.payload))
            }
            Self::Raw => {
                output.bytes(message.payload)?;
                output.bytes(b"\n")
            }
            Self::Json => output.line(json_line(offset, message)?),
        }
    }

    /// Writes what is known of offsets without a message. Among raw payloads it would be taken for one: there it goes to stderr.
    pub(crate) fn absence(self, output: &mut Output, absence: &Absence) -> Result<(), RunnerError> {
        match self {
            Self::Pretty => output.line(format_args!("-- {absence}")),
            Self::Raw => {
                eprintln!("stage-inspect: {absence}");
                Ok(())
            }
            Self::Json => output.line(serde_json::to_string(absence).map_err(json_failed)?),
        }
    }
}

/// Offsets that hold no message, and why.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Absence {
    from: Offset,
    to: Offset,
    /// None when nobody can know.
    messages: Option<u64>,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    Reservation,
    Lost,
    DroppedOldest,
    Expired,
    /// No message has had this offset yet.
    NotYet,
}

impl Absence {
    /// The part of a gap that lies within `asked`; `None` if none does.
    pub(crate) fn within(gap: &Gap, asked: &Range<Offset>) -> Option<Self> {
        let (from, to) = (gap.from.max(asked.start), gap.to.min(asked.end));
        let messages = match gap.messages {
            Some(0) => Some(0),
            Some(_) => Some(to.get().saturating_sub(from.get())),
            None => None,
        };
        let cause = match gap.cause {
            GapCause::Reservation => Cause::Reservation,
            GapCause::Lost => Cause::Lost,
            GapCause::DroppedOldest => Cause::DroppedOldest,
            GapCause::Expired => Cause::Expired,
        };
        (from < to).then_some(Self {
            from,
            to,
            messages,
            cause,
        })
    }

    fn not_yet(bounds: Bounds, asked: &Range<Offset>) -> Option<Self> {
        let (from, to) = (bounds.head.max(asked.start), asked.end);
        (from < to).then_some(Self {
            from,
            to,
            messages: Some(0),
            cause: Cause::NotYet,
        })
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from.advanced_by(1) == self.to {
            write!(f, "{}: ", self.from)?;
        } else {
            write!(f, "{}..{}: ", self.from, self.to)?;
        }
        f.write_str(match self.cause {
            Cause::Reservation => "no message: reserved before an unclean stop",
            Cause::Lost => "lost from the disk",
            Cause::DroppedOldest => "dropped because the stage was full, or forgotten",
            Cause::Expired => "expired: delivered, and past the retention",
            Cause::NotYet => "no message has come yet",
        })
    }
}

/// Shows messages.
pub(crate) async fn show(cli: &Cli, args: &ShowArgs) -> Result<(), RunnerError> {
    let chosen = choose(cli, &args.stage).await?;
    let bounds = chosen.summary.bounds;
    let asked = Offset::new(args.offsets.start)..Offset::new(args.offsets.end);
    let shape = Shape::new(cli.json, args.raw);
    let mut output = Output::new();
    let mut pages = Pages::new(chosen.stage()?, asked.start, asked.end.min(bounds.head));
    let mut found = false;
    while let Some(page) = pages.next().await? {
        found |= write_page(&mut output, shape, &page, &asked)?;
    }
    if let Some(absence) = Absence::not_yet(bounds, &asked) {
        shape.absence(&mut output, &absence)?;
    }
    output.flush()?;
    chosen.close().await?;
    if found {
        return Ok(());
    }
    // At the head, too: what has not come yet can't be shown.
    let outside = asked.start >= bounds.head || asked.end <= bounds.oldest;
    let reason = match outside {
        true => ExitReason::Configuration,
        false => ExitReason::Failed,
    };
    Err(RunnerError::new(
        reason,
        format!(
            "stage {} holds no message at {}..{}; it begins at {} and ends before {}",
            args.stage, asked.start, asked.end, bounds.oldest, bounds.head
        ),
    ))
}

/// Writes the messages and gaps of a page in order; says whether there was a message.
pub(crate) fn write_page(
    output: &mut Output,
    shape: Shape,
    page: &socket_el::stage::ReadOutcome,
    asked: &Range<Offset>,
) -> Result<bool, RunnerError> {
    let mut found = false;
    let mut gaps = page.gaps.iter().peekable();
    for batch in &page.batches {
        while let Some(gap) = gaps.next_if(|gap| gap.from < batch.first) {
            write_gap(output, shape, gap, asked)?;
        }
        for (offset, message) in batch.messages_from(asked.start) {
            if offset < asked.end {
                shape.message(output, offset, message)?;
                found = true;
            }
        }
    }
    for gap in gaps {
        write_gap(output, shape, gap, asked)?;
    }
    Ok(found)
}

fn write_gap(output: &mut Output, shape: Shape, gap: &Gap, asked: &Range<Offset>) -> Result<(), RunnerError> {
    match Absence::within(gap, asked) {
        Some(absence) => shape.absence(output, &absence),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_one_or_a_range_whose_end_is_not_in_it() {
        assert_eq!(parse_offsets("41"), Ok(41..42));
        assert_eq!(parse_offsets("40..50"), Ok(40..50));
        for text in ["", "-1", "5..", "..5", "5..5", "6..5", "1...3", "a"] {
            assert!(parse_offsets(text).is_err(), "{text}");
        }
    }
}
