//! Shared buffers: created for export, put at an offset of an allocation, or adopted.

use std::fmt;
use std::sync::Arc;

use ash::vk;

use super::allocation::{BufferOptions, DedicatedTo};
use super::conv;
use super::endpoint::{Endpoint, Shared, check_memory_type};
use super::error::VkResultExt;
use super::memory::Memory;
use super::requirements::Requirements;
use crate::capabilities::Dedicated;
use crate::desc::{BufferDesc, BufferUsage};
use crate::error::{Invalid, Result};
use crate::fd::MemoryHandleType;
use crate::payload::{BufferPayload, MemoryInfo, check_range};

/// A buffer in shared memory.
///
/// Dropping it destroys the `VkBuffer` and, with the last user of its allocation, frees the memory.
/// Whoever submits work that uses it keeps it until that work is done.
pub struct Buffer {
    // In this order: the buffer goes before the memory it is bound to.
    pub(crate) raw: RawBuffer,
    pub(crate) memory: Memory,
    pub(crate) offset: u64,
    pub(crate) desc: BufferDesc,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("handle", &self.raw.handle)
            .field("desc", &self.desc)
            .field("offset", &self.offset)
            .field("memory", &self.memory)
            .finish()
    }
}

/// A `VkBuffer` that is destroyed when dropped, unless it is the user's.
pub(crate) struct RawBuffer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: vk::Buffer,
    /// Whether the handle type it is shared by wants memory of its own.
    dedicated: Dedicated,
    owned: bool,
}

impl Drop for RawBuffer {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: the handle was created by this library and is owned by this structure alone.
            // That no submitted work uses it is promised with every submit
            // (VUID-vkDestroyBuffer-buffer-00922).
            unsafe { self.shared.device.destroy_buffer(self.handle, None) };
        }
    }
}

impl RawBuffer {
    pub(crate) fn requirements(&self) -> Requirements {
        let info = vk::BufferMemoryRequirementsInfo2::default().buffer(self.handle);
        let mut dedicated = vk::MemoryDedicatedRequirements::default();
        let mut requirements = vk::MemoryRequirements2::default().push_next(&mut dedicated);
        // SAFETY: the buffer is alive and of this device; Vulkan 1.1 has the call and the structure.
        unsafe { self.shared.device.get_buffer_memory_requirements2(&info, &mut requirements) };
        Requirements::of_buffer(requirements.memory_requirements, &dedicated)
            .shared_by(self.dedicated)
    }

    /// Binds the buffer, which makes it a whole one.
    pub(crate) fn bind(self, memory: &Memory, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        // SAFETY: both are alive and of this device, the buffer is not bound yet, and offset, size,
        // alignment, type, dedication and device address were checked by the callers against the
        // buffer's own requirements, or the memory was allocated for them.
        unsafe { self.shared.device.bind_buffer_memory(self.handle, memory.inner.handle, offset) }
            .of("vkBindBufferMemory")?;
        Ok(Buffer { raw: self, memory: memory.clone(), offset, desc: *desc })
    }
}

/// A buffer and memory that the user made, with export enabled on both.
#[derive(Clone, Copy, Debug)]
pub struct AdoptedBuffer {
    /// The buffer, made with `VkExternalMemoryBufferCreateInfo` of `handle_type`.
    pub buffer: vk::Buffer,
    /// What it was made as.
    pub desc: BufferDesc,
    /// The memory it is bound to, allocated with `VkExportMemoryAllocateInfo` of `handle_type`, and
    /// with `VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT` where `desc.usage` has
    /// [`BufferUsage::DEVICE_ADDRESS`].
    pub memory: vk::DeviceMemory,
    /// Where it is bound, in bytes.
    pub offset: u64,
    /// `VkMemoryAllocateInfo::allocationSize`, in bytes.
    pub allocation_size: u64,
    /// `VkMemoryAllocateInfo::memoryTypeIndex`.
    pub memory_type_index: u32,
    /// Whether it was allocated with `VkMemoryDedicatedAllocateInfo` for this buffer.
    pub dedicated: bool,
    /// How it can be exported.
    pub handle_type: MemoryHandleType,
}

impl Endpoint {
    /// Creates a buffer in memory that can be exported.
    ///
    /// The memory is the buffer's own where the driver requires or prefers that, by
    /// `options.dedicated`. Its content is undefined.
    ///
    /// # Errors
    /// [`Invalid`] for a wrong description, [`Missing`](crate::error::Missing) where the driver can't export such a buffer,
    /// [`Driver`](crate::Error::Driver) where it is out of memory.
    ///
    /// # References
    /// `VkExternalMemoryBufferCreateInfo`, `VkExportMemoryAllocateInfo`,
    /// `VkMemoryDedicatedAllocateInfo`.
    pub fn create_buffer(&self, desc: &BufferDesc, options: BufferOptions) -> Result<Buffer> {
        let raw = self.create_exportable_buffer(desc, options.handle_type)?;
        let needs = raw.requirements();
        let dedicated = options.dedicated.decide(&needs);
        let index = self.choose_type(needs.types, options.memory)?;
        let (size, to) = if dedicated {
            (needs.size, DedicatedTo::Buffer(raw.handle))
        } else {
            (self.padded(0, needs.size)?, DedicatedTo::Nothing)
        };
        let addressed = desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        let memory = self.shared.allocate(size, index, options.handle_type, to, addressed)?;
        raw.bind(&memory, 0, desc)
    }

    /// Creates several buffers at offsets of one exportable allocation.
    ///
    /// # Errors
    /// As [`create_buffer`](Self::create_buffer), and [`Invalid`] where one of them needs an
    /// allocation of its own.
    pub fn create_buffers(
        &self,
        descs: &[BufferDesc],
        options: BufferOptions,
    ) -> Result<Vec<Buffer>> {
        let (memory, offsets) = self.allocate(descs, options)?;
        descs.iter().zip(offsets).map(|(desc, offset)| memory.buffer(offset, desc)).collect()
    }

    /// Makes a buffer of the user's own exportable. It and its memory stay the user's, who destroys
    /// them after this object is gone.
    ///
    /// # Safety
    /// `adopted` tells the truth, both handles are of this device, and they outlive the returned
    /// buffer.
    ///
    /// # Errors
    /// [`Invalid`] where the figures contradict each other.
    pub unsafe fn adopt_buffer(&self, adopted: &AdoptedBuffer) -> Result<Buffer> {
        adopted.desc.validate()?;
        check_range(adopted.offset, adopted.desc.size, adopted.allocation_size)?;
        check_memory_type(&self.shared.memory_properties, adopted.memory_type_index)?;
        if adopted.dedicated && adopted.offset != 0 {
            return Err(Invalid::new("adopted.offset", "a dedicated allocation is bound at 0")
                .vuid("VUID-vkBindBufferMemory-memory-01508")
                .into());
        }
        let info = MemoryInfo {
            handle_type: adopted.handle_type,
            allocation_size: adopted.allocation_size,
            memory_type_index: Some(adopted.memory_type_index),
            dedicated: adopted.dedicated,
            identity: self.shared.identity().clone(),
        };
        // The user bound such a buffer to it, which promises that it was allocated for it.
        let addressed = adopted.desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        let memory = Memory::adopted(&self.shared, adopted.memory, info, addressed);
        let raw = RawBuffer {
            shared: self.shared.clone(),
            handle: adopted.buffer,
            dedicated: Dedicated::NotNeeded,
            owned: false,
        };
        Ok(Buffer { raw, memory, offset: adopted.offset, desc: adopted.desc })
    }

    /// A buffer without memory, after asking whether it could be exported.
    pub(crate) fn create_exportable_buffer(
        &self,
        desc: &BufferDesc,
        handle_type: MemoryHandleType,
    ) -> Result<RawBuffer> {
        self.shared.check_buffer(desc)?;
        let support = self.shared.buffer_support(desc, handle_type);
        support.export?;
        self.create_raw_buffer(desc, handle_type, support.dedicated)
    }

    /// A buffer without memory, after asking whether it could be imported.
    pub(crate) fn create_importable_buffer(
        &self,
        desc: &BufferDesc,
        handle_type: MemoryHandleType,
    ) -> Result<RawBuffer> {
        self.shared.check_buffer(desc)?;
        let support = self.shared.buffer_support(desc, handle_type);
        support.import?;
        self.create_raw_buffer(desc, handle_type, support.dedicated)
    }

    /// A buffer without memory, for memory of `handle_type`.
    fn create_raw_buffer(
        &self,
        desc: &BufferDesc,
        handle_type: MemoryHandleType,
        dedicated: Dedicated,
    ) -> Result<RawBuffer> {
        let shared = &self.shared;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default()
            .handle_types(conv::memory_handle_type(handle_type));
        let info = vk::BufferCreateInfo::default()
            .size(desc.size)
            .usage(conv::buffer_usage(desc))
            .sharing_mode(vk::SharingMode::EXCLUSIVE)
            .push_next(&mut external);
        // SAFETY: the description was checked (size, usage), and the device was asked about this very
        // usage with this handle type, whose extension is enabled (`buffer_support`), by the callers.
        let handle = unsafe { shared.device.create_buffer(&info, None) }.of("vkCreateBuffer")?;
        Ok(RawBuffer { shared: shared.clone(), handle, dedicated, owned: true })
    }
}

impl Shared {
    /// Checks `desc`, and that it is no larger than a buffer of this device can be.
    fn check_buffer(&self, desc: &BufferDesc) -> Result<()> {
        desc.validate()?;
        if desc.size <= self.max_buffer_size {
            return Ok(());
        }
        let what = format!("{}, but a buffer has at most {}", desc.size, self.max_buffer_size);
        Err(Invalid::new("desc.size", what).vuid("VUID-VkBufferCreateInfo-size-06409").into())
    }
}

impl Memory {
    /// A buffer of `desc` at `offset` bytes into this memory.
    ///
    /// # Errors
    /// [`Invalid`] where the buffer is none, lies askew, reaches past the end, or the memory belongs
    /// to another resource, is of a type that doesn't suit it, or was not allocated for the device
    /// address that it is to have; [`Missing`](crate::error::Missing) where the device can't share
    /// such a buffer.
    ///
    /// # References
    /// `vkBindBufferMemory` and its VUIDs.
    pub fn buffer(&self, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        desc.validate()?;
        let (shared, info) = (&self.inner.shared, &self.inner.info);
        check_range(offset, desc.size, info.allocation_size)?;
        let endpoint = Endpoint { shared: shared.clone() };
        let raw = if self.is_imported() {
            endpoint.create_importable_buffer(desc, info.handle_type)?
        } else {
            endpoint.create_exportable_buffer(desc, info.handle_type)?
        };
        if desc.usage.contains(BufferUsage::DEVICE_ADDRESS) && !self.inner.addressed {
            return Err(Invalid::new("memory", "was not allocated for buffers with an address")
                .vuid("VUID-vkBindBufferMemory-bufferDeviceAddress-03339")
                .help("give BufferUsage::DEVICE_ADDRESS to the buffer it is allocated or imported for")
                .into());
        }
        raw.requirements().check_shared(offset, info)?;
        raw.bind(self, offset, desc)
    }
}

impl Buffer {
    /// The Vulkan handle. Owned by this object, except when adopted.
    pub fn handle(&self) -> vk::Buffer {
        self.raw.handle
    }

    /// What the buffer is.
    pub fn desc(&self) -> &BufferDesc {
        &self.desc
    }

    /// The allocation it lies in.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where in the allocation it lies, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its device address.
    ///
    /// # Errors
    /// [`Invalid`] where it was not made with [`BufferUsage::DEVICE_ADDRESS`].
    ///
    /// # References
    /// `vkGetBufferDeviceAddress`; VUID-VkBufferDeviceAddressInfo-buffer-02601.
    pub fn device_address(&self) -> Result<vk::DeviceAddress> {
        let addressed = self.desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        if !(addressed && self.raw.shared.features.buffer_device_address) {
            return Err(Invalid::new("buffer", "was not made with BufferUsage::DEVICE_ADDRESS")
                .vuid("VUID-VkBufferDeviceAddressInfo-buffer-02601")
                .help(
                    "add it to the usage of the buffer, or of the exporter's where it is imported",
                )
                .into());
        }
        let info = vk::BufferDeviceAddressInfo::default().buffer(self.raw.handle);
        // SAFETY: the buffer is alive, bound, and made with SHADER_DEVICE_ADDRESS, and the feature
        // is enabled.
        Ok(unsafe { self.raw.shared.device.get_buffer_device_address(&info) })
    }

    /// Exports the buffer: a payload with a new descriptor each time.
    ///
    /// # Errors
    /// As [`Memory::export`].
    #[doc(alias = "vkGetMemoryFdKHR")]
    pub fn export(&self) -> Result<BufferPayload> {
        Ok(BufferPayload::new(self.memory.export()?, self.offset, self.desc)?)
    }
}
