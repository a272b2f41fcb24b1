//! What a producer announces: the slots' payloads, the semaphores, and what a frame is.

use std::os::unix::net::UnixStream;

use crate::error::{Error, Invalid, Mismatch, Result};
use crate::ipc::wire::{Kind, MAX_NAME, MAX_SEMAPHORES, MAX_SLOTS, RingInfo};
use crate::ipc::{Received, send};
use crate::payload::{BufferPayload, ImagePayload, MemoryPayload, SemaphoreKind, SemaphorePayload};

/// The ring of a session: what each slot lies in, the semaphores, and what a frame is.
///
/// The producer makes one of its exports. Each consumer gets one of its own, with descriptors of its
/// own, to import.
#[derive(Debug, Default)]
pub struct Ring {
    /// What the ring is called, for people only. At most 256 bytes, no control characters.
    pub name: String,
    /// What a frame is, as far as the payloads do not say it, in words that producer and consumer
    /// agree on (`rgba8 1920x1080`, say). At most 256 bytes, no control characters.
    pub format: String,
    /// The payload of each slot, 1 to 64.
    pub slots: Vec<SlotPayload>,
    /// Timeline semaphores that frames name, at most 8.
    ///
    /// No binary ones: they have one waiter a signal, and one that a consumer was to wait for stays
    /// signalled for ever when it dies.
    pub semaphores: Vec<SemaphorePayload>,
}

impl Ring {
    /// A ring without slots.
    pub fn new(name: impl Into<String>, format: impl Into<String>) -> Self {
        Self { name: name.into(), format: format.into(), ..Self::default() }
    }

    /// Adds a slot.
    #[must_use]
    pub fn slot(mut self, payload: impl Into<SlotPayload>) -> Self {
        self.slots.push(payload.into());
        self
    }

    /// Adds a timeline semaphore.
    #[must_use]
    pub fn semaphore(mut self, payload: SemaphorePayload) -> Self {
        self.semaphores.push(payload);
        self
    }

    /// What is said of the ring before its payloads.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a consumer would refuse it.
    pub(super) fn info(&self, leaves_out: bool) -> Result<RingInfo> {
        let wrong = |field, problem: String| Err(Error::from(Invalid::new(field, problem)));
        let (slots, semaphores) = (self.slots.len(), self.semaphores.len());
        if !(1..=MAX_SLOTS).contains(&slots) {
            return wrong("ring.slots", format!("are {slots}, not 1 to {MAX_SLOTS}"));
        }
        if semaphores > MAX_SEMAPHORES {
            return wrong(
                "ring.semaphores",
                format!("are {semaphores}, not 0 to {MAX_SEMAPHORES}"),
            );
        }
        for (field, text) in [("ring.name", &self.name), ("ring.format", &self.format)] {
            if text.len() > MAX_NAME {
                return wrong(field, format!("has {} bytes, not at most {MAX_NAME}", text.len()));
            }
            if text.chars().any(char::is_control) {
                return wrong(field, "has a control character".into());
            }
        }
        self.semaphores.iter().try_for_each(check_timeline)?;
        Ok(RingInfo {
            slots: slots as u32,
            semaphores: semaphores as u32,
            leaves_out,
            name: self.name.clone(),
            format: self.format.clone(),
        })
    }
}

/// Refuses a semaphore that a session can't use.
pub(super) fn check_timeline(semaphore: &SemaphorePayload) -> Result<()> {
    match semaphore.info().kind {
        SemaphoreKind::Timeline => Ok(()),
        SemaphoreKind::Binary => Err(Invalid::new("ring.semaphores", "one of them is binary")
            .help("use a timeline semaphore, or publish what the host has waited for")
            .into()),
    }
}

/// What a slot lies in.
#[derive(Debug)]
#[non_exhaustive]
pub enum SlotPayload {
    /// An allocation; producer and consumer agree on what lies in it.
    Memory(MemoryPayload),
    /// A buffer.
    Buffer(BufferPayload),
    /// An image.
    Image(ImagePayload),
}

impl SlotPayload {
    /// The allocation.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is something else, which is dropped.
    pub fn into_memory(self) -> Result<MemoryPayload> {
        match self {
            Self::Memory(payload) => Ok(payload),
            other => Err(other.is_not(Kind::Memory)),
        }
    }

    /// The buffer.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is something else, which is dropped.
    pub fn into_buffer(self) -> Result<BufferPayload> {
        match self {
            Self::Buffer(payload) => Ok(payload),
            other => Err(other.is_not(Kind::Buffer)),
        }
    }

    /// The image.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is something else, which is dropped.
    pub fn into_image(self) -> Result<ImagePayload> {
        match self {
            Self::Image(payload) => Ok(payload),
            other => Err(other.is_not(Kind::Image)),
        }
    }

    /// A second payload for the same slot, with a duplicate of the descriptor (FD_CLOEXEC set).
    ///
    /// # Errors
    /// [`Error::Driver`] when the process is out of descriptors; this payload is untouched.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(match self {
            Self::Memory(payload) => Self::Memory(payload.try_clone()?),
            Self::Buffer(payload) => Self::Buffer(payload.try_clone()?),
            Self::Image(payload) => Self::Image(payload.try_clone()?),
        })
    }

    pub(super) fn send(&self, socket: &UnixStream) -> Result<()> {
        match self {
            Self::Memory(payload) => send(socket, payload),
            Self::Buffer(payload) => send(socket, payload),
            Self::Image(payload) => send(socket, payload),
        }
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::Memory(_) => Kind::Memory,
            Self::Buffer(_) => Kind::Buffer,
            Self::Image(_) => Kind::Image,
        }
    }

    fn is_not(&self, expected: Kind) -> Error {
        Mismatch::new("the slot's payload", expected.name(), self.kind().name())
            .help("agree on what the ring's slots are, by ring.format say")
            .into()
    }
}

impl TryFrom<Received> for SlotPayload {
    type Error = Error;

    /// The payload of a slot.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a semaphore, which is dropped.
    fn try_from(received: Received) -> Result<Self> {
        match received {
            Received::Memory(payload) => Ok(Self::Memory(payload)),
            Received::Buffer(payload) => Ok(Self::Buffer(payload)),
            Received::Image(payload) => Ok(Self::Image(payload)),
            Received::Semaphore(_) => {
                Err(Mismatch::new("message kind", "a slot's payload", Kind::Semaphore.name())
                    .into())
            }
        }
    }
}

impl From<MemoryPayload> for SlotPayload {
    fn from(payload: MemoryPayload) -> Self {
        Self::Memory(payload)
    }
}

impl From<BufferPayload> for SlotPayload {
    fn from(payload: BufferPayload) -> Self {
        Self::Buffer(payload)
    }
}

impl From<ImagePayload> for SlotPayload {
    fn from(payload: ImagePayload) -> Self {
        Self::Image(payload)
    }
}
