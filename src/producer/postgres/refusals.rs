//! How many messages the server has refused of late (`poison_limit`). Too many, and it is not the data that is wrong but the table:
//! then the stage is held, until an operator has mended it.
//!
//! Attempts after that are trials. A trial takes a fair number of messages, and none of them becomes a dead letter before it is
//! known that the server takes enough of them; then delivery goes on as before, and what was refused earlier is forgotten. Where
//! the server names no row, transactions have to be committed to find the one that is refused: then a trial gives up one
//! message at most.

use std::collections::VecDeque;

use crate::config::percent::Percent;

/// How many messages are looked back over.
pub(super) const WINDOW: u64 = 10_000;
/// The most messages of a trial: enough to judge by, and few enough to be sent again for each that is refused.
pub(super) const TRIAL_MESSAGES: usize = 1_000;

/// The refusals of one lane.
#[derive(Clone, Debug)]
pub(super) struct Refusals {
    limit: Percent,
    /// The number of the next message; each has one, in order.
    next: u64,
    /// Numbers of messages that were refused, ascending, not further back than the window. Bounded by it.
    refused: VecDeque<u64>,
    trial: Option<Trial>,
}

/// An attempt whether the server takes the messages now.
#[derive(Clone, Copy, Debug, Default)]
struct Trial {
    /// How many messages it is about; 0 before the first refusal.
    messages: u64,
    refused: u64,
    committed: u64,
}

impl Refusals {
    pub(super) fn new(limit: Percent) -> Self {
        Self {
            limit,
            next: WINDOW,
            refused: VecDeque::new(),
            trial: None,
        }
    }

    pub(super) fn limit(&self) -> Percent {
        self.limit
    }

    /// What an earlier process has seen: how many messages before the next one each refused message was. Adds to what this one has.
    pub(super) fn remember(&mut self, distances: impl IntoIterator<Item = u64>) {
        let mut numbers: Vec<_> = distances
            .into_iter()
            .filter(|distance| (1..WINDOW).contains(distance))
            .map(|distance| self.next - distance)
            .chain(self.refused.iter().copied())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        self.refused = numbers.into();
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// A transaction of so many messages is refused. The first one of a trial says what it is about.
    pub(super) fn tries(&mut self, messages: u64) {
        if let Some(trial) = &mut self.trial
            && trial.messages == 0
        {
            trial.messages = messages;
        }
    }

    /// A message is refused, `ahead` messages behind the next one; whether the server has named its row. Returns whether too many
    /// are.
    pub(super) fn refuse(&mut self, ahead: u64, is_named: bool) -> bool {
        if let Some(trial) = &mut self.trial {
            trial.refused += 1;
            let most = self.limit.part_of(trial.messages);
            return trial.refused > if is_named { most } else { most.min(1) };
        }
        let number = self.next + ahead;
        if self.refused.back().is_none_or(|last| *last < number) {
            self.refused.push_back(number);
        }
        while self.refused.front().is_some_and(|first| first + WINDOW <= number) {
            self.refused.pop_front();
        }
        self.refused.len() as u64 > self.limit.part_of(WINDOW)
    }

    /// Too many were: what is not committed is tried again.
    pub(super) fn hold(&mut self) {
        let next = self.next;
        self.refused.retain(|number| *number < next);
        self.trial = Some(Trial::default());
    }

    /// So many messages are committed.
    pub(super) fn committed(&mut self, messages: u64) {
        self.next += messages;
        let Some(trial) = &mut self.trial else {
            return;
        };
        trial.committed += messages;
        if trial.committed >= trial.messages {
            self.trial = None;
            self.refused.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages one by one, each refused or not, committed one by one; returns after how many it is too many.
    fn too_many(refusals: &mut Refusals, refused: impl Fn(u64) -> bool) -> Option<u64> {
        (0..3 * WINDOW).find(|number| {
            let is_too_many = refused(*number) && refusals.refuse(0, true);
            refusals.committed(1);
            is_too_many
        })
    }

    #[test]
    fn more_than_the_share_of_the_last_ten_thousand_is_too_many_however_few_came_before() {
        for (limit, refused_of_hundred, after) in [
            (10, 100, Some(1_000)),
            (10, 20, Some(5_000)),
            (10, 10, None),
            (0, 1, Some(0)),
            (0, 0, None),
            (100, 100, None),
        ] {
            let mut refusals = Refusals::new(Percent::of(limit));
            let found = too_many(&mut refusals, |number| number % 100 < refused_of_hundred);
            assert_eq!(found, after, "{refused_of_hundred} of a hundred with {limit}%");
        }
    }

    #[test]
    fn what_an_earlier_process_has_seen_counts() {
        let mut refusals = Refusals::new(Percent::of(10));
        refusals.remember((1..=1_000).chain([WINDOW, WINDOW + 1, 0, 5]));
        assert_eq!(refusals.refused.len(), 1_000);
        assert!(refusals.refuse(0, true));
        let mut refusals = Refusals::new(Percent::of(10));
        refusals.remember(1..=1_000);
        refusals.committed(WINDOW);
        assert!(!refusals.refuse(0, true), "that was long ago");
    }

    #[test]
    fn a_trial_ends_when_all_of_its_messages_are_committed_with_few_refusals() {
        let mut refusals = Refusals::new(Percent::of(10));
        refusals.remember(1..=1_000);
        assert!(refusals.refuse(0, true));
        refusals.hold();
        refusals.tries(1_000);
        for refused in 0..100 {
            assert!(!refusals.refuse(refused, true));
        }
        assert!(refusals.refuse(100, true));
        refusals.hold();
        // Fewer and fewer are sent at once, when no row is named.
        for messages in [1_000, 500, 250, 1] {
            refusals.tries(messages);
        }
        assert!(!refusals.refuse(0, false));
        refusals.committed(400);
        assert!(refusals.clone().refuse(0, false), "a second one");
        assert!(refusals.is_on_trial());
        refusals.committed(600);
        assert!(!refusals.is_on_trial());
        assert!(!refusals.refuse(0, true), "what was before is forgotten");
    }
}
