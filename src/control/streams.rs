//! Answers that go on: a line of JSON each. A line is made when the socket has taken the one before, so that a slow reader gets
//! fewer of them and holds nobody up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::answer::Body;
use super::request::{MessageParams, Refusal};
use crate::record::{Message, Offset, Timestamp};
use crate::stage::local::LocalPath;
use crate::stage::path::Glance;
use crate::stage::{Gap, ReadLimit, ReadOutcome, SharedStage};

/// The least time between two lines of `watch`: what changes meanwhile is told together.
const WATCH_PAUSE: Duration = Duration::from_millis(5);

/// How much is read at a time for `messages`.
const MESSAGES_AT_A_TIME: ReadLimit = ReadLimit {
    messages: 1000,
    bytes: 1 << 20,
};

/// Who follows a stage.
struct Watcher {
    path: Arc<LocalPath>,
    stage: String,
    changes: watch::Receiver<()>,
    stop: CancellationToken,
    last: Option<Glance>,
    /// Its place among those who watch.
    _watching: OwnedSemaphorePermit,
}

/// A line at once, and then whenever something has changed, until the engine stops. `None` when there is no such stage.
pub(super) fn watch(
    path: Arc<LocalPath>,
    stage: String,
    watching: OwnedSemaphorePermit,
    stop: CancellationToken,
) -> Option<Body> {
    let watcher = Watcher {
        _watching: watching,
        changes: path.changes(&stage)?,
        path,
        stage,
        stop,
        last: None,
    };
    let lines = unfold(watcher, async |mut watcher| {
        let line = watcher.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), watcher))
    });
    Some(StreamBody::new(lines).boxed_unsync())
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        if self.last.is_some() {
            sleep(WATCH_PAUSE).await;
        }
        loop {
            self.changes.borrow_and_update();
            let now = self.path.glance(&self.stage)?;
            if self.last.as_ref() != Some(&now) {
                let known = self.last.as_ref().is_some_and(|last| last.gaps == now.gaps);
                let gaps = now.gaps.clone().filter(|_| !known);
                let told = Glance { gaps, ..now.clone() };
                self.last = Some(now);
                return Some(line(&told));
            }
            let stop = self.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return None,
                changed = self.changes.changed() => changed.ok()?,
            }
        }
    }
}

/// Who reads messages.
struct Reader {
    stage: SharedStage,
    at: Offset,
    to: Offset,
    left: u64,
    stop: CancellationToken,
}

/// The messages of a stretch, as a person reads them.
pub(super) fn messages(stage: SharedStage, params: MessageParams, stop: CancellationToken) -> Body {
    let head = stage.bounds().head;
    let reader = Reader {
        at: params.from,
        to: params.to.unwrap_or(head).min(head),
        left: params.limit,
        stage,
        stop,
    };
    let pieces = unfold(Some(reader), async |reader| {
        let mut reader = reader?;
        if reader.at >= reader.to || reader.left == 0 || reader.stop.is_cancelled() {
            return None;
        }
        let (piece, goes_on) = match reader.stage.read(reader.at, MESSAGES_AT_A_TIME).await {
            Ok(outcome) => (reader.take(&outcome), true),
            Err(error) => (line(&Refusal::from(error).body), false),
        };
        let next = goes_on.then_some(reader);
        Some((Ok::<_, Infallible>(Frame::data(piece)), next))
    });
    StreamBody::new(pieces).boxed_unsync()
}

impl Reader {
    /// The lines of what was read, gaps at their places.
    fn take(&mut self, outcome: &ReadOutcome) -> Bytes {
        let mut lines = Vec::new();
        let mut gaps = outcome.gaps.iter().peekable();
        for batch in &outcome.batches {
            for (offset, message) in batch.messages_from(self.at) {
                while let Some(gap) = gaps.next_if(|gap| gap.from < offset) {
                    put(&mut lines, &GapLine { gap });
                }
                if offset >= self.to || self.left == 0 {
                    self.at = self.to;
                    return lines.into();
                }
                self.left -= 1;
                put(&mut lines, &MessageLine::of(offset, message));
            }
        }
        for gap in gaps {
            put(&mut lines, &GapLine { gap });
        }
        // A read that got nowhere would be asked again and again.
        self.at = if outcome.next > self.at {
            outcome.next
        } else {
            self.to
        };
        lines.into()
    }
}

#[derive(Serialize)]
struct GapLine<'a> {
    gap: &'a Gap,
}

#[derive(Serialize)]
struct MessageLine<'a> {
    offset: Offset,
    /// Microseconds since the epoch.
    received_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// In place of `payload` when it is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> MessageLine<'a> {
    fn of(offset: Offset, message: Message<'a>) -> Self {
        let text = std::str::from_utf8(message.payload).ok();
        Self {
            offset,
            received_at: message.received_at,
            payload: text,
            payload_base64: text.is_none().then(|| STANDARD.encode(message.payload)),
        }
    }
}

fn line(value: &impl Serialize) -> Bytes {
    let mut line = Vec::new();
    put(&mut line, value);
    line.into()
}

fn put(lines: &mut Vec<u8>, value: &impl Serialize) {
    // Into memory, of plain fields and maps with strings as keys: nothing can fail.
    let _ = serde_json::to_writer(&mut *lines, value);
    lines.push(b'\n');
}
