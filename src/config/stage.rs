//! The keys `stage` and `batch_configuration` of a consumer.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::problem::suggestion;
use super::section::Section;
use super::units::{ByteSize, Span};
use crate::consumer::BatchLimits;

/// Kinds of stages that `stage.type` can name.
const TYPES: [&str; 1] = ["local"];

const DEFAULT_RETENTION: Retention = Retention {
    age: Span(Duration::from_secs(24 * 60 * 60)),
    bytes: ByteSize(1 << 30),
};

const DEFAULT_MAX_BYTES: ByteSize = ByteSize(10 << 30);

const LEAST_MAX_BYTES: ByteSize = ByteSize(crate::stage::local::LEAST_MAX_BYTES);

/// How long `durability: interval(…)` may leave messages in memory only.
const INTERVAL_RANGE: RangeInclusive<Span> =
    Span(Duration::from_millis(1))..=Span(Duration::from_secs(60 * 60));

const DEFAULT_BATCH: BatchLimits = BatchLimits {
    messages: 100,
    bytes: ByteSize(1 << 20),
    interval: Span(Duration::from_millis(200)),
};

/// Messages of a batch.
const BATCH_MESSAGES_RANGE: RangeInclusive<usize> = 1..=100_000;

/// Bytes of a batch: it is held in memory until it is staged.
const BATCH_BYTES_RANGE: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize(64 << 20);

/// Age of a batch.
const BATCH_INTERVAL_RANGE: RangeInclusive<Span> =
    Span(Duration::from_millis(1))..=Span(Duration::from_secs(60 * 60));

/// `stage`: where and how the messages of a consumer are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageConfig {
    /// The directory: absolute, without `.`, `..` and symbolic links as far as it exists, so that equal paths are the same
    /// directory.
    pub path: PathBuf,
    /// When a batch counts as staged.
    pub durability: Durability,
    /// How long delivered messages stay.
    pub retention: Retention,
    /// Limit of the path's size, all its stages together.
    pub max_bytes: ByteSize,
    /// What happens at that limit.
    pub on_full: OnFull,
}

/// `durability`: when a batch counts as staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk.
    Fsync,
    /// At once; the disk is synchronised so often. A power cut loses what came since.
    Interval(Span),
}

/// `retention`: messages that every producer has delivered stay for replay until either is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Since they were received.
    pub age: Span,
    /// Size of what is kept in the path.
    pub bytes: ByteSize,
}

/// `on_full`: what happens when a path has reached `max_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// Consumers wait.
    #[default]
    Block,
    /// The oldest generation goes, of all stages of the path.
    DropOldest,
    /// New messages go.
    DropNewest,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fsync => f.write_str("fsync"),
            Self::Interval(span) => write!(f, "interval({span})"),
        }
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "fsync" {
            return Ok(Self::Fsync);
        }
        let Some(span) = text
            .strip_prefix("interval(")
            .and_then(|rest| rest.strip_suffix(')'))
        else {
            return Err(format!("expected fsync or interval(200ms), found `{text}`"));
        };
        let span = span.parse().map_err(|error| format!("interval(…): {error}"))?;
        if !INTERVAL_RANGE.contains(&span) {
            return Err(format!(
                "interval(…) must be from {} to {}; fsync is the one that loses nothing",
                INTERVAL_RANGE.start(),
                INTERVAL_RANGE.end()
            ));
        }
        Ok(Self::Interval(span))
    }
}

impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ age: {}, bytes: {} }}", self.age, self.bytes)
    }
}

impl fmt::Display for OnFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
        })
    }
}

impl StageConfig {
    /// Reads the keys of a stage. `None` when a problem was reported.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let kind = section.required::<String>("type");
        if let Some(kind) = &kind
            && !TYPES.contains(&kind.as_str())
        {
            section.problem(
                "type",
                &format!("unknown type of stage{}", suggestion(kind, &TYPES)),
            );
            section.leave_unread();
            return None;
        }
        let path = read_path(section);
        let durability = section.or("durability", Durability::Fsync);
        let retention = match section.section("retention") {
            Some(mut retention) => Retention {
                age: retention.or("age", DEFAULT_RETENTION.age),
                bytes: retention.or("bytes", DEFAULT_RETENTION.bytes),
            },
            None => DEFAULT_RETENTION,
        };
        let max_bytes = section.or("max_bytes", DEFAULT_MAX_BYTES);
        if max_bytes < LEAST_MAX_BYTES {
            section.problem(
                "max_bytes",
                &format!(
                    "must be at least {LEAST_MAX_BYTES}: what is being written and what waits to be delivered take 8MiB or \
                     16MiB each, however little it is"
                ),
            );
        }
        let on_full = section.or("on_full", OnFull::Block);
        Some(Self {
            path: path?,
            durability,
            retention,
            max_bytes,
            on_full,
        })
    }

    /// How two stages of one path disagree, in words; empty when they don't.
    pub(super) fn disagreements(&self, other: &Self) -> Vec<String> {
        fn compare<T: PartialEq + fmt::Display>(found: &mut Vec<String>, key: &str, one: &T, two: &T) {
            if one != two {
                found.push(format!("{key} ({one} and {two})"));
            }
        }

        let mut found = Vec::new();
        compare(&mut found, "durability", &self.durability, &other.durability);
        compare(&mut found, "retention", &self.retention, &other.retention);
        compare(&mut found, "max_bytes", &self.max_bytes, &other.max_bytes);
        compare(&mut found, "on_full", &self.on_full, &other.on_full);
        found
    }
}

fn read_path(section: &mut Section<'_>) -> Option<PathBuf> {
    let path: String = section.required("path")?;
    let refusal = if path.trim().is_empty() {
        "must name a directory"
    } else if path.contains('\0') {
        "must not hold a NUL character"
    } else if path.starts_with('~') {
        "`~` is not replaced here; write ${HOME} in its place"
    } else {
        match normalised(Path::new(&path)) {
            Ok(path) => return Some(path),
            Err(error) => {
                section.problem("path", &format!("has no place: {error}"));
                return None;
            }
        }
    };
    section.problem("path", refusal);
    None
}

/// The one form of a path: two paths of one directory are equal in it.
fn normalised(path: &Path) -> std::io::Result<PathBuf> {
    let mut result = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => {
                result.pop();
            }
            Component::CurDir => {}
            other => {
                result.push(other);
                // What is not there yet has no symbolic links to follow.
                if let Ok(real) = result.canonicalize() {
                    result = real;
                }
            }
        }
    }
    Ok(result)
}

/// Reads `batch_configuration` of a consumer.
pub(super) fn read_batch_limits(consumer: &mut Section<'_>) -> BatchLimits {
    let Some(mut section) = consumer.section("batch_configuration") else {
        return DEFAULT_BATCH;
    };
    BatchLimits {
        messages: within(
            &mut section,
            "size",
            DEFAULT_BATCH.messages,
            &BATCH_MESSAGES_RANGE,
        ),
        bytes: within(&mut section, "bytes", DEFAULT_BATCH.bytes, &BATCH_BYTES_RANGE),
        interval: within(
            &mut section,
            "interval",
            DEFAULT_BATCH.interval,
            &BATCH_INTERVAL_RANGE,
        ),
    }
}

/// The value at `key`, which must be in the range.
fn within<T>(section: &mut Section<'_>, key: &str, default: T, range: &RangeInclusive<T>) -> T
where
    T: de::DeserializeOwned + PartialOrd + fmt::Display,
{
    let value = section.or(key, default);
    if !range.contains(&value) {
        section.problem(key, &format!("must be from {} to {}", range.start(), range.end()));
    }
    value
}
