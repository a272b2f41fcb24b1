//! The ring that a producer announces: the payloads of its slots, its semaphores, and its format.

use crate::error::{Error, Invalid, Result};
use crate::ipc::wire::{MAX_NAME, MAX_SEMAPHORES, MAX_SLOTS, RingInfo};
use crate::payload::{Payload, SemaphoreKind, SemaphorePayload};

/// The ring of a session: one payload per slot, timeline semaphores, and what a frame contains.
///
/// The producer makes it of its exports. Each consumer gets its own copy to import, with its own
/// descriptors.
#[derive(Debug, Default)]
pub struct Ring {
    /// The ring's name, for people to read. At most 256 bytes, without control characters.
    pub name: String,
    /// What a frame contains, as far as the payloads don't say it. Producer and consumer agree on its
    /// meaning; an example is `rgba8 1920x1080`. At most 256 bytes, without control characters.
    pub format: String,
    /// One memory, buffer or image payload per slot, 1 to 64.
    pub slots: Vec<Payload>,
    /// The timeline semaphores that frames refer to, at most 8.
    ///
    /// Binary semaphores are not supported. Each signal has one waiter, and a signal whose consumer
    /// has died would stay pending.
    pub semaphores: Vec<SemaphorePayload>,
}

impl Ring {
    /// Creates a ring without slots and semaphores.
    pub fn new(name: impl Into<String>, format: impl Into<String>) -> Self {
        Self { name: name.into(), format: format.into(), ..Self::default() }
    }

    /// Adds a slot.
    #[must_use]
    pub fn slot(mut self, payload: impl Into<Payload>) -> Self {
        self.slots.push(payload.into());
        self
    }

    /// Adds a timeline semaphore.
    #[must_use]
    pub fn semaphore(mut self, payload: SemaphorePayload) -> Self {
        self.semaphores.push(payload);
        self
    }

    /// Returns the message that announces the ring.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a consumer would refuse the ring.
    pub(super) fn info(&self, drops_frames: bool) -> Result<RingInfo> {
        let wrong = |field, problem: String| Err(Error::from(Invalid::new(field, problem)));
        let (slots, semaphores) = (self.slots.len(), self.semaphores.len());
        if !(1..=MAX_SLOTS).contains(&slots) {
            return wrong("ring.slots", format!("are {slots}, not 1 to {MAX_SLOTS}"));
        }
        if self.slots.iter().any(|slot| matches!(slot, Payload::Semaphore(_))) {
            return wrong("ring.slots", "contain a semaphore; add it with Ring::semaphore".into());
        }
        if semaphores > MAX_SEMAPHORES {
            let problem = format!("are {semaphores}, not 0 to {MAX_SEMAPHORES}");
            return wrong("ring.semaphores", problem);
        }
        for (field, text) in [("ring.name", &self.name), ("ring.format", &self.format)] {
            if text.len() > MAX_NAME {
                return wrong(field, format!("has {} bytes, more than {MAX_NAME}", text.len()));
            }
            if text.chars().any(char::is_control) {
                return wrong(field, "contains a control character".into());
            }
        }
        self.semaphores.iter().try_for_each(check_timeline)?;
        Ok(RingInfo {
            slots: slots as u32,
            semaphores: semaphores as u32,
            drops_frames,
            name: self.name.clone(),
            format: self.format.clone(),
        })
    }
}

/// Refuses a semaphore that a session can't use.
pub(super) fn check_timeline(semaphore: &SemaphorePayload) -> Result<()> {
    match semaphore.info().kind {
        SemaphoreKind::Timeline => Ok(()),
        SemaphoreKind::Binary => Err(Invalid::new("ring.semaphores", "contain a binary semaphore")
            .help("use a timeline semaphore, or wait on the host before publishing")
            .into()),
    }
}
