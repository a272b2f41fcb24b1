//! The fields of a message, written and read one after the other.
//!
//! A body is a part of fixed length, then its texts, then an appendix. The length of each text is a
//! field of the fixed part; the texts follow in the order of their lengths. Which fields the
//! appendix has is in the fixed part, too.

use std::ops::RangeInclusive;

use crate::error::{Error, Invalid, Mismatch, Result, counted};

/// Maximum length of a text in bytes: the name of a device, a ring or a consumer, or a ring's
/// format.
///
/// A longer text is cut at the end of a character, and control characters are sent as U+FFFD. Names
/// are for people to read; comparing devices ignores them.
pub const MAX_NAME: usize = 256;

/// A body that is being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    fixed: Vec<u8>,
    texts: String,
    /// Where the appendix begins in `fixed`, if it has begun.
    appendix: Option<usize>,
}

impl Writer {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.fixed.extend(bytes);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.fixed.push(u8::from(value));
    }

    pub(super) fn reserved<const N: usize>(&mut self) {
        self.bytes(&[0; N]);
    }

    /// Writes the length of `text` here, and the text at the end of the body.
    pub(super) fn text(&mut self, text: &str) {
        let start = self.texts.len();
        for c in text.chars() {
            let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
            if self.texts.len() + c.len_utf8() > start + MAX_NAME {
                break;
            }
            self.texts.push(c);
        }
        self.u32((self.texts.len() - start) as u32);
    }

    /// Ends the fixed part: what is written from here on follows the texts.
    pub(super) fn appendix(&mut self) {
        self.appendix = Some(self.fixed.len());
    }

    /// Returns the whole body.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let at = self.appendix.unwrap_or(self.fixed.len());
        self.fixed.splice(at..at, self.texts.into_bytes());
        self.fixed
    }
}

/// A header or a body that is being read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    fixed: &'a [u8],
    texts: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `bytes`, of which `fixed_len` are fields and the rest texts.
    pub(super) fn new(bytes: &'a [u8], fixed_len: usize) -> Self {
        let (fixed, texts) = bytes.split_at(fixed_len.min(bytes.len()));
        Self { fixed, texts }
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        match self.fixed.split_first_chunk::<N>() {
            Some((value, rest)) => {
                self.fixed = rest;
                Ok(*value)
            }
            None => Err(cut_off(field, N, self.fixed.len())),
        }
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32> {
        self.array(field).map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Reads one byte that is 0 or 1.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool> {
        match self.array(field)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Invalid::new(field, format!("is {other}, neither 0 nor 1")).into()),
        }
    }

    /// Reads bytes that are 0 in this version.
    pub(super) fn reserved<const N: usize>(&mut self, field: &'static str) -> Result<()> {
        match self.array(field)? {
            bytes if bytes == [0; N] => Ok(()),
            bytes => Err(Mismatch::new(field, "0", format!("{bytes:02x?}"))
                .help("reserved bytes are 0 in this version")
                .into()),
        }
    }

    /// Reads a value that is present if `present` is set and 0 otherwise.
    pub(super) fn optional<T: Default + PartialEq>(
        &mut self,
        field: &'static str,
        present: bool,
        read: impl FnOnce(&mut Self, &'static str) -> Result<T>,
    ) -> Result<Option<T>> {
        match read(self, field)? {
            value if present => Ok(Some(value)),
            value if value == T::default() => Ok(None),
            _ => Err(Invalid::new(field, "is not 0, but its flag marks it as absent").into()),
        }
    }

    /// Reads a number within `range`.
    pub(super) fn count(
        &mut self,
        field: &'static str,
        range: RangeInclusive<usize>,
    ) -> Result<u32> {
        let count = self.u32(field)?;
        if range.contains(&(count as usize)) {
            return Ok(count);
        }
        let problem = format!("is {count}, not {} to {}", range.start(), range.end());
        Err(Invalid::new(field, problem).into())
    }

    /// Reads one of `values`, which `number` converts to their numbers on the wire.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        field: &'static str,
        values: &[T],
        number: impl Fn(T) -> u32,
    ) -> Result<T> {
        let found = self.u32(field)?;
        let known = values.iter().copied().find(|value| number(*value) == found);
        known.ok_or_else(|| {
            Invalid::new(field, format!("{found:#x} is not a value of this version"))
                .help("the peer may use a newer release")
                .into()
        })
    }

    /// Reads the length of a text here, and the text at the end of the body.
    pub(super) fn text(&mut self, length: &'static str, field: &'static str) -> Result<String> {
        let len = self.u32(length)? as usize;
        if len > MAX_NAME {
            let problem = format!("is {len}, but a text has at most {MAX_NAME} bytes");
            return Err(Invalid::new(length, problem).into());
        }
        let Some((bytes, rest)) = self.texts.split_at_checked(len) else {
            return Err(cut_off(field, len, self.texts.len()));
        };
        self.texts = rest;
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Invalid::new(field, format!("is not UTF-8: {error}")))?;
        // Names appear in error messages and logs, where control characters would act on a
        // terminal.
        match text.chars().find(|c| c.is_control()) {
            None => Ok(text.to_owned()),
            Some(control) => {
                let problem = format!("has the control character {:#x}", u32::from(control));
                Err(Invalid::new(field, problem).into())
            }
        }
    }

    /// Ends the fixed part and the texts: what is read from here on follows them.
    pub(super) fn appendix(&mut self) {
        // All of the fixed part was read; otherwise its length in the table of kinds is wrong.
        debug_assert!(self.fixed.is_empty());
        self.fixed = std::mem::take(&mut self.texts);
    }

    /// Checks that nothing is left.
    pub(super) fn end(self) -> Result<()> {
        match self.fixed.len() + self.texts.len() {
            0 => Ok(()),
            more => Err(Invalid::new(
                "body",
                format!("has {} after its last field", counted(more, "byte")),
            )
            .help("header.body_length must be the length of the body's fields and texts")
            .into()),
        }
    }
}

fn cut_off(field: &'static str, expected: usize, found: usize) -> Error {
    Invalid::new(field, format!("is cut off: it has {found} of {}", counted(expected, "byte")))
        .help("header.body_length must be the length of the whole body")
        .into()
}
