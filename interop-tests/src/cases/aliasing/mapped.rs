//! Family C: memory that the host writes and reads through the library's mapping.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::handoff::{self, HandoffOptions};
use gpu_interop::vulkan::{BufferOptions, Mapping, MemoryLocation};
use gpu_interop::{BufferDesc, Error};

use crate::cases::support::contexts::ApiContext;
use crate::cases::support::payload_user::{PayloadUser, pass};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Passes};

const BYTES: usize = 64 << 10;
/// More than two: with NVIDIA's driver (580.159) the first write is seen in any case.
const ROUNDS: u32 = 8;

pub(in crate::cases) fn cases() -> Vec<Case> {
    let name = |to: &str| {
        format!("vulkan→{to}→vulkan/opaque_fd/buffer/host_writes_are_seen_after_a_handoff/27a")
    };
    let needs = [Need::HostVisibleExport];
    vec![
        Case::new(name("vulkan"), |test_gpu| seen(test_gpu, test_gpu.second_device()?))
            .needs(&needs),
        Case::new(name("gl"), |test_gpu| seen(test_gpu, test_gpu.gl()?))
            .needs(&needs)
            .needs(&[Need::Gl]),
        Case::new(name("cuda"), |test_gpu| seen(test_gpu, test_gpu.cuda()?))
            .needs(&needs)
            .needs(&[Need::Cuda]),
        Case::new("vulkan/opaque_fd/buffer/a_mapping_has_bounds/27b", bounds).needs(&needs),
        Case::new("vulkan/opaque_fd/buffer/memory_of_the_gpu_alone_is_not_mapped/27c", not_mapped),
    ]
}

fn options() -> BufferOptions {
    BufferOptions { memory: MemoryLocation::HostVisible, ..BufferOptions::default() }
}

fn write(mapping: &Mapping, data: &[u8]) -> Result<()> {
    // SAFETY: the callers own the payload: no GPU uses it.
    Ok(unsafe { mapping.write(0, data) }?)
}

fn read(mapping: &Mapping) -> Result<Vec<u8>> {
    let mut data = vec![0; mapping.len()];
    // SAFETY: as above.
    unsafe { mapping.read(0, &mut data) }?;
    Ok(data)
}

/// Each round the host writes, the other API changes that, and the host reads the result. No command but
/// those of the handoffs runs on the exporter's queue.
fn seen<C: ApiContext>(test_gpu: &TestGpu, context: &C) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let desc = BufferDesc::storage(BYTES as u64);
    let buffer = gpu.endpoint.create_buffer(&desc, options())?;
    let mapping = buffer.map()?;
    let mut vulkan = PayloadUser::new(gpu, buffer)?;
    let mut other = PayloadUser::import(context, vulkan.export()?)?;
    let (here, options) = (&gpu.endpoint, HandoffOptions::default());
    let mut there = handoff::open(here, here, other.endpoint(), options)?;
    let mut back = handoff::open(here, other.endpoint(), here, options)?;
    for seed in 1..=ROUNDS {
        write(&mapping, &oracle::filled(BYTES, seed))?;
        pass(&mut there, &mut vulkan, &mut other)?;
        other.run(Kernel::PingPong { step: seed })?;
        pass(&mut back, &mut other, &mut vulkan)?;
        vulkan.make_visible_to_the_host()?;
        vulkan.finish()?;
        let mut passes = Passes::default();
        passes.then(seed);
        oracle::check(&read(&mapping)?, seed, &passes).with_context(|| format!("round {seed}"))?;
    }
    other.finish()?;
    vulkan.finish()
}

/// A buffer's mapping begins and ends with the buffer; a second one has the same address.
fn bounds(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let descs = [BufferDesc::storage(100), BufferDesc::storage(60)];
    let buffers = endpoint.create_buffers(&descs, options())?;
    let (whole, second) = (buffers[1].memory().map()?, buffers[1].map()?);
    ensure!(second.len() == 60 && !second.is_empty(), "{second:?}");
    let offset = usize::try_from(buffers[1].offset())?;
    ensure!(whole.as_ptr().wrapping_add(offset) == second.as_ptr(), "{whole:?}, {second:?}");
    ensure!(buffers[1].map()?.as_ptr() == second.as_ptr(), "mapped at another address");
    write(&buffers[0].map()?, &[1; 100])?;
    write(&second, &[2; 60])?;
    drop(buffers);
    ensure!(read(&second)? == [2; 60], "the mapping does not keep the memory");
    // SAFETY: nothing uses the buffer.
    for refused in [unsafe { second.write(60, &[3]) }, unsafe { second.write(usize::MAX, &[3]) }] {
        ensure!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    ensure!(read(&second)? == [2; 60], "a refused write changed something");
    Ok(())
}

/// Each memory type is mapped, or refused if it is not host-visible.
fn not_mapped(test_gpu: &TestGpu) -> Result<()> {
    use gpu_interop::ash::vk::MemoryPropertyFlags as Flags;
    let endpoint = &test_gpu.vulkan().endpoint;
    let types = endpoint.memory_properties().memory_types_as_slice();
    let mut made = 0;
    for (index, ty) in (0..).zip(types) {
        if ty.property_flags.intersects(Flags::PROTECTED | Flags::LAZILY_ALLOCATED) {
            continue;
        }
        let options = BufferOptions { memory: MemoryLocation::Type(index), ..options() };
        let Ok(buffer) = endpoint.create_buffer(&BufferDesc::storage(4096), options) else {
            continue;
        };
        made += 1;
        match (buffer.map(), ty.property_flags.contains(Flags::HOST_VISIBLE)) {
            (Ok(mapping), true) => {
                write(&mapping, &[7; 4096])?;
                ensure!(read(&mapping)? == [7; 4096], "memory type {index}");
            }
            (Err(Error::Invalid(refused)), false) => {
                ensure!(refused.to_string().contains("HostVisible"), "{refused}");
            }
            (other, visible) => bail!("memory type {index}, host-visible {visible}: {other:?}"),
        }
    }
    ensure!(made > 0, "no memory type can hold an exportable buffer");
    Ok(())
}
