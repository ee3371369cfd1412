//! The keys of records: read without being scanned when a record has its keys in the order of the one before, and known by a
//! number from then on.
//!
//! Each key that was seen remembers which key followed it last. Whether it does again is one comparison with the message's bytes,
//! closing quote and colon included, and a key that is missing for once does not upset it for those after it. The numbers are the
//! same for all tables of a stage; what a table or a plan knows of them it keeps [by their
//! numbers](ByKey).

use std::collections::HashMap;
use std::ops::Range;

use super::walk::{Rejection, Walk};

/// Keys that are remembered. Feeds that use identifiers as keys have no end of them; those of a message that are beyond are looked up
/// in the layout each time.
const MAX_REMEMBERED: usize = 2_048;
/// Longer keys are not remembered, so that all of them together take little.
const MAX_REMEMBERED_BYTES: usize = 256;
/// Objects inside each other that have beginnings of their own; those further inside share the last one.
const STARTS: u32 = 8;

/// The number of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyId(u32);

impl KeyId {
    /// Of all keys that are not remembered.
    pub(super) const NONE: Self = Self(u32::MAX);
    /// Nothing was seen to follow yet.
    const UNSEEN: Self = Self(u32::MAX - 1);

    /// What stands before the first key of an object inside of so many others.
    pub(super) fn start(depth: u32) -> Self {
        Self(depth.min(STARTS - 1))
    }
}

/// A key as it stands in the message.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// What stands between its quotes.
    pub(super) span: Range<u32>,
    pub(super) id: KeyId,
}

#[derive(Debug)]
struct Entry {
    /// With its quotes and the colon.
    text: Box<[u8]>,
    escaped: bool,
    nul: bool,
    next: KeyId,
}

/// The keys seen lately.
#[derive(Debug)]
pub(super) struct Keys {
    /// The first ones stand for the beginnings of objects.
    entries: Vec<Entry>,
    by_text: HashMap<Box<[u8]>, KeyId>,
    /// How often all of them were forgotten: the numbers of two generations mean different keys.
    generation: u32,
}

impl Default for Keys {
    fn default() -> Self {
        let start = || Entry {
            text: Box::default(),
            escaped: false,
            nul: false,
            next: KeyId::UNSEEN,
        };
        Self {
            entries: (0..STARTS).map(|_| start()).collect(),
            by_text: HashMap::new(),
            generation: 0,
        }
    }
}

impl Keys {
    /// Begins with a new message, and returns the generation of its keys. When no more can be remembered, all are forgotten: those
    /// that matter come again.
    pub(super) fn begin(&mut self) -> u32 {
        if self.by_text.len() == MAX_REMEMBERED {
            *self = Self {
                generation: self.generation.wrapping_add(1),
                ..Self::default()
            };
        }
        self.generation
    }

    /// Steps over a key and its colon, behind the key `previous`, which moves on to this one.
    #[inline]
    pub(super) fn read(&mut self, walk: &mut Walk<'_>, previous: &mut KeyId) -> Result<Key, Box<Rejection>> {
        let start = walk.position() + 1;
        if let Some(before) = self.entry(*previous)
            && let Some(guess) = self.entry(before.next)
            && walk.take(&guess.text)
        {
            walk.escaped |= guess.escaped;
            walk.nul |= guess.nul;
            walk.any_nul |= guess.nul;
            let id = before.next;
            *previous = id;
            let span = start..walk.position() - 2;
            return Ok(Key { span, id });
        }
        self.read_unexpected(walk, previous)
    }

    #[cold]
    fn read_unexpected(&mut self, walk: &mut Walk<'_>, previous: &mut KeyId) -> Result<Key, Box<Rejection>> {
        let span = walk.key()?;
        let id = self.look_up(walk.text(&span));
        if id != KeyId::NONE {
            if let Some(before) = self.entries.get_mut(previous.0 as usize) {
                before.next = id;
            }
            *previous = id;
        }
        Ok(Key { span, id })
    }

    fn entry(&self, id: KeyId) -> Option<&Entry> {
        self.entries.get(id.0 as usize)
    }

    /// The number of a key, given as it stands between its quotes.
    fn look_up(&mut self, key: &[u8]) -> KeyId {
        if let Some(&known) = self.by_text.get(key) {
            return known;
        }
        if self.by_text.len() == MAX_REMEMBERED || key.len() > MAX_REMEMBERED_BYTES {
            return KeyId::NONE;
        }
        let text = [b"\"", key, b"\":"].concat();
        let mut walk = Walk::new(&text);
        // It was read before.
        let _ = walk.key();
        let id = KeyId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.entries.push(Entry {
            escaped: walk.escaped,
            nul: walk.nul,
            text: text.into_boxed_slice(),
            next: KeyId::UNSEEN,
        });
        self.by_text.insert(key.into(), id);
        id
    }
}

/// Where a key's values go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To this place of the COPY's columns.
    Listed(usize),
    /// To this column of the layout, which must be listed first.
    Unlisted(usize),
    /// To `_extra`: the column takes no values from us.
    Extra,
    /// Nowhere: a path of the mapping takes the value.
    Skip,
    /// Its column is that of a path of the mapping.
    Taken,
    /// The table has no column for it.
    Unknown,
}

/// What was found out about keys, by their numbers.
#[derive(Debug)]
pub(super) struct ByKey<T> {
    known: Vec<Option<T>>,
    generation: u32,
}

impl<T> Default for ByKey<T> {
    fn default() -> Self {
        Self {
            known: Vec::new(),
            generation: 0,
        }
    }
}

impl<T: Copy> ByKey<T> {
    /// From here on keys are of this generation. What is known of those of another one is forgotten.
    pub(super) fn follow(&mut self, generation: u32) {
        if self.generation != generation {
            self.generation = generation;
            self.clear();
        }
    }

    /// What is known of a key.
    pub(super) fn get(&self, key: KeyId) -> Option<T> {
        self.known.get(key.0 as usize).copied().flatten()
    }

    /// Notes it, if the key is one that is remembered.
    pub(super) fn note(&mut self, key: KeyId, known: T) {
        if key != KeyId::NONE {
            let place = key.0 as usize;
            self.known.resize(self.known.len().max(place + 1), None);
            self.known[place] = Some(known);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a record's keys, each a letter, and returns their numbers.
    fn read(keys: &mut Keys, record: &str) -> Vec<KeyId> {
        let text: String = record.chars().map(|key| format!("\"{key}\":")).collect();
        let mut walk = Walk::new(text.as_bytes());
        let mut previous = KeyId::start(0);
        let ids = record.chars().map(|key| {
            let read = keys.read(&mut walk, &mut previous).unwrap();
            assert_eq!(walk.text(&read.span), key.to_string().as_bytes());
            read.id
        });
        let ids = ids.collect();
        assert_eq!(walk.peek(), None);
        ids
    }

    #[test]
    fn keys_have_one_number_in_any_order_and_are_not_looked_up_in_the_order_of_before() {
        let mut keys = Keys::default();
        let ids = read(&mut keys, "abcd");
        let id = |key: char| ids["abcd".find(key).unwrap()];
        for record in ["dcba", "ab", "acd", "aab", "abcd"] {
            assert_eq!(
                read(&mut keys, record),
                record.chars().map(id).collect::<Vec<_>>()
            );
        }
        keys.by_text.clear();
        assert_eq!(read(&mut keys, "abcd"), ids);
    }

    #[test]
    fn what_stands_in_a_key_is_told_of_one_that_is_known_too() {
        let mut keys = Keys::default();
        for _ in 0..2 {
            let text = br#""\u0000":1"#;
            let mut walk = Walk::new(text);
            keys.read(&mut walk, &mut KeyId::start(0)).unwrap();
            assert!(walk.nul && walk.escaped && walk.any_nul);
            assert_eq!(walk.peek(), Some(b'1'));
        }
    }

    #[test]
    fn a_key_that_only_begins_like_the_one_before_is_another_one() {
        let mut keys = Keys::default();
        let first = read(&mut keys, "a")[0];
        for text in [r#""ab":"#, r#""a" :"#, r#""\u0061":"#] {
            let mut walk = Walk::new(text.as_bytes());
            let key = keys.read(&mut walk, &mut KeyId::start(0)).unwrap();
            assert_eq!(key.id == first, text.contains("a\""), "{text}");
            assert_eq!(walk.peek(), None);
        }
        let mut walk = Walk::new(br#""a""#);
        assert!(keys.read(&mut walk, &mut KeyId::start(0)).is_err());
    }

    #[test]
    fn a_key_that_is_not_remembered_does_not_part_those_around_it() {
        let mut keys = Keys::default();
        let long = "k".repeat(MAX_REMEMBERED_BYTES + 1);
        let read = |keys: &mut Keys, text: &str| {
            let mut walk = Walk::new(text.as_bytes());
            let mut previous = KeyId::start(0);
            while walk.peek().is_some() {
                keys.read(&mut walk, &mut previous).unwrap();
            }
        };
        read(&mut keys, r#""a":"b":"#);
        read(&mut keys, &format!(r#""a":"{long}":"b":"#));
        keys.by_text.clear();
        read(&mut keys, r#""a":"b":"#);
        assert!(keys.by_text.is_empty(), "both were where they were expected");
    }

    #[test]
    fn keys_that_matter_are_remembered_again_after_others_without_end() {
        let (mut keys, mut targets) = (Keys::default(), ByKey::default());
        let mut key_of = |text: &str| {
            let generation = keys.begin();
            let text = format!("\"{text}\":");
            let key = keys.read(&mut Walk::new(text.as_bytes()), &mut KeyId::start(0));
            (generation, key.unwrap().id)
        };
        let (generation, before) = key_of("a");
        targets.follow(generation);
        targets.note(before, Target::Extra);
        for number in 0..3_000 {
            key_of(&number.to_string());
        }
        let (generation, after) = key_of("a");
        assert_ne!(after, KeyId::NONE);
        targets.follow(generation);
        assert_eq!(targets.get(after), None, "it may be the number of another key");
    }

    #[test]
    fn keys_without_end_are_not_all_remembered() {
        let (mut keys, mut targets) = (Keys::default(), ByKey::default());
        let mut resolved = 0;
        let long = "k".repeat(MAX_REMEMBERED_BYTES + 1);
        for _ in 0..2 {
            for key in (0..5_000)
                .map(|number: u32| number.to_string())
                .chain([long.clone()])
            {
                let text = format!("\"{key}\":");
                let key = keys
                    .read(&mut Walk::new(text.as_bytes()), &mut KeyId::start(0))
                    .unwrap();
                if targets.get(key.id).is_none() {
                    resolved += 1;
                    targets.note(key.id, Target::Unknown);
                }
            }
        }
        assert_eq!(resolved, 2 * 5_001 - MAX_REMEMBERED);
    }
}
