//! Shared buffers: created for export, or at an offset of an allocation.

use std::fmt;
use std::sync::Arc;

use ash::vk;

use super::conv::{self, VkResultExt};
use super::endpoint::Endpoint;
use super::memory::{DedicatedTo, Memory};
use super::requirements::{BufferOptions, Requirements, choose_type};
use crate::capabilities::{Dedicated, MemorySupport, Support};
use crate::desc::{BufferDesc, BufferUsage};
use crate::error::{Invalid, Result};
use crate::fd::MemoryHandleType;
use crate::payload::{BufferPayload, check_range};

/// A buffer in shared memory. Cheap to clone.
///
/// Dropping the last clone destroys the `VkBuffer` and, with the last user of its allocation, frees
/// the memory. Keep a clone until submitted work that uses the buffer is done.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<Inner>,
}

struct Inner {
    // In this order: the buffer is destroyed before its memory is freed.
    raw: RawBuffer,
    memory: Memory,
    offset: u64,
    desc: BufferDesc,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { raw, memory, offset, desc } = &*self.inner;
        f.debug_struct("Buffer")
            .field("handle", &raw.handle)
            .field("desc", desc)
            .field("offset", offset)
            .field("memory", memory)
            .finish()
    }
}

/// A `VkBuffer` that is destroyed when dropped, unless it is the user's.
pub(super) struct RawBuffer {
    pub(super) handle: vk::Buffer,
    /// What the handle type that it is shared by requires.
    dedicated: Dedicated,
    owned: bool,
    endpoint: Endpoint,
}

impl Drop for RawBuffer {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: this library created the handle, and this structure is its only owner. The
            // caller of every submit promises that the buffer is kept until the work is done
            // (VUID-vkDestroyBuffer-buffer-00922).
            unsafe { self.endpoint.device().destroy_buffer(self.handle, None) };
        }
    }
}

impl RawBuffer {
    /// Wraps the user's buffer.
    pub(super) fn adopted(endpoint: &Endpoint, handle: vk::Buffer, dedicated: Dedicated) -> Self {
        Self { handle, dedicated, owned: false, endpoint: endpoint.clone() }
    }

    pub(super) fn requirements(&self) -> Requirements {
        let info = vk::BufferMemoryRequirementsInfo2::default().buffer(self.handle);
        let mut dedicated = vk::MemoryDedicatedRequirements::default();
        let mut requirements = vk::MemoryRequirements2::default().push_next(&mut dedicated);
        let device = self.endpoint.device();
        // SAFETY: the buffer is alive and of this device; Vulkan 1.1 has the call and the structure.
        unsafe { device.get_buffer_memory_requirements2(&info, &mut requirements) };
        Requirements::of_buffer(requirements.memory_requirements, &dedicated)
            .shared_by(self.dedicated)
    }

    /// Binds the buffer to memory that its requirements were checked against.
    pub(super) fn bind(self, memory: Memory, offset: u64, desc: BufferDesc) -> Result<Buffer> {
        // SAFETY: both are alive and of this device, and the buffer is not bound yet. The callers
        // checked offset, size, alignment, type, dedication and device address against the buffer's
        // own requirements, or allocated the memory for them.
        unsafe { self.endpoint.device().bind_buffer_memory(self.handle, memory.handle(), offset) }
            .context("vkBindBufferMemory")?;
        Ok(self.bound(memory, offset, desc))
    }

    /// The buffer, which is bound to `memory`.
    pub(super) fn bound(self, memory: Memory, offset: u64, desc: BufferDesc) -> Buffer {
        Buffer { inner: Arc::new(Inner { raw: self, memory, offset, desc }) }
    }
}

impl Endpoint {
    /// Creates a buffer in memory that can be exported.
    ///
    /// `options.dedicated` decides whether the memory is the buffer's own; by default it is if the
    /// driver requires or prefers that. The content is undefined.
    ///
    /// # Errors
    /// [`Invalid`] for an invalid description, [`Missing`](crate::error::Missing) if the driver
    /// can't export such a buffer, [`Driver`](crate::Error::Driver) if memory runs out.
    ///
    /// # References
    /// `VkExternalMemoryBufferCreateInfo`, `VkExportMemoryAllocateInfo`,
    /// `VkMemoryDedicatedAllocateInfo`.
    #[doc(alias = "vkCreateBuffer")]
    pub fn create_buffer(&self, desc: &BufferDesc, options: BufferOptions) -> Result<Buffer> {
        desc.validate()?;
        let raw = self.exportable_buffer(desc, options.handle_type)?;
        let needs = raw.requirements();
        let index = choose_type(self.memory_properties(), needs.types, options.memory)?;
        let (size, to) = if options.dedicated.decide(&needs) {
            (needs.size, DedicatedTo::Buffer(raw.handle))
        } else {
            (self.padded(0, needs.size)?, DedicatedTo::Nothing)
        };
        let addressable = desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        let memory = self.allocate_exportable(size, index, options.handle_type, to, addressable)?;
        raw.bind(memory, 0, *desc)
    }

    /// Returns the end of a buffer at `offset`, including the padding that a driver requires after it.
    pub(super) fn padded(&self, offset: u64, size: u64) -> Result<u64> {
        let end = offset.checked_add(size);
        end.and_then(|end| end.checked_add(self.workarounds().buffer_tail_bytes()))
            .ok_or_else(|| Invalid::new("desc", "is too large to be allocated").into())
    }

    /// Creates a buffer without memory, if it can be exported. `desc` is valid.
    pub(super) fn exportable_buffer(
        &self,
        desc: &BufferDesc,
        handle_type: MemoryHandleType,
    ) -> Result<RawBuffer> {
        self.create_raw_buffer(desc, handle_type, |support| support.export.clone())
    }

    /// Creates a buffer without memory, if it can be imported. `desc` is valid.
    pub(super) fn importable_buffer(
        &self,
        desc: &BufferDesc,
        handle_type: MemoryHandleType,
    ) -> Result<RawBuffer> {
        self.create_raw_buffer(desc, handle_type, |support| support.import.clone())
    }

    /// Creates a buffer without memory, for memory of `handle_type`, if it is supported.
    fn create_raw_buffer(
        &self,
        desc: &BufferDesc,
        handle_type: MemoryHandleType,
        is_supported: impl FnOnce(&MemorySupport) -> Support,
    ) -> Result<RawBuffer> {
        let limit = self.max_buffer_size();
        if desc.size > limit {
            let problem = format!("{}, but a buffer has at most {limit} bytes", desc.size);
            return Err(Invalid::new("desc.size", problem)
                .vuid("VUID-VkBufferCreateInfo-size-06409")
                .into());
        }
        let support = self.buffer_support(desc, handle_type);
        is_supported(&support)?;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default()
            .handle_types(conv::memory_handle_type(handle_type));
        let info = vk::BufferCreateInfo::default()
            .size(desc.size)
            .usage(conv::buffer_usage(desc))
            .sharing_mode(vk::SharingMode::EXCLUSIVE)
            .push_next(&mut external);
        // SAFETY: the description is valid, and the device reported that it supports this usage with
        // this handle type, whose extension is enabled.
        let handle =
            unsafe { self.device().create_buffer(&info, None) }.context("vkCreateBuffer")?;
        let (dedicated, endpoint) = (support.dedicated, self.clone());
        Ok(RawBuffer { handle, dedicated, owned: true, endpoint })
    }
}

impl Memory {
    /// Creates the buffer that `desc` describes, `offset` bytes into this memory.
    ///
    /// # Errors
    /// [`Invalid`] if the description is invalid, if the buffer is misaligned or reaches past the
    /// end, or if the memory is a dedicated allocation, is of an unsuitable type, or was not
    /// allocated for the device address that the buffer needs; [`Missing`](crate::error::Missing) if
    /// the device can't share such a buffer.
    ///
    /// # References
    /// `vkBindBufferMemory` and its VUIDs.
    #[doc(alias = "vkBindBufferMemory")]
    pub fn buffer(&self, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        desc.validate()?;
        let (endpoint, info) = (self.endpoint(), self.info());
        check_range(offset, desc.size, info.allocation_size)?;
        let raw = if self.is_imported() {
            endpoint.importable_buffer(desc, info.handle_type)?
        } else {
            endpoint.exportable_buffer(desc, info.handle_type)?
        };
        if desc.usage.contains(BufferUsage::DEVICE_ADDRESS) && !self.is_addressable() {
            return Err(Invalid::new(
                "memory",
                "was not allocated for buffers with a device address",
            )
            .vuid("VUID-vkBindBufferMemory-bufferDeviceAddress-03339")
            .help(
                "add BufferUsage::DEVICE_ADDRESS to the buffer that the memory is allocated or \
                     imported for",
            )
            .into());
        }
        raw.requirements().check_shared(offset, info)?;
        raw.bind(self.clone(), offset, *desc)
    }
}

impl Buffer {
    /// Returns the Vulkan handle. This object owns it, unless it is adopted.
    pub fn handle(&self) -> vk::Buffer {
        self.inner.raw.handle
    }

    /// Returns the buffer's description.
    pub fn desc(&self) -> &BufferDesc {
        &self.inner.desc
    }

    /// Returns the allocation that the buffer lies in.
    pub fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    /// Returns the buffer's offset in its allocation, in bytes.
    pub fn offset(&self) -> u64 {
        self.inner.offset
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.inner.raw.endpoint
    }

    /// Returns the buffer's device address.
    ///
    /// # Errors
    /// [`Invalid`] if it was created without [`BufferUsage::DEVICE_ADDRESS`].
    ///
    /// # References
    /// `vkGetBufferDeviceAddress`; VUID-VkBufferDeviceAddressInfo-buffer-02601.
    #[doc(alias = "vkGetBufferDeviceAddress")]
    pub fn device_address(&self) -> Result<vk::DeviceAddress> {
        let addressable = self.desc().usage.contains(BufferUsage::DEVICE_ADDRESS);
        if !(addressable && self.endpoint().features().buffer_device_address) {
            return Err(Invalid::new("buffer", "was created without BufferUsage::DEVICE_ADDRESS")
                .vuid("VUID-VkBufferDeviceAddressInfo-buffer-02601")
                .help("add it to the usage; for an imported buffer, to the exporter's usage")
                .into());
        }
        let info = vk::BufferDeviceAddressInfo::default().buffer(self.handle());
        // SAFETY: the buffer is alive, bound, and created with SHADER_DEVICE_ADDRESS, and the feature
        // is enabled.
        Ok(unsafe { self.endpoint().device().get_buffer_device_address(&info) })
    }

    /// Exports the buffer: a payload with a new descriptor each time.
    ///
    /// # Errors
    /// Same as [`Memory::export`].
    #[doc(alias = "vkGetMemoryFdKHR")]
    pub fn export(&self) -> Result<BufferPayload> {
        Ok(BufferPayload::new(self.memory().export()?, self.offset(), *self.desc())?)
    }
}
