//! Which column a key belongs to, found without hashing when a record has its keys in the order of the one before.
//!
//! Each key that was seen remembers which key followed it last. The guess costs one comparison, and a key that is
//! missing for once does not upset it for those after it.

use std::collections::HashMap;

/// Keys that are remembered. Feeds that use identifiers as keys have no end of them; those beyond are looked up in
/// the layout each time.
const MAX_REMEMBERED: usize = 2_048;

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

#[derive(Debug)]
struct Entry {
    raw: Box<str>,
    target: Target,
    next: usize,
}

/// The key that begins every record.
pub(super) const START: usize = 0;

/// The keys seen since the layout was loaded.
#[derive(Debug)]
pub(super) struct Keys {
    /// The first entry stands for the beginning of a record. An entry whose next is [`START`] knows of none.
    entries: Vec<Entry>,
    by_raw: HashMap<Box<str>, usize>,
}

impl Default for Keys {
    fn default() -> Self {
        let start = Entry {
            raw: Box::default(),
            target: Target::Unknown,
            next: START,
        };
        Self {
            entries: vec![start],
            by_raw: HashMap::new(),
        }
    }
}

impl Keys {
    /// The target of a key as it stands in the message, after the key `previous`, which moves on to this one.
    /// `resolve` is asked for keys that were not seen before.
    pub(super) fn target(
        &mut self,
        previous: &mut usize,
        raw: &str,
        resolve: impl FnOnce(&str) -> Target,
    ) -> Target {
        let guess = self.entries[*previous].next;
        if guess != START && &*self.entries[guess].raw == raw {
            *previous = guess;
            return self.entries[guess].target;
        }
        let found = match self.by_raw.get(raw) {
            Some(&found) => found,
            None if self.entries.len() > MAX_REMEMBERED => return resolve(raw),
            None => {
                let target = resolve(raw);
                self.entries.push(Entry {
                    raw: raw.into(),
                    target,
                    next: START,
                });
                self.by_raw.insert(raw.into(), self.entries.len() - 1);
                self.entries.len() - 1
            }
        };
        self.entries[*previous].next = found;
        *previous = found;
        self.entries[found].target
    }

    /// Forgets all keys: the layout has changed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks a record's keys up; the target of each is the place of its letter in the alphabet.
    fn look_up(keys: &mut Keys, record: &str, may_resolve: bool) {
        let place = |raw: &str| Target::Listed(usize::from(raw.as_bytes()[0] - b'a'));
        let mut previous = START;
        for (at, _) in record.char_indices() {
            let key = &record[at..=at];
            let target = keys.target(&mut previous, key, |raw| {
                assert!(may_resolve, "{raw} was seen before");
                place(raw)
            });
            assert_eq!(target, place(key));
        }
    }

    #[test]
    fn keys_are_found_in_any_order_and_in_the_order_of_before_without_hashing() {
        let mut keys = Keys::default();
        look_up(&mut keys, "abcd", true);
        for record in ["dcba", "ab", "acd", "aab", "abcd"] {
            look_up(&mut keys, record, false);
        }
        keys.by_raw.clear();
        look_up(&mut keys, "abcd", false);
    }

    #[test]
    fn keys_without_end_are_not_all_remembered() {
        let mut keys = Keys::default();
        let mut resolved = 0;
        for _ in 0..2 {
            for number in 0..5_000 {
                keys.target(&mut { START }, &number.to_string(), |_| {
                    resolved += 1;
                    Target::Unknown
                });
            }
        }
        assert_eq!(resolved, 2 * 5_000 - MAX_REMEMBERED);
    }
}
