//! Family C: the order of export, import and bind; dedicated allocations.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::payload::BufferPayload;
use gpu_interop::vulkan::{BufferOptions, DedicatedAllocation};
use gpu_interop::{BufferDesc, Error};

use crate::cases::support::driver::Dedication;
use crate::cases::support::importers::Place;
use crate::cases::support::views::{View, check_all_views_agree};
use crate::harness::{Case, Need, TestGpu, ValidationLog};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

const BYTES: usize = 64 << 10;

pub(in crate::cases) fn cases() -> Vec<Case> {
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
            Case::new(name, move |test_gpu| run(test_gpu.vulkan(), place.gpu(test_gpu)?))
        }));
    }
    for (dedicated, choice) in
        [("dedicated", DedicatedAllocation::Always), ("not_dedicated", DedicatedAllocation::Avoid)]
    {
        cases.extend(Place::ALL.map(|place| {
            let name = name(&format!("{dedicated}/{}/26", place.name()));
            Case::new(name, move |test_gpu| {
                dedicated_on_both_sides(test_gpu.vulkan(), place.gpu(test_gpu)?, choice)
            })
        }));
    }
    cases.push(Case::new(
        name("dedicated_memory_without_its_buffer_is_refused/26a"),
        dedicated_memory_alone,
    ));
    cases.push(
        Case::new(name("dedicated/is_passed_to_the_driver/26b"), dedicated_is_passed)
            .needs(&[Need::Validation]),
    );
    cases
}

/// Imports by four threads at once, many times: duplicates of one descriptor don't disturb each other.
fn imported_at_once(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let times = if test_gpu.is_hardware() { 100 } else { 8000 };
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

/// Exports once and imports by a second device and a second instance: each view reads what the others
/// write.
fn imported_twice(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let third = test_gpu.second_instance()?;
    let desc = BufferDesc::storage(BYTES as u64);
    let exported = first.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let payload = exported.export()?;
    let one = second.endpoint.import_buffer(payload.try_clone()?)?;
    let other = third.endpoint.import_buffer(payload)?;
    let views = &mut [View::new(first, exported), View::new(second, one), View::new(third, other)];
    check_all_views_agree(views, 1)
}

fn bind_export_import(from: &VulkanContext, to: &VulkanContext) -> Result<()> {
    let desc = BufferDesc::storage(BYTES as u64);
    let exported = from.endpoint.create_buffer(&desc, BufferOptions::default())?;
    from.upload(exported.handle(), 0, &oracle::filled(BYTES, 7))?;
    let imported = to.endpoint.import_buffer(exported.export()?)?;
    // What was written before the export is visible.
    let read = to.download(imported.handle(), 0, desc.size)?;
    oracle::check(&read, 7, &Passes::default())?;
    check_all_views_agree(&mut [View::new(from, exported), View::new(to, imported)], 1)
}

fn export_bind_import(from: &VulkanContext, to: &VulkanContext) -> Result<()> {
    let desc = BufferDesc::storage(BYTES as u64);
    let (memory, offsets) = from.endpoint.allocate(&[desc], BufferOptions::default())?;
    let payload = memory.export()?;
    let exported = memory.buffer(offsets[0], &desc)?;
    from.upload(exported.handle(), 0, &oracle::filled(BYTES, 7))?;
    let imported = to.endpoint.import_buffer(BufferPayload::new(payload, offsets[0], desc)?)?;
    // What was written after the export and before the import is visible.
    let read = to.download(imported.handle(), 0, desc.size)?;
    oracle::check(&read, 7, &Passes::default())?;
    check_all_views_agree(&mut [View::new(from, exported), View::new(to, imported)], 1)
}

fn export_import_bind(from: &VulkanContext, to: &VulkanContext) -> Result<()> {
    let desc = BufferDesc::storage(BYTES as u64);
    let (memory, offsets) = from.endpoint.allocate(&[desc], BufferOptions::default())?;
    let imported_memory = to.endpoint.import_memory(memory.export()?)?;
    let imported = imported_memory.buffer(offsets[0], &desc)?;
    to.upload(imported.handle(), 0, &oracle::filled(BYTES, 7))?;
    let exported = memory.buffer(offsets[0], &desc)?;
    // What the importer wrote before the exporter had a buffer is visible.
    let read = from.download(exported.handle(), 0, desc.size)?;
    oracle::check(&read, 7, &Passes::default())?;
    check_all_views_agree(&mut [View::new(from, exported), View::new(to, imported)], 1)
}

/// The payload states whether the allocation is dedicated, as the caller chose or the driver requires, and
/// the importer does the same.
fn dedicated_on_both_sides(
    from: &VulkanContext,
    to: &VulkanContext,
    dedicated: DedicatedAllocation,
) -> Result<()> {
    let desc = BufferDesc::storage(BYTES as u64);
    let options = BufferOptions { dedicated, ..BufferOptions::default() };
    let exported = from.endpoint.create_buffer(&desc, options)?;
    let payload = exported.export()?;
    let required = Dedication::of(from, &desc)?.required;
    let expected = required || dedicated == DedicatedAllocation::Always;
    let found = payload.memory().info().dedicated;
    ensure!(found == expected, "the payload states dedicated: {found}, required: {required}");
    let imported = to.endpoint.import_buffer(payload)?;
    ensure!(imported.memory().info().dedicated == expected, "the importer does otherwise");
    check_all_views_agree(&mut [View::new(from, exported), View::new(to, imported)], 1)
}

/// A dedicated allocation can't be imported without its buffer, and can't hold a second one.
fn dedicated_memory_alone(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let desc = BufferDesc::storage(BYTES as u64);
    let options =
        BufferOptions { dedicated: DedicatedAllocation::Always, ..BufferOptions::default() };
    let exported = first.endpoint.create_buffer(&desc, options)?;
    let (memory, offset, _) = exported.export()?.into_parts();
    let refused = second.endpoint.import_memory(memory).err().context("it was imported")?;
    let (memory, error) = refused.into_parts();
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    ensure!(error.to_string().contains("import_buffer"), "what would help is missing: {error}");
    let smaller = BufferDesc::storage(4096);
    let error =
        exported.memory().buffer(0, &smaller).err().context("a second buffer was placed in it")?;
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    // The payload came back intact: it can be imported with its buffer.
    let imported = second.endpoint.import_buffer(BufferPayload::new(memory, offset, desc)?)?;
    check_all_views_agree(&mut [View::new(first, exported), View::new(second, imported)], 1)
}

/// A driver can't be asked whether it knows that an allocation is dedicated, but the validation layer
/// remembers: a second buffer in it is an error if and only if it is dedicated, on both sides.
fn dedicated_is_passed(test_gpu: &TestGpu) -> Result<()> {
    let log = ValidationLog::default();
    let gpu = VulkanContext::new(log.open(test_gpu.selector(), false)?)?;
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
            // SAFETY: the buffer equals the one that fits the memory, and is destroyed unused. Binding it to
            // another buffer's dedicated memory is invalid on purpose.
            unsafe {
                let second = gpu.device().create_buffer(&info.push_next(&mut external), None)?;
                let needs = gpu.device().get_buffer_memory_requirements(second);
                ensure!(
                    needs.size <= buffer.memory().info().allocation_size,
                    "the second buffer needs more memory"
                );
                gpu.device().bind_buffer_memory(second, buffer.memory().handle(), 0)?;
                gpu.device().destroy_buffer(second, None);
            }
            match buffer.memory().info().dedicated {
                true => log.require(&["VUID-vkBindBufferMemory-memory-01508"])?,
                false => log.require_silence()?,
            }
        }
    }
    Ok(())
}
