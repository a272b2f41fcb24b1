//! Family C: kinds and sizes of memory.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Buffer, BufferOptions, DedicatedAllocation, MemoryLocation};
use gpu_interop::{BufferDesc, BufferPayload, Error};

use crate::cases::support::importers::Place;
use crate::cases::support::views::{View, check_aliases, check_all_views_agree};
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
    cases.push(Case::new(name("spare_bytes_are_allocated/29a"), spare_bytes));
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
    // With padding on the GPU, and a staging buffer on the host. Other cases might use the memory meanwhile.
    cases.push(one_gib.alone().needs(&[Need::MemoryBytes(3 * GIB / 2)]).expected_failure(
        "SwiftShader",
        "allocates less than 1 GiB at a time",
        "VK_ERROR_OUT_OF_DEVICE_MEMORY",
    ));
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
        let mapping = buffer.map()?;
        // SAFETY: uploads and downloads wait, so nothing uses the buffer.
        let write = |data: &[u8]| unsafe { mapping.write(0, data) };
        write(&oracle::filled(BYTES, seed))?;
        for (gpu, other) in views {
            let read = gpu.download(other.handle(), 0, BYTES as u64)?;
            oracle::check(&read, seed, &Passes::default())?;
            gpu.upload(other.handle(), 0, &oracle::filled(BYTES, seed + 100))?;
            let mut read = vec![0; BYTES];
            // SAFETY: as above.
            unsafe { mapping.read(0, &mut read) }?;
            oracle::check(&read, seed + 100, &Passes::default())?;
            write(&oracle::filled(BYTES, seed))?;
        }
    }
    check_all_views_agree(&mut [View::new(from, ours), View::new(to, theirs)], 1)
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

/// An importer that needs more memory than the exporter's buffer has finds it in the spare bytes; without
/// them, the error names what would help. A dedicated allocation has none.
fn spare_bytes(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let (bytes, spare_bytes) = (BYTES as u64, 1 << 20);
    let larger = BufferDesc::storage(bytes + spare_bytes);
    let create = |options| first.endpoint.create_buffer(&BufferDesc::storage(bytes), options);
    let exact = create(BufferOptions::default())?;
    let exact_size = exact.memory().info().allocation_size;
    let spacious = create(BufferOptions { spare_bytes, ..BufferOptions::default() })?;
    let found = spacious.memory().info();
    ensure!(found.allocation_size == exact_size + spare_bytes && !found.dedicated, "{found:?}");
    let imported = second.endpoint.import_buffer(enlarged(&spacious, larger)?)?;
    let mut first_view = View::new(first, spacious.memory().buffer(0, &larger)?);
    check_aliases(&mut first_view, &mut View::new(second, imported))?;
    // A buffer of that size doesn't even fit a payload of the other allocation.
    let refused = enlarged(&exact, larger).err().context("it was described")?;
    ensure!(refused.to_string().contains("offset"), "{refused}");
    let dedicated = DedicatedAllocation::Always;
    match create(BufferOptions { spare_bytes, dedicated, ..BufferOptions::default() }) {
        Err(Error::Invalid(refused)) => {
            ensure!(refused.parameter == "options.spare_bytes", "{refused}");
            Ok(())
        }
        other => bail!("a dedicated allocation with spare bytes: {other:?}"),
    }
}

/// The payload of `buffer`, described as `desc`.
fn enlarged(buffer: &Buffer, desc: BufferDesc) -> Result<BufferPayload> {
    let (memory, offset, _) = buffer.export()?.into_parts();
    Ok(BufferPayload::new(memory, offset, desc)?)
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
