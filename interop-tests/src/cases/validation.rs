//! Family G: the validation layer works. The harness checks after each case that it is silent; these cases
//! check that it would not be.

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::format::Format;
use gpu_interop::handoff::{self, HandoffOptions};
use gpu_interop::vulkan::{BufferOptions, DedicatedAllocation, ImageOptions};
use gpu_interop::{BufferDesc, ImageDesc, ImageUsage, SemaphoreKind};

use crate::cases::support::contexts::ApiContext;
use crate::cases::support::payload_user::{PayloadUser, pass};
use crate::harness::{Case, Need, Role, TestGpu, ValidationLog};
use interop_gpu::Kernel;
use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};

const BYTES: u64 = 64 << 10;
const ROUNDS: u32 = 20;

pub(super) fn cases() -> Vec<Case> {
    let validation = [Need::Validation];
    vec![
        Case::new("vulkan/none/validation/a_mistake_is_reported/62", a_mistake).needs(&validation),
        Case::new("vulkan/none/validation/a_leak_is_reported/62", a_leak).needs(&validation),
        Case::new("vulkan/none/validation/a_hazard_is_reported/62", a_hazard).needs(&validation),
        Case::new("vulkan→vulkan/opaque_fd/memory/an_import_repeats_the_export/62a", repeats)
            .needs(&validation),
        Case::new("vulkan→gl→vulkan/opaque_fd/buffer/no_hazard/62", |gpu| {
            no_hazard(gpu, gpu.gl()?)
        })
        .needs(&validation)
        .needs(&[Need::Gl]),
        Case::new("vulkan→cuda→vulkan/opaque_fd/buffer/no_hazard/62", |gpu| {
            no_hazard(gpu, gpu.cuda()?)
        })
        .needs(&validation)
        .needs(&[Need::Cuda]),
    ]
}

/// Creates a buffer without any usage.
fn a_mistake(test_gpu: &TestGpu) -> Result<()> {
    let log = ValidationLog::default();
    let vulkan = log.open(test_gpu.selector(), false)?;
    log.require_silence()?;
    let info = vk::BufferCreateInfo::default().size(64);
    // SAFETY: invalid on purpose: the layer sees it first, and drivers accept it.
    let created = unsafe { vulkan.device().create_buffer(&info, None) };
    if let Ok(buffer) = created {
        // SAFETY: created just now, and nothing uses it.
        unsafe { vulkan.device().destroy_buffer(buffer, None) };
    }
    log.require(&[
        "VUID-VkBufferCreateInfo-usage-requiredbitmask",
        "VUID-VkBufferCreateInfo-None-09500",
    ])?;
    drop(vulkan);
    log.require_silence()
}

/// Destroys a device before its fence: messages during destruction arrive too. In a child, since a driver
/// may leak what belongs to the fence: NVIDIA's leaks a descriptor.
fn a_leak(test_gpu: &TestGpu) -> Result<()> {
    test_gpu.run_child(LEAKS, &[])
}

const LEAKS: &str = "leaks a fence";

/// The child of these cases.
pub(super) fn roles() -> Vec<Role> {
    vec![(LEAKS, leak)]
}

fn leak() -> Result<()> {
    let log = ValidationLog::default();
    let selector = std::env::var("INTEROP_DEVICE")?.parse()?;
    let vulkan = log.open(&selector, false)?;
    // SAFETY: the fence is leaked on purpose until this process ends.
    let _leaked = unsafe { vulkan.device().create_fence(&vk::FenceCreateInfo::default(), None) }?;
    log.require_silence()?;
    drop(vulkan);
    log.require(&["VUID-vkDestroyDevice-device-00378", "VUID-vkDestroyDevice-device-05137"])
}

/// Fills a buffer twice without a barrier in between.
fn a_hazard(test_gpu: &TestGpu) -> Result<()> {
    let log = ValidationLog::default();
    let gpu = VulkanContext::new(log.open(test_gpu.selector(), true)?)?;
    let made = PrivateBuffer::device(&gpu.vulkan, 4096)?;
    let fill_twice = |barrier: bool| {
        gpu.run(|command| {
            for data in [1, 2] {
                // SAFETY: the command buffer is being recorded, and the buffer is that long. The hazard is
                // on purpose; either value may win.
                unsafe { gpu.device().cmd_fill_buffer(command, made.buffer, 0, 4096, data) };
                if barrier {
                    gpu.record_barrier(command);
                }
            }
            Ok(())
        })
    };
    fill_twice(true)?;
    log.require_silence()?;
    fill_twice(false)?;
    log.require(&["SYNC-HAZARD-WRITE-AFTER-WRITE"])
}

/// The library's acquires and releases, in one command buffer with a kernel and a copy, cause no hazard.
fn no_hazard<C: ApiContext>(test_gpu: &TestGpu, context: &C) -> Result<()> {
    let log = ValidationLog::default();
    let gpu = VulkanContext::new(log.open(test_gpu.selector(), true)?)?;
    let copy = PrivateBuffer::device(&gpu.vulkan, BYTES)?;
    let mut vulkan = PayloadUser::create(&gpu, BYTES)?;
    let mut other = PayloadUser::import(context, vulkan.export()?)?;
    let (here, options) = (&gpu.endpoint, HandoffOptions::default());
    let mut there = handoff::open(here, here, other.endpoint(), options)?;
    let mut back = handoff::open(here, other.endpoint(), here, options)?;
    for seed in 0..ROUNDS {
        vulkan.run(Kernel::Fill { seed })?;
        vulkan.copy_to(copy.buffer)?;
        pass(&mut there, &mut vulkan, &mut other)?;
        other.run(Kernel::PingPong { step: 1 })?;
        pass(&mut back, &mut other, &mut vulkan)?;
    }
    vulkan.read()?;
    log.require_silence()
}

/// An import repeats the export's allocation size, memory type and dedicated allocation, and the kind of a
/// semaphore (VUID-VkMemoryAllocateInfo-allocationSize-01742, VUID-VkMemoryDedicatedAllocateInfo-image-01878,
/// -buffer-01879, VUID-VkImportSemaphoreFdInfoKHR-handleType-03264).
///
/// A layer (1.4.309) remembers exports by number even after they were closed. So the numbers of other exports
/// are free here, which imports must not use.
fn repeats(test_gpu: &TestGpu) -> Result<()> {
    let log = ValidationLog::default();
    let vulkan = log.open(test_gpu.selector(), false)?;
    let endpoint = vulkan.endpoint()?;
    let desc = BufferDesc::storage(BYTES + 17);
    let image_desc = ImageDesc::d2(Format::Rgba8Unorm, 113, 211, ImageUsage::SAMPLED);
    let other =
        endpoint.create_buffer(&BufferDesc::storage(16 * BYTES), BufferOptions::default())?;
    let close_others = || -> Result<()> {
        drop((0..16).map(|_| other.export()).collect::<Result<Vec<_>, _>>()?);
        Ok(())
    };
    for dedicated in [DedicatedAllocation::Always, DedicatedAllocation::Avoid] {
        let options = BufferOptions { dedicated, ..BufferOptions::default() };
        let buffer = endpoint.create_buffer(&desc, options)?;
        close_others()?;
        endpoint.import_buffer(buffer.export()?)?;
        let options = ImageOptions { dedicated, ..ImageOptions::default() };
        let image = endpoint.create_image(&image_desc, options)?;
        close_others()?;
        endpoint.import_image(image.export()?)?;
    }
    let (memory, _) = endpoint.allocate(&[desc, desc], BufferOptions::default())?;
    close_others()?;
    endpoint.import_memory(memory.export()?)?;
    let kinds = [SemaphoreKind::Binary, SemaphoreKind::Timeline];
    for (kind, other) in kinds.into_iter().zip(kinds.into_iter().rev()) {
        let (Ok(semaphore), Ok(other)) =
            (endpoint.create_semaphore(kind), endpoint.create_semaphore(other))
        else {
            continue;
        };
        drop((0..16).map(|_| other.export()).collect::<Result<Vec<_>, _>>()?);
        endpoint.import_semaphore(semaphore.export()?)?;
    }
    log.require_silence()
}
