//! Everything the validation layer says, kept for the case that made it say so.

use std::sync::{Mutex, PoisonError};

use gpu_interop::headless::{Message, MessageKind};

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A message that the layer is wrong about.
struct FalseAlarm {
    /// Its name.
    id: &'static str,
    /// Part of its text.
    text: &'static str,
}

/// What the layer says wrongly of semaphores and memory that others share: it sees one API's side.
const FALSE_ALARMS: [FalseAlarm; 5] = [
    // 1.4.309 looks at the counter when it is done with the submit; by then the other API, which
    // waited for this very signal, has signalled the next value.
    FalseAlarm {
        id: "VUID-VkSubmitInfo-pSignalSemaphores-03242",
        text: "which is smaller than the current value",
    },
    // 1.3.239 takes a signal that it has not seen (another API's) for a pending one of a lower value.
    FalseAlarm {
        id: "VUID-VkSemaphoreSignalInfo-value-03259",
        text: "must be less than value of any pending signal operation",
    },
    // 1.4.309 remembers what Vulkan exported by the number of the descriptor, and does not see the
    // number being closed and used for something else: another export's duplicate, CUDA's memory.
    // The library compares these with the payload itself.
    FalseAlarm {
        id: "VUID-VkMemoryAllocateInfo-allocationSize-01742",
        text: "pNext<VkImportMemoryFdInfoKHR>.fd (",
    },
    FalseAlarm {
        id: "VUID-VkMemoryDedicatedAllocateInfo-image-01878",
        text: "pNext<VkImportMemoryFdInfoKHR>.fd (",
    },
    FalseAlarm {
        id: "VUID-VkMemoryDedicatedAllocateInfo-buffer-01879",
        text: "pNext<VkImportMemoryFdInfoKHR>.fd (",
    },
];

/// Keeps a message. What a driver or the loader says of itself is no fault of a case.
pub(super) fn keep(message: Message) {
    let known = |alarm: &FalseAlarm| {
        message.id.as_deref() == Some(alarm.id) && message.text.contains(alarm.text)
    };
    if message.kind != MessageKind::General && !FALSE_ALARMS.iter().any(known) {
        MESSAGES.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_string());
    }
}

/// Takes what was said since the last call.
pub(super) fn take() -> Vec<String> {
    std::mem::take(&mut MESSAGES.lock().unwrap_or_else(PoisonError::into_inner))
}
