//! Result codes and messages, and the border that no panic crosses.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use gpu_interop::{Error, Result};

/// What a call returned. Anything but `GI_RESULT_OK` is a failure, which `gi_last_error` describes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gi_result {
    /// The call succeeded.
    Ok = 0,
    /// An API lacks something that is needed: an extension, a feature, a format, a library.
    Missing = 1,
    /// Two values that must be equal are not, for example the UUIDs of two GPUs.
    Mismatch = 2,
    /// An argument is wrong.
    Invalid = 3,
    /// A call to a driver or to the kernel failed; see `gi_last_driver_code`.
    Driver = 4,
    /// A wait timed out. It can be repeated.
    Timeout = 5,
    /// The peer closed the connection, or its process exited.
    Closed = 6,
    /// The library has a bug: it panicked. Destroy the handles of the call, and use them for
    /// nothing else.
    Panic = 7,
    /// An error of a kind that this version of the header doesn't have.
    Other = 8,
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
    static DRIVER_CODE: Cell<i64> = const { Cell::new(0) };
}

/// Returns the message of the last call that failed on this thread: what was wrong, and what would
/// help. Empty if none has failed.
///
/// The text is valid until the next call of this thread fails.
#[unsafe(no_mangle)]
pub extern "C" fn gi_last_error() -> *const c_char {
    MESSAGE.with_borrow(|message| message.as_ptr())
}

/// Returns the version of the library, such as `"0.1.0"`.
#[unsafe(no_mangle)]
pub extern "C" fn gi_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Returns the code of the driver or the kernel (a `VkResult`, a GL error, a `CUresult`, an errno),
/// if the last call that failed on this thread returned `GI_RESULT_DRIVER`; otherwise 0.
#[unsafe(no_mangle)]
pub extern "C" fn gi_last_driver_code() -> i64 {
    DRIVER_CODE.get()
}

/// Runs a function of the C API. Stores the message of an error or a panic.
pub(crate) fn guard(run: impl FnOnce() -> Result<()>) -> gi_result {
    // The result of a panic asks the caller to destroy what may be inconsistent.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => gi_result::Ok,
        Ok(Err(error)) => failed(&error),
        Err(panic) => panicked(panic),
    }
}

/// Runs a function that can't fail, such as one that destroys a handle.
pub(crate) fn guard_value<T: Default>(run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        panicked(panic);
        T::default()
    })
}

fn failed(error: &Error) -> gi_result {
    let (result, code) = match error {
        Error::Missing(_) => (gi_result::Missing, 0),
        Error::Mismatch(_) => (gi_result::Mismatch, 0),
        Error::Invalid(_) => (gi_result::Invalid, 0),
        Error::Driver(error) => (gi_result::Driver, error.code),
        Error::Timeout { .. } => (gi_result::Timeout, 0),
        Error::Closed { .. } => (gi_result::Closed, 0),
        _ => (gi_result::Other, 0),
    };
    store(error.to_string(), code);
    result
}

fn panicked(panic: Box<dyn Any + Send>) -> gi_result {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no message",
    };
    store(format!("the library panicked: {text}"), 0);
    // Dropping the value of a panic may panic.
    std::mem::forget(panic);
    gi_result::Panic
}

fn store(text: String, code: i64) {
    let bytes: Vec<u8> = text.into_bytes().into_iter().filter(|&byte| byte != 0).collect();
    // No byte is 0 any more.
    MESSAGE.set(CString::new(bytes).unwrap_or_default());
    DRIVER_CODE.set(code);
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use gpu_interop::error::{Api, DriverError};

    use super::*;

    fn message() -> String {
        // SAFETY: no call of this thread fails while the text is copied.
        unsafe { CStr::from_ptr(gi_last_error()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn a_failure_is_described_until_the_next_one() {
        let error = DriverError::new(Api::Vulkan, "vkFoo", -4, "VK_ERROR_DEVICE_LOST");
        assert_eq!(guard(|| Err(error.into())), gi_result::Driver);
        assert_eq!(gi_last_driver_code(), -4);
        assert_eq!(guard(|| Ok(())), gi_result::Ok);
        assert_eq!(message(), "Vulkan: vkFoo failed with VK_ERROR_DEVICE_LOST (-4)");
        let other = std::thread::spawn(message).join();
        assert_eq!(other.ok().as_deref(), Some(""), "another thread has its own message");
    }

    #[test]
    fn a_panic_is_a_result() {
        assert_eq!(guard(|| panic!("slot {}", 7)), gi_result::Panic);
        assert_eq!(message(), "the library panicked: slot 7");
        assert_eq!(guard(|| std::panic::panic_any(7)), gi_result::Panic);
        assert_eq!(message(), "the library panicked: no message");
        assert_eq!(guard_value::<u64>(|| panic!("a\0b")), 0);
        assert_eq!(message(), "the library panicked: ab");
    }
}
