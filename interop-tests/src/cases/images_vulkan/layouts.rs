//! Family M: layouts and ownership of images in a handoff between two Vulkan devices.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk::{self, ImageAspectFlags, ImageLayout};
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::handoff::{self, Handoff, HandoffOptions, Ticket, VulkanCommands};
use gpu_interop::vulkan::{
    Accesses, BufferAccess, BufferOptions, Endpoint, Image, ImageAccess, ImageOptions,
};
use gpu_interop::{BufferDesc, Error, ImageDesc, ImageUsage};

use crate::cases::images_vulkan::{
    COLOR_LAYOUTS, USAGE, View, acquire, desc_of, read, release, there_and_back, write,
};
use crate::harness::{Case, Need, TestGpu, ValidationLog};
use interop_gpu::Kernel;
use interop_gpu::image::{SIZES, Shape};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::{ImageIo, VulkanContext};

const TURNS: u32 = 255;

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str| format!("vulkan→vulkan/opaque_fd/image/layouts/{what}");
    vec![
        Case::new(name("every_pair_keeps_the_content/44"), every_pair),
        Case::new(name("255_handoffs/46"), turns),
        Case::new(name("buffers_and_images_in_one_handoff/46"), with_a_buffer),
        Case::new(name("a_part_of_an_image/44"), part_of_an_image),
        Case::new(name("another_pair_of_layouts_is_refused/44"), another_pair),
        Case::new(name("impossible_layouts_are_refused/44"), impossible),
        Case::new(name("of_another_device_is_refused/44"), of_another_device),
        Case::new(name("no_hazard/62"), no_hazard).needs(&[Need::Validation]),
    ]
}

/// An image that can be in nearly any layout.
fn desc(format: Format) -> ImageDesc {
    let color = format.aspects() == gpu_interop::format::Aspects::COLOR;
    let attachment =
        if color { ImageUsage::COLOR_ATTACHMENT } else { ImageUsage::DEPTH_STENCIL_ATTACHMENT };
    Shape::D2.desc(format, Tiling::Optimal, SIZES[0], USAGE | attachment)
}

/// An image of the first device and its import by the second, and a handoff there.
struct Pair<'a> {
    first: &'a VulkanContext,
    second: &'a VulkanContext,
    ours: Image,
    theirs: Image,
    there: Handoff<Endpoint, Endpoint>,
}

impl<'a> Pair<'a> {
    fn new(test_gpu: &'a TestGpu, desc: &ImageDesc) -> Result<Self> {
        let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
        let ours = first.endpoint.create_image(desc, ImageOptions::default())?;
        let theirs = second.endpoint.import_image(ours.export()?)?;
        let there = open(first, second)?;
        Ok(Self { first, second, ours, theirs, there })
    }

    /// Submits only the release of the first device's image, which is in `old`.
    fn release(&mut self, old: ImageLayout, new: ImageLayout) -> Result<Ticket> {
        let used = [ImageAccess::transfer(&self.ours).with_layouts(old, new)];
        release(self.first, &mut self.there.release, &used, |_| ())
    }

    /// Submits only the acquire of the second device's image.
    fn acquire(&mut self, ticket: Ticket, (old, new): (ImageLayout, ImageLayout)) -> Result<()> {
        let used = [ImageAccess::transfer(&self.theirs).with_layouts(old, new)];
        acquire(self.second, &mut self.there.acquire, ticket, &used, |_| ())
    }
}

fn open(from: &VulkanContext, to: &VulkanContext) -> Result<Handoff<Endpoint, Endpoint>> {
    let (from, to) = (&from.endpoint, &to.endpoint);
    Ok(handoff::open(from, from, to, HandoffOptions::default())?)
}

/// From each layout to each layout that both images can be in: the content is kept.
fn every_pair(test_gpu: &TestGpu) -> Result<()> {
    let color = COLOR_LAYOUTS.map(ImageLayout::from);
    let depth = [
        ImageLayout::GENERAL,
        ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL,
        ImageLayout::DEPTH_STENCIL_READ_ONLY_OPTIMAL,
        ImageLayout::DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL,
        ImageLayout::DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL,
        ImageLayout::SHADER_READ_ONLY_OPTIMAL,
    ];
    let depth_format = if test_gpu
        .vulkan()
        .endpoint
        .create_image(&desc(Format::D24UnormS8Uint), ImageOptions::default())
        .is_ok()
    {
        Format::D24UnormS8Uint
    } else {
        Format::D32FloatS8Uint
    };
    for (format, layouts) in [(Format::Rgba8Unorm, &color[..]), (depth_format, &depth[..])] {
        let mut pair = Pair::new(test_gpu, &desc(format))?;
        let mut seed = 0;
        for &old in layouts {
            for &new in layouts {
                seed += 1;
                if old == new {
                    // The validation layer 1.3.239 ignores an acquire whose layouts are equal (with
                    // synchronization2, this is not a transition) and assumes the layout before it.
                    // The image has no content yet that this could discard.
                    pair.second.run(|command| {
                        let to = (ImageLayout::UNDEFINED, new);
                        pair.second.record_layout(command, &pair.theirs, to);
                        Ok(())
                    })?;
                }
                // The content before doesn't matter.
                pair.ours.reclaim();
                pair.first.fill_image(&pair.ours, seed, (ImageLayout::UNDEFINED, old))?;
                let ticket = pair.release(old, new)?;
                pair.acquire(ticket, (old, new))?;
                pair.second
                    .check_image(&pair.theirs, seed, new)
                    .with_context(|| format!("{} to {}", old.as_raw(), new.as_raw()))?;
            }
        }
    }
    Ok(())
}

/// There and back, each side writing what the other reads.
fn turns(test_gpu: &TestGpu) -> Result<()> {
    let mut pair = Pair::new(test_gpu, &desc(Format::Rgba8Uint))?;
    let mut back = open(pair.second, pair.first)?;
    let (ours, theirs): (View<'_>, View<'_>) =
        ((pair.first, &pair.ours), (pair.second, &pair.theirs));
    for turn in (0..TURNS).map(|turn| 2 * turn) {
        let ticket = write(ours, turn, &mut pair.there.release)?;
        read(theirs, turn, &mut pair.there.acquire, ticket)
            .with_context(|| format!("turn {turn}"))?;
        let ticket = write(theirs, turn + 1, &mut back.release)?;
        read(ours, turn + 1, &mut back.acquire, ticket)
            .with_context(|| format!("turn {turn}, back"))?;
    }
    Ok(())
}

/// One release and one acquire for a buffer and an image.
fn with_a_buffer(test_gpu: &TestGpu) -> Result<()> {
    const BYTES: u64 = 4096;
    let Pair { first, second, ours, theirs, mut there } =
        Pair::new(test_gpu, &desc(Format::R32Uint))?;
    let (old, new) = (ImageLayout::TRANSFER_DST_OPTIMAL, ImageLayout::TRANSFER_SRC_OPTIMAL);
    let buffer =
        first.endpoint.create_buffer(&BufferDesc::storage(BYTES), BufferOptions::default())?;
    let their_buffer = second.endpoint.import_buffer(buffer.export()?)?;
    let (bound, staging) = (first.bind(buffer.handle(), BYTES)?, ImageIo::new(first, &ours)?);
    staging.fill(9)?;
    let buffers = [BufferAccess::compute(&buffer)];
    let images = [ImageAccess::transfer(&ours).with_layouts(old, new)];
    let used = Accesses::from((&buffers[..], &images[..]));
    let ticket = release(first, &mut there.release, used, |command| {
        first.record(command, Kernel::Fill { seed: 9 }, &bound, 0);
        first.record_layout(command, &ours, (ImageLayout::UNDEFINED, old));
        staging.record_upload(first, command, &ours);
    });
    first.unbind(bound);
    let (ticket, staging) = (ticket?, ImageIo::new(second, &theirs)?);
    staging.wipe()?;
    let buffers = [BufferAccess::transfer(&their_buffer)];
    let images = [ImageAccess::transfer(&theirs).with_layouts(old, new)];
    let used = Accesses::from((&buffers[..], &images[..]));
    acquire(second, &mut there.acquire, ticket, used, |command| {
        staging.record_download(second, command, &theirs);
    })?;
    staging.check(9)?;
    Ok(oracle::check(&second.download(their_buffer.handle(), 0, BYTES)?, 9, &Passes::default())?)
}

/// The second level is handed over; the first keeps its owner and content.
fn part_of_an_image(test_gpu: &TestGpu) -> Result<()> {
    let desc = ImageDesc { levels: 2, ..desc(Format::Rgba8Unorm) };
    let Pair { first, second, ours, theirs, mut there } = Pair::new(test_gpu, &desc)?;
    let (old, new) = (ImageLayout::GENERAL, ImageLayout::TRANSFER_SRC_OPTIMAL);
    first.fill_image(&ours, 1, (ImageLayout::UNDEFINED, old))?;
    let second_level = |image| {
        let all = ImageAccess::transfer(image).with_layouts(old, new);
        let range = vk::ImageSubresourceRange {
            base_mip_level: 1,
            level_count: vk::REMAINING_MIP_LEVELS,
            layer_count: vk::REMAINING_ARRAY_LAYERS,
            ..all.range
        };
        ImageAccess { range, ..all }
    };
    let ticket = release(first, &mut there.release, &[second_level(&ours)], |_| ())?;
    let part = interop_gpu::image::parts(&desc)[1];
    let staging =
        interop_gpu::vulkan::PrivateBuffer::host(&second.vulkan, part.bytes(&desc) as u64)?;
    acquire(second, &mut there.acquire, ticket, &[second_level(&theirs)], |command| {
        let extent = interop_gpu::image::level_extent(&desc, 1);
        let region = vk::BufferImageCopy {
            image_subresource: vk::ImageSubresourceLayers {
                aspect_mask: ImageAspectFlags::COLOR,
                mip_level: 1,
                base_array_layer: 0,
                layer_count: 1,
            },
            image_extent: vk::Extent3D { width: extent.width, height: extent.height, depth: 1 },
            ..Default::default()
        };
        // SAFETY: the command buffer is being recorded; the buffer has room for the level.
        unsafe {
            let (image, to) = (theirs.handle(), staging.buffer);
            second.device().cmd_copy_image_to_buffer(command, image, new, to, &[region]);
        }
    })?;
    let mut found = Vec::new();
    staging.with_bytes(part.bytes(&desc), |bytes| found.extend_from_slice(bytes))?;
    part.check(&desc, 1, &found)
}

/// An acquire with other layouts than the release, or another number of images, is refused, and the ticket
/// is still valid for the right one.
fn another_pair(test_gpu: &TestGpu) -> Result<()> {
    let (old, new) = (ImageLayout::GENERAL, ImageLayout::SHADER_READ_ONLY_OPTIMAL);
    let mut pair = Pair::new(test_gpu, &desc(Format::Rgba8Unorm))?;
    pair.first.fill_image(&pair.ours, 5, (ImageLayout::UNDEFINED, old))?;
    let mut ticket = pair.release(old, new)?;
    let gpu = pair.second;
    let family = gpu.vulkan.queue_family();
    let right = ImageAccess::sampled(&pair.theirs).with_layouts(old, new);
    let one = |access| vec![access];
    for wrong in [
        one(right.with_layouts(new, new)),
        one(right.with_new_layout(old)),
        one(right.with_layouts(ImageLayout::UNDEFINED, new)),
        vec![],
        vec![right, right],
    ] {
        let handoff = &mut pair.there.acquire;
        ticket = gpu.run_with(|command, _| {
            let used = Accesses::from(&wrong);
            let sent = ticket.sequence();
            // SAFETY: the command buffer is being recorded for a queue of that family; nothing is
            // recorded, because the layouts are not those of the release.
            let refused =
                handoff.acquire(ticket, unsafe { VulkanCommands::record(command, family, used) });
            let refused = refused.err().with_context(|| format!("{wrong:?} was acquired"))?;
            let (back, error) = refused.into_parts();
            ensure!(matches!(error, Error::Mismatch(_)), "{wrong:?}: {error:?}");
            ensure!(back.sequence() == sent, "another ticket came back");
            Ok(back)
        })?;
    }
    pair.acquire(ticket, (old, new))?;
    pair.second.check_image(&pair.theirs, 5, new)
}

/// Layouts and ranges that the image can't have, or that can't be acquired.
fn impossible(test_gpu: &TestGpu) -> Result<()> {
    let mut pair = Pair::new(test_gpu, &desc(Format::Rgba8Unorm))?;
    let gpu = pair.first;
    let family = gpu.vulkan.queue_family();
    let general = ImageLayout::GENERAL;
    let good = ImageAccess::transfer(&pair.ours).with_layouts(general, general);
    let range = good.range;
    let with = |range| ImageAccess { range, ..good };
    let depth = ImageAspectFlags::COLOR | ImageAspectFlags::DEPTH;
    for wrong in [
        good.with_new_layout(ImageLayout::UNDEFINED),
        good.with_new_layout(ImageLayout::PREINITIALIZED),
        good.with_layouts(ImageLayout::PREINITIALIZED, general),
        good.with_new_layout(ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL),
        ImageAccess { stage: vk::PipelineStageFlags::empty(), ..good },
        with(vk::ImageSubresourceRange { level_count: 2, ..range }),
        with(vk::ImageSubresourceRange { level_count: 0, ..range }),
        with(vk::ImageSubresourceRange { base_mip_level: 1, ..range }),
        with(vk::ImageSubresourceRange { base_array_layer: u32::MAX, ..range }),
        with(vk::ImageSubresourceRange { aspect_mask: depth, ..range }),
    ] {
        let handoff = &mut pair.there.release;
        gpu.run(|command| {
            // SAFETY: the command buffer is being recorded for a queue of that family; nothing is
            // recorded, because the image can't be in this state.
            match handoff.release(unsafe {
                VulkanCommands::record(command, family, std::slice::from_ref(&wrong))
            }) {
                Err(Error::Invalid(refused)) => ensure!(refused.vuid.is_some(), "{refused}"),
                Err(other) => bail!("{wrong:?}: {other:?}"),
                Ok(_) => bail!("{wrong:?} was released"),
            }
            Ok(())
        })?;
    }
    // None of them is in flight: the next release is the first.
    let sampled = ImageLayout::SHADER_READ_ONLY_OPTIMAL;
    pair.first.fill_image(&pair.ours, 6, (ImageLayout::UNDEFINED, general))?;
    let ticket = pair.release(general, sampled)?;
    ensure!(ticket.sequence() == 1, "sequence number {}", ticket.sequence());
    pair.acquire(ticket, (general, sampled))?;
    pair.second.check_image(&pair.theirs, 6, sampled)
}

/// A device records barriers for its own images only.
fn of_another_device(test_gpu: &TestGpu) -> Result<()> {
    let pair = Pair::new(test_gpu, &desc(Format::Rgba8Unorm))?;
    let general = ImageLayout::GENERAL;
    let used = [ImageAccess::compute(&pair.theirs).with_layouts(general, general)];
    let gpu = pair.first;
    gpu.run(|command| {
        // SAFETY: the command buffer is being recorded; nothing is recorded, because the image
        // is of another device.
        match unsafe { gpu.endpoint.record_acquire(command, gpu.vulkan.queue_family(), &used) } {
            Err(Error::Invalid(refused)) => ensure!(refused.parameter == "images", "{refused}"),
            other => bail!("{other:?}"),
        }
        Ok(())
    })
}

/// Synchronisation validation finds no hazard between copies, draws and fetches and the library's barriers.
fn no_hazard(test_gpu: &TestGpu) -> Result<()> {
    let log = ValidationLog::default();
    let first = VulkanContext::new(log.open(test_gpu.selector(), true)?)?;
    let second = VulkanContext::new(log.open(test_gpu.selector(), true)?)?;
    for (shape, format) in [
        (Shape::MipChain, Format::Rgba8Unorm),
        (Shape::D2, Format::D32Float),
        (Shape::Multisample, Format::Rgba8Uint),
        (Shape::Multisample, Format::D16Unorm),
    ] {
        let desc = desc_of(format, Tiling::Optimal, shape, SIZES[0]);
        there_and_back(&first, &second, &desc, ImageOptions::default())
            .with_context(|| format!("{shape:?}, {format:?}"))?;
        log.require_silence()?;
    }
    Ok(())
}
