//! The book at a start: opened, or made anew when it is lost.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Tools;
use crate::record::Timestamp;
use crate::stage::local::database::{Database, Opened, wait_until_closed};
use crate::stage::local::meta::{self, Meta};
use crate::stage::local::options::OpenError;
use crate::stage::local::{disk, generation};

impl Tools<'_> {
    pub(super) fn damaged(&self, reason: String) -> OpenError {
        OpenError::Damaged {
            path: self.options.path.clone(),
            reason,
        }
    }

    pub(super) fn failed(&self, reason: String) -> OpenError {
        OpenError::Database {
            path: self.options.path.clone(),
            reason,
        }
    }

    pub(super) fn open_sealed(&self, number: u64) -> Result<Opened, OpenError> {
        let dir = generation::dir_of(&self.options.path, number);
        let settings = generation::sealed_settings(&self.options.tuning);
        Database::open(&dir, settings, self.trial, self.poison)
    }

    pub(super) fn move_aside(&self, name: &str, reason: &str) -> Result<(), OpenError> {
        let path = &self.options.path;
        let now = Timestamp::now().micros();
        let aside = path.join(format!("{}{name}-{now}", disk::DAMAGED_PREFIX));
        tracing::error!(path = %path.display(), name, reason, aside = %aside.display(), "damaged, and moved aside");
        disk::rename_durably(&path.join(name), &aside)?;
        Ok(())
    }

    /// Opens the book, or makes one: an empty one for a new path, one to be filled from the generations otherwise.
    pub(super) fn open_book(&self, numbers: &BTreeSet<u64>) -> Result<(Meta, Uuid), OpenError> {
        let path = &self.options.path;
        let dir = path.join(meta::NAME);
        if dir.exists() {
            let reason = match Database::open(&dir, meta::SETTINGS, self.trial, self.poison)? {
                Opened::Condemned(reason) => reason,
                Opened::Sound(database) => {
                    let meta = Meta::new(database, &dir).map_err(|reason| self.failed(reason))?;
                    match meta.identity().map_err(|reason| self.failed(reason))? {
                        Some((found, _)) if found > meta::SCHEMA => {
                            return Err(OpenError::Newer {
                                path: path.clone(),
                                found,
                                known: meta::SCHEMA,
                            });
                        }
                        Some((_, id)) => match meta.load() {
                            Ok(_) => return Ok((meta, id)),
                            Err(reason) => reason,
                        },
                        None => "it does not say whose it is".to_owned(),
                    }
                }
            };
            self.move_aside(meta::NAME, &reason)?;
        }
        let id = self.id_from(numbers)?;
        if !numbers.is_empty() {
            tracing::error!(path = %path.display(), "the book of the stage path is lost; making it anew from the generations");
        }
        let id = id.unwrap_or_else(Uuid::new_v4);
        Meta::create(path, id, numbers.is_empty())?;
        match Database::open(&dir, meta::SETTINGS, self.trial, self.poison)? {
            Opened::Sound(database) => {
                let meta = Meta::new(database, &dir).map_err(|reason| self.failed(reason))?;
                Ok((meta, id))
            }
            Opened::Condemned(reason) => Err(self.damaged(reason)),
        }
    }

    /// The path's id as the newest generation that can be opened has it.
    fn id_from(&self, numbers: &BTreeSet<u64>) -> Result<Option<Uuid>, OpenError> {
        for number in numbers.iter().rev() {
            if let Opened::Sound(database) = self.open_sealed(*number)? {
                let entries = generation::path_entries(&database).map_err(|reason| self.failed(reason))?;
                drop(database);
                wait_until_closed(&generation::dir_of(&self.options.path, *number))?;
                if entries.id.is_some() {
                    return Ok(entries.id);
                }
            }
        }
        Ok(None)
    }
}
