//! Fields of a message, little-endian, one after the other.

use crate::error::{Invalid, Mismatch, Result};

/// Takes fields off the front of a message.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        match self.0.split_first_chunk::<N>() {
            Some((value, rest)) => {
                self.0 = rest;
                Ok(*value)
            }
            None => Err(cut_off(field, N, self.0.len())),
        }
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32> {
        self.array(field).map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// One byte that is 0 or 1.
    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool> {
        match self.array(field)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Invalid::new(field, format!("is {other}, neither 0 nor 1")).into()),
        }
    }

    /// Bytes that are kept for a later version and are 0 in this one.
    pub(crate) fn reserved<const N: usize>(&mut self, field: &'static str) -> Result<()> {
        match self.array(field)? {
            bytes if bytes == [0; N] => Ok(()),
            bytes => Err(Mismatch::new(field, "0", format!("{bytes:02x?}"))
                .help("reserved bytes are 0 in this version")
                .into()),
        }
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, field: &'static str, count: usize) -> Result<&'a [u8]> {
        match self.0.split_at_checked(count) {
            Some((value, rest)) => {
                self.0 = rest;
                Ok(value)
            }
            None => Err(cut_off(field, count, self.0.len())),
        }
    }

    /// Refuses what is left.
    pub(crate) fn end(self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(Invalid::new("body", format!("has {more} bytes behind its last field"))
                .help("header.body_length counts the body's fields and nothing else")
                .into()),
        }
    }
}

fn cut_off(field: &'static str, wanted: usize, left: usize) -> crate::error::Error {
    Invalid::new(field, format!("is cut off: {left} of its {wanted} bytes are there"))
        .help("header.body_length is the length of the whole body")
        .into()
}
