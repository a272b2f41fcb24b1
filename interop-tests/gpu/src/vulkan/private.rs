//! Buffers of this device alone.

use anyhow::{Result, bail};
use gpu_interop::ash::vk;
use gpu_interop::headless::Vulkan;

/// A private buffer and its memory.
#[derive(Debug)]
pub struct PrivateBuffer {
    device: Vulkan,
    /// The buffer.
    pub buffer: vk::Buffer,
    /// Its memory.
    pub memory: vk::DeviceMemory,
    /// Its size in bytes.
    pub bytes: u64,
}

impl PrivateBuffer {
    /// Creates a buffer in device memory.
    ///
    /// # Errors
    /// If the driver is out of memory.
    pub fn device(vulkan: &Vulkan, bytes: u64) -> Result<Self> {
        Self::new(vulkan, bytes, vk::MemoryPropertyFlags::DEVICE_LOCAL)
    }

    /// Creates a buffer that the host can map.
    ///
    /// # Errors
    /// If the driver is out of memory.
    pub fn host(vulkan: &Vulkan, bytes: u64) -> Result<Self> {
        let host = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        // Cached memory reads back at full speed; not every device has it.
        Self::new(vulkan, bytes, host | vk::MemoryPropertyFlags::HOST_CACHED)
            .or_else(|_| Self::new(vulkan, bytes, host))
    }

    fn new(vulkan: &Vulkan, bytes: u64, wanted: vk::MemoryPropertyFlags) -> Result<Self> {
        let device = vulkan.device();
        let usage = vk::BufferUsageFlags::TRANSFER_SRC
            | vk::BufferUsageFlags::TRANSFER_DST
            | vk::BufferUsageFlags::STORAGE_BUFFER;
        let info = vk::BufferCreateInfo::default().size(bytes).usage(usage);
        // SAFETY: a valid device; size and usage are not 0.
        let buffer = unsafe { device.create_buffer(&info, None) }?;
        let mut made = Self { device: vulkan.clone(), buffer, memory: Default::default(), bytes };
        // SAFETY: the buffer is alive; the physical device is the device's.
        let (needs, types) = unsafe {
            let physical = vulkan.physical_device();
            let types = vulkan.instance().get_physical_device_memory_properties(physical);
            (device.get_buffer_memory_requirements(buffer), types)
        };
        let suits = |(i, ty): &(u32, &vk::MemoryType)| {
            needs.memory_type_bits >> i & 1 == 1 && ty.property_flags.contains(wanted)
        };
        let Some((index, _)) = (0u32..).zip(types.memory_types_as_slice()).find(suits) else {
            bail!("the device has no memory type for a private buffer");
        };
        let info =
            vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(index);
        // SAFETY: size and type are the buffer's own; bound once, at 0.
        unsafe {
            made.memory = device.allocate_memory(&info, None)?;
            device.bind_buffer_memory(buffer, made.memory, 0)?;
        }
        Ok(made)
    }

    /// Calls `work` with the first `bytes` bytes of a buffer created by [`host`](Self::host).
    ///
    /// # Errors
    /// If the driver fails to map.
    pub fn with_bytes(&self, bytes: usize, work: impl FnOnce(&mut [u8])) -> Result<()> {
        assert!(bytes as u64 <= self.bytes);
        let device = self.device.device();
        // SAFETY: the memory is host-visible, alive, not mapped, and at least `bytes` long; no
        // submitted work uses it (`run` waits), and the slice ends before the unmapping.
        unsafe {
            let flags = vk::MemoryMapFlags::empty();
            let start = device.map_memory(self.memory, 0, vk::WHOLE_SIZE, flags)?;
            work(std::slice::from_raw_parts_mut(start.cast(), bytes));
            device.unmap_memory(self.memory);
        }
        Ok(())
    }
}

impl Drop for PrivateBuffer {
    fn drop(&mut self) {
        let device = self.device.device();
        // SAFETY: owned here alone; `run` and the benchmarks wait before they drop it.
        unsafe {
            device.destroy_buffer(self.buffer, None);
            device.free_memory(self.memory, None);
        }
    }
}
