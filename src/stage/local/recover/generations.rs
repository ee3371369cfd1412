//! The generations at a start: as the book has them, those it does not know, and the one to append to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Recovery;
use crate::record::{Offset, Timestamp};
use crate::stage::local::database::{Database, Opened, wait_until_closed};
use crate::stage::local::meta::GenerationEntry;
use crate::stage::local::options::OpenError;
use crate::stage::local::state::Generation;
use crate::stage::local::{carried, disk, gaps, generation};
use crate::stage::path::{Extent, GenerationState};
use crate::stage::{Gap, Period};

impl Recovery<'_> {
    /// The generations that the book knows, but for the open one.
    pub(super) fn take_known(&mut self, numbers: &BTreeSet<u64>) -> Result<(), OpenError> {
        for (number, entry) in self.book.generations.clone() {
            let dir = generation::dir_of(&self.tools.options.path, number);
            let there = numbers.contains(&number);
            match entry.state {
                GenerationState::Dropping => {
                    if there {
                        disk::remove_durably(&dir)?;
                    }
                    self.forget(number)?;
                }
                GenerationState::Sealed if there => {
                    let extents = self.extents(number);
                    let bytes = disk::dir_bytes(&dir)?;
                    let sums = self.book.sums.remove(&number).unwrap_or_default();
                    self.catalog.insert(
                        number,
                        Generation {
                            entry,
                            extents,
                            sums,
                            bytes,
                        },
                    );
                }
                GenerationState::Sealed => {
                    tracing::error!(generation = number, "a generation is missing");
                    self.lose(number, &format!("generation {number} is missing"))?;
                    self.forget(number)?;
                }
                GenerationState::Open if there => {}
                // What it held is seen from the heads.
                GenerationState::Open => {
                    tracing::error!(generation = number, "the newest generation is missing");
                    self.clean = false;
                    self.open_lost = Some(format!("the newest generation, {number}, is missing"));
                }
            }
        }
        Ok(())
    }

    fn extents(&self, number: u64) -> BTreeMap<String, Extent> {
        self.book
            .extents
            .range((number, String::new())..)
            .take_while(|((found, _), _)| *found == number)
            .filter(|(_, extent)| extent.first < extent.end)
            .map(|((_, stage), extent)| (stage.clone(), *extent))
            .collect()
    }

    fn forget(&self, number: u64) -> Result<(), OpenError> {
        self.meta
            .remove_generation(number)
            .map_err(|reason| self.tools.failed(reason))
    }

    /// Records everything that a sealed generation held as lost.
    fn lose(&mut self, number: u64, why: &str) -> Result<(), OpenError> {
        for (stage, extent) in self.extents(number) {
            self.lose_between(&stage, extent.first, extent.end, extent.period, why)?;
        }
        Ok(())
    }

    /// Records what is not known to be missing yet of a stretch as lost.
    pub(super) fn lose_between(
        &mut self,
        stage: &str,
        from: Offset,
        to: Offset,
        period: Option<Period>,
        why: &str,
    ) -> Result<(), OpenError> {
        let dense = self
            .gaps
            .entry(stage.to_owned())
            .or_default()
            .dense_between(from, to);
        for (from, to) in dense {
            tracing::error!(
                stage,
                from = from.get(),
                to = to.get(),
                why,
                "messages are lost from the disk"
            );
            let lost = Gap {
                period,
                ..gaps::lost(from, to, why)
            };
            self.add_gap(stage, &lost)?;
        }
        Ok(())
    }

    pub(super) fn add_gap(&mut self, stage: &str, gap: &Gap) -> Result<(), OpenError> {
        let change = self.gaps.entry(stage.to_owned()).or_default().add(gap);
        self.meta
            .put_gaps(stage, &change)
            .map_err(|reason| self.tools.failed(reason))
    }

    /// Generations that the book does not know: what a crash left of a roll is empty, all others are looked through.
    pub(super) fn adopt_unknown(&mut self, numbers: &BTreeSet<u64>) -> Result<(), OpenError> {
        for &number in numbers {
            if self.book.generations.contains_key(&number) {
                continue;
            }
            let name = format!("g-{number}");
            let database = match self.tools.open_sealed(number)? {
                Opened::Sound(database) => database,
                Opened::Condemned(reason) => {
                    self.tools.move_aside(&name, &reason)?;
                    continue;
                }
            };
            let extents = self.look_through(&database)?;
            drop(database);
            let dir = generation::dir_of(&self.tools.options.path, number);
            wait_until_closed(&dir)?;
            if extents.is_empty() {
                disk::remove_durably(&dir)?;
                continue;
            }
            let now = Timestamp::now();
            let entry = GenerationEntry {
                state: GenerationState::Sealed,
                made_at: now,
                sealed_at: Some(now),
                summed: false,
            };
            let put = extents
                .iter()
                .try_for_each(|(stage, extent)| self.meta.put_extent(number, stage, extent))
                .and_then(|()| self.meta.put_generation(number, &entry));
            put.map_err(|reason| self.tools.failed(reason))?;
            let bytes = disk::dir_bytes(&dir)?;
            self.catalog.insert(
                number,
                Generation {
                    entry,
                    extents,
                    sums: Vec::new(),
                    bytes,
                },
            );
            self.clean = false;
        }
        Ok(())
    }

    fn look_through(&mut self, database: &Database) -> Result<BTreeMap<String, Extent>, OpenError> {
        let tools = self.tools;
        let entries = generation::path_entries(database).map_err(|reason| tools.failed(reason))?;
        self.take_reserved(entries.reserved);
        let mut extents = BTreeMap::new();
        for stage in entries.stages {
            let scan = generation::scan(database, &stage, None).map_err(|reason| tools.failed(reason))?;
            for gap in scan.missing {
                self.add_gap(&stage, &gap)?;
            }
            let end = scan.extent.map(|extent| extent.end);
            let trailing = carried::trailing(database, &stage, end).map_err(|reason| tools.failed(reason))?;
            self.trailing.insert(stage.clone(), trailing);
            if let Some(extent) = scan.extent {
                self.close_hole_before(&stage, extent.first)?;
                extents.insert(stage, extent);
            }
        }
        Ok(extents)
    }

    /// What lies between two generations that the book does not know: nobody can say whether anything was there.
    fn close_hole_before(&mut self, stage: &str, first: Offset) -> Result<(), OpenError> {
        let end = self
            .catalog
            .values()
            .filter_map(|generation| generation.extents.get(stage))
            .map(|extent| extent.end)
            .filter(|end| *end <= first)
            .max();
        match end {
            Some(end) if end < first => self.add_gap(
                stage,
                &Gap {
                    messages: None,
                    ..gaps::lost(end, first, "the book is lost, and no generation holds them")
                },
            ),
            _ => Ok(()),
        }
    }

    fn take_reserved(&mut self, found: BTreeMap<String, Offset>) {
        for (stage, end) in found {
            let known = self.reserved.entry(stage).or_default();
            *known = end.max(*known);
        }
    }

    /// Opens the generation to append to, or makes one.
    pub(super) fn open_last(&mut self) -> Result<(), OpenError> {
        let tools = self.tools;
        let open = self
            .book
            .generations
            .iter()
            .find(|(_, entry)| entry.state == GenerationState::Open)
            .map(|(number, entry)| (*number, entry.clone()));
        if let Some((number, entry)) = open {
            let dir = generation::dir_of(&tools.options.path, number);
            let settings = generation::open_settings(&tools.options.tuning);
            let opened = if dir.exists() {
                Some(Database::open(&dir, settings, tools.trial, tools.poison)?)
            } else {
                None
            };
            match opened {
                Some(Opened::Sound(database)) => return self.take_open(number, entry, database),
                Some(Opened::Condemned(reason)) => {
                    tools.move_aside(&format!("g-{number}"), &reason)?;
                    self.clean = false;
                    self.open_lost = Some(generation::damaged(number, &reason));
                }
                None => {}
            }
            self.forget(number)?;
        }
        self.make_open()
    }

    fn take_open(
        &mut self,
        number: u64,
        entry: GenerationEntry,
        database: Database,
    ) -> Result<(), OpenError> {
        let tools = self.tools;
        let entries = generation::path_entries(&database).map_err(|reason| tools.failed(reason))?;
        self.take_reserved(entries.reserved);
        generation::index_outages(&database, &entries.stages).map_err(|reason| tools.failed(reason))?;
        let mut extents = BTreeMap::new();
        for stage in entries.stages {
            let ends = generation::ends(&database, &stage).map_err(|reason| tools.failed(reason))?;
            if let Some((first, end)) = ends.extent {
                let list = self.gaps.entry(stage.clone()).or_default();
                let messages = list.count_between(first, end);
                let period = ends.period;
                extents.insert(
                    stage.clone(),
                    Extent {
                        first,
                        end,
                        messages,
                        period,
                    },
                );
            }
            self.ends.insert(stage, ends);
        }
        let bytes = disk::dir_bytes(&generation::dir_of(&tools.options.path, number))?;
        self.catalog.insert(
            number,
            Generation {
                entry,
                extents,
                sums: Vec::new(),
                bytes,
            },
        );
        self.open = Some((number, Arc::new(database)));
        Ok(())
    }

    fn make_open(&mut self) -> Result<(), OpenError> {
        let tools = self.tools;
        let known = self.book.generations.keys().chain(self.catalog.keys()).max();
        let number = known.map_or(0, |last| last + 1);
        let path = &tools.options.path;
        let reserved = self.reserved.iter().map(|(stage, end)| (stage.as_str(), *end));
        let carried: Vec<_> = std::mem::take(&mut self.trailing).into_values().collect();
        generation::create(path, number, &tools.options.tuning, self.id, reserved, &carried)?;
        let entry = GenerationEntry {
            state: GenerationState::Open,
            made_at: Timestamp::now(),
            sealed_at: None,
            summed: false,
        };
        self.meta
            .put_generation(number, &entry)
            .map_err(|reason| tools.failed(reason))?;
        let dir = generation::dir_of(path, number);
        let settings = generation::open_settings(&tools.options.tuning);
        match Database::open(&dir, settings, tools.trial, tools.poison)? {
            Opened::Sound(database) => self.take_open(number, entry, database),
            Opened::Condemned(reason) => Err(tools.damaged(reason)),
        }
    }
}
