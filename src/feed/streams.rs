//! The streams that a feed plays: one per request path, each with a place of its own that outlives connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::frame::{Kind, push_message};
use super::trades::Trades;

/// Most request paths that one feed keeps a place for; further ones are refused with HTTP 503.
const MAX_PATHS: usize = 4_096;

/// What is played on every path.
#[derive(Clone, Debug)]
pub(super) enum Material {
    /// Generated trades, so many per path.
    Trades { first: u64, count: Option<u64> },
    /// The lines of a file, again from its beginning when `repeat`.
    Lines { content: Arc<[u8]>, repeat: bool },
}

/// How far a path's stream has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStats {
    /// The request path.
    pub path: String,
    /// Messages handed to its connections.
    pub sent: u64,
    /// Connections accepted.
    pub connections: u64,
}

/// All paths' streams.
#[derive(Debug)]
pub(super) struct Streams {
    material: Material,
    by_path: Mutex<BTreeMap<String, Arc<Mutex<Stream>>>>,
}

impl Streams {
    pub(super) fn new(material: Material) -> Self {
        Self {
            material,
            by_path: Mutex::default(),
        }
    }

    /// The stream of this path, for one more connection; it begins with the first. `None` when there are too many paths.
    pub(super) fn connect(&self, path: &str) -> Option<Arc<Mutex<Stream>>> {
        let mut by_path = locked(&self.by_path);
        if !by_path.contains_key(path) && by_path.len() >= MAX_PATHS {
            return None;
        }
        let stream = by_path
            .entry(path.to_owned())
            .or_insert_with(|| Arc::new(Mutex::new(Stream::new(&self.material, path))));
        locked(stream).connections += 1;
        Some(Arc::clone(stream))
    }

    /// How far every path has come, in order of path.
    pub(super) fn stats(&self) -> Vec<PathStats> {
        locked(&self.by_path)
            .iter()
            .map(|(path, stream)| {
                let stream = locked(stream);
                PathStats {
                    path: path.clone(),
                    sent: stream.sent,
                    connections: stream.connections,
                }
            })
            .collect()
    }
}

/// Locks; a stream is whole between any two messages, so what a panicking thread left is still good.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stream of one path.
#[derive(Debug)]
pub(super) struct Stream {
    player: Player,
    sent: u64,
    connections: u64,
}

#[derive(Debug)]
enum Player {
    Trades {
        trades: Trades,
        first: u64,
        count: Option<u64>,
        /// The trade being written, kept for its buffer.
        payload: Vec<u8>,
    },
    Lines {
        content: Arc<[u8]>,
        repeat: bool,
        /// Where the next line begins.
        position: usize,
    },
}

impl Stream {
    fn new(material: &Material, path: &str) -> Self {
        let player = match material {
            Material::Trades { first, count } => Player::Trades {
                trades: Trades::of(exchange(path)),
                first: *first,
                count: *count,
                payload: Vec::new(),
            },
            Material::Lines { content, repeat } => Player::Lines {
                content: Arc::clone(content),
                repeat: *repeat,
                position: 0,
            },
        };
        Self {
            player,
            sent: 0,
            connections: 0,
        }
    }

    /// Appends the frames of the next messages to `out`, at most `max_messages`, until there are `max_bytes`. They count as
    /// sent. Returns how many there are.
    pub(super) fn render(&mut self, out: &mut Vec<u8>, max_messages: u64, max_bytes: usize) -> u64 {
        let timestamp_ms = now_ms();
        let mut messages = 0;
        while messages < max_messages && out.len() < max_bytes && !self.is_exhausted() {
            match &mut self.player {
                Player::Trades {
                    trades,
                    first,
                    payload,
                    ..
                } => {
                    trades.write(first.saturating_add(self.sent), timestamp_ms, payload);
                    push_message(out, Kind::Text, payload);
                }
                Player::Lines {
                    content, position, ..
                } => {
                    if *position >= content.len() {
                        *position = 0;
                    }
                    let rest = &content[*position..];
                    let end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
                    let line = &rest[..end];
                    // A text message must be UTF-8; other lines can only go as binary ones.
                    let kind = if std::str::from_utf8(line).is_ok() {
                        Kind::Text
                    } else {
                        Kind::Binary
                    };
                    push_message(out, kind, line);
                    *position += end + 1;
                }
            }
            self.sent += 1;
            messages += 1;
        }
        messages
    }

    /// Whether no message will come any more.
    pub(super) fn is_exhausted(&self) -> bool {
        match &self.player {
            Player::Trades { count, .. } => count.is_some_and(|count| self.sent >= count),
            Player::Lines {
                content,
                repeat,
                position,
            } => content.is_empty() || (!repeat && *position >= content.len()),
        }
    }
}

/// The exchange whose trades a path plays: its last segment.
fn exchange(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ => "feed",
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_is_the_last_segment_of_the_path() {
        for (path, name) in [
            ("/trades/binance", "binance"),
            ("/x/", "x"),
            ("/", "feed"),
            ("", "feed"),
        ] {
            assert_eq!(exchange(path), name, "{path}");
        }
    }

    #[test]
    fn paths_beyond_the_limit_are_refused_and_known_ones_go_on() {
        let streams = Streams::new(Material::Trades {
            first: 0,
            count: None,
        });
        for number in 0..MAX_PATHS {
            assert!(streams.connect(&format!("/{number}")).is_some());
        }
        assert!(streams.connect("/one-more").is_none());
        assert!(streams.connect("/0").is_some());
        assert_eq!(streams.stats().len(), MAX_PATHS);
    }
}
