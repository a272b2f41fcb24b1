//! Group C: memory aliasing, Vulkan to Vulkan. What memory it is, and how much.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Buffer, BufferOptions, MemoryChoice};
use gpu_interop::{BufferDesc, Error};

use super::aliasing::{Place, coherent};
use crate::rig::oracle::{self, Turns};
use crate::rig::vulkan::VulkanRig;
use crate::rig::{Kernel, oracle::hash};
use crate::suite::{Case, Machine, Need};

const BYTES: usize = 64 << 10;
const GIB: u64 = 1 << 30;

pub(super) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/buffer/{what}");
    let mut cases = Vec::new();
    cases.extend(Place::ALL.map(|place| {
        let name = name(&format!("device_local/{}/27", place.name()));
        Case::new(name, move |machine| device_local(machine.vulkan(), place.rig(machine)?))
    }));
    cases.extend(Place::ALL.map(|place| {
        let name = name(&format!("host_visible/{}/27", place.name()));
        Case::new(name, move |machine| host_visible(machine.vulkan(), place.rig(machine)?))
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
        cases.push(Case::new(name(&format!("size/{size}/29")), move |machine| {
            size_of(machine, bytes)
        }));
    }
    let one_gib = Case::new(name("size/1_gib/29"), size_of_one_gib);
    // And a tail on the GPU; a staging buffer on the host.
    cases.push(one_gib.needs(&[Need::MemoryBytes(3 * GIB / 2)]));
    cases
}

/// A buffer of `from` in the memory of `choice`, and its import by `to`.
fn shared(
    from: &VulkanRig,
    to: &VulkanRig,
    bytes: u64,
    choice: MemoryChoice,
) -> Result<(Buffer, Buffer), Error> {
    let options = BufferOptions { memory: choice, ..BufferOptions::default() };
    let exported = from.endpoint.create_buffer(&BufferDesc::storage(bytes), options)?;
    let imported = to.endpoint.import_buffer(exported.export()?)?;
    Ok((exported, imported))
}

fn properties(rig: &VulkanRig, buffer: &Buffer) -> Result<vk::MemoryPropertyFlags> {
    let index = buffer.memory().info().memory_type_index.context("Vulkan's own has a type")?;
    let types = rig.endpoint.memory_properties().memory_types_as_slice();
    Ok(types.get(index as usize).context("the type exists")?.property_flags)
}

fn device_local(from: &VulkanRig, to: &VulkanRig) -> Result<()> {
    let (ours, theirs) = shared(from, to, BYTES as u64, MemoryChoice::DeviceLocal)?;
    for (rig, buffer) in [(from, &ours), (to, &theirs)] {
        let found = properties(rig, buffer)?;
        ensure!(found.contains(vk::MemoryPropertyFlags::DEVICE_LOCAL), "is {:#x}", found.as_raw());
    }
    coherent(&[(from, ours.handle()), (to, theirs.handle())], BYTES)
}

/// What the host writes through either mapping both GPUs read, and what they write the host reads.
fn host_visible(from: &VulkanRig, to: &VulkanRig) -> Result<()> {
    let (ours, theirs) = shared(from, to, BYTES as u64, MemoryChoice::HostVisible)?;
    let views = [(from, &ours), (to, &theirs)];
    for (seed, (mapped, buffer)) in (1u32..).zip(views) {
        let found = properties(mapped, buffer)?;
        ensure!(found.contains(vk::MemoryPropertyFlags::HOST_VISIBLE), "is {:#x}", found.as_raw());
        mapping(mapped, buffer, |bytes| bytes.copy_from_slice(&oracle::filled(BYTES, seed)))?;
        for (rig, other) in views {
            let read = rig.download(other.handle(), 0, BYTES as u64)?;
            oracle::check(&read, seed, &Turns::default())?;
            rig.upload(other.handle(), 0, &oracle::filled(BYTES, seed + 100))?;
            let mut read = Vec::new();
            mapping(mapped, buffer, |bytes| read.extend_from_slice(bytes))?;
            oracle::check(&read, seed + 100, &Turns::default())?;
            mapping(mapped, buffer, |bytes| bytes.copy_from_slice(&oracle::filled(BYTES, seed)))?;
        }
    }
    coherent(&[(from, ours.handle()), (to, theirs.handle())], BYTES)
}

/// Lets `work` see a buffer in host-visible, coherent memory.
fn mapping(rig: &VulkanRig, buffer: &Buffer, work: impl FnOnce(&mut [u8])) -> Result<()> {
    let (device, memory) = (rig.device(), buffer.memory().handle());
    // SAFETY: the memory is host-visible (as the caller chose), alive, and not mapped; no submitted
    // work uses it, since uploads and downloads wait; the slice lies within the buffer and ends
    // before the unmapping.
    unsafe {
        let flags = vk::MemoryMapFlags::empty();
        let start = device.map_memory(memory, 0, vk::WHOLE_SIZE, flags)?.cast::<u8>();
        let at = start.add(usize::try_from(buffer.offset())?);
        work(std::slice::from_raw_parts_mut(at, usize::try_from(buffer.desc().size)?));
        device.unmap_memory(memory);
    }
    Ok(())
}

/// Each memory type either suits an exportable buffer, and then it aliases, or is refused by name.
fn every_memory_type(machine: &Machine) -> Result<()> {
    let (first, second) = (machine.vulkan(), machine.second_device()?);
    // These want a feature, or belong to attachments.
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
        match shared(first, second, BYTES as u64, MemoryChoice::Type(index)) {
            Ok((ours, theirs)) => {
                let info = theirs.memory().info();
                ensure!(
                    info.memory_type_index == Some(index),
                    "imported as another type: {info:?}"
                );
                coherent(&[(first, ours.handle()), (second, theirs.handle())], BYTES)
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
    ensure!(shareable > 0, "no memory type suits an exportable buffer");
    Ok(())
}

fn no_such_memory_type(machine: &Machine) -> Result<()> {
    let endpoint = &machine.vulkan().endpoint;
    for index in [endpoint.memory_properties().memory_type_count, 32, u32::MAX] {
        let memory = MemoryChoice::Type(index);
        let options = BufferOptions { memory, ..BufferOptions::default() };
        match endpoint.create_buffer(&BufferDesc::storage(4096), options) {
            Err(Error::Invalid(refused)) => {
                let text = refused.to_string();
                ensure!(text.contains(&index.to_string()), "which type is not said: {text}");
            }
            other => bail!("memory type {index}: {other:?}"),
        }
    }
    Ok(())
}

fn size_of(machine: &Machine, bytes: u64) -> Result<()> {
    let (first, second) = (machine.vulkan(), machine.second_instance()?);
    let (ours, theirs) = shared(first, second, bytes, MemoryChoice::DeviceLocal)?;
    ensure!(theirs.desc().size == bytes, "the size has become {}", theirs.desc().size);
    coherent(&[(first, ours.handle()), (second, theirs.handle())], usize::try_from(bytes)?)
}

/// Filled by a kernel of one device, then worked on by one of the other.
///
/// On a GPU every byte is checked. A CPU's driver is checked by samples: both ends, and 4 KiB at each
/// of 256 places that a hash picks.
fn size_of_one_gib(machine: &Machine) -> Result<()> {
    let (first, second) = (machine.vulkan(), machine.second_instance()?);
    let (ours, theirs) = shared(first, second, GIB, MemoryChoice::DeviceLocal)?;
    run(first, &ours, Kernel::Fill { seed: 29 })?;
    check_gib(machine, second, &theirs, &Turns::default()).context("filled by the first")?;
    run(second, &theirs, Kernel::PingPong { step: 1234 })?;
    let mut turns = Turns::default();
    turns.then(1234);
    check_gib(machine, first, &ours, &turns).context("turned by the second")
}

fn run(rig: &VulkanRig, buffer: &Buffer, kernel: Kernel) -> Result<()> {
    let bound = rig.bind(buffer.handle(), buffer.desc().size)?;
    let ran = rig.run(|command| {
        rig.record(command, kernel, &bound, 0);
        Ok(())
    });
    rig.unbind(bound);
    ran
}

fn check_gib(machine: &Machine, rig: &VulkanRig, buffer: &Buffer, turns: &Turns) -> Result<()> {
    if machine.is_hardware() {
        let read = rig.download(buffer.handle(), 0, GIB)?;
        return Ok(oracle::check(&read, 29, turns)?);
    }
    const PIECE: u64 = 4096;
    let places = (0..256).map(|i| u64::from(hash(i, 1)) % (GIB / PIECE) * PIECE);
    for offset in [0, GIB - PIECE].into_iter().chain(places) {
        let read = rig.download(buffer.handle(), offset, PIECE)?;
        oracle::check_from(&read, u32::try_from(offset / 4)?, 29, turns)?;
    }
    Ok(())
}
