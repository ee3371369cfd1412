//! What is told of a feed: gathered as facts, printed as text or as JSON.

use std::fmt::{self, Display};

use serde::Serialize;

use super::heard::Sizes;

/// Everything that is told.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Without secrets.
    pub(super) uri: String,
    pub(super) handshake: HandshakeReport,
    /// Whether anything was to be said.
    #[serde(skip)]
    pub(super) has_script: bool,
    /// When everything was said and answered, counted from the handshake.
    pub(super) subscribed_after_ms: Option<u64>,
    /// Why the connection was lost, if it was.
    pub(super) lost: Option<String>,
    pub(super) listened_s: f64,
    /// Messages that are data.
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) messages_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) sizes: Option<Sizes>,
    pub(super) longest_silence_s: f64,
    /// Messages that were no data: answers, heartbeats.
    pub(super) control: u64,
    /// Messages that came after as many as are looked at, and were counted only.
    pub(super) not_looked_at: u64,
    pub(super) kinds: Vec<KindReport>,
    /// The text of a config.yml.
    pub(super) config: String,
    /// Variables of the environment that stand for secrets in it.
    pub(super) variables: Vec<String>,
    /// What the producer would run for these messages; `None` when none of them would be a row.
    pub(super) create_table: Option<String>,
    /// The same, with the comments that remember which column is for which key.
    pub(super) sql: Option<String>,
    /// What could not be known.
    pub(super) unknown: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct HandshakeReport {
    pub(super) took_ms: u64,
    pub(super) status: u16,
    pub(super) tls: Option<String>,
    pub(super) subprotocol: Option<String>,
    pub(super) extensions: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct KindReport {
    pub(super) kind: String,
    pub(super) messages: usize,
    /// What they are to the consumer that is printed.
    pub(super) role: &'static str,
    pub(super) smallest: usize,
    pub(super) largest: usize,
    pub(super) example: String,
    /// The columns that these messages alone would make.
    pub(super) columns: Vec<ColumnReport>,
    /// How many of them can't be rows, and why the first one can't.
    pub(super) dead_letters: usize,
    pub(super) dead_letter_reason: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ColumnReport {
    pub(super) key: String,
    #[serde(rename = "type")]
    pub(super) column_type: String,
    /// A narrower type that all values would fit.
    pub(super) fits: Option<String>,
}

/// Columns that are named in one line.
const COLUMNS_IN_A_LINE: usize = 6;

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_connection(f)?;
        self.write_rate(f)?;
        for (number, kind) in self.kinds.iter().enumerate() {
            writeln!(f)?;
            kind.write(number + 1, f)?;
        }
        writeln!(f, "\nFor config.yml:\n\n{}", self.config.trim_end())?;
        if !self.variables.is_empty() {
            writeln!(
                f,
                "\nSet in the environment, in place of what was given: {}",
                self.variables.join(", ")
            )?;
        }
        match &self.create_table {
            Some(sql) => writeln!(
                f,
                "\nThe table that the producer would make of these messages:\n\n{}",
                sql.trim_end()
            )?,
            None => writeln!(f, "\nNo message would be a row, so there is no table to show.")?,
        }
        if !self.unknown.is_empty() {
            writeln!(f, "\nNot known:")?;
            for unknown in &self.unknown {
                writeln!(f, "  - {unknown}")?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn write_connection(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handshake = &self.handshake;
        writeln!(
            f,
            "connected to {} in {} ms: HTTP {}, {}, {}, {}",
            self.uri,
            handshake.took_ms,
            handshake.status,
            handshake.tls.as_deref().unwrap_or("no TLS"),
            handshake.subprotocol.as_ref().map_or_else(
                || "no subprotocol".to_owned(),
                |name| format!("subprotocol {name}")
            ),
            handshake.extensions.as_ref().map_or_else(
                || "no extensions".to_owned(),
                |names| format!("extensions {names}")
            ),
        )?;
        match self.subscribed_after_ms {
            Some(_) if !self.has_script => {}
            Some(after) => writeln!(f, "subscribed after {after} ms")?,
            None => writeln!(f, "not subscribed: an answer that was waited for did not come")?,
        }
        if let Some(cause) = &self.lost {
            writeln!(f, "the connection was lost: {cause}")?;
        }
        Ok(())
    }

    fn write_rate(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "listened for {:.1} s: {} data {}",
            self.listened_s,
            self.messages,
            messages(self.messages)
        )?;
        if let Some(sizes) = &self.sizes {
            write!(
                f,
                ", {:.1} a second, {} a second; {} to {} bytes, half of them up to {}, 99 % up to {}",
                self.messages_per_s,
                in_bytes(self.bytes_per_s),
                sizes.smallest,
                sizes.largest,
                sizes.median,
                sizes.p99
            )?;
        }
        if self.control > 0 {
            let control = self.control;
            write!(f, "; {control} other {} (no data)", messages(control))?;
        }
        writeln!(f)?;
        if self.not_looked_at > 0 {
            writeln!(f, "the last {} of them were counted only", self.not_looked_at)?;
        }
        Ok(())
    }
}

impl KindReport {
    fn write(&self, number: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = if self.smallest == self.largest {
            format!("{} bytes", self.smallest)
        } else {
            format!("{} to {} bytes", self.smallest, self.largest)
        };
        let role = match self.role {
            "data" => String::new(),
            role => format!(", {role}"),
        };
        writeln!(
            f,
            "{number}. {}: {} {}, {size}{role}",
            self.kind,
            self.messages,
            messages(self.messages as u64)
        )?;
        writeln!(f, "   {}", self.example)?;
        for columns in self.columns.chunks(COLUMNS_IN_A_LINE) {
            let shown: Vec<_> = columns.iter().map(ColumnReport::to_string).collect();
            writeln!(f, "   {}", shown.join(", "))?;
        }
        if let Some(reason) = &self.dead_letter_reason {
            writeln!(
                f,
                "   {} of them would be dead letters: {reason}",
                self.dead_letters
            )?;
        }
        Ok(())
    }
}

impl Display for ColumnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key.escape_debug(), self.column_type)?;
        match &self.fits {
            Some(fits) => write!(f, " (fits {fits})"),
            None => Ok(()),
        }
    }
}

fn messages(count: u64) -> &'static str {
    if count == 1 { "message" } else { "messages" }
}

/// A number of bytes, to be read.
fn in_bytes(bytes: f64) -> String {
    const KIB: f64 = 1_024.0;
    if bytes < KIB {
        format!("{bytes:.0} bytes")
    } else if bytes < KIB * KIB {
        format!("{:.1} KiB", bytes / KIB)
    } else {
        format!("{:.1} MiB", bytes / KIB / KIB)
    }
}
