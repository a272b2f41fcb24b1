//! Messages: everything that is sent except the descriptors.

use super::fields::{Reader, Writer};
use super::header::{HEADER_LEN, Header, Kind};
use super::payload;
use super::session::{self, FrameToken, LeaveReason, ReleaseToken, RingInfo};
use crate::desc::{BufferDesc, ImageDesc};
use crate::error::{Invalid, Result};
use crate::payload::{LinearLayout, MemoryInfo, SemaphoreInfo};

/// A message: a payload without its descriptor, or one of a session's messages.
///
/// Decoding checks the format: each field has a value of this version, and no byte is missing or left
/// over. The constructor of the payload checks whether the description is valid.
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
    /// [`MAX_MESSAGE`](super::MAX_MESSAGE).
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
                payload::write_linear(&mut body, linear.as_ref());
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
            let problem = format!("is cut off: {} of its {HEADER_LEN} bytes", bytes.len());
            return Err(Invalid::new("header", problem).into());
        };
        Self::decode_body(&Header::decode(header)?, body)
    }

    /// Reads the body that follows `header`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) or [`Error::Mismatch`](crate::Error::Mismatch) that
    /// names the field (`body.handle_type`): a value that this version does not know, a reserved byte
    /// that is not 0, a text that is not UTF-8, or a body that is too short or too long.
    pub fn decode_body(header: &Header, body: &[u8]) -> Result<Self> {
        if header.body_len as usize != body.len() {
            let problem = format!("is {}, but the body has {} bytes", header.body_len, body.len());
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
            Kind::Image => Self::Image {
                memory: payload::read_memory(&mut fields)?,
                offset: fields.u64("body.offset")?,
                desc: payload::read_image(&mut fields)?,
                linear: payload::read_linear(&mut fields)?,
            },
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
