//! What goes to the standard output. Whoever reads it may stop early (`stage-inspect list | head`): that ends the command, and is
//! no failure.

use std::fmt;
use std::io::{self, BufWriter, Stdout, Write as _, stdout};

use serde::Serialize;
use socket_el::exit::{ExitReason, RunnerError};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 * 1024;

/// Nobody reads the output any more.
#[derive(Debug)]
struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl std::error::Error for ReaderGone {}

/// Whether a command ended because nobody read its output any more.
pub(crate) fn is_reader_gone(error: &RunnerError) -> bool {
    error.get_ref().is::<ReaderGone>()
}

/// An error of the standard output as the command's.
pub(crate) fn write_failed(error: io::Error) -> RunnerError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        RunnerError::new(ExitReason::Failed, ReaderGone)
    } else {
        RunnerError::new(
            ExitReason::Failed,
            format!("could not write to the standard output: {error}"),
        )
    }
}

/// The standard output, with a buffer: [`flush`](Output::flush) it at the end.
pub(crate) struct Output {
    writer: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self {
            writer: BufWriter::with_capacity(BUFFER, stdout()),
        }
    }

    /// Writes a text as it is.
    pub(crate) fn write(&mut self, text: impl fmt::Display) -> Result<(), RunnerError> {
        write!(self.writer, "{text}").map_err(write_failed)
    }

    /// Writes a text and ends the line.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), RunnerError> {
        writeln!(self.writer, "{text}").map_err(write_failed)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), RunnerError> {
        self.writer.write_all(bytes).map_err(write_failed)
    }

    pub(crate) fn flush(&mut self) -> Result<(), RunnerError> {
        self.writer.flush().map_err(write_failed)
    }
}

/// Prints a text as it is.
pub(crate) fn print(text: impl fmt::Display) -> Result<(), RunnerError> {
    let mut output = Output::new();
    output.write(text)?;
    output.flush()
}

/// Prints bytes as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), RunnerError> {
    let mut output = Output::new();
    output.bytes(bytes)?;
    output.flush()
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), RunnerError> {
    let text = serde_json::to_string_pretty(value).map_err(json_failed)?;
    print(text + "\n")
}

/// A value that can't be written as JSON; none of ours.
pub(crate) fn json_failed(error: serde_json::Error) -> RunnerError {
    RunnerError::new(ExitReason::Failed, error)
}
