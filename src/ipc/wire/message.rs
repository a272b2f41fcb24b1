//! Messages: what is sent of a payload, apart from its descriptor.

use super::fields::Fields;
use super::header::{HEADER_LEN, Header, Kind};
use super::resource;
use super::session::{self, FrameToken, LeaveReason, ReleaseToken, RingInfo};
use crate::desc::{BufferDesc, ImageDesc};
use crate::error::{Error, Invalid, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::identity::{Identity, Uuid};
use crate::payload::{LinearLayout, MemoryInfo, SemaphoreInfo, SemaphoreKind};

/// Bytes of a name at most: a device's, a ring's, a consumer's.
///
/// A longer one is cut where a character ends, and control characters are sent as U+FFFD: names are
/// for people, and a device's is no part of the same-device test.
pub const MAX_NAME: usize = 256;

/// Everything that is sent of a payload, apart from its descriptor, and what a session says.
///
/// Decoding checks the format: each field has a value that this version knows, and nothing is
/// missing or left over. Whether a description makes sense the payload's constructor checks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Of a [`MemoryPayload`](crate::MemoryPayload).
    Memory(MemoryInfo),
    /// Of a [`BufferPayload`](crate::BufferPayload).
    Buffer {
        /// The allocation.
        memory: MemoryInfo,
        /// Where in the allocation the buffer begins, in bytes.
        offset: u64,
        /// What the buffer is.
        desc: BufferDesc,
    },
    /// Of an [`ImagePayload`](crate::ImagePayload).
    Image {
        /// The allocation.
        memory: MemoryInfo,
        /// Where in the allocation the image begins, in bytes.
        offset: u64,
        /// What the image is.
        desc: ImageDesc,
        /// Where its rows lie, where it is linear and the exporter said so.
        linear: Option<LinearLayout>,
    },
    /// Of a [`SemaphorePayload`](crate::SemaphorePayload).
    Semaphore(SemaphoreInfo),
    /// A consumer asks to join a session.
    Join {
        /// What the consumer is called, for people only.
        name: String,
    },
    /// A producer's ring, whose payloads follow.
    Ring(RingInfo),
    /// A consumer has the ring and is ready for frames.
    Ready,
    /// A producer hands a slot over.
    Frame(FrameToken),
    /// A consumer gives a slot back.
    Release(ReleaseToken),
    /// Either side ends the session.
    Leave(LeaveReason),
}

impl Message {
    /// What the message is.
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

    /// The bytes of the message, header and body: always fewer than
    /// [`MAX_MESSAGE`](super::MAX_MESSAGE).
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let name = match self {
            Self::Memory(memory) => put_memory(&mut bytes, memory),
            Self::Buffer { memory, offset, desc } => {
                let name = put_memory(&mut bytes, memory);
                bytes.extend(offset.to_le_bytes());
                resource::put_buffer(&mut bytes, desc);
                name
            }
            Self::Image { memory, offset, desc, linear } => {
                let name = put_memory(&mut bytes, memory);
                bytes.extend(offset.to_le_bytes());
                resource::put_image(&mut bytes, desc);
                resource::put_linear(&mut bytes, linear.as_ref());
                name
            }
            Self::Semaphore(semaphore) => put_semaphore(&mut bytes, semaphore),
            Self::Join { name } => session::put_join(&mut bytes, name),
            Self::Ring(ring) => session::put_ring(&mut bytes, ring),
            Self::Ready => String::new(),
            Self::Frame(frame) => session::put_frame(&mut bytes, frame),
            Self::Release(release) => session::put_release(&mut bytes, release),
            Self::Leave(reason) => session::put_leave(&mut bytes, *reason),
        };
        bytes.extend(name.as_bytes());
        // The longest body has 20 + 2 MAX_NAME bytes, so the length fits.
        let body_len = (bytes.len() - HEADER_LEN) as u32;
        let header = Header { kind: self.kind(), body_len };
        bytes[..HEADER_LEN].copy_from_slice(&header.encode());
        bytes
    }

    /// Reads one whole message.
    ///
    /// # Errors
    /// As [`Header::decode`] and [`Message::decode_body`], and where `bytes` are not as long as the
    /// header says.
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
    /// [`Error::Invalid`] or [`Error::Mismatch`] that names the field (`body.handle_type`): a value
    /// that this version does not know, a reserved byte that is not 0, a name that is no UTF-8, a
    /// body that is too short or too long.
    pub fn decode_body(header: &Header, body: &[u8]) -> Result<Self> {
        if header.body_len as usize != body.len() {
            let problem = format!("is {}, but the body has {} bytes", header.body_len, body.len());
            return Err(Invalid::new("header.body_length", problem).into());
        }
        let mut fields = Fields::new(body);
        let message = match header.kind {
            Kind::Memory => {
                let (memory, name) = memory(&mut fields)?;
                Self::Memory(with_memory_name(memory, name, &mut fields)?)
            }
            Kind::Buffer => {
                let (memory, name) = memory(&mut fields)?;
                let offset = fields.u64("body.offset")?;
                let desc = resource::buffer(&mut fields)?;
                let memory = with_memory_name(memory, name, &mut fields)?;
                Self::Buffer { memory, offset, desc }
            }
            Kind::Image => {
                let (memory, name) = memory(&mut fields)?;
                let offset = fields.u64("body.offset")?;
                let desc = resource::image(&mut fields)?;
                let linear = resource::linear(&mut fields)?;
                let memory = with_memory_name(memory, name, &mut fields)?;
                Self::Image { memory, offset, desc, linear }
            }
            Kind::Semaphore => Self::Semaphore(semaphore(&mut fields)?),
            Kind::Join => Self::Join { name: session::join(&mut fields)? },
            Kind::Ring => Self::Ring(session::ring(&mut fields)?),
            Kind::Ready => Self::Ready,
            Kind::Frame => Self::Frame(session::frame(&mut fields)?),
            Kind::Release => Self::Release(session::release(&mut fields)?),
            Kind::Leave => Self::Leave(session::leave(&mut fields)?),
        };
        fields.end()?;
        Ok(message)
    }
}

const fn memory_handle_number(handle_type: MemoryHandleType) -> u32 {
    match handle_type {
        MemoryHandleType::OpaqueFd => 0x1,
        MemoryHandleType::DmaBuf => 0x200,
    }
}

const fn semaphore_handle_number(handle_type: SemaphoreHandleType) -> u32 {
    match handle_type {
        SemaphoreHandleType::OpaqueFd => 0x1,
        SemaphoreHandleType::SyncFd => 0x10,
    }
}

/// Writes the memory block; what comes back goes at the end of the body.
fn put_memory(bytes: &mut Vec<u8>, memory: &MemoryInfo) -> String {
    let MemoryInfo { handle_type, allocation_size, memory_type_index, dedicated, identity } =
        memory;
    let name = sendable_name(&identity.name);
    bytes.extend(memory_handle_number(*handle_type).to_le_bytes());
    bytes.push(u8::from(*dedicated));
    bytes.push(u8::from(memory_type_index.is_some()));
    bytes.push(u8::from(identity.driver.is_some()));
    bytes.push(0);
    bytes.extend(memory_type_index.unwrap_or(0).to_le_bytes());
    bytes.extend((name.len() as u32).to_le_bytes());
    bytes.extend(allocation_size.to_le_bytes());
    put_uuids(bytes, identity);
    name
}

fn memory(fields: &mut Fields<'_>) -> Result<(MemoryInfo, usize)> {
    let handle_type = match fields.u32("body.handle_type")? {
        0x1 => MemoryHandleType::OpaqueFd,
        0x200 => MemoryHandleType::DmaBuf,
        other => return Err(unknown("body.handle_type", other, "memory handle type")),
    };
    let dedicated = fields.flag("body.dedicated")?;
    let has_type = fields.flag("body.has_memory_type")?;
    let has_driver = fields.flag("body.has_driver_uuid")?;
    fields.reserved::<1>("body.reserved")?;
    let index = fields.u32("body.memory_type_index")?;
    let memory_type_index = optional("body.memory_type_index", has_type, index, 0)?;
    let name = name_len(fields)?;
    let allocation_size = fields.u64("body.allocation_size")?;
    let identity = nameless(fields, has_driver)?;
    let info = MemoryInfo { handle_type, allocation_size, memory_type_index, dedicated, identity };
    Ok((info, name))
}

fn with_memory_name(
    mut memory: MemoryInfo,
    len: usize,
    fields: &mut Fields<'_>,
) -> Result<MemoryInfo> {
    memory.identity.name = name(fields, len)?;
    Ok(memory)
}

/// Writes the semaphore block; what comes back goes at the end of the body.
fn put_semaphore(bytes: &mut Vec<u8>, semaphore: &SemaphoreInfo) -> String {
    let SemaphoreInfo { handle_type, kind, identity } = semaphore;
    let name = sendable_name(&identity.name);
    let kind: u32 = match kind {
        SemaphoreKind::Binary => 0,
        SemaphoreKind::Timeline => 1,
    };
    bytes.extend(semaphore_handle_number(*handle_type).to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.push(u8::from(identity.driver.is_some()));
    bytes.extend([0; 3]);
    bytes.extend((name.len() as u32).to_le_bytes());
    put_uuids(bytes, identity);
    name
}

fn semaphore(fields: &mut Fields<'_>) -> Result<SemaphoreInfo> {
    let handle_type = match fields.u32("body.handle_type")? {
        0x1 => SemaphoreHandleType::OpaqueFd,
        0x10 => SemaphoreHandleType::SyncFd,
        other => return Err(unknown("body.handle_type", other, "semaphore handle type")),
    };
    let kind = match fields.u32("body.semaphore_kind")? {
        0 => SemaphoreKind::Binary,
        1 => SemaphoreKind::Timeline,
        other => return Err(unknown("body.semaphore_kind", other, "semaphore kind")),
    };
    let has_driver = fields.flag("body.has_driver_uuid")?;
    fields.reserved::<3>("body.reserved")?;
    let len = name_len(fields)?;
    let mut identity = nameless(fields, has_driver)?;
    identity.name = name(fields, len)?;
    Ok(SemaphoreInfo { handle_type, kind, identity })
}

fn put_uuids(bytes: &mut Vec<u8>, identity: &Identity) {
    bytes.extend(identity.device.as_bytes());
    bytes.extend(identity.driver.as_ref().map_or(&[0; 16], Uuid::as_bytes));
}

fn nameless(fields: &mut Fields<'_>, has_driver: bool) -> Result<Identity> {
    let device = Uuid::from_bytes(fields.array("body.device_uuid")?);
    let driver = Uuid::from_bytes(fields.array("body.driver_uuid")?);
    let none = Uuid::from_bytes([0; 16]);
    let driver = optional("body.driver_uuid", has_driver, driver, none)?;
    Ok(Identity { device, driver, name: String::new() })
}

pub(crate) fn name_len(fields: &mut Fields<'_>) -> Result<usize> {
    text_len(fields, "body.name_length")
}

pub(crate) fn text_len(fields: &mut Fields<'_>, field: &'static str) -> Result<usize> {
    match fields.u32(field)? as usize {
        len if len <= MAX_NAME => Ok(len),
        len => {
            let problem = format!("{len} bytes are more than a name's {MAX_NAME}");
            Err(Invalid::new(field, problem).into())
        }
    }
}

pub(crate) fn name(fields: &mut Fields<'_>, len: usize) -> Result<String> {
    text(fields, "body.name", len)
}

pub(crate) fn text(fields: &mut Fields<'_>, field: &'static str, len: usize) -> Result<String> {
    let bytes = fields.bytes(field, len)?;
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Invalid::new(field, format!("is no UTF-8: {error}")))?;
    // Names end up in error messages and logs; a terminal must not obey them.
    match text.chars().find(|c| c.is_control()) {
        None => Ok(text.to_owned()),
        Some(control) => {
            let problem = format!("has the control character {:#x}", u32::from(control));
            Err(Invalid::new(field, problem).into())
        }
    }
}

pub(crate) fn sendable_name(name: &str) -> String {
    let mut sendable = String::new();
    for c in name.chars() {
        let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        if sendable.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        sendable.push(c);
    }
    sendable
}

/// A value that is sent as `none` where its flag is 0.
pub(crate) fn optional<T: PartialEq>(
    field: &'static str,
    has: bool,
    value: T,
    none: T,
) -> Result<Option<T>> {
    match has {
        true => Ok(Some(value)),
        false if value == none => Ok(None),
        false => Err(Invalid::new(field, "has a value, but its flag says that it has none").into()),
    }
}

pub(crate) fn unknown(field: &'static str, value: u32, what: &str) -> Error {
    Invalid::new(field, format!("{value:#x} is no {what} of this version")).into()
}
