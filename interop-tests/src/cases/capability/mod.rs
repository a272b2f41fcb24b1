//! Group A: what the endpoints say they can't do, and that they say why.

pub(crate) mod proof;
pub(crate) mod raw;

use std::os::fd::AsRawFd;

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

use crate::cases::capability::raw::{Raw, dedicated_only, image_is_supported, requires_dedicated};
use crate::cases::descriptors::{self, eventfd};
use crate::cases::support::importers::{Peer, for_each_importer};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::vulkan::VulkanContext;

pub(crate) fn cases() -> Vec<Case> {
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

/// What is missing has a name, is the API's that was asked, and says what it is needed for.
fn check_missing(missing: &Missing, api: Api) -> Result<()> {
    ensure!(missing.api == api, "{api} was asked, and {missing}");
    ensure!(!missing.what.is_empty() && !missing.needed_for.is_empty(), "{missing:?}");
    ensure!(missing.to_string().contains(&api.to_string()), "{missing}");
    Ok(())
}

fn missing_of<T>(result: gpu_interop::Result<T>) -> Result<Missing> {
    match result {
        Err(Error::Missing(missing)) => Ok(missing),
        Err(other) => bail!("not a missing something: {other:?}"),
        Ok(_) => bail!("it went well"),
    }
}

/// Each usage alone, each handle type, each kind of semaphore: a no names the API.
fn missing(_: &TestGpu, peer: Peer<'_>) -> Result<()> {
    for usage in BufferUsage::all().iter() {
        let told = peer.capabilities(&BufferDesc { size: 4096, usage }.into())?;
        let memory = told.memory.iter().flat_map(|entry| [&entry.export, &entry.import]);
        let semaphores = told.semaphores.iter().flat_map(|entry| [&entry.export, &entry.import]);
        for support in memory.chain(semaphores) {
            support.as_ref().err().map_or(Ok(()), |missing| check_missing(missing, told.api))?;
        }
        for handle_type in [MemoryHandleType::OpaqueFd, MemoryHandleType::DmaBuf] {
            told.memory(handle_type).context("says nothing of a handle type")?;
        }
    }
    let wrong = BufferDesc { size: 4096, usage: BufferUsage::empty() };
    let refused = peer.capabilities(&wrong.into());
    ensure!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    Ok(())
}

/// An endpoint over the same device that knows of fewer extensions and features than were enabled.
fn poorer(gpu: &VulkanContext, extensions: bool) -> Result<Endpoint> {
    let vulkan = &gpu.vulkan;
    let info = DeviceInfo::new(
        vulkan.instance(),
        vulkan.physical_device(),
        vulkan.device(),
        vulkan.api_version(),
    )
    .enabled_extensions(if extensions { vulkan.enabled_extensions() } else { &[] })
    .features(Features::default());
    // SAFETY: the handles belong together, all that is listed was enabled, and the owner keeps the
    // device.
    Ok(unsafe { Endpoint::new(&info, Some(std::sync::Arc::new(vulkan.clone()))) }?)
}

fn no_feature(machine: &TestGpu) -> Result<()> {
    let endpoint = poorer(machine.vulkan(), true)?;
    let desc = BufferDesc { size: 4096, usage: BufferUsage::DEVICE_ADDRESS };
    let missing = missing_of(endpoint.create_buffer(&desc, BufferOptions::default()))?;
    check_missing(&missing, Api::Vulkan)?;
    let text = missing.to_string();
    ensure!(text.contains("bufferDeviceAddress") && missing.help.is_some(), "{text}");
    let missing = missing_of(endpoint.create_semaphore(SemaphoreKind::Timeline))?;
    check_missing(&missing, Api::Vulkan)
}

/// Neither exported nor imported, and the payload comes back.
fn no_extension(machine: &TestGpu) -> Result<()> {
    let endpoint = poorer(machine.vulkan(), false)?;
    let name = "VK_KHR_external_memory_fd";
    let made = endpoint.create_buffer(&descriptors::desc(), BufferOptions::default());
    let missing = missing_of(made)?;
    check_missing(&missing, Api::Vulkan)?;
    ensure!(missing.what.contains(name) && missing.help.is_some(), "{missing}");
    let (_exported, payload) = descriptors::export(machine)?;
    let raw = descriptors::number(&payload);
    let refused = endpoint.import_buffer(payload).err().context("it was imported")?;
    let (payload, error) = refused.into_parts();
    let missing = missing_of::<()>(Err(error))?;
    ensure!(missing.what.contains(name), "{missing}");
    ensure!(descriptors::number(&payload) == raw, "another descriptor came back");
    machine.second_device()?.endpoint.import_buffer(payload)?;
    Ok(())
}

/// The error of making such a buffer is what the capability said.
fn no_dma_buf_export(machine: &TestGpu) -> Result<()> {
    let endpoint = &machine.vulkan().endpoint;
    let told = endpoint.capabilities(&descriptors::desc().into())?;
    let handle_type = MemoryHandleType::DmaBuf;
    let options = BufferOptions { handle_type, ..BufferOptions::default() };
    let made = endpoint.create_buffer(&descriptors::desc(), options);
    match &told.memory(handle_type)?.export {
        Ok(()) => ensure!(made.is_ok(), "claimed, and then {made:?}"),
        Err(said) => ensure!(missing_of(made)? == *said, "another reason than {said}"),
    }
    Ok(())
}

/// Every format, tiling and use: the capability is Vulkan's own answer, and a no names the format.
fn images(machine: &TestGpu) -> Result<()> {
    let (gpu, mut refused) = (machine.vulkan(), 0);
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            for usage in ImageUsage::all().iter() {
                let desc = ImageDesc { tiling, ..ImageDesc::d2(format, 113, 211, usage) };
                if desc.validate().is_err() {
                    continue;
                }
                let told = gpu.endpoint.capabilities(&desc.into())?;
                let told = told.memory(MemoryHandleType::OpaqueFd)?;
                let (export, import) = image_is_supported(gpu, &desc)?;
                let same = told.export.is_ok() == export && told.import.is_ok() == import;
                ensure!(same, "{desc:?}: told {told:?}, asked {export} and {import}");
                if let Err(missing) = &told.export {
                    check_missing(missing, Api::Vulkan)?;
                    ensure!(missing.what.contains(format.name()), "{missing}");
                    refused += 1;
                }
            }
        }
    }
    ensure!(refused > 0, "no driver does everything");
    Ok(())
}

/// CUDA has no depth formats: the plan between the two names CUDA and the format.
fn cuda_images(machine: &TestGpu) -> Result<()> {
    let usage = ImageUsage::DEPTH_STENCIL_ATTACHMENT;
    let desc: ResourceDesc = ImageDesc::d2(Format::D32Float, 64, 64, usage).into();
    let from = machine.vulkan().endpoint.capabilities(&desc)?;
    let to = machine.cuda()?.endpoint.capabilities(&desc)?;
    let missing = missing_of(plan(&from, &to, &desc))?;
    check_missing(&missing, Api::Cuda)?;
    ensure!(missing.what.contains(Format::D32Float.name()), "{missing}");
    Ok(())
}

/// Where the capability says that only a dedicated allocation can be shared, the buffer itself says
/// that it needs one, and the other way round.
fn dedicated_agrees(machine: &TestGpu) -> Result<()> {
    let gpu = machine.vulkan();
    for usage in BufferUsage::all().iter() {
        let desc = BufferDesc { size: 4096, usage };
        let told = gpu.endpoint.capabilities(&desc.into())?;
        let told = told.memory(MemoryHandleType::OpaqueFd)?;
        if told.export.is_err() {
            continue;
        }
        let (only, required) = (dedicated_only(gpu, &desc), requires_dedicated(gpu, &desc)?);
        ensure!(only == required, "{usage:?}: dedicated only: {only}, required: {required}");
        ensure!((told.dedicated == Dedicated::Required) == only, "{usage:?}: {told:?}");
    }
    Ok(())
}

/// Always and never are what the caller gets, unless the driver requires it; otherwise the driver's
/// preference decides. The payload says which it became.
fn dedicated_as_asked(machine: &TestGpu) -> Result<()> {
    let (gpu, desc) = (machine.vulkan(), descriptors::desc());
    let Raw { required, preferred } = Raw::of(gpu, &desc)?;
    for (choice, expected) in [
        (DedicatedAllocation::Always, true),
        (DedicatedAllocation::Auto, required || preferred),
        (DedicatedAllocation::Avoid, required),
    ] {
        let options = BufferOptions { dedicated: choice, ..BufferOptions::default() };
        let payload = gpu.endpoint.create_buffer(&desc, options)?.export()?;
        let told = payload.memory().info().dedicated;
        ensure!(told == expected, "{choice:?}: {told}, not {expected}");
    }
    Ok(())
}

/// Neither offered nor taken, whatever the driver can do.
fn no_sync_fd(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    let (handle_type, kind) = (SemaphoreHandleType::SyncFd, SemaphoreKind::Timeline);
    let desc = descriptors::desc().into();
    for told in [peer.capabilities(&desc)?, machine.vulkan().endpoint.capabilities(&desc)?] {
        let told = told.semaphore(kind, handle_type)?;
        ensure!(told.export.is_err() && told.import.is_err(), "{told:?}");
    }
    let identity = machine.vulkan().vulkan.identity().clone();
    let fd = eventfd()?;
    let raw = fd.as_raw_fd();
    let payload = SemaphorePayload::new(fd, SemaphoreInfo { handle_type, kind, identity });
    let (fd, error) = payload.err().context("it was made")?.into_parts();
    let Error::Invalid(invalid) = &error else { bail!("{error:?}") };
    ensure!(invalid.vuid.is_some() && invalid.to_string().contains("timeline"), "{invalid}");
    ensure!(fd.as_raw_fd() == raw, "another descriptor");
    Ok(())
}
