//! Paths into JSON as values and as keys of the file: a mistake is reported at its character.

use super::section::Section;
use super::tree::Content;
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

    /// The paths at `key`, one or a list of at most `most`, each of which must mean a single value. `None` when it is absent or
    /// null, or when a problem was reported.
    pub fn single_paths(&mut self, key: &str, most: usize) -> Option<Vec<Path>> {
        let node = self.node(key)?;
        let Content::Sequence(items) = &node.content else {
            return Some(vec![self.single_path(key)?]);
        };
        if !(1..=most).contains(&items.len()) {
            self.problem(key, &format!("must be a path, or a list of 1 to {most} paths"));
            return None;
        }
        let mut paths = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let text = match &item.content {
                Content::Scalar(scalar) => scalar.text.as_str(),
                Content::Sequence(_) | Content::Mapping(_) => "",
            };
            match text.parse::<Path>() {
                Ok(path) if path.is_plural() => self.problem_in_item(key, index, 0, PLURAL),
                Ok(path) => paths.push(path),
                Err(error) => self.problem_in_item(key, index, error.at, &error.to_string()),
            }
        }
        (paths.len() == items.len()).then_some(paths)
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
