//! Group C: memory aliasing, Vulkan to Vulkan. Order of export, import and bind; dedicated or not.

pub(crate) mod adopted;
pub(crate) mod memory;
pub(crate) mod offsets;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::payload::BufferPayload;
use gpu_interop::vulkan::{BufferOptions, DedicatedAllocation};
use gpu_interop::{BufferDesc, Error};

use crate::cases::validation::ValidationLog;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::VulkanContext;

const BYTES: usize = 64 << 10;

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/buffer/{what}");
    let mut cases = vec![
        Case::new(name("imported_twice/22"), imported_twice),
        Case::new(name("imported_by_four_threads/22a"), imported_at_once),
    ];
    type Order = fn(&VulkanContext, &VulkanContext) -> Result<()>;
    let orders: [(&str, u32, Order); 3] = [
        ("bind_export_import", 23, bind_export_import),
        ("export_bind_import", 24, export_bind_import),
        ("export_import_bind", 25, export_import_bind),
    ];
    for (order, row, run) in orders {
        cases.extend(Place::ALL.map(|place| {
            let name = name(&format!("{order}/{}/{row}", place.name()));
            Case::new(name, move |machine| run(machine.vulkan(), place.gpu(machine)?))
        }));
    }
    for (dedicated, choice) in
        [("dedicated", DedicatedAllocation::Always), ("not_dedicated", DedicatedAllocation::Avoid)]
    {
        cases.extend(Place::ALL.map(|place| {
            let name = name(&format!("{dedicated}/{}/26", place.name()));
            Case::new(name, move |machine| {
                dedicated_on_both_sides(machine.vulkan(), place.gpu(machine)?, choice)
            })
        }));
    }
    cases.push(Case::new(
        name("dedicated_memory_without_its_buffer_is_refused/26a"),
        dedicated_memory_alone,
    ));
    cases.push(
        Case::new(name("dedicated/is_told_to_the_driver/26b"), dedicated_is_told)
            .needs(&[Need::Validation]),
    );
    cases
}

/// Where a payload of the machine's first device is imported.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    SameDevice,
    SecondDevice,
    SecondInstance,
}

impl Place {
    pub(crate) const ALL: [Place; 3] =
        [Place::SameDevice, Place::SecondDevice, Place::SecondInstance];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Place::SameDevice => "same_device",
            Place::SecondDevice => "second_device",
            Place::SecondInstance => "second_instance",
        }
    }

    pub(crate) fn gpu(self, machine: &TestGpu) -> Result<&VulkanContext> {
        match self {
            Place::SameDevice => Ok(machine.vulkan()),
            Place::SecondDevice => machine.second_device(),
            Place::SecondInstance => machine.second_instance(),
        }
    }
}

/// A buffer as one device sees it.
pub(crate) type View<'a> = (&'a VulkanContext, vk::Buffer);

/// Each view in turn writes all `bytes` bytes, with a seed of its own, and every view reads them.
pub(crate) fn coherent(views: &[View<'_>], bytes: usize) -> Result<()> {
    for (writer, (gpu, buffer)) in (1u32..).zip(views) {
        gpu.upload(*buffer, 0, &oracle::filled(bytes, writer))?;
        for (reader, (gpu, buffer)) in (1u32..).zip(views) {
            let read = gpu.download(*buffer, 0, bytes as u64)?;
            oracle::check(&read, writer, &Turns::default())
                .with_context(|| format!("view {writer} wrote, view {reader} reads"))?;
        }
    }
    Ok(())
}

/// Imported by four threads at once, again and again: duplicates of one descriptor don't disturb each
/// other.
fn imported_at_once(machine: &TestGpu) -> Result<()> {
    let gpu = machine.vulkan();
    let times = if machine.is_hardware() { 100 } else { 8000 };
    let desc = BufferDesc::storage(4096);
    let exported = gpu.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let payload = exported.export()?;
    std::thread::scope(|scope| {
        let import = || -> Result<()> {
            for _ in 0..times {
                gpu.endpoint.import_buffer(payload.try_clone()?)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(import)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        })
    })
}

/// Exported once, imported by a second device and a second instance: each view sees what the others
/// write.
fn imported_twice(machine: &TestGpu) -> Result<()> {
    let (first, second) = (machine.vulkan(), machine.second_device()?);
    let third = machine.second_instance()?;
    let desc = BufferDesc::storage(BYTES as u64);
    let exported = first.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let payload = exported.export()?;
    let there = second.endpoint.import_buffer(payload.try_clone()?)?;
    let yonder = third.endpoint.import_buffer(payload)?;
    coherent(
        &[(first, exported.handle()), (second, there.handle()), (third, yonder.handle())],
        BYTES,
    )
}

fn bind_export_import(from: &VulkanContext, to: &VulkanContext) -> Result<()> {
    let desc = BufferDesc::storage(BYTES as u64);
    let exported = from.endpoint.create_buffer(&desc, BufferOptions::default())?;
    from.upload(exported.handle(), 0, &oracle::filled(BYTES, 7))?;
    let imported = to.endpoint.import_buffer(exported.export()?)?;
    // What was written before the export is there.
    let read = to.download(imported.handle(), 0, desc.size)?;
    oracle::check(&read, 7, &Turns::default())?;
    coherent(&[(from, exported.handle()), (to, imported.handle())], BYTES)
}

fn export_bind_import(from: &VulkanContext, to: &VulkanContext) -> Result<()> {
    let desc = BufferDesc::storage(BYTES as u64);
    let (memory, offsets) = from.endpoint.allocate(&[desc], BufferOptions::default())?;
    let payload = memory.export()?;
    let exported = memory.buffer(offsets[0], &desc)?;
    from.upload(exported.handle(), 0, &oracle::filled(BYTES, 7))?;
    let imported = to.endpoint.import_buffer(BufferPayload::new(payload, offsets[0], desc)?)?;
    // What was written after the export, and before the import, is there.
    let read = to.download(imported.handle(), 0, desc.size)?;
    oracle::check(&read, 7, &Turns::default())?;
    coherent(&[(from, exported.handle()), (to, imported.handle())], BYTES)
}

fn export_import_bind(from: &VulkanContext, to: &VulkanContext) -> Result<()> {
    let desc = BufferDesc::storage(BYTES as u64);
    let (memory, offsets) = from.endpoint.allocate(&[desc], BufferOptions::default())?;
    let imported_memory = to.endpoint.import_memory(memory.export()?)?;
    let imported = imported_memory.buffer(offsets[0], &desc)?;
    to.upload(imported.handle(), 0, &oracle::filled(BYTES, 7))?;
    let exported = memory.buffer(offsets[0], &desc)?;
    // What the importer wrote before the exporter had a buffer is there.
    let read = from.download(exported.handle(), 0, desc.size)?;
    oracle::check(&read, 7, &Turns::default())?;
    coherent(&[(from, exported.handle()), (to, imported.handle())], BYTES)
}

/// Whether the allocation is the buffer's own travels in the payload, and the importer does the same.
fn dedicated_on_both_sides(
    from: &VulkanContext,
    to: &VulkanContext,
    dedicated: DedicatedAllocation,
) -> Result<()> {
    let desc = BufferDesc::storage(BYTES as u64);
    let options = BufferOptions { dedicated, ..BufferOptions::default() };
    let exported = from.endpoint.create_buffer(&desc, options)?;
    let payload = exported.export()?;
    let told = payload.memory().info().dedicated;
    ensure!(told == exported.memory().info().dedicated, "the payload says dedicated: {told}");
    // A driver may require what the caller would rather avoid, but not the other way round.
    ensure!(told || dedicated == DedicatedAllocation::Avoid, "asked for a dedicated allocation");
    let imported = to.endpoint.import_buffer(payload)?;
    ensure!(imported.memory().info().dedicated == told, "the importer forgot");
    coherent(&[(from, exported.handle()), (to, imported.handle())], BYTES)
}

/// A dedicated allocation can't be imported without the buffer it belongs to, nor take a second one.
fn dedicated_memory_alone(machine: &TestGpu) -> Result<()> {
    let (first, second) = (machine.vulkan(), machine.second_device()?);
    let desc = BufferDesc::storage(BYTES as u64);
    let options =
        BufferOptions { dedicated: DedicatedAllocation::Always, ..BufferOptions::default() };
    let exported = first.endpoint.create_buffer(&desc, options)?;
    let (memory, offset, _) = exported.export()?.into_parts();
    let refused = second.endpoint.import_memory(memory).err().context("it was imported")?;
    let (memory, error) = refused.into_parts();
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    ensure!(error.to_string().contains("import_buffer"), "no word of what would help: {error}");
    let smaller = BufferDesc::storage(4096);
    let error = exported.memory().buffer(0, &smaller).err().context("it took a second buffer")?;
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    // The payload came back whole: with its buffer it is imported.
    let imported = second.endpoint.import_buffer(BufferPayload::new(memory, offset, desc)?)?;
    coherent(&[(first, exported.handle()), (second, imported.handle())], BYTES)
}

/// What a driver was told of an allocation it doesn't tell, but the validation layer knows: a second
/// buffer in it is a mistake where it is dedicated, and none where it isn't, for exporter and importer.
fn dedicated_is_told(machine: &TestGpu) -> Result<()> {
    let heard = ValidationLog::default();
    let gpu = VulkanContext::new(heard.open(machine, false)?)?;
    let desc = BufferDesc::storage(BYTES as u64);
    for dedicated in [DedicatedAllocation::Always, DedicatedAllocation::Avoid] {
        let options = BufferOptions { dedicated, ..BufferOptions::default() };
        let exported = gpu.endpoint.create_buffer(&desc, options)?;
        let imported = gpu.endpoint.import_buffer(exported.export()?)?;
        for buffer in [&exported, &imported] {
            let opaque = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
            let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(opaque);
            let usage = vk::BufferUsageFlags::from_raw(desc.usage.bits());
            let info = vk::BufferCreateInfo::default().size(desc.size).usage(usage);
            // SAFETY: a buffer like the one that fits the memory, and destroyed unused. That the
            // memory belongs to the other one is wrong on purpose, where it does.
            unsafe {
                let second = gpu.device().create_buffer(&info.push_next(&mut external), None)?;
                let needs = gpu.device().get_buffer_memory_requirements(second);
                ensure!(needs.size <= buffer.memory().info().allocation_size, "a larger one");
                gpu.device().bind_buffer_memory(second, buffer.memory().handle(), 0)?;
                gpu.device().destroy_buffer(second, None);
            }
            match buffer.memory().info().dedicated {
                true => heard.require(&["VUID-vkBindBufferMemory-memory-01508"])?,
                false => heard.require_silence()?,
            }
        }
    }
    Ok(())
}
