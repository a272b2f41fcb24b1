//! Family C: several buffers in one allocation.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::vulkan::{
    Buffer, BufferOptions, DedicatedAllocation, FencePool, SemaphoreSignal, SubmitSync,
};
use gpu_interop::{BufferDesc, BufferUsage, Error};

use crate::cases::support::importers::Place;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

/// The first buffer moves the others away from offset 0; no size is a multiple of an alignment.
const SIZES: [u64; 3] = [100, 70_001, 5_003];

pub(in crate::cases) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/buffer/{what}");
    let mut cases = Vec::new();
    cases.extend(Place::ALL.map(|place| {
        let name = name(&format!("two_at_offsets/{}/30", place.name()));
        Case::new(name, move |test_gpu| two_at_offsets(test_gpu.vulkan(), place.gpu(test_gpu)?))
    }));
    cases.push(Case::new(name("two_at_offsets/one_import/30"), one_import));
    cases.push(Case::new(name("misplaced_buffers_are_refused/30a"), misplaced));
    cases.push(Case::new(name("zero_size_allocation_is_refused/30b"), zero_size));
    cases.push(Case::new(name("too_large_or_without_address_is_refused/30f"), beyond_limits));
    cases.push(
        Case::new("vulkan/submit/wrong_parts_are_refused/30g", wrong_parts)
            .needs(&[Need::TimelineFeature]),
    );
    cases
}

fn allocated(gpu: &VulkanContext) -> Result<Vec<Buffer>> {
    let descs = SIZES.map(BufferDesc::storage);
    let buffers = gpu.endpoint.create_buffers(&descs, BufferOptions::default())?;
    let end = buffers.iter().try_fold(0, |end, buffer| {
        ensure!(buffer.offset() >= end, "{buffer:?} overlaps the one before");
        ensure!(buffer.memory().handle() == buffers[0].memory().handle(), "two allocations");
        Ok(buffer.offset() + buffer.desc().size)
    })?;
    let size = buffers[0].memory().info().allocation_size;
    ensure!(end <= size, "{end} bytes used of an allocation of {size}");
    ensure!(buffers[1].offset() > 0 && buffers[2].offset() > 0, "nothing is at an offset");
    Ok(buffers)
}

/// Every buffer holds data of its own on both sides: writing one does not change the others.
fn apart(
    from: &VulkanContext,
    ours: &[Buffer],
    to: &VulkanContext,
    theirs: &[Buffer],
) -> Result<()> {
    for (turn, (writer, written)) in [(from, ours), (to, theirs)].into_iter().enumerate() {
        let seed = |at: usize| (10 * turn + at) as u32 + 1;
        // From last to first: a buffer at too low an offset is overwritten by the one before it.
        for (at, buffer) in written.iter().enumerate().rev() {
            let bytes = usize::try_from(buffer.desc().size)?;
            writer.upload(buffer.handle(), 0, &oracle::filled(bytes, seed(at)))?;
        }
        for (reader, read) in [(from, ours), (to, theirs)] {
            for (at, buffer) in read.iter().enumerate() {
                let data = reader.download(buffer.handle(), 0, buffer.desc().size)?;
                oracle::check(&data, seed(at), &Passes::default())
                    .with_context(|| format!("buffer {at} at offset {}", buffer.offset()))?;
            }
        }
    }
    Ok(())
}

/// Each buffer is exported and imported separately; each import is of the whole allocation.
fn two_at_offsets(from: &VulkanContext, to: &VulkanContext) -> Result<()> {
    let ours = allocated(from)?;
    let import = |buffer: &Buffer| Ok(to.endpoint.import_buffer(buffer.export()?)?);
    let theirs = ours.iter().map(import).collect::<Result<Vec<_>>>()?;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        ensure!(ours.offset() == theirs.offset(), "{ours:?} became {theirs:?}");
    }
    apart(from, &ours, to, &theirs)
}

/// The allocation is imported once, and the buffers are placed in it.
fn one_import(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_instance()?);
    let ours = allocated(first)?;
    let memory = second.endpoint.import_memory(ours[0].memory().export()?)?;
    let place = |buffer: &Buffer| Ok(memory.buffer(buffer.offset(), buffer.desc())?);
    let theirs = ours.iter().map(place).collect::<Result<Vec<_>>>()?;
    apart(first, &ours, second, &theirs)
}

/// Past the end, misaligned, or of size 0: refused with the rule that is broken.
fn misplaced(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let ours = allocated(first)?;
    let size = ours[0].memory().info().allocation_size;
    let imported = second.endpoint.import_memory(ours[0].memory().export()?)?;
    for (what, offset, bytes) in [
        ("past the end", 0, size + 1),
        ("past the end at an offset", size - 64, 65),
        ("at an offset past the end", size, 1),
        ("at an offset that overflows", u64::MAX, 1),
        ("of a size that overflows", 1, u64::MAX),
        ("misaligned", 1, 64),
        ("of size 0", 0, 0),
    ] {
        for memory in [ours[0].memory(), &imported] {
            match memory.buffer(offset, &BufferDesc::storage(bytes)) {
                Err(Error::Invalid(refused)) => {
                    let explained = refused.vuid.is_some() && !refused.problem.is_empty();
                    ensure!(explained, "a buffer {what}: {refused}");
                }
                other => bail!("a buffer {what}: {other:?}"),
            }
        }
    }
    Ok(())
}

/// An allocation for no buffer, or a dedicated one for several.
fn zero_size(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let none = endpoint.allocate::<BufferDesc>(&[], BufferOptions::default());
    ensure!(matches!(none, Err(Error::Invalid(_))), "{none:?}");
    let options = BufferOptions { dedicated: DedicatedAllocation::Always, ..Default::default() };
    let own = endpoint.allocate(&SIZES.map(BufferDesc::storage), options);
    ensure!(matches!(own, Err(Error::Invalid(_))), "{own:?}");
    let help = own.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(help.contains("create_buffer"), "what would help is missing: {help}");
    Ok(())
}

/// Too large a buffer, and a buffer with a device address in memory that was allocated without one.
fn beyond_limits(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let ours = allocated(test_gpu.vulkan())?;
    let huge = endpoint.create_buffer(&BufferDesc::storage(1 << 62), BufferOptions::default());
    check_rule(huge, "VUID-VkBufferCreateInfo-size-06409")?;
    let usage = BufferUsage::STORAGE | BufferUsage::DEVICE_ADDRESS;
    let addressed = BufferDesc { size: 64, usage };
    let refused = ours[0].memory().buffer(0, &addressed);
    if !endpoint.features().buffer_device_address {
        ensure!(matches!(refused, Err(Error::Missing(_))), "{refused:?}");
        return Ok(());
    }
    check_rule(refused, "VUID-vkBindBufferMemory-bufferDeviceAddress-03339")?;
    let (memory, _) = endpoint.allocate(&[addressed], BufferOptions::default())?;
    ensure!(memory.buffer(0, &addressed)?.device_address()? != 0, "no address");
    Ok(())
}

fn check_rule(refused: gpu_interop::Result<Buffer>, vuid: &str) -> Result<()> {
    match refused {
        Err(Error::Invalid(refused)) if refused.vuid == Some(vuid) => Ok(()),
        other => bail!("not refused by {vuid}: {other:?}"),
    }
}

/// A timeline semaphore without a value, and one of another device.
fn wrong_parts(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    // With the timeline feature, fences are timeline semaphores of the device, which need no export.
    let sync_of = |gpu: &VulkanContext| {
        let mut sync = SubmitSync::default();
        FencePool::new(&gpu.endpoint)?.next(&mut sync)?;
        ensure!(!sync.signals().is_empty(), "a fence that signals no semaphore");
        Ok(sync)
    };
    let submit = |sync: SubmitSync| {
        first.vulkan.with_queue(|queue| {
            // SAFETY: the queue is of this device and locked; no command buffer is submitted.
            unsafe { sync.submit(&first.endpoint, queue, &[]) }
        })
    };
    let refused = submit(sync_of(second)?);
    ensure!(matches!(refused, Err(Error::Mismatch(_))), "{refused:?}");
    let without_value =
        |signal: &SemaphoreSignal| SemaphoreSignal { value: None, ..signal.clone() };
    let signals = sync_of(first)?.signals().iter().map(without_value).collect();
    let refused = submit(SubmitSync::new(Vec::new(), signals));
    ensure!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    Ok(())
}
