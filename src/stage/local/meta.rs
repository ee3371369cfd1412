//! The book of a stage path: the sled database `meta/`.
//!
//! One entry per thing, each far below the size from which sled would keep it in a file of its own. All of it
//! is JSON but the key's numbers (big-endian, so that entries sort). Entries of a change are inserted in an order in which
//! every prefix makes sense, for a crash keeps a prefix; [`Meta::commit`] makes them durable.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `path` | `schema`, `id`, `clean` | version, path id, present after a clean stop |
//! | `stages` | name | [`StageEntry`] |
//! | `cursors` | name `/` producer | next offset |
//! | `generations` | number | [`GenerationEntry`] |
//! | `extents` | number, name | [`Extent`] |
//! | `sums` | number, file | [`FileSum`] |
//! | `gaps` | name `/` first offset | [`Gap`] |
//!
//! What it leaves to others: what the entries mean together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::database::Database;
use super::disk::FileSum;
use super::gaps::GapChange;
use super::options::OpenError;
use super::trial::SledSettings;
use crate::record::{Offset, Timestamp};
use crate::stage::Gap;
use crate::stage::path::{Extent, GenerationState};

/// The directory's name.
pub(super) const NAME: &str = "meta";

/// The layout that this program writes.
pub(super) const SCHEMA: u32 = 1;

/// sled's default; nothing in here is large.
pub(super) const SETTINGS: SledSettings = SledSettings {
    segment_size: 512 * 1024,
    cache_capacity: 1 << 20,
};

/// What is kept of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StageEntry {
    /// The end of the durable reservation.
    pub(super) reserved: Offset,
    /// A recent durable head; exact after a clean stop and a roll.
    pub(super) head: Offset,
    /// Messages that a full stage refused since it was made.
    pub(super) refused: u64,
    /// Messages that were staged before `head`. A book of an earlier version does not say.
    #[serde(default)]
    pub(super) staged: Option<u64>,
    /// Whether there were more, of which nobody can know how many.
    #[serde(default)]
    pub(super) is_uncounted: bool,
    /// When the last message that is durable came, or the last outage ended. A recent one, as the head is.
    #[serde(default)]
    pub(super) seen_at: Option<Timestamp>,
    /// When its consumer stopped in order the last time; of no meaning once something came later.
    #[serde(default)]
    pub(super) stopped_at: Option<Timestamp>,
}

/// What is kept of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GenerationEntry {
    pub(super) state: GenerationState,
    pub(super) made_at: Timestamp,
    pub(super) sealed_at: Option<Timestamp>,
    /// Whether `sums` holds all of its files as they are.
    pub(super) summed: bool,
}

impl Extent {
    /// No message yet; the next one gets the offset `next`. In the book of an open generation it says where it begins.
    pub(super) fn empty_at(next: Offset) -> Self {
        Self {
            first: next,
            end: next,
            messages: 0,
            period: None,
        }
    }
}

/// Everything in the book.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) clean: bool,
    pub(super) stages: BTreeMap<String, StageEntry>,
    pub(super) cursors: BTreeMap<(String, String), Offset>,
    pub(super) generations: BTreeMap<u64, GenerationEntry>,
    pub(super) extents: BTreeMap<(u64, String), Extent>,
    pub(super) sums: BTreeMap<u64, Vec<FileSum>>,
    pub(super) gaps: BTreeMap<String, Vec<Gap>>,
}

/// The open book.
pub(super) struct Meta {
    dir: PathBuf,
    path: sled::Tree,
    stages: sled::Tree,
    cursors: sled::Tree,
    generations: sled::Tree,
    extents: sled::Tree,
    sums: sled::Tree,
    gaps: sled::Tree,
    /// Last, so that it is dropped after the trees.
    database: Database,
}

impl Meta {
    /// Makes an empty book durably. A new path has nothing that a crash could have cut short: `clean`.
    pub(super) fn create(path: &Path, id: Uuid, clean: bool) -> Result<(), OpenError> {
        Database::create(&path.join(NAME), SETTINGS, |db| {
            let tree = db.open_tree("path")?;
            tree.insert("schema", SCHEMA.to_string().as_str())?;
            tree.insert("id", id.to_string().as_str())?;
            if clean {
                tree.insert("clean", "1")?;
            }
            Ok(())
        })
    }

    /// Takes over the opened database.
    pub(super) fn new(database: Database, dir: &Path) -> Result<Self, String> {
        Ok(Self {
            dir: dir.to_owned(),
            path: database.tree("path")?,
            stages: database.tree("stages")?,
            cursors: database.tree("cursors")?,
            generations: database.tree("generations")?,
            extents: database.tree("extents")?,
            sums: database.tree("sums")?,
            gaps: database.tree("gaps")?,
            database,
        })
    }

    /// The layout's version and the path's id; `None` when they are not there or make no sense.
    pub(super) fn identity(&self) -> Result<Option<(u32, Uuid)>, String> {
        let text = |key: &str| -> Result<Option<String>, String> {
            let value = self.path.get(key).map_err(|error| self.failed(&error))?;
            Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
        };
        let schema = text("schema")?.and_then(|text| text.parse().ok());
        let id = text("id")?.and_then(|text| text.parse().ok());
        Ok(schema.zip(id))
    }

    /// Everything in it.
    pub(super) fn load(&self) -> Result<Book, String> {
        let mut book = Book {
            clean: self
                .path
                .get("clean")
                .map_err(|error| self.failed(&error))?
                .is_some(),
            ..Book::default()
        };
        self.each(&self.stages, |key, entry| {
            book.stages.insert(text(key)?, entry);
            Some(())
        })?;
        self.each(&self.cursors, |key, next| {
            let (stage, producer) = text(key)?
                .split_once('/')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))?;
            book.cursors.insert((stage, producer), next);
            Some(())
        })?;
        self.each(&self.generations, |key, entry| {
            book.generations
                .insert(u64::from_be_bytes(key.try_into().ok()?), entry);
            Some(())
        })?;
        self.each(&self.extents, |key, extent| {
            let (number, stage) = key.split_first_chunk::<8>()?;
            book.extents
                .insert((u64::from_be_bytes(*number), text(stage)?), extent);
            Some(())
        })?;
        self.each(&self.sums, |key, sum: FileSum| {
            let (number, _) = key.split_first_chunk::<8>()?;
            book.sums
                .entry(u64::from_be_bytes(*number))
                .or_default()
                .push(sum);
            Some(())
        })?;
        self.each(&self.gaps, |key, gap: Gap| {
            let stage = text(key.split(|&byte| byte == b'/').next()?)?;
            book.gaps.entry(stage).or_default().push(gap);
            Some(())
        })?;
        Ok(book)
    }

    pub(super) fn put_stage(&self, stage: &str, entry: &StageEntry) -> Result<(), String> {
        self.put(&self.stages, stage.as_bytes(), entry)
    }

    pub(super) fn put_cursor(&self, stage: &str, producer: &str, next: Offset) -> Result<(), String> {
        self.put(&self.cursors, format!("{stage}/{producer}").as_bytes(), &next)
    }

    pub(super) fn remove_cursor(&self, stage: &str, producer: &str) -> Result<(), String> {
        self.remove(&self.cursors, format!("{stage}/{producer}").as_bytes())
    }

    pub(super) fn put_generation(&self, number: u64, entry: &GenerationEntry) -> Result<(), String> {
        self.put(&self.generations, &number.to_be_bytes(), entry)
    }

    pub(super) fn put_extent(&self, number: u64, stage: &str, extent: &Extent) -> Result<(), String> {
        self.put(&self.extents, &numbered(number, stage), extent)
    }

    pub(super) fn put_sums(&self, number: u64, sums: &[FileSum]) -> Result<(), String> {
        self.clear_below(&self.sums, number)?;
        sums.iter()
            .try_for_each(|sum| self.put(&self.sums, &numbered(number, &sum.name), sum))
    }

    /// Forgets a generation. Its entry goes last: without it the rest would mean nothing, with it the rest is not missed.
    pub(super) fn remove_generation(&self, number: u64) -> Result<(), String> {
        self.clear_below(&self.sums, number)?;
        self.clear_below(&self.extents, number)?;
        self.remove(&self.generations, &number.to_be_bytes())
    }

    pub(super) fn put_gaps(&self, stage: &str, change: &GapChange) -> Result<(), String> {
        let key = |from: Offset| [stage.as_bytes(), b"/", &from.get().to_be_bytes()].concat();
        for gap in &change.added {
            self.put(&self.gaps, &key(gap.from), gap)?;
        }
        change
            .removed
            .iter()
            .try_for_each(|from| self.remove(&self.gaps, &key(*from)))
    }

    /// Says that this stop is a clean one, or that there is something to recover from now on.
    pub(super) fn mark_clean(&self, clean: bool) -> Result<(), String> {
        if clean {
            self.path
                .insert("clean", "1")
                .map(drop)
                .map_err(|error| self.failed(&error))
        } else {
            self.remove(&self.path, b"clean")
        }
    }

    /// Makes everything put so far durable.
    pub(super) fn commit(&self) -> Result<(), String> {
        self.database.commit()
    }

    fn put<T: Serialize>(&self, tree: &sled::Tree, key: &[u8], value: &T) -> Result<(), String> {
        let value = serde_json::to_vec(value).map_err(|error| format!("could not write to meta: {error}"))?;
        tree.insert(key, value)
            .map(drop)
            .map_err(|error| self.failed(&error))
    }

    fn remove(&self, tree: &sled::Tree, key: &[u8]) -> Result<(), String> {
        tree.remove(key).map(drop).map_err(|error| self.failed(&error))
    }

    fn clear_below(&self, tree: &sled::Tree, number: u64) -> Result<(), String> {
        for key in tree.scan_prefix(number.to_be_bytes()).keys() {
            let key = key.map_err(|error| self.failed(&error))?;
            self.remove(tree, &key)?;
        }
        Ok(())
    }

    fn each<T: DeserializeOwned>(
        &self,
        tree: &sled::Tree,
        mut take: impl FnMut(&[u8], T) -> Option<()>,
    ) -> Result<(), String> {
        for entry in tree {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            serde_json::from_slice(&value)
                .ok()
                .and_then(|value| take(&key, value))
                .ok_or_else(|| format!("an entry of {} makes no sense", self.dir.display()))?;
        }
        Ok(())
    }

    fn failed(&self, error: &sled::Error) -> String {
        self.database.describe("read or write", error)
    }
}

fn numbered(number: u64, name: &str) -> Vec<u8> {
    [&number.to_be_bytes()[..], name.as_bytes()].concat()
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}
