//! Paths into JSON as values and as keys of the file: a mistake is reported at its character.

use super::section::Section;
use crate::json_path::Path;

impl Section<'_> {
    /// The path at `key`, which must mean a single value. `None` when it is absent or null, or when a problem was reported.
    pub fn single_path(&mut self, key: &str) -> Option<Path> {
        let text: String = self.optional(key)?;
        match text.parse::<Path>() {
            Ok(path) if path.is_plural() => {
                self.problem(key, PLURAL);
                None
            }
            Ok(path) => Some(path),
            Err(error) => {
                self.problem_within(key, error.at, &error.to_string());
                None
            }
        }
    }

    /// The path that a key itself is, which must mean a single value. `None` when a problem was reported.
    pub fn path_of_key(&mut self, key: &str) -> Option<Path> {
        match key.parse::<Path>() {
            Ok(path) if path.is_plural() => {
                self.problem_in_key(key, 0, PLURAL);
                None
            }
            Ok(path) => Some(path),
            Err(error) => {
                self.problem_in_key(key, error.at, &error.to_string());
                None
            }
        }
    }
}

const PLURAL: &str = "must name a single value; [*] stands for many";
