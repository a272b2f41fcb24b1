//! No panic leaves a function of the C API, and wrong arguments are results.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::ptr;

use gpu_interop_c::*;

unsafe extern "C-unwind" fn panicking_loader(_name: *const c_char) -> gi_function {
    panic!("the loader panics")
}

fn message() -> String {
    // SAFETY: no call of this thread fails while the text is copied.
    unsafe { CStr::from_ptr(gi_last_error()) }.to_string_lossy().into_owned()
}

#[test]
fn a_panic_in_a_callback_is_a_result() {
    let mut endpoint = MaybeUninit::uninit();
    // SAFETY: the loader returns no address.
    let result = unsafe { gi_endpoint_gl(Some(panicking_loader), Some(&mut endpoint)) };
    assert_eq!(result, gi_result::Panic);
    assert_eq!(message(), "the library panicked: the loader panics");
}

#[test]
fn null_is_refused_by_name_and_may_be_destroyed() {
    let mut payload = MaybeUninit::uninit();
    assert_eq!(gi_buffer_export(None, Some(&mut payload)), gi_result::Invalid);
    assert_eq!(message(), "buffer: is null");
    assert_eq!(gi_payload_clone(None, None), gi_result::Invalid);
    // SAFETY: null.
    let result = unsafe { gi_endpoint_vulkan(ptr::null(), Some(&mut MaybeUninit::uninit())) };
    assert_eq!((result, message().as_str()), (gi_result::Invalid, "info: is null"));
    gi_buffer_destroy(None);
    gi_endpoint_destroy(None);
    gi_ticket_destroy(None);
    assert_eq!((gi_buffer_handle(None), gi_payload_fd(None)), (0, -1));
    assert_eq!(gi_endpoint_api(None), gi_api::None);
}
