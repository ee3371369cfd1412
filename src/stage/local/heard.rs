//! When a stage's source was heard, so that the time without an engine is known to the next one.
//!
//! Both times only become part of the book together with a head that is durable: what a crash takes was not heard.

use crate::record::Timestamp;
use crate::stage::LastSeen;

/// When the source was heard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    /// When the last message that is durable came, or the last outage ended.
    pub(super) seen_at: Option<Timestamp>,
    /// When the consumer stopped in order, the last time.
    pub(super) stopped_at: Option<Timestamp>,
}

impl Heard {
    /// Which of the two is the last word.
    pub(super) fn last(self) -> Option<LastSeen> {
        match (self.stopped_at, self.seen_at) {
            (Some(at), seen_at) if seen_at.is_none_or(|seen_at| seen_at <= at) => {
                Some(LastSeen { at, stopped: true })
            }
            (_, Some(at)) => Some(LastSeen { at, stopped: false }),
            (_, None) => None,
        }
    }
}
