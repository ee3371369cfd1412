//! Which messages of several connections are the same one: the first arrival is kept, the others are its duplicates.
//!
//! What was kept lately stands in a window, in order. Each connection has its own way through it: a message that comes over a
//! connection is paired with the oldest one in the window that has the same identity and that this connection has not brought
//! yet; when there is none it is new. So two equal messages that one connection brings are two, and what two connections bring
//! once each is one.
//!
//! What a connection can't bring any more is not waited for: it begins at the mark that was the window's end when it was dialled, and
//! what was kept before is nothing to pair its messages with. Only messages that the configuration gives an identity are
//! paired with all of the window, for a server that repeats one means the same. Of what was kept between that mark and the
//! subscription at the server the connection never brings anything either, but nobody can tell where that was: so equal messages
//! without such an identity, when only this connection brings them later, are taken for those and are left out.
//!
//! The window is limited in messages and, but for the newest, in age. A connection that is behind by more than the window could bring what was
//! kept and is forgotten: its messages can't be told from new ones. That is noticed where it matters: when it brings
//! something that nothing is paired with, and the window has moved on past the place up to which it has come. Such a
//! connection is [behind](Arrival::Behind); whoever asks has to give it up. The only live connection never is: nothing can be
//! lost by what it brings, at worst something is kept twice. Up to which place a connection has come is known
//! from what it was the first to bring, and from messages of which it has brought as many as are in the window.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use super::super::identity::Fingerprint;
use super::super::lane::{LANES, Lane};

/// So many of the newest messages stay however old they are. In a feed that is slower than the window is long, a connection that
/// lacks one message would be behind by all that there is.
const NEVER_TOO_OLD: usize = 1_000;

/// `window`: how far connections may be apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct WindowLimits {
    /// Messages. Each takes about 210 bytes at the default, and up to 360 at others, as the tables grow by doubling.
    pub(in super::super) messages: usize,
    /// Time since a message was kept, but for the newest.
    pub(in super::super) age: Duration,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nobody has brought it before.
    First,
    /// Another connection has brought it.
    Duplicate,
    /// Nobody can tell: its connection is too far behind the others.
    Behind,
}

/// The messages that were kept lately.
pub(super) struct Window {
    limits: WindowLimits,
    kept: VecDeque<Kept>,
    /// The number of the oldest of them. Numbers run on.
    oldest: u64,
    by_identity: HashMap<Fingerprint, Same, BuildHasherDefault<AsItIs>>,
    /// Up to where each connection has come: the number after the last message that it is known to have brought.
    reached: [u64; LANES],
}

#[derive(Clone, Copy)]
struct Kept {
    fingerprint: Fingerprint,
    at: Instant,
}

/// All messages of the window that have the same identity.
#[derive(Clone, Copy, Default)]
struct Same {
    messages: u32,
    /// How many of them, the newest ones, each connection has not brought yet.
    lacks: [u32; LANES],
    /// A bit for each connection that has not brought one of them that is forgotten: it may still bring it.
    owed: u8,
    /// The number of the newest.
    newest: u64,
}

const _: () = assert!(LANES <= 8, "a bit of `owed` for each");

impl Window {
    pub(super) fn new(limits: WindowLimits) -> Self {
        Self {
            limits,
            kept: VecDeque::new(),
            oldest: 0,
            by_identity: HashMap::default(),
            reached: [0; LANES],
        }
    }

    /// The number that the next message will have that is kept.
    pub(super) fn next(&self) -> u64 {
        self.oldest + self.kept.len() as u64
    }

    /// A new connection: what was kept before `mark` it can't bring. Takes a time that grows with the window.
    pub(super) fn begin(&mut self, lane: Lane, mark: u64) {
        let lane = lane.index();
        self.reached[lane] = mark;
        for (fingerprint, same) in &mut self.by_identity {
            same.lacks[lane] = if fingerprint.is_named() { same.messages } else { 0 };
            same.owed &= !(1 << lane);
        }
        let since_mark = usize::try_from(mark.saturating_sub(self.oldest)).unwrap_or(usize::MAX);
        for kept in self.kept.iter().skip(since_mark) {
            if let Some(same) = self.by_identity.get_mut(&kept.fingerprint)
                && !kept.fingerprint.is_named()
            {
                same.lacks[lane] += 1;
            }
        }
    }

    /// The server has just answered this connection: it is not behind.
    pub(super) fn catch_up(&mut self, lane: Lane) {
        self.reached[lane.index()] = self.next();
    }

    /// Whether another connection has brought such a message that this one has not.
    pub(super) fn awaits(&self, lane: Lane, fingerprint: Fingerprint) -> bool {
        let same = self.by_identity.get(&fingerprint);
        same.is_some_and(|same| same.lacks[lane.index()] > 0)
    }

    /// Forgets what is too old.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while self.kept.len() > NEVER_TOO_OLD
            && let Some(oldest) = self.kept.front()
            && now.saturating_duration_since(oldest.at) > self.limits.age
        {
            self.forget_oldest();
        }
    }

    /// What this message is; when it is new, it stands in the window from now on. `is_last`: no other connection is live.
    pub(super) fn arrive(
        &mut self,
        lane: Lane,
        fingerprint: Fingerprint,
        now: Instant,
        is_last: bool,
    ) -> Arrival {
        let lane = lane.index();
        if let Some(same) = self.by_identity.get_mut(&fingerprint)
            && same.lacks[lane] > 0
        {
            same.lacks[lane] -= 1;
            if same.lacks[lane] == 0 && same.owed & (1 << lane) == 0 {
                self.reached[lane] = self.reached[lane].max(same.newest + 1);
            }
            return Arrival::Duplicate;
        }
        if self.reached[lane] < self.oldest && !is_last {
            return Arrival::Behind;
        }
        if self.kept.len() >= self.limits.messages {
            self.forget_oldest();
        }
        let number = self.next();
        self.kept.push_back(Kept { fingerprint, at: now });
        let same = self.by_identity.entry(fingerprint).or_default();
        same.messages += 1;
        same.newest = number;
        for (other, lacks) in same.lacks.iter_mut().enumerate() {
            *lacks += u32::from(other != lane);
        }
        self.reached[lane] = number + 1;
        Arrival::First
    }

    fn forget_oldest(&mut self) {
        let Some(Kept { fingerprint, .. }) = self.kept.pop_front() else {
            return;
        };
        self.oldest += 1;
        let Some(same) = self.by_identity.get_mut(&fingerprint) else {
            return;
        };
        same.messages -= 1;
        if same.messages == 0 {
            self.by_identity.remove(&fingerprint);
            return;
        }
        // The oldest is the first that a connection lacks.
        for (lane, lacks) in same.lacks.iter_mut().enumerate() {
            if *lacks > same.messages {
                *lacks = same.messages;
                same.owed |= 1 << lane;
            }
        }
    }
}

#[cfg(test)]
mod tests;

/// A fingerprint is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = (fingerprint >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
