//! What a producer tells a stage of its delivery, and the balance that follows: what became of each message that the stage was
//! offered.
//!
//! A stage keeps what it is told only while it is open. The truth about outcomes is the sink's; a report holds them together with
//! the cursor that they belong to, so that a balance is exact however old the report is.

use serde::{Deserialize, Serialize};

use super::Bounds;
use super::local::gaps::GapList;
use crate::record::{Offset, Timestamp};

/// The longest text of a condition, in bytes: a server may say a lot.
const MAX_TEXT_BYTES: usize = 1_000;

/// What a producer is doing about a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It has no connection to the sink, and tries to get one.
    Connecting,
    /// Everything is delivered.
    Idle,
    /// It delivers.
    Delivering,
    /// Something transient stands in the way; it tries again soon.
    Retrying,
    /// An operator has to mend something; it tries again now and then.
    Held,
}

/// A state, since when, why, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What the producer is doing.
    pub state: DeliveryState,
    /// Since when.
    pub since: Timestamp,
    /// Why, in words; empty where the state says it all. Never a secret, never a payload.
    pub why: String,
    /// What an operator can do; empty where nothing is needed.
    pub what_to_do: String,
}

impl Condition {
    /// Begins now. Texts that are too long are cut.
    #[must_use]
    pub fn new(state: DeliveryState, why: &str, what_to_do: &str) -> Self {
        Self {
            state,
            since: Timestamp::now(),
            why: cut(why),
            what_to_do: cut(what_to_do),
        }
    }

    /// Changes it. A state that goes on keeps its `since`.
    pub fn change(&mut self, state: DeliveryState, why: &str, what_to_do: &str) {
        let since = self.since;
        let goes_on = self.state == state;
        *self = Self::new(state, why, what_to_do);
        if goes_on {
            self.since = since;
        }
    }
}

fn cut(text: &str) -> String {
    let mut end = MAX_TEXT_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// What became of the messages before a cursor. Each of them is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Became rows.
    pub delivered: u64,
    /// The mapping leaves them out.
    pub ignored: u64,
    /// Stepped over: by an operator, or because the producer began behind them.
    pub skipped: u64,
    /// Became dead letters.
    pub dead_letters: u64,
    /// Dropped because the stage was full.
    pub dropped: u64,
    /// Lost from the disk, or removed before the sink had them.
    pub lost: u64,
}

impl Outcomes {
    /// All messages.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            delivered,
            ignored,
            skipped,
            dead_letters,
            dropped,
            lost,
        } = self;
        delivered + ignored + skipped + dead_letters + dropped + lost
    }
}

/// How far a producer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// The sink's cursor.
    pub cursor: Offset,
    /// What became of the messages before it.
    pub outcomes: Outcomes,
}

/// What a producer tells of its delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What it is doing.
    pub condition: Condition,
    /// How far it is; `None` while it does not know.
    pub passed: Option<Passed>,
}

/// What is known of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// What the producer is doing, as far as it was heard.
    #[serde(flatten)]
    pub condition: Condition,
    /// When it was heard last.
    pub heard_at: Timestamp,
    /// What became of the messages; `None` while the producer does not know, and of a replay.
    pub balance: Option<Balance>,
}

/// What became of every message that a stage was offered since it was made, as one producer sees it:
/// `received = delivered + ignored + skipped + dead_letters + pending + dropped + lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Messages that the stage was offered.
    pub received: u64,
    /// [`Outcomes::delivered`].
    pub delivered: u64,
    /// [`Outcomes::ignored`].
    pub ignored: u64,
    /// [`Outcomes::skipped`].
    pub skipped: u64,
    /// [`Outcomes::dead_letters`].
    pub dead_letters: u64,
    /// In the stage, and not delivered yet.
    pub pending: u64,
    /// Dropped because the stage was full: refused when they came, or dropped from the stage before they were delivered.
    pub dropped: u64,
    /// Lost from the disk, or removed before the sink had them.
    pub lost: u64,
    /// Whether there were more, of which nobody can know how many: the end of a generation was lost, or the book of the stage path.
    /// The figures need not add up then.
    pub is_uncounted: bool,
}

impl Balance {
    /// Of a producer that has come so far in a stage with these bounds and gaps, which has refused so many messages.
    pub(in crate::stage) fn of(passed: Passed, bounds: Bounds, gaps: &GapList, refused: u64) -> Self {
        let Passed { cursor, outcomes } = passed;
        let ahead = gaps.messages_between(cursor, bounds.head);
        let expired = gaps.count_between(cursor.min(bounds.oldest), bounds.oldest);
        Self {
            received: bounds.staged + refused,
            delivered: outcomes.delivered,
            ignored: outcomes.ignored,
            skipped: outcomes.skipped,
            dead_letters: outcomes.dead_letters,
            pending: gaps.count_between(cursor.max(bounds.oldest), bounds.head),
            dropped: outcomes.dropped + ahead.dropped + refused,
            lost: outcomes.lost + ahead.lost + expired,
            is_uncounted: bounds.is_uncounted,
        }
    }

    /// How many messages of those received are not accounted for; negative when more are accounted for than were received.
    #[must_use]
    pub fn difference(&self) -> i128 {
        let Self {
            received,
            delivered,
            ignored,
            skipped,
            dead_letters,
            pending,
            dropped,
            lost,
            is_uncounted: _,
        } = *self;
        let accounted = [delivered, ignored, skipped, dead_letters, pending, dropped, lost];
        i128::from(received) - accounted.into_iter().map(i128::from).sum::<i128>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::GapCause;
    use crate::stage::local::gaps;

    #[test]
    fn a_state_that_goes_on_keeps_its_since_and_texts_are_cut() {
        let mut condition = Condition::new(DeliveryState::Connecting, "", "");
        condition.since = Timestamp::from_micros(1);
        condition.change(DeliveryState::Connecting, "refused", "start the server");
        assert_eq!((condition.since.micros(), &*condition.why), (1, "refused"));
        condition.change(DeliveryState::Held, &"ä".repeat(1_000), "");
        assert!(condition.since.micros() > 1);
        assert_eq!(condition.why, "ä".repeat(500));
        let json = serde_json::to_value(&condition).unwrap();
        assert_eq!(json["state"], "held");
    }

    #[test]
    fn a_balance_counts_what_lies_ahead_of_the_cursor_and_every_gap_once() {
        let at = Offset::new;
        let list = GapList::from_stored(vec![
            gaps::of_messages(at(10), at(20), GapCause::Lost),
            gaps::reservation(at(50), at(1000)),
            gaps::of_messages(at(1010), at(1030), GapCause::DroppedOldest),
            gaps::of_messages(at(1040), at(1045), GapCause::Lost),
        ]);
        // 0..50 and 1000..1100 were staged.
        let bounds = Bounds {
            oldest: at(1030),
            head: at(1100),
            reserved: at(2000),
            given_from: at(1000),
            staged: 150,
            is_uncounted: false,
        };
        let outcomes = Outcomes {
            delivered: 20,
            ignored: 5,
            dead_letters: 3,
            skipped: 2,
            lost: 10,
            dropped: 0,
        };
        assert_eq!(outcomes.total(), 40);
        let passed = Passed {
            cursor: at(40),
            outcomes,
        };
        let balance = Balance::of(passed, bounds, &list, 7);
        assert_eq!(
            balance,
            Balance {
                received: 157,
                delivered: 20,
                ignored: 5,
                skipped: 2,
                dead_letters: 3,
                pending: 65,
                dropped: 27,
                // Ten before the cursor, five ahead of it, and what expired from 40 to 50 and from 1000 to 1010.
                lost: 35,
                is_uncounted: false,
            }
        );
        assert_eq!(balance.difference(), 0);
        let less = Passed {
            outcomes: Outcomes {
                delivered: 15,
                ..outcomes
            },
            ..passed
        };
        assert_eq!(Balance::of(less, bounds, &list, 7).difference(), 5);
    }
}
