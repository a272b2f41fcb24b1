//! Which GPUs CUDA sees.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;

use cudarc::driver::sys;

use super::error::check;
use super::library;
use crate::error::Result;
use crate::identity::{Identity, Uuid};

/// A GPU as CUDA sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// What `CudaContext::new` takes. It depends on `CUDA_VISIBLE_DEVICES` and on the order CUDA
    /// likes, so it is good for nothing else: pick a GPU by its UUID.
    pub ordinal: usize,
    /// The GPU; CUDA tells no driver UUID.
    pub identity: Identity,
}

/// Every GPU that CUDA sees, so that one can be picked by its UUID and opened by its ordinal.
/// Makes no context.
///
/// A GPU in MIG mode is seen as one of its instances, with the instance's UUID, which no graphics
/// API knows.
///
/// # Errors
/// As [`require`](super::require).
///
/// # References
/// `cuDeviceGetCount`, `cuDeviceGetUuid_v2`, `cuDeviceGetName`.
#[doc(alias = "cuDeviceGetUuid_v2")]
pub fn devices() -> Result<Vec<Device>> {
    library::require()?;
    let mut count: c_int = 0;
    // SAFETY: libcuda is initialised and `count` is writable.
    check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&mut count) })?;
    (0..count)
        .map(|index| {
            let mut device: sys::CUdevice = 0;
            // SAFETY: as above, and the ordinal is below the count.
            check("cuDeviceGet", unsafe { sys::cuDeviceGet(&mut device, index) })?;
            let ordinal = usize::try_from(index).unwrap_or(0);
            Ok(Device { ordinal, identity: identity(device)? })
        })
        .collect()
}

/// Who `device` is. libcuda must be initialised; a number that is no device is a driver error.
pub(crate) fn identity(device: sys::CUdevice) -> Result<Identity> {
    let mut uuid = MaybeUninit::<sys::CUuuid>::zeroed();
    // SAFETY: libcuda is initialised and `uuid` is writable. The device is only looked up.
    check("cuDeviceGetUuid_v2", unsafe { sys::cuDeviceGetUuid_v2(uuid.as_mut_ptr(), device) })?;
    // SAFETY: 16 plain bytes, zero or written.
    let bytes = unsafe { uuid.assume_init() }.bytes;

    let mut name = [0u8; 256];
    let room = c_int::try_from(name.len() - 1).unwrap_or(0);
    // SAFETY: as above; the last byte is not given away, so the text is always terminated.
    check("cuDeviceGetName", unsafe {
        sys::cuDeviceGetName(name.as_mut_ptr().cast(), room, device)
    })?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
    Ok(Identity {
        // C's char is signed on some machines: only its bits matter.
        device: Uuid::from_bytes(bytes.map(|byte| byte.to_ne_bytes()[0])),
        driver: None,
        name: name.to_string_lossy().into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn devices_are_told_or_a_typed_error_is() {
        match devices() {
            Ok(devices) => {
                for (index, device) in devices.iter().enumerate() {
                    assert_eq!(device.ordinal, index);
                    assert_eq!(device.identity.driver, None);
                }
            }
            Err(error) => assert!(matches!(error, Error::Missing(_) | Error::Driver(_)), "{error}"),
        }
    }
}
