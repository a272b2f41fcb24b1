//! Family A: capabilities agree with the driver, and what is missing is named.

use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::capabilities::{Dedicated, plan};
use gpu_interop::desc::Tiling;
use gpu_interop::error::Missing;
use gpu_interop::fd::{MemoryHandleType, SemaphoreHandleType};
use gpu_interop::format::Format;
use gpu_interop::payload::SemaphoreInfo;
use gpu_interop::vulkan::{BufferOptions, DedicatedAllocation, DeviceInfo, Endpoint, Features};
use gpu_interop::{
    Api, BufferDesc, BufferUsage, Error, ImageDesc, ImageUsage, ResourceDesc, SemaphoreKind,
    SemaphorePayload,
};

use crate::cases::support::driver::{Dedication, dedicated_only, image_is_supported};
use crate::cases::support::fds::{self, check_same_fd, event_counter};
use crate::cases::support::importers::for_each_importer;
use crate::cases::support::views::AnyContext;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape};
use interop_gpu::vulkan::VulkanContext;

pub(in crate::cases) fn cases() -> Vec<Case> {
    let mut cases = for_each_importer("buffer/what_is_missing_names_the_api/4", missing);
    cases.extend([
        Case::new("vulkan/opaque_fd/buffer/a_feature_not_enabled_is_named/4a", no_feature),
        Case::new("vulkan/opaque_fd/buffer/an_extension_not_enabled_is_named/4b", no_extension),
        Case::new("vulkan/dma_buf/buffer/no_export_is_named/4c", no_dma_buf_export),
        Case::new("vulkan/opaque_fd/image/what_is_unsupported_is_named/4d", images),
        Case::new("vulkan→cuda/opaque_fd/image/what_is_unsupported_is_named/4e", cuda_images)
            .needs(&[Need::Cuda]),
        Case::new("vulkan/opaque_fd/buffer/dedicated_only_is_required/5", dedicated_agrees),
        Case::new("vulkan/opaque_fd/buffer/dedicated_as_asked_for/5a", dedicated_as_asked),
    ]);
    cases.extend(for_each_importer("semaphore/a_timeline_is_no_sync_fd/6", no_sync_fd));
    cases
}

/// What is missing has a name, belongs to the API that was asked, and states what it is needed for.
fn check_missing(missing: &Missing, api: Api) -> Result<()> {
    ensure!(missing.api == api, "{api} was asked, not: {missing}");
    ensure!(!missing.what.is_empty() && !missing.needed_for.is_empty(), "{missing:?}");
    ensure!(missing.to_string().contains(&api.to_string()), "{missing}");
    Ok(())
}

fn missing_of<T>(result: gpu_interop::Result<T>) -> Result<Missing> {
    match result {
        Err(Error::Missing(missing)) => Ok(missing),
        Err(other) => bail!("not a missing capability: {other:?}"),
        Ok(_) => bail!("it succeeded"),
    }
}

/// For each usage, handle type and kind of semaphore, a refusal names the API.
fn missing(_: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    for usage in BufferUsage::all().iter() {
        let found = peer.capabilities(&BufferDesc { size: 4096, usage }.into())?;
        let memory = found.memory.iter().flat_map(|entry| [&entry.export, &entry.import]);
        let semaphores = found.semaphores.iter().flat_map(|entry| [&entry.export, &entry.import]);
        for support in memory.chain(semaphores) {
            support.as_ref().err().map_or(Ok(()), |missing| check_missing(missing, found.api))?;
        }
        for handle_type in [MemoryHandleType::OpaqueFd, MemoryHandleType::DmaBuf] {
            found.memory(handle_type).context("a handle type has no entry")?;
        }
    }
    let wrong = BufferDesc { size: 4096, usage: BufferUsage::empty() };
    let refused = peer.capabilities(&wrong.into());
    ensure!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    Ok(())
}

/// An endpoint over the same device with fewer extensions and features than were enabled.
fn limited(gpu: &VulkanContext, extensions: bool) -> Result<Endpoint> {
    let vulkan = &gpu.vulkan;
    let info = DeviceInfo::new(
        vulkan.instance(),
        vulkan.physical_device(),
        vulkan.device(),
        vulkan.api_version(),
    )
    .enabled_extensions(if extensions { vulkan.enabled_extensions() } else { &[] })
    .features(Features::default());
    // SAFETY: the handles belong together, everything listed was enabled, and the owner keeps the device
    // alive.
    Ok(unsafe { Endpoint::new(&info, Some(std::sync::Arc::new(vulkan.clone()))) }?)
}

fn no_feature(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = limited(test_gpu.vulkan(), true)?;
    let desc = BufferDesc { size: 4096, usage: BufferUsage::DEVICE_ADDRESS };
    let missing = missing_of(endpoint.create_buffer(&desc, BufferOptions::default()))?;
    check_missing(&missing, Api::Vulkan)?;
    let text = missing.to_string();
    ensure!(text.contains("bufferDeviceAddress") && missing.help.is_some(), "{text}");
    let missing = missing_of(endpoint.create_semaphore(SemaphoreKind::Timeline))?;
    check_missing(&missing, Api::Vulkan)
}

/// Nothing is exported or imported, and the payload comes back.
fn no_extension(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = limited(test_gpu.vulkan(), false)?;
    let name = "VK_KHR_external_memory_fd";
    let made = endpoint.create_buffer(&fds::desc(), BufferOptions::default());
    let missing = missing_of(made)?;
    check_missing(&missing, Api::Vulkan)?;
    ensure!(missing.what.contains(name) && missing.help.is_some(), "{missing}");
    let (_exported, payload) = fds::export(test_gpu)?;
    let raw = fds::number(&payload);
    let refused = endpoint.import_buffer(payload).err().context("it was imported")?;
    let (payload, error) = refused.into_parts();
    let missing = missing_of::<()>(Err(error))?;
    ensure!(missing.what.contains(name), "{missing}");
    check_same_fd(payload.memory(), raw)?;
    test_gpu.second_device()?.endpoint.import_buffer(payload)?;
    Ok(())
}

/// Creating such a buffer fails with the error that the capabilities contain.
fn no_dma_buf_export(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let found = endpoint.capabilities(&fds::desc().into())?;
    let handle_type = MemoryHandleType::DmaBuf;
    let options = BufferOptions { handle_type, ..BufferOptions::default() };
    let made = endpoint.create_buffer(&fds::desc(), options);
    match &found.memory(handle_type)?.export {
        Ok(()) => ensure!(made.is_ok(), "reported as supported, but {made:?}"),
        Err(missing) => ensure!(missing_of(made)? == *missing, "another reason than {missing}"),
    }
    Ok(())
}

/// For every format, tiling, usage and shape the capabilities are Vulkan's own answer, and a refusal names
/// the format.
fn images(test_gpu: &TestGpu) -> Result<()> {
    let (gpu, mut refused) = (test_gpu.vulkan(), 0);
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            for usage in ImageUsage::all().iter() {
                for shape in Shape::ALL {
                    let desc = shape.desc(format, tiling, SIZES[0], usage);
                    if desc.validate().is_err() {
                        continue;
                    }
                    let found = gpu.endpoint.capabilities(&desc.into())?;
                    let found = found.memory(MemoryHandleType::OpaqueFd)?;
                    // The driver answers for the GPU, the library for what the device has enabled.
                    let disabled = desc.samples > 1
                        && desc.usage.contains(ImageUsage::STORAGE)
                        && !gpu.endpoint.features().storage_image_multisample;
                    let driver = match disabled {
                        true => (false, false),
                        false => image_is_supported(gpu, &desc)?,
                    };
                    let reported = (found.export.is_ok(), found.import.is_ok());
                    ensure!(reported == driver, "{desc:?}: {found:?}, but the driver: {driver:?}");
                    if let Err(missing) = &found.export {
                        check_missing(missing, Api::Vulkan)?;
                        ensure!(missing.to_string().contains(format.name()), "{missing}");
                        refused += 1;
                    }
                }
            }
        }
    }
    ensure!(refused > 0, "nothing was refused, which no driver does");
    Ok(())
}

/// CUDA has no depth formats: the plan between the two names CUDA and the format.
fn cuda_images(test_gpu: &TestGpu) -> Result<()> {
    let usage = ImageUsage::DEPTH_STENCIL_ATTACHMENT;
    let desc: ResourceDesc = ImageDesc::d2(Format::D32Float, 64, 64, usage).into();
    let from = test_gpu.vulkan().endpoint.capabilities(&desc)?;
    let to = test_gpu.cuda()?.endpoint.capabilities(&desc)?;
    let missing = missing_of(plan(&from, &to, &desc))?;
    check_missing(&missing, Api::Cuda)?;
    ensure!(missing.what.contains(Format::D32Float.name()), "{missing}");
    Ok(())
}

/// If the capabilities state that only a dedicated allocation can be shared, the buffer itself requires
/// one, and the reverse.
fn dedicated_agrees(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    for usage in BufferUsage::all().iter() {
        let desc = BufferDesc { size: 4096, usage };
        let found = gpu.endpoint.capabilities(&desc.into())?;
        let found = found.memory(MemoryHandleType::OpaqueFd)?;
        if found.export.is_err() {
            continue;
        }
        let (only, required) = (dedicated_only(gpu, &desc), Dedication::of(gpu, &desc)?.required);
        ensure!(only == required, "{usage:?}: dedicated only: {only}, required: {required}");
        ensure!((found.dedicated == Dedicated::Required) == only, "{usage:?}: {found:?}");
    }
    Ok(())
}

/// The caller's choice decides, unless the driver requires a dedicated allocation; without a choice the
/// driver's preference does. The payload states the result.
fn dedicated_as_asked(test_gpu: &TestGpu) -> Result<()> {
    let (gpu, desc) = (test_gpu.vulkan(), fds::desc());
    let Dedication { required, preferred } = Dedication::of(gpu, &desc)?;
    for (choice, expected) in [
        (DedicatedAllocation::Always, true),
        (DedicatedAllocation::Auto, required || preferred),
        (DedicatedAllocation::Avoid, required),
    ] {
        let options = BufferOptions { dedicated: choice, ..BufferOptions::default() };
        let payload = gpu.endpoint.create_buffer(&desc, options)?.export()?;
        let found = payload.memory().info().dedicated;
        ensure!(found == expected, "{choice:?}: {found}, not {expected}");
    }
    Ok(())
}

/// Neither exported nor imported, whatever the driver supports.
fn no_sync_fd(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    let (handle_type, kind) = (SemaphoreHandleType::SyncFd, SemaphoreKind::Timeline);
    let desc = fds::desc().into();
    for found in [peer.capabilities(&desc)?, test_gpu.vulkan().endpoint.capabilities(&desc)?] {
        let found = found.semaphore(kind, handle_type)?;
        ensure!(found.export.is_err() && found.import.is_err(), "{found:?}");
    }
    let identity = test_gpu.vulkan().vulkan.identity().clone();
    let fd = event_counter()?;
    let raw = fd.as_raw_fd();
    let payload = SemaphorePayload::new(fd, SemaphoreInfo { handle_type, kind, identity });
    let (fd, error) = payload.err().context("the payload was constructed")?.into_parts();
    let Error::Invalid(invalid) = &error else { bail!("{error:?}") };
    ensure!(invalid.vuid.is_some() && invalid.to_string().contains("timeline"), "{invalid}");
    check_same_fd(fd, raw)
}
