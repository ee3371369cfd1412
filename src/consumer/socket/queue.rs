//! The way from connections to the merge: what each has received, in order, in pieces of several messages.
//!
//! A piece ends with the frames that were there together, or when it is full. The queue is short: when the merge does not take
//! what is in it, for the stage takes nothing, connections wait here and read no more. What it holds is bounded
//! by [`QUEUE_PIECES`], and one piece that each connection is filling. Pieces are used again, so a message costs no allocation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::identity::{Fingerprint, Identifier};
use super::intake::Intake;
use super::lane::{LANES, Lane};
use super::merge::Ended;
use crate::record::{Batch, Timestamp};

/// Most pieces that wait to be merged.
const QUEUE_PIECES: usize = 4;
/// Most messages of a piece.
const MAX_PIECE_MESSAGES: usize = 256;
/// A piece with so many bytes is full; a larger message is a piece of its own.
const MAX_PIECE_BYTES: usize = 256 << 10;
/// A piece that has room for more is not kept to be used again.
const MAX_SPARE_BYTES: usize = 2 * MAX_PIECE_BYTES;

/// What happens on a connection.
pub(super) enum Event {
    /// It is made. It can't bring what was kept before `mark`; `behind` is cancelled when it is to be given up.
    Joined {
        lane: Lane,
        mark: u64,
        behind: CancellationToken,
    },
    /// It has brought messages.
    Data { lane: Lane, piece: Piece },
    /// It is subscribed.
    Live { lane: Lane, at: Timestamp },
    /// It is no more.
    Ended { lane: Lane, end: Ended },
}

/// Messages of one connection.
#[derive(Default)]
pub(super) struct Piece {
    pub(super) messages: Batch,
    /// What each of them is known by; empty where nothing is merged.
    pub(super) fingerprints: Vec<Fingerprint>,
}

impl Piece {
    fn is_full(&self) -> bool {
        self.messages.len() >= MAX_PIECE_MESSAGES || self.messages.byte_len() >= MAX_PIECE_BYTES
    }
}

/// The merge takes nothing more: the stage has failed, and so the consumer ends.
#[derive(Debug)]
pub(super) struct Closed;

/// What both ends share.
pub(super) struct Shared {
    /// `None` when there is nothing to merge.
    identifier: Option<Identifier>,
    /// The number of the next message that is kept, or a lower one.
    kept: AtomicU64,
    spare: Mutex<Vec<Piece>>,
}

impl Shared {
    /// How much has been kept, for the mark of a connection that is now dialled.
    pub(super) fn mark(&self) -> u64 {
        self.kept.load(Ordering::Acquire)
    }

    /// Tells how much has been kept.
    pub(super) fn set_mark(&self, kept: u64) {
        self.kept.store(kept, Ordering::Release);
    }

    fn piece(&self) -> Piece {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    /// Takes a piece back that is done with.
    pub(super) fn give_back(&self, mut piece: Piece) {
        if piece.messages.byte_capacity() > MAX_SPARE_BYTES {
            return;
        }
        piece.messages.clear();
        piece.fingerprints.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < QUEUE_PIECES + LANES {
            spare.push(piece);
        }
    }
}

/// A queue. With an identifier, it is told of every message what it is known by.
pub(super) fn queue(identifier: Option<Identifier>) -> (Sender, mpsc::Receiver<Event>, Arc<Shared>) {
    let (sender, receiver) = mpsc::channel(QUEUE_PIECES);
    let shared = Arc::new(Shared {
        identifier,
        kept: AtomicU64::new(0),
        spare: Mutex::default(),
    });
    let sending = Sender {
        sender,
        shared: Arc::clone(&shared),
    };
    (sending, receiver, shared)
}

/// The way in.
#[derive(Clone)]
pub(super) struct Sender {
    sender: mpsc::Sender<Event>,
    shared: Arc<Shared>,
}

impl Sender {
    /// The mark of a connection that is now dialled.
    pub(super) fn mark(&self) -> u64 {
        self.shared.mark()
    }

    /// The way in for a connection that has been made, which was dialled at `mark`.
    pub(super) async fn join(
        &self,
        lane: Lane,
        mark: u64,
        behind: CancellationToken,
    ) -> Result<IntoQueue, Closed> {
        let mut intake = IntoQueue {
            lane,
            queue: self.clone(),
            piece: self.shared.piece(),
        };
        intake.send(Event::Joined { lane, mark, behind }).await?;
        Ok(intake)
    }
}

/// One connection's way in.
pub(super) struct IntoQueue {
    lane: Lane,
    queue: Sender,
    piece: Piece,
}

impl Intake for IntoQueue {
    /// Waits only when that fills the piece.
    async fn push(&mut self, payload: &[u8], at: Timestamp) -> Result<Duration, Closed> {
        // A session's messages are shorter than a batch can hold, and a piece that is not full has room for one.
        let taken = self.piece.messages.push(payload, at);
        debug_assert!(taken, "max_message_size is below what a batch can hold");
        if let Some(identifier) = &self.queue.shared.identifier {
            self.piece.fingerprints.push(identifier.of(payload));
        }
        if self.piece.is_full() {
            return self.hand_over().await;
        }
        Ok(Duration::ZERO)
    }

    async fn hand_over(&mut self) -> Result<Duration, Closed> {
        if self.piece.messages.is_empty() {
            return Ok(Duration::ZERO);
        }
        let piece = std::mem::replace(&mut self.piece, self.queue.shared.piece());
        let lane = self.lane;
        self.send(Event::Data { lane, piece }).await
    }

    async fn live(&mut self, at: Timestamp) -> Result<Duration, Closed> {
        let deaf = self.hand_over().await?;
        let lane = self.lane;
        Ok(deaf + self.send(Event::Live { lane, at }).await?)
    }

    async fn ended(&mut self, end: Ended) -> Result<(), Closed> {
        self.hand_over().await?;
        let lane = self.lane;
        self.send(Event::Ended { lane, end }).await?;
        Ok(())
    }
}

impl IntoQueue {
    async fn send(&mut self, event: Event) -> Result<Duration, Closed> {
        // Nearly always there is room, and then no clock is asked.
        let event = match self.queue.sender.try_send(event) {
            Ok(()) => return Ok(Duration::ZERO),
            Err(mpsc::error::TrySendError::Full(event)) => event,
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Closed),
        };
        let begun = Instant::now();
        self.queue.sender.send(event).await.map_err(|_| Closed)?;
        Ok(begun.elapsed())
    }
}
