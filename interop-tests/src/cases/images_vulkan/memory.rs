//! Family M: the memory of images between two Vulkan devices, alone or with others.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::Dedicated;
use gpu_interop::desc::Tiling;
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::handoff::{self, HandoffOptions};
use gpu_interop::payload::{ImagePayload, LinearLayout};
use gpu_interop::vulkan::{
    DedicatedAllocation, Image, ImageOptions, MemoryLocation, MemoryOptions,
};
use gpu_interop::{Api, BufferDesc, ImageDesc, ResourceDesc, vulkan};

use crate::cases::images_vulkan::{USAGE, View, pass, read, there_and_back, write};
use crate::cases::support::fds::leave_nothing_open;
use crate::cases::support::importers::Place;
use crate::cases::support::views::{self, check_all_views_agree};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape, parts};
use interop_gpu::vulkan::VulkanContext;

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/image/{what}");
    let mut cases = vec![Case::new(name("dedicated_only_agrees_with_the_image/5"), dedicated_only)];
    for (what, choice) in
        [("dedicated", DedicatedAllocation::Always), ("not_dedicated", DedicatedAllocation::Avoid)]
    {
        cases.extend(Place::ALL.map(|place| {
            let name = name(&format!("{what}/{}/26", place.name()));
            Case::new(name, move |test_gpu| {
                dedicated(test_gpu.vulkan(), place.gpu(test_gpu)?, choice)
            })
        }));
    }
    cases.extend([
        Case::new(name("the_importer_outlives_the_exporter/18"), importer_alone),
        Case::new(name("memory_is_imported_before_it_has_an_image/25"), memory_first),
        Case::new(name("several_in_one_allocation/39"), several_in_one),
        Case::new(name("buffers_and_images_in_one_allocation/39"), with_buffers),
        Case::new(name("repeated_imports_leave_no_descriptor/16"), repeated),
        Case::new(name("linear/rows_are_placed_as_the_payload_reports/38"), mapped_rows)
            .needs(&[Need::Image(Api::Vulkan, linear()), Need::HostVisibleImage(linear())]),
    ]);
    cases
}

fn color() -> ImageDesc {
    Shape::D2.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], USAGE)
}

fn linear() -> ImageDesc {
    Shape::D2.desc(Format::Rgba16Float, Tiling::Linear, SIZES[1], USAGE)
}

/// If the capability requires dedicated memory, so does the image, and gets it; if neither does, the image
/// can be created without.
fn dedicated_only(test_gpu: &TestGpu) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let options = ImageOptions { dedicated: DedicatedAllocation::Avoid, ..ImageOptions::default() };
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            let desc = Shape::D2.desc(format, tiling, SIZES[0], USAGE);
            let capabilities = gpu.endpoint.capabilities(&desc.into())?;
            let support = capabilities.memory(MemoryHandleType::OpaqueFd)?;
            if support.export.is_err() {
                continue;
            }
            let image = gpu.endpoint.create_image(&desc, options)?;
            let required = requires_dedicated(gpu, &image);
            let only = support.dedicated == Dedicated::Required;
            ensure!(
                !only || required,
                "{desc:?}: dedicated only, but the driver does not require it"
            );
            let got = image.memory().info().dedicated;
            ensure!(got == required, "{desc:?}: required: {required}, dedicated: {got}");
        }
    }
    Ok(())
}

fn requires_dedicated(gpu: &VulkanContext, image: &Image) -> bool {
    let info = vk::ImageMemoryRequirementsInfo2::default().image(image.handle());
    let mut dedicated = vk::MemoryDedicatedRequirements::default();
    let mut found = vk::MemoryRequirements2::default().push_next(&mut dedicated);
    // SAFETY: the image is alive and of this device.
    unsafe { gpu.device().get_image_memory_requirements2(&info, &mut found) };
    dedicated.requires_dedicated_allocation == vk::TRUE
}

/// The payload reports whether the allocation is dedicated, and the importer does the same.
fn dedicated(from: &VulkanContext, to: &VulkanContext, choice: DedicatedAllocation) -> Result<()> {
    let options = ImageOptions { dedicated: choice, ..ImageOptions::default() };
    for desc in [color(), Shape::D2.desc(Format::D32Float, Tiling::Optimal, SIZES[0], USAGE)] {
        let ours = from.endpoint.create_image(&desc, options)?;
        let payload = ours.export()?;
        let is_dedicated = payload.memory().info().dedicated;
        // A driver may require what the caller avoids.
        let wanted = choice == DedicatedAllocation::Always || requires_dedicated(from, &ours);
        ensure!(is_dedicated == wanted, "{desc:?}: dedicated: {is_dedicated}");
        let theirs = to.endpoint.import_image(payload)?;
        ensure!(theirs.memory().info().dedicated == is_dedicated, "the importer differs");
        pass((from, &ours), (to, &theirs))?;
    }
    Ok(())
}

/// The importer has the content after the exporter's image and memory were dropped.
fn importer_alone(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_instance()?);
    let ours = first.endpoint.create_image(&color(), ImageOptions::default())?;
    let theirs = second.endpoint.import_image(ours.export()?)?;
    let (one, other) = (&first.endpoint, &second.endpoint);
    let mut handoff = handoff::open(one, one, other, HandoffOptions::default())?;
    let ticket = write((first, &ours), 18, &mut handoff.release)?;
    drop(ours);
    read((second, &theirs), 18, &mut handoff.acquire, ticket)
}

/// The importer may write the memory before the exporter has placed an image in it.
fn memory_first(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let desc = color();
    let (memory, offsets) = first.endpoint.allocate(&[desc], MemoryOptions::default())?;
    let there = second.endpoint.import_memory(memory.export()?)?;
    let theirs = there.image(offsets[0], &desc)?;
    let (one, other) = (&first.endpoint, &second.endpoint);
    let mut handoff = handoff::open(one, other, one, HandoffOptions::default())?;
    let ticket = write((second, &theirs), 25, &mut handoff.release)?;
    let ours = memory.image(offsets[0], &desc)?;
    read((first, &ours), 25, &mut handoff.acquire, ticket)?;
    pass((first, &ours), (second, &theirs))
}

/// Images of different formats, shapes and tilings that can share an allocation.
fn several(test_gpu: &TestGpu) -> Result<Vec<ImageDesc>> {
    let wanted = [
        color(),
        linear(),
        Shape::Cube.desc(Format::R8Unorm, Tiling::Optimal, SIZES[0], USAGE),
        Shape::D2.desc(Format::D16Unorm, Tiling::Optimal, SIZES[1], USAGE),
        Shape::MipChain.desc(Format::R32Uint, Tiling::Optimal, SIZES[1], USAGE),
        Shape::D1.desc(Format::R8Unorm, Tiling::Linear, SIZES[0], USAGE),
        Shape::D3.desc(Format::Rg16Float, Tiling::Optimal, SIZES[0], USAGE),
    ];
    let mut descs = Vec::new();
    for desc in wanted {
        let capabilities = test_gpu.vulkan().endpoint.capabilities(&desc.into())?;
        let support = capabilities.memory(MemoryHandleType::OpaqueFd)?;
        if support.export.is_ok() && support.dedicated != Dedicated::Required {
            descs.push(desc);
        }
    }
    ensure!(descs.len() >= 3, "only {} images can share an allocation", descs.len());
    Ok(descs)
}

/// Each is imported by a payload of its own, at its own offset; all are written before any is read.
fn several_in_one(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let ours = first.endpoint.create_images(&several(test_gpu)?, ImageOptions::default())?;
    let theirs = ours
        .iter()
        .map(|image| Ok(second.endpoint.import_image(image.export()?)?))
        .collect::<Result<Vec<_>>>()?;
    ensure!(theirs[1..].iter().all(|image| image.offset() > 0), "all at 0");
    let views = ours.iter().map(|image| (first, image));
    apart(&views.zip(theirs.iter().map(|image| (second, image))).collect::<Vec<_>>())
}

/// Writes the first of each pair, then reads the second of each.
fn apart(pairs: &[(View<'_>, View<'_>)]) -> Result<()> {
    let mut waiting = Vec::new();
    for (seed, (writer, reader)) in (100..).zip(pairs) {
        let (one, other) = (&writer.0.endpoint, &reader.0.endpoint);
        let mut handoff = handoff::open(one, one, other, HandoffOptions::default())?;
        let ticket = write(*writer, seed, &mut handoff.release)?;
        waiting.push((seed, *reader, handoff, ticket));
    }
    for (seed, reader, mut handoff, ticket) in waiting {
        read(reader, seed, &mut handoff.acquire, ticket)
            .with_context(|| format!("at {}", reader.1.offset()))?;
    }
    Ok(())
}

/// One import of the memory, with all its images and buffers placed in it at their offsets.
fn with_buffers(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let buffer = BufferDesc::storage(5000);
    let mut descs: Vec<ResourceDesc> = Vec::new();
    for image in several(test_gpu)? {
        descs.extend([ResourceDesc::from(image), buffer.into()]);
    }
    let (memory, offsets) = first.endpoint.allocate(&descs, MemoryOptions::default())?;
    let there = second.endpoint.import_memory(memory.export()?)?;
    let (mut images, mut buffers) = (Vec::new(), Vec::new());
    for (desc, &offset) in descs.iter().zip(&offsets) {
        match desc {
            ResourceDesc::Image(desc) => {
                images.push((memory.image(offset, desc)?, there.image(offset, desc)?));
            }
            ResourceDesc::Buffer(desc) => {
                buffers.push((memory.buffer(offset, desc)?, there.buffer(offset, desc)?));
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    for (ours, theirs) in &buffers {
        let view = |gpu, buffer: &vulkan::Buffer| views::View::raw(gpu, buffer.handle(), 5000);
        check_all_views_agree(&mut [view(first, ours), view(second, theirs)], 1)?;
    }
    let views = images.iter().map(|(ours, theirs)| ((first, ours), (second, theirs)));
    apart(&views.collect::<Vec<_>>())?;
    // The images have not changed the buffers: each holds what the second view wrote last.
    for (ours, _) in &buffers {
        let read = first.download(ours.handle(), 0, 5000)?;
        interop_gpu::oracle::check(&read, 2, &Default::default())?;
    }
    Ok(())
}

fn repeated(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    there_and_back(first, second, &color(), ImageOptions::default())?;
    leave_nothing_open(256, || {
        let ours = first.endpoint.create_image(&color(), ImageOptions::default())?;
        let (payload, _unused) = (ours.export()?, ours.export()?);
        second.endpoint.import_image(payload)?;
        Ok(())
    })
}

/// In mapped memory, each row of a linear image is where the payload reports it.
fn mapped_rows(test_gpu: &TestGpu) -> Result<()> {
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let options = ImageOptions { memory: MemoryLocation::HostVisible, ..ImageOptions::default() };
    let desc = linear();
    let ours = first.endpoint.create_image(&desc, options)?;
    let payload: ImagePayload = ours.export()?;
    let linear = *payload.linear().context("the payload of a linear image has no linear layout")?;
    let theirs = second.endpoint.import_image(payload)?;
    second.fill_image(&theirs, 38, (vk::ImageLayout::UNDEFINED, vk::ImageLayout::GENERAL))?;
    let found = packed_rows(first, &ours, &linear)?;
    parts(&desc)[0].check(&desc, 38, &found)
}

/// The texels of a plain image in host-visible memory, row after row.
fn packed_rows(gpu: &VulkanContext, image: &Image, linear: &LinearLayout) -> Result<Vec<u8>> {
    let (device, memory, desc) = (gpu.device(), image.memory().handle(), image.desc());
    let row = desc.extent.width as usize * desc.format.block_bytes() as usize;
    let mut packed = Vec::new();
    // SAFETY: the memory is host-visible and coherent (as the caller chose), alive and not mapped; no
    // submitted work uses it; the rows lie within the allocation, as the payload has checked.
    unsafe {
        let flags = vk::MemoryMapFlags::empty();
        let start = device.map_memory(memory, 0, vk::WHOLE_SIZE, flags)?.cast::<u8>();
        for y in 0..u64::from(desc.extent.height) {
            let at = image.offset() + linear.offset + y * linear.row_pitch;
            packed.extend_from_slice(std::slice::from_raw_parts(start.add(at as usize), row));
        }
        device.unmap_memory(memory);
    }
    Ok(packed)
}
