//! Which GPUs and which driver a context stands for.

use glow::HasContext as _;

use super::error::checked;
use super::ffi::{DEVICE_UUID_EXT, DRIVER_UUID_EXT, NUM_DEVICE_UUIDS_EXT, UUID_SIZE_EXT, UuidFns};
use crate::error::{Api, Missing, Result};
use crate::identity::{Identity, Uuid};

/// More GPUs than one context can stand for: a count beyond this is nonsense.
const MAX_DEVICES: u32 = 64;

/// One identity a GPU of the context, all with the context's driver UUID. The context is current.
///
/// # Errors
/// [`Missing`] where the driver tells of no GPU, [`Driver`](crate::Error::Driver) where it refuses.
pub(super) fn read(gl: &glow::Context, uuid: &UuidFns, name: &str) -> Result<Vec<Identity>> {
    // SAFETY: the context is current, and GL_NUM_DEVICE_UUIDS_EXT has one integer.
    let count = checked(gl, "glGetIntegerv(GL_NUM_DEVICE_UUIDS_EXT)", || unsafe {
        gl.get_parameter_i32(NUM_DEVICE_UUIDS_EXT)
    })?;
    let count = u32::try_from(count).unwrap_or(0);
    if !(1..=MAX_DEVICES).contains(&count) {
        return Err(Missing::new(Api::OpenGl, "a device UUID", "knowing which GPU it is on")
            .help("open the context on a driver that can share memory")
            .into());
    }
    let driver = bytes(gl, "glGetUnsignedBytevEXT(GL_DRIVER_UUID_EXT)", |data| {
        // SAFETY: the context is current; GL_DRIVER_UUID_EXT fills GL_UUID_SIZE_EXT bytes, and
        // `data` has as many.
        unsafe { (uuid.get_unsigned_bytev)(DRIVER_UUID_EXT, data) }
    })?;
    (0..count)
        .map(|index| {
            let device = bytes(gl, "glGetUnsignedBytei_vEXT(GL_DEVICE_UUID_EXT)", |data| {
                // SAFETY: as above, for GL_DEVICE_UUID_EXT and an index below the count.
                unsafe { (uuid.get_unsigned_bytei_v)(DEVICE_UUID_EXT, index, data) }
            })?;
            Ok(Identity { device, driver: Some(driver), name: name.to_owned() })
        })
        .collect()
}

fn bytes(gl: &glow::Context, call: &'static str, get: impl FnOnce(*mut u8)) -> Result<Uuid> {
    let mut data = [0u8; UUID_SIZE_EXT];
    checked(gl, call, || get(data.as_mut_ptr()))?;
    Ok(Uuid::from_bytes(data))
}
