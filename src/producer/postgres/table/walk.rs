//! Stepping through JSON text, and checking it on the way: its grammar, its depth, and what PostgreSQL could never take.
//!
//! It keeps nothing but its position and two flags; what is found where is left to [`record`](super::record).

use std::ops::Range;

use super::encode::Decimal;

/// Objects and arrays inside each other, the message itself included. PostgreSQL and most readers have a like limit.
const MAX_DEPTH: u32 = 128;
/// A number without exponent that is no longer than this is within `numeric` for certain.
const PLAIN_NUMBER_BYTES: usize = 16_000;

/// Why a message can never become a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejection {
    #[error("the message is empty")]
    Empty,
    #[error("the message is longer than 4 GiB")]
    TooLong,
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    #[error("not JSON: {what} at byte {at}")]
    NotJson { what: &'static str, at: usize },
    #[error("a lone surrogate escape at byte {at}: PostgreSQL can't keep it as text")]
    LoneSurrogate { at: usize },
    #[error("objects and arrays nested deeper than {MAX_DEPTH} at byte {at}")]
    TooDeep { at: usize },
    #[error(
        "a number at byte {at} that PostgreSQL can't keep: over 131,072 digits before the point or 16,383 after it"
    )]
    HugeNumber { at: usize },
    #[error("a key that a path of the mapping goes through stands twice, again before byte {at}")]
    TwiceOnPath { at: usize },
    #[error("\\u0000 in the message, and the configuration says nul: dead_letter")]
    Nul,
}

/// What a JSON value is, as far as columns care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    /// A number without point and exponent, of any size.
    Integer,
    /// A number with a point or an exponent.
    Fraction,
    String,
    /// An object or an array.
    Nested,
}

/// A position in the text, and what was seen since the flags were last reset.
pub(super) struct Walk<'m> {
    bytes: &'m [u8],
    pub(super) at: usize,
    pub(super) nul: bool,
    pub(super) escaped: bool,
    /// Whether a `\u0000` was seen anywhere, keys included; never reset.
    pub(super) any_nul: bool,
}

/// Bytes that stand in a string for themselves.
static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

impl<'m> Walk<'m> {
    pub(super) fn new(bytes: &'m [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            nul: false,
            escaped: false,
            any_nul: false,
        }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[cold]
    pub(super) fn wrong(&self, what: &'static str) -> Box<Rejection> {
        Rejection::NotJson { what, at: self.at }.into()
    }

    /// Steps over space, and returns what comes then.
    pub(super) fn next(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                // Most messages have none.
                Some(byte) if byte > b' ' => return Some(byte),
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Checks that nothing but space is left.
    pub(super) fn finish(&mut self) -> Result<(), Box<Rejection>> {
        if self.next().is_some() {
            return Err(self.wrong("more after the end of the value"));
        }
        Ok(())
    }

    /// A position as it is stored; the length was checked to fit.
    pub(super) fn position(&self) -> u32 {
        self.at as u32
    }

    /// Reads an object at its brace; `member` is called at each key, and reads it and its value.
    pub(super) fn members(
        &mut self,
        depth: u32,
        mut member: impl FnMut(&mut Self) -> Result<(), Box<Rejection>>,
    ) -> Result<(), Box<Rejection>> {
        if self.deeper(depth)? == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            member(self)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.wrong("expected , or }")),
            }
            self.next();
        }
    }

    /// Reads a key and its colon, and returns where the key stands between its quotes.
    pub(super) fn key(&mut self) -> Result<Range<u32>, Box<Rejection>> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("expected a key in quotes"));
        }
        let start = self.position() + 1;
        self.string()?;
        let key = start..self.position() - 1;
        if self.next() != Some(b':') {
            return Err(self.wrong("expected :"));
        }
        self.at += 1;
        Ok(key)
    }

    /// Steps over this text, if it stands here.
    pub(super) fn take(&mut self, text: &[u8]) -> bool {
        let is_here = self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(text));
        if is_here {
            self.at += text.len();
        }
        is_here
    }

    /// What stands in a part of the text.
    pub(super) fn text(&self, span: &Range<u32>) -> &'m [u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// Steps over an opening bracket and the space after it, and returns what comes then.
    fn deeper(&mut self, depth: u32) -> Result<Option<u8>, Box<Rejection>> {
        if depth > MAX_DEPTH {
            return Err(Rejection::TooDeep { at: self.at }.into());
        }
        self.at += 1;
        Ok(self.next())
    }

    /// Reads a value that lies inside `depth` objects and arrays, and notes in the flags what stands in it.
    pub(super) fn flagged_value(&mut self, depth: u32) -> Result<Kind, Box<Rejection>> {
        (self.nul, self.escaped) = (false, false);
        self.value(depth)
    }

    /// Reads a value that lies inside `depth` objects and arrays. The recursion ends at [`MAX_DEPTH`].
    pub(super) fn value(&mut self, depth: u32) -> Result<Kind, Box<Rejection>> {
        match self.peek() {
            Some(b'"') => self.string().map(|()| Kind::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => {
                self.members(depth + 1, |walk| {
                    walk.key()?;
                    walk.next();
                    walk.value(depth + 1).map(drop)
                })?;
                Ok(Kind::Nested)
            }
            Some(b'[') => {
                self.elements(depth + 1, |walk, _| walk.value(depth + 1).map(drop))?;
                Ok(Kind::Nested)
            }
            Some(b't') => self.word(b"true", Kind::Bool),
            Some(b'f') => self.word(b"false", Kind::Bool),
            Some(b'n') => self.word(b"null", Kind::Null),
            Some(_) => Err(self.wrong("expected a value")),
            None => Err(self.wrong("the end where a value was expected")),
        }
    }

    /// Reads an array at its bracket; `element` is called at each element with its number.
    pub(super) fn elements(
        &mut self,
        depth: u32,
        mut element: impl FnMut(&mut Self, u32) -> Result<(), Box<Rejection>>,
    ) -> Result<(), Box<Rejection>> {
        if self.deeper(depth)? == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        for number in 0.. {
            element(self, number)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.wrong("expected , or ]")),
            }
            self.next();
        }
        // An array has fewer elements than 2^32, for no message has more bytes.
        Ok(())
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<Kind, Box<Rejection>> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.wrong("expected a value"));
        }
        self.at += word.len();
        Ok(kind)
    }

    fn string(&mut self) -> Result<(), Box<Rejection>> {
        self.at += 1;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(plain) = rest.iter().position(|&byte| !PLAIN[usize::from(byte)]) else {
                self.at = self.bytes.len();
                return Err(self.wrong("a string without end"));
            };
            self.at += plain;
            match rest[plain] {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ => return Err(self.wrong("a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Box<Rejection>> {
        self.escaped = true;
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let begin = self.at;
                match self.unit()? {
                    0 => (self.nul, self.any_nul) = (true, true),
                    0xD800..=0xDBFF => {
                        let low = self.bytes[self.at..].starts_with(b"\\u") && {
                            matches!(self.unit()?, 0xDC00..=0xDFFF)
                        };
                        if !low {
                            return Err(Rejection::LoneSurrogate { at: begin }.into());
                        }
                    }
                    0xDC00..=0xDFFF => return Err(Rejection::LoneSurrogate { at: begin }.into()),
                    _ => {}
                }
            }
            _ => return Err(self.wrong("an unknown escape")),
        }
        Ok(())
    }

    /// Steps over a `\uXXXX` and returns its number.
    fn unit(&mut self) -> Result<u32, Box<Rejection>> {
        let digits = self.bytes.get(self.at + 2..self.at + 6);
        let unit = digits.and_then(|digits| {
            digits.iter().try_fold(0, |unit, &digit| {
                Some(unit << 4 | char::from(digit).to_digit(16)?)
            })
        });
        let unit = unit.ok_or_else(|| self.wrong("\\u without four hexadecimal digits"))?;
        self.at += 6;
        Ok(unit)
    }

    fn number(&mut self) -> Result<Kind, Box<Rejection>> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut kind = Kind::Integer;
        let mut exponent = false;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
            kind = Kind::Fraction;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
            kind = Kind::Fraction;
            exponent = true;
        }
        if exponent || self.at - start > PLAIN_NUMBER_BYTES {
            let text = std::str::from_utf8(&self.bytes[start..self.at]).ok();
            if !text
                .and_then(Decimal::parse)
                .is_some_and(|decimal| decimal.is_storable())
            {
                return Err(Rejection::HugeNumber { at: start }.into());
            }
        }
        Ok(kind)
    }

    fn digits(&mut self) -> Result<(), Box<Rejection>> {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.wrong("expected a digit"));
        }
        self.at += count;
        Ok(())
    }
}
