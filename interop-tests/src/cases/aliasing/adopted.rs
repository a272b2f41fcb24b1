//! Group C: memory aliasing, Vulkan to Vulkan. Buffers that the user made, with export enabled.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::vulkan::AdoptedBuffer;
use gpu_interop::{BufferDesc, Error};

use crate::cases::aliasing::{Place, coherent};
use crate::harness::{Case, TestGpu};
use interop_gpu::vulkan::VulkanContext;

const BYTES: usize = 64 << 10;

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/buffer/{what}");
    let mut cases = Vec::new();
    for (kind, dedicated, blocks) in
        [("plain", false, 0), ("at_an_offset", false, 3), ("dedicated", true, 0)]
    {
        cases.extend(Place::ALL.map(|place| {
            let name = name(&format!("adopted/{kind}/{}/30c", place.name()));
            Case::new(name, move |machine| adopted(machine, place, dedicated, blocks))
        }));
    }
    cases.push(Case::new(name("adopted/contradictions_are_refused/30d"), contradictions));
    cases
}

/// A buffer and memory as an app makes them by itself.
struct Users<'a> {
    gpu: &'a VulkanContext,
    made: AdoptedBuffer,
}

impl<'a> Users<'a> {
    /// Bound `blocks` times the alignment into its memory.
    fn new(gpu: &'a VulkanContext, dedicated: bool, blocks: u64) -> Result<Self> {
        let desc = BufferDesc::storage(BYTES as u64);
        let device = gpu.device();
        let opaque = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(opaque);
        let info = vk::BufferCreateInfo::default()
            .size(desc.size)
            .usage(vk::BufferUsageFlags::from_raw(desc.usage.bits()))
            .push_next(&mut external);
        // SAFETY: a valid device that has opaque fds enabled; size and usage are not 0.
        let buffer = unsafe { device.create_buffer(&info, None) }?;
        // SAFETY: the buffer is alive.
        let needs = unsafe { device.get_buffer_memory_requirements(buffer) };
        let suits = |(index, ty): &(u32, &vk::MemoryType)| {
            let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
            needs.memory_type_bits >> index & 1 == 1 && ty.property_flags.contains(local)
        };
        let types = gpu.endpoint.memory_properties().memory_types_as_slice();
        let found = (0..).zip(types).find(suits).context("no device-local memory");
        let made = AdoptedBuffer {
            buffer,
            desc,
            memory: vk::DeviceMemory::null(),
            offset: blocks * needs.alignment,
            allocation_size: blocks * needs.alignment + needs.size,
            memory_type_index: found?.0,
            dedicated,
            handle_type: MemoryHandleType::OpaqueFd,
        };
        let mut users = Self { gpu, made };
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(opaque);
        let mut own = vk::MemoryDedicatedAllocateInfo::default().buffer(buffer);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(made.allocation_size)
            .memory_type_index(made.memory_type_index)
            .push_next(&mut export);
        if dedicated {
            info = info.push_next(&mut own);
        }
        // SAFETY: size and type are the buffer's own; it is bound once, at a multiple of its
        // alignment.
        unsafe {
            users.made.memory = device.allocate_memory(&info, None)?;
            device.bind_buffer_memory(buffer, users.made.memory, made.offset)?;
        }
        Ok(users)
    }
}

impl Drop for Users<'_> {
    fn drop(&mut self) {
        let device = self.gpu.device();
        // SAFETY: the user's own, and idle: uploads and downloads wait. What adopted them is gone.
        unsafe {
            device.destroy_buffer(self.made.buffer, None);
            device.free_memory(self.made.memory, None);
        }
    }
}

/// Adopted, exported and imported: it aliases. The user's own handles are left alone.
fn adopted(machine: &TestGpu, place: Place, dedicated: bool, blocks: u64) -> Result<()> {
    let (first, other) = (machine.vulkan(), place.gpu(machine)?);
    let users = Users::new(first, dedicated, blocks)?;
    // SAFETY: `made` says how they were made, and they are dropped after `adopted`.
    let adopted = unsafe { first.endpoint.adopt_buffer(&users.made) }?;
    ensure!(adopted.handle() == users.made.buffer, "another buffer");
    let payload = adopted.export()?;
    ensure!(payload.offset() == users.made.offset, "another offset");
    ensure!(payload.memory().info().dedicated == dedicated, "dedicated is not told");
    let imported = other.endpoint.import_buffer(payload)?;
    coherent(&[(first, adopted.handle()), (other, imported.handle())], BYTES)?;
    // The adopted object goes, and the user's buffer is as it was.
    drop(adopted);
    coherent(&[(first, users.made.buffer), (other, imported.handle())], BYTES)
        .context("after the adopted object was dropped")
}

fn contradictions(machine: &TestGpu) -> Result<()> {
    let gpu = machine.vulkan();
    let users = Users::new(gpu, false, 0)?;
    let made = users.made;
    let types = gpu.endpoint.memory_properties().memory_type_count;
    for (what, told) in [
        ("past the end", AdoptedBuffer { offset: made.allocation_size, ..made }),
        ("in less memory than it takes", AdoptedBuffer { allocation_size: 1, ..made }),
        ("in memory of no type", AdoptedBuffer { memory_type_index: types, ..made }),
        (
            "dedicated at an offset",
            AdoptedBuffer {
                offset: 64,
                allocation_size: made.allocation_size + 64,
                dedicated: true,
                ..made
            },
        ),
        ("of size 0", AdoptedBuffer { desc: BufferDesc::storage(0), ..made }),
    ] {
        // SAFETY: what is told is not true, but both handles are good, and outlive what is returned:
        // nothing is, for the figures contradict each other.
        match unsafe { gpu.endpoint.adopt_buffer(&told) } {
            Err(Error::Invalid(_)) => {}
            other => bail!("adopted {what}: {other:?}"),
        }
    }
    Ok(())
}
