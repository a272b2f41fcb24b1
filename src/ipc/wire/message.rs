//! Messages, with their header: everything that is sent except the descriptors.

use super::fields::{Reader, Writer};
use super::payload;
use super::session::{self, FrameToken, LeaveReason, ReleaseToken, RingInfo};
use crate::desc::{BufferDesc, ImageDesc};
use crate::error::{Invalid, Mismatch, Result, counted};
use crate::payload::{LinearLayout, MemoryInfo, SemaphoreInfo};

/// A message: a payload without its descriptor, or one of a session's messages.
///
/// Decoding checks the format: each field has a value of this version, and no byte is missing or
/// left over. The constructor of the payload checks whether the description is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// A [`MemoryPayload`](crate::MemoryPayload).
    Memory(MemoryInfo),
    /// A [`BufferPayload`](crate::BufferPayload).
    Buffer {
        /// The allocation.
        memory: MemoryInfo,
        /// Offset of the buffer in the allocation, in bytes.
        offset: u64,
        /// The buffer's description.
        desc: BufferDesc,
    },
    /// An [`ImagePayload`](crate::ImagePayload).
    Image {
        /// The allocation.
        memory: MemoryInfo,
        /// Offset of the image in the allocation, in bytes.
        offset: u64,
        /// The image's description.
        desc: ImageDesc,
        /// Offset and pitches of a linear image, if the exporter provided them.
        linear: Option<LinearLayout>,
    },
    /// A [`SemaphorePayload`](crate::SemaphorePayload).
    Semaphore(SemaphoreInfo),
    /// A consumer asks to join a session.
    Join {
        /// The consumer's name, for people to read.
        name: String,
    },
    /// A producer announces its ring, whose payloads follow.
    Ring(RingInfo),
    /// A consumer has the ring and is ready for frames.
    Ready,
    /// A producer publishes a frame in a slot.
    Frame(FrameToken),
    /// A consumer releases a slot.
    Release(ReleaseToken),
    /// Either side ends the session.
    Leave(LeaveReason),
}

impl Message {
    /// Returns the kind of the message.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Memory(_) => Kind::Memory,
            Self::Buffer { .. } => Kind::Buffer,
            Self::Image { .. } => Kind::Image,
            Self::Semaphore(_) => Kind::Semaphore,
            Self::Join { .. } => Kind::Join,
            Self::Ring(_) => Kind::Ring,
            Self::Ready => Kind::Ready,
            Self::Frame(_) => Kind::Frame,
            Self::Release(_) => Kind::Release,
            Self::Leave(_) => Kind::Leave,
        }
    }

    /// Returns the bytes of the message, header and body: always fewer than
    /// [`MAX_MESSAGE`].
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        match self {
            Self::Memory(memory) => payload::write_memory(&mut body, memory),
            Self::Buffer { memory, offset, desc } => {
                payload::write_memory(&mut body, memory);
                body.u64(*offset);
                payload::write_buffer(&mut body, desc);
            }
            Self::Image { memory, offset, desc, linear } => {
                payload::write_memory(&mut body, memory);
                body.u64(*offset);
                payload::write_image(&mut body, desc);
                payload::write_linear(&mut body, desc, linear.as_ref());
            }
            Self::Semaphore(semaphore) => payload::write_semaphore(&mut body, semaphore),
            Self::Join { name } => session::write_join(&mut body, name),
            Self::Ring(ring) => session::write_ring(&mut body, ring),
            Self::Ready => {}
            Self::Frame(frame) => session::write_frame(&mut body, frame),
            Self::Release(release) => session::write_release(&mut body, release),
            Self::Leave(reason) => session::write_leave(&mut body, *reason),
        }
        let body = body.finish();
        // The longest body is a ring's, with 20 + 2 MAX_NAME bytes, so the length fits.
        let header = Header { kind: self.kind(), body_len: body.len() as u32 };
        [&header.encode()[..], &body].concat()
    }

    /// Reads one whole message.
    ///
    /// # Errors
    /// The errors of [`Header::decode`] and [`Message::decode_body`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            let problem = format!("is cut off: it has {} of {HEADER_LEN} bytes", bytes.len());
            return Err(Invalid::new("header", problem).into());
        };
        Self::decode_body(&Header::decode(header)?, body)
    }

    /// Reads the body that follows `header`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) or [`Error::Mismatch`](crate::Error::Mismatch)
    /// that names the field (`body.handle_type`): a value that this version does not know, a
    /// reserved byte that is not 0, a text that is not UTF-8, or a body that is too short or too
    /// long.
    pub fn decode_body(header: &Header, body: &[u8]) -> Result<Self> {
        if header.body_len as usize != body.len() {
            let problem =
                format!("is {}, but the body has {}", header.body_len, counted(body.len(), "byte"));
            return Err(Invalid::new("header.body_length", problem).into());
        }
        let mut fields = Reader::new(body, header.kind.fixed_len());
        let message = match header.kind {
            Kind::Memory => Self::Memory(payload::read_memory(&mut fields)?),
            Kind::Buffer => Self::Buffer {
                memory: payload::read_memory(&mut fields)?,
                offset: fields.u64("body.offset")?,
                desc: payload::read_buffer(&mut fields)?,
            },
            Kind::Image => {
                let memory = payload::read_memory(&mut fields)?;
                let offset = fields.u64("body.offset")?;
                let mut desc = payload::read_image(&mut fields)?;
                let linear = payload::read_linear(&mut fields, &mut desc)?;
                Self::Image { memory, offset, desc, linear }
            }
            Kind::Semaphore => Self::Semaphore(payload::read_semaphore(&mut fields)?),
            Kind::Join => Self::Join { name: session::read_join(&mut fields)? },
            Kind::Ring => Self::Ring(session::read_ring(&mut fields)?),
            Kind::Ready => Self::Ready,
            Kind::Frame => Self::Frame(session::read_frame(&mut fields)?),
            Kind::Release => Self::Release(session::read_release(&mut fields)?),
            Kind::Leave => Self::Leave(session::read_leave(&mut fields)?),
        };
        fields.end()?;
        Ok(message)
    }
}

/// The first four bytes of every message: ASCII `GIPC`.
pub const MAGIC: [u8; 4] = *b"GIPC";

/// The version of the format that this crate writes, and the only one that it reads.
pub const VERSION: u16 = 1;

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 16;

/// Maximum length of a message in bytes, including the header. No larger allocation is made for a
/// message.
pub const MAX_MESSAGE: usize = 4096;

const MAX_BODY: u32 = (MAX_MESSAGE - HEADER_LEN) as u32;

macro_rules! kinds {
    ($(
        $(#[$doc:meta])*
        $name:ident = $number:literal, $text:literal, $bytes:literal bytes, $descriptors:literal fd;
    )*) => {
        /// The kind of a message. Its discriminant is its number on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum Kind { $( $(#[$doc])* $name = $number, )* }

        impl Kind {
            /// All kinds of this version.
            pub const ALL: &'static [Kind] = &[ $( Kind::$name, )* ];

            /// Returns the kind as it appears in errors, with its article ("a frame").
            pub const fn name(self) -> &'static str {
                match self { $( Kind::$name => $text, )* }
            }

            /// Returns how many file descriptors accompany a message of this kind.
            pub const fn descriptors(self) -> u16 {
                match self { $( Kind::$name => $descriptors, )* }
            }

            /// Returns the length of the body without its texts and appendix, in bytes.
            pub(super) const fn fixed_len(self) -> usize {
                match self { $( Kind::$name => $bytes, )* }
            }
        }
    };
}

kinds! {
    /// A [`MemoryPayload`](crate::MemoryPayload).
    Memory = 1, "a memory payload", 56 bytes, 1 fd;
    /// A [`BufferPayload`](crate::BufferPayload).
    Buffer = 2, "a buffer payload", 80 bytes, 1 fd;
    /// An [`ImagePayload`](crate::ImagePayload).
    Image = 3, "an image payload", 144 bytes, 1 fd;
    /// A [`SemaphorePayload`](crate::SemaphorePayload).
    Semaphore = 4, "a semaphore payload", 48 bytes, 1 fd;
    /// A consumer asks to join a session.
    Join = 16, "a request to join", 4 bytes, 0 fd;
    /// A producer announces its ring, whose payloads follow.
    Ring = 17, "a ring", 20 bytes, 0 fd;
    /// A consumer is ready for frames.
    Ready = 18, "a ready message", 0 bytes, 0 fd;
    /// A producer publishes a frame in a slot.
    Frame = 19, "a frame", 56 bytes, 0 fd;
    /// A consumer releases a slot.
    Release = 20, "a release", 16 bytes, 0 fd;
    /// Either side ends the session.
    Leave = 21, "a leave message", 4 bytes, 0 fd;
}

impl Kind {
    /// Returns the number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Returns the kind with this number on the wire, or `None` if this version has no such kind.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.number() == number)
    }
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The kind of the message.
    pub kind: Kind,
    /// Bytes that follow the header.
    pub body_len: u32,
}

impl Header {
    /// Returns the length of the whole message in bytes. It is at most [`MAX_MESSAGE`] if the
    /// header was decoded.
    pub const fn message_len(&self) -> usize {
        HEADER_LEN.saturating_add(self.body_len as usize)
    }

    /// Returns the 16 bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.kind.number().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.kind.descriptors().to_le_bytes());
        bytes
    }

    /// Reads the 16 bytes of a header.
    ///
    /// # Errors
    /// Each error names the field (`header.version`).
    /// - [`Error::Mismatch`](crate::Error::Mismatch): another magic or version, a number of
    ///   descriptors that the kind does not have, or reserved bytes that are not 0.
    /// - [`Error::Invalid`](crate::Error::Invalid): an unknown kind, or a body that is too long.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        let mut fields = Reader::new(bytes, HEADER_LEN);
        let magic: [u8; 4] = fields.array("header.magic")?;
        if magic != MAGIC {
            let found = format!("{magic:02x?}");
            return Err(Mismatch::new("header.magic", format!("{MAGIC:02x?}"), found)
                .help("the peer uses another protocol, or bytes of the stream were lost")
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
            return Err(Invalid::new("header.kind", format!("{number} is not a kind of message"))
                .help("the peer may use a newer release")
                .into());
        };
        let body_len = fields.u32("header.body_length")?;
        if body_len > MAX_BODY {
            let problem = format!("is {body_len}, but a body has at most {MAX_BODY} bytes");
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
