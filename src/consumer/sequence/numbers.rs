//! One run of the source's numbers, and what a number says about it. Knows no messages and no clock.

/// How many numbers back it is known which of them came.
const REMEMBERED: u64 = 64;

/// What a number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It follows.
    Next,
    /// The numbers `first..=last` did not come. How many messages those are is not known where numbers are no counts.
    Hole {
        first: u64,
        last: u64,
        messages: Option<u64>,
    },
    /// It came before.
    Duplicate,
    /// It is lower than one that came before it.
    Reordered,
    /// The source began to count anew.
    Restarted,
}

/// Where a run of numbers stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The highest number so far.
    number: u64,
    /// Bit n: whether `number - n` came.
    came: u64,
    /// A number far below, which is the first of a new run if the next one follows it.
    below: Option<u64>,
}

impl Run {
    /// A run that begins with this number.
    pub(super) fn beginning(number: u64) -> Self {
        Self {
            number,
            came: 1,
            below: None,
        }
    }

    /// Takes the next number. `previous` is the number before it as the source says, where it does; `anew` says that there was no
    /// connection in between, so that a lower number is a beginning.
    pub(super) fn take(&mut self, number: u64, previous: Option<u64>, anew: bool) -> Verdict {
        if number > self.number {
            return self.take_higher(number, previous);
        }
        if anew && number < self.number {
            *self = Self::beginning(number);
            return Verdict::Restarted;
        }
        let back = self.number - number;
        if back < REMEMBERED {
            let bit = 1 << back;
            let came = self.came & bit != 0;
            self.came |= bit;
            return if came {
                Verdict::Duplicate
            } else {
                Verdict::Reordered
            };
        }
        let before = previous.or(number.checked_sub(1));
        if self.below.is_some() && self.below == before {
            *self = Self::beginning(number);
            return Verdict::Restarted;
        }
        self.below = Some(number);
        Verdict::Reordered
    }

    /// Numbers up to `last` are known to be missing: whatever comes next, they are told.
    pub(super) fn told(&mut self, last: u64) {
        if last > self.number {
            self.move_to(last);
        }
    }

    fn move_to(&mut self, number: u64) {
        let step = number - self.number;
        self.came = if step < REMEMBERED { self.came << step } else { 0 };
        self.number = number;
        self.below = None;
    }

    fn take_higher(&mut self, number: u64, previous: Option<u64>) -> Verdict {
        let last = self.number;
        let (hole, messages) = match previous {
            None => (number - 1, Some(number - last - 1)),
            Some(previous) => (previous, None),
        };
        self.move_to(number);
        self.came |= 1;
        if hole > last {
            Verdict::Hole {
                first: last + 1,
                last: hole,
                messages,
            }
        } else if hole < last {
            // It says that it follows an earlier one.
            Verdict::Reordered
        } else {
            Verdict::Next
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts on numbers that count messages, after the first one.
    fn counted(numbers: &[u64]) -> Vec<Verdict> {
        let mut run = Run::beginning(numbers[0]);
        numbers[1..]
            .iter()
            .map(|&number| run.take(number, None, false))
            .collect()
    }

    fn hole(first: u64, last: u64) -> Verdict {
        Verdict::Hole {
            first,
            last,
            messages: Some(last - first + 1),
        }
    }

    #[test]
    fn numbers_that_follow_each_other_are_fine_and_a_hole_is_told_with_its_numbers() {
        use Verdict::Next;
        assert_eq!(counted(&[7, 8, 9]), [Next, Next]);
        assert_eq!(counted(&[7, 9, 10, 20]), [hole(8, 8), Next, hole(11, 19)]);
        assert_eq!(counted(&[0, u64::MAX]), [hole(1, u64::MAX - 1)]);
    }

    #[test]
    fn a_number_that_comes_twice_is_told_from_one_that_comes_late() {
        use Verdict::{Duplicate, Next, Reordered};
        assert_eq!(counted(&[1, 2, 2, 3]), [Next, Duplicate, Next]);
        assert_eq!(
            counted(&[1, 4, 2, 2, 3, 1, 5]),
            [hole(2, 3), Reordered, Duplicate, Reordered, Duplicate, Next]
        );
    }

    #[test]
    fn a_source_that_counts_anew_is_followed_once_two_numbers_say_so() {
        use Verdict::{Next, Reordered, Restarted};
        assert_eq!(
            counted(&[500, 0, 1, 2, 4]),
            [Reordered, Restarted, Next, hole(3, 3)]
        );
        // A single low number is none.
        assert_eq!(counted(&[500, 3, 501, 502]), [Reordered, Next, Next]);
    }

    #[test]
    fn after_a_stretch_without_a_connection_a_lower_number_is_a_beginning_and_a_hole_is_a_hole() {
        let mut run = Run::beginning(100);
        assert_eq!(run.take(100, None, true), Verdict::Duplicate);
        assert_eq!(run.take(111, None, true), hole(101, 110));
        assert_eq!(run.take(1, None, true), Verdict::Restarted);
        assert_eq!(run.take(2, None, false), Verdict::Next);
    }

    #[test]
    fn numbers_that_are_told_to_be_missing_are_not_told_again() {
        let mut run = Run::beginning(10);
        run.told(15);
        run.told(12);
        assert_eq!(run.take(20, None, true), hole(16, 19));
        run.told(25);
        assert_eq!(run.take(25, None, false), Verdict::Reordered, "it comes late");
        assert_eq!(run.take(26, None, false), Verdict::Next);
    }

    #[test]
    fn where_the_source_names_the_number_before_numbers_need_not_follow_each_other() {
        let mut run = Run::beginning(100);
        let mut take = |number, previous| run.take(number, Some(previous), false);
        assert_eq!(take(170, 100), Verdict::Next);
        assert_eq!(
            take(260, 190),
            Verdict::Hole {
                first: 171,
                last: 190,
                messages: None
            }
        );
        assert_eq!(take(190, 170), Verdict::Reordered, "what was missing comes late");
        assert_eq!(take(300, 260), Verdict::Next);
        assert_eq!(take(310, 290), Verdict::Reordered, "it overlaps what came");
        assert_eq!(take(5, 0), Verdict::Reordered);
        assert_eq!(take(9, 5), Verdict::Restarted);
        assert_eq!(take(12, 9), Verdict::Next);
    }
}
