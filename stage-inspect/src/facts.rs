//! What is a fact of a stage, in the shape in which it is printed: nothing in here depends on when, by which process or by which
//! way it was asked.

use serde::Serialize;
use socket_el::record::Offset;
use socket_el::stage::path::{ProducerSummary, StageSummary, replay_of};
use socket_el::stage::{Gap, GapCause};

use crate::table::human_count;
use crate::time::Time;

/// What can be said of a stage in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It holds no message.
    Empty,
    /// Every message in it is delivered; retention keeps them.
    Delivered,
    /// A producer has yet to deliver some.
    Pending,
    /// It holds messages that no producer delivers.
    NoProducer,
}

/// A stage.
#[derive(Serialize)]
pub(crate) struct StageFacts {
    pub(crate) name: String,
    pub(crate) state: State,
    /// Offset of the oldest message that is still there.
    pub(crate) oldest: Offset,
    /// The offset after the last message.
    pub(crate) head: Offset,
    /// Messages between the two.
    pub(crate) messages: u64,
    /// Those of them that every producer has delivered: retention keeps them.
    pub(crate) kept: u64,
    /// Messages that are known to be lost from the disk.
    pub(crate) lost: u64,
    /// Whether more are lost, of which nobody can know how many.
    pub(crate) lost_unknown: bool,
    /// Messages that were dropped because the stage was full (`on_full: drop_oldest`), or forgotten.
    pub(crate) dropped: u64,
    /// Messages that were refused because the stage was full (`on_full: drop_newest`).
    pub(crate) refused: u64,
    /// Numbers of the generations that hold some of it.
    pub(crate) generations: Vec<u64>,
    pub(crate) producers: Vec<ProducerFacts>,
    /// Offsets that hold no message.
    pub(crate) gaps: Vec<GapFacts>,
}

/// How far a producer is, as far as the stage knows.
#[derive(Serialize)]
pub(crate) struct ProducerFacts {
    pub(crate) name: String,
    /// The producer that delivers again under this name, if it is a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replay_of: Option<String>,
    /// Everything before it is delivered; none before the first delivery.
    pub(crate) cursor: Option<Offset>,
    pub(crate) pending: u64,
    /// Where nothing is delivered because its cursor in the sink is beyond this offset, where the stage can't have come to before:
    /// an operator has to decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held_at: Option<Offset>,
}

/// Offsets that hold no message.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GapFacts {
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    /// None when nobody can know.
    pub(crate) messages: Option<u64>,
    pub(crate) cause: GapCause,
    /// What was found where messages are lost, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    pub(crate) noticed_at: Time,
}

impl From<StageSummary> for StageFacts {
    fn from(summary: StageSummary) -> Self {
        let StageSummary {
            name,
            bounds,
            messages,
            refused,
            producers,
            // It ends with the engine.
            begun: _,
            gaps,
            generations,
        } = summary;
        let producers: Vec<_> = producers.into_iter().map(ProducerFacts::from).collect();
        let pending = producers.iter().map(|producer| producer.pending).max();
        let of = |cause| {
            gaps.iter()
                .filter(move |gap: &&Gap| gap.cause == cause)
                .map(|gap| gap.messages)
        };
        Self {
            name,
            state: match pending {
                _ if messages == 0 => State::Empty,
                None => State::NoProducer,
                Some(0) => State::Delivered,
                Some(_) => State::Pending,
            },
            oldest: bounds.oldest,
            head: bounds.head,
            messages,
            kept: pending.map_or(0, |pending| messages.saturating_sub(pending)),
            lost: of(GapCause::Lost).flatten().sum(),
            lost_unknown: of(GapCause::Lost).any(|messages| messages.is_none()),
            dropped: of(GapCause::DroppedOldest).flatten().sum(),
            refused,
            generations,
            producers,
            gaps: gaps.iter().map(GapFacts::from).collect(),
        }
    }
}

impl From<(String, ProducerSummary)> for ProducerFacts {
    fn from((name, summary): (String, ProducerSummary)) -> Self {
        let ProducerSummary {
            cursor,
            pending,
            held_at,
            // The listing has it in a field of its own.
            delivery: _,
        } = summary;
        Self {
            replay_of: replay_of(&name).map(str::to_owned),
            name,
            cursor,
            pending,
            held_at,
        }
    }
}

impl From<&Gap> for GapFacts {
    fn from(gap: &Gap) -> Self {
        Self {
            from: gap.from,
            to: gap.to,
            messages: gap.messages,
            cause: gap.cause,
            why: gap.why.clone(),
            noticed_at: Time(gap.noticed_at),
        }
    }
}

impl StageFacts {
    /// The state, and what was lost, dropped and refused.
    pub(crate) fn state_in_words(&self) -> String {
        let mut words = match self.state {
            State::Empty => "empty",
            State::Delivered => "delivered",
            State::Pending => "pending",
            State::NoProducer => "no producer",
        }
        .to_owned();
        match (self.lost, self.lost_unknown) {
            (0, false) => {}
            (0, true) => words += ", lost an unknown number",
            (lost, false) => words += &format!(", lost {}", human_count(lost)),
            (lost, true) => words += &format!(", lost {} + unknown", human_count(lost)),
        }
        for (count, what) in [(self.dropped, "dropped"), (self.refused, "refused")] {
            if count > 0 {
                words += &format!(", {what} {}", human_count(count));
            }
        }
        words
    }
}

impl ProducerFacts {
    /// Its name; a replay is shown as such.
    pub(crate) fn shown_name(&self) -> String {
        match &self.replay_of {
            Some(producer) => format!("{producer} (replay)"),
            None => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use socket_el::record::Timestamp;
    use socket_el::stage::Bounds;

    use super::*;

    fn facts(gaps: Vec<Gap>, producers: &[(&str, u64)]) -> StageFacts {
        let producers: BTreeMap<_, _> = producers
            .iter()
            .map(|(name, pending)| {
                let cursor = Some(Offset::new(9));
                (
                    (*name).to_owned(),
                    ProducerSummary {
                        cursor,
                        pending: *pending,
                        held_at: None,
                        delivery: None,
                    },
                )
            })
            .collect();
        StageFacts::from(StageSummary {
            name: "trades".to_owned(),
            bounds: Bounds {
                oldest: Offset::new(2),
                head: Offset::new(12),
                reserved: Offset::new(12),
                given_from: Offset::new(12),
                staged: 12,
                is_uncounted: false,
            },
            messages: 10,
            refused: 3,
            producers,
            begun: BTreeSet::new(),
            gaps,
            generations: vec![0],
        })
    }

    fn gap(cause: GapCause, messages: Option<u64>) -> Gap {
        Gap {
            from: Offset::new(1),
            to: Offset::new(9),
            messages,
            cause,
            why: None,
            noticed_at: Timestamp::from_micros(0),
            period: None,
        }
    }

    #[test]
    fn a_loss_of_unknown_size_is_not_shown_as_none() {
        let words = |gaps| facts(gaps, &[("postgres", 0)]).state_in_words();
        assert_eq!(
            words(vec![gap(GapCause::Reservation, Some(0))]),
            "delivered, refused 3"
        );
        assert_eq!(
            words(vec![gap(GapCause::Lost, Some(8)), gap(GapCause::Expired, None)]),
            "delivered, lost 8, refused 3"
        );
        assert_eq!(
            words(vec![
                gap(GapCause::Lost, None),
                gap(GapCause::DroppedOldest, Some(8))
            ]),
            "delivered, lost an unknown number, dropped 8, refused 3"
        );
    }

    #[test]
    fn the_slowest_producer_decides_and_a_replay_is_one_too() {
        let slow = facts(vec![], &[("a", 0), ("a/replay", 4)]);
        assert_eq!((slow.state, slow.kept), (State::Pending, 6));
        assert_eq!(slow.producers[1].shown_name(), "a (replay)");
        assert_eq!(slow.producers[1].replay_of.as_deref(), Some("a"));
        let nobody = facts(vec![], &[]);
        assert_eq!((nobody.state, nobody.kept), (State::NoProducer, 0));
    }
}
