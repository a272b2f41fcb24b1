//! What every message begins with.

use super::fields::Fields;
use crate::error::{Invalid, Mismatch, Result};

/// What every message begins with: ASCII `GIPC`.
pub const MAGIC: [u8; 4] = *b"GIPC";

/// The version of the format that this crate writes, and the only one it reads.
pub const VERSION: u16 = 1;

/// Bytes of a header.
pub const HEADER_LEN: usize = 16;

/// Bytes of a message at most, with its header. Nothing larger is ever allocated for one.
pub const MAX_MESSAGE: usize = 4096;

const MAX_BODY: u32 = (MAX_MESSAGE - HEADER_LEN) as u32;

macro_rules! kinds {
    ($( $(#[$doc:meta])* $name:ident = $number:literal $text:literal, $descriptors:literal fd; )*) => {
        /// What a message is. Its number is the one on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum Kind { $( $(#[$doc])* $name = $number, )* }

        impl Kind {
            /// Every kind that this version knows.
            pub const ALL: &'static [Kind] = &[ $( Kind::$name, )* ];

            /// What the kind is called.
            pub const fn name(self) -> &'static str {
                match self { $( Kind::$name => $text, )* }
            }

            /// How many file descriptors ride on a message of this kind.
            pub const fn descriptors(self) -> u16 {
                match self { $( Kind::$name => $descriptors, )* }
            }
        }
    };
}

kinds! {
    /// A [`MemoryPayload`](crate::MemoryPayload).
    Memory = 1 "a memory payload", 1 fd;
    /// A [`BufferPayload`](crate::BufferPayload).
    Buffer = 2 "a buffer payload", 1 fd;
    /// An [`ImagePayload`](crate::ImagePayload).
    Image = 3 "an image payload", 1 fd;
    /// A [`SemaphorePayload`](crate::SemaphorePayload).
    Semaphore = 4 "a semaphore payload", 1 fd;
    /// A consumer asks to join a session.
    Join = 16 "a request to join", 0 fd;
    /// A producer announces its ring, whose payloads follow.
    Ring = 17 "a ring", 0 fd;
    /// A consumer is ready for frames.
    Ready = 18 "a word of readiness", 0 fd;
    /// A producer hands a slot over.
    Frame = 19 "a frame", 0 fd;
    /// A consumer gives a slot back.
    Release = 20 "a release", 0 fd;
    /// Either side ends the session.
    Leave = 21 "a leave", 0 fd;
}

impl Kind {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The kind of a number on the wire, if this version knows it.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.number() == number)
    }
}

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the message is.
    pub kind: Kind,
    /// Bytes that follow the header.
    pub body_len: u32,
}

impl Header {
    /// Bytes of the whole message: at most [`MAX_MESSAGE`] for a header that was decoded.
    pub const fn message_len(&self) -> usize {
        HEADER_LEN.saturating_add(self.body_len as usize)
    }

    /// The 16 bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.kind.number().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.kind.descriptors().to_le_bytes());
        bytes
    }

    /// Reads the 16 bytes.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) for another magic, version or number of
    /// descriptors, [`Error::Invalid`](crate::Error::Invalid) for an unknown kind and for a body that
    /// is too long; each names the field (`header.version`).
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        let magic: [u8; 4] = fields.array("header.magic")?;
        if magic != MAGIC {
            let found = format!("{magic:02x?}");
            return Err(Mismatch::new("header.magic", format!("{MAGIC:02x?}"), found)
                .help("the peer speaks another protocol, or the stream is out of step")
                .into());
        }
        let version = fields.u16("header.version")?;
        if version != VERSION {
            return Err(Mismatch::new("header.version", VERSION, version)
                .help("use the same version of the format on both sides")
                .into());
        }
        let number = fields.u16("header.kind")?;
        let Some(kind) = Kind::from_number(number) else {
            return Err(Invalid::new("header.kind", format!("{number} is no kind of message"))
                .help("the peer may use a newer release")
                .into());
        };
        let body_len = fields.u32("header.body_length")?;
        if body_len > MAX_BODY {
            let problem = format!("{body_len} bytes are more than a message's {MAX_BODY}");
            return Err(Invalid::new("header.body_length", problem).into());
        }
        let descriptors = fields.u16("header.descriptors")?;
        if descriptors != kind.descriptors() {
            return Err(Mismatch::new("header.descriptors", kind.descriptors(), descriptors)
                .help(format!("{} has a fixed number of descriptors", kind.name()))
                .into());
        }
        fields.reserved::<2>("header.reserved")?;
        fields.end()?;
        Ok(Self { kind, body_len })
    }
}
