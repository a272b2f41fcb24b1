//! Everything the validation layer says, kept for the case that made it say so.

use std::sync::{Mutex, PoisonError};

use gpu_interop::headless::{Message, MessageKind};

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps a message. What a driver or the loader says of itself is no fault of a case.
pub(super) fn keep(message: Message) {
    if message.kind != MessageKind::General {
        MESSAGES.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_string());
    }
}

/// Takes what was said since the last call.
pub(super) fn take() -> Vec<String> {
    std::mem::take(&mut MESSAGES.lock().unwrap_or_else(PoisonError::into_inner))
}
