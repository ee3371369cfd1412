//! Brings what several connections receive into one stage: each message once, in the order of first arrival, and between them the
//! stretches in which nobody received.
//!
//! All that happens on the connections of a consumer comes through one [`queue`](mod@super::queue) and is taken in that
//! order by one task, so a connection's messages stand behind the end of the stretch before it and ahead of the next one. What is
//! the same message is decided in [`window`], what is a stretch without a connection in [`coverage`]. Where there is only ever
//! one connection there is no window. What a new connection is ahead of the others is held back a moment in [`joining`], so that the
//! order is that of the source.
//!
//! Waits for the stage that are long enough to be seen are shown as the state `paused`: nothing is taken from the queue
//! meanwhile, and so the connections read nothing.

mod coverage;
mod joining;
mod window;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::lane::{LANES, Lane};
use super::queue::{Event, Piece, Shared};
use super::status::Board;
use crate::consumer::batcher::Batcher;
use crate::consumer::patience::patiently;
use crate::stage::{LastSeen, Outage, StageError};

use coverage::Coverage;
pub(super) use coverage::Ended;
use joining::Joining;
#[cfg(test)]
pub(super) use joining::MAX_HELD_FOR;
pub(super) use window::WindowLimits;
use window::{Arrival, Window};

/// Why a connection is given up that is further behind the others than the window goes back.
pub(super) const BEHIND: &str = "it fell behind the other connections by more than window, so what it brings can't be told from what is staged";

/// Merges the connections of one consumer.
pub(super) struct Merge {
    batcher: Batcher,
    board: Arc<Board>,
    shared: Arc<Shared>,
    coverage: Coverage,
    /// `None` when there is only ever one connection.
    window: Option<Window>,
    lanes: [State; LANES],
}

/// What is known of a connection.
#[derive(Default)]
enum State {
    #[default]
    Absent,
    Present {
        behind: CancellationToken,
        /// While it has not met the others.
        joining: Option<Joining>,
    },
    /// It was told to go; what it still brings is of no use.
    GivenUp,
}

impl Merge {
    /// A merge in front of this batcher; an earlier process heard the source last when `seen` says.
    pub(super) fn new(
        batcher: Batcher,
        board: Arc<Board>,
        shared: Arc<Shared>,
        limits: Option<WindowLimits>,
        seen: Option<LastSeen>,
    ) -> Self {
        Self {
            batcher,
            board,
            shared,
            coverage: Coverage::at_start(seen),
            window: limits.map(Window::new),
            lanes: Default::default(),
        }
    }

    /// Takes what happens until all connections are gone for good, and stages it.
    ///
    /// # Errors
    /// When the stage has failed.
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<Event>) -> Result<(), StageError> {
        loop {
            let held_until = self.held_until();
            tokio::select! {
                biased;
                due = self.batcher.due() => {
                    due?;
                    patiently(self.board.as_ref(), self.batcher.flush()).await?;
                }
                event = events.recv() => match event {
                    Some(event) => self.take(event).await?,
                    None => break,
                },
                () = sleep_until(held_until.unwrap_or_else(Instant::now)), if held_until.is_some() => {}
            }
            self.let_go().await?;
        }
        let coverage = std::mem::take(&mut self.coverage);
        self.record(coverage.stopped()).await?;
        self.batcher.finish().await
    }

    async fn take(&mut self, event: Event) -> Result<(), StageError> {
        match event {
            Event::Joined { lane, mark, behind } => {
                let mut joining = None;
                if let Some(window) = &mut self.window {
                    window.begin(lane, mark);
                    joining = self.coverage.has_other_than(lane).then(Joining::default);
                }
                self.lanes[lane.index()] = State::Present { behind, joining };
                Ok(())
            }
            Event::Live { lane, at } => {
                // It was told to go before it was subscribed: it covers nothing, since what it brings is not staged.
                if matches!(self.lanes[lane.index()], State::GivenUp) {
                    return Ok(());
                }
                if let Some(window) = &mut self.window {
                    window.catch_up(lane);
                }
                let over = self.coverage.is_live(lane, at);
                self.record(over).await
            }
            Event::Data { lane, piece } => match self.joining(lane) {
                Some(joining) => {
                    joining.hold(piece);
                    Ok(())
                }
                None => self.take_piece(lane, piece).await,
            },
            Event::Ended { lane, end } => {
                self.join(lane).await?;
                match std::mem::take(&mut self.lanes[lane.index()]) {
                    State::GivenUp => Ok(()),
                    State::Absent | State::Present { .. } => {
                        let noticed = self.coverage.ended(lane, &end);
                        self.record(noticed).await
                    }
                }
            }
        }
    }

    /// What a connection brings that has not met the others yet.
    fn joining(&mut self, lane: Lane) -> Option<&mut Joining> {
        match &mut self.lanes[lane.index()] {
            State::Present { joining, .. } => joining.as_mut(),
            State::Absent | State::GivenUp => None,
        }
    }

    /// When messages are held for too long.
    fn held_until(&self) -> Option<Instant> {
        let joining = self.lanes.iter().filter_map(|state| match state {
            State::Present { joining, .. } => joining.as_ref(),
            State::Absent | State::GivenUp => None,
        });
        joining.filter_map(Joining::deadline).min()
    }

    /// Takes what need not be held any longer.
    async fn let_go(&mut self) -> Result<(), StageError> {
        for lane in Lane::all() {
            let State::Present {
                joining: Some(joining),
                ..
            } = &self.lanes[lane.index()]
            else {
                continue;
            };
            let Some(deadline) = joining.deadline() else {
                continue;
            };
            let met = |window: &Window| joining.first().any(|message| window.awaits(lane, message));
            if self.window.as_ref().is_none_or(met)
                || !self.coverage.has_other_than(lane)
                || joining.is_too_much()
                || deadline <= Instant::now()
            {
                self.join(lane).await?;
            }
        }
        Ok(())
    }

    /// From here on what this connection brings is taken at once.
    async fn join(&mut self, lane: Lane) -> Result<(), StageError> {
        if let State::Present { joining, .. } = &mut self.lanes[lane.index()]
            && let Some(joining) = joining.take()
        {
            for piece in joining.into_pieces() {
                self.take_piece(lane, piece).await?;
            }
        }
        Ok(())
    }

    async fn take_piece(&mut self, lane: Lane, piece: Piece) -> Result<(), StageError> {
        let taken = self.take_messages(lane, &piece).await;
        self.shared.give_back(piece);
        taken
    }

    async fn take_messages(&mut self, lane: Lane, piece: &Piece) -> Result<(), StageError> {
        if matches!(self.lanes[lane.index()], State::GivenUp) {
            return Ok(());
        }
        let part = self.coverage.before_data();
        self.record(part).await?;
        let is_last = !self.coverage.has_other_than(lane);
        let mut is_behind = false;
        let staging = async {
            let window = self.window.as_mut();
            is_behind = stage(&mut self.batcher, window, &self.board, lane, piece, is_last).await?;
            Ok(())
        };
        patiently(self.board.as_ref(), staging).await?;
        if let Some(window) = &self.window {
            self.shared.set_mark(window.next());
        }
        if is_behind {
            return self.give_up(lane).await;
        }
        if let Some(last) = piece.messages.received_last() {
            self.coverage.heard(lane, last);
        }
        Ok(())
    }

    /// Tells a connection to go that is too far behind.
    async fn give_up(&mut self, lane: Lane) -> Result<(), StageError> {
        if let State::Present { behind, .. } =
            std::mem::replace(&mut self.lanes[lane.index()], State::GivenUp)
        {
            behind.cancel();
        }
        let Some(last_received) = self.coverage.heard_until(lane) else {
            return Ok(());
        };
        let end = Ended {
            cause: BEHIND.to_owned(),
            last_received,
            had_data: true,
            is_stop: false,
        };
        let noticed = self.coverage.ended(lane, &end);
        self.record(noticed).await
    }

    async fn record(&mut self, outages: impl IntoIterator<Item = Outage>) -> Result<(), StageError> {
        for outage in outages {
            patiently(self.board.as_ref(), self.batcher.append_outage(outage)).await?;
        }
        Ok(())
    }
}

/// Hands the messages to the batcher that nobody has brought before. `true`, and the rest is left, when the connection is too far
/// behind.
async fn stage(
    batcher: &mut Batcher,
    window: Option<&mut Window>,
    board: &Board,
    lane: Lane,
    piece: &Piece,
    is_last: bool,
) -> Result<bool, StageError> {
    let contribution = board.contribution(lane);
    let Some(window) = window else {
        batcher.push_all(&piece.messages).await?;
        contribution.first.add(piece.messages.len() as u64);
        return Ok(false);
    };
    let now = Instant::now();
    window.forget_old(now);
    let (mut first, mut duplicates, mut is_behind) = (0, 0, false);
    for (message, fingerprint) in piece.messages.iter().zip(&piece.fingerprints) {
        match window.arrive(lane, *fingerprint, now, is_last) {
            Arrival::First => {
                first += 1;
                batcher.push(message.payload, message.received_at).await?;
            }
            Arrival::Duplicate => duplicates += 1,
            Arrival::Behind => {
                is_behind = true;
                break;
            }
        }
    }
    contribution.first.add(first);
    contribution.duplicates.add(duplicates);
    board.duplicates(duplicates);
    Ok(is_behind)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::identity::Identifier;
    use super::super::intake::Intake;
    use super::super::queue::queue;
    use super::*;
    use crate::consumer::memory_stage::{Durability, MemoryStage, context};
    use crate::record::Timestamp;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn ended(cause: &str, last_received: i64) -> Ended {
        Ended {
            cause: cause.to_owned(),
            last_received: at(last_received),
            had_data: true,
            is_stop: false,
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_given_up_before_it_is_subscribed_covers_nothing() {
        let stage = MemoryStage::new(Durability::Immediate);
        let context = context(&stage);
        let board = Board::new("feed", Arc::clone(&context.stats), [String::new(), String::new()]);
        let limits = WindowLimits {
            messages: 3,
            age: Duration::from_secs(60),
        };
        let (sender, events, shared) = queue(Some(Identifier::new(None)));
        let merge = Merge::new(Batcher::new(&context), board, shared, Some(limits), None);
        let told_to_go = CancellationToken::new();
        let to_go = told_to_go.clone();
        let happens = async move {
            let join = async |entry, behind| sender.join(Lane::first_of(entry), 0, behind).await.unwrap();
            let mut a = join(0, CancellationToken::new()).await;
            let mut b = join(1, to_go).await;
            a.live(at(1)).await.unwrap();
            for message in ["1", "2", "3", "4", "5"] {
                a.push(message.as_bytes(), at(2)).await.unwrap();
            }
            a.hand_over().await.unwrap();
            b.push(b"2", at(3)).await.unwrap();
            // It does not know yet.
            b.live(at(4)).await.unwrap();
            b.ended(ended(BEHIND, 5)).await.unwrap();
            a.ended(ended("cut", 6)).await.unwrap();
            let mut a = join(0, CancellationToken::new()).await;
            a.live(at(9)).await.unwrap();
            let stop = Ended {
                is_stop: true,
                ..ended("", 9)
            };
            a.ended(stop).await.unwrap();
        };
        let (merged, ()) = tokio::join!(merge.run(events), happens);
        merged.unwrap();
        assert!(told_to_go.is_cancelled());
        let outages = stage.outages();
        let stretches = outages
            .iter()
            .map(|outage| (outage.from.micros(), outage.to.micros()));
        assert_eq!(stretches.collect::<Vec<_>>(), [(6, 9)]);
        assert_eq!(outages[0].cause, "cut");
    }
}
