//! Shared memory and semaphores, by plain Vulkan calls.

use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result};
use gpu_interop::ash::{self, vk};

use super::Exported;
use interop_gpu::vulkan::VulkanContext;

const OPAQUE: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
/// llvmpipe needs padding after a shared buffer.
const TAIL_BYTES: u64 = 64;

/// The functions that export memory.
pub(crate) type MemoryFd = ash::khr::external_memory_fd::Device;

/// A buffer in memory of its own, exported or imported.
pub(crate) struct RawBuffer {
    gpu: Rc<VulkanContext>,
    pub(super) handle: vk::Buffer,
    memory: vk::DeviceMemory,
    pub(super) bytes: u64,
    allocation_size: u64,
    memory_type: u32,
}

impl RawBuffer {
    pub(crate) fn create(gpu: &Rc<VulkanContext>, bytes: u64) -> Result<Self> {
        let mut made = Self::without_memory(gpu, bytes)?;
        // SAFETY: the buffer is alive.
        let needs = unsafe { gpu.device().get_buffer_memory_requirements(made.handle) };
        let types = gpu.endpoint.memory_properties().memory_types_as_slice();
        let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        let suits = |(i, ty): &(u32, &vk::MemoryType)| {
            needs.memory_type_bits >> i & 1 == 1 && ty.property_flags.contains(local)
        };
        let (memory_type, _) =
            (0u32..).zip(types).find(suits).context("the buffer has no suitable memory type")?;
        made.memory_type = memory_type;
        made.allocation_size = (needs.size.max(bytes + TAIL_BYTES)).next_multiple_of(4096);
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(OPAQUE);
        made.allocate(&mut export)?;
        Ok(made)
    }

    pub(crate) fn import(gpu: &Rc<VulkanContext>, exported: Exported) -> Result<Self> {
        let mut made = Self::without_memory(gpu, exported.bytes)?;
        (made.allocation_size, made.memory_type) = (exported.allocation_size, exported.memory_type);
        let raw = exported.memory.as_raw_fd();
        let mut import = vk::ImportMemoryFdInfoKHR::default().handle_type(OPAQUE).fd(raw);
        made.allocate(&mut import)?;
        // Imported: the driver owns it from now on.
        let _ = exported.memory.into_raw_fd();
        Ok(made)
    }

    fn without_memory(gpu: &Rc<VulkanContext>, bytes: u64) -> Result<Self> {
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(OPAQUE);
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER
            | vk::BufferUsageFlags::TRANSFER_SRC
            | vk::BufferUsageFlags::TRANSFER_DST;
        let info =
            vk::BufferCreateInfo::default().size(bytes).usage(usage).push_next(&mut external);
        // SAFETY: a valid device; the driver shares buffers as opaque fd, as the other benchmarks have checked.
        let handle = unsafe { gpu.device().create_buffer(&info, None) }?;
        let (gpu, memory) = (gpu.clone(), vk::DeviceMemory::null());
        Ok(Self { gpu, handle, memory, bytes, allocation_size: 0, memory_type: 0 })
    }

    fn allocate(&mut self, chain: &mut impl vk::ExtendsMemoryAllocateInfo) -> Result<()> {
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(self.allocation_size)
            .memory_type_index(self.memory_type)
            .push_next(chain);
        // SAFETY: size and type suit the buffer, or are the exporter's; bound once, at 0.
        unsafe {
            self.memory = self.gpu.device().allocate_memory(&info, None)?;
            self.gpu.device().bind_buffer_memory(self.handle, self.memory, 0)?;
        }
        Ok(())
    }

    /// Exports the memory, for an import without semaphores.
    pub(crate) fn export(&self, functions: &MemoryFd) -> Result<Exported> {
        let Self { memory, bytes, allocation_size, memory_type, .. } = *self;
        let get = vk::MemoryGetFdInfoKHR::default().memory(memory).handle_type(OPAQUE);
        // SAFETY: the memory was allocated for export; the descriptor is new and ours.
        let memory = unsafe { OwnedFd::from_raw_fd(functions.get_memory_fd(&get)?) };
        Ok(Exported { memory, allocation_size, memory_type, bytes, semaphores: None })
    }
}

impl Drop for RawBuffer {
    fn drop(&mut self) {
        // SAFETY: owned here alone; the benchmark has waited.
        unsafe {
            self.gpu.device().destroy_buffer(self.handle, None);
            self.gpu.device().free_memory(self.memory, None);
        }
    }
}

/// A timeline semaphore.
pub(super) struct RawTimeline {
    gpu: Rc<VulkanContext>,
    pub(super) handle: vk::Semaphore,
}

impl RawTimeline {
    pub(super) fn create(gpu: &Rc<VulkanContext>, exportable: bool) -> Result<Self> {
        let mut ty =
            vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let mut export = vk::ExportSemaphoreCreateInfo::default()
            .handle_types(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD);
        let mut info = vk::SemaphoreCreateInfo::default().push_next(&mut ty);
        if exportable {
            info = info.push_next(&mut export);
        }
        // SAFETY: the context enables timeline semaphores if the device has them; the caller checked that they
        // can be exported.
        let handle = unsafe { gpu.device().create_semaphore(&info, None) }?;
        Ok(Self { gpu: gpu.clone(), handle })
    }

    pub(super) fn import(gpu: &Rc<VulkanContext>, fd: OwnedFd) -> Result<Self> {
        let made = Self::create(gpu, false)?;
        let functions = Self::functions(gpu);
        let import = vk::ImportSemaphoreFdInfoKHR::default()
            .semaphore(made.handle)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD)
            .fd(fd.as_raw_fd());
        // SAFETY: a new semaphore, and the descriptor of a timeline semaphore of the same GPU and driver.
        unsafe { functions.import_semaphore_fd(&import) }?;
        // Imported: the driver owns it from now on.
        let _ = fd.into_raw_fd();
        Ok(made)
    }

    pub(super) fn export(&self) -> Result<OwnedFd> {
        let get = vk::SemaphoreGetFdInfoKHR::default()
            .semaphore(self.handle)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD);
        // SAFETY: the semaphore was created for export; the descriptor is new and ours.
        Ok(unsafe { OwnedFd::from_raw_fd(Self::functions(&self.gpu).get_semaphore_fd(&get)?) })
    }

    fn functions(gpu: &VulkanContext) -> ash::khr::external_semaphore_fd::Device {
        ash::khr::external_semaphore_fd::Device::new(gpu.vulkan.instance(), gpu.device())
    }
}

impl Drop for RawTimeline {
    fn drop(&mut self) {
        // SAFETY: owned here alone; the benchmark has waited.
        unsafe { self.gpu.device().destroy_semaphore(self.handle, None) };
    }
}
