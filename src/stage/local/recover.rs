//! The start: from whatever a stop, a crash or a damaged disk has left to a path that can be appended to.
//!
//! In this order: room to open anything, leftovers swept, the book (made anew from the generations if it is lost), the
//! generations as the book has them, those it does not know, the one to append to, and for each stage where it goes on.
//!
//! Invariants:
//! * What the book says was there and is not is recorded as lost, with its offsets.
//! * After an unclean stop a stage goes on behind its reservation, so that no offset is given twice even if
//!   the disk lied about its tail.
//! * All of it is durable in the book before anything is appended, and done again if a crash comes between.

mod book;
mod generations;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::carried::Carried;
use super::database::{Database, Poison};
use super::disk;
use super::gaps::GapList;
use super::generation::{self, Ends};
use super::meta::{self, Book, Meta, StageEntry};
use super::options::{LocalOptions, OpenError};
use super::state::Catalog;
use super::trial::TrialCommand;
use crate::record::Offset;
use crate::stage::Period;

/// Where a stage goes on.
#[derive(Clone, Debug)]
pub(super) struct Continuation {
    pub(super) next: Offset,
    pub(super) prev_end: Offset,
    pub(super) entry: StageEntry,
    pub(super) outage_sequence: u32,
    /// What the open generation spans.
    pub(super) period: Option<Period>,
    pub(super) gaps: GapList,
    pub(super) cursors: BTreeMap<String, Offset>,
}

/// What a start comes to.
pub(super) struct Recovered {
    pub(super) id: Uuid,
    pub(super) meta: Meta,
    pub(super) catalog: Catalog,
    pub(super) open: (u64, Arc<Database>),
    pub(super) stages: BTreeMap<String, Continuation>,
    /// Whether the book still says that the last stop was clean.
    pub(super) clean: bool,
}

/// Recovers the path, which is locked. `names` are the stages of the configuration.
pub(super) fn recover(
    options: &LocalOptions,
    trial: &TrialCommand,
    poison: &Poison,
    names: &[&str],
) -> Result<Recovered, OpenError> {
    let numbers = generations_in(&options.path)?;
    if !numbers.is_empty() || options.path.join(meta::NAME).exists() {
        // Only in a directory that is ours for certain: elsewhere the names may be somebody else's.
        disk::sweep(&options.path)?;
    }
    let tools = Tools {
        options,
        trial,
        poison,
    };
    let (meta, id) = tools.open_book(&numbers)?;
    let book = meta.load().map_err(|reason| tools.damaged(reason))?;
    let mut recovery = Recovery {
        gaps: book
            .gaps
            .iter()
            .map(|(stage, gaps)| (stage.clone(), GapList::from_stored(gaps.clone())))
            .collect(),
        reserved: BTreeMap::new(),
        catalog: Catalog::new(),
        clean: book.clean,
        open_lost: None,
        open: None,
        ends: BTreeMap::new(),
        trailing: BTreeMap::new(),
        tools,
        meta,
        id,
        book,
    };
    recovery.take_known(&numbers)?;
    recovery.adopt_unknown(&numbers)?;
    recovery.open_last()?;
    recovery.finish(names)
}

/// Numbers of the generations that there are directories of.
fn generations_in(path: &Path) -> Result<BTreeSet<u64>, OpenError> {
    let listed = std::fs::read_dir(path).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.file_name().to_str().and_then(generation::number_of)))
            .collect::<std::io::Result<Vec<_>>>()
    });
    let found = listed.map_err(|source| disk::DiskError::Io {
        action: "list the directory",
        path: path.to_owned(),
        source,
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// What databases are opened with.
#[derive(Clone, Copy)]
struct Tools<'a> {
    options: &'a LocalOptions,
    trial: &'a TrialCommand,
    poison: &'a Poison,
}

/// What is known so far.
struct Recovery<'a> {
    tools: Tools<'a>,
    meta: Meta,
    id: Uuid,
    book: Book,
    gaps: BTreeMap<String, GapList>,
    /// Ends of reservations as the generations have them.
    reserved: BTreeMap<String, Offset>,
    catalog: Catalog,
    clean: bool,
    /// In words, that the generation that was appended to last is missing or damaged: it may have held more than the book knows.
    open_lost: Option<String>,
    open: Option<(u64, Arc<Database>)>,
    /// What the open generation holds of each stage.
    ends: BTreeMap<String, Ends>,
    /// Outages behind the last message of each stage, from generations that the book does not know.
    trailing: BTreeMap<String, Carried>,
}
