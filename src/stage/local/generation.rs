//! A generation: the sled database `g-<n>` with a stretch of every stage of the path.
//!
//! One tree per stage, one beside it with the keys of its outages, and the tree `path` with what is needed to make the book anew: the path's id, and the
//! ends of the reservations. Records are only ever inserted; a generation goes as a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::carried::Carried;
use super::database::Database;
use super::options::{OpenError, Tuning};
use super::outages;
use super::trial::SledSettings;
use super::walk::{Walk, WalkError};
use crate::record::Offset;
use crate::stage::envelope::{self, Kind};
use crate::stage::path::Extent;
use crate::stage::{Gap, Period};

/// What a generation's directory begins with.
const PREFIX: &str = "g-";

/// What the name of a stage's tree begins with. A stage's own name never holds a colon, so no other tree's name
/// is ever taken for one.
const TREE_PREFIX: &str = "stage:";

/// The same of the tree with the keys of a stage's outages.
const OUTAGES_PREFIX: &str = "outages:";

/// The tree with the path's own entries, and the keys in it.
const PATH_TREE: &str = "path";
const ID_KEY: &str = "id";
const RESERVED_PREFIX: &str = "reserved:";
/// It says that the keys of all outages stand in trees of their own. Generations of earlier versions do not have it.
const INDEXED_KEY: &str = "outages-indexed";

/// The directory of generation `number`.
pub(super) fn dir_of(path: &Path, number: u64) -> PathBuf {
    path.join(format!("{PREFIX}{number}"))
}

/// The number of the generation in a directory of this name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The name of a stage's tree.
pub(super) fn tree_of(stage: &str) -> String {
    format!("{TREE_PREFIX}{stage}")
}

/// The name of the tree with the keys of a stage's outages.
pub(super) fn outages_tree_of(stage: &str) -> String {
    format!("{OUTAGES_PREFIX}{stage}")
}

/// How the generation that is appended to is opened.
pub(super) fn open_settings(tuning: &Tuning) -> SledSettings {
    SledSettings {
        segment_size: tuning.segment_bytes,
        cache_capacity: tuning.open_cache_bytes,
    }
}

/// How a sealed one is.
pub(super) fn sealed_settings(tuning: &Tuning) -> SledSettings {
    SledSettings {
        cache_capacity: tuning.sealed_cache_bytes,
        ..open_settings(tuning)
    }
}

/// Makes generation `number` durably, empty but for the path's id, the ends of the reservations, and outages that are carried
/// over from the one before.
pub(super) fn create<'a>(
    path: &Path,
    number: u64,
    tuning: &Tuning,
    id: Uuid,
    reserved: impl Iterator<Item = (&'a str, Offset)>,
    carried: &[Carried],
) -> Result<(), OpenError> {
    Database::create(&dir_of(path, number), open_settings(tuning), |db| {
        let tree = db.open_tree(PATH_TREE)?;
        tree.insert(ID_KEY, id.as_bytes())?;
        for (stage, end) in reserved {
            insert_reserved(&tree, stage, end)?;
        }
        tree.insert(INDEXED_KEY, &[])?;
        carried.iter().try_for_each(|carried| carried.insert_into(db))
    })
}

/// Whether the keys of all outages stand in trees of their own. They do not where an earlier version has sealed the generation.
pub(super) fn is_indexed(database: &Database) -> Result<bool, String> {
    database
        .tree(PATH_TREE)?
        .contains_key(INDEXED_KEY)
        .map_err(|error| database.describe("read", &error))
}

/// Gives the generation that is appended to what it lacks if an earlier version has made it. The mark comes last: what a crash
/// leaves without it is done again.
pub(super) fn index_outages(database: &Database, stages: &[String]) -> Result<(), String> {
    if is_indexed(database)? {
        return Ok(());
    }
    let written = |error| database.describe("write to", &error);
    for stage in stages {
        let failed = |error| walk_failure(database, error);
        let index = database.tree(&outages_tree_of(stage))?;
        let tree = database.tree(&tree_of(stage))?;
        let mut walk = Walk::new(&tree, stage, None, Offset::new(u64::MAX)).map_err(failed)?;
        while let Some(step) = walk.next().map_err(failed)? {
            if step.header.kind == Kind::Gap {
                index.insert(step.key, &[]).map_err(written)?;
            }
        }
    }
    database
        .tree(PATH_TREE)?
        .insert(INDEXED_KEY, &[])
        .map(drop)
        .map_err(written)
}

fn insert_reserved(tree: &sled::Tree, stage: &str, end: Offset) -> sled::Result<()> {
    tree.insert(format!("{RESERVED_PREFIX}{stage}"), &end.get().to_be_bytes())
        .map(drop)
}

/// Writes the end of a reservation. It is durable with the next commit, and before everything inserted after it.
pub(super) fn reserve(database: &Database, stage: &str, end: Offset) -> Result<(), String> {
    insert_reserved(&database.tree(PATH_TREE)?, stage, end)
        .map_err(|error| database.describe("write to", &error))
}

/// What a generation knows about its path.
#[derive(Debug, Default)]
pub(super) struct PathEntries {
    /// The path's id.
    pub(super) id: Option<Uuid>,
    /// Ends of reservations by stage.
    pub(super) reserved: BTreeMap<String, Offset>,
    /// Stages that have a tree.
    pub(super) stages: Vec<String>,
}

/// Reads what a generation knows about its path.
pub(super) fn path_entries(database: &Database) -> Result<PathEntries, String> {
    let mut found = PathEntries {
        stages: database
            .tree_names()?
            .iter()
            .filter_map(|name| name.strip_prefix(TREE_PREFIX).map(str::to_owned))
            .collect(),
        ..PathEntries::default()
    };
    for entry in &database.tree(PATH_TREE)? {
        let (key, value) = entry.map_err(|error| database.describe("read", &error))?;
        let key = String::from_utf8_lossy(&key);
        if key == ID_KEY {
            found.id = Uuid::from_slice(&value).ok();
        } else if let Some(stage) = key.strip_prefix(RESERVED_PREFIX)
            && let Ok(end) = value.as_ref().try_into()
        {
            let end = Offset::new(u64::from_be_bytes(end));
            found.reserved.insert(stage.to_owned(), end);
        }
    }
    Ok(found)
}

/// In words, why what a generation held is lost.
pub(super) fn damaged(number: u64, reason: &str) -> String {
    format!("generation {number} is damaged: {reason}")
}

/// What a full scan of one stage found.
#[derive(Debug)]
pub(super) struct Scan {
    /// The stretch that is there; `None` without a whole batch.
    pub(super) extent: Option<Extent>,
    /// What is missing inside it.
    pub(super) missing: Vec<Gap>,
}

/// Goes through all records of `stage`; `known` is the stretch that should be there.
pub(super) fn scan(database: &Database, stage: &str, known: Option<Extent>) -> Result<Scan, String> {
    let tree = database.tree(&tree_of(stage))?;
    let until = known.map_or(Offset::new(u64::MAX), |extent| extent.end);
    let failed = |error| walk_failure(database, error);
    let mut walk = Walk::new(&tree, stage, known.map(|extent| extent.first), until).map_err(failed)?;
    let (mut first, mut messages, mut missing) = (None, 0, Vec::new());
    let mut period = None;
    while let Some(mut step) = walk.next().map_err(failed)? {
        missing.append(&mut step.missing);
        period = Period::joined(period, Some(step.header.period()));
        if step.header.kind == Kind::Data && step.header.is_last_part() {
            first.get_or_insert(step.header.base);
            messages += u64::from(step.header.count);
        }
    }
    missing.extend(known.and_then(|extent| walk.missing_up_to(extent.end)));
    let extent = first.zip(walk.end()).map(|(first, end)| Extent {
        first,
        end,
        messages,
        period,
    });
    Ok(Scan { extent, missing })
}

/// The first and the last of a stage's whole batches, without looking at what lies between, and the sequence
/// number for the next outage at its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    /// Offset of the first message, and the offset after the last.
    pub(super) extent: Option<(Offset, Offset)>,
    /// Base and sequence number of the outage that was written last.
    pub(super) last_outage: Option<(Offset, u32)>,
    /// The time that everything spans, to when the last of it came or ended.
    pub(super) period: Option<Period>,
}

/// Looks at both ends of a stage. Records at the end that are no whole batch count as never written.
pub(super) fn ends(database: &Database, stage: &str) -> Result<Ends, String> {
    let tree = database.tree(&tree_of(stage))?;
    let failed = |error| walk_failure(database, error);
    let mut found = Ends::default();
    let mut walk = Walk::new(&tree, stage, None, Offset::new(u64::MAX)).map_err(failed)?;
    let mut first = None;
    let mut began = outages::first_began(database, stage)?;
    while let Some(step) = walk.next().map_err(failed)? {
        if step.header.kind == Kind::Data && step.header.is_last_part() {
            first = Some(step.header.base);
            let came = step.header.received_first;
            began = Some(began.map_or(came, |began| began.min(came)));
            break;
        }
    }
    // What came last, and where it stands: an outage comes before the message of its offset.
    let (mut last_came, mut last_ended) = (None, None);
    let mut last_base = None;
    for record in tree.iter().rev() {
        let (key, value) = record.map_err(|error| failed(WalkError::Store(error)))?;
        let Ok(sealed) = envelope::open(stage, &key, &value) else {
            continue;
        };
        let header = sealed.header;
        if header.kind == Kind::Gap {
            let sequence = header.part & !envelope::GAP_PART;
            found.last_outage.get_or_insert((header.base, sequence));
            last_ended.get_or_insert((header.base, header.received_last));
            continue;
        }
        let Some(first) = first else {
            break;
        };
        // Of each base the walk tells whether it is whole; parts of one base are looked at once.
        if last_base == Some(header.base) {
            continue;
        }
        last_base = Some(header.base);
        let mut walk =
            Walk::new(&tree, stage, Some(header.base), header.base.advanced_by(1)).map_err(failed)?;
        while walk.next().map_err(failed)?.is_some() {}
        if let Some(end) = walk.end()
            && end > header.base
        {
            found.extent = Some((first, end));
            last_came = Some((end, header.received_last));
            break;
        }
    }
    let last = match (last_came, last_ended) {
        (Some((end, _)), Some((base, ended))) if base >= end => Some(ended),
        (Some((_, came)), _) => Some(came),
        (None, ended) => ended.map(|(_, ended)| ended),
    };
    found.period = began.zip(last).map(|(from, to)| Period { from, to });
    Ok(found)
}

fn walk_failure(database: &Database, error: WalkError) -> String {
    match error {
        WalkError::Store(error) => database.describe("read", &error),
        WalkError::Newer(error) => error.to_string(),
    }
}
