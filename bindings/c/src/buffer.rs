//! Buffers, and memory that the host maps.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use gpu_interop::ash::vk::Handle as _;
use gpu_interop::error::Invalid;
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::vulkan::{DedicatedAllocation, Mapping, MemoryLocation, MemoryOptions};
use gpu_interop::{BufferDesc, BufferUsage, Error, Result, cuda, gl, vulkan};

use crate::args::{consume, grows, handle, options, required, structure};
use crate::endpoint::{Endpoint, each_api, gi_endpoint};
use crate::error::{gi_result, guard, guard_value};
use crate::payload::gi_payload;

/// The description of a buffer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_buffer_desc {
    /// `sizeof(gi_buffer_desc)`.
    pub struct_size: usize,
    /// Size in bytes, at least 1.
    pub size: u64,
    /// `VkBufferUsageFlags`. Default: storage, and source and destination of copies.
    pub usage: u32,
}

/// Where a resource's memory is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gi_memory_location {
    /// The GPU's own memory.
    DeviceLocal = 0,
    /// Memory that the host can map, coherent.
    HostVisible = 1,
}

/// Whether a resource gets an allocation of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gi_dedicated {
    /// If the driver requires or prefers it.
    Auto = 0,
    /// Always.
    Always = 1,
    /// Only if the driver requires it.
    Avoid = 2,
}

/// The type of a memory descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gi_memory_handle_type {
    /// `VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT`.
    OpaqueFd = 0,
    /// `VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT`.
    DmaBuf = 1,
}

/// How the memory of a resource is allocated by Vulkan. Null means all defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gi_memory_options {
    /// `sizeof(gi_memory_options)`.
    pub struct_size: usize,
    /// A `gi_memory_handle_type`. Default: opaque fd.
    pub handle_type: u32,
    /// A `gi_memory_location`. Default: device-local.
    pub location: u32,
    /// A `gi_dedicated`. Default: auto.
    pub dedicated: u32,
    /// Bytes to allocate beyond the resource's requirements. Default: 0.
    pub spare_bytes: u64,
}

grows!(gi_buffer_desc, gi_memory_options);

/// Rejects a number that is not one of an enum's.
pub(crate) fn unknown(parameter: &'static str, value: u32, of: &str) -> Error {
    Invalid::new(parameter, format!("{value} is not a {of}")).into()
}

pub(crate) fn memory_handle_type(value: u32, parameter: &'static str) -> Result<MemoryHandleType> {
    match value {
        0 => Ok(MemoryHandleType::OpaqueFd),
        1 => Ok(MemoryHandleType::DmaBuf),
        other => Err(unknown(parameter, other, "gi_memory_handle_type")),
    }
}

impl gi_buffer_desc {
    pub(crate) fn get(&self) -> BufferDesc {
        let storage = BufferDesc::storage(self.size);
        match self.usage {
            0 => storage,
            bits => BufferDesc { usage: BufferUsage::from_bits_retain(bits), ..storage },
        }
    }
}

impl gi_memory_options {
    pub(crate) fn get(&self) -> Result<MemoryOptions> {
        Ok(MemoryOptions {
            handle_type: memory_handle_type(self.handle_type, "options.handle_type")?,
            memory: match self.location {
                0 => MemoryLocation::DeviceLocal,
                1 => MemoryLocation::HostVisible,
                other => return Err(unknown("options.location", other, "gi_memory_location")),
            },
            dedicated: match self.dedicated {
                0 => DedicatedAllocation::Auto,
                1 => DedicatedAllocation::Always,
                2 => DedicatedAllocation::Avoid,
                other => return Err(unknown("options.dedicated", other, "gi_dedicated")),
            },
            spare_bytes: self.spare_bytes,
        })
    }
}

/// A buffer of any API in shared memory.
pub struct gi_buffer(pub(crate) Buffer);

#[derive(Debug)]
pub(crate) enum Buffer {
    Vulkan(vulkan::Buffer),
    Gl(gl::Buffer),
    Cuda(cuda::Buffer),
}

impl gi_buffer {
    pub(crate) fn vulkan(&self, parameter: &'static str) -> Result<&vulkan::Buffer> {
        match &self.0 {
            Buffer::Vulkan(buffer) => Ok(buffer),
            _ => Err(Invalid::new(parameter, "is not a Vulkan buffer").into()),
        }
    }

    pub(crate) fn gl(&self, parameter: &'static str) -> Result<&gl::Buffer> {
        match &self.0 {
            Buffer::Gl(buffer) => Ok(buffer),
            _ => Err(Invalid::new(parameter, "is not an OpenGL buffer").into()),
        }
    }
}

/// Creates a buffer that can be exported, by Vulkan or CUDA. `options` may be null, and is for
/// Vulkan only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_buffer_create(
    endpoint: Option<&gi_endpoint>,
    desc: *const gi_buffer_desc,
    memory_options: *const gi_memory_options,
    buffer: Option<&mut MaybeUninit<Option<Box<gi_buffer>>>>,
) -> gi_result {
    guard(|| {
        let (endpoint, out) = (required(endpoint, "endpoint")?, required(buffer, "buffer")?);
        // SAFETY: the caller's promise.
        let (desc, memory) =
            unsafe { (structure(desc, "desc")?.get(), options(memory_options, "options")?.get()?) };
        let created = match &endpoint.0 {
            Endpoint::Vulkan(vulkan) => Buffer::Vulkan(vulkan.create_buffer(&desc, memory)?),
            Endpoint::Cuda(cuda) => Buffer::Cuda(cuda.create_buffer(&desc)?),
            Endpoint::Gl(_) => {
                return Err(Invalid::new("endpoint", "is OpenGL, which exports nothing")
                    .help("create the buffer with Vulkan or CUDA and import it")
                    .into());
            }
        };
        out.write(Some(Box::new(gi_buffer(created))));
        Ok(())
    })
}

/// Imports a buffer. If it succeeds, it consumes the payload and sets `*payload` to null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_buffer_import(
    endpoint: Option<&gi_endpoint>,
    payload: Option<&mut Option<Box<gi_payload>>>,
    buffer: Option<&mut MaybeUninit<Option<Box<gi_buffer>>>>,
) -> gi_result {
    guard(|| {
        let (endpoint, out) = (required(endpoint, "endpoint")?, required(buffer, "buffer")?);
        let import = |gi_payload(payload)| {
            payload.into_buffer().and_then(|payload| {
                let imported = match &endpoint.0 {
                    Endpoint::Vulkan(peer) => peer.import_buffer(payload).map(Buffer::Vulkan),
                    Endpoint::Gl(peer) => peer.import_buffer(payload).map(Buffer::Gl),
                    Endpoint::Cuda(peer) => peer.import_buffer(payload).map(Buffer::Cuda),
                };
                imported.map_err(|error| error.map(Into::into))
            })
        };
        let imported = consume(handle(payload, "payload")?, import, gi_payload)?;
        out.write(Some(Box::new(gi_buffer(imported))));
        Ok(())
    })
}

/// Exports a buffer of Vulkan or CUDA, with a new descriptor each time.
#[unsafe(no_mangle)]
pub extern "C" fn gi_buffer_export(
    buffer: Option<&gi_buffer>,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| {
        let (buffer, out) = (required(buffer, "buffer")?, required(payload, "payload")?);
        let exported = match &buffer.0 {
            Buffer::Vulkan(buffer) => buffer.export()?,
            Buffer::Cuda(buffer) => buffer.export()?,
            Buffer::Gl(_) => {
                return Err(Invalid::new("buffer", "is of OpenGL, which exports nothing").into());
            }
        };
        out.write(gi_payload::new(exported));
        Ok(())
    })
}

/// Returns the API's own handle: a `VkBuffer`, an OpenGL name, or a `CUdeviceptr`; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_buffer_handle(buffer: Option<&gi_buffer>) -> u64 {
    guard_value(|| match buffer.map(|buffer| &buffer.0) {
        None => 0,
        Some(Buffer::Vulkan(buffer)) => buffer.handle().as_raw(),
        Some(Buffer::Gl(buffer)) => buffer.name().0.get().into(),
        Some(Buffer::Cuda(buffer)) => buffer.device_ptr(),
    })
}

/// Returns the size of a buffer in bytes; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_buffer_size(buffer: Option<&gi_buffer>) -> u64 {
    buffer.map_or(0, |buffer| each_api!(Buffer, &buffer.0, buffer => buffer.desc().size))
}

/// Writes the `VkDeviceAddress` of a Vulkan buffer whose usage includes
/// `VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT`.
#[unsafe(no_mangle)]
pub extern "C" fn gi_buffer_device_address(
    buffer: Option<&gi_buffer>,
    address: Option<&mut MaybeUninit<u64>>,
) -> gi_result {
    guard(|| {
        let out = required(address, "address")?;
        out.write(required(buffer, "buffer")?.vulkan("buffer")?.device_address()?);
        Ok(())
    })
}

/// Ends the release of a Vulkan or OpenGL buffer that no ticket acquires any more. Its content is
/// undefined afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn gi_buffer_reclaim(buffer: Option<&gi_buffer>) -> gi_result {
    guard(|| {
        match &required(buffer, "buffer")?.0 {
            Buffer::Vulkan(buffer) => buffer.reclaim(),
            Buffer::Gl(buffer) => buffer.reclaim(),
            Buffer::Cuda(_) => {}
        }
        Ok(())
    })
}

/// Destroys a buffer; null is allowed. The memory lives as long as another API or process uses it.
/// What a submitted handoff uses is kept until the GPU is done with it.
#[unsafe(no_mangle)]
pub extern "C" fn gi_buffer_destroy(buffer: Option<Box<gi_buffer>>) {
    guard_value(|| drop(buffer));
}

/// Memory of a buffer, mapped for the host. It keeps the memory.
pub struct gi_mapping(Mapping);

/// Maps a Vulkan buffer in host-visible memory. Several mappings of one buffer are allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_buffer_map(
    buffer: Option<&gi_buffer>,
    mapping: Option<&mut MaybeUninit<Option<Box<gi_mapping>>>>,
) -> gi_result {
    guard(|| {
        let out = required(mapping, "mapping")?;
        let mapped = required(buffer, "buffer")?.vulkan("buffer")?.map()?;
        out.write(Some(Box::new(gi_mapping(mapped))));
        Ok(())
    })
}

/// Returns the address of the buffer's first byte; null for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_mapping_data(mapping: Option<&gi_mapping>) -> *mut c_void {
    mapping.map_or(std::ptr::null_mut(), |mapping| mapping.0.as_ptr().cast())
}

/// Returns the number of mapped bytes; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_mapping_size(mapping: Option<&gi_mapping>) -> usize {
    mapping.map_or(0, |mapping| mapping.0.len())
}

/// Makes what the host wrote visible to the GPU. Does nothing for coherent memory.
#[unsafe(no_mangle)]
pub extern "C" fn gi_mapping_flush(mapping: Option<&gi_mapping>) -> gi_result {
    guard(|| required(mapping, "mapping")?.0.flush())
}

/// Makes what the GPU wrote visible to the host. Does nothing for coherent memory.
#[unsafe(no_mangle)]
pub extern "C" fn gi_mapping_invalidate(mapping: Option<&gi_mapping>) -> gi_result {
    guard(|| required(mapping, "mapping")?.0.invalidate())
}

/// Destroys a mapping; null is allowed. The address is then no longer valid.
#[unsafe(no_mangle)]
pub extern "C" fn gi_mapping_destroy(mapping: Option<Box<gi_mapping>>) {
    guard_value(|| drop(mapping));
}
