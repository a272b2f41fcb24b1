//! Shared buffers: created for export, or at an offset of an allocation.

use ash::prelude::VkResult;
use ash::vk;

use super::conv::{self, VkResultExt};
use super::endpoint::Endpoint;
use super::memory::{DedicatedTo, Memory, Side};
use super::memory_options::{BufferOptions, choose_type, sum};
use super::requirements::{BUFFER, Rules};
use super::resource::{Bound, Resource, Unbound, bound};
use crate::desc::{BufferDesc, BufferUsage};
use crate::error::{Invalid, Result};
use crate::fd::MemoryHandleType;
use crate::payload::{BufferPayload, check_range};

/// A buffer in shared memory. Cheap to clone.
///
/// Dropping the last clone destroys the `VkBuffer`, and frees the memory if no other resource uses
/// it. A submitted handoff keeps a clone until its work is done; keep one yourself for other work
/// that uses the buffer.
#[derive(Clone)]
pub struct Buffer(pub(super) Bound<vk::Buffer>);

bound!(Buffer, vk::Buffer, BufferDesc);

impl Resource for vk::Buffer {
    type Desc = BufferDesc;
    const RULES: Rules = BUFFER;
    const BIND: &'static str = "vkBindBufferMemory";

    fn dedicated_to(self) -> DedicatedTo {
        DedicatedTo::Buffer(self)
    }

    unsafe fn requirements(self, device: &ash::Device, found: &mut vk::MemoryRequirements2<'_>) {
        let info = vk::BufferMemoryRequirementsInfo2::default().buffer(self);
        // SAFETY: the caller's promise.
        unsafe { device.get_buffer_memory_requirements2(&info, found) };
    }

    unsafe fn bind(
        self,
        device: &ash::Device,
        memory: vk::DeviceMemory,
        offset: u64,
    ) -> VkResult<()> {
        // SAFETY: the caller's promise.
        unsafe { device.bind_buffer_memory(self, memory, offset) }
    }

    unsafe fn destroy(self, device: &ash::Device) {
        // SAFETY: the caller's promise.
        unsafe { device.destroy_buffer(self, None) };
    }
}

impl Endpoint {
    /// Creates a buffer in memory that can be exported.
    ///
    /// `options.dedicated` determines whether the buffer has an allocation of its own; by default
    /// it has one if the driver requires or prefers that. The content is undefined.
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
        let raw = self.unbound_buffer(desc, options.handle_type, Side::Exporter)?;
        let needs = raw.requirements();
        let index = choose_type(self.memory_properties(), needs.types, options.memory)?;
        let (size, to) = if options.decide(needs.dedicated)? {
            (needs.size, raw.handle.dedicated_to())
        } else {
            let tail = self.workarounds().buffer_tail_bytes();
            (sum(needs.size, &[tail, options.spare_bytes])?, DedicatedTo::Nothing)
        };
        let addressable = desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        let memory = self.allocate_exportable(size, index, options.handle_type, to, addressable)?;
        raw.bind(memory, 0, *desc).map(Buffer)
    }

    /// Creates a buffer without memory, if memory of `handle_type` can be shared for it. `desc` is
    /// valid.
    pub(super) fn unbound_buffer(
        &self,
        desc: &BufferDesc,
        handle_type: MemoryHandleType,
        side: Side,
    ) -> Result<Unbound<vk::Buffer>> {
        let limit = self.max_buffer_size();
        if desc.size > limit {
            let problem = format!("{}, but the device's limit is {limit} bytes", desc.size);
            return Err(Invalid::new("desc.size", problem)
                .vuid("VUID-VkBufferCreateInfo-size-06409")
                .into());
        }
        let support = self.buffer_support(desc, handle_type);
        side.check(&support)?;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default()
            .handle_types(conv::memory_handle_type(handle_type));
        let info = vk::BufferCreateInfo::default()
            .size(desc.size)
            .usage(conv::buffer_usage(desc))
            .sharing_mode(vk::SharingMode::EXCLUSIVE)
            .push_next(&mut external);
        // SAFETY: the description is valid, and the device reported that it supports this usage
        // with this handle type, whose extension is enabled.
        let handle =
            unsafe { self.device().create_buffer(&info, None) }.context("vkCreateBuffer")?;
        Ok(Unbound::created(self, handle, support.dedicated))
    }
}

impl Memory {
    /// Creates the buffer that `desc` describes, `offset` bytes into this memory.
    ///
    /// # Errors
    /// [`Invalid`] if the description is invalid, if the buffer is misaligned or reaches past the
    /// end, or if the memory is a dedicated allocation, is of an unsuitable type, or was not
    /// allocated for the device address that the buffer needs; [`Missing`](crate::error::Missing)
    /// if the device can't share such a buffer.
    ///
    /// # References
    /// `vkBindBufferMemory` and its VUIDs.
    #[doc(alias = "vkBindBufferMemory")]
    pub fn buffer(&self, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        desc.validate()?;
        let (endpoint, info) = (self.endpoint(), self.info());
        check_range(offset, desc.size, info.allocation_size)?;
        let raw = endpoint.unbound_buffer(desc, info.handle_type, self.side())?;
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
        raw.requirements().check_placed(offset, info)?;
        raw.bind(self.clone(), offset, *desc).map(Buffer)
    }
}

impl Buffer {
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
        // SAFETY: the buffer is alive, bound, and created with SHADER_DEVICE_ADDRESS, and the
        // feature is enabled.
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
