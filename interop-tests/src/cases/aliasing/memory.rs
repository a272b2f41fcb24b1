//! Family C: kinds and sizes of memory.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Buffer, BufferOptions, MemoryLocation};
use gpu_interop::{BufferDesc, Error};

use crate::cases::support::importers::Place;
use crate::cases::support::views::{View, check_all_views_agree};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;
use interop_gpu::{Kernel, oracle::hash};

const BYTES: usize = 64 << 10;
const GIB: u64 = 1 << 30;

pub(in crate::cases) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/buffer/{what}");
    let mut cases = Vec::new();
    cases.extend(Place::ALL.map(|place| {
        let name = name(&format!("device_local/{}/27", place.name()));
        Case::new(name, move |test_gpu| device_local(test_gpu.vulkan(), place.gpu(test_gpu)?))
    }));
    cases.extend(Place::ALL.map(|place| {
        let name = name(&format!("host_visible/{}/27", place.name()));
        Case::new(name, move |test_gpu| host_visible(test_gpu.vulkan(), place.gpu(test_gpu)?))
            .needs(&[Need::HostVisibleExport])
    }));
    cases.push(Case::new(name("every_memory_type/28"), every_memory_type));
    cases.push(Case::new(name("no_such_memory_type_is_refused/28a"), no_such_memory_type));
    for (size, bytes) in [
        ("1_byte", 1),
        ("1_kib", 1 << 10),
        ("4_kib", 4 << 10),
        ("64_kib", 64 << 10),
        ("2_mib", 2 << 20),
        ("3_mib_and_17_bytes", (3 << 20) + 17),
    ] {
        cases.push(Case::new(name(&format!("size/{size}/29")), move |test_gpu| {
            size_of(test_gpu, bytes)
        }));
    }
    let one_gib = Case::new(name("size/1_gib/29"), size_of_one_gib);
    // With padding on the GPU, and a staging buffer on the host.
    cases.push(one_gib.needs(&[Need::MemoryBytes(3 * GIB / 2)]));
    cases
}

/// Creates a buffer in memory of `location` and imports it.
fn shared(
    from: &VulkanContext,
    to: &VulkanContext,
    bytes: u64,
    location: MemoryLocation,
) -> Result<(Buffer, Buffer), Error> {
    let options = BufferOptions { memory: location, ..BufferOptions::default() };
    let exported = from.endpoint.create_buffer(&BufferDesc::storage(bytes), options)?;
    let imported = to.endpoint.import_buffer(exported.export()?)?;
    Ok((exported, imported))
}

fn properties(gpu: &VulkanContext, buffer: &Buffer) -> Result<vk::MemoryPropertyFlags> {
    let index = buffer.memory().info().memory_type_index.context("memory of Vulkan has a type")?;
    let types = gpu.endpoint.memory_properties().memory_types_as_slice();
    Ok(types.get(index as usize).context("the type exists")?.property_flags)
}

fn device_local(from: &VulkanContext, to: &VulkanContext) -> Result<()> {
    let (ours, theirs) = shared(from, to, BYTES as u64, MemoryLocation::DeviceLocal)?;
    for (gpu, buffer) in [(from, &ours), (to, &theirs)] {
        let found = properties(gpu, buffer)?;
        ensure!(found.contains(vk::MemoryPropertyFlags::DEVICE_LOCAL), "is {:#x}", found.as_raw());
    }
    check_all_views_agree(&mut [View::new(from, ours), View::new(to, theirs)], 1)
}

/// Both devices read what the host writes through either mapping, and the host reads what they write.
fn host_visible(from: &VulkanContext, to: &VulkanContext) -> Result<()> {
    let (ours, theirs) = shared(from, to, BYTES as u64, MemoryLocation::HostVisible)?;
    let views = [(from, &ours), (to, &theirs)];
    for (seed, (mapped, buffer)) in (1u32..).zip(views) {
        let found = properties(mapped, buffer)?;
        ensure!(found.contains(vk::MemoryPropertyFlags::HOST_VISIBLE), "is {:#x}", found.as_raw());
        mapping(mapped, buffer, |bytes| bytes.copy_from_slice(&oracle::filled(BYTES, seed)))?;
        for (gpu, other) in views {
            let read = gpu.download(other.handle(), 0, BYTES as u64)?;
            oracle::check(&read, seed, &Passes::default())?;
            gpu.upload(other.handle(), 0, &oracle::filled(BYTES, seed + 100))?;
            let mut read = Vec::new();
            mapping(mapped, buffer, |bytes| read.extend_from_slice(bytes))?;
            oracle::check(&read, seed + 100, &Passes::default())?;
            mapping(mapped, buffer, |bytes| bytes.copy_from_slice(&oracle::filled(BYTES, seed)))?;
        }
    }
    check_all_views_agree(&mut [View::new(from, ours), View::new(to, theirs)], 1)
}

/// Maps a buffer in host-visible, coherent memory for `work`.
fn mapping(gpu: &VulkanContext, buffer: &Buffer, work: impl FnOnce(&mut [u8])) -> Result<()> {
    let (device, memory) = (gpu.device(), buffer.memory().handle());
    // SAFETY: the memory is host-visible (the caller chose it), alive, and not mapped; no submitted work
    // uses it, since uploads and downloads wait; the slice lies within the buffer and is not used after
    // the unmapping.
    unsafe {
        let flags = vk::MemoryMapFlags::empty();
        let start = device.map_memory(memory, 0, vk::WHOLE_SIZE, flags)?.cast::<u8>();
        let at = start.add(usize::try_from(buffer.offset())?);
        work(std::slice::from_raw_parts_mut(at, usize::try_from(buffer.desc().size)?));
        device.unmap_memory(memory);
    }
    Ok(())
}

/// Each memory type either can hold an exportable buffer, which aliases then, or is refused by its index.
fn every_memory_type(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    // These require a feature, or are for attachments.
    let special = vk::MemoryPropertyFlags::PROTECTED
        | vk::MemoryPropertyFlags::LAZILY_ALLOCATED
        | vk::MemoryPropertyFlags::DEVICE_COHERENT_AMD
        | vk::MemoryPropertyFlags::RDMA_CAPABLE_NV;
    let types = first.endpoint.memory_properties().memory_types_as_slice();
    let mut shareable = 0;
    for (index, ty) in (0u32..).zip(types) {
        if ty.property_flags.intersects(special) {
            continue;
        }
        match shared(first, second, BYTES as u64, MemoryLocation::Type(index)) {
            Ok((ours, theirs)) => {
                let info = theirs.memory().info();
                ensure!(
                    info.memory_type_index == Some(index),
                    "imported as another type: {info:?}"
                );
                check_all_views_agree(&mut [View::new(first, ours), View::new(second, theirs)], 1)
                    .with_context(|| {
                        format!("memory type {index}: {:#x}", ty.property_flags.as_raw())
                    })?;
                shareable += 1;
            }
            Err(Error::Invalid(refused)) if refused.to_string().contains(&index.to_string()) => {}
            Err(error) => {
                bail!("memory type {index}, {:#x}: {error}", ty.property_flags.as_raw())
            }
        }
    }
    ensure!(shareable > 0, "no memory type can hold an exportable buffer");
    Ok(())
}

fn no_such_memory_type(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    for index in [endpoint.memory_properties().memory_type_count, 32, u32::MAX] {
        let memory = MemoryLocation::Type(index);
        let options = BufferOptions { memory, ..BufferOptions::default() };
        match endpoint.create_buffer(&BufferDesc::storage(4096), options) {
            Err(Error::Invalid(refused)) => {
                let text = refused.to_string();
                ensure!(text.contains(&index.to_string()), "the type is not named: {text}");
            }
            other => bail!("memory type {index}: {other:?}"),
        }
    }
    Ok(())
}

fn size_of(test_gpu: &TestGpu, bytes: u64) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_instance()?);
    let (ours, theirs) = shared(first, second, bytes, MemoryLocation::DeviceLocal)?;
    ensure!(theirs.desc().size == bytes, "the size became {}", theirs.desc().size);
    check_all_views_agree(&mut [View::new(first, ours), View::new(second, theirs)], 1)
}

/// Filled by a kernel of one device, then changed by a kernel of the other.
///
/// On a GPU every byte is checked. On a CPU both ends are, and 4 KiB at each of 256 offsets that a hash
/// picks.
fn size_of_one_gib(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_instance()?);
    let (ours, theirs) = shared(first, second, GIB, MemoryLocation::DeviceLocal)?;
    run(first, &ours, Kernel::Fill { seed: 29 })?;
    check_gib(test_gpu, second, &theirs, &Passes::default()).context("filled by the first")?;
    run(second, &theirs, Kernel::PingPong { step: 1234 })?;
    let mut turns = Passes::default();
    turns.then(1234);
    check_gib(test_gpu, first, &ours, &turns).context("changed by the second")
}

fn run(gpu: &VulkanContext, buffer: &Buffer, kernel: Kernel) -> Result<()> {
    let bound = gpu.bind(buffer.handle(), buffer.desc().size)?;
    let ran = gpu.run(|command| {
        gpu.record(command, kernel, &bound, 0);
        Ok(())
    });
    gpu.unbind(bound);
    ran
}

fn check_gib(
    test_gpu: &TestGpu,
    gpu: &VulkanContext,
    buffer: &Buffer,
    turns: &Passes,
) -> Result<()> {
    if test_gpu.is_hardware() {
        let read = gpu.download(buffer.handle(), 0, GIB)?;
        return Ok(oracle::check(&read, 29, turns)?);
    }
    const PIECE: u64 = 4096;
    let offsets = (0..256).map(|i| u64::from(hash(i, 1)) % (GIB / PIECE) * PIECE);
    for offset in [0, GIB - PIECE].into_iter().chain(offsets) {
        let read = gpu.download(buffer.handle(), offset, PIECE)?;
        oracle::check_from(&read, u32::try_from(offset / 4)?, 29, turns)?;
    }
    Ok(())
}
