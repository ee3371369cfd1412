//! What a connection brings that has just been made while another one is live, until it has met the others.
//!
//! A new connection may be ahead of the others, by what is still on its way over them. To stage what it brings at once would put
//! later messages before earlier ones, and numbers that are checked (`sequence`) would seem to have holes. So its messages are
//! held back until one of the first of them is one that another connection has brought. Nothing has to wait for that: the others
//! bring the same meanwhile.
//!
//! It is not waited for long: a connection may have nothing in common with the others, or these may be dead and
//! nobody knows. What is held is bounded in time, messages and bytes; whoever asks lets it go too when no other connection is live.

use std::time::Duration;

use tokio::time::Instant;

use super::super::identity::Fingerprint;
use super::super::queue::Piece;

/// How long messages are held at most: more than what is on its way over a connection that is alive takes.
pub(in super::super) const MAX_HELD_FOR: Duration = Duration::from_secs(1);
/// From so many messages on nothing more is held.
const MAX_HELD_MESSAGES: usize = 10_000;
/// From so many bytes on nothing more is held.
const MAX_HELD_BYTES: usize = 4 << 20;
/// So many of the first messages are looked at: a greeting or two that every connection gets for itself may come first.
const FIRST_MESSAGES: usize = 16;

/// The messages of a connection that has not met the others yet.
#[derive(Default)]
pub(super) struct Joining {
    pieces: Vec<Piece>,
    messages: usize,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Joining {
    /// Holds a piece back.
    pub(super) fn hold(&mut self, piece: Piece) {
        self.messages += piece.messages.len();
        self.bytes += piece.messages.byte_len();
        self.since.get_or_insert_with(Instant::now);
        self.pieces.push(piece);
    }

    /// When it is held too long. `None` while nothing is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + MAX_HELD_FOR)
    }

    /// Whether it is more than may be held.
    pub(super) fn is_too_much(&self) -> bool {
        self.messages >= MAX_HELD_MESSAGES || self.bytes >= MAX_HELD_BYTES
    }

    /// What the first of its messages are known by.
    pub(super) fn first(&self) -> impl Iterator<Item = Fingerprint> {
        let all = self.pieces.iter().flat_map(|piece| &piece.fingerprints);
        all.copied().take(FIRST_MESSAGES)
    }

    /// The pieces, in order.
    pub(super) fn into_pieces(self) -> Vec<Piece> {
        self.pieces
    }
}
