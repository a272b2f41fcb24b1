//! Family A: which GPU and driver each API uses, and that a foreign payload is refused.

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::error::Mismatch;
use gpu_interop::fd::SemaphoreHandleType;
use gpu_interop::glow::HasContext as _;
use gpu_interop::headless::{Cuda, Gl, GpuSelector, Vulkan};
use gpu_interop::payload::{MemoryInfo, SemaphoreInfo};
use gpu_interop::{
    BufferPayload, Error, Identity, MemoryPayload, SemaphoreKind, SemaphorePayload, Uuid, cuda,
};

use crate::cases::support::fds::{self, check_same_fd, number};
use crate::cases::support::importers::for_each_importer;
use crate::cases::support::views::{AnyContext, View, check_aliases};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::VulkanContext;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("vulkan→gl/identity/every_uuid_is_vulkans/1", gl_is_vulkan).needs(&[Need::Gl]),
        Case::new("vulkan→cuda/identity/the_uuid_is_vulkans/2", cuda_is_vulkan)
            .needs(&[Need::Cuda]),
        Case::new("vulkan→cuda/identity/opened_by_uuid/2a", cuda_by_uuid).needs(&[Need::Cuda]),
        Case::new("vulkan→gl/identity/opened_by_uuid/2b", gl_by_uuid).needs(&[Need::Gl]),
        Case::new("vulkan/identity/opened_by_uuid/2c", vulkan_by_uuid),
    ];
    cases.extend(for_each_importer("memory/foreign_uuid_is_refused/3", foreign_memory));
    cases.extend(for_each_importer("buffer/foreign_uuid_is_refused/3a", foreign_buffer));
    cases.extend(for_each_importer("semaphore/foreign_uuid_is_refused/3b", foreign_semaphore));
    cases
}

/// All 16 bytes of each device UUID that OpenGL returns, for every index, are those of a GPU that Vulkan
/// lists, with the same driver UUID; and one of them is the selected GPU.
fn gl_is_vulkan(test_gpu: &TestGpu) -> Result<()> {
    let listed = vulkan_uuids(test_gpu.vulkan())?;
    let (devices, driver) = gl_uuids(test_gpu.gl()?)?;
    for (index, device) in devices.iter().enumerate() {
        let same = listed.contains(&(*device, driver));
        ensure!(same, "index {index}: {device} of driver {driver}, but Vulkan lists {listed:?}");
    }
    let own = test_gpu.vulkan().vulkan.identity();
    ensure!(devices.contains(&own.device), "{devices:?} do not include {}", own.device);
    ensure!(own.device.as_bytes() != &[0; 16], "the UUID is all zeros");
    // The library reports what OpenGL returns.
    let reported = test_gpu.gl()?.endpoint.identities().iter();
    let reported: Vec<_> = reported.map(|identity| (identity.device, identity.driver)).collect();
    let expected: Vec<_> = devices.iter().map(|&device| (device, Some(driver))).collect();
    ensure!(reported == expected, "the library reports {reported:?}, OpenGL {expected:?}");
    Ok(())
}

/// CUDA's UUID, read without the library, is Vulkan's.
fn cuda_is_vulkan(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.cuda()?;
    let bytes = gpu.cuda.context().uuid()?.bytes.map(|byte| byte.to_ne_bytes()[0]);
    let (uuid, listed) = (Uuid::from_bytes(bytes), vulkan_uuids(test_gpu.vulkan())?);
    ensure!(listed.iter().any(|(device, _)| *device == uuid), "{listed:?} do not include {uuid}");
    let own = test_gpu.vulkan().vulkan.identity();
    ensure!(own.device == uuid, "Vulkan is on {}, CUDA on {uuid}", own.device);
    let reported = &gpu.endpoint.identities()[0];
    let same = reported.device == uuid && reported.driver.is_none();
    ensure!(same, "the library reports {reported:?}");
    Ok(())
}

/// A UUID that no GPU has.
fn unknown() -> Uuid {
    Uuid::from_bytes(*b"no GPU has this.")
}

/// The error of opening the [`unknown`] UUID names it, and the GPUs that exist.
fn check_unknown(error: &Error, own: &Identity) -> Result<()> {
    let Error::Missing(missing) = error else { bail!("{error:?}") };
    let text = missing.to_string();
    ensure!(text.contains(&unknown().to_string()), "the requested UUID is not named: {text}");
    ensure!(text.contains(&own.device.to_string()), "the existing GPU is not named: {text}");
    Ok(())
}

fn cuda_by_uuid(test_gpu: &TestGpu) -> Result<()> {
    let own = test_gpu.vulkan().vulkan.identity();
    let opened = Cuda::open(&GpuSelector::Uuid(own.device))?;
    ensure!(opened.identity().device == own.device, "{:?}", opened.identity());
    let devices = cuda::devices()?;
    let same = devices.iter().find(|device| device.identity.device == own.device);
    let ordinal = same.context("cuda::devices lists the GPU")?.ordinal;
    ensure!(opened.context().ordinal() == ordinal, "opened {}", opened.context().ordinal());
    let by_ordinal = Vulkan::open(&GpuSelector::CudaOrdinal(ordinal), &TestGpu::options())?;
    ensure!(by_ordinal.identity().device == own.device, "{:?}", by_ordinal.identity());
    check_unknown(&Cuda::open(&GpuSelector::Uuid(unknown())).err().context("opened")?, own)
}

fn gl_by_uuid(test_gpu: &TestGpu) -> Result<()> {
    let own = test_gpu.vulkan().vulkan.identity();
    let opened = Gl::open(&GpuSelector::Uuid(own.device))?;
    let found = opened.identities();
    ensure!(found.iter().any(|identity| identity.device == own.device), "{found:?}");
    drop(opened);
    check_unknown(&Gl::open(&GpuSelector::Uuid(unknown())).err().context("opened")?, own)
}

fn vulkan_by_uuid(test_gpu: &TestGpu) -> Result<()> {
    let own = test_gpu.vulkan().vulkan.identity();
    let opened = Vulkan::open(&GpuSelector::Uuid(own.device), &TestGpu::options())?;
    ensure!(opened.identity() == own, "{:?}", opened.identity());
    let refused = Vulkan::open(&GpuSelector::Uuid(unknown()), &TestGpu::options());
    check_unknown(&refused.err().context("opened")?, own)
}

/// Identities that differ from `own` in one byte: of the device UUID, and of the driver UUID too if the
/// importer knows its own.
fn foreign(own: &Identity, importer: &[Identity]) -> Vec<Identity> {
    let flip = |uuid: Uuid, at: usize| {
        let mut bytes = *uuid.as_bytes();
        bytes[at] ^= 1;
        Uuid::from_bytes(bytes)
    };
    let device = |at| Identity { device: flip(own.device, at), ..own.clone() };
    let mut all: Vec<_> = (0..16).map(device).collect();
    if importer.iter().all(|identity| identity.driver.is_some()) {
        let driver = |at| Identity { driver: own.driver.map(|d| flip(d, at)), ..own.clone() };
        all.extend((0..16).map(driver));
    }
    all
}

/// The error names both values, and what would help.
fn check_mismatch(error: &Error, payload: &Identity, importer: &[Identity]) -> Result<()> {
    let Error::Mismatch(Mismatch { field, expected, found, help }) = error else {
        bail!("not refused for its identity: {error:?}");
    };
    let own = &importer[0];
    let (theirs, ours) = match *field {
        "device UUID" => (Some(payload.device), Some(own.device)),
        "driver UUID" => (payload.driver, own.driver),
        other => bail!("an unknown field: {other}"),
    };
    let (theirs, ours) = (theirs.context("no UUID")?, ours.context("no UUID")?);
    ensure!(expected.contains(&theirs.to_string()), "the payload's {theirs} is not in {error}");
    ensure!(found.contains(&ours.to_string()), "the importer's {ours} is not in {error}");
    // A changed byte of the version in a software driver's device UUID is another version.
    let parts = match *field {
        "driver UUID" => ["driver or its version", "container"],
        _ if theirs.as_bytes().starts_with(b"mesa") => ["different versions", "container"],
        _ => ["exporter's GPU", "by UUID"],
    };
    let help = help.as_ref().context("what would help is missing")?;
    ensure!(parts.iter().all(|part| help.contains(part)), "{parts:?} are not in: {help}");
    Ok(())
}

/// Refused with both values before the descriptor is read. It comes back as it was and can be imported.
fn foreign_memory(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (exported, payload) = fds::export(test_gpu)?;
    let (fd, info) = payload.into_parts().0.into_parts();
    // Drivers that read from a file begin with a seek.
    let mut fd = File::from(fd);
    let at = fd.seek(SeekFrom::Start(7)).ok();
    let mut payload = MemoryPayload::new(fd.into(), info.clone())?;
    let raw = payload.as_fd().as_raw_fd();
    for identity in foreign(&info.identity, peer.identities()) {
        let (fd, info) = payload.into_parts();
        payload = MemoryPayload::new(fd, MemoryInfo { identity, ..info })?;
        let refused = peer.import_memory(payload).err().context("it was imported")?;
        let error;
        (payload, error) = refused.into_parts();
        check_mismatch(&error, &payload.info().identity, peer.identities())?;
        check_same_fd(&payload, raw)?;
    }
    let mut fd = File::from(payload.into_parts().0);
    ensure!(fd.stream_position().ok() == at, "the descriptor was read from");
    let buffer = BufferPayload::new(MemoryPayload::new(fd.into(), info)?, 0, fds::desc())?;
    check_aliases(&mut View::new(test_gpu.vulkan(), exported), &mut peer.import_buffer(buffer)?)
}

/// [`foreign_memory`] for a buffer, also around a descriptor that is no memory: the identity is checked
/// first.
fn foreign_buffer(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (_exported, payload) = fds::export(test_gpu)?;
    let own = payload.memory().info().identity.clone();
    for identity in foreign(&own, peer.identities()) {
        for fd in [payload.memory().as_fd().try_clone_to_owned()?, File::open("/dev/null")?.into()]
        {
            let info = MemoryInfo { identity: identity.clone(), ..payload.memory().info().clone() };
            let foreign = BufferPayload::new(MemoryPayload::new(fd, info)?, 0, *payload.desc())?;
            let raw = number(&foreign);
            let refused = peer.import_buffer(foreign).err().context("it was imported")?;
            check_mismatch(refused.error(), &identity, peer.identities())?;
            check_same_fd(refused.into_payload(), raw)?;
        }
    }
    Ok(())
}

/// A semaphore's identity is checked before its descriptor, and before the API is asked whether it
/// supports semaphores at all.
fn foreign_semaphore(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let own = test_gpu.vulkan().vulkan.identity();
    for identity in foreign(own, peer.identities()) {
        for kind in [SemaphoreKind::Binary, SemaphoreKind::Timeline] {
            let handle_type = SemaphoreHandleType::OpaqueFd;
            let info = SemaphoreInfo { handle_type, kind, identity: identity.clone() };
            let payload = SemaphorePayload::new(File::open("/dev/null")?.into(), info)?;
            let raw = payload.as_fd().as_raw_fd();
            let refused = peer.import_semaphore(payload).err().context("it was imported")?;
            check_mismatch(refused.error(), &identity, peer.identities())?;
            check_same_fd(refused.into_payload(), raw)?;
        }
    }
    Ok(())
}

// The UUIDs as the APIs themselves return them, without the library.

const NUM_DEVICE_UUIDS_EXT: u32 = 0x9596;
const DEVICE_UUID_EXT: u32 = 0x9597;
const DRIVER_UUID_EXT: u32 = 0x9598;

type GetUnsignedBytev = unsafe extern "system" fn(u32, *mut u8);
type GetUnsignedBytei = unsafe extern "system" fn(u32, u32, *mut u8);

/// Device and driver UUID of every physical device.
fn vulkan_uuids(gpu: &VulkanContext) -> Result<Vec<(Uuid, Uuid)>> {
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
fn gl_uuids(gpu: &GlContext) -> Result<(Vec<Uuid>, Uuid)> {
    let load = |name: &CStr| -> Result<*const c_void> {
        let address = gpu.gl.loader()(name);
        ensure!(!address.is_null(), "the driver lacks {name:?}");
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
    ensure!(count > 0, "OpenGL reports {count} device UUIDs");
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
