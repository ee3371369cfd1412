//! The text of a configuration file, within a limit.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// No configuration is larger.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a file gives no text.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refuses.
    #[error("can't be read: {0}")]
    Refused(io::Error),
    /// It is larger than any configuration.
    #[error("is larger than {MAX_FILE_BYTES} bytes; is it a configuration at all?")]
    TooLarge,
    /// It is something else than text.
    #[error("is not UTF-8 text in line {line}")]
    NotText {
        /// The line, beginning with 1.
        line: usize,
    },
}

impl FileError {
    /// Whether there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a whole file.
pub(super) fn read_text(path: &Path) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(FileError::Refused)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(valid);
        FileError::NotText {
            line: 1 + before.filter(|byte| **byte == b'\n').count(),
        }
    })
}
