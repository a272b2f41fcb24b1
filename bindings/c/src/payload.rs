//! Payloads: a file descriptor and everything that an importer must know about it.

use std::ffi::{CString, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};

use gpu_interop::Payload;

use crate::args::required;
use crate::error::{gi_result, guard, guard_value};

/// What a payload describes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum gi_payload_kind {
    /// Nothing: the handle is null, or of a kind that this version of the header lacks.
    #[default]
    None = 0,
    /// An allocation.
    Memory = 1,
    /// A buffer.
    Buffer = 2,
    /// An image.
    Image = 3,
    /// A semaphore.
    Semaphore = 4,
}

/// A file descriptor and everything that an import needs to know about it. A payload owns its
/// descriptor. An import that succeeds consumes it; one that fails leaves it to the caller.
pub struct gi_payload(pub(crate) Payload);

impl gi_payload {
    pub(crate) fn new(payload: impl Into<Payload>) -> Option<Box<Self>> {
        Some(Box::new(Self(payload.into())))
    }
}

/// Returns the kind of a payload.
#[unsafe(no_mangle)]
pub extern "C" fn gi_payload_get_kind(payload: Option<&gi_payload>) -> gi_payload_kind {
    match payload {
        Some(gi_payload(Payload::Memory(_))) => gi_payload_kind::Memory,
        Some(gi_payload(Payload::Buffer(_))) => gi_payload_kind::Buffer,
        Some(gi_payload(Payload::Image(_))) => gi_payload_kind::Image,
        Some(gi_payload(Payload::Semaphore(_))) => gi_payload_kind::Semaphore,
        _ => gi_payload_kind::None,
    }
}

/// Returns the descriptor of a payload, which still owns it; -1 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_payload_fd(payload: Option<&gi_payload>) -> c_int {
    payload.map_or(-1, |payload| payload.0.as_fd().as_raw_fd())
}

/// Creates a second payload of the same memory or semaphore, with a duplicate of the descriptor.
#[unsafe(no_mangle)]
pub extern "C" fn gi_payload_clone(
    payload: Option<&gi_payload>,
    clone: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| {
        let (payload, out) = (required(payload, "payload")?, required(clone, "clone")?);
        out.write(gi_payload::new(payload.0.try_clone()?));
        Ok(())
    })
}

/// Destroys a payload and closes its descriptor; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_payload_destroy(payload: Option<Box<gi_payload>>) {
    guard_value(|| drop(payload));
}

/// Returns a text without a byte that is 0, for C.
pub(crate) fn c_text(text: String) -> CString {
    let bytes: Vec<u8> = text.into_bytes().into_iter().filter(|&byte| byte != 0).collect();
    // No byte is 0 any more.
    CString::new(bytes).unwrap_or_default()
}
