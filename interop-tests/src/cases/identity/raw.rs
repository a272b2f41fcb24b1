//! The UUIDs as the APIs themselves tell them, without the library.

use std::ffi::{CStr, c_void};

use anyhow::{Result, ensure};
use gpu_interop::Uuid;
use gpu_interop::ash::vk;
use gpu_interop::glow::HasContext as _;

use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::VulkanContext;

const NUM_DEVICE_UUIDS_EXT: u32 = 0x9596;
const DEVICE_UUID_EXT: u32 = 0x9597;
const DRIVER_UUID_EXT: u32 = 0x9598;

type GetUnsignedBytev = unsafe extern "system" fn(u32, *mut u8);
type GetUnsignedBytei = unsafe extern "system" fn(u32, u32, *mut u8);

/// Device and driver UUID of every physical device.
pub(crate) fn vulkan_uuids(gpu: &VulkanContext) -> Result<Vec<(Uuid, Uuid)>> {
    let instance = gpu.vulkan.instance();
    // SAFETY: the instance is alive.
    let devices = unsafe { instance.enumerate_physical_devices() }?;
    let uuids = devices.into_iter().map(|device| {
        let mut id = vk::PhysicalDeviceIDProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        // SAFETY: the device is the instance's, and Vulkan 1.1 has the call and the structure.
        unsafe { instance.get_physical_device_properties2(device, &mut properties) };
        (Uuid::from_bytes(id.device_uuid), Uuid::from_bytes(id.driver_uuid))
    });
    Ok(uuids.collect())
}

/// The device UUID of every index, and the driver UUID.
pub(crate) fn gl_uuids(gpu: &GlContext) -> Result<(Vec<Uuid>, Uuid)> {
    let load = |name: &CStr| -> Result<*const c_void> {
        let address = gpu.gl.loader()(name);
        ensure!(!address.is_null(), "no {name:?}");
        Ok(address)
    };
    // SAFETY: GL_EXT_memory_object has both functions, with these types.
    let (get, get_indexed) = unsafe {
        (
            std::mem::transmute::<*const c_void, GetUnsignedBytev>(load(c"glGetUnsignedBytevEXT")?),
            std::mem::transmute::<*const c_void, GetUnsignedBytei>(load(
                c"glGetUnsignedBytei_vEXT",
            )?),
        )
    };
    // SAFETY: the context is current, and the parameter is one integer.
    let count = unsafe { gpu.gl.glow().get_parameter_i32(NUM_DEVICE_UUIDS_EXT) };
    gpu.check("GL_NUM_DEVICE_UUIDS_EXT")?;
    ensure!(count > 0, "OpenGL tells {count} device UUIDs");
    let mut devices = Vec::new();
    for index in 0..u32::try_from(count)? {
        let mut bytes = [0; 16];
        // SAFETY: the context is current, the index is below the count, and a UUID has 16 bytes.
        unsafe { get_indexed(DEVICE_UUID_EXT, index, bytes.as_mut_ptr()) };
        gpu.check("GL_DEVICE_UUID_EXT")?;
        devices.push(Uuid::from_bytes(bytes));
    }
    let mut driver = [0; 16];
    // SAFETY: as above.
    unsafe { get(DRIVER_UUID_EXT, driver.as_mut_ptr()) };
    gpu.check("GL_DRIVER_UUID_EXT")?;
    Ok((devices, Uuid::from_bytes(driver)))
}
