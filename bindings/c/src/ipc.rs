//! Payloads over a Unix socket.

use std::ffi::c_int;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{FromRawFd as _, RawFd};
use std::os::unix::net::UnixStream;

use gpu_interop::error::Invalid;
use gpu_interop::{Result, ipc};

use crate::args::required;
use crate::error::{gi_result, guard};
use crate::payload::gi_payload;

/// Borrows a socket for one call.
///
/// # Safety
/// `socket` is open during the call.
pub(crate) unsafe fn socket(socket: c_int) -> Result<ManuallyDrop<UnixStream>> {
    let socket: RawFd = socket;
    if socket < 0 {
        return Err(Invalid::new("socket", format!("is {socket}")).into());
    }
    // SAFETY: open (the caller's promise), and never closed here.
    Ok(ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(socket) }))
}

/// Sends a payload, which stays the caller's, over a connected Unix stream socket.
///
/// Required: `socket` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_ipc_send(socket: c_int, payload: Option<&gi_payload>) -> gi_result {
    guard(|| {
        // SAFETY: the caller's promise.
        let socket = unsafe { self::socket(socket) }?;
        ipc::send(&socket, &required(payload, "payload")?.0)
    })
}

/// Receives a payload. Waits as long as the socket's timeout (`SO_RCVTIMEO`), which is unlimited by
/// default. After a timeout in the middle of a message, close the socket.
///
/// Required: `socket` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_ipc_receive(
    socket: c_int,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| {
        let out = required(payload, "payload")?;
        // SAFETY: the caller's promise.
        let socket = unsafe { self::socket(socket) }?;
        out.write(gi_payload::new(ipc::receive(&socket)?));
        Ok(())
    })
}
