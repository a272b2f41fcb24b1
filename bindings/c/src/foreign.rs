//! What the application has of its own: its buffers and images, and descriptors from elsewhere.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};

use gpu_interop::ash::vk::{self, Handle as _};
use gpu_interop::error::Invalid;
use gpu_interop::fd::{MemoryHandleType, SemaphoreHandleType};
use gpu_interop::payload::{MemoryInfo, SemaphoreInfo};
use gpu_interop::vulkan::{AdoptedBuffer, AdoptedImage};
use gpu_interop::{
    BufferPayload, Identity, ImagePayload, MemoryPayload, Payload, Result, SemaphoreKind,
    SemaphorePayload, Uuid,
};

use crate::args::{fill, grows, handle, required, structure};
use crate::buffer::{Buffer, gi_buffer, gi_buffer_desc, memory_handle_type, unknown};
use crate::endpoint::gi_endpoint;
use crate::error::{gi_result, guard};
use crate::image::{Image, gi_image, gi_image_desc};
use crate::payload::gi_payload;

/// The Vulkan memory of an application's own buffer or image, allocated with
/// `VkExportMemoryAllocateInfo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_adopted_memory {
    /// `sizeof(gi_adopted_memory)`.
    pub struct_size: usize,
    /// The `VkDeviceMemory` that the resource is bound to.
    pub memory: u64,
    /// The offset at which it is bound, in bytes.
    pub offset: u64,
    /// `VkMemoryAllocateInfo::allocationSize`: of the whole allocation, if an allocator puts several
    /// resources into one.
    pub allocation_size: u64,
    /// `VkMemoryAllocateInfo::memoryTypeIndex`.
    pub memory_type_index: u32,
    /// 1 if it was allocated with `VkMemoryDedicatedAllocateInfo` for this resource.
    pub dedicated: u32,
    /// A `gi_memory_handle_type`, as which it can be exported. Default: opaque fd.
    pub handle_type: u32,
}

/// What an importer must know about a memory descriptor.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_memory_info {
    /// `sizeof(gi_memory_info)`.
    pub struct_size: usize,
    /// Size of the allocation in bytes, which may be more than that of the resource in it.
    pub allocation_size: u64,
    /// The offset of the resource in the allocation, in bytes.
    pub offset: u64,
    /// A `gi_memory_handle_type`. Default: opaque fd.
    pub handle_type: u32,
    /// 1 if the allocation belongs to the resource alone (`VkMemoryDedicatedAllocateInfo`).
    pub dedicated: u32,
    /// 1 if the exporter is Vulkan, and `memory_type_index` counts.
    pub has_memory_type: u32,
    /// The exporter's Vulkan memory type.
    pub memory_type_index: u32,
    /// The exporter's device UUID (`VkPhysicalDeviceIDProperties::deviceUUID`).
    pub device_uuid: [u8; 16],
    /// The exporter's driver UUID.
    pub driver_uuid: [u8; 16],
    /// 1 if `driver_uuid` counts. CUDA reports none.
    pub has_driver_uuid: u32,
}

/// What an importer must know about a semaphore's descriptor.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_semaphore_info {
    /// `sizeof(gi_semaphore_info)`.
    pub struct_size: usize,
    /// A `gi_semaphore_kind`. Default: binary.
    pub kind: u32,
    /// 1 for a sync file (`VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT`). Default: opaque fd.
    pub sync_fd: u32,
    /// The exporter's device UUID.
    pub device_uuid: [u8; 16],
    /// The exporter's driver UUID.
    pub driver_uuid: [u8; 16],
    /// 1 if `driver_uuid` counts.
    pub has_driver_uuid: u32,
}

grows!(gi_adopted_memory, gi_memory_info, gi_semaphore_info);

/// Wraps the application's own `VkBuffer`, to export it. The application still owns the buffer and
/// its memory, which must live longer than `buffer`.
///
/// Required: `desc` and `memory` describe the buffer correctly.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_buffer_adopt(
    endpoint: Option<&gi_endpoint>,
    vk_buffer: u64,
    desc: *const gi_buffer_desc,
    memory: *const gi_adopted_memory,
    buffer: Option<&mut MaybeUninit<Option<Box<gi_buffer>>>>,
) -> gi_result {
    guard(|| {
        let vulkan = required(endpoint, "endpoint")?.vulkan("endpoint")?;
        let out = required(buffer, "buffer")?;
        // SAFETY: the caller's promise.
        let (desc, memory) = unsafe { (structure(desc, "desc")?, structure(memory, "memory")?) };
        let adopted = AdoptedBuffer {
            buffer: vk::Buffer::from_raw(vk_buffer),
            desc: desc.get(),
            memory: vk::DeviceMemory::from_raw(memory.memory),
            offset: memory.offset,
            allocation_size: memory.allocation_size,
            memory_type_index: memory.memory_type_index,
            dedicated: memory.dedicated != 0,
            handle_type: memory_handle_type(memory.handle_type, "memory.handle_type")?,
        };
        not_null(&[("vk_buffer", vk_buffer), ("memory.memory", memory.memory)])?;
        // SAFETY: the caller's promise.
        let wrapped = unsafe { vulkan.adopt_buffer(&adopted) }?;
        out.write(Some(Box::new(gi_buffer(Buffer::Vulkan(wrapped)))));
        Ok(())
    })
}

/// Wraps the application's own `VkImage`, to export it. Otherwise like `gi_buffer_adopt`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_image_adopt(
    endpoint: Option<&gi_endpoint>,
    vk_image: u64,
    desc: *const gi_image_desc,
    memory: *const gi_adopted_memory,
    image: Option<&mut MaybeUninit<Option<Box<gi_image>>>>,
) -> gi_result {
    guard(|| {
        let vulkan = required(endpoint, "endpoint")?.vulkan("endpoint")?;
        let out = required(image, "image")?;
        // SAFETY: the caller's promise.
        let (desc, memory) = unsafe { (structure(desc, "desc")?, structure(memory, "memory")?) };
        let adopted = AdoptedImage {
            image: vk::Image::from_raw(vk_image),
            desc: desc.get()?,
            memory: vk::DeviceMemory::from_raw(memory.memory),
            offset: memory.offset,
            allocation_size: memory.allocation_size,
            memory_type_index: memory.memory_type_index,
            dedicated: memory.dedicated != 0,
            handle_type: memory_handle_type(memory.handle_type, "memory.handle_type")?,
        };
        not_null(&[("vk_image", vk_image), ("memory.memory", memory.memory)])?;
        // SAFETY: the caller's promise.
        let wrapped = unsafe { vulkan.adopt_image(&adopted) }?;
        out.write(Some(Box::new(gi_image(Image::Vulkan(wrapped)))));
        Ok(())
    })
}

fn not_null(handles: &[(&'static str, u64)]) -> Result<()> {
    match handles.iter().find(|(_, handle)| *handle == 0) {
        Some(&(name, _)) => Err(Invalid::new(name, "is null").into()),
        None => Ok(()),
    }
}

/// Describes a buffer whose descriptor comes from elsewhere. If it succeeds, the payload owns the
/// descriptor, and `*fd` is set to -1.
///
/// Required: `*fd` is open, and no other code closes it. Import only descriptors from processes
/// that you trust: what `info` states about an opaque fd can't be checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_payload_new_buffer(
    fd: Option<&mut c_int>,
    info: *const gi_memory_info,
    desc: *const gi_buffer_desc,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| {
        // SAFETY: the caller's promise.
        let (info, desc) = unsafe { (structure(info, "info")?, structure(desc, "desc")?.get()) };
        let made = |fd| {
            let memory = MemoryPayload::new(fd, info.get()?)?;
            Ok(BufferPayload::new(memory, info.offset, desc)?.into())
        };
        // SAFETY: the caller's promise.
        unsafe { from_descriptor(fd, payload, made) }
    })
}

/// Describes an image whose descriptor comes from elsewhere. Otherwise like
/// `gi_payload_new_buffer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_payload_new_image(
    fd: Option<&mut c_int>,
    info: *const gi_memory_info,
    desc: *const gi_image_desc,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| {
        // SAFETY: the caller's promise.
        let (info, desc) = unsafe { (structure(info, "info")?, structure(desc, "desc")?.get()?) };
        let made = |fd| {
            let memory = MemoryPayload::new(fd, info.get()?)?;
            Ok(ImagePayload::new(memory, info.offset, desc)?.into())
        };
        // SAFETY: the caller's promise.
        unsafe { from_descriptor(fd, payload, made) }
    })
}

/// Describes a semaphore whose descriptor comes from elsewhere. Otherwise like
/// `gi_payload_new_buffer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_payload_new_semaphore(
    fd: Option<&mut c_int>,
    info: *const gi_semaphore_info,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| {
        // SAFETY: the caller's promise.
        let info = unsafe { structure(info, "info") }?;
        let kind = match info.kind {
            0 => SemaphoreKind::Binary,
            1 => SemaphoreKind::Timeline,
            other => return Err(unknown("info.kind", other, "gi_semaphore_kind")),
        };
        let handle_type = match info.sync_fd {
            0 => SemaphoreHandleType::OpaqueFd,
            _ => SemaphoreHandleType::SyncFd,
        };
        let driver = (info.has_driver_uuid != 0).then_some(info.driver_uuid);
        let identity = identity(info.device_uuid, driver);
        let made = |fd| {
            let info = SemaphoreInfo { handle_type, kind, identity };
            Ok(SemaphorePayload::new(fd, info)?.into())
        };
        // SAFETY: the caller's promise.
        unsafe { from_descriptor(fd, payload, made) }
    })
}

/// Makes a payload from a duplicate of the descriptor, and closes the caller's if that succeeds.
///
/// # Safety
/// `*fd` is negative, or open and owned by the caller.
unsafe fn from_descriptor(
    fd: Option<&mut c_int>,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
    make: impl FnOnce(OwnedFd) -> Result<Payload>,
) -> Result<()> {
    let (fd, out) = (required(fd, "fd")?, required(payload, "payload")?);
    if *fd < 0 {
        return Err(Invalid::new("fd", format!("is {fd}")).into());
    }
    // SAFETY: not negative, and open (the caller's promise).
    let duplicate = unsafe { BorrowedFd::borrow_raw(*fd) }.try_clone_to_owned();
    let duplicate = duplicate.map_err(|error| Invalid::new("fd", error.to_string()))?;
    let made = make(duplicate)?;
    // SAFETY: the caller gives it away with a call that succeeds.
    drop(unsafe { OwnedFd::from_raw_fd(*fd) });
    *fd = -1;
    out.write(gi_payload::new(made));
    Ok(())
}

/// Takes the descriptor out of a payload, to pass it to another library. The caller then owns and
/// closes it. Consumes the payload: ask it for what describes the descriptor first.
#[unsafe(no_mangle)]
pub extern "C" fn gi_payload_take_fd(
    payload: Option<&mut Option<Box<gi_payload>>>,
    fd: Option<&mut MaybeUninit<c_int>>,
) -> gi_result {
    guard(|| {
        let (payload, out) = (handle(payload, "payload")?, required(fd, "fd")?);
        let Some(taken) = payload.take() else { return Ok(()) };
        let fd = match taken.0 {
            Payload::Memory(memory) => memory.into_parts().0,
            Payload::Buffer(buffer) => buffer.into_parts().0.into_parts().0,
            Payload::Image(image) => image.into_parts().0.into_parts().0,
            Payload::Semaphore(semaphore) => semaphore.into_parts().0,
            other => {
                *payload = Some(Box::new(gi_payload(other)));
                return Err(Invalid::new("payload", "is of an unknown kind").into());
            }
        };
        out.write(fd.into_raw_fd());
        Ok(())
    })
}

/// Writes what an importer must know about the memory of a buffer or an image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_payload_get_memory_info(
    payload: Option<&gi_payload>,
    info: *mut gi_memory_info,
) -> gi_result {
    guard(|| {
        let (memory, offset) = match &required(payload, "payload")?.0 {
            Payload::Memory(memory) => (memory, 0),
            Payload::Buffer(buffer) => (buffer.memory(), buffer.offset()),
            Payload::Image(image) => (image.memory(), image.offset()),
            _ => return Err(Invalid::new("payload", "is a semaphore").into()),
        };
        let found = memory.info();
        // SAFETY: the caller's promise.
        let struct_size = unsafe { structure(info, "info") }?.struct_size;
        let written = gi_memory_info {
            struct_size,
            allocation_size: found.allocation_size,
            offset,
            handle_type: (found.handle_type == MemoryHandleType::DmaBuf).into(),
            dedicated: found.dedicated.into(),
            has_memory_type: found.memory_type_index.is_some().into(),
            memory_type_index: found.memory_type_index.unwrap_or(0),
            device_uuid: *found.identity.device.as_bytes(),
            driver_uuid: found.identity.driver.map_or([0; 16], |uuid| *uuid.as_bytes()),
            has_driver_uuid: found.identity.driver.is_some().into(),
        };
        // SAFETY: as above.
        unsafe { fill(info, &written) };
        Ok(())
    })
}

impl gi_memory_info {
    fn get(&self) -> Result<MemoryInfo> {
        let driver = (self.has_driver_uuid != 0).then_some(self.driver_uuid);
        Ok(MemoryInfo {
            handle_type: memory_handle_type(self.handle_type, "info.handle_type")?,
            allocation_size: self.allocation_size,
            memory_type_index: (self.has_memory_type != 0).then_some(self.memory_type_index),
            dedicated: self.dedicated != 0,
            identity: identity(self.device_uuid, driver),
        })
    }
}

fn identity(device: [u8; 16], driver: Option<[u8; 16]>) -> Identity {
    let name = "the exporter's GPU".to_owned();
    Identity { device: Uuid::from_bytes(device), driver: driver.map(Uuid::from_bytes), name }
}
