//! The gaps of one stage: which offsets hold no message, and why.
//!
//! Invariants: sorted, not overlapping. `messages` of a gap is `Some(0)` (nothing was ever there), `Some(to - from)` (every
//! offset was a message) or `None`, so that a part of a gap can be counted exactly. Neighbours of one cause, and of the
//! same words about it, are one gap.

use crate::record::Offset;
use crate::stage::{Bounds, Gap, GapCause, Given, Period};

/// Gaps of one stage that lie before its oldest message are joined beyond this many: nobody can read there any more.
pub(super) const MAX_OLD_GAPS: usize = 256;

/// The most that is kept of what was found, in bytes: it may quote the words of sled.
const MAX_WHY_BYTES: usize = 300;

/// Gaps of one stage in order.
#[derive(Clone, Debug, Default)]
pub(in crate::stage) struct GapList {
    gaps: Vec<Gap>,
}

/// Messages of a stretch that are there no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::stage) struct Gone {
    pub(in crate::stage) dropped: u64,
    pub(in crate::stage) lost: u64,
}

/// What a change made of the list, to be written to `meta`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GapChange {
    /// Begin of gaps that are no more.
    pub(super) removed: Vec<Offset>,
    /// Gaps that are new or longer.
    pub(super) added: Vec<Gap>,
}

impl GapList {
    /// The list of gaps as they were stored, in any order.
    pub(in crate::stage) fn from_stored(gaps: Vec<Gap>) -> Self {
        let mut list = Self::default();
        for gap in gaps {
            list.add(&gap);
        }
        list
    }

    /// The gaps in order.
    pub(in crate::stage) fn as_slice(&self) -> &[Gap] {
        &self.gaps
    }

    /// Adds what no gap covers yet of `gap`.
    pub(super) fn add(&mut self, gap: &Gap) -> GapChange {
        let mut change = GapChange::default();
        let mut from = gap.from;
        let mut pieces = Vec::new();
        for covered in self
            .gaps
            .iter()
            .filter(|known| known.to > gap.from && known.from < gap.to)
        {
            if from < covered.from {
                pieces.push(gap.part(from, covered.from));
            }
            from = from.max(covered.to);
        }
        if from < gap.to {
            pieces.push(gap.part(from, gap.to));
        }
        for piece in pieces {
            self.insert(piece, &mut change);
        }
        change
    }

    fn insert(&mut self, mut piece: Gap, change: &mut GapChange) {
        let mut at = self.gaps.partition_point(|known| known.from < piece.from);
        if let Some(next) = self.gaps.get(at)
            && next.from == piece.to
            && like(next, &piece)
        {
            let next = self.gaps.remove(at);
            change.removed.push(next.from);
            piece = join(&piece, &next);
        }
        if at > 0 && self.gaps[at - 1].to == piece.from && like(&self.gaps[at - 1], &piece) {
            at -= 1;
            let before = self.gaps.remove(at);
            piece = join(&before, &piece);
        }
        change.added.retain(|added| !change.removed.contains(&added.from));
        change.added.push(piece.clone());
        self.gaps.insert(at, piece);
    }

    /// Joins the oldest gaps before `oldest` while there are more than [`MAX_OLD_GAPS`].
    pub(super) fn thin_before(&mut self, oldest: Offset) -> GapChange {
        let mut change = GapChange::default();
        let old = self.gaps.partition_point(|gap| gap.to <= oldest);
        if old <= MAX_OLD_GAPS {
            return change;
        }
        let joined: Vec<_> = self.gaps.drain(..=old - MAX_OLD_GAPS).collect();
        change.removed = joined.iter().skip(1).map(|gap| gap.from).collect();
        if let (Some(first), Some(last)) = (joined.first(), joined.last()) {
            let gap = Gap {
                from: first.from,
                to: last.to,
                messages: None,
                cause: GapCause::Expired,
                why: None,
                noticed_at: last.noticed_at,
                period: joined.iter().map(|gap| gap.period).fold(None, Period::joined),
            };
            change.added.push(gap.clone());
            self.gaps.insert(0, gap);
        }
        change
    }

    /// The gap that holds `offset`.
    pub(super) fn at(&self, offset: Offset) -> Option<&Gap> {
        let at = self.gaps.partition_point(|gap| gap.to <= offset);
        self.gaps.get(at).filter(|gap| gap.from <= offset)
    }

    /// Offsets in `from..to` that no gap covers.
    pub(in crate::stage) fn count_between(&self, from: Offset, to: Offset) -> u64 {
        let missing: u64 = self
            .gaps
            .iter()
            .map(|gap| {
                let (begin, end) = (gap.from.max(from), gap.to.min(to));
                end.get().saturating_sub(begin.get())
            })
            .sum();
        to.get().saturating_sub(from.get()).saturating_sub(missing)
    }

    /// Messages that were staged at offsets in `from..to` and are there no more, as far as their number is known.
    pub(in crate::stage) fn messages_between(&self, from: Offset, to: Offset) -> Gone {
        let mut gone = Gone::default();
        for gap in &self.gaps {
            let (begin, end) = (gap.from.max(from), gap.to.min(to));
            let messages = match gap.messages {
                Some(0) | None => continue,
                Some(_) => end.get().saturating_sub(begin.get()),
            };
            match gap.cause {
                GapCause::DroppedOldest => gone.dropped += messages,
                GapCause::Lost | GapCause::Expired | GapCause::Reservation => gone.lost += messages,
            }
        }
        gone
    }

    /// Messages that were staged at offsets in `from..to`, whatever has become of them.
    pub(in crate::stage) fn given_between(&self, from: Offset, to: Offset) -> u64 {
        let Gone { dropped, lost } = self.messages_between(from, to);
        self.count_between(from, to) + dropped + lost
    }

    /// Messages that were staged before `offset` in a stage with these bounds.
    pub(in crate::stage) fn given_before(&self, offset: Offset, bounds: Bounds) -> Given {
        Given {
            messages: bounds
                .staged
                .saturating_sub(self.given_between(offset, bounds.head)),
            is_exact: (bounds.oldest..=bounds.head).contains(&offset) && !bounds.is_uncounted,
        }
    }

    /// The stretches of `from..to` that no gap covers, in order.
    pub(super) fn dense_between(&self, from: Offset, to: Offset) -> Vec<(Offset, Offset)> {
        let mut dense = Vec::new();
        let mut at = from;
        for gap in self.gaps.iter().filter(|gap| gap.to > from && gap.from < to) {
            if at < gap.from {
                dense.push((at, gap.from));
            }
            at = at.max(gap.to);
        }
        if at < to {
            dense.push((at, to));
        }
        dense
    }
}

/// A gap in which every offset was a message.
pub(in crate::stage) fn of_messages(from: Offset, to: Offset, cause: GapCause) -> Gap {
    Gap {
        from,
        to,
        messages: Some(to.get().saturating_sub(from.get())),
        cause,
        why: None,
        noticed_at: crate::record::Timestamp::now(),
        period: None,
    }
}

/// Messages that the disk no longer holds, and what was found in their place.
pub(super) fn lost(from: Offset, to: Offset, why: &str) -> Gap {
    let mut end = why.len().min(MAX_WHY_BYTES);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    Gap {
        why: Some(why[..end].to_owned()),
        ..of_messages(from, to, GapCause::Lost)
    }
}

/// Offsets that were reserved and never given.
pub(in crate::stage) fn reservation(from: Offset, to: Offset) -> Gap {
    Gap {
        messages: Some(0),
        ..of_messages(from, to, GapCause::Reservation)
    }
}

fn like(one: &Gap, other: &Gap) -> bool {
    let kind = |gap: &Gap| gap.messages.map(|messages| messages == 0);
    one.cause == other.cause && one.why == other.why && kind(one) == kind(other)
}

/// Two neighbours as one.
fn join(before: &Gap, after: &Gap) -> Gap {
    Gap {
        to: after.to,
        messages: before
            .messages
            .zip(after.messages)
            .map(|(one, other)| one + other),
        period: Period::joined(before.period, after.period),
        ..before.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(from: u64, to: u64) -> Gap {
        super::lost(Offset::new(from), Offset::new(to), "gone")
    }

    fn ranges(list: &GapList) -> Vec<(u64, u64, Option<u64>)> {
        list.as_slice()
            .iter()
            .map(|gap| (gap.from.get(), gap.to.get(), gap.messages))
            .collect()
    }

    #[test]
    fn what_is_known_already_is_not_counted_twice_and_neighbours_of_one_cause_are_one() {
        let mut list = GapList::default();
        list.add(&lost(10, 20));
        list.add(&reservation(Offset::new(30), Offset::new(40)));
        let change = list.add(&lost(5, 45));
        assert_eq!(
            ranges(&list),
            [(5, 30, Some(25)), (30, 40, Some(0)), (40, 45, Some(5))]
        );
        assert_eq!(change.removed, [Offset::new(10)]);
        assert_eq!(list.count_between(Offset::ZERO, Offset::new(50)), 10);
        assert_eq!(list.count_between(Offset::new(35), Offset::new(42)), 0);
        assert_eq!(
            list.dense_between(Offset::ZERO, Offset::new(50)),
            [(Offset::ZERO, Offset::new(5)), (Offset::new(45), Offset::new(50))]
        );
        assert_eq!(list.at(Offset::new(30)).map(|gap| gap.to.get()), Some(40));
        assert_eq!(list.at(Offset::new(45)), None);
    }

    #[test]
    fn neighbours_that_were_lost_in_different_ways_stay_apart_and_the_words_are_bounded() {
        let mut list = GapList::default();
        list.add(&lost(0, 10));
        list.add(&super::lost(Offset::new(10), Offset::new(20), "otherwise"));
        list.add(&super::lost(Offset::new(20), Offset::new(30), &"é".repeat(400)));
        assert_eq!(ranges(&list).len(), 3);
        assert_eq!(list.as_slice()[2].why.as_deref(), Some("é".repeat(150).as_str()));
    }

    #[test]
    fn old_gaps_are_joined_and_those_that_can_still_be_read_are_kept() {
        let mut list = GapList::default();
        let many = MAX_OLD_GAPS as u64 + 10;
        for number in 0..many {
            list.add(&lost(10 * number, 10 * number + 1));
        }
        let oldest = Offset::new(10 * (many - 1));
        let change = list.thin_before(oldest);
        assert_eq!(list.as_slice().len(), MAX_OLD_GAPS + 1);
        assert_eq!(list.count_between(oldest, oldest.advanced_by(10)), 9);
        assert_eq!(change.added.len(), 1);
        assert_eq!(
            change.removed.len() + 1 + list.as_slice().len() - 1,
            many as usize
        );
    }
}
