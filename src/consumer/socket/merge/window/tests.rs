//! The window against examples, and against a model that looks at every message of it.

use proptest::prelude::*;

use super::super::super::identity::Identifier;
use super::*;
use crate::json_path::Finder;

const A: Lane = Lane::first_of(0);
const B: Lane = Lane::first_of(1);
const C: Lane = Lane::first_of(2);
const AGE: Duration = Duration::from_secs(60);

/// A window with connections that have all begun.
struct Trial {
    window: Window,
    identifier: Identifier,
    now: Instant,
}

impl Trial {
    fn new(messages: usize) -> Self {
        let limits = WindowLimits { messages, age: AGE };
        let mut trial = Self {
            window: Window::new(limits),
            identifier: Identifier::new(Some(Finder::new([&"$.id".parse().unwrap()]))),
            now: Instant::now(),
        };
        for lane in [A, B, C] {
            trial.begins(lane);
        }
        trial
    }

    fn begins(&mut self, lane: Lane) {
        let mark = self.window.next();
        self.window.begin(lane, mark);
    }

    fn brings(&mut self, lane: Lane, message: &str) -> Arrival {
        self.window.forget_old(self.now);
        let fingerprint = self.identifier.of(message.as_bytes());
        self.window.arrive(lane, fingerprint, self.now, false)
    }

    /// What each of these messages is.
    fn bring(&mut self, lane: Lane, messages: &str) -> String {
        let of = |message: &str| match self.brings(lane, message) {
            Arrival::First => '1',
            Arrival::Duplicate => '2',
            Arrival::Behind => 'x',
        };
        messages.split(' ').map(of).collect()
    }
}

#[test]
fn the_first_arrival_is_kept_whoever_brings_it() {
    let mut trial = Trial::new(100);
    assert_eq!(trial.bring(A, "a b c"), "111");
    assert_eq!(trial.bring(B, "a b c d"), "2221");
    assert_eq!(trial.bring(A, "d e"), "21");
    assert_eq!(trial.bring(C, "a b c d e f"), "222221");
}

#[test]
fn equal_messages_of_one_connection_are_several() {
    let mut trial = Trial::new(100);
    assert_eq!(trial.bring(A, "beat beat"), "11");
    assert_eq!(trial.bring(B, "beat beat beat"), "221");
    assert_eq!(trial.bring(A, "beat beat"), "21");
    assert_eq!(trial.bring(C, "beat beat beat beat"), "2222");
}

#[test]
fn what_was_kept_before_a_connection_was_dialled_it_brings_anew() {
    let mut trial = Trial::new(100);
    assert_eq!(trial.bring(A, "beat"), "1");
    assert_eq!(trial.bring(B, "beat"), "2");
    // Both are made again, one after the other, and the next one is another one.
    trial.begins(A);
    trial.begins(B);
    assert_eq!(trial.bring(A, "beat"), "1");
    assert_eq!(trial.bring(B, "beat"), "2");
}

#[test]
fn what_comes_while_a_connection_is_being_made_is_paired() {
    let mut trial = Trial::new(100);
    trial.bring(A, "a b");
    let mark = trial.window.next();
    // Dialled, and subscribed at the server, which sends c to both; nobody knows here yet.
    trial.bring(A, "c d");
    trial.window.begin(B, mark);
    assert_eq!(trial.bring(B, "c d"), "22");
}

#[test]
fn an_identity_of_its_own_is_known_again_over_a_new_connection() {
    let mut trial = Trial::new(100);
    assert_eq!(trial.bring(A, r#"{"id":1} {"id":2} {"id":2}"#), "111");
    trial.begins(A);
    // The server begins with what it sent last.
    assert_eq!(trial.bring(A, r#"{"id":1} {"id":2} {"id":2} {"id":3}"#), "2221");
}

#[test]
fn a_connection_that_is_behind_by_more_than_the_window_is_given_up_and_nothing_is_kept_twice() {
    let mut trial = Trial::new(3);
    assert_eq!(trial.bring(A, "a b c d e"), "11111");
    assert_eq!(trial.brings(B, "b"), Arrival::Behind);
    // Made again, it goes on from here.
    trial.begins(B);
    assert_eq!(trial.bring(B, "f"), "1");
    assert_eq!(trial.bring(A, "f g"), "21");
    assert_eq!(trial.bring(B, "g"), "2");
}

#[test]
fn a_connection_within_the_window_is_never_behind() {
    let mut trial = Trial::new(3);
    assert_eq!(trial.bring(A, "a b c"), "111");
    assert_eq!(trial.bring(B, "a b c d"), "2221");
    // B alone goes on; A has come up to c.
    assert_eq!(trial.bring(B, "e f"), "11");
    assert_eq!(trial.bring(A, "d e f g"), "2221");
}

#[test]
fn what_a_connection_lacks_for_good_does_not_make_it_behind() {
    let mut trial = Trial::new(4);
    for round in 0..20 {
        assert_eq!(trial.bring(A, &format!("{round} only-a{round}")), "11");
        assert_eq!(trial.bring(B, &format!("{round} only-b{round}")), "21");
    }
}

#[test]
fn equal_messages_alone_show_that_a_connection_keeps_up() {
    let mut trial = Trial::new(3);
    for _ in 0..20 {
        assert_eq!(trial.bring(A, "beat"), "1");
        assert_eq!(trial.bring(B, "beat"), "2");
    }
    assert_eq!(trial.bring(B, "beat other"), "11");
    // And one that owes some of them shows nothing by bringing others.
    let mut trial = Trial::new(3);
    assert_eq!(trial.bring(A, "beat beat beat beat beat"), "11111");
    assert_eq!(trial.bring(B, "beat beat beat"), "222");
    assert_eq!(trial.brings(B, "beat"), Arrival::Behind);
}

#[test]
fn the_only_live_connection_is_never_given_up() {
    let mut trial = Trial::new(3);
    trial.bring(A, "a b c d e");
    let fingerprint = trial.identifier.of(b"f");
    assert_eq!(
        trial.window.arrive(B, fingerprint, trial.now, true),
        Arrival::First
    );
    assert_eq!(trial.bring(B, "g"), "1", "it is at the end from then on");
}

#[test]
fn old_messages_are_forgotten_but_the_newest_stay_however_old_they_are() {
    let mut trial = Trial::new(10 * NEVER_TOO_OLD);
    for number in 0..2 * NEVER_TOO_OLD {
        trial.brings(A, &number.to_string());
    }
    assert_eq!(trial.brings(B, "0"), Arrival::Duplicate);
    trial.now += AGE + Duration::from_millis(1);
    assert_eq!(trial.bring(A, "new"), "1");
    assert_eq!(trial.window.kept.len(), NEVER_TOO_OLD + 1);
    assert_eq!(trial.brings(B, "1"), Arrival::Behind);
    let recent = (2 * NEVER_TOO_OLD - 1).to_string();
    assert_eq!(trial.brings(C, &recent), Arrival::Duplicate);
    // The server has just answered B.
    trial.window.catch_up(B);
    assert_eq!(trial.bring(B, "newer"), "1");
}

#[test]
fn in_a_slow_feed_a_connection_that_lacks_a_message_is_not_behind() {
    let mut trial = Trial::new(100);
    for round in 0..20 {
        assert_eq!(trial.bring(A, &format!("only-a{round}")), "1");
        trial.now += 10 * AGE;
        assert_eq!(trial.bring(B, &format!("{round}")), "1");
        assert_eq!(trial.bring(A, &format!("{round}")), "2");
    }
}

/// Bytes of memory for each message of a window of so many after it has been filled several times over.
fn bytes_a_message(messages: usize) -> usize {
    let mut trial = Trial::new(messages);
    for number in 0..3 * messages {
        assert_eq!(trial.brings(A, &number.to_string()), Arrival::First);
        assert!(trial.window.kept.len() <= messages && trial.window.by_identity.len() <= messages);
    }
    let kept = trial.window.kept.capacity() * size_of::<Kept>();
    // Seven of eight places of the table are used at most, and each has a byte of its own.
    let places = trial.window.by_identity.capacity() / 7 * 8;
    let same = places * (size_of::<(Fingerprint, Same)>() + 1);
    (kept + same) / messages
}

#[test]
fn memory_follows_the_limit() {
    let taken =
        [1_000, 10_000, 57_345, 100_000, 131_073].map(|messages| (messages, bytes_a_message(messages)));
    println!("{taken:?}");
    for (messages, bytes) in taken {
        assert!((97..=360).contains(&bytes), "{bytes} a message, of {messages}");
    }
    assert!(
        (190..=230).contains(&taken[3].1),
        "as the documents say of the default"
    );
}

/// What the window stands for, said in the simplest way.
struct Model {
    limit: usize,
    kept: Vec<(Fingerprint, Vec<usize>)>,
    marks: [usize; LANES],
}

impl Model {
    fn begin(&mut self, lane: Lane, mark: u64) {
        self.marks[lane.index()] = usize::try_from(mark).unwrap();
        for (_, brought_by) in &mut self.kept {
            brought_by.retain(|other| *other != lane.index());
        }
    }

    fn arrive(&mut self, lane: Lane, fingerprint: Fingerprint) -> Arrival {
        let (lane, oldest) = (lane.index(), self.kept.len().saturating_sub(self.limit));
        let begin = if fingerprint.is_named() {
            0
        } else {
            self.marks[lane]
        };
        let pair = self
            .kept
            .iter_mut()
            .enumerate()
            .find(|(number, (kept, brought_by))| {
                *number >= oldest && *number >= begin && *kept == fingerprint && !brought_by.contains(&lane)
            });
        match pair {
            Some((_, (_, brought_by))) => {
                brought_by.push(lane);
                Arrival::Duplicate
            }
            None => {
                self.kept.push((fingerprint, vec![lane]));
                Arrival::First
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Begin(usize, u64),
    Bring(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..3_usize, 0..4_u64).prop_map(|(lane, before)| Step::Begin(lane, before)),
        12 => (0..3_usize, 0..8_u8).prop_map(|(lane, message)| Step::Bring(lane, message)),
    ]
}

proptest! {
    #[test]
    fn it_pairs_as_the_model_does(limit in 1..12_usize, steps in prop::collection::vec(step(), 1..300)) {
        let mut trial = Trial::new(limit);
        let mut model = Model { limit, kept: Vec::new(), marks: [0; LANES] };
        for step in steps {
            match step {
                Step::Begin(entry, before) => {
                    let mark = trial.window.next().saturating_sub(before);
                    trial.window.begin(Lane::first_of(entry), mark);
                    model.begin(Lane::first_of(entry), mark);
                }
                Step::Bring(entry, message) => {
                    // Half of them have an identity of their own.
                    let text = if message % 2 == 0 {
                        format!(r#"{{"id":{message},"by":{entry}}}"#)
                    } else {
                        message.to_string()
                    };
                    let (lane, fingerprint) = (Lane::first_of(entry), trial.identifier.of(text.as_bytes()));
                    let now = trial.now;
                    prop_assert_eq!(
                        trial.window.arrive(lane, fingerprint, now, true),
                        model.arrive(lane, fingerprint)
                    );
                }
            }
        }
    }
}
