//! Where an export goes: the standard output, or a file that appears under its name only once it is whole and on disk.

use std::fmt;
use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use socket_el::exit::{ExitReason, RunnerError};
use tempfile::NamedTempFile;

use crate::output::Output;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 256 * 1024;

/// Rights of the file, of which the process's umask takes some.
const MODE: u32 = 0o666;

/// What was named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    File(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(Self::Stdout),
            "" => Err("expected the name of a file, or - for the standard output".to_owned()),
            name => Ok(Self::File(PathBuf::from(name))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("the standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Target {
    pub(crate) fn is_stdout(&self) -> bool {
        *self == Self::Stdout
    }

    /// Begins to write. A file that is there is an error unless it may be replaced.
    pub(crate) fn open(&self, may_replace: bool) -> Result<Destination, RunnerError> {
        match self {
            Self::Stdout => Ok(Destination::Stdout(Output::new())),
            Self::File(path) => NewFile::create(path, may_replace).map(Destination::File),
        }
    }
}

/// What is written to.
pub(crate) enum Destination {
    Stdout(Output),
    File(NewFile),
}

impl Destination {
    /// Writes a line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), RunnerError> {
        match self {
            Self::Stdout(output) => output.line(text),
            Self::File(file) => writeln!(file, "{text}").map_err(|error| failed(&file.path, &error)),
        }
    }

    /// Makes a file durable, and gives it its name.
    pub(crate) fn finish(self) -> Result<(), RunnerError> {
        match self {
            Self::Stdout(mut output) => output.flush(),
            Self::File(file) => file.finish(),
        }
    }
}

/// A file that has no name yet. One that is not finished is removed.
pub(crate) struct NewFile {
    writer: BufWriter<NamedTempFile>,
    path: PathBuf,
    may_replace: bool,
}

impl NewFile {
    /// Begins a file beside its place. One that is there already is an error unless it may be replaced.
    pub(crate) fn create(path: &Path, may_replace: bool) -> Result<Self, RunnerError> {
        match std::fs::metadata(path) {
            Ok(there) if !there.is_file() => {
                return Err(usage(format!(
                    "{} is there and no file; -o - writes to the standard output",
                    path.display()
                )));
            }
            Ok(_) if !may_replace => return Err(is_there(path)),
            _ => {}
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(path.file_name().unwrap_or_default());
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(directory)
            .map_err(|error| failed(path, &error))?;
        Ok(Self {
            writer: BufWriter::with_capacity(BUFFER, file),
            path: path.to_owned(),
            may_replace,
        })
    }

    /// Makes the file durable, and gives it its name.
    pub(crate) fn finish(self) -> Result<(), RunnerError> {
        let Self {
            writer,
            path,
            may_replace,
        } = self;
        let file = writer
            .into_inner()
            .map_err(|error| failed(&path, error.error()))?;
        file.as_file().sync_all().map_err(|error| failed(&path, &error))?;
        let named = if may_replace {
            file.persist(&path)
        } else {
            file.persist_noclobber(&path)
        };
        match named {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(is_there(&path)),
            Err(error) => Err(failed(&path, &error.error)),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn usage(message: String) -> RunnerError {
    RunnerError::new(ExitReason::Configuration, message)
}

fn is_there(path: &Path) -> RunnerError {
    usage(format!(
        "{} is there already; nothing was written. --force replaces it",
        path.display()
    ))
}

fn failed(path: &Path, error: &io::Error) -> RunnerError {
    RunnerError::new(
        ExitReason::Failed,
        format!("could not write {}: {error}", path.display()),
    )
}
