//! Family C: buffers that the application created, with export enabled.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::headless::{Vulkan, VulkanOptions};
use gpu_interop::vulkan::AdoptedBuffer;
use gpu_interop::{BufferDesc, Error};

use crate::cases::support::importers::Place;
use crate::cases::support::views::{View, check_aliases};
use crate::harness::{Case, TestGpu};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 64 << 10;

pub(in crate::cases) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/buffer/{what}");
    let mut cases = Vec::new();
    for (kind, dedicated, blocks) in
        [("plain", false, 0), ("at_an_offset", false, 3), ("dedicated", true, 0)]
    {
        cases.extend(Place::ALL.map(|place| {
            let name = name(&format!("adopted/{kind}/{}/30c", place.name()));
            Case::new(name, move |test_gpu| adopted(test_gpu, place, dedicated, blocks))
        }));
    }
    cases.push(Case::new(name("adopted/contradictions_are_refused/30d"), contradictions));
    cases
        .push(Case::new(name("adopted/the_size_of_a_suballocation_is_refused/30h"), suballocation));
    cases.push(Case::new(name("adopted/memory_not_for_export_is_refused/30i"), not_for_export));
    cases
}

/// A buffer and memory as an application creates them.
struct Owned<'a> {
    gpu: &'a VulkanContext,
    info: AdoptedBuffer,
}

impl<'a> Owned<'a> {
    /// Creates a buffer, at `blocks` times the alignment in its memory.
    fn new(gpu: &'a VulkanContext, dedicated: bool, blocks: u64) -> Result<Self> {
        Self::with_memory(gpu, dedicated, blocks, 0, true)
    }

    /// Creates a buffer whose memory has `spare` bytes more.
    fn with_memory(
        gpu: &'a VulkanContext,
        dedicated: bool,
        blocks: u64,
        spare: u64,
        for_export: bool,
    ) -> Result<Self> {
        let desc = BufferDesc::storage(BYTES);
        let device = gpu.device();
        let opaque = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(opaque);
        let create = vk::BufferCreateInfo::default()
            .size(desc.size)
            .usage(vk::BufferUsageFlags::from_raw(desc.usage.bits()))
            .push_next(&mut external);
        // SAFETY: the device has opaque fds enabled; size and usage are not 0.
        let buffer = unsafe { device.create_buffer(&create, None) }?;
        // SAFETY: the buffer is alive.
        let needs = unsafe { device.get_buffer_memory_requirements(buffer) };
        let suits = |(index, ty): &(u32, &vk::MemoryType)| {
            let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
            needs.memory_type_bits >> index & 1 == 1 && ty.property_flags.contains(local)
        };
        let types = gpu.endpoint.memory_properties().memory_types_as_slice();
        let found = (0..).zip(types).find(suits).context("no device-local memory");
        let info = AdoptedBuffer {
            buffer,
            desc,
            memory: vk::DeviceMemory::null(),
            offset: blocks * needs.alignment,
            allocation_size: blocks * needs.alignment + needs.size + spare,
            memory_type_index: found?.0,
            dedicated,
            handle_type: MemoryHandleType::OpaqueFd,
        };
        let mut owned = Self { gpu, info };
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(opaque);
        let mut own = vk::MemoryDedicatedAllocateInfo::default().buffer(buffer);
        let mut allocate = vk::MemoryAllocateInfo::default()
            .allocation_size(info.allocation_size)
            .memory_type_index(info.memory_type_index);
        if for_export {
            allocate = allocate.push_next(&mut export);
        }
        if dedicated {
            allocate = allocate.push_next(&mut own);
        }
        // SAFETY: size and type are the buffer's own; it is bound once, at a multiple of its
        // alignment.
        unsafe {
            owned.info.memory = device.allocate_memory(&allocate, None)?;
            device.bind_buffer_memory(buffer, owned.info.memory, info.offset)?;
        }
        Ok(owned)
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        let device = self.gpu.device();
        // SAFETY: owned here, and idle: uploads and downloads wait. The adopted object is dropped.
        unsafe {
            device.destroy_buffer(self.info.buffer, None);
            device.free_memory(self.info.memory, None);
        }
    }
}

/// An adopted buffer is exported and imported, and aliases. The application's own handles stay valid.
fn adopted(test_gpu: &TestGpu, place: Place, dedicated: bool, blocks: u64) -> Result<()> {
    let (first, other) = (test_gpu.vulkan(), place.gpu(test_gpu)?);
    let owned = Owned::new(first, dedicated, blocks)?;
    // SAFETY: `info` describes how they were created, and they are dropped after `adopted`.
    let adopted = unsafe { first.endpoint.adopt_buffer(&owned.info) }?;
    ensure!(adopted.handle() == owned.info.buffer, "another buffer");
    let payload = adopted.export()?;
    ensure!(payload.offset() == owned.info.offset, "another offset");
    ensure!(
        payload.memory().info().dedicated == dedicated,
        "the payload does not state that it is dedicated"
    );
    let imported = other.endpoint.import_buffer(payload)?;
    let mut imported = View::new(other, imported);
    check_aliases(&mut View::raw(first, adopted.handle(), BYTES), &mut imported)?;
    // The application's buffer outlives the adopted object.
    drop(adopted);
    check_aliases(&mut View::raw(first, owned.info.buffer, BYTES), &mut imported)
        .context("after the adopted object was dropped")
}

fn contradictions(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let owned = Owned::new(gpu, false, 0)?;
    let info = owned.info;
    let types = gpu.endpoint.memory_properties().memory_type_count;
    for (what, text, wrong) in [
        (
            "past the end",
            "adopted.allocation_size",
            AdoptedBuffer { offset: info.allocation_size, ..info },
        ),
        (
            "in less memory than it needs",
            "whole block",
            AdoptedBuffer { allocation_size: 1, ..info },
        ),
        (
            "in memory of an unknown type",
            "memory_type_index",
            AdoptedBuffer { memory_type_index: types, ..info },
        ),
        (
            "dedicated with room to spare",
            "set `dedicated` only if",
            AdoptedBuffer { allocation_size: info.allocation_size + 64, dedicated: true, ..info },
        ),
        (
            "dedicated at an offset",
            "set `dedicated` only if",
            AdoptedBuffer {
                offset: 64,
                allocation_size: info.allocation_size + 64,
                dedicated: true,
                ..info
            },
        ),
        ("of size 0", "desc.size", AdoptedBuffer { desc: BufferDesc::storage(0), ..info }),
    ] {
        // SAFETY: the description is wrong, but both handles are valid, and nothing is returned that could
        // outlive them: the numbers contradict each other.
        match unsafe { gpu.endpoint.adopt_buffer(&wrong) } {
            Err(error @ (Error::Invalid(_) | Error::Mismatch(_))) => {
                ensure!(error.to_string().contains(text), "{what}: no '{text}' in: {error}");
            }
            other => bail!("adopted {what}: {other:?}"),
        }
    }
    Ok(())
}

/// A buffer at the start of a block, described as if the block had only the buffer's size. Only drivers
/// whose memory is a file let that be found; others report it when it is imported, or not at all.
fn suballocation(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    const BLOCK: u64 = 1 << 20;
    let owned = Owned::with_memory(gpu, false, 0, BLOCK, true)?;
    let wrong = AdoptedBuffer { allocation_size: owned.info.allocation_size - BLOCK, ..owned.info };
    // SAFETY: the handles are valid and outlive what is returned, which is dropped without being exported.
    match unsafe { gpu.endpoint.adopt_buffer(&wrong) } {
        Err(Error::Invalid(refused)) => {
            ensure!(refused.parameter == "adopted.allocation_size", "{refused}");
            ensure!(refused.to_string().contains("whole block"), "{refused}");
        }
        Ok(_) if test_gpu.is_hardware() => {}
        other => bail!("{other:?}"),
    }
    // SAFETY: `info` is right, and what is returned is dropped first.
    unsafe { gpu.endpoint.adopt_buffer(&owned.info) }?;
    Ok(())
}

/// Without the validation layer, which reports the attempt. A driver on a GPU may export such memory all the
/// same.
fn not_for_export(test_gpu: &TestGpu) -> Result<()> {
    let gpu = &VulkanContext::new(Vulkan::open(test_gpu.selector(), &VulkanOptions::default())?)?;
    let owned = Owned::with_memory(gpu, false, 0, 0, false)?;
    // SAFETY: the handles are valid and outlive what is returned; the memory can't be exported, which is
    // what is tested.
    match unsafe { gpu.endpoint.adopt_buffer(&owned.info) } {
        Err(Error::Driver(refused)) => {
            let text = refused.to_string();
            ensure!(text.contains("VkExportMemoryAllocateInfo"), "{text}");
            ensure!(!text.contains("RLIMIT_NOFILE"), "{text}");
        }
        Ok(_) if test_gpu.is_hardware() => {}
        other => bail!("{other:?}"),
    }
    Ok(())
}
