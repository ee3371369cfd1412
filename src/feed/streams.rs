//! The streams that a feed plays: one per request path, each with a place of its own that outlives connections.
//!
//! In a broadcast the place follows from the clock: each connection gets a copy of the stream at the place that is due when it
//! connects, and plays it by the stream's clock, so that all connections get the same messages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::frame::{Kind, push_message};
use super::pace::Pace;
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
    /// Messages a second of each path, when all its connections are to get the same.
    broadcast: Option<u64>,
    by_path: Mutex<BTreeMap<String, PathStream>>,
}

/// What is kept for a path.
#[derive(Debug)]
struct PathStream {
    /// What its connections share; in a broadcast, the stream at its beginning.
    stream: Arc<Mutex<Stream>>,
    since: Instant,
    connections: u64,
}

/// A connection's way through its path's stream.
pub(super) struct Seat {
    pub(super) stream: Arc<Mutex<Stream>>,
    /// The stream's own pace, in a broadcast.
    pub(super) pace: Option<Pace>,
}

impl Streams {
    pub(super) fn new(material: Material, broadcast: Option<u64>) -> Self {
        Self {
            material,
            broadcast,
            by_path: Mutex::default(),
        }
    }

    /// The stream of this path, for one more connection; it begins with the first. `None` when there are too many paths.
    pub(super) fn connect(&self, path: &str, now: Instant) -> Option<Seat> {
        let mut by_path = locked(&self.by_path);
        if !by_path.contains_key(path) && by_path.len() >= MAX_PATHS {
            return None;
        }
        let of_path = by_path.entry(path.to_owned()).or_insert_with(|| PathStream {
            stream: Arc::new(Mutex::new(Stream::new(&self.material, path, self.broadcast))),
            since: now,
            connections: 0,
        });
        of_path.connections += 1;
        let Some(rate) = self.broadcast else {
            return Some(Seat {
                stream: Arc::clone(&of_path.stream),
                pace: None,
            });
        };
        let due = Pace::live(rate, of_path.since, 0).due(now);
        let mut stream = locked(&of_path.stream).clone();
        stream.skip(due);
        Some(Seat {
            stream: Arc::new(Mutex::new(stream)),
            pace: Some(Pace::live(rate, of_path.since, due)),
        })
    }

    /// How far every path has come, in order of path.
    pub(super) fn stats(&self) -> Vec<PathStats> {
        locked(&self.by_path)
            .iter()
            .map(|(path, of_path)| PathStats {
                path: path.clone(),
                sent: locked(&of_path.stream).handed.load(Ordering::Relaxed),
                connections: of_path.connections,
            })
            .collect()
    }
}

/// Locks; a stream is whole between any two messages, so what a panicking thread left is still good.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stream of one path, or of one connection of a broadcast.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    player: Player,
    /// The number of the next message, from 0.
    sent: u64,
    /// Messages handed to all connections of the path.
    handed: Arc<AtomicU64>,
    clock: Clock,
}

/// What time a message tells.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// The time at which it is sent.
    Sent,
    /// The time at which it is due, so that it is the same for all.
    Due { since_ms: u64, per_second: u64 },
}

#[derive(Clone, Debug)]
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
    fn new(material: &Material, path: &str, broadcast: Option<u64>) -> Self {
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
            handed: Arc::default(),
            clock: match broadcast {
                None => Clock::Sent,
                Some(per_second) => Clock::Due {
                    since_ms: now_ms(),
                    per_second: per_second.max(1),
                },
            },
        }
    }

    /// Steps over the first `messages`, of a stream that is at its beginning.
    fn skip(&mut self, messages: u64) {
        match &mut self.player {
            Player::Trades { count, .. } => self.sent = messages.min(count.unwrap_or(u64::MAX)),
            Player::Lines {
                content,
                repeat,
                position,
            } => {
                let ends = || content.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
                let unended = u64::from(content.last().is_some_and(|byte| *byte != b'\n'));
                let lines = ends().count() as u64 + unended;
                let left = if *repeat && lines > 0 {
                    messages % lines
                } else {
                    messages.min(lines)
                };
                *position = match usize::try_from(left).ok().and_then(|left| left.checked_sub(1)) {
                    None => 0,
                    Some(before) => ends().nth(before).map_or(content.len(), |(at, _)| at + 1),
                };
                self.sent = if *repeat { messages } else { left };
            }
        }
    }

    /// What a message that is rendered now tells as its time.
    fn timestamp_ms(&self, now_ms: u64) -> u64 {
        match self.clock {
            Clock::Sent => now_ms,
            Clock::Due { since_ms, per_second } => {
                let after = u128::from(self.sent) * 1_000 / u128::from(per_second);
                since_ms.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
            }
        }
    }

    /// Appends the frames of the next messages to `out`, at most `max_messages`, until there are `max_bytes`. They count as
    /// sent. Returns how many there are.
    pub(super) fn render(&mut self, out: &mut Vec<u8>, max_messages: u64, max_bytes: usize) -> u64 {
        let now_ms = now_ms();
        let mut messages = 0;
        while messages < max_messages && out.len() < max_bytes && !self.is_exhausted() {
            let timestamp_ms = self.timestamp_ms(now_ms);
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
        self.handed.fetch_add(messages, Ordering::Relaxed);
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
        let streams = Streams::new(
            Material::Trades {
                first: 0,
                count: None,
            },
            None,
        );
        let now = Instant::now();
        for number in 0..MAX_PATHS {
            assert!(streams.connect(&format!("/{number}"), now).is_some());
        }
        assert!(streams.connect("/one-more", now).is_none());
        assert!(streams.connect("/0", now).is_some());
        assert_eq!(streams.stats().len(), MAX_PATHS);
    }
    #[test]
    fn a_place_in_a_broadcast_file_is_found_by_counting_its_lines() {
        for (repeat, skipped, next) in [
            (false, 0, "a"),
            (false, 2, "c"),
            (false, 3, ""),
            (false, 9, ""),
            (true, 3, "a"),
            (true, 5, "c"),
        ] {
            for content in ["a\nb\nc", "a\nb\nc\n"] {
                let material = Material::Lines {
                    content: content.as_bytes().into(),
                    repeat,
                };
                let mut stream = Stream::new(&material, "/", Some(1));
                stream.skip(skipped);
                let mut frames = Vec::new();
                stream.render(&mut frames, 1, usize::MAX);
                assert_eq!(
                    frames.get(2..).unwrap_or_default(),
                    next.as_bytes(),
                    "{skipped} of {content:?}"
                );
            }
        }
    }
}
