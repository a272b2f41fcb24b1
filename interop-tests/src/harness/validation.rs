//! What the validation layer reports: for the case that caused it, or for one device alone.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use gpu_interop::headless::{
    GpuSelector, Message, MessageKind, Severity, Validation, Vulkan, VulkanOptions,
};

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A message that is wrong.
struct FalseAlarm {
    /// Its VUID.
    id: &'static str,
    /// Part of its text.
    text: &'static str,
}

/// Wrong messages about semaphores that are shared: the layer sees only one API's side.
const FALSE_ALARMS: [FalseAlarm; 2] = [
    // 1.4.309 reads the counter after the submit is done. By then the other API, which waited for this
    // very signal, has signalled the next value.
    FalseAlarm {
        id: "VUID-VkSubmitInfo-pSignalSemaphores-03242",
        text: "which is smaller than the current value",
    },
    // 1.3.239 takes a signal that it has not seen (another API's) for a pending one of a lower value.
    FalseAlarm {
        id: "VUID-VkSemaphoreSignalInfo-value-03259",
        text: "must be less than value of any pending signal operation",
    },
];

/// Keeps a message for the case that runs. Messages of a driver or of the loader are no fault of a case.
pub(super) fn keep(message: Message) {
    let known = |alarm: &FalseAlarm| {
        message.id.as_deref() == Some(alarm.id) && message.text.contains(alarm.text)
    };
    if message.kind != MessageKind::General && !FALSE_ALARMS.iter().any(known) {
        MESSAGES.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_string());
    }
}

/// Takes the messages since the last call.
pub(super) fn take() -> Vec<String> {
    std::mem::take(&mut MESSAGES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The messages of one device that a case opens for itself, unfiltered.
#[derive(Clone, Debug, Default)]
pub struct ValidationLog(Arc<Mutex<Vec<Message>>>);

impl ValidationLog {
    /// Opens a device that reports to this log, with synchronisation validation or without.
    ///
    /// # Errors
    /// If the layer is not installed or the driver refuses.
    pub fn open(&self, selector: &GpuSelector, synchronisation: bool) -> Result<Vulkan> {
        let log = self.clone();
        let keep =
            move |message| log.0.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        let options = VulkanOptions::default()
            .validation(Validation::Required)
            .synchronisation_validation(synchronisation)
            .messages(keep);
        Ok(Vulkan::open(selector, &options)?)
    }

    /// Takes the messages about the use of Vulkan; those that drivers write about themselves are dropped.
    pub fn take(&self) -> Vec<Message> {
        let mut found = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        found.retain(|message| message.kind != MessageKind::General);
        found
    }

    /// Requires an error with one of these VUIDs: they differ from one version of the layer to the next.
    ///
    /// # Errors
    /// Lists the messages that were found instead.
    pub fn require(&self, vuids: &[&str]) -> Result<()> {
        let found = self.take();
        let is_it = |m: &Message| {
            m.severity == Severity::Error && vuids.iter().any(|vuid| m.to_string().contains(vuid))
        };
        ensure!(found.iter().any(is_it), "none of {vuids:?} is among {found:?}");
        Ok(())
    }

    /// Requires that there is no message.
    ///
    /// # Errors
    /// Lists the messages.
    pub fn require_silence(&self) -> Result<()> {
        let found = self.take();
        ensure!(found.is_empty(), "{found:?}");
        Ok(())
    }
}
